//! The equations of an MGU's unit, forward and backward.
//!
//! A step gets the state before it, `h⁻`, and the sums `a_f, a_n` from x and h; `a_n` contains `W_hn v`, so it is known only after
//! f.
//!
//! ```text
//! f = σ(a_f)    v = f h⁻    n = tanh(a_n)    h = (1 - f) h⁻ + f n = h⁻ + f (n - h⁻)
//! ```
//!
//! f acts twice, on v and on h. With `dy = dL/dy`, the chain rule gives, from `dh` and then from `dv = W_hnᵀ da_n`:
//!
//! ```text
//! da_n = dh f tanh'(n)           df = dh (n - h⁻) + dv h⁻          da_f = df σ'(f)
//! dh⁻ = dh (1 - f) + dv f + what comes through a_f
//! ```

use crate::kernels::Float;
use crate::kernels::derivatives::{d_sigmoid, d_tanh};
use crate::kernels::math::{sigmoid, tanh};

/// f and v.
#[inline(always)]
pub(super) fn forget<F: Float>(a_f: F, h_before: F) -> [F; 2] {
    let f = sigmoid(a_f);
    [f, f * h_before]
}

/// n and h.
#[inline(always)]
pub(super) fn update<F: Float>(a_n: F, f: F, h_before: F) -> [F; 2] {
    let n = tanh(a_n);
    [n, h_before + f * (n - h_before)]
}

/// da_n, and the terms of df and dh⁻ that come from `dh`.
#[inline(always)]
pub(super) fn update_backward<F: Float>(dh: F, f: F, n: F, h_before: F) -> [F; 3] {
    [dh * f * d_tanh(n), dh * (n - h_before), dh * (F::one() - f)]
}

/// da_f, and dh⁻ without the part that comes through a_f: adds the terms that come from `dv`.
#[inline(always)]
pub(super) fn forget_backward<F: Float>(dv: F, df_of_h: F, dh_direct: F, f: F, h_before: F) -> [F; 2] {
    let df = df_of_h + dv * h_before;
    [df * d_sigmoid(f), dh_direct + dv * f]
}
