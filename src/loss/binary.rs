//! Binary cross-entropy from logits.

use ndarray::{Array3, ArrayRef3};

use super::{Elements, Reduction, check_weights};
use crate::base::check_shape;
use crate::kernels::Float;

const NAME: &str = "BinaryCrossEntropy";

/// The cross-entropy of independent yes-or-no questions, in nats, from logits; as PyTorch's `BCEWithLogitsLoss`.
///
/// ```text
/// loss = -p y log σ(z) - (1 - y) log(1 - σ(z))        dL/dz = w ((1 - y) σ(z) - p y σ(-z))
/// ```
///
/// with the target `y`, a probability, `p` the [weight of a yes](BinaryCrossEntropy::pos_weight), and `w` =
/// 1/(number of elements that count) for the mean and 1 for the sum. The logarithms are taken of no sigmoid, so logits
/// of any finite size are safe. `[T, B, D]` each.
///
/// ```
/// use gradflow::{BinaryCrossEntropy, ndarray::Array3};
///
/// let target = Array3::from_shape_vec((1, 1, 2), vec![1.0, 0.0]).unwrap();
/// let mut gradient = Array3::default((0, 0, 0));
/// let loss = BinaryCrossEntropy::new().evaluate(&Array3::<f64>::zeros((1, 1, 2)), &target, None, &mut gradient);
/// assert!((loss - 2f64.ln()).abs() < 1e-15);
/// assert_eq!(gradient.as_slice().unwrap(), [-0.25, 0.25]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BinaryCrossEntropy {
    pos_weight: Option<Vec<f64>>,
    elements: Elements,
}

impl BinaryCrossEntropy {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self::default()
    }

    /// The weight of a yes for each of the D questions: (number of noes)/(number of yeses) evens out a rare yes. The
    /// mean is still over the number of elements.
    ///
    /// # Panics
    /// Where a weight is negative or not finite.
    pub fn pos_weight(self, weights: &[f64]) -> Self {
        check_weights(NAME, "pos_weight", weights);
        BinaryCrossEntropy { pos_weight: Some(weights.to_vec()), ..self }
    }

    /// Elements with this target do not count: their loss and gradient are zero. NaN is a target like any other here.
    pub fn ignore(self, target: f64) -> Self {
        BinaryCrossEntropy { elements: Elements { ignored: Some(target), ..self.elements }, ..self }
    }

    /// The sum over the elements instead of their mean.
    pub fn sum(self) -> Self {
        BinaryCrossEntropy { elements: Elements { reduction: Reduction::Sum, ..self.elements }, ..self }
    }

    /// The loss; its gradient by the logits goes to `dlogits`, which takes their shape. Positions past the lengths,
    /// where given, do not count.
    ///
    /// # Panics
    /// Where shapes differ, the batch is empty, the lengths do not fit or the weights are not one a question.
    #[track_caller]
    pub fn evaluate<F: Float>(
        &self,
        logits: &ArrayRef3<F>,
        target: &ArrayRef3<F>,
        lengths: Option<&[usize]>,
        dlogits: &mut Array3<F>,
    ) -> f64 {
        if let Some(weights) = &self.pos_weight {
            check_shape(NAME, "pos_weight", &[logits.dim().2], &[weights.len()]);
        }
        self.elements.evaluate(NAME, logits, target, lengths, dlogits, |k, z, y| {
            let (no, yes) = (1.0 - y, self.pos_weight.as_ref().map_or(1.0, |weights| weights[k]) * y);
            // log σ(-|z|) = -|z| - near, log σ(|z|) = -near
            let small = (-z.abs()).exp();
            let near = small.ln_1p();
            let (far, one) = (z.abs() + near, 1.0 / (1.0 + small));
            // Of σ(z) and σ(-z), the one below a half as small · one: it keeps its digits.
            let (loss_no, loss_yes, p, q) =
                if z > 0.0 { (far, near, one, small * one) } else { (near, far, small * one, one) };
            (no * loss_no + yes * loss_yes, no * p - yes * q)
        })
    }
}
