//! The Huber loss.

use ndarray::{Array3, ArrayRef3};

use super::elements::Elements;
use super::reduction::Reduction;
use super::traits::{Loss, Memory};
use super::weights::Weights;
use crate::base::{Expect, check_number};
use crate::kernels::{Float, once};
use crate::layer::Sequence;

const NAME: &str = "Huber";

/// The Huber loss (Huber 1964): quadratic near the target and linear beyond `delta`, so that a single outlier cannot
/// dominate the gradient. The mean is over every element, as in PyTorch's `HuberLoss`.
///
/// ```text
/// e = y - target          loss = e² / 2                     if |e| <= delta
///                                delta (|e| - delta / 2)    otherwise
/// dL/dy = w max(-delta, min(e, delta))
/// ```
///
/// where `w` is 1/(number of elements that count) for the mean and 1 for the sum. With [weights](super::Weights) `w_i` of
/// elements, `w` is `w_i`/(their sum) and `w_i`.
///
/// | | shape |
/// | --- | --- |
/// | output `y`, targets, gradient | `[T, B, D]` |
///
/// ```
/// use gradflow::{loss::{Huber, Loss}, ndarray::Array3};
///
/// let y = Array3::from_shape_vec((1, 1, 2), vec![0.5, -3.0]).unwrap();
/// let mut huber = Huber::new(1.0).sum();
/// let loss = huber.of(&y, &Array3::<f64>::zeros((1, 1, 2)));
/// assert_eq!(loss.value(), 0.125 + 2.5);
/// assert_eq!(loss.gradient().as_slice().unwrap(), [0.5, -1.0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Huber<F> {
    delta: f64,
    elements: Elements,
    memory: Memory<F>,
}

impl<F: Float> Huber<F> {
    /// The mean over all elements; PyTorch's default `delta` is 1.
    ///
    /// # Panics
    /// Panics if `delta` is not positive and finite.
    #[track_caller]
    pub fn new(delta: f64) -> Self {
        check_number::<F>(NAME, "delta", Expect::Above0, delta);
        Huber { delta, elements: Elements::default(), memory: Memory::default() }
    }

    /// Elements with this target do not count: their loss and gradient are zero. The target may be NaN.
    pub fn ignore(self, target: f64) -> Self {
        Huber { elements: Elements { ignored: Some(target), ..self.elements }, ..self }
    }

    /// The sum over the elements instead of their mean.
    pub fn sum(self) -> Self {
        Huber { elements: Elements { reduction: Reduction::Sum, ..self.elements }, ..self }
    }
}

impl<F: Float> Loss<F> for Huber<F> {
    type Targets = ArrayRef3<F>;

    fn evaluate(&self, y: Sequence<'_, F>, targets: &ArrayRef3<F>, dy: Option<&mut ArrayRef3<F>>) -> f64 {
        evaluate(self.delta, self.elements, y.reborrow(), targets, None, dy)
    }

    fn evaluate_weighted(
        &self,
        y: Sequence<'_, F>,
        targets: &ArrayRef3<F>,
        weights: Weights<'_, F>,
        dy: Option<&mut ArrayRef3<F>>,
    ) -> f64 {
        evaluate(self.delta, self.elements, y.reborrow(), targets, Some(weights.reborrow()), dy)
    }

    fn weight(&self, y: Sequence<'_, F>, targets: &ArrayRef3<F>) -> f64 {
        self.elements.reduction.weighs(self.elements.total(NAME, y, targets, None))
    }

    fn total_weight(&self, y: Sequence<'_, F>, targets: &ArrayRef3<F>, weights: Weights<'_, F>) -> f64 {
        self.elements.reduction.weighs(self.elements.total(NAME, y, targets, Some(weights)))
    }

    fn memory(&mut self) -> &mut Array3<F> {
        &mut self.memory.0
    }
}

once! {
    #[track_caller]
    fn evaluate<'a, F: Float>(
        delta: f64,
        elements: Elements,
        y: Sequence<'a, F>,
        targets: &'a ArrayRef3<F>,
        weights: Option<Weights<'a, F>>,
        dy: Option<&'a mut ArrayRef3<F>>,
    ) -> f64 {
        elements.evaluate(NAME, y, targets, weights, dy, |_, y, target| {
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
