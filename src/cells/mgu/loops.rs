//! The equations of an MGU, applied to all units of a step: rows `[N, 2 H]` of gates.

use super::equations;
use crate::cells::units::for_each_unit;
use crate::kernels::{Float, vectorised};

vectorised! {
    /// Replaces a_f by f; writes v.
    pub(super) fn forget<'a, F: Float>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], v: &'a mut [F]) {
        for_each_unit! {
            rows: v.len() / hidden, units: hidden, <F>;
            write { gates: [a_f => f, _n]; v: [_v => v]; }
            read { h_before: [h_before]; }
            same {}
            let [f, v] = equations::forget(a_f, h_before);
        }
    }

    /// After that, replaces a_n by n; writes h.
    pub(super) fn update<'a, F: Float>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], h: &'a mut [F]) {
        for_each_unit! {
            rows: h.len() / hidden, units: hidden, <F>;
            write { gates: [f, a_n => n]; h: [_h => h]; }
            read { h_before: [h_before]; }
            same {}
            let [n, h] = equations::update(a_n, f, h_before);
        }
    }

    /// Replaces n by da_n, and dh by dh_direct; writes the part of df that comes from h.
    pub(super) fn update_backward<'a, F: Float>(
        hidden: usize,
        gates: &'a mut [F],
        h_before: &'a [F],
        dh: &'a mut [F],
        df: &'a mut [F]
    ) {
        for_each_unit! {
            rows: dh.len() / hidden, units: hidden, <F>;
            write { gates: [f, n => da_n]; dh: [dh => dh_direct]; df: [_df => df_of_h]; }
            read { h_before: [h_before]; }
            same {}
            let [da_n, df_of_h, dh_direct] = equations::update_backward(dh, f, n, h_before);
        }
    }

    /// After that, replaces f by da_f, and dh_direct by dh before the step, without the part that comes through a_f.
    pub(super) fn forget_backward<'a, F: Float>(
        hidden: usize,
        gates: &'a mut [F],
        h_before: &'a [F],
        df: &'a [F],
        dv: &'a [F],
        dh: &'a mut [F]
    ) {
        for_each_unit! {
            rows: dh.len() / hidden, units: hidden, <F>;
            write { gates: [f => da_f, _n]; dh: [dh_direct => dh_before]; }
            read { h_before: [h_before]; df: [df_of_h]; dv: [dv]; }
            same {}
            let [da_f, dh_before] = equations::forget_backward(dv, df_of_h, dh_direct, f, h_before);
        }
    }
}
