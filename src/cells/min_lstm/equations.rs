//! The equations of a minLSTM's unit, forward and backward.
//!
//! A step gets the sums `a_f, a_i, n` from x, and the state before it, `h⁻`:
//!
//! ```text
//! f = σ(a_f)    i = σ(a_i)    f' = f / (f + i)    i' = i / (f + i)    h = f' h⁻ + i' n
//! ```
//!
//! The quotients stay accurate if both gates are almost 0. With `e_f = e^-a_f` and `e_i = e^-a_i`, and with numerator and
//! denominator divided by the largest term, nothing overflows and the denominator is at least 1:
//!
//! ```text
//! f' = (1 + e_i) / (2 + e_f + e_i)    i' = (1 + e_f) / (2 + e_f + e_i)
//! ```
//!
//! With `dy = dL/dy`, the chain rule gives, from `dh`, since `∂f'/∂f = i / (f + i)² = -∂i'/∂f` and `σ'(a) = f (1 - f)`:
//!
//! ```text
//! d = dh (h⁻ - n) f' i'    da_f = d (1 - f)    da_i = -d (1 - i)    dn = dh i'    dh⁻ = dh f'
//! ```

use crate::kernels::Float;
use crate::kernels::math::{exp, sigmoid};

/// 1 - f, 1 - i, f', i' and h.
#[inline(always)]
pub(super) fn update<F: Float>(a_f: F, a_i: F, n: F, h_before: F) -> [F; 5] {
    let least = if a_f < a_i { a_f } else { a_i };
    let least = if least > F::zero() { F::zero() } else { least };
    // 1, e_f and e_i, divided by the largest of them.
    let [one, e_f, e_i] = [exp(least), exp(least - a_f), exp(least - a_i)];
    let sum = (one + e_f) + (one + e_i);
    let (forget, input) = ((one + e_i) / sum, (one + e_f) / sum);
    [sigmoid(-a_f), sigmoid(-a_i), forget, input, forget * h_before + input * n]
}

/// da_f, da_i, dn and dh⁻; from 1 - f, 1 - i, f' and i'.
#[inline(always)]
pub(super) fn update_backward<F: Float>(
    dh: F,
    [not_f, not_i]: [F; 2],
    [forget, input]: [F; 2],
    n: F,
    h_before: F,
) -> [F; 4] {
    let d = dh * (h_before - n) * forget * input;
    [d * not_f, -d * not_i, dh * input, dh * forget]
}
