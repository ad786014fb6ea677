//! Derivatives of the nonlinearities, from their values.

use super::float::Float;

/// `σ'(y) = y (1 - y)`, from the value `y = σ(a)`.
#[inline(always)]
pub(crate) fn d_sigmoid<F: Float>(y: F) -> F {
    y * (F::one() - y)
}

/// `tanh'(y) = 1 - y²`, from the value `y = tanh(a)`.
#[inline(always)]
pub(crate) fn d_tanh<F: Float>(y: F) -> F {
    F::one() - y * y
}

/// `relu'(y)`, 1 or 0, from the value `y = max(a, 0)`; NaN stays NaN.
#[inline(always)]
pub(crate) fn d_relu<F: Float>(y: F) -> F {
    if y > F::zero() {
        F::one()
    } else if y <= F::zero() {
        F::zero()
    } else {
        y
    }
}
