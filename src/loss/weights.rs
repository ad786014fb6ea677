//! Weights of the parts that a loss adds up.

use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayView3};

use crate::base::check_shape;
use crate::base::error::mismatch;
use crate::kernels::Float;
use crate::layer::Sequence;

/// A weight for each sequence, step or element of a batch, for [`Loss::of_weighted`](super::Loss::of_weighted).
///
/// ```text
/// L = Σ_i w_i loss_i / Σ_i w_i          for the mean; of the sum, L = Σ_i w_i loss_i
/// ```
///
/// over the parts that count: i runs over the elements of an elementwise loss, the steps of a cross-entropy and the sequences of
/// [`Ctc`](super::Ctc). The weight of a sequence applies to each of its steps, and the weight of a step to each of its elements.
///
/// | loss | takes weights of |
/// | --- | --- |
/// | [`MeanSquaredError`](super::MeanSquaredError), [`Huber`](super::Huber), [`BinaryCrossEntropy`](super::BinaryCrossEntropy) | sequences `[B]`, steps `[T, B]` or elements `[T, B, D]` |
/// | [`SoftmaxCrossEntropy`](super::SoftmaxCrossEntropy) | sequences `[B]` or steps `[T, B]` |
/// | [`Ctc`](super::Ctc) | sequences `[B]` |
///
/// The mean is weighted, as with class weights: a part of weight 0 does not count, like padding, so weights of 0 and 1 are a
/// mask, equal weights change nothing, and if all are 0, the loss and its gradient are 0. A weight of 0 also drops a loss of NaN
/// or infinity, and an invalid target. PyTorch has both this mean (`mse_loss` and `cross_entropy` with `weight`) and the sum of
/// `w_i loss_i` divided by their number N (`huber_loss`, `binary_cross_entropy`, `(w * loss).mean()`); for the latter, take the
/// sum with weights `w_i / N`.
///
/// Weights past the lengths, and weights of ignored targets, are not read. A
/// [class weight](super::SoftmaxCrossEntropy::class_weights) multiplies the weight of its steps, in the numerator and in the
/// denominator.
///
/// Weights are made from a reference to an array or a view:
///
/// ```
/// use gradflow::{loss::{Loss, MeanSquaredError}, ndarray::{Array3, arr1, arr2}};
///
/// let y = Array3::from_shape_vec((2, 1, 1), vec![1.0, 3.0]).unwrap();
/// let (target, mut squared_error) = (Array3::<f64>::zeros((2, 1, 1)), MeanSquaredError::new());
/// let loss = squared_error.of_weighted(&y, &target, &arr2(&[[3.0], [1.0]]));
/// assert_eq!(loss.value(), (3.0 * 1.0 + 1.0 * 9.0) / 4.0);
/// assert_eq!(loss.gradient().as_slice().unwrap(), [2.0 * 3.0 / 4.0, 6.0 / 4.0]);
/// assert_eq!(squared_error.value_weighted(&y, &target, &arr1(&[0.5])), 5.0); // of the only sequence
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weights<'a, F> {
    /// Of each sequence, `[B]`.
    Sequences(ArrayView1<'a, F>),
    /// Of each step, `[T, B]`.
    Steps(ArrayView2<'a, F>),
    /// Of each element, `[T, B, D]`.
    Elements(ArrayView3<'a, F>),
}

macro_rules! from_arrays {
    ($($variant:ident, $array:ident, $view:ident;)+) => {$(
        impl<'a, F> From<$view<'a, F>> for Weights<'a, F> {
            fn from(weights: $view<'a, F>) -> Self {
                Weights::$variant(weights)
            }
        }

        impl<'a, F> From<&'a $view<'_, F>> for Weights<'a, F> {
            fn from(weights: &'a $view<'_, F>) -> Self {
                Weights::$variant(weights.reborrow())
            }
        }

        impl<'a, F> From<&'a $array<F>> for Weights<'a, F> {
            fn from(weights: &'a $array<F>) -> Self {
                Weights::$variant(weights.view())
            }
        }
    )+};
}
from_arrays! {
    Sequences, Array1, ArrayView1;
    Steps, Array2, ArrayView2;
    Elements, Array3, ArrayView3;
}

/// The parts that a loss adds up: it takes weights of these, or of larger parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    Sequences,
    Steps,
    Elements,
}

impl<F: Float> Weights<'_, F> {
    /// The weight of element k of step t of sequence b.
    ///
    /// # Panics
    /// Panics if there is none.
    #[must_use]
    #[track_caller]
    pub fn at(&self, [t, b, k]: [usize; 3]) -> F {
        match self {
            Weights::Sequences(weights) => weights[b],
            Weights::Steps(weights) => weights[[t, b]],
            Weights::Elements(weights) => weights[[t, b, k]],
        }
    }

    /// The same weights, borrowed for a shorter time.
    pub(crate) fn reborrow<'s>(self) -> Weights<'s, F>
    where
        Self: 's,
    {
        match self {
            Weights::Sequences(weights) => Weights::Sequences(weights.reborrow()),
            Weights::Steps(weights) => Weights::Steps(weights.reborrow()),
            Weights::Elements(weights) => Weights::Elements(weights.reborrow()),
        }
    }

    /// [`at`](Weights::at), for a part that counts.
    ///
    /// # Panics
    /// Panics unless the weight is at least 0 and finite, in f32 too, so that sums of weights are finite.
    #[track_caller]
    pub(super) fn checked_at(&self, loss: &str, at @ [t, b, k]: [usize; 3]) -> f64 {
        let weight = self.at(at).widen();
        if !(weight >= 0.0 && (weight as f32).is_finite()) {
            let got = match self {
                Weights::Sequences(_) => format!("{weight:?} of sequence {b}"),
                Weights::Steps(_) => format!("{weight:?} at step {t} of sequence {b}"),
                Weights::Elements(_) => format!("{weight:?} at feature {k} of step {t} of sequence {b}"),
            };
            mismatch(loss, "weights", &"finite numbers, at least 0", &got)
        }
        weight
    }

    /// Panics unless the weights have the shape of `[T, B, D]`, at a level no finer than `parts`.
    #[track_caller]
    pub(super) fn check_shape(&self, loss: &str, parts: Parts, [steps, batch, features]: [usize; 3]) {
        match self {
            Weights::Sequences(weights) => check_shape(loss, "weights", &[batch], weights.shape()),
            Weights::Steps(weights) if parts != Parts::Sequences => {
                check_shape(loss, "weights", &[steps, batch], weights.shape());
            }
            Weights::Elements(weights) if parts == Parts::Elements => {
                check_shape(loss, "weights", &[steps, batch, features], weights.shape());
            }
            Weights::Steps(_) | Weights::Elements(_) => {
                let expected = match parts {
                    Parts::Sequences => "one for each sequence, [B]",
                    _ => "one for each step, [T, B], or each sequence, [B]",
                };
                let got = if matches!(self, Weights::Steps(_)) { "[T, B]" } else { "[T, B, D]" };
                mismatch(loss, "weights", &expected, &got)
            }
        }
    }

    /// The sum over all steps within the lengths of `y`, or, for weights `[T, B, D]`, over the elements of these steps.
    ///
    /// # Panics
    /// Panics if the weights do not have the shape of `y`.
    #[must_use]
    #[track_caller]
    pub fn total(&self, y: Sequence<'_, F>) -> f64 {
        let (steps, batch) = y.dims();
        let positions = (0..steps).flat_map(|t| (0..batch).map(move |b| (t, b))).filter(|&(t, b)| y.valid(t, b));
        let features = if let Weights::Elements(weights) = self { weights.dim().2 } else { 1 };
        self.check_shape("Weights", Parts::Elements, [steps, batch, features]);
        positions.map(|(t, b)| (0..features).map(|k| self.at([t, b, k]).widen()).sum::<f64>()).sum()
    }
}

/// The weight of an element, if there are any; otherwise 1.
#[track_caller]
pub(super) fn weight_at<F: Float>(weights: Option<Weights<'_, F>>, loss: &str, at: [usize; 3]) -> f64 {
    match weights {
        Some(weights) => weights.checked_at(loss, at),
        None => 1.0,
    }
}
