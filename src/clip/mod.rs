//! Gradient clipping, which keeps one huge step from turning the weights into NaN (Pascanu, Mikolov and Bengio 2013).

mod adaptive;
mod norm;
mod summary;

use std::fmt;

pub use adaptive::ClipAdaptive;
pub(crate) use norm::{Change, Factor};
pub use norm::{ClipNorm, clip_grad_norm, clip_grad_value, grad_norm};
pub use summary::NormSummary;

use crate::base::Tensors;
use crate::kernels::Float;

/// A gradient whose norm is infinite or NaN: nothing was changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NonFiniteGradient {
    /// The first tensor with an element, or a norm, that is not finite.
    pub tensor: String,
    /// The norm of all tensors together.
    pub norm: f64,
}

impl fmt::Display for NonFiniteGradient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gradient is not finite (norm {}), first in {}", self.norm, self.tensor)
    }
}

impl std::error::Error for NonFiniteGradient {}

/// What clipping does about a gradient whose norm is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NonFinite {
    /// An error; the gradient stays as it is.
    #[default]
    Error,
    /// Continues, as PyTorch does by default: an infinite norm scales by 0, and NaN spreads to every element. A
    /// [`step`](crate::optim::Optimizer::step) then panics; a [`step_clipped`](crate::optim::Optimizer::step_clipped) continues.
    Pass,
    /// Sets the gradient to zero, so that a plain step changes nothing; the returned norm shows it.
    Skip,
}

/// What clipping found and did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClipReport {
    /// The norm of all tensors together, before clipping.
    pub norm: f64,
    /// The smallest factor by which anything was multiplied: 1 if nothing was clipped, 0 if the gradient was set to zero.
    pub scale: f64,
    /// How many tensors were clipped, in whole or in part.
    pub clipped: usize,
    /// The first tensor with an element, or a norm, that is not finite; `None` if all are finite.
    pub non_finite: Option<String>,
}

impl ClipReport {
    /// The report before anything is clipped.
    fn new(norm: f64, non_finite: Option<String>) -> Self {
        ClipReport { norm, scale: 1.0, clipped: 0, non_finite }
    }

    /// The gradient of `count` tensors was set to zero.
    fn zeroed(self, count: usize) -> Self {
        ClipReport { scale: 0.0, clipped: count, ..self }
    }

    /// Notes that something was multiplied by `factor`; NaN is kept.
    fn scaled(&mut self, factor: f64) {
        if !(factor >= self.scale || self.scale.is_nan()) {
            self.scale = factor;
        }
    }
}

/// The initial report, and whether the gradient is to be set to zero: the first step of all clipping.
fn screen<F: Float>(
    grad: &dyn Tensors<F>,
    p: f64,
    non_finite: NonFinite,
) -> Result<(ClipReport, bool), NonFiniteGradient> {
    let norm = grad_norm(grad, p);
    if norm.is_finite() {
        return Ok((ClipReport::new(norm, None), false));
    }
    let tensor = norm::first_non_finite(grad, p);
    match non_finite {
        NonFinite::Error => Err(NonFiniteGradient { tensor, norm }),
        NonFinite::Pass => Ok((ClipReport::new(norm, Some(tensor)), false)),
        NonFinite::Skip => Ok((ClipReport::new(norm, Some(tensor)).zeroed(grad.count()), true)),
    }
}

/// Panics unless `limit` is a number from 0 to infinity (no limit).
#[track_caller]
fn check_limit(what: &str, limit: f64) {
    assert!(limit >= 0.0, "{what}: expected a number, at least 0, got {limit:?}");
}
