//! The targets of samples, from which those of a batch are made.

use ndarray::{ArcArray2, Array2, Array3, s};

use crate::kernels::Float;

/// The targets of [`Samples`](super::Samples), from which those of a batch are made.
///
/// Implement it for targets of your own kind; `()` means no targets.
pub trait Targets: Clone {
    /// The targets of a batch, such as class ids `[T, B]`.
    type Batch;

    /// The number of samples; `None` if any number fits.
    fn count(&self) -> Option<usize>;

    /// The number of steps of sample `i`'s target, if there is a target for each step.
    fn steps(&self, _i: usize) -> Option<usize> {
        None
    }

    /// The targets of some of the samples, in the given order.
    fn select(&self, samples: &[usize]) -> Self;

    /// The targets of a batch of these samples, padded to `steps` steps.
    fn batch(&self, samples: &[usize], steps: usize) -> Self::Batch;
}

impl Targets for () {
    type Batch = ();

    fn count(&self) -> Option<usize> {
        None
    }

    fn select(&self, _: &[usize]) {}

    fn batch(&self, _: &[usize], _: usize) {}
}

/// A class for each sequence: `[1, B]` for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelPerSequence(pub Vec<usize>);

impl Targets for LabelPerSequence {
    type Batch = Array2<usize>;

    fn count(&self) -> Option<usize> {
        Some(self.0.len())
    }

    fn select(&self, samples: &[usize]) -> Self {
        LabelPerSequence(samples.iter().map(|&i| self.0[i]).collect())
    }

    fn batch(&self, samples: &[usize], _: usize) -> Array2<usize> {
        Array2::from_shape_fn((1, samples.len()), |(_, b)| self.0[samples[b]])
    }
}

/// A class for each step: `[T, B]` for a batch, padded with 0.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelPerStep(pub Vec<Vec<usize>>);

impl Targets for LabelPerStep {
    type Batch = Array2<usize>;

    fn count(&self) -> Option<usize> {
        Some(self.0.len())
    }

    fn steps(&self, i: usize) -> Option<usize> {
        Some(self.0[i].len())
    }

    fn select(&self, samples: &[usize]) -> Self {
        LabelPerStep(samples.iter().map(|&i| self.0[i].clone()).collect())
    }

    fn batch(&self, samples: &[usize], steps: usize) -> Array2<usize> {
        padded_ids(samples.iter().map(|&i| &self.0[i][..]), steps)
    }
}

/// Values for each sequence: `[1, B, D]` for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ValuesPerSequence<F>(pub Vec<ArcArray2<F>>); // [·, ·] each, D elements in all

impl<F: Float> Targets for ValuesPerSequence<F> {
    type Batch = Array3<F>;

    fn count(&self) -> Option<usize> {
        Some(self.0.len())
    }

    fn select(&self, samples: &[usize]) -> Self {
        ValuesPerSequence(samples.iter().map(|&i| self.0[i].clone()).collect())
    }

    fn batch(&self, samples: &[usize], _: usize) -> Array3<F> {
        let width = samples.first().map_or(0, |&i| self.0[i].len());
        let mut batch = Array3::zeros((1, samples.len(), width));
        for (b, &i) in samples.iter().enumerate() {
            batch.slice_mut(s![0, b, ..]).iter_mut().zip(&self.0[i]).for_each(|(to, &from)| *to = from);
        }
        batch
    }
}

/// Values for each step: `[T, B, D]` for a batch, padded with 0.
#[derive(Clone, Debug, PartialEq)]
pub struct ValuesPerStep<F>(pub Vec<ArcArray2<F>>); // [T, D] each

impl<F: Float> Targets for ValuesPerStep<F> {
    type Batch = Array3<F>;

    fn count(&self) -> Option<usize> {
        Some(self.0.len())
    }

    fn steps(&self, i: usize) -> Option<usize> {
        Some(self.0[i].nrows())
    }

    fn select(&self, samples: &[usize]) -> Self {
        ValuesPerStep(samples.iter().map(|&i| self.0[i].clone()).collect())
    }

    fn batch(&self, samples: &[usize], steps: usize) -> Array3<F> {
        padded_values(samples.iter().map(|&i| &self.0[i]), steps)
    }
}

/// Sequences of ids side by side, `[T, B]`, padded with 0.
pub(super) fn padded_ids<'a>(sequences: impl ExactSizeIterator<Item = &'a [usize]>, steps: usize) -> Array2<usize> {
    let mut batch = Array2::zeros((steps, sequences.len()));
    for (mut column, sequence) in batch.columns_mut().into_iter().zip(sequences) {
        column.iter_mut().zip(sequence).for_each(|(to, &id)| *to = id);
    }
    batch
}

/// Sequences of rows side by side, `[T, B, D]`, padded with 0.
pub(super) fn padded_values<'a, F: Float>(
    sequences: impl ExactSizeIterator<Item = &'a ArcArray2<F>> + Clone,
    steps: usize,
) -> Array3<F> {
    let width = sequences.clone().next().map_or(0, |sequence| sequence.ncols());
    let mut batch = Array3::zeros((steps, sequences.len(), width));
    for (b, sequence) in sequences.enumerate() {
        batch.slice_mut(s![..sequence.nrows(), b, ..]).assign(sequence);
    }
    batch
}
