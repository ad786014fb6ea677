//! Reduction of the losses of all positions to one number.

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
    /// The value's weight in a mean over several batches: see [`Loss::weight`](super::Loss::weight).
    pub fn weighs(self, total: f64) -> f64 {
        match self {
            Reduction::Mean => total,
            Reduction::Sum => 1.0,
        }
    }

    /// The factors of losses whose number, or sum of weights, is `total`.
    pub fn shares(self, total: f64) -> Shares {
        match self {
            // Nothing counts: division by infinity gives 0.
            Reduction::Mean if total == 0.0 => Shares { total: f64::INFINITY, unit: 1.0 },
            Reduction::Mean => Shares { total, unit: total.log2().ceil().exp2() },
            Reduction::Sum => Shares { total: 1.0, unit: 1.0 },
        }
    }
}

/// The factors of losses with weights: w / total, which is at most 1 in a mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    total: f64,
    /// The power of two at or above `total`.
    unit: f64,
}

impl Shares {
    /// The factor of a loss with this weight, in the gradient.
    pub fn of(self, weight: f64) -> f64 {
        weight / self.total
    }

    /// The factor of a loss with this weight in a sum that [`finish`](Shares::finish) turns into a mean. For a weight of 1 it is
    /// a power of two, so multiplying by it is exact. The sum of many large losses does not overflow if their mean does not.
    pub fn in_sum(self, weight: f64) -> f64 {
        weight / self.unit
    }

    /// The reduced loss, from the sum of the losses times their [factors](Shares::in_sum).
    pub fn finish(self, sum: f64) -> f64 {
        weighted(self.unit / self.total, sum)
    }
}

/// `weight · loss`, or 0 for a weight of 0 and an infinite loss.
pub(super) fn weighted(weight: f64, loss: f64) -> f64 {
    if weight == 0.0 && loss.is_infinite() { 0.0 } else { weight * loss }
}

/// Panics unless every weight is at least 0 and finite, in f32 too, so that sums of weights are finite.
#[track_caller]
pub(super) fn check_weights(loss: &str, argument: &str, weights: &[f64]) {
    for &weight in weights {
        check_number::<f32>(loss, argument, Expect::AtLeast0, weight);
    }
}
