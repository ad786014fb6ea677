//! The equations of a GRU, applied to all units of a step: rows `[N, 3 H]` of gates.

use super::equations;
use crate::cells::activations::activated;
use crate::cells::units::for_each_unit;
use crate::kernels::Float;

activated! {
    /// Replaces a_r and a_z by the kept r and z.
    pub(super) fn gate<'a, F: Float; act: A>(hidden: usize, gates: &'a mut [F]) {
        for_each_unit! {
            rows: gates.len() / (3 * hidden), units: hidden, <F>, act: A;
            write { gates: [a_r => r, a_z => z, _n]; }
            read {}
            same {}
            let [r, z] = equations::gates(act, a_r, a_z);
        }
    }

    /// After that, with the reset after the product: replaces a_n by the kept n; writes h. A separate loop, because one chain of
    /// dependent operations from r to h would be too long for the next units to overlap with it.
    pub(super) fn reset_and_update<'a, F: Float; act: A>(
        hidden: usize,
        gates: &'a mut [F],
        s: &'a [F],
        h_before: &'a [F],
        h: &'a mut [F]
    ) {
        for_each_unit! {
            rows: h.len() / hidden, units: hidden, <F>, act: A;
            write { gates: [r, z, a_n => n]; h: [_h => h]; }
            read { s: [s]; h_before: [h_before]; }
            same {}
            let [n, h] = equations::update(act, a_n + equations::reset(act, r, s), z, h_before);
        }
    }

    /// Replaces the kept values of all gates by their da, s by ds, and dh by dh_direct.
    pub(super) fn reset_and_update_backward<'a, F: Float; act: A>(
        hidden: usize,
        gates: &'a mut [F],
        s: &'a mut [F],
        h_before: &'a [F],
        dh: &'a mut [F]
    ) {
        for_each_unit! {
            rows: dh.len() / hidden, units: hidden, <F>, act: A;
            write { gates: [r => da_r, z => da_z, n => da_n]; s: [s => ds]; dh: [dh => dh_direct]; }
            read { h_before: [h_before]; }
            same {}
            let [da_z, da_n, dh_direct] = equations::update_backward(act, dh, z, n, h_before);
            let [da_r, ds] = equations::reset_backward(act, da_n, r, s);
        }
    }

    /// With the reset before the product: writes v, the input of the product.
    pub(super) fn reset_before<'a, F: Float; act: A>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], v: &'a mut [F]) {
        for_each_unit! {
            rows: v.len() / hidden, units: hidden, <F>, act: A;
            write { gates: [r, _z, _n]; v: [_v => v]; }
            read { h_before: [h_before]; }
            same {}
            let v = equations::reset(act, r, h_before);
        }
    }

    /// After that, replaces a_n by the kept n; writes h.
    pub(super) fn update_after<'a, F: Float; act: A>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], h: &'a mut [F]) {
        for_each_unit! {
            rows: h.len() / hidden, units: hidden, <F>, act: A;
            write { gates: [_r, z, a_n => n]; h: [_h => h]; }
            read { h_before: [h_before]; }
            same {}
            let [n, h] = equations::update(act, a_n, z, h_before);
        }
    }

    /// Replaces the kept z and n by their da, and dh by dh_direct.
    pub(super) fn update_after_backward<'a, F: Float; act: A>(
        hidden: usize,
        gates: &'a mut [F],
        h_before: &'a [F],
        dh: &'a mut [F]
    ) {
        for_each_unit! {
            rows: dh.len() / hidden, units: hidden, <F>, act: A;
            write { gates: [_r, z => da_z, n => da_n]; dh: [dh => dh_direct]; }
            read { h_before: [h_before]; }
            same {}
            let [da_z, da_n, dh_direct] = equations::update_backward(act, dh, z, n, h_before);
        }
    }

    /// Replaces the kept r by da_r, and computes `dh += ds`, where s is h before the step.
    pub(super) fn reset_before_backward<'a, F: Float; act: A>(
        hidden: usize,
        gates: &'a mut [F],
        h_before: &'a [F],
        dv: &'a [F],
        dh: &'a mut [F]
    ) {
        for_each_unit! {
            rows: dh.len() / hidden, units: hidden, <F>, act: A;
            write { gates: [r => da_r, _z, _n]; dh: [dh_direct => dh_before]; }
            read { h_before: [h_before]; dv: [dv]; }
            same {}
            let [da_r, ds] = equations::reset_backward(act, dv, r, h_before);
            let dh_before = dh_direct + ds;
        }
    }
}
