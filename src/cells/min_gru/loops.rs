//! The equations of a minGRU, applied to all units of a step: rows `[N, 2 H]` of the gate and the candidate.

use super::equations;
use crate::cells::units::for_each_unit;
use crate::kernels::{Float, vectorised};

vectorised! {
    /// Replaces a_z by z; writes h.
    pub(super) fn update<'a, F: Float>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], h: &'a mut [F]) {
        for_each_unit! {
            rows: h.len() / hidden, units: hidden, <F>;
            write { gates: [a_z => z, n]; h: [_h => h]; }
            read { h_before: [h_before]; }
            same {}
            let [z, h] = equations::update(a_z, n, h_before);
        }
    }

    /// Replaces z by da_z, n by dn, and dh after the step by dh before it.
    pub(super) fn update_backward<'a, F: Float>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], dh: &'a mut [F]) {
        for_each_unit! {
            rows: dh.len() / hidden, units: hidden, <F>;
            write { gates: [z => da_z, n => dn]; dh: [dh => dh_before]; }
            read { h_before: [h_before]; }
            same {}
            let [da_z, dn, dh_before] = equations::update_backward(dh, z, n, h_before);
        }
    }
}
