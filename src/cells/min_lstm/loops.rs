//! The equations of a minLSTM, applied to all units of a step: rows `[N, 3 H]` of the gates and of what could be written.

use super::equations;
use crate::cells::units::for_each_unit;
use crate::kernels::{Float, vectorised};

vectorised! {
    /// 1 - f and 1 - i in place of their a; f' and i' in `shares`; h.
    pub(super) fn update<'a, F: Float>(
        hidden: usize,
        gates: &'a mut [F],
        shares: &'a mut [F],
        h_before: &'a [F],
        h: &'a mut [F]
    ) {
        for_each_unit! {
            rows: h.len() / hidden, units: hidden, <F>;
            write {
                gates: [a_f => not_f, a_i => not_i, n];
                shares: [_forget => forget, _input => input];
                h: [_h => h];
            }
            read { h_before: [h_before]; }
            same {}
            let [not_f, not_i, forget, input, h] = equations::update(a_f, a_i, n, h_before);
        }
    }

    /// The gates' da in place of 1 - f and 1 - i, dn in place of n, and dh before the step in place of dh after it.
    pub(super) fn update_backward<'a, F: Float>(
        hidden: usize,
        gates: &'a mut [F],
        shares: &'a [F],
        h_before: &'a [F],
        dh: &'a mut [F]
    ) {
        for_each_unit! {
            rows: dh.len() / hidden, units: hidden, <F>;
            write { gates: [not_f => da_f, not_i => da_i, n => dn]; dh: [dh => dh_before]; }
            read { shares: [forget, input]; h_before: [h_before]; }
            same {}
            let [da_f, da_i, dn, dh_before] =
                equations::update_backward(dh, [not_f, not_i], [forget, input], n, h_before);
        }
    }
}
