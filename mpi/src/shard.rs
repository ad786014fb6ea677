//! A part of a batch.

use std::ops::Range;

use gradflow::ndarray::{ArrayRef, ArrayView, Axis, Dimension, Slice};
use gradflow::{Float, Sequence};

/// Neighbouring sequences of a batch that are computed separately from the others.
///
/// ```
/// use gradflow::{Sequence, ndarray::{Array2, Array3}};
/// # let code = gradflow_mpi::run(gradflow_mpi::Options::new().shards(2), |ranks| {
/// # if ranks.count() > 1 { return Ok::<_, String>(()) }
///
/// let (x, targets) = (Array3::<f32>::zeros((5, 6, 3)), Array2::<usize>::zeros((5, 6))); // B = 6
/// let shard = ranks.shards(6).last().unwrap();
/// assert_eq!((shard.sequences(), shard.count()), (3..6, 3));
/// assert_eq!((shard.of(&x).dims(), shard.of(&x).first_sequence()), ((5, 3), 3));
/// assert_eq!(shard.part(&targets).dim(), (5, 3));
/// # Ok(()) });
/// # assert_eq!(code, std::process::ExitCode::SUCCESS);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub(crate) index: usize,
    pub(crate) place: usize,
    pub(crate) sequences: Range<usize>,
}

impl Shard {
    /// Its number among all shards of the batch.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its number among the shards of this rank: the index of its state and its cache, if they are kept in a list.
    #[must_use]
    pub fn place(&self) -> usize {
        self.place
    }

    /// The sequences of the batch that it has.
    #[must_use]
    pub fn sequences(&self) -> Range<usize> {
        self.sequences.clone()
    }

    /// The number of sequences.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sequences.len()
    }

    /// Its sequences of the whole batch `x`, with their lengths and the mode. Dropout draws the same numbers as for the whole batch.
    ///
    /// # Panics
    /// Panics if the batch has fewer sequences.
    #[must_use]
    #[track_caller]
    pub fn of<'x, F: Float>(&self, x: impl Into<Sequence<'x, F>>) -> Sequence<'x, F> {
        x.into().sequences(self.sequences())
    }

    /// Its columns of the whole batch's targets: ids `[T, B]`, values `[T, B, D]`, or anything else whose second axis counts the
    /// sequences.
    ///
    /// # Panics
    /// Panics if there are fewer sequences, or `whole` has no second axis.
    #[must_use]
    #[track_caller]
    pub fn part<'x, A, D: Dimension>(&self, whole: &'x ArrayRef<A, D>) -> ArrayView<'x, A, D> {
        whole.slice_axis(Axis(1), Slice::from(self.sequences()))
    }

    /// Marks sequences as this shard's, with their place in the whole batch: for a rank that read only its own part of the data.
    ///
    /// # Panics
    /// Panics if the number of sequences is not that of the shard.
    #[must_use]
    #[track_caller]
    pub fn own<'x, F: Float>(&self, x: impl Into<Sequence<'x, F>>) -> Sequence<'x, F> {
        let x = x.into();
        let (expected, got) = (self.count(), x.dims().1);
        assert_eq!(expected, got, "Shard: x: expected {expected} sequences, got {got}");
        x.starting_at_sequence(self.sequences.start)
    }
}

/// The start of part `i` if `all` elements are cut into `count` parts of about equal length.
pub(crate) fn start(all: usize, i: usize, count: usize) -> usize {
    all / count * i + all % count * i / count
}

#[cfg(test)]
mod tests {
    use super::start;

    #[test]
    fn parts_are_the_whole_and_nearly_equal() {
        for (all, count) in [(0, 8), (3, 8), (8, 8), (13, 4), (64, 8)] {
            let starts: Vec<_> = (0..=count).map(|i| start(all, i, count)).collect();
            assert_eq!((starts[0], starts[count]), (0, all));
            let lengths: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(lengths.iter().all(|length| (all / count..=all.div_ceil(count)).contains(length)), "{lengths:?}");
        }
    }
}
