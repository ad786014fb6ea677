//! The confusion matrix.

use std::fmt;

use ndarray::{Array2, ArrayRef2, Axis};

use super::argmax::largest;
use super::positions::{Counted, check_class, of_classes};
use crate::base::check_shape;
use crate::kernels::Float;
use crate::layer::{Id, Sequence};
use crate::parameters;

const NAME: &str = "ConfusionMatrix";

/// How often each class is predicted as each class, with precision, recall and F1.
///
/// ```text
/// precision_k = n_kk / Σ_j n_jk        recall_k = n_kk / Σ_j n_kj        F1_k = 2 n_kk / (Σ_j n_jk + Σ_j n_kj)
/// ```
///
/// where `n_jk` is the weight of the positions of class j that were predicted as k. A quotient of zeros is 0, as in scikit-learn.
///
/// | | shape |
/// | --- | --- |
/// | logits; the largest is the prediction | `[T, B, V]` |
/// | targets | ids `[T, B]` of any integer type |
/// | weights | `[T, B]`, 1 if none are given |
/// | `counts` | `[V, V]`: class, predicted class |
///
/// ```
/// use gradflow::{metrics::ConfusionMatrix, ndarray::arr2};
///
/// let mut confusion = ConfusionMatrix::new(2);
/// confusion.add_classes(&arr2(&[[1, 1, 0, 1]]), &arr2(&[[1, 0, 0, 1]])); // predicted, target
/// assert_eq!(confusion.counts(), arr2(&[[1.0, 1.0], [0.0, 2.0]]));
/// assert_eq!((confusion.precision(1), confusion.recall(1), confusion.f1(1)), (2.0 / 3.0, 1.0, 0.8));
/// assert_eq!(confusion.accuracy(), 0.75);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ConfusionMatrix {
    ignored: Option<i128>,
    counts: Array2<f64>, // [V, V]
}
of_classes! { ConfusionMatrix }
parameters! { impl Tensors<f64> for ConfusionMatrix { counts; skip ignored } }

impl ConfusionMatrix {
    /// A matrix of zeros for `classes` classes.
    pub fn new(classes: usize) -> Self {
        ConfusionMatrix { ignored: None, counts: Array2::zeros((classes, classes)) }
    }

    #[track_caller]
    fn count<F: Float, I: Id>(&mut self, y: Sequence<'_, F>, targets: &ArrayRef2<I>, weights: Option<&ArrayRef2<f64>>) {
        let ConfusionMatrix { ignored, counts } = self;
        let logits = y.features(NAME, Some(counts.nrows()));
        check_shape(NAME, "logits", &[counts.nrows()], &logits.shape()[2..]);
        Counted { ignored: *ignored, weights }.classes(NAME, &y, targets, |z, id, weight| {
            counts[[id, largest(z)]] += weight;
        });
    }

    /// Counts predicted classes, `[T, B]`, such as those of [`argmax`](super::argmax()) or of a decoder.
    ///
    /// # Panics
    /// Panics if the shapes differ, or an id that counts is not a class.
    #[track_caller]
    pub fn add_classes<P: Id, I: Id>(&mut self, predicted: &ArrayRef2<P>, targets: &ArrayRef2<I>) {
        self.count_classes(Sequence::from(predicted.view()), targets);
    }

    /// As [`add_classes`](ConfusionMatrix::add_classes), each sequence up to its length.
    ///
    /// # Panics
    /// Panics as [`add_classes`](ConfusionMatrix::add_classes) does, or if there is not a length from 0 to T for each sequence.
    #[track_caller]
    pub fn add_classes_within<P: Id, I: Id>(
        &mut self,
        predicted: &ArrayRef2<P>,
        targets: &ArrayRef2<I>,
        lengths: &[usize],
    ) {
        let sequence = Sequence::from(predicted.view()).with_lengths(lengths);
        self.count_classes(sequence.unwrap_or_else(|error| panic!("{NAME}: {error}")), targets);
    }

    #[track_caller]
    fn count_classes<I: Id>(&mut self, predicted: Sequence<'_, f32>, targets: &ArrayRef2<I>) {
        let ConfusionMatrix { ignored, counts } = self;
        let (classes, ids) = (counts.nrows(), predicted.tokens(NAME));
        Counted { ignored: *ignored, weights: None }.targets(NAME, &predicted, targets, |t, b, id, weight| {
            check_class(NAME, id, classes, I::view(targets.view()), t, b);
            check_class(NAME, ids.get(t, b), classes, ids, t, b);
            counts[[id, ids.get(t, b)]] += weight;
        });
    }

    /// Adds the counts of another matrix: from another thread, or from another part of the data.
    ///
    /// # Panics
    /// Panics if `other` has another number of classes.
    #[track_caller]
    pub fn merge(&mut self, other: &Self) {
        check_shape(NAME, "other", self.counts.shape(), other.counts.shape());
        self.counts += &other.counts;
    }

    /// Sets the counts to zero.
    pub fn reset(&mut self) {
        self.counts.fill(0.0);
    }

    /// The counts, `[V, V]`: row j has the predictions for class j.
    #[must_use]
    pub fn counts(&self) -> &Array2<f64> {
        &self.counts
    }

    /// The share of positions that are right; 0 if none was counted.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        ratio(self.counts.diag().sum(), self.counts.sum())
    }

    /// The share of the predictions of class `k` that are right.
    ///
    /// # Panics
    /// Panics if there is no such class.
    #[must_use]
    #[track_caller]
    pub fn precision(&self, k: usize) -> f64 {
        ratio(self.counts[[k, k]], self.taken(k))
    }

    /// The share of the positions of class `k` that are predicted as it.
    ///
    /// # Panics
    /// Panics if there is no such class.
    #[must_use]
    #[track_caller]
    pub fn recall(&self, k: usize) -> f64 {
        ratio(self.counts[[k, k]], self.support(k))
    }

    /// The harmonic mean of precision and recall of class `k`.
    ///
    /// # Panics
    /// Panics if there is no such class.
    #[must_use]
    #[track_caller]
    pub fn f1(&self, k: usize) -> f64 {
        ratio(2.0 * self.counts[[k, k]], self.taken(k) + self.support(k))
    }

    /// The mean of the classes' F1, unweighted.
    #[must_use]
    pub fn macro_f1(&self) -> f64 {
        let classes = self.counts.nrows();
        ratio((0..classes).map(|k| self.f1(k)).sum(), classes as f64)
    }

    /// The mean of the classes' F1, weighted by how often each class is a target.
    #[must_use]
    pub fn weighted_f1(&self) -> f64 {
        ratio((0..self.counts.nrows()).map(|k| self.support(k) * self.f1(k)).sum(), self.counts.sum())
    }

    /// F1 of all classes together, except those in `left_out`: for tagging, if most positions have no tag. With no class left
    /// out, it is the accuracy.
    ///
    /// # Panics
    /// Panics if there is no such class.
    #[must_use]
    #[track_caller]
    pub fn micro_f1(&self, left_out: &[usize]) -> f64 {
        let classes = || (0..self.counts.nrows()).filter(|k| !left_out.contains(k));
        let right: f64 = classes().map(|k| self.counts[[k, k]]).sum();
        ratio(2.0 * right, classes().map(|k| self.taken(k) + self.support(k)).sum())
    }

    /// The weight of the predictions of class `k`.
    fn taken(&self, k: usize) -> f64 {
        self.counts.index_axis(Axis(1), k).sum()
    }

    /// The weight of class `k` among the targets.
    fn support(&self, k: usize) -> f64 {
        self.counts.row(k).sum()
    }
}

fn ratio(sum: f64, total: f64) -> f64 {
    if total == 0.0 { 0.0 } else { sum / total }
}

/// One row per class, with the counts of its predictions.
impl fmt::Display for ConfusionMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10}", "class")?;
        (0..self.counts.ncols()).try_for_each(|k| write!(f, " {:>8}", format!("as {k}")))?;
        for (k, row) in self.counts.rows().into_iter().enumerate() {
            write!(f, "\n{k:>10}")?;
            row.iter().try_for_each(|count| write!(f, " {count:>8}"))?;
        }
        Ok(())
    }
}
