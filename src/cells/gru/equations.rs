//! The equations of a GRU's unit, forward and backward.
//!
//! A step gets the sums `a_r, a_z, a_n` from x and h, and the state before it, `h⁻`. The reset gate acts on `s`. If it acts after
//! the product, `s = W_hn h⁻ + b_hn`, and `a_n` does not contain a part of h yet; if before, `s = h⁻`, and `a_n` contains `W_hn v`.
//!
//! ```text
//! r = σ(a_r)    z = σ(a_z)    v = r s
//! n = tanh(a_n + v)           (before the product: n = tanh(a_n))
//! h = (1 - z) n + z h⁻ = n + z (h⁻ - n)
//! ```
//!
//! Options replace σ and tanh by other functions: [`Activations`].
//!
//! With `dy = dL/dy`, the chain rule gives, from `dh`:
//!
//! ```text
//! da_n = dh (1 - z) tanh'(n)    da_z = dh (h⁻ - n) σ'(z)    dh⁻ = dh z + what comes through the sums and through s
//! dv = da_n                     (before the product: dv = W_hnᵀ da_n)
//! da_r = dv s σ'(r)             ds = dv r
//! ```

use crate::cells::activations::Activations;
use crate::kernels::Float;
use crate::kernels::math::Fraction;

/// The kept r and z.
#[inline(always)]
pub(super) fn gates<F: Float, A: Activations<F>>(act: A, a_r: F, a_z: F) -> [F; 2] {
    let [r, z] = act.values([act.gate(a_r), act.gate(a_z)]);
    [act.kept(a_r, r), act.kept(a_z, z)]
}

/// v.
#[inline(always)]
pub(super) fn reset<F: Float, A: Activations<F>>(act: A, kept_r: F, s: F) -> F {
    act.gate_value(kept_r) * s
}

/// The kept n, and h.
#[inline(always)]
pub(super) fn update<F: Float, A: Activations<F>>(act: A, a_n: F, kept_z: F, h_before: F) -> [F; 2] {
    let (n, z) = (act.value(act.candidate(a_n)), act.gate_value(kept_z));
    [act.kept(a_n, n), n + z * (h_before - n)]
}

/// h of a GRU that resets after the product, from its gates as fractions: for a stream, in which the chain of dependent operations
/// should be short.
#[inline(always)]
pub(super) fn step<F: Float>([r, z]: [Fraction<F>; 2], s: F, a_n: F, h_before: F) -> F {
    let n = Fraction::tanh(a_n + (r * s).value()).value();
    n + z.value() * (h_before - n)
}

/// da_z, da_n and the part of dh⁻ that does not come through a sum.
#[inline(always)]
pub(super) fn update_backward<F: Float, A: Activations<F>>(act: A, dh: F, kept_z: F, kept_n: F, h_before: F) -> [F; 3] {
    let ([z, d_z], [n, d_n]) = (act.gate_slope(kept_z), act.candidate_slope(kept_n));
    let (dz, dn) = (dh * (h_before - n), dh * (F::one() - z));
    [dz * d_z, dn * d_n, dh * z]
}

/// da_r and ds.
#[inline(always)]
pub(super) fn reset_backward<F: Float, A: Activations<F>>(act: A, dv: F, kept_r: F, s: F) -> [F; 2] {
    let [r, d_r] = act.gate_slope(kept_r);
    [dv * s * d_r, dv * r]
}
