//! From the losses of all positions to one number.

use crate::base::error::mismatch;

/// How the losses of all positions become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reduction {
    /// Their mean over the positions that count; 0 if none does.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// How much the value weighs in a mean over several batches: see [`Loss::weight`](super::Loss::weight).
    pub fn weighs(self, total: f64) -> f64 {
        match self {
            Reduction::Mean => total,
            Reduction::Sum => 1.0,
        }
    }

    /// The factor of each loss, for losses whose number, or sum of weights, is `total`.
    pub fn weight(self, total: f64) -> f64 {
        match self {
            Reduction::Mean if total == 0.0 => 0.0,
            Reduction::Mean => 1.0 / total,
            Reduction::Sum => 1.0,
        }
    }
}

/// Panics unless every weight is finite and at least 0.
#[track_caller]
pub(super) fn check_weights(loss: &str, argument: &str, weights: &[f64]) {
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
        mismatch(loss, argument, &"finite weights from 0 up", weight)
    }
}
