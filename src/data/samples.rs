//! Sequences of unequal length, each with its target, and the batches made of them.

use ndarray::{ArcArray2, Array1, Array2, ArrayView1, Axis};
use rand::Rng;
use rand::seq::SliceRandom;

use super::batch::{Batch, Values};
use super::normalizer::Normalizer;
use super::targets::{
    LabelPerSequence, LabelPerStep, Targets, ValuesPerSequence, ValuesPerStep, padded_ids, padded_values,
};
use crate::base::error::mismatch;
use crate::kernels::Float;
use crate::layer::Id;

const NAME: &str = "Samples";

/// Sequences of unequal length, of token ids or of values, each with its target.
///
/// | sequences | | in a batch |
/// | --- | --- | --- |
/// | token ids of any integer type | [`Samples::ids`] | `[T, B]` |
/// | values, `[T, D]` each | [`Samples::values`] | `[T, B, D]` |
///
/// | targets | | in a batch |
/// | --- | --- | --- |
/// | a class for each sequence | [`with_labels`](Samples::with_labels) | `[1, B]` |
/// | a class for each step | [`with_tags`](Samples::with_tags) | `[T, B]` |
/// | values for each sequence | [`with_values`](Samples::with_values) | `[1, B, D]` |
/// | values for each step | [`with_step_values`](Samples::with_step_values) | `[T, B, D]` |
///
/// T is the length of the longest sequence of the batch. Batches come in order ([`batches`](Samples::batches)), shuffled
/// ([`shuffled`](Samples::shuffled)), or of sequences of similar length ([`bucketed`](Samples::bucketed)).
///
/// ```
/// use gradflow::prelude::*;
/// use gradflow::{data::Samples, layers::LastStep, rand::{SeedableRng, rngs::StdRng}};
///
/// let words: [&[u16]; 4] = [&[3, 1, 4], &[1, 5], &[9, 2, 6, 5], &[3]];
/// let samples = Samples::ids(words).with_labels([0u8, 1, 0, 1]);
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let mut model = (Embedding::<f32>::new(10, 8, rng), Gru::new(8, 8, rng), LastStep::new(), Linear::new(8, 2, rng));
/// let (mut cache, mut grad) = (model.cache(), model.zeros_like());
/// let (mut cross_entropy, mut optimizer) = (SoftmaxCrossEntropy::new(), AdamW::new(0.01));
/// for _epoch in 0..3 {
///     for batch in samples.shuffled(2, rng) {
///         let mut state = model.zero_state(batch.count());
///         let pass = model.pass(&batch, &mut state, &mut cache);
///         let loss = cross_entropy.of(&pass, &batch.targets);
///         pass.backward_into(loss.gradient(), &mut grad);
///         optimizer.step(&mut model, &grad);
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Samples<F, Y = ()> {
    sequences: Sequences<F>,
    targets: Y,
}

#[derive(Clone, Debug, PartialEq)]
enum Sequences<F> {
    Ids(Vec<Vec<usize>>),
    Values(Vec<ArcArray2<F>>), // [T, D] each
}

impl<F> Sequences<F> {
    fn count(&self) -> usize {
        match self {
            Sequences::Ids(ids) => ids.len(),
            Sequences::Values(values) => values.len(),
        }
    }

    fn length(&self, i: usize) -> usize {
        match self {
            Sequences::Ids(ids) => ids[i].len(),
            Sequences::Values(values) => values[i].nrows(),
        }
    }
}

/// Ids as indices. Negative ones become `usize::MAX`, which a loss can be told to ignore.
fn indices<I: Id>(ids: impl AsRef<[I]>) -> Vec<usize> {
    ids.as_ref().iter().map(|id| id.index()).collect()
}

impl<F: Float> Samples<F> {
    /// Sequences of token ids.
    pub fn ids<I: Id>(sequences: impl IntoIterator<Item = impl AsRef<[I]>>) -> Self {
        Self::new(Sequences::Ids(sequences.into_iter().map(indices).collect()))
    }

    /// Sequences of values, `[T, D]` each: `Array2`, or `ArcArray2`, which shares its memory.
    ///
    /// # Panics
    /// Panics if they do not have the same number of features.
    #[track_caller]
    pub fn values(sequences: impl IntoIterator<Item = impl Into<ArcArray2<F>>>) -> Self {
        Self::new(Sequences::Values(sequences.into_iter().map(Into::into).collect()))
    }

    #[track_caller]
    fn new(sequences: Sequences<F>) -> Self {
        if let Sequences::Values(values) = &sequences {
            check_widths("sequences", values.iter().map(|values| values.ncols()));
        }
        Samples { sequences, targets: () }
    }

    /// Adds a class for each sequence.
    ///
    /// # Panics
    /// Panics if there is not one for each sequence.
    #[track_caller]
    pub fn with_labels(self, labels: impl IntoIterator<Item = impl Id>) -> Samples<F, LabelPerSequence> {
        self.with_targets(LabelPerSequence(labels.into_iter().map(Id::index).collect()))
    }

    /// Adds a class for each step. Negative ones become `usize::MAX`, for a loss to ignore:
    /// `SoftmaxCrossEntropy::new().ignore(usize::MAX)`.
    ///
    /// # Panics
    /// Panics if there is not one for each step.
    #[track_caller]
    pub fn with_tags<I: Id>(self, tags: impl IntoIterator<Item = impl AsRef<[I]>>) -> Samples<F, LabelPerStep> {
        self.with_targets(LabelPerStep(tags.into_iter().map(indices).collect()))
    }

    /// Adds values, `[D]`, for each sequence.
    ///
    /// # Panics
    /// Panics if there are not values for each sequence, or not equally many for each.
    #[track_caller]
    pub fn with_values(self, values: impl IntoIterator<Item = Array1<F>>) -> Samples<F, ValuesPerSequence<F>> {
        self.with_targets_of_sequences(values.into_iter().map(|row| row.insert_axis(Axis(0)).into()).collect())
    }

    #[track_caller]
    pub(super) fn with_targets_of_sequences(self, values: Vec<ArcArray2<F>>) -> Samples<F, ValuesPerSequence<F>> {
        check_widths("values", values.iter().map(|values| values.len()));
        self.with_targets(ValuesPerSequence(values))
    }

    /// Adds values, `[D]`, for each step: `[T, D]` for each sequence.
    ///
    /// # Panics
    /// Panics if there are not values for each step, or not equally many for each.
    #[track_caller]
    pub fn with_step_values(
        self,
        values: impl IntoIterator<Item = impl Into<ArcArray2<F>>>,
    ) -> Samples<F, ValuesPerStep<F>> {
        let values: Vec<ArcArray2<F>> = values.into_iter().map(Into::into).collect();
        check_widths("values", values.iter().map(|values| values.ncols()));
        self.with_targets(ValuesPerStep(values))
    }

    /// Adds targets of your own kind.
    ///
    /// # Panics
    /// Panics if there is not one target for each sequence, or one has steps, but not as many as its sequence.
    #[track_caller]
    pub fn with_targets<Y: Targets>(self, targets: Y) -> Samples<F, Y> {
        if let Some(count) = targets.count().filter(|&count| count != self.count()) {
            mismatch(NAME, "targets", &format_args!("one for each of {} sequences", self.count()), &count)
        }
        for i in 0..self.count() {
            let length = self.length(i);
            if let Some(steps) = targets.steps(i).filter(|&steps| steps != length) {
                let expected = format_args!("{length} steps for sequence {i}");
                mismatch(NAME, "targets", &expected, &steps)
            }
        }
        Samples { sequences: self.sequences, targets }
    }
}

#[track_caller]
fn check_widths(argument: &str, mut widths: impl Iterator<Item = usize>) {
    let Some(first) = widths.next() else { return };
    if let Some(other) = widths.find(|&width| width != first) {
        mismatch(NAME, argument, &format_args!("{first} features in all"), &other)
    }
}

impl<F: Float, Y: Targets> Samples<F, Y> {
    /// The number of samples.
    pub fn count(&self) -> usize {
        self.sequences.count()
    }

    /// The number of steps of sample `i`.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[track_caller]
    pub fn length(&self, i: usize) -> usize {
        self.sequences.length(i)
    }

    /// Some of the samples, in the given order, such as a part of a [split](super::split_at_random). A range is given as
    /// `&Vec::from_iter(range)`.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[track_caller]
    pub fn select(&self, samples: &[usize]) -> Self {
        let sequences = match &self.sequences {
            Sequences::Ids(ids) => Sequences::Ids(samples.iter().map(|&i| ids[i].clone()).collect()),
            Sequences::Values(values) => Sequences::Values(samples.iter().map(|&i| values[i].clone()).collect()),
        };
        Samples { sequences, targets: self.targets.select(samples) }
    }

    /// All rows, `[D]`, of all sequences of values; none of token ids.
    pub fn rows(&self) -> impl Iterator<Item = ArrayView1<'_, F>> {
        let values = match &self.sequences {
            Sequences::Values(values) => &values[..],
            Sequences::Ids(_) => &[],
        };
        values.iter().flat_map(|values| values.rows())
    }

    /// Normalises the values; token ids and targets stay as they are.
    ///
    /// # Panics
    /// Panics if the sequences have another number of features.
    #[track_caller]
    pub fn normalized(mut self, normalizer: &Normalizer<F>) -> Self {
        if let Sequences::Values(values) = &mut self.sequences {
            for values in values {
                let mut own: Array2<F> = values.to_owned();
                normalizer.normalize(&mut own);
                *values = own.into();
            }
        }
        self
    }

    /// The batch of these samples. It has at least one step, even if all of them are empty.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[track_caller]
    pub fn batch(&self, samples: &[usize]) -> Batch<F, Y::Batch> {
        let lengths: Vec<usize> = samples.iter().map(|&i| self.length(i)).collect();
        let steps = lengths.iter().copied().max().unwrap_or(0).max(1);
        let x = match &self.sequences {
            Sequences::Ids(ids) => Values::Ids(padded_ids(samples.iter().map(|&i| &ids[i][..]), steps)),
            Sequences::Values(values) => Values::Features(padded_values(samples.iter().map(|&i| &values[i]), steps)),
        };
        Batch { x, lengths, targets: self.targets.batch(samples, steps) }
    }

    /// All samples in one batch.
    pub fn all(&self) -> Batch<F, Y::Batch> {
        self.batch(&Vec::from_iter(0..self.count()))
    }

    /// Batches of `size` samples in their order; the last one may be smaller.
    ///
    /// # Panics
    /// Panics if `size` is 0.
    #[track_caller]
    pub fn batches(&self, size: usize) -> Batches<'_, F, Y> {
        Batches::new(self, size, chunks(&Vec::from_iter(0..self.count()), size))
    }

    /// Batches of `size` samples in random order, which differs with each call; the last one may be smaller.
    ///
    /// # Panics
    /// Panics if `size` is 0.
    #[track_caller]
    pub fn shuffled(&self, size: usize, rng: &mut (impl Rng + ?Sized)) -> Batches<'_, F, Y> {
        let mut order = Vec::from_iter(0..self.count());
        order.shuffle(rng);
        Batches::new(self, size, chunks(&order, size))
    }

    /// Batches of `size` samples of similar length, in random order: the samples are shuffled, each `pool` batches of them are
    /// sorted by length, and the batches are shuffled. The larger the pool, the less padding, and the less random the
    /// batches: 1 is [`shuffled`](Samples::shuffled), and the usual value is about 100.
    ///
    /// Padding costs a recurrence only memory, and the other layers skip it too. Buckets save the time to copy it, and steps in
    /// which few sequences are left.
    ///
    /// ```
    /// use gradflow::{data::Samples, ndarray::Array2, rand::{SeedableRng, rngs::StdRng}};
    ///
    /// let rng = &mut StdRng::seed_from_u64(0);
    /// let samples = Samples::<f32>::values((1..=100).map(|steps| Array2::zeros((steps, 3))));
    /// let (shuffled, bucketed) = (samples.shuffled(10, rng), samples.bucketed(10, 10, rng));
    /// assert!(shuffled.padding() > 0.3 && bucketed.padding() < 0.1); // shares of all positions
    /// ```
    ///
    /// # Panics
    /// Panics if `size` or `pool` is 0.
    #[track_caller]
    pub fn bucketed(&self, size: usize, pool: usize, rng: &mut (impl Rng + ?Sized)) -> Batches<'_, F, Y> {
        if pool == 0 {
            mismatch(NAME, "pool", &"at least 1 batch", &pool)
        }
        let mut order = Vec::from_iter(0..self.count());
        order.shuffle(rng);
        let mut groups = Vec::new();
        for pool in order.chunks_mut(size.saturating_mul(pool).max(1)) {
            pool.sort_by_key(|&i| self.length(i));
            groups.extend(chunks(pool, size));
        }
        groups.shuffle(rng);
        Batches::new(self, size, groups)
    }
}

/// `order` in groups of `size`.
#[track_caller]
fn chunks(order: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        mismatch(NAME, "size", &"at least 1 sample a batch", &size)
    }
    order.chunks(size).map(<[usize]>::to_vec).collect()
}

/// The batches of an epoch, an iterator: see [`Samples`].
#[derive(Clone, Debug)]
pub struct Batches<'a, F, Y> {
    samples: &'a Samples<F, Y>,
    size: usize,
    groups: Vec<Vec<usize>>,
    next: usize,
}

impl<'a, F: Float, Y: Targets> Batches<'a, F, Y> {
    fn new(samples: &'a Samples<F, Y>, size: usize, groups: Vec<Vec<usize>>) -> Self {
        Batches { samples, size, groups, next: 0 }
    }

    /// Drops the batches that have fewer samples than the others.
    pub fn full(mut self) -> Self {
        self.groups.retain(|group| group.len() == self.size);
        self
    }

    /// The samples of each batch, which show where the outputs of a batch belong.
    pub fn groups(&self) -> &[Vec<usize>] {
        &self.groups
    }

    /// The share of padding among the positions of all batches, from 0 to 1.
    pub fn padding(&self) -> f64 {
        let lengths = |group: &'_ [usize]| group.iter().map(|&i| self.samples.length(i)).collect::<Vec<_>>();
        let (mut valid, mut all) = (0, 0);
        for group in &self.groups {
            let lengths = lengths(group);
            valid += lengths.iter().sum::<usize>();
            all += lengths.len() * lengths.iter().max().unwrap_or(&0);
        }
        if all == 0 { 0.0 } else { 1.0 - valid as f64 / all as f64 }
    }
}

impl<F: Float, Y: Targets> Iterator for Batches<'_, F, Y> {
    type Item = Batch<F, Y::Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let group = self.groups.get(self.next)?;
        self.next += 1;
        Some(self.samples.batch(group))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let rest = self.groups.len() - self.next;
        (rest, Some(rest))
    }
}

impl<F: Float, Y: Targets> ExactSizeIterator for Batches<'_, F, Y> {}
