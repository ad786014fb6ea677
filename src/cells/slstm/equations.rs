//! The equations of an sLSTM's unit, forward and backward.
//!
//! A step gets the sums `a_i, a_f, a_z, a_o` from x and h, and the memory before it, `c⁻, n⁻, m⁻`:
//!
//! ```text
//! z = tanh(a_z)    o = σ(a_o)    u = ln σ(a_f) + m⁻    m = max(u, a_i)        u = a_f + m⁻ with exponential forget gates
//! i = e^(a_i - m)    f = e^(u - m)
//! c = f c⁻ + i z    n = f n⁻ + i    h = o c / n
//! ```
//!
//! The memory is `c e^m` and its weight `n e^m`, so h does not depend on m, which is chosen to keep both exponentials at most 1.
//! Nothing is remembered if `n⁻ = 0`, whatever m⁻ is. In that case `m = a_i`, so that the first step's i is 1 and never 0.
//!
//! With `dy = dL/dy`, the chain rule gives the following from `dh` and from `dc⁺, dn⁺, dm⁺`, which the next step left. It includes
//! the part that goes through m:
//!
//! ```text
//! da_o = dh c/n σ'(o)    dc = dc⁺ + dh o / n    dn = dn⁺ - dh o c / n²    da_z = dc i tanh'(z)
//! di = (dc z + dn) i     du = (dc c⁻ + dn n⁻) f    dm = dm⁺ - di - du              of a_i and u, m left alone
//! da_i = di + dm         du = du                   if a_i is the larger one;       otherwise da_i = di, du = du + dm
//! da_f = du (1 - σ(a_f))    dc⁻ = dc f    dn⁻ = dn f    dm⁻ = du                   exponential: da_f = du
//! ```

use crate::kernels::Float;
use crate::kernels::derivatives::{d_sigmoid, d_tanh};
use crate::kernels::math::{exp, log_sigmoid, sigmoid, tanh};

/// The options that change the equations.
pub(super) trait Variant {
    /// Whether the forget gate is an exponential, like the input gate.
    const EXPONENTIAL: bool;
}

/// i, f, z, the slope of u in a_f, and c, n, m.
#[inline(always)]
pub(super) fn memory<F: Float, V: Variant>([a_i, a_f, a_z]: [F; 3], [c_before, n_before, m_before]: [F; 3]) -> [F; 7] {
    let (log_f, slope) = if V::EXPONENTIAL { (a_f, F::one()) } else { (log_sigmoid(a_f), sigmoid(-a_f)) };
    let u = log_f + m_before;
    let m = if n_before == F::zero() || a_i > u { a_i } else { u };
    let (i, f, z) = (exp(a_i - m), exp(at_most_finite(u - m)), tanh(a_z));
    [i, f, z, slope, f * c_before + i * z, f * n_before + i, m]
}

/// Limits an exponent that is above 0 only if nothing is remembered, so that zeros times its exponential are zeros.
#[inline(always)]
fn at_most_finite<F: Float>(exponent: F) -> F {
    let most = F::of(80.0);
    if exponent > most { most } else { exponent }
}

/// o and h.
#[inline(always)]
pub(super) fn output<F: Float>(a_o: F, c: F, n: F) -> [F; 2] {
    let o = sigmoid(a_o);
    [o, o * (c / n)]
}

/// dc and dn, including the part that comes through h.
#[inline(always)]
pub(super) fn memory_gradients<F: Float>(dh: F, o: F, [c, n]: [F; 2], [dc, dn]: [F; 2]) -> [F; 2] {
    let through_h = dh * o / n;
    [dc + through_h, dn - through_h * (c / n)]
}

/// da_i, da_f, da_z, da_o, and dc⁻, dn⁻, dm⁻.
#[inline(always)]
pub(super) fn backward<F: Float, V: Variant>(
    dh: F,
    [i, f, z, o]: [F; 4],
    slope: F,
    [c_before, n_before]: [F; 2],
    [c, n]: [F; 2],
    [dc, dn, dm]: [F; 3],
) -> [F; 7] {
    let da_o = dh * (c / n) * d_sigmoid(o);
    let [dc, dn] = memory_gradients(dh, o, [c, n], [dc, dn]);
    let (di, du) = ((dc * z + dn) * i, (dc * c_before + dn * n_before) * f);
    let dm = dm - di - du;
    // m is the larger one of a_i and u: the exponential of its difference from m is 1.
    let is_input = i == F::one();
    let (da_i, du) = if is_input { (di + dm, du) } else { (di, du + dm) };
    let da_f = if V::EXPONENTIAL { du } else { du * slope };
    [da_i, da_f, dc * i * d_tanh(z), da_o, dc * f, dn * f, du]
}
