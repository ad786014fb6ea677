//! Losses that are a sum over single elements.

use ndarray::{ArrayRef3, Zip};

use super::reduction::Reduction;
use super::weights::{Parts, Weights, weight_at};
use crate::base::check_shape;
use crate::kernels::Float;
use crate::layer::Sequence;

/// Which elements count, and how their losses become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Elements {
    pub reduction: Reduction,
    /// Elements with this target do not count.
    pub ignored: Option<f64>,
}

impl Elements {
    /// Whether the element of feature vector `[t, b]` with this target counts.
    fn counts<F: Float>(self, sequence: Sequence<'_, F>) -> impl Fn(usize, usize, F) -> bool {
        let ignored = self.ignored.map(F::of);
        move |t, b, target| {
            let is_ignored = ignored.is_some_and(|ignored| target == ignored || (target.is_nan() && ignored.is_nan()));
            sequence.valid(t, b) && !is_ignored
        }
    }

    /// The number of elements that count, or the sum of their weights.
    #[track_caller]
    pub fn total<F: Float>(
        self,
        loss: &str,
        sequence: Sequence<'_, F>,
        target: &ArrayRef3<F>,
        weights: Option<Weights<'_, F>>,
    ) -> f64 {
        let counts = self.counts(sequence);
        let (steps, batch, features) = target.dim();
        let Some(weights) = weights else {
            let count = match self.ignored {
                Some(_) => target.indexed_iter().filter(|&((t, b, _), &target)| counts(t, b, target)).count(),
                None => sequence.valid_count() * features,
            };
            return count as f64;
        };
        weights.check_shape(loss, Parts::Elements, [steps, batch, features]);
        let mut total = 0.0;
        for ((t, b, k), &target) in target.indexed_iter() {
            if counts(t, b, target) {
                total += weights.checked_at(loss, [t, b, k]);
            }
        }
        total
    }

    /// The loss; its gradient is written to `dy`. `element` maps the feature's index, `y` and the target to an element's loss and
    /// slope.
    #[track_caller]
    pub fn evaluate<F: Float>(
        self,
        loss: &str,
        sequence: Sequence<'_, F>,
        target: &ArrayRef3<F>,
        weights: Option<Weights<'_, F>>,
        dy: Option<&mut ArrayRef3<F>>,
        element: impl Fn(usize, f64, f64) -> (f64, f64),
    ) -> f64 {
        let y = sequence.features(loss, None); // [T, B, D]
        check_shape(loss, "target", y.shape(), target.shape());
        let counts = self.counts(sequence);
        let shares = self.reduction.shares(self.total(loss, sequence, target, weights));

        let mut sum = 0.0;
        let mut slope = |(t, b, k): (usize, usize, usize), y: F, target: F| {
            let weight = if counts(t, b, target) { weight_at(weights, loss, [t, b, k]) } else { 0.0 };
            if weight == 0.0 {
                return F::zero();
            }
            let (value, slope) = element(k, y.widen(), target.widen());
            sum += shares.in_sum(weight) * value;
            F::of(shares.of(weight) * slope)
        };
        match dy {
            Some(dy) => Zip::indexed(dy).and(y).and(target).for_each(|at, dy, &y, &target| *dy = slope(at, y, target)),
            None => Zip::indexed(y).and(target).for_each(|at, &y, &target| {
                slope(at, y, target);
            }),
        }
        shares.finish(sum)
    }
}
