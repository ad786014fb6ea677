//! How far values are from their targets.

use ndarray::{ArrayRef2, ArrayRef3};

use super::positions::{Counted, mean, sums};
use crate::base::check_shape;
use crate::kernels::Float;
use crate::layer::Sequence;

const NAME: &str = "Errors";

/// The mean absolute and the root mean squared error of values over a data set.
///
/// ```text
/// MAE = Σ w_tb |y_tbk - target_tbk| / Σ w_tb        RMSE = √( Σ w_tb (y_tbk - target_tbk)² / Σ w_tb )
/// ```
///
/// where the sums are over the elements that count.
///
/// | | shape |
/// | --- | --- |
/// | output `y`, targets | `[T, B, D]` |
/// | weights `w` | `[T, B]`, 1 if none are given |
///
/// ```
/// use gradflow::{metrics::Errors, ndarray::{arr3, Array3}};
///
/// let mut errors = Errors::new().ignore(f64::NAN);
/// errors.add(&Array3::zeros((1, 3, 1)), &arr3(&[[[3.0], [-5.0], [f64::NAN]]]));
/// assert_eq!((errors.mae(), errors.rmse()), (4.0, 17f64.sqrt()));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors {
    ignored: Option<f64>,
    absolute: f64,
    squared: f64,
    total: f64,
}
sums! { Errors { absolute, squared, total } }

impl Errors {
    /// Counts all elements.
    pub fn new() -> Self {
        Errors::default()
    }

    /// Elements with this target do not count. The target may be NaN.
    pub fn ignore(self, target: f64) -> Self {
        Errors { ignored: Some(target), ..self }
    }

    /// Counts the elements of a batch.
    ///
    /// # Panics
    /// Panics if the shapes differ.
    #[track_caller]
    pub fn add<'y, F: Float>(&mut self, y: impl Into<Sequence<'y, F>>, targets: &ArrayRef3<F>) {
        self.count(y.into(), targets, None);
    }

    /// Counts the elements of a batch, those of each position with its weight.
    ///
    /// # Panics
    /// Panics as [`add`](Errors::add) does, or if there is not one weight for each position.
    #[track_caller]
    pub fn add_weighted<'y, F: Float>(
        &mut self,
        y: impl Into<Sequence<'y, F>>,
        targets: &ArrayRef3<F>,
        weights: &ArrayRef2<f64>,
    ) {
        self.count(y.into(), targets, Some(weights));
    }

    #[track_caller]
    fn count<F: Float>(&mut self, y: Sequence<'_, F>, targets: &ArrayRef3<F>, weights: Option<&ArrayRef2<f64>>) {
        let values = y.features(NAME, None); // [T, B, D]
        check_shape(NAME, "targets", values.shape(), targets.shape());
        let Errors { ignored, absolute, squared, total } = self;
        let ignored = ignored.map(F::of);
        let counts =
            |target: F| ignored.is_none_or(|ignored| target != ignored && !(target.is_nan() && ignored.is_nan()));
        Counted { ignored: None, weights }.positions(NAME, &y, |t, b, weight| {
            for k in (0..values.dim().2).filter(|&k| counts(targets[[t, b, k]])) {
                let error = (values[[t, b, k]].widen() - targets[[t, b, k]].widen()).abs();
                *absolute += weight * error;
                *squared += weight * error * error;
                *total += weight;
            }
        });
    }

    /// The mean absolute error; NaN if nothing was counted.
    #[must_use]
    pub fn mae(&self) -> f64 {
        mean(self.absolute, self.total)
    }

    /// The root mean squared error; NaN if nothing was counted.
    #[must_use]
    pub fn rmse(&self) -> f64 {
        mean(self.squared, self.total).sqrt()
    }

    /// The weight of the elements that were counted: their number if no weights were given.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.total
    }
}
