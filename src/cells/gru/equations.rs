//! The equations of a GRU's unit, forward and backward.
//!
//! A step is given the sums `a_r, a_z, a_n` of what comes from x and from h, and the state before it, `h⁻`. The reset gate
//! acts on `s`: after the product `s = W_hn h⁻ + b_hn`, and then `a_n` has no part of h yet; before the product `s = h⁻`, and
//! `a_n` has `W_hn v` in it.
//!
//! ```text
//! r = σ(a_r)    z = σ(a_z)    v = r s
//! n = tanh(a_n + v)           (before the product: n = tanh(a_n))
//! h = (1 - z) n + z h⁻ = n + z (h⁻ - n)
//! ```
//!
//! With `dy = dL/dy`, the chain rule gives, from `dh`:
//!
//! ```text
//! da_n = dh (1 - z) tanh'(n)    da_z = dh (h⁻ - n) σ'(z)    dh⁻ = dh z + what comes through the sums and through s
//! dv = da_n                     (before the product: dv = W_hnᵀ da_n)
//! da_r = dv s σ'(r)             ds = dv r
//! ```

use crate::kernels::Float;
use crate::kernels::derivatives::{d_sigmoid, d_tanh};
use crate::kernels::math::{Fraction, share_division, sigmoid_fraction, tanh};

/// r and z.
#[inline(always)]
pub(super) fn gates<F: Float>(a_r: F, a_z: F) -> [F; 2] {
    share_division([sigmoid_fraction(a_r), sigmoid_fraction(a_z)])
}

/// v.
#[inline(always)]
pub(super) fn reset<F: Float>(r: F, s: F) -> F {
    r * s
}

/// n and h.
#[inline(always)]
pub(super) fn update<F: Float>(a_n: F, z: F, h_before: F) -> [F; 2] {
    let n = tanh(a_n);
    [n, n + z * (h_before - n)]
}

/// h of a GRU that resets after the product, from its gates as fractions: for a stream, where it counts how few operations
/// wait for each other.
#[inline(always)]
pub(super) fn step<F: Float>([r, z]: [Fraction<F>; 2], s: F, a_n: F, h_before: F) -> F {
    let n = Fraction::tanh(a_n + (r * s).value()).value();
    n + z.value() * (h_before - n)
}

/// da_z, da_n and the part of dh⁻ that is not behind a sum.
#[inline(always)]
pub(super) fn update_backward<F: Float>(dh: F, z: F, n: F, h_before: F) -> [F; 3] {
    let (dz, dn) = (dh * (h_before - n), dh * (F::one() - z));
    [dz * d_sigmoid(z), dn * d_tanh(n), dh * z]
}

/// da_r and ds.
#[inline(always)]
pub(super) fn reset_backward<F: Float>(dv: F, r: F, s: F) -> [F; 2] {
    [dv * s * d_sigmoid(r), dv * r]
}
