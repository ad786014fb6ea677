//! The equations of an sLSTM, applied to all units of a step: rows `[N, 4 H]` of gates, and `[N, 3 H]` of c, n and m.

use super::equations::{self, Variant};
use crate::cells::units::{for_each_unit, with_switches};
use crate::kernels::{Float, vectorised};

struct Switches<const EXPONENTIAL: bool>;

impl<const EXPONENTIAL: bool> Variant for Switches<EXPONENTIAL> {
    const EXPONENTIAL: bool = EXPONENTIAL;
}

vectorised! {
    /// Replaces a_i, a_f and a_z by i, f and z; writes the forget gate's slope, and c, n and m.
    pub(super) fn memory<'a, F: Float>(
        hidden: usize,
        exponential: bool,
        gates: &'a mut [F],
        slope: &'a mut [F],
        before: &'a [F],
        memory: &'a mut [F]
    ) {
        with_switches!([exponential]; [exponential] => V in for_each_unit! {
            rows: memory.len() / (3 * hidden), units: hidden, <F, V: Variant>;
            write {
                gates: [a_i => i, a_f => f, a_z => z, _o];
                slope: [_slope => slope if !V::EXPONENTIAL];
                memory: [_c => c, _n => n, _m => m];
            }
            read { before: [c_before, n_before, m_before]; }
            same {}
            let [i, f, z, slope, c, n, m] =
                equations::memory::<F, V>([a_i, a_f, a_z], [c_before, n_before, m_before]);
        });
    }

    /// Replaces a_o by o; writes h.
    pub(super) fn output<'a, F: Float>(hidden: usize, gates: &'a mut [F], memory: &'a [F], h: &'a mut [F]) {
        for_each_unit! {
            rows: h.len() / hidden, units: hidden, <F>;
            write { gates: [_i, _f, _z, a_o => o]; h: [_h => h]; }
            read { memory: [c, n, _m]; }
            same {}
            let [o, h] = equations::output(a_o, c, n);
        }
    }

    /// Replaces the gates' values by their da, and dc, dn and dm after the step by those before it.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward<'a, F: Float>(
        hidden: usize,
        exponential: bool,
        gates: &'a mut [F],
        slope: &'a [F],
        before: &'a [F],
        memory: &'a [F],
        dh: &'a [F],
        dmemory: &'a mut [F]
    ) {
        with_switches!([exponential]; [exponential] => V in for_each_unit! {
            rows: dh.len() / hidden, units: hidden, <F, V: Variant>;
            write {
                gates: [i => da_i, f => da_f, z => da_z, o => da_o];
                dmemory: [dc => dc_before, dn => dn_before, dm => dm_before];
            }
            read {
                slope: [slope if !V::EXPONENTIAL];
                before: [c_before, n_before, _m_before];
                memory: [c, n, _m];
                dh: [dh];
            }
            same {}
            let [da_i, da_f, da_z, da_o, dc_before, dn_before, dm_before] = equations::backward::<F, V>(
                dh,
                [i, f, z, o],
                slope,
                [c_before, n_before],
                [c, n],
                [dc, dn, dm],
            );
        });
    }
}

/// dc, dn and dm of each row, including the part that comes through h.
pub(super) fn memory_gradients<F: Float>(hidden: usize, gates: &[F], memory: &[F], dh: &[F], dmemory: &[F]) -> Vec<F> {
    let mut all = dmemory.to_vec();
    for (r, row) in all.chunks_exact_mut(3 * hidden).enumerate() {
        let (gates, memory, dh) = (&gates[r * 4 * hidden..], &memory[r * 3 * hidden..], &dh[r * hidden..]);
        for k in 0..hidden {
            let (o, seen) = (gates[3 * hidden + k], [memory[k], memory[hidden + k]]);
            let [dc, dn] = equations::memory_gradients(dh[k], o, seen, [row[k], row[hidden + k]]);
            (row[k], row[hidden + k]) = (dc, dn);
        }
    }
    all
}
