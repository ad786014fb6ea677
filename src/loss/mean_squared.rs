//! The mean squared error.

use ndarray::{Array3, ArrayRef3};

use super::elements::Elements;
use super::reduction::Reduction;
use super::traits::{Loss, Memory};
use super::weights::Weights;
use crate::kernels::{Float, once};
use crate::layer::Sequence;

const NAME: &str = "MeanSquaredError";

/// The squared error, averaged over every element as PyTorch's `mse_loss` does.
///
/// ```text
/// L = w Σ (y - target)²        dL/dy = 2 w (y - target)
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
/// use gradflow::{loss::{Loss, MeanSquaredError}, ndarray::Array3};
///
/// let (y, target) = (Array3::<f64>::ones((1, 1, 2)), Array3::from_elem((1, 1, 2), 3.0));
/// let mut squared_error = MeanSquaredError::new();
/// let loss = squared_error.of(&y, &target);
/// assert_eq!(loss.value(), 4.0);
/// assert_eq!(loss.gradient(), &Array3::from_elem((1, 1, 2), -2.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct MeanSquaredError<F> {
    elements: Elements,
    memory: Memory<F>,
}

impl<F> MeanSquaredError<F> {
    /// The mean over all elements.
    pub fn new() -> Self {
        MeanSquaredError { elements: Elements::default(), memory: Memory::default() }
    }

    /// Elements with this target do not count: their loss and gradient are zero. The target may be NaN.
    pub fn ignore(self, target: f64) -> Self {
        MeanSquaredError { elements: Elements { ignored: Some(target), ..self.elements }, ..self }
    }

    /// The sum over the elements instead of their mean.
    pub fn sum(self) -> Self {
        MeanSquaredError { elements: Elements { reduction: Reduction::Sum, ..self.elements }, ..self }
    }
}

impl<F> Default for MeanSquaredError<F> {
    fn default() -> Self {
        MeanSquaredError::new()
    }
}

impl<F: Float> Loss<F> for MeanSquaredError<F> {
    type Targets = ArrayRef3<F>;

    fn evaluate(&self, y: Sequence<'_, F>, targets: &ArrayRef3<F>, dy: Option<&mut ArrayRef3<F>>) -> f64 {
        evaluate(self.elements, y.reborrow(), targets, None, dy)
    }

    fn evaluate_weighted(
        &self,
        y: Sequence<'_, F>,
        targets: &ArrayRef3<F>,
        weights: Weights<'_, F>,
        dy: Option<&mut ArrayRef3<F>>,
    ) -> f64 {
        evaluate(self.elements, y.reborrow(), targets, Some(weights.reborrow()), dy)
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
        elements: Elements,
        y: Sequence<'a, F>,
        targets: &'a ArrayRef3<F>,
        weights: Option<Weights<'a, F>>,
        dy: Option<&'a mut ArrayRef3<F>>,
    ) -> f64 {
        elements.evaluate(NAME, y, targets, weights, dy, |_, y, target| {
            let error = y - target;
            (error * error, 2.0 * error)
        })
    }
}
