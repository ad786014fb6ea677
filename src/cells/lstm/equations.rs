//! The equations of an LSTM's unit, forward and backward.
//!
//! A step gets the sums `a_i, a_f, a_g, a_o` from x and h, and the memory before it, `c⁻`. It gives c and `m`, which is h or, with
//! a projection, its input. `p` are the peepholes' weights, 0 without peepholes:
//!
//! ```text
//! i = σ(a_i + p_i c⁻)    f = σ(a_f + p_f c⁻)    g = tanh(a_g)    c = f c⁻ + i g
//! o = σ(a_o + p_o c)     m = o tanh(u)          u = c, or what layer normalisation makes of c
//! ```
//!
//! Options replace σ and both tanh by other functions: [`Activations`].
//!
//! The loss depends on c through u, through the output gate's peephole and through the next step, which left `dc⁺`. With
//! `dy = dL/dy`, the chain rule gives the following from `dm` and `dc⁺`, where `σ'(y) = y (1 - y)` and `tanh'(y) = 1 - y²` are
//! functions of the values y:
//!
//! ```text
//! da_o = dm tanh(u) σ'(o)    du = dm o tanh'(tanh(u))    dc = dc⁺ + du + p_o da_o        (if u = c)
//! da_i = dc g σ'(i)          da_f = dc c⁻ σ'(f)    da_g = dc i tanh'(g)
//! dc⁻ = dc f + p_i da_i + p_f da_f
//! ```
//!
//! If the gates are coupled, `f = 1 - i`, so the forget gate's gradient goes to the input gate, negated, and `da_f = 0`:
//! `da_i = dc (g - c⁻) σ'(i)`.

use crate::cells::activations::Activations;
use crate::kernels::Float;
use crate::kernels::math::Fraction;

/// The options that change the equations.
pub(super) trait Variant {
    const COUPLED: bool;
    const PEEPHOLES: bool;
}

/// The kept i, f and g, and c.
#[inline(always)]
pub(super) fn memory<F: Float, V: Variant, A: Activations<F>>(
    act: A,
    [a_i, a_f, a_g]: [F; 3],
    [p_i, p_f]: [F; 2],
    c_before: F,
) -> [F; 4] {
    let (a_i, a_f) = (peek::<F, V>(a_i, p_i, c_before), peek::<F, V>(a_f, p_f, c_before));
    let (i, f, g);
    if V::COUPLED {
        [i, g] = act.values([act.gate(a_i), act.candidate(a_g)]);
        f = F::one() - i;
    } else {
        [i, f, g] = act.values([act.gate(a_i), act.gate(a_f), act.candidate(a_g)]);
    }
    [act.kept(a_i, i), act.kept(a_f, f), act.kept(a_g, g), f * c_before + i * g]
}

/// The kept o, and m.
#[inline(always)]
pub(super) fn output<F: Float, V: Variant, A: Activations<F>>(act: A, a_o: F, p_o: F, c: F, u: F) -> [F; 2] {
    let a_o = peek::<F, V>(a_o, p_o, c);
    let [o, tanh_u] = act.values([act.gate(a_o), act.output(u)]);
    [act.kept(a_o, o), o * tanh_u]
}

/// c and h of a plain LSTM, from its gates as fractions: for a stream, in which the chain of dependent operations should be short.
#[inline(always)]
pub(super) fn step<F: Float>([i, f, g, o]: [Fraction<F>; 4], c_before: F) -> [F; 2] {
    let c = (f * c_before + i * g).value();
    [c, (o * Fraction::tanh(c)).value()]
}

/// da_o and du, from the kept o.
#[inline(always)]
pub(super) fn output_backward<F: Float, A: Activations<F>>(act: A, dm: F, kept_o: F, u: F) -> [F; 2] {
    let ([o, d_o], [tanh_u, d_tanh_u]) = (act.gate_slope(kept_o), act.output_slope(u));
    [dm * tanh_u * d_o, dm * o * d_tanh_u]
}

/// dc, from `dc⁺ + du`: adds the part that comes through the output gate's peephole.
#[inline(always)]
pub(super) fn add_peephole_gradient<F: Float, V: Variant>(dc_without_peephole: F, p_o: F, da_o: F) -> F {
    if V::PEEPHOLES { dc_without_peephole + p_o * da_o } else { dc_without_peephole }
}

/// da_i, da_f, da_g and dc⁻, from the kept i, f and g.
#[inline(always)]
pub(super) fn memory_backward<F: Float, V: Variant, A: Activations<F>>(
    act: A,
    dc: F,
    [kept_i, kept_f, kept_g]: [F; 3],
    [p_i, p_f]: [F; 2],
    c_before: F,
) -> [F; 4] {
    let ([i, d_i], [g, d_g]) = (act.gate_slope(kept_i), act.candidate_slope(kept_g));
    // With coupled gates, f is not stored.
    let ([f, d_f], df) =
        if V::COUPLED { ([F::one() - i, F::zero()], F::zero()) } else { (act.gate_slope(kept_f), dc * c_before) };
    let di = if V::COUPLED { dc * (g - c_before) } else { dc * g };
    let (da_i, da_f, da_g) = (di * d_i, df * d_f, dc * i * d_g);
    let mut dc_before = dc * f;
    if V::PEEPHOLES {
        dc_before += p_i * da_i + p_f * da_f;
    }
    [da_i, da_f, da_g, dc_before]
}

/// A gate's sum with its peephole.
#[inline(always)]
fn peek<F: Float, V: Variant>(a: F, p: F, c: F) -> F {
    if V::PEEPHOLES { a + p * c } else { a }
}
