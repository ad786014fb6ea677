//! Cross-entropy and perplexity over a data set.

use ndarray::ArrayRef2;

use super::positions::{Counted, mean, of_classes, sums};
use crate::kernels::Float;
use crate::kernels::softmax::{beside_largest, largest};
use crate::layer::{Id, Sequence};

const NAME: &str = "Perplexity";

/// The cross-entropy of softmax probabilities with class ids over a data set, in nats, in bits, and as perplexity.
///
/// ```text
/// nats = -Σ w_tb log softmax(z_tb)_target / Σ w_tb        bits = nats / ln 2        perplexity = exp(nats)
/// ```
///
/// | | shape |
/// | --- | --- |
/// | logits `z` | `[T, B, V]` |
/// | targets | ids `[T, B]` of any integer type |
/// | weights `w` | `[T, B]`, 1 if none are given |
///
/// For a character model, bits are the bits per character. [`SoftmaxCrossEntropy`](crate::loss::SoftmaxCrossEntropy) gives the
/// nats of one batch with their gradient; the exponential of the mean of such losses is not the perplexity of a data set whose
/// batches differ in size.
///
/// ```
/// use gradflow::{metrics::Perplexity, ndarray::{Array3, arr2}};
///
/// let mut perplexity = Perplexity::new();
/// perplexity.add(&Array3::<f32>::zeros((2, 1, 8)), &arr2(&[[3], [7]])); // one in eight
/// assert!((perplexity.value() - 8.0).abs() < 1e-6 && (perplexity.bits() - 3.0).abs() < 1e-6);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Perplexity {
    ignored: Option<i128>,
    sum: f64,
    total: f64,
}
sums! { Perplexity { sum, total } }
of_classes! { Perplexity }

impl Perplexity {
    /// Counts all positions.
    pub fn new() -> Self {
        Perplexity::default()
    }

    #[track_caller]
    fn count<F: Float, I: Id>(&mut self, y: Sequence<'_, F>, targets: &ArrayRef2<I>, weights: Option<&ArrayRef2<f64>>) {
        let Perplexity { ignored, sum, total } = self;
        Counted { ignored: *ignored, weights }.classes(NAME, &y, targets, |z, id, weight| {
            let z = z.as_standard_layout(); // a copy only if they are not
            let z = z.as_slice().expect("standard layout");
            let largest = largest(z);
            let nats = beside_largest(largest, z).ln_1p() + (largest.widen() - z[id].widen());
            // A position of weight 0 adds nothing, even if its class is masked.
            *sum += if weight == 0.0 && nats.is_infinite() { 0.0 } else { weight * nats };
            *total += weight;
        });
    }

    /// Nats per position; NaN if none was counted.
    #[must_use]
    pub fn nats(&self) -> f64 {
        mean(self.sum, self.total)
    }

    /// Bits per position; NaN if none was counted.
    #[must_use]
    pub fn bits(&self) -> f64 {
        self.nats() / std::f64::consts::LN_2
    }

    /// The perplexity, from 1 up; NaN if no position was counted.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.nats().exp()
    }

    /// The weight of the positions that were counted: their number if no weights were given.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.total
    }
}
