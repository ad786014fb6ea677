//! What a training reads: inputs with their targets.

use std::ops::Deref;

use crate::base::LengthsError;
use crate::data::Batch;
use crate::kernels::Float;
use crate::layer::Sequence;

/// A batch with its targets: what [`Fit`](super::Fit) trains on.
///
/// A [`data::Batch`](Batch) is one. So is a pair of an input (an array `[T, B, D]` or token ids `[T, B]`) and targets (what the
/// [loss](crate::loss::Loss) compares the output with), and a triple with the lengths:
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
pub trait Supervised<F> {
    /// The targets of the loss.
    type Targets: ?Sized;

    /// The input, with its lengths.
    ///
    /// # Errors
    /// Returns an error if the lengths do not fit the input.
    fn input(&self) -> Result<Sequence<'_, F>, LengthsError>;

    /// What the output should be.
    fn targets(&self) -> &Self::Targets;
}

impl<F: Float, B: Supervised<F> + ?Sized> Supervised<F> for &B {
    type Targets = B::Targets;

    fn input(&self) -> Result<Sequence<'_, F>, LengthsError> {
        (**self).input()
    }

    fn targets(&self) -> &B::Targets {
        (**self).targets()
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
