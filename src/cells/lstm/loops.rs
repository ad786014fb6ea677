//! The equations of an LSTM, applied to all units of a step: rows `[N, 4 H]` of gates, `[N, 3 H]` if they are coupled.

use super::equations::{self, Variant};
use crate::cells::activations::{Chosen, Standard, activated};
use crate::cells::units::{for_each_unit, with_switches};
use crate::kernels::{Float, vectorised};

struct Switches<const COUPLED: bool, const PEEPHOLES: bool>;

impl<const COUPLED: bool, const PEEPHOLES: bool> Variant for Switches<COUPLED, PEEPHOLES> {
    const COUPLED: bool = COUPLED;
    const PEEPHOLES: bool = PEEPHOLES;
}

/// The options that change the equations, besides the activations.
#[derive(Clone, Copy)]
pub(super) struct Equations {
    pub coupled: bool,
    pub peepholes: bool,
}

#[inline(always)]
fn switches(Equations { coupled, peepholes }: Equations) -> [bool; 2] {
    [coupled, peepholes]
}

activated! {
    /// Replaces a_i, a_f and a_g by the kept i, f and g; writes c.
    pub(super) fn memory<'a, F: Float; act: A>(
        hidden: usize,
        equations: Equations,
        gates: &'a mut [F],
        peephole: &'a [F],
        c_before: &'a [F],
        c: &'a mut [F]
    ) {
        with_switches!(switches(equations); [coupled, peepholes] => V in for_each_unit! {
            rows: c.len() / hidden, units: hidden, <F, V: Variant>, act: A;
            write { gates: [a_i => i, a_f => f if !V::COUPLED, a_g => g, _o]; c: [_c => c]; }
            read { c_before: [c_before]; }
            same { peephole: [p_i if V::PEEPHOLES, p_f if V::PEEPHOLES && !V::COUPLED]; }
            let [i, f, g, c] = equations::memory::<F, V, A>(act, [a_i, a_f, a_g], [p_i, p_f], c_before);
        });
    }

    /// Replaces a_o by the kept o; writes m. A separate loop, because one chain of dependent operations from i to m would be too
    /// long for the next units to overlap with it.
    pub(super) fn output<'a, F: Float; act: A>(
        hidden: usize,
        equations: Equations,
        gates: &'a mut [F],
        peephole: &'a [F],
        c: &'a [F],
        u: &'a [F],
        m: &'a mut [F]
    ) {
        with_switches!(switches(equations); [coupled, peepholes] => V in for_each_unit! {
            rows: m.len() / hidden, units: hidden, <F, V: Variant>, act: A;
            write { gates: [_i, _f if !V::COUPLED, _g, a_o => o]; m: [_m => m]; }
            read { c: [c]; u: [u]; }
            same { peephole: [_p_i if V::PEEPHOLES, _p_f if V::PEEPHOLES && !V::COUPLED, p_o if V::PEEPHOLES]; }
            let [o, m] = equations::output::<F, V, A>(act, a_o, p_o, c, u);
        });
    }

    /// If u = c: replaces the kept values of all gates by their da, and dc after the step by dc before it.
    pub(super) fn backward<'a, F: Float; act: A>(
        hidden: usize,
        equations: Equations,
        gates: &'a mut [F],
        peephole: &'a [F],
        c_before: &'a [F],
        c: &'a [F],
        dm: &'a [F],
        dc: &'a mut [F]
    ) {
        with_switches!(switches(equations); [coupled, peepholes] => V in for_each_unit! {
            rows: dc.len() / hidden, units: hidden, <F, V: Variant>, act: A;
            write { gates: [i => da_i, f => da_f if !V::COUPLED, g => da_g, o => da_o]; dc: [dc_after => dc_before]; }
            read { c_before: [c_before]; c: [c]; dm: [dm]; }
            same { peephole: [p_i if V::PEEPHOLES, p_f if V::PEEPHOLES && !V::COUPLED, p_o if V::PEEPHOLES]; }
            let [da_o, du] = equations::output_backward(act, dm, o, c);
            let dc = equations::add_peephole_gradient::<F, V>(dc_after + du, p_o, da_o);
            let [da_i, da_f, da_g, dc_before] = equations::memory_backward::<F, V, A>(act, dc, [i, f, g], [p_i, p_f], c_before);
        });
    }

    /// First part if u is not c: replaces the kept o by da_o, and u by du.
    pub(super) fn output_backward<'a, F: Float; act: A>(
        hidden: usize,
        equations: Equations,
        gates: &'a mut [F],
        dm: &'a [F],
        u: &'a mut [F]
    ) {
        with_switches!(switches(equations); [coupled, peepholes] => V in for_each_unit! {
            rows: dm.len() / hidden, units: hidden, <F, V: Variant>, act: A;
            write { gates: [_i, _f if !V::COUPLED, _g, o => da_o]; u: [u => du]; }
            read { dm: [dm]; }
            same {}
            let [da_o, du] = equations::output_backward(act, dm, o, u);
        });
    }

    /// Second part if u is not c: replaces the kept values of the other gates by their da, and `dc⁺ + du` by dc before the step.
    pub(super) fn memory_backward<'a, F: Float; act: A>(
        hidden: usize,
        equations: Equations,
        gates: &'a mut [F],
        peephole: &'a [F],
        c_before: &'a [F],
        dc: &'a mut [F]
    ) {
        with_switches!(switches(equations); [coupled, peepholes] => V in for_each_unit! {
            rows: dc.len() / hidden, units: hidden, <F, V: Variant>, act: A;
            write { gates: [i => da_i, f => da_f if !V::COUPLED, g => da_g, da_o]; dc: [dc_without_peephole => dc_before]; }
            read { c_before: [c_before]; }
            same { peephole: [p_i if V::PEEPHOLES, p_f if V::PEEPHOLES && !V::COUPLED, p_o if V::PEEPHOLES]; }
            let dc = equations::add_peephole_gradient::<F, V>(dc_without_peephole, p_o, da_o);
            let [da_i, da_f, da_g, dc_before] = equations::memory_backward::<F, V, A>(act, dc, [i, f, g], [p_i, p_f], c_before);
        });
    }

}

vectorised! {
    /// sum += a ∘ b, for rows of the length of `sum`; the rows of `a` are `stride` apart.
    pub(super) fn add_products<'a, F: Float>(stride: usize, a: &'a [F], b: &'a [F], sum: &'a mut [F]) {
        let width = sum.len();
        for (a, b) in a.chunks(stride).zip(b.chunks_exact(width)) {
            let a = &a[..width];
            for k in 0..width {
                sum[k] += a[k] * b[k];
            }
        }
    }
}

/// dL/dc_t of each unit, for a [`GradientProbe`](crate::wrap::GradientProbe), from the arguments of [`backward`] or, if `dm` is
/// `None`, of [`memory_backward`].
pub(super) fn memory_gradients<'a, F: Float>(
    chosen: Option<&'a Chosen>,
    hidden: usize,
    gates: &'a [F],
    peephole: &'a [F],
    c: &'a [F],
    dm: Option<&'a [F]>,
    dc: &'a [F],
) -> impl Iterator<Item = F> + 'a {
    let width = gates.len() / c.len() * hidden;
    let p_o = &peephole[peephole.len().saturating_sub(hidden)..];
    (0..c.len()).map(move |k| {
        let o = gates[k / hidden * width + width - hidden + k % hidden];
        let (da_o, dc_without_peephole) = match dm {
            Some(dm) => {
                let [da_o, du] = match chosen {
                    None => equations::output_backward(Standard, dm[k], o, c[k]),
                    Some(chosen) => equations::output_backward(chosen, dm[k], o, c[k]),
                };
                (da_o, dc[k] + du)
            }
            None => (o, dc[k]), // the gate holds its da by then
        };
        match p_o.get(k % hidden) {
            Some(&p_o) => equations::add_peephole_gradient::<F, Switches<false, true>>(dc_without_peephole, p_o, da_o),
            None => equations::add_peephole_gradient::<F, Switches<false, false>>(dc_without_peephole, F::zero(), da_o),
        }
    })
}
