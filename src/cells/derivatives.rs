//! Derivatives of the gates' functions, from their values.

use crate::kernels::Float;

/// `σ'(a) = y (1 - y)` for `y = σ(a)`.
#[inline(always)]
pub(super) fn d_sigmoid<F: Float>(y: F) -> F {
    y * (F::one() - y)
}

/// `tanh'(a) = 1 - y²` for `y = tanh(a)`.
#[inline(always)]
pub(super) fn d_tanh<F: Float>(y: F) -> F {
    F::one() - y * y
}

/// `relu'(a)`, 1 or 0, for `y = max(a, 0)`; NaN stays NaN.
#[inline(always)]
pub(super) fn d_relu<F: Float>(y: F) -> F {
    if y > F::zero() {
        F::one()
    } else if y <= F::zero() {
        F::zero()
    } else {
        y
    }
}
