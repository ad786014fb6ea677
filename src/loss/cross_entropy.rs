//! Softmax cross-entropy from class ids.

use ndarray::{Array3, ArrayRef2, ArrayRef3, ArrayView1, ArrayViewMut2, CowArray, s};

use super::reduction::{Reduction, check_weights, weighted};
use super::traits::{Loss, Memory};
use super::weights::{Parts, Weights, weight_at};
use crate::base::check_shape;
use crate::base::error::mismatch;
use crate::kernels::softmax::{beside_largest, largest, weighted_softmax};
use crate::kernels::{Float, once};
use crate::layer::{Id, Ids, Sequence};
use crate::parallel::{for_each_part, function_work, in_pass};

const NAME: &str = "SoftmaxCrossEntropy";

/// The cross-entropy of softmax probabilities with class ids, in nats.
///
/// ```text
/// loss_tb = log Σ_k exp(z_tbk) - z_tb,id           dL/dz_tbk = w (softmax(z_tb)_k - [k = id])
/// ```
///
/// where `w` is 1/(number of positions that count) for the mean and 1 for the sum. With
/// [weights](SoftmaxCrossEntropy::class_weights) `c_k` and [smoothing](SoftmaxCrossEntropy::label_smoothing) ε, as in PyTorch's
/// `CrossEntropyLoss`:
///
/// ```text
/// q_k = (1 - ε) c_id [k = id] + ε c_k / V
/// loss_tb = -Σ_k q_k log softmax(z_tb)_k           dL/dz_tbk = w (softmax(z_tb)_k Σ_j q_j - q_k)
/// ```
///
/// and `w` is 1/(sum of the `c_id` that count) for the mean. With [weights](super::Weights) `w_tb` of steps, `w` is `w_tb`/(sum
/// of the `w_tb c_id` that count) for the mean and `w_tb` for the sum.
///
/// The largest logit is subtracted first, after halving both, so logits of any finite size are safe: the loss is finite if f64
/// can hold its value. In the sum of exponentials, the terms of all other classes are kept apart from the largest one's 1
/// (`ln_1p`), so the loss of a confident prediction keeps its digits, and so does its gradient at the id. A logit of -∞ masks a
/// class: its probability and its gradient are 0. A class with a `q_k` of 0, such as a class of weight 0, adds nothing to the
/// loss, even if its logit is -∞. If a masked class has a `q_k` above 0, because it is the id or by smoothing, the loss is
/// infinite, as in PyTorch.
///
/// | | shape |
/// | --- | --- |
/// | logits `z`, gradient | `[T, B, V]` |
/// | targets: ids | `[T, B]` of any integer type, each from 0 and below V |
///
/// ```
/// use gradflow::{loss::{Loss, SoftmaxCrossEntropy}, ndarray::{Array3, arr2}};
///
/// let mut cross_entropy = SoftmaxCrossEntropy::new().ignore(9);
/// let loss = cross_entropy.of(&Array3::<f64>::zeros((2, 1, 4)), &arr2(&[[3], [9]]));
/// assert!((loss.value() - 4f64.ln()).abs() < 1e-15);
/// assert_eq!(loss.gradient().as_slice().unwrap(), [0.25, 0.25, 0.25, -0.75, 0.0, 0.0, 0.0, 0.0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct SoftmaxCrossEntropy<F, I = usize> {
    options: Options,
    ignored: Option<I>,
    memory: Memory<F>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    smoothing: f64,
    weights: Option<Vec<f64>>, // [V]
    reduction: Reduction,
}

/// Positions per block. Several threads may compute the losses of a block, which are then added up in order.
const BLOCK: usize = 256;

#[derive(Clone, Copy, Default)]
struct Position {
    /// `None` if the position does not count.
    target: Option<Target>,
    loss: f64,
}

#[derive(Clone, Copy)]
struct Target {
    weight: f64,
    id: usize,
    /// The id's part of the target.
    own: f64,
    /// The sum of the target over all classes.
    all: f64,
}

impl<F, I: Id> SoftmaxCrossEntropy<F, I> {
    /// The mean over all positions.
    pub fn new() -> Self {
        SoftmaxCrossEntropy { options: Options::default(), ignored: None, memory: Memory::default() }
    }

    /// Positions with this id do not count: their loss and gradient are zero. The id need not be in `0..V`: `ignore(-100)` is
    /// PyTorch's.
    pub fn ignore(self, id: I) -> Self {
        SoftmaxCrossEntropy { ignored: Some(id), ..self }
    }

    /// Spreads a share `epsilon` of the target evenly over all classes, its own included (Szegedy et al. 2016), so that
    /// the logits need not grow without bound.
    ///
    /// # Panics
    /// Panics if `epsilon` is not in `0..=1`.
    #[track_caller]
    pub fn label_smoothing(self, epsilon: f64) -> Self {
        if !(0.0..=1.0).contains(&epsilon) {
            mismatch(NAME, "label smoothing", &"a share in 0..=1", &epsilon)
        }
        SoftmaxCrossEntropy { options: Options { smoothing: epsilon, ..self.options }, ..self }
    }

    /// One weight per class, for rare classes. The mean then divides by the sum of the targets' weights instead of their number;
    /// it is 0 if that sum is 0.
    ///
    /// # Panics
    /// Panics if a weight is negative or not finite.
    #[track_caller]
    pub fn class_weights(self, weights: &[f64]) -> Self {
        check_weights(NAME, "class weights", weights);
        SoftmaxCrossEntropy { options: Options { weights: Some(weights.to_vec()), ..self.options }, ..self }
    }

    /// The sum over the positions instead of their mean.
    pub fn sum(self) -> Self {
        SoftmaxCrossEntropy { options: Options { reduction: Reduction::Sum, ..self.options }, ..self }
    }
}

impl<F, I: Id> Default for SoftmaxCrossEntropy<F, I> {
    fn default() -> Self {
        SoftmaxCrossEntropy::new()
    }
}

impl<F: Float, I: Id> Loss<F> for SoftmaxCrossEntropy<F, I> {
    type Targets = ArrayRef2<I>;

    /// As [`Loss::evaluate`].
    ///
    /// # Panics
    /// Panics if the shapes differ, the batch is empty, there is not one weight per class, or an id that counts is not
    /// below V.
    #[track_caller]
    fn evaluate(&self, y: Sequence<'_, F>, ids: &ArrayRef2<I>, dy: Option<&mut ArrayRef3<F>>) -> f64 {
        let is_ignored = |t: usize, b: usize| self.ignored == Some(ids[[t, b]]);
        evaluate(&self.options, y.reborrow(), I::view(ids.view()), &is_ignored, None, dy)
    }

    fn evaluate_weighted(
        &self,
        y: Sequence<'_, F>,
        ids: &ArrayRef2<I>,
        weights: Weights<'_, F>,
        dy: Option<&mut ArrayRef3<F>>,
    ) -> f64 {
        let is_ignored = |t: usize, b: usize| self.ignored == Some(ids[[t, b]]);
        evaluate(&self.options, y.reborrow(), I::view(ids.view()), &is_ignored, Some(weights.reborrow()), dy)
    }

    fn weight(&self, y: Sequence<'_, F>, ids: &ArrayRef2<I>) -> f64 {
        let is_ignored = |t: usize, b: usize| self.ignored == Some(ids[[t, b]]);
        self.options.reduction.weighs(self.options.total(y, I::view(ids.view()), &is_ignored, None))
    }

    fn total_weight(&self, y: Sequence<'_, F>, ids: &ArrayRef2<I>, weights: Weights<'_, F>) -> f64 {
        let is_ignored = |t: usize, b: usize| self.ignored == Some(ids[[t, b]]);
        weights.check_shape(NAME, Parts::Steps, [ids.nrows(), ids.ncols(), 0]);
        self.options.reduction.weighs(self.options.total(y, I::view(ids.view()), &is_ignored, Some(weights)))
    }

    fn memory(&mut self) -> &mut Array3<F> {
        &mut self.memory.0
    }
}

impl Options {
    /// `c_id`; 0 for an id that is out of range.
    fn class_weight(&self, id: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| *weights.get(id).unwrap_or(&0.0))
    }

    /// The sum of the weights of all positions that count, `w_tb c_id`.
    #[track_caller]
    fn total<F: Float>(
        &self,
        sequence: Sequence<'_, F>,
        ids: Ids<'_>,
        is_ignored: &dyn Fn(usize, usize) -> bool,
        weights: Option<Weights<'_, F>>,
    ) -> f64 {
        let (steps, batch) = ids.dim();
        let mut total = 0.0;
        for (t, b) in (0..steps).flat_map(|t| (0..batch).map(move |b| (t, b))) {
            if sequence.valid(t, b) && !is_ignored(t, b) {
                total += weight_at(weights, NAME, [t, b, 0]) * self.class_weight(ids.get(t, b));
            }
        }
        total
    }

    /// `ε c_k / V`: the part of `q_k` that does not depend on the id.
    fn share(&self, k: usize, classes: usize) -> f64 {
        self.smoothing * self.class_weight(k) / classes as f64
    }

    /// `(1 - ε) c_id`: the part of `q_id` that belongs to the id.
    fn own(&self, id: usize) -> f64 {
        (1.0 - self.smoothing) * self.class_weight(id)
    }

    /// `unit Σ_k q_k (z_k - max z)`. Everything is relative to the largest logit: a difference of large logits keeps its
    /// digits. Halves of two logits have a finite difference.
    fn target<F: Float>(&self, unit: f64, id: usize, z: ArrayView1<'_, F>, largest: F) -> f64 {
        let half = |z: F| 0.5 * z.widen() - 0.5 * largest.widen();
        let mut target = weighted(unit * self.own(id), half(z[id]));
        if self.smoothing > 0.0 {
            let shares = z.iter().enumerate().map(|(k, &z_k)| weighted(unit * self.share(k, z.len()), half(z_k)));
            target += shares.sum::<f64>();
        }
        2.0 * target
    }
}

once! {
    #[track_caller]
    fn evaluate<'a, F: Float>(
        options: &'a Options,
        sequence: Sequence<'a, F>,
        ids: Ids<'a>,
        is_ignored: &'a dyn Fn(usize, usize) -> bool,
        weights: Option<Weights<'a, F>>,
        dlogits: Option<&'a mut ArrayRef3<F>>,
    ) -> f64 {
        let logits = sequence.features(NAME, None); // [T, B, V]
        let (steps, batch, classes) = logits.dim();
        check_shape(NAME, "ids", &[steps, batch], &[ids.dim().0, ids.dim().1]);
        if let Some(weights) = &options.weights {
            check_shape(NAME, "class weights", &[classes], &[weights.len()]);
        }
        if let Some(weights) = weights {
            weights.check_shape(NAME, Parts::Steps, [steps, batch, classes]);
        }
        let factors = options.reduction.shares(options.total(sequence, ids, is_ignored, weights));
        // 0 for a position that does not count.
        let weight_of = |(t, b): (usize, usize)| {
            if sequence.valid(t, b) && !is_ignored(t, b) { weight_at(weights, NAME, [t, b, 0]) } else { 0.0 }
        };
        let positions = || (0..steps).flat_map(|t| (0..batch).map(move |b| (t, b)));
        for (t, b) in positions().filter(|&at| weight_of(at) > 0.0) {
            if ids.get(t, b) >= classes {
                let got = format_args!("{} at step {t} of sequence {b}", ids.shown(t, b));
                mismatch(NAME, "ids", &format_args!("ids below {classes}"), &got)
            }
        }
        let shares: f64 = (0..classes).map(|k| options.share(k, classes)).sum();
        // `Some` for a position that counts.
        let target_of = |(t, b): (usize, usize)| {
            let weight = weight_of((t, b));
            let id = ids.get(t, b);
            (weight > 0.0).then(|| Target { weight, id, own: options.own(id), all: options.own(id) + shares })
        };

        let rows = steps * batch;
        let mut dlogits = dlogits.map(|dlogits| {
            let values = dlogits.as_slice_mut().expect("a gradient in standard layout");
            ArrayViewMut2::from_shape((rows, classes), values).expect("a gradient of the logits' shape")
        });
        // Without a gradient to work in, logits that are not in standard layout are copied.
        let logits = if dlogits.is_some() { CowArray::from(logits) } else { logits.as_standard_layout() };
        let logits = logits.view();
        // The loss of a row, and its gradient into `d`. A row is copied, transformed and scaled while it is in the cache.
        let of_row = |row: usize, target: Option<Target>, d: Option<&mut [F]>| {
            let z = logits.slice(s![row / batch, row % batch, ..]);
            let Some(Target { weight, id, own, all }) = target else {
                d.into_iter().for_each(|d| d.fill(F::zero()));
                return 0.0;
            };
            let (unit, weight) = (factors.in_sum(weight), factors.of(weight));
            let Some(d) = d else {
                let values = z.to_slice().expect("standard layout");
                let largest = largest(values);
                return unit * all * beside_largest(largest, values).ln_1p() - options.target(unit, id, z, largest);
            };
            match z.to_slice() {
                Some(z) => d.copy_from_slice(z),
                None => d.iter_mut().zip(&z).for_each(|(d, &z)| *d = z),
            }
            let (largest, beside, others) = weighted_softmax(F::of(weight * all), id, d);
            // w own (p_id - 1), from the other classes' probabilities: 1 - p_id has no digits left if p_id is near 1.
            d[id] = F::of(weight * (shares * (1.0 - others / (1.0 + beside)) - own * (others / (1.0 + beside))));
            if options.smoothing > 0.0 {
                d.iter_mut().enumerate().for_each(|(k, d)| *d -= F::of(weight * options.share(k, classes)));
            }
            unit * all * beside.ln_1p() - options.target(unit, id, z, largest)
        };
        let mut positions = [Position::default(); BLOCK];
        let mut loss = 0.0; // times `factors`' unit
        in_pass(|| (function_work(rows.saturating_mul(classes)), 1), || {
            for start in (0..rows).step_by(BLOCK) {
                let block = start..rows.min(start + BLOCK);
                let positions = &mut positions[..block.len()];
                for (row, position) in block.clone().zip(&mut *positions) {
                    *position = Position { target: target_of((row / batch, row % batch)), loss: 0.0 };
                }
                let work = function_work(block.len().saturating_mul(classes));
                let d = dlogits.as_mut().map(|d| d.slice_mut(s![block.clone(), ..]));
                for_each_part((block, (&mut *positions, d)), work, 1, |(rows, (positions, d))| {
                    let mut d = d;
                    for (i, (row, position)) in rows.zip(positions).enumerate() {
                        let d = d.as_mut().map(|d| d.row_mut(i).into_slice().expect("standard layout"));
                        position.loss = of_row(row, position.target, d);
                    }
                });
                // In order, so that the sum does not depend on the number of threads.
                positions.iter().for_each(|position| loss += position.loss);
            }
        });
        factors.finish(loss)
    }
}
