//! Windows of a series.

use ndarray::{ArcArray2, ArrayRef2, s};

use super::samples::Samples;
use super::targets::{ValuesPerSequence, ValuesPerStep};
use crate::base::error::mismatch;
use crate::kernels::Float;

const NAME: &str = "Windows";

/// Windows of a series `[N, D]`: sequences of equal length, with the rows that come after them.
///
/// Samples of the windows share the memory of one copy of the series. Split a series by time *before* cutting windows from it
/// (see [`split_in_order`](super::split_in_order)): overlapping windows would show a model its test data.
///
/// ```
/// use gradflow::data::Windows;
/// use gradflow::ndarray::{Array2, array};
///
/// let series = Array2::from_shape_fn((6, 1), |(n, _)| n as f32); // 0, 1, 2, 3, 4, 5
/// let samples = Windows::new(3).horizon(2).forecasts(&series);
/// let batch = samples.batch(&[0, 1]);
/// assert_eq!(batch.targets, array![[[3.0, 4.0], [4.0, 5.0]]]); // after 0, 1, 2 and after 1, 2, 3
/// let samples = Windows::new(3).stride(2).next_steps(&series);
/// assert_eq!(samples.batch(&[1]).targets, array![[[3.0]], [[4.0]], [[5.0]]]); // the next of 2, of 3 and of 4
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    steps: usize,
    horizon: usize,
    stride: usize,
}

impl Windows {
    /// Windows of `steps` steps, with one row after each; one window starts at every row.
    ///
    /// # Panics
    /// Panics if `steps` is 0.
    #[track_caller]
    pub fn new(steps: usize) -> Self {
        Windows { steps: at_least_1("steps", steps), horizon: 1, stride: 1 }
    }

    /// Sets how many rows to look ahead.
    ///
    /// # Panics
    /// Panics if it is 0.
    #[track_caller]
    pub fn horizon(self, rows: usize) -> Self {
        Windows { horizon: at_least_1("horizon", rows), ..self }
    }

    /// Sets the number of rows from one window's start to the next one's.
    ///
    /// # Panics
    /// Panics if it is 0.
    #[track_caller]
    pub fn stride(self, rows: usize) -> Self {
        Windows { stride: at_least_1("stride", rows), ..self }
    }

    /// The first row of each window that fits, with its horizon, into a series of `count` rows.
    pub fn starts(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let (need, stride) = (self.steps + self.horizon, self.stride);
        (0..(count + 1).saturating_sub(need)).step_by(stride)
    }

    /// Each window with the [`horizon`](Windows::horizon) rows after it, side by side: targets `[1, B, horizon · D]`, for a
    /// model with one output for each sequence.
    pub fn forecasts<F: Float>(&self, series: &ArrayRef2<F>) -> Samples<F, ValuesPerSequence<F>> {
        let (x, after): (Vec<_>, Vec<_>) = self.cut(series, |start| start + self.steps, self.horizon).unzip();
        Samples::values(x).with_targets_of_sequences(after)
    }

    /// Each window with, for each of its rows, the one that comes [`horizon`](Windows::horizon) rows later: targets
    /// `[T, B, D]`, for a model with one output for each step.
    pub fn next_steps<F: Float>(&self, series: &ArrayRef2<F>) -> Samples<F, ValuesPerStep<F>> {
        let (x, later): (Vec<_>, Vec<_>) = self.cut(series, |start| start + self.horizon, self.steps).unzip();
        Samples::values(x).with_step_values(later)
    }

    /// The windows, each with the `count` rows that begin at `target(its first row)`.
    fn cut<F: Float>(
        &self,
        series: &ArrayRef2<F>,
        target: impl Fn(usize) -> usize,
        count: usize,
    ) -> impl Iterator<Item = (ArcArray2<F>, ArcArray2<F>)> {
        let (series, steps): (ArcArray2<F>, _) = (series.to_owned().into(), self.steps);
        self.starts(series.nrows()).map(move |start| {
            let rows = |from: usize, count: usize| series.clone().slice_move(s![from..from + count, ..]);
            (rows(start, steps), rows(target(start), count))
        })
    }
}

#[track_caller]
fn at_least_1(argument: &str, rows: usize) -> usize {
    if rows == 0 {
        mismatch(NAME, argument, &"at least 1", &rows)
    }
    rows
}
