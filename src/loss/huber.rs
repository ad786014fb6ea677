//! The Huber loss.

use ndarray::{Array3, ArrayRef3};

use super::{Elements, Reduction};
use crate::base::error::mismatch;
use crate::kernels::Float;

const NAME: &str = "Huber";

/// The Huber loss (Huber 1964): squared near the target, linear beyond `delta`, so that a single outlier cannot rule
/// the gradient. The mean is over every element, as in PyTorch's `HuberLoss`.
///
/// ```text
/// e = y - target          loss = e² / 2                     where |e| <= delta
///                                delta (|e| - delta / 2)    elsewhere
/// dL/dy = w max(-delta, min(e, delta))
/// ```
///
/// with `w` = 1/(number of elements that count) for the mean and 1 for the sum. `[T, B, D]` each.
///
/// ```
/// use gradflow::{Huber, ndarray::Array3};
///
/// let y = Array3::from_shape_vec((1, 1, 2), vec![0.5, -3.0]).unwrap();
/// let mut gradient = Array3::default((0, 0, 0));
/// let loss = Huber::new(1.0).sum().evaluate(&y, &Array3::<f64>::zeros((1, 1, 2)), None, &mut gradient);
/// assert_eq!(loss, 0.125 + 2.5);
/// assert_eq!(gradient.as_slice().unwrap(), [0.5, -1.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Huber {
    delta: f64,
    elements: Elements,
}

impl Huber {
    /// The mean over all elements; PyTorch's default `delta` is 1.
    ///
    /// # Panics
    /// Where `delta` is not positive and finite.
    pub fn new(delta: f64) -> Self {
        if !(delta > 0.0 && delta.is_finite()) {
            mismatch(NAME, "delta", &"a positive number", &delta)
        }
        Huber { delta, elements: Elements::default() }
    }

    /// Elements with this target do not count: their loss and gradient are zero. NaN is a target like any other here.
    pub fn ignore(self, target: f64) -> Self {
        Huber { elements: Elements { ignored: Some(target), ..self.elements }, ..self }
    }

    /// The sum over the elements instead of their mean.
    pub fn sum(self) -> Self {
        Huber { elements: Elements { reduction: Reduction::Sum, ..self.elements }, ..self }
    }

    /// The loss; its gradient by `y` goes to `dy`, which takes its shape. Positions past the lengths, where given, do
    /// not count.
    ///
    /// # Panics
    /// Where shapes differ, the batch is empty or the lengths do not fit.
    #[track_caller]
    pub fn evaluate<F: Float>(
        &self,
        y: &ArrayRef3<F>,
        target: &ArrayRef3<F>,
        lengths: Option<&[usize]>,
        dy: &mut Array3<F>,
    ) -> f64 {
        let delta = self.delta;
        self.elements.evaluate(NAME, y, target, lengths, dy, |_, y, target| {
            let error = y - target;
            // NaN is not beyond delta.
            if error.abs() > delta {
                (delta * (error.abs() - 0.5 * delta), delta.copysign(error))
            } else {
                (0.5 * error * error, error)
            }
        })
    }
}
