//! What training minimises: a number, and its gradient by the model's output.

mod binary;
mod cross_entropy;
mod huber;
mod mean_squared;

use ndarray::{Array3, ArrayRef3, Zip};

pub use binary::BinaryCrossEntropy;
pub use cross_entropy::SoftmaxCrossEntropy;
pub use huber::Huber;
pub use mean_squared::MeanSquaredError;

use crate::base::check_shape;
use crate::base::error::{check_not_empty, mismatch};
use crate::kernels::Float;
use crate::layer::kit::reuse;

/// How the losses of all positions become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean over the positions that count; 0 where none does.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// What each of the losses is multiplied by, where `total` counts them or sums their weights.
    fn weight(self, total: f64) -> f64 {
        match self {
            Reduction::Mean if total == 0.0 => 0.0,
            Reduction::Mean => 1.0 / total,
            Reduction::Sum => 1.0,
        }
    }
}

/// Panics unless the lengths, where given, are one for each sequence and within the steps.
#[track_caller]
fn check_lengths(loss: &str, lengths: Option<&[usize]>, (steps, batch): (usize, usize)) {
    let Some(lengths) = lengths else { return };
    if lengths.len() != batch || lengths.iter().any(|length| !(1..=steps).contains(length)) {
        let expected = format_args!("{batch} lengths of at least 1 and at most {steps}");
        mismatch(loss, "lengths", &expected, &format_args!("{lengths:?}"))
    }
}

/// Panics unless every weight is a number from 0 up.
#[track_caller]
fn check_weights(loss: &str, argument: &str, weights: &[f64]) {
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
        mismatch(loss, argument, &"finite weights from 0 up", weight)
    }
}

/// Which elements of a loss of single elements count, and how their losses become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Elements {
    reduction: Reduction,
    /// Elements with this target do not count.
    ignored: Option<f64>,
}

impl Elements {
    /// The loss, its gradient to `dy`: `element` gives an element's loss and slope from the number of its feature, `y`
    /// and `target`.
    #[track_caller]
    fn evaluate<F: Float>(
        self,
        loss: &str,
        y: &ArrayRef3<F>,
        target: &ArrayRef3<F>,
        lengths: Option<&[usize]>,
        dy: &mut Array3<F>,
        element: impl Fn(usize, f64, f64) -> (f64, f64),
    ) -> f64 {
        let (steps, batch, features) = y.dim();
        check_not_empty(loss, y.shape());
        check_shape(loss, "target", y.shape(), target.shape());
        check_lengths(loss, lengths, (steps, batch));
        let ignored = self.ignored.map(F::of);
        let counts = |t: usize, b: usize, target: F| {
            let is_ignored = ignored.is_some_and(|ignored| target == ignored || (target.is_nan() && ignored.is_nan()));
            lengths.is_none_or(|lengths| t < lengths[b]) && !is_ignored
        };
        let count = match ignored {
            Some(_) => target.indexed_iter().filter(|&((t, b, _), &target)| counts(t, b, target)).count(),
            None => lengths.map_or(steps * batch, |lengths| lengths.iter().sum()) * features,
        };
        let weight = self.reduction.weight(count as f64);

        reuse(dy, y.raw_dim());
        let mut sum = 0.0;
        Zip::indexed(&mut *dy).and(y).and(target).for_each(|(t, b, k), dy, &y, &target| {
            let (value, slope) = if counts(t, b, target) { element(k, y.widen(), target.widen()) } else { (0.0, 0.0) };
            sum += value;
            *dy = F::of(weight * slope);
        });
        sum * weight
    }
}
