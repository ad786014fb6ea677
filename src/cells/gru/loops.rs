//! The equations of a GRU, applied to all units of a step: rows `[N, 3 H]` of gates.

use super::equations;
use crate::cells::activations::activated;
use crate::cells::units::for_each_unit;
use crate::kernels::Float;

activated! {
    /// What is kept of r and z in place of their a.
    pub(super) fn gate<'a, F: Float; act: A>(hidden: usize, gates: &'a mut [F]) {
        for_each_unit! {
            rows: gates.len() / (3 * hidden), units: hidden, <F>, act: A;
            write { gates: [a_r => r, a_z => z, _n]; }
            read {}
            same {}
            let [r, z] = equations::gates(act, a_r, a_z);
        }
    }

    /// With the reset after the product, then: what is kept of n in place of its a; h. A loop of its own: one chain from r to h would be too
    /// long for the next units to begin meanwhile.
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

    /// The da of all gates in place of what is kept of them, ds in place of s, and dh_direct in place of dh.
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

    /// With the reset before the product: v, what the product is given.
    pub(super) fn reset_before<'a, F: Float; act: A>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], v: &'a mut [F]) {
        for_each_unit! {
            rows: v.len() / hidden, units: hidden, <F>, act: A;
            write { gates: [r, _z, _n]; v: [_v => v]; }
            read { h_before: [h_before]; }
            same {}
            let v = equations::reset(act, r, h_before);
        }
    }

    /// And then what is kept of n in place of its a; h.
    pub(super) fn update_after<'a, F: Float; act: A>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], h: &'a mut [F]) {
        for_each_unit! {
            rows: h.len() / hidden, units: hidden, <F>, act: A;
            write { gates: [_r, z, a_n => n]; h: [_h => h]; }
            read { h_before: [h_before]; }
            same {}
            let [n, h] = equations::update(act, a_n, z, h_before);
        }
    }

    /// The da of z and n in place of what is kept of them, and dh_direct in place of dh.
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

    /// The da of r in place of what is kept of it, and `dh += ds`, s being h before the step.
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
