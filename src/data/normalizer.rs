//! Normalisation of features.

use ndarray::{Array1, ArrayRef, ArrayView1, ArrayViewMut1, Axis, Dimension};

use crate::base::check_shape;
use crate::base::error::mismatch;
use crate::kernels::Float;
use crate::parameters;

const NAME: &str = "Normalizer";

/// Brings each feature to a common scale, and back.
///
/// ```text
/// normalize: x ← (x - offset) / scale        restore: x ← x scale + offset
/// ```
///
/// Its numbers are [`Tensors`](crate::Tensors), so they can be saved with the model that needs them. Compute them from the
/// training data alone.
///
/// ```
/// use gradflow::{TensorsExt, data::Normalizer, ndarray::{arr1, arr2}};
///
/// let mut series = arr2(&[[1.0, 10.0], [3.0, 10.0]]);
/// let normalizer = Normalizer::standard(series.rows());
/// assert_eq!((&normalizer.offset, &normalizer.scale), (&arr1(&[2.0, 10.0]), &arr1(&[1.0, 1.0])));
/// normalizer.normalize(&mut series);
/// assert_eq!(series, arr2(&[[-1.0, 0.0], [1.0, 0.0]]));
/// normalizer.restore(&mut series);
/// assert_eq!(series, arr2(&[[1.0, 10.0], [3.0, 10.0]]));
/// assert_eq!(normalizer.names(), ["offset", "scale"]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Normalizer<F> {
    /// `[D]`: the value that becomes 0.
    pub offset: Array1<F>,
    /// `[D]`: the difference that becomes the unit.
    pub scale: Array1<F>,
}
parameters! { impl<F: Float> Tensors<F> for Normalizer<F> { offset, scale } }

impl<F: Float> Normalizer<F> {
    /// A normalizer that leaves `features` features unchanged: to load numbers into.
    pub fn identity(features: usize) -> Self {
        Normalizer { offset: Array1::zeros(features), scale: Array1::ones(features) }
    }

    /// Scales to a mean of 0 and a standard deviation of 1 over `rows`, `[D]` each. The rows of an array `[N, D]` or `[T, B, D]`
    /// are `x.rows()`, and those of [`Samples`](super::Samples) `samples.rows()`. A feature that does not vary becomes 0.
    ///
    /// # Panics
    /// Panics if there are no rows, or they do not have the same number of features.
    #[track_caller]
    pub fn standard<'a>(rows: impl IntoIterator<Item = ArrayView1<'a, F>>) -> Self {
        // Welford's sums, which lose no digits if the mean is far from 0.
        let (mut count, mut mean, mut squares) = (0.0, Vec::<f64>::new(), Vec::<f64>::new());
        for_each_row(rows, |row| {
            mean.resize(row.len(), 0.0);
            squares.resize(row.len(), 0.0);
            count += 1.0;
            for ((mean, square), value) in mean.iter_mut().zip(&mut squares).zip(row) {
                let from_mean = value.widen() - *mean;
                *mean += from_mean / count;
                *square += from_mean * (value.widen() - *mean);
            }
        });
        let scale = squares.iter().map(|square| (square / count).sqrt());
        Normalizer::of(mean.iter().copied(), scale)
    }

    /// Scales the smallest and the largest value over `rows`, `[D]` each, to 0 and 1. A feature that does not vary becomes 0.
    ///
    /// # Panics
    /// Panics if there are no rows, or they do not have the same number of features.
    #[track_caller]
    pub fn min_max<'a>(rows: impl IntoIterator<Item = ArrayView1<'a, F>>) -> Self {
        let mut ends = Vec::<(f64, f64)>::new();
        for_each_row(rows, |row| {
            ends.resize(row.len(), (f64::INFINITY, f64::NEG_INFINITY));
            for ((low, high), value) in ends.iter_mut().zip(row) {
                let value = value.widen();
                // NaN stays NaN.
                *low = if value < *low || value.is_nan() { value } else { *low };
                *high = if value > *high || value.is_nan() { value } else { *high };
            }
        });
        Normalizer::of(ends.iter().map(|ends| ends.0), ends.iter().map(|ends| ends.1 - ends.0))
    }

    fn of(offset: impl Iterator<Item = f64>, scale: impl Iterator<Item = f64>) -> Self {
        let scale = scale.map(|scale| if scale == 0.0 { 1.0 } else { scale });
        Normalizer { offset: offset.map(F::of).collect(), scale: scale.map(F::of).collect() }
    }

    /// The normalizer of some of the features, in the given order: for example, to restore the forecasts of one feature of many.
    ///
    /// # Panics
    /// Panics if there is no such feature.
    #[track_caller]
    pub fn select(&self, features: &[usize]) -> Self {
        Normalizer { offset: self.offset.select(Axis(0), features), scale: self.scale.select(Axis(0), features) }
    }

    /// `x ← (x - offset) / scale`, for any array whose last axis has the features.
    ///
    /// # Panics
    /// Panics if there is another number of features.
    #[track_caller]
    pub fn normalize<D: Dimension>(&self, x: &mut ArrayRef<F, D>) {
        self.for_each_row(x, |x, offset, scale| *x = (*x - offset) / scale);
    }

    /// `x ← x scale + offset`, for any array whose last axis has the features.
    ///
    /// # Panics
    /// Panics if there is another number of features.
    #[track_caller]
    pub fn restore<D: Dimension>(&self, x: &mut ArrayRef<F, D>) {
        self.for_each_row(x, |x, offset, scale| *x = *x * scale + offset);
    }

    #[track_caller]
    fn for_each_row<D: Dimension>(&self, x: &mut ArrayRef<F, D>, act: impl Fn(&mut F, F, F)) {
        let last = x.ndim().saturating_sub(1);
        let features = x.shape().get(last).copied().unwrap_or(1);
        check_shape(NAME, "x (its last axis)", self.offset.shape(), &[features]);
        check_shape(NAME, "scale", self.offset.shape(), self.scale.shape());
        let act = |row: ArrayViewMut1<'_, F>| {
            for ((x, &offset), &scale) in row.into_iter().zip(&self.offset).zip(&self.scale) {
                act(x, offset, scale);
            }
        };
        x.lanes_mut(Axis(last)).into_iter().for_each(act);
    }
}

#[track_caller]
fn for_each_row<'a, F: Float>(
    rows: impl IntoIterator<Item = ArrayView1<'a, F>>,
    mut act: impl FnMut(&ArrayView1<'a, F>),
) {
    let mut width = None;
    for row in rows {
        check_shape(NAME, "rows", &[*width.get_or_insert(row.len())], row.shape());
        act(&row);
    }
    if width.is_none() {
        mismatch(NAME, "rows", &"at least one", &"none")
    }
}
