//! The equations of a minLSTM, applied to all units of a step: rows `[N, 3 H]` of the gates and the candidate.

use super::equations;
use crate::cells::units::for_each_unit;
use crate::kernels::{Float, vectorised};

vectorised! {
    /// Replaces a_f and a_i by 1 - f and 1 - i; writes f' and i' to `shares`, and h.
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

    /// Replaces 1 - f and 1 - i by the gates' da, n by dn, and dh after the step by dh before it.
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
