//! From the losses of all positions to one number.

use crate::base::{Expect, check_number};

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

/// The power of two at or below a factor. Losses are added up times it, which is exact, so that the sum of many large ones does
/// not overflow if their mean does not.
pub(super) fn power_of_two_below(factor: f64) -> f64 {
    if factor > 0.0 { factor.log2().floor().exp2() } else { 1.0 }
}

/// `weight · loss`; what has no weight counts for nothing, be it infinite.
pub(super) fn weighted(weight: f64, loss: f64) -> f64 {
    if weight == 0.0 && loss.is_infinite() { 0.0 } else { weight * loss }
}

/// Panics unless every weight is finite, in f32 too, so that sums of them are, and at least 0.
#[track_caller]
pub(super) fn check_weights(loss: &str, argument: &str, weights: &[f64]) {
    for &weight in weights {
        check_number::<f32>(loss, argument, Expect::AtLeast0, weight);
    }
}
