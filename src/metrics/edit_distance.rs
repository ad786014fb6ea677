//! The edit distance between sequences.

use ndarray::ArrayRef2;

use super::positions::{mean, sums};
use crate::base::check_shape;
use crate::base::error::mismatch;
use crate::layer::Id;

const NAME: &str = "EditDistance";

/// The smallest number of insertions, deletions and substitutions that turn `b` into `a` (Levenshtein 1966).
///
/// ```
/// use gradflow::metrics::edit_distance;
///
/// assert_eq!(edit_distance(b"kitten", b"sitting"), 3);
/// assert_eq!(edit_distance(&["a", "b"], &["b"]), 1);
/// ```
pub fn edit_distance<T: PartialEq<U>, U>(a: &[T], b: &[U]) -> usize {
    let mut row = Vec::from_iter(0..=b.len()); // the distances of a's prefix from each prefix of b
    for (i, a) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The number of edits per target symbol over a data set: the word or character error rate.
///
/// ```text
/// rate = Σ w_b distance(predicted_b, target_b) / Σ w_b (length of target_b)
/// ```
///
/// ```
/// use gradflow::{metrics::EditDistance, ndarray::arr2};
///
/// let mut distance = EditDistance::new().end(0);
/// distance.add(&[1, 2, 0, 7], &[1, 3, 4, 0]); // up to the end: 1 2 and 1 3 4
/// assert_eq!((distance.value(), distance.edits()), (2.0 / 3.0, 2.0));
/// let (predicted, targets) = (arr2(&[[5, 6], [0, 6]]), arr2(&[[5, 6], [0, 0]])); // [T, B]: 5 and 6 6; 5 and 6
/// distance.add_batch((&predicted, None), (&targets, Some(&[2, 2])));
/// assert_eq!(distance.edits(), 3.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EditDistance {
    ignored: Option<i128>,
    end: Option<i128>,
    edits: f64,
    total: f64,
    right: f64,
    sequences: f64,
}
sums! { EditDistance { edits, total, right, sequences } }

impl EditDistance {
    /// Counts all symbols of the sequences.
    pub fn new() -> Self {
        EditDistance::default()
    }

    /// This symbol does not count in either sequence.
    pub fn ignore(self, id: impl Id) -> Self {
        EditDistance { ignored: Some(id.wide()), ..self }
    }

    /// A sequence ends before the first occurrence of this symbol.
    pub fn end(self, id: impl Id) -> Self {
        EditDistance { end: Some(id.wide()), ..self }
    }

    /// Counts a pair of sequences.
    pub fn add<P: Id, I: Id>(&mut self, predicted: &[P], target: &[I]) {
        self.add_weighted(predicted, target, 1.0);
    }

    /// Counts a pair of sequences with a weight.
    pub fn add_weighted<P: Id, I: Id>(&mut self, predicted: &[P], target: &[I], weight: f64) {
        self.count(predicted.iter().map(|id| id.wide()), target.iter().map(|id| id.wide()), weight);
    }

    /// Counts the pairs of a batch of ids, `[T, B]` and `[T', B]`, each up to its length if lengths are given.
    ///
    /// # Panics
    /// Panics if the numbers of sequences differ, or if lengths are given that do not fit.
    #[track_caller]
    pub fn add_batch<P: Id, I: Id>(
        &mut self,
        (predicted, predicted_lengths): (&ArrayRef2<P>, Option<&[usize]>),
        (targets, target_lengths): (&ArrayRef2<I>, Option<&[usize]>),
    ) {
        check_shape(NAME, "predicted (its sequences)", &[targets.ncols()], &[predicted.ncols()]);
        check_lengths("predicted lengths", predicted.dim(), predicted_lengths);
        check_lengths("target lengths", targets.dim(), target_lengths);
        let length = |lengths: Option<&[usize]>, b: usize, all: usize| lengths.map_or(all, |lengths| lengths[b]);
        for b in 0..targets.ncols() {
            let predicted = (0..length(predicted_lengths, b, predicted.nrows())).map(|t| predicted[[t, b]].wide());
            let target = (0..length(target_lengths, b, targets.nrows())).map(|t| targets[[t, b]].wide());
            self.count(predicted, target, 1.0);
        }
    }

    fn count(&mut self, predicted: impl Iterator<Item = i128>, target: impl Iterator<Item = i128>, weight: f64) {
        let (ignored, end) = (self.ignored, self.end);
        let known = |&id: &i128| Some(id) != ignored;
        let before_end = |&id: &i128| Some(id) != end;
        let predicted: Vec<i128> = predicted.take_while(before_end).filter(known).collect();
        let target: Vec<i128> = target.take_while(before_end).filter(known).collect();
        let edits = edit_distance(&predicted, &target);
        self.edits += weight * edits as f64;
        self.total += weight * target.len() as f64;
        self.right += if edits == 0 { weight } else { 0.0 };
        self.sequences += weight;
    }

    /// Edits per target symbol: 0 if all are right, above 1 if there are many insertions; NaN if there was no target symbol.
    #[must_use]
    pub fn value(&self) -> f64 {
        mean(self.edits, self.total)
    }

    /// The share of sequences without a mistake; NaN if no sequence was counted.
    #[must_use]
    pub fn exact(&self) -> f64 {
        mean(self.right, self.sequences)
    }

    /// The weighted number of edits.
    #[must_use]
    pub fn edits(&self) -> f64 {
        self.edits
    }
}

/// Panics unless there is one length up to T for each sequence of `[T, B]`, if there are any.
#[track_caller]
fn check_lengths(argument: &str, (steps, batch): (usize, usize), lengths: Option<&[usize]>) {
    let Some(lengths) = lengths else { return };
    check_shape(NAME, argument, &[batch], &[lengths.len()]);
    if let Some(length) = lengths.iter().find(|&&length| length > steps) {
        mismatch(NAME, argument, &format_args!("lengths up to {steps}"), length)
    }
}
