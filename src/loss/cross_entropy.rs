//! Softmax cross-entropy from class ids.

use ndarray::{Array3, ArrayRef2, ArrayRef3};

use super::Reduction;
use crate::Float;
use crate::cache::reuse;
use crate::error::{check_not_empty, check_shape, mismatch};
use crate::kernels::math::exp;
use crate::kernels::vectorised;

const NAME: &str = "SoftmaxCrossEntropy";

/// The cross-entropy of softmax probabilities with class ids, in nats.
///
/// ```text
/// loss_tb = log Σ_k exp(z_tbk) - z_tb,id           dL/dz_tbk = w (softmax(z_tb)_k - [k = id])
/// ```
///
/// with `w` = 1/(number of positions that count) for the mean and 1 for the sum. The largest logit is taken out
/// first, so logits of any finite size are safe.
///
/// | | shape |
/// | --- | --- |
/// | logits `z`, their gradient | `[T, B, V]` |
/// | ids | `[T, B]`, each below V |
///
/// ```
/// use gradflow::{SoftmaxCrossEntropy, ndarray::{Array3, arr2}};
///
/// let loss = SoftmaxCrossEntropy::new().ignore(9);
/// let mut gradient = Array3::default((0, 0, 0)); // takes the logits' shape
/// let nats = loss.evaluate(&Array3::<f64>::zeros((2, 1, 4)), &arr2(&[[3], [9]]), None, &mut gradient);
/// assert!((nats - 4f64.ln()).abs() < 1e-15);
/// assert_eq!(gradient.as_slice().unwrap(), [0.25, 0.25, 0.25, -0.75, 0.0, 0.0, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftmaxCrossEntropy {
    ignored: Option<usize>,
    reduction: Reduction,
}

impl SoftmaxCrossEntropy {
    /// The mean over all positions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Positions with this id do not count: their loss and gradient are zero. It need not be below V.
    pub fn ignore(self, id: usize) -> Self {
        SoftmaxCrossEntropy { ignored: Some(id), ..self }
    }

    /// The sum over the positions instead of their mean.
    pub fn sum(self) -> Self {
        SoftmaxCrossEntropy { reduction: Reduction::Sum, ..self }
    }

    /// The loss; its gradient by the logits goes to `dlogits`, which takes their shape. Positions past the lengths,
    /// where given, do not count.
    ///
    /// # Panics
    /// Where shapes differ, the batch is empty, the lengths do not fit or an id that counts is not below V.
    #[track_caller]
    pub fn evaluate<F: Float>(
        &self,
        logits: &ArrayRef3<F>,
        ids: &ArrayRef2<usize>,
        lengths: Option<&[usize]>,
        dlogits: &mut Array3<F>,
    ) -> f64 {
        let (steps, batch, classes) = logits.dim();
        check_not_empty(NAME, logits.shape());
        check_shape(NAME, "ids", &[steps, batch], ids.shape());
        super::check_lengths(NAME, lengths, (steps, batch));
        let counts =
            |t: usize, b: usize, id: usize| lengths.is_none_or(|lengths| t < lengths[b]) && self.ignored != Some(id);
        let count = ids.indexed_iter().filter(|&((t, b), &id)| counts(t, b, id)).count();
        let weight = self.reduction.weight(count);

        reuse(dlogits, logits.raw_dim());
        dlogits.assign(logits);
        let rows = dlogits.as_slice_mut().expect("a buffer in standard layout").chunks_exact_mut(classes);
        let mut loss = 0.0;
        for (((t, b), &id), row) in ids.indexed_iter().zip(rows) {
            if !counts(t, b, id) {
                row.fill(F::zero());
            } else if id < classes {
                let z_id = row[id].widen();
                loss += softmax(F::of(weight), row).widen() - z_id;
                row[id] -= F::of(weight);
            } else {
                let got = format_args!("{id} at step {t} of sequence {b}");
                mismatch(NAME, "ids", &format_args!("ids below {classes}"), &got)
            }
        }
        loss * weight
    }
}

vectorised! {
    /// `weight · softmax(z)` in place of z; returns log Σ exp(z).
    fn softmax<'a, F: Float>(weight: F, z: &'a mut [F]) -> F {
        let largest = z.iter().fold(F::neg_infinity(), |largest, &z| if z > largest { z } else { largest });
        for z in z.iter_mut() {
            *z = exp(*z - largest);
        }
        let sum: F = z.iter().copied().sum();
        let scale = weight / sum;
        for z in z.iter_mut() {
            *z *= scale;
        }
        largest + sum.ln()
    }
}
