//! A batch of sequences with their targets.

use ndarray::{Array2, Array3};

use crate::kernels::Float;
use crate::layer::Sequence;

/// The values of a batch, time first.
#[derive(Clone, Debug, PartialEq)]
pub enum Values<F> {
    /// Features, `[T, B, D]`.
    Features(Array3<F>),
    /// Token ids, `[T, B]`.
    Ids(Array2<usize>),
}

impl<F> From<Array3<F>> for Values<F> {
    fn from(features: Array3<F>) -> Self {
        Values::Features(features)
    }
}

impl<F> From<Array2<usize>> for Values<F> {
    fn from(ids: Array2<usize>) -> Self {
        Values::Ids(ids)
    }
}

/// A batch of sequences, padded to the length of the longest, with their targets.
///
/// A reference to it converts to a [`Sequence`], so it can be passed to [`Layer::pass`](crate::Layer::pass) as it is, and its
/// `targets` to [`Loss::of`](crate::loss::Loss::of).
///
/// ```
/// use gradflow::data::Batch;
/// use gradflow::prelude::*;
/// use gradflow::{ndarray::arr2, rand::{SeedableRng, rngs::StdRng}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let model = (Embedding::<f32>::new(10, 4, rng), Linear::new(4, 2, rng));
/// let ids = arr2(&[[1, 5], [2, 0], [3, 0]]); // the second sequence has one id and two of padding
/// let batch = Batch { x: ids.into(), lengths: vec![3, 1], targets: arr2(&[[0, 1], [1, 0], [0, 0]]) };
///
/// let (mut state, mut cache) = (model.zero_state(2), model.cache());
/// let pass = model.pass(&batch, &mut state, &mut cache);
/// let nats = SoftmaxCrossEntropy::new().of(&pass, &batch.targets).value();
/// # assert!(nats > 0.0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<F, Y> {
    /// The sequences.
    pub x: Values<F>,
    /// The length of each sequence, from 1 to T.
    pub lengths: Vec<usize>,
    /// The targets for a loss: class ids `[T, B]` or values `[T, B, D]`; with T = 1 if the model gives one output for each
    /// sequence.
    pub targets: Y,
}

impl<F: Float, Y> Batch<F, Y> {
    /// The number of sequences, B.
    pub fn count(&self) -> usize {
        self.lengths.len()
    }

    /// The sequences with their lengths, as the input of a model. If all have the length T, no lengths are given.
    ///
    /// # Panics
    /// Panics if there is not one length from 0 to T for each sequence.
    #[track_caller]
    pub fn sequence(&self) -> Sequence<'_, F> {
        let x = match &self.x {
            Values::Features(features) => Sequence::from(features),
            Values::Ids(ids) => Sequence::from(ids),
        };
        let with_lengths = x.with_lengths(&self.lengths).unwrap_or_else(|error| panic!("Batch: {error}"));
        if x.valid_count() == with_lengths.valid_count() { x } else { with_lengths }
    }
}

impl<'a, F: Float, Y> From<&'a Batch<F, Y>> for Sequence<'a, F> {
    #[track_caller]
    fn from(batch: &'a Batch<F, Y>) -> Self {
        batch.sequence()
    }
}
