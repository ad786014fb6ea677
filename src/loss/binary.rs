//! Binary cross-entropy from logits.

use ndarray::{Array3, ArrayRef3};

use super::elements::Elements;
use super::reduction::{Reduction, check_weights, weighted};
use super::traits::{Loss, Memory};
use super::weights::Weights;
use crate::base::{Size, check_shape};
use crate::kernels::{Float, once};
use crate::layer::Sequence;

const NAME: &str = "BinaryCrossEntropy";

/// The cross-entropy of independent yes-or-no questions, in nats, from logits, as in PyTorch's `BCEWithLogitsLoss`.
///
/// ```text
/// loss = -p y log σ(z) - (1 - y) log(1 - σ(z))        dL/dz = w ((1 - y) σ(z) - p y σ(-z))
/// ```
///
/// where the target `y` is a probability, `p` is the [weight of a yes](BinaryCrossEntropy::pos_weight), and `w` is 1/(number of
/// elements that count) for the mean and 1 for the sum. With [weights](super::Weights) `w_i` of elements, `w` is `w_i`/(their
/// sum) and `w_i`.
///
/// The loss does not take the logarithm of a computed sigmoid, so logits of any finite size are safe, and the loss of a confident
/// answer keeps its digits however small it is. A logit of ±∞ is a certain answer: its loss is 0 if it is right.
///
/// | | shape |
/// | --- | --- |
/// | logits `z`, targets, gradient | `[T, B, D]` |
///
/// ```
/// use gradflow::{loss::{BinaryCrossEntropy, Loss}, ndarray::Array3};
///
/// let target = Array3::from_shape_vec((1, 1, 2), vec![1.0, 0.0]).unwrap();
/// let mut binary = BinaryCrossEntropy::new();
/// let loss = binary.of(&Array3::<f64>::zeros((1, 1, 2)), &target);
/// assert!((loss.value() - 2f64.ln()).abs() < 1e-15);
/// assert_eq!(loss.gradient().as_slice().unwrap(), [-0.25, 0.25]);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct BinaryCrossEntropy<F> {
    pos_weight: Option<Vec<f64>>, // [D]
    elements: Elements,
    memory: Memory<F>,
}

impl<F> BinaryCrossEntropy<F> {
    /// The mean over all elements.
    pub fn new() -> Self {
        BinaryCrossEntropy { pos_weight: None, elements: Elements::default(), memory: Memory::default() }
    }

    /// The weight of a yes for each of the D questions: (number of noes)/(number of yeses) balances a rare yes. The
    /// mean is still over the number of elements.
    ///
    /// # Panics
    /// Panics if a weight is negative or not finite.
    #[track_caller]
    pub fn pos_weight(self, weights: &[f64]) -> Self {
        check_weights(NAME, "pos_weight", weights);
        BinaryCrossEntropy { pos_weight: Some(weights.to_vec()), ..self }
    }

    /// Elements with this target do not count: their loss and gradient are zero. The target may be NaN.
    pub fn ignore(self, target: f64) -> Self {
        BinaryCrossEntropy { elements: Elements { ignored: Some(target), ..self.elements }, ..self }
    }

    /// The sum over the elements instead of their mean.
    pub fn sum(self) -> Self {
        BinaryCrossEntropy { elements: Elements { reduction: Reduction::Sum, ..self.elements }, ..self }
    }
}

impl<F> Default for BinaryCrossEntropy<F> {
    fn default() -> Self {
        BinaryCrossEntropy::new()
    }
}

impl<F: Float> Loss<F> for BinaryCrossEntropy<F> {
    type Targets = ArrayRef3<F>;

    fn evaluate(&self, y: Sequence<'_, F>, targets: &ArrayRef3<F>, dy: Option<&mut ArrayRef3<F>>) -> f64 {
        evaluate(self.pos_weight.as_deref(), self.elements, y.reborrow(), targets, None, dy)
    }

    fn evaluate_weighted(
        &self,
        y: Sequence<'_, F>,
        targets: &ArrayRef3<F>,
        weights: Weights<'_, F>,
        dy: Option<&mut ArrayRef3<F>>,
    ) -> f64 {
        evaluate(self.pos_weight.as_deref(), self.elements, y.reborrow(), targets, Some(weights.reborrow()), dy)
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
        pos_weight: Option<&'a [f64]>,
        elements: Elements,
        y: Sequence<'a, F>,
        targets: &'a ArrayRef3<F>,
        weights: Option<Weights<'a, F>>,
        dy: Option<&'a mut ArrayRef3<F>>,
    ) -> f64 {
        if let (Some(weights), Size::Features(questions)) = (pos_weight, y.size()) {
            check_shape(NAME, "pos_weight", &[questions], &[weights.len()]);
        }
        elements.evaluate(NAME, y, targets, weights, dy, |k, z, y| {
            let (no, yes) = (1.0 - y, pos_weight.map_or(1.0, |weights| weights[k]) * y);
            // log σ(-|z|) = -|z| - near, log σ(|z|) = -near
            let small = (-z.abs()).exp();
            let near = small.ln_1p();
            let (far, one) = (z.abs() + near, 1.0 / (1.0 + small));
            // Of σ(z) and σ(-z), the one below a half is small · one, which keeps its digits.
            let (loss_no, loss_yes, p, q) =
                if z > 0.0 { (far, near, one, small * one) } else { (near, far, small * one, one) };
            (weighted(no, loss_no) + weighted(yes, loss_yes), no * p - yes * q)
        })
    }
}
