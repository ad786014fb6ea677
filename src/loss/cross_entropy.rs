//! Softmax cross-entropy from class ids.

use ndarray::{Array3, ArrayRef2, ArrayRef3};

use super::Reduction;
use crate::base::check_shape;
use crate::base::error::{check_not_empty, mismatch};
use crate::kernels::Float;
use crate::kernels::softmax::{largest, weighted_softmax};
use crate::layer::kit::reuse;

const NAME: &str = "SoftmaxCrossEntropy";

/// The cross-entropy of softmax probabilities with class ids, in nats.
///
/// ```text
/// loss_tb = log Σ_k exp(z_tbk) - z_tb,id           dL/dz_tbk = w (softmax(z_tb)_k - [k = id])
/// ```
///
/// with `w` = 1/(number of positions that count) for the mean and 1 for the sum. With
/// [weights](SoftmaxCrossEntropy::class_weights) `c_k` and [smoothing](SoftmaxCrossEntropy::label_smoothing) ε, as in
/// PyTorch's `CrossEntropyLoss`:
///
/// ```text
/// q_k = (1 - ε) c_id [k = id] + ε c_k / V
/// loss_tb = -Σ_k q_k log softmax(z_tb)_k           dL/dz_tbk = w (softmax(z_tb)_k Σ_j q_j - q_k)
/// ```
///
/// and `w` = 1/(sum of the `c_id` that count) for the mean. The largest logit is taken out first, so logits of any
/// finite size are safe.
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SoftmaxCrossEntropy {
    ignored: Option<usize>,
    smoothing: f64,
    weights: Option<Vec<f64>>, // [V]
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

    /// A share `epsilon` of the target goes to all classes alike, its own included (Szegedy et al. 2016): the logits
    /// need not grow for ever.
    ///
    /// # Panics
    /// Where `epsilon` is not in `0..=1`.
    pub fn label_smoothing(self, epsilon: f64) -> Self {
        if !(0.0..=1.0).contains(&epsilon) {
            mismatch(NAME, "label smoothing", &"a share in 0..=1", &epsilon)
        }
        SoftmaxCrossEntropy { smoothing: epsilon, ..self }
    }

    /// One weight a class, for classes of which some are rare. The mean is then weighted: over the sum of the targets'
    /// weights, not their number; 0 where that is 0.
    ///
    /// # Panics
    /// Where a weight is negative or not finite.
    pub fn class_weights(self, weights: &[f64]) -> Self {
        super::check_weights(NAME, "class weights", weights);
        SoftmaxCrossEntropy { weights: Some(weights.to_vec()), ..self }
    }

    /// The sum over the positions instead of their mean.
    pub fn sum(self) -> Self {
        SoftmaxCrossEntropy { reduction: Reduction::Sum, ..self }
    }

    /// The loss; its gradient by the logits goes to `dlogits`, which takes their shape. Positions past the lengths,
    /// where given, do not count.
    ///
    /// # Panics
    /// Where shapes differ, the batch is empty, the lengths do not fit, the weights are not one a class or an id that
    /// counts is not below V.
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
        if let Some(weights) = &self.weights {
            check_shape(NAME, "class weights", &[classes], &[weights.len()]);
        }
        // An id out of range has no weight; it is refused below.
        let class_weight = |id: usize| self.weights.as_ref().map_or(1.0, |weights| *weights.get(id).unwrap_or(&0.0));
        let counted = ids.indexed_iter().filter(|&((t, b), &id)| counts(t, b, id));
        let weight = self.reduction.weight(counted.map(|(_, &id)| class_weight(id)).sum());
        // What every class has of the target, whichever is the id: ε c_k / V.
        let share = |k: usize| self.smoothing * class_weight(k) / classes as f64;
        let shares: f64 = (0..classes).map(share).sum();

        reuse(dlogits, logits.raw_dim());
        dlogits.assign(logits);
        let rows = dlogits.as_slice_mut().expect("a buffer in standard layout").chunks_exact_mut(classes);
        let mut loss = 0.0;
        for (((t, b), &id), row) in ids.indexed_iter().zip(rows) {
            if !counts(t, b, id) {
                row.fill(F::zero());
            } else if id < classes {
                let own = (1.0 - self.smoothing) * class_weight(id);
                // Everything against the largest logit: a difference of large logits keeps its digits.
                let largest = largest(row);
                let above = |z: F| (z - largest).widen();
                let mut target = own * above(row[id]); // Σ q_k (z_k - max z)
                if self.smoothing > 0.0 {
                    target += row.iter().enumerate().map(|(k, &z)| share(k) * above(z)).sum::<f64>();
                }
                let total = weighted_softmax(F::of(weight * (own + shares)), largest, row);
                loss += (own + shares) * total.ln() - target;
                row[id] -= F::of(weight * own);
                if self.smoothing > 0.0 {
                    row.iter_mut().enumerate().for_each(|(k, d)| *d -= F::of(weight * share(k)));
                }
            } else {
                let got = format_args!("{id} at step {t} of sequence {b}");
                mismatch(NAME, "ids", &format_args!("ids below {classes}"), &got)
            }
        }
        loss * weight
    }
}
