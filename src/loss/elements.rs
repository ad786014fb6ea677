//! Losses that are a sum over single elements.

use ndarray::{ArrayRef3, Zip};

use super::reduction::{Reduction, power_of_two_below};
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

    /// The number of elements that count.
    pub fn total<F: Float>(self, sequence: Sequence<'_, F>, target: &ArrayRef3<F>) -> f64 {
        let counts = self.counts(sequence);
        let count = match self.ignored {
            Some(_) => target.indexed_iter().filter(|&((t, b, _), &target)| counts(t, b, target)).count(),
            None => sequence.valid_count() * target.dim().2,
        };
        count as f64
    }

    /// The loss, and its gradient into `dy`. `element` maps the feature's index, `y` and the target to an element's loss
    /// and slope.
    #[track_caller]
    pub fn evaluate<F: Float>(
        self,
        loss: &str,
        sequence: Sequence<'_, F>,
        target: &ArrayRef3<F>,
        dy: Option<&mut ArrayRef3<F>>,
        element: impl Fn(usize, f64, f64) -> (f64, f64),
    ) -> f64 {
        let y = sequence.features(loss, None); // [T, B, D]
        check_shape(loss, "target", y.shape(), target.shape());
        let counts = self.counts(sequence);
        let weight = self.reduction.weight(self.total(sequence, target));
        let unit = power_of_two_below(weight);

        let mut sum = 0.0; // of the losses times `unit`
        let mut slope = |(t, b, k): (usize, usize, usize), y: F, target: F| {
            let (value, slope) = if counts(t, b, target) { element(k, y.widen(), target.widen()) } else { (0.0, 0.0) };
            sum += unit * value;
            slope
        };
        match dy {
            Some(dy) => Zip::indexed(dy)
                .and(y)
                .and(target)
                .for_each(|at, dy, &y, &target| *dy = F::of(weight * slope(at, y, target))),
            None => Zip::indexed(y).and(target).for_each(|at, &y, &target| {
                slope(at, y, target);
            }),
        }
        sum * (weight / unit)
    }
}
