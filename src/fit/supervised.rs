//! The batches of a training: inputs with their targets.

use std::ops::Deref;

use crate::base::LengthsError;
use crate::data::Batch;
use crate::kernels::Float;
use crate::layer::{Layer, Pass, Sequence};
use crate::loss::{Evaluated, Loss, Weights};

/// A batch with its targets, on which [`Fit`](super::Fit) trains.
///
/// A [`data::Batch`](Batch) is one. So is a pair of an input (an array `[T, B, D]` or token ids `[T, B]`) and targets (with which
/// the [loss](crate::loss::Loss) compares the output), and a triple with the lengths:
///
/// ```
/// use gradflow::fit::Supervised;
/// use gradflow::ndarray::{Array2, Array3};
///
/// let (ids, classes) = (Array2::<usize>::zeros((7, 2)), Array2::<usize>::zeros((7, 2)));
/// let batch = (ids, classes, vec![7, 5]);
/// assert_eq!(Supervised::<f32>::input(&batch)?.length(1), 5);
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
///
/// [`Weighted`] adds weights to any of them.
pub trait Supervised<F> {
    /// The targets of the loss.
    type Targets: ?Sized;

    /// The input, with its lengths.
    ///
    /// # Errors
    /// Returns an error if the lengths do not fit the input.
    fn input(&self) -> Result<Sequence<'_, F>, LengthsError>;

    /// The targets, with which the loss compares the output.
    fn targets(&self) -> &Self::Targets;

    /// The weights of the loss, if it has any: by default none. A [`Weighted`] batch has weights.
    fn weights(&self) -> Option<Weights<'_, F>> {
        None
    }
}

/// A batch with [weights](Weights) of its sequences, steps or elements.
///
/// ```
/// use gradflow::fit::{Supervised, Weighted};
/// use gradflow::{loss::Weights, ndarray::{Array2, arr1}};
///
/// let (ids, classes) = (Array2::<usize>::zeros((7, 2)), Array2::<usize>::zeros((7, 2)));
/// let batch = Weighted { batch: (ids, classes, vec![7, 5]), weights: arr1(&[1.0, 0.25]) };
/// assert_eq!(Supervised::<f32>::weights(&batch), Some(Weights::from(&batch.weights)));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted<B, W> {
    /// Inputs with their targets.
    pub batch: B,
    /// `[B]`, `[T, B]` or `[T, B, D]`, if the loss takes them.
    pub weights: W,
}

impl<F: Float, B: Supervised<F>, W> Supervised<F> for Weighted<B, W>
where
    for<'w> &'w W: Into<Weights<'w, F>>,
{
    type Targets = B::Targets;

    fn input(&self) -> Result<Sequence<'_, F>, LengthsError> {
        self.batch.input()
    }

    fn targets(&self) -> &B::Targets {
        self.batch.targets()
    }

    fn weights(&self) -> Option<Weights<'_, F>> {
        Some((&self.weights).into())
    }
}

/// The loss of a pass over a batch, with the batch's weights if it has any. Returns the value's weight in the mean over several
/// batches, and the loss with its gradient.
#[track_caller]
pub(super) fn evaluate<'l, L: Layer, C, B>(
    loss: &'l mut C,
    pass: &Pass<'_, L>,
    batch: &B,
) -> (f64, Evaluated<'l, L::Elem>)
where
    C: Loss<L::Elem>,
    B: Supervised<L::Elem, Targets = C::Targets>,
{
    let targets = batch.targets();
    match batch.weights() {
        Some(weights) => (loss.total_weight(pass.into(), targets, weights), loss.of_weighted(pass, targets, weights)),
        None => (loss.weight(pass.into(), targets), loss.of(pass, targets)),
    }
}

/// As [`evaluate`], without the gradient.
#[track_caller]
pub(super) fn value<L: Layer, C, B>(loss: &C, pass: &Pass<'_, L>, batch: &B) -> (f64, f64)
where
    C: Loss<L::Elem>,
    B: Supervised<L::Elem, Targets = C::Targets>,
{
    let targets = batch.targets();
    match batch.weights() {
        Some(weights) => {
            (loss.total_weight(pass.into(), targets, weights), loss.value_weighted(pass, targets, weights))
        }
        None => (loss.weight(pass.into(), targets), loss.value(pass, targets)),
    }
}

impl<F: Float, B: Supervised<F> + ?Sized> Supervised<F> for &B {
    type Targets = B::Targets;

    fn input(&self) -> Result<Sequence<'_, F>, LengthsError> {
        (**self).input()
    }

    fn targets(&self) -> &B::Targets {
        (**self).targets()
    }

    fn weights(&self) -> Option<Weights<'_, F>> {
        (**self).weights()
    }
}

impl<F: Float, Y: Deref> Supervised<F> for Batch<F, Y> {
    type Targets = Y::Target;

    #[track_caller]
    fn input(&self) -> Result<Sequence<'_, F>, LengthsError> {
        Ok(self.sequence())
    }

    fn targets(&self) -> &Y::Target {
        &self.targets
    }
}

impl<F: Float, X, Y: Deref> Supervised<F> for (X, Y)
where
    for<'x> &'x X: Into<Sequence<'x, F>>,
{
    type Targets = Y::Target;

    fn input(&self) -> Result<Sequence<'_, F>, LengthsError> {
        Ok((&self.0).into())
    }

    fn targets(&self) -> &Y::Target {
        &self.1
    }
}

impl<F: Float, X, Y: Deref> Supervised<F> for (X, Y, Vec<usize>)
where
    for<'x> &'x X: Into<Sequence<'x, F>>,
{
    type Targets = Y::Target;

    fn input(&self) -> Result<Sequence<'_, F>, LengthsError> {
        (&self.0).into().with_lengths(&self.2)
    }

    fn targets(&self) -> &Y::Target {
        &self.1
    }
}
