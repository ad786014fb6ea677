//! The states at every step, which a forward pass writes and its backward pass reads.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, s};

use super::schedule::{End, Schedule};
use super::state::{Columns, ColumnsMut};
use crate::kernels::Float;
use crate::layer::kit::reuse;
use crate::layer::rows::{rows_of, span};

/// The states before the first step and after each step, `[R + B, H]`, or only the last two of them.
#[derive(Clone, Debug, Default)]
pub(super) struct History<F> {
    values: Array2<F>,
    /// If no backward pass follows: two states of B rows, used in turn.
    rolling: bool,
}

impl<F: Float> History<F> {
    /// Starts from `initial`, `[B, H]`.
    pub fn start(&mut self, schedule: &Schedule, width: usize, initial: Columns<'_, F>, rolling: bool) {
        let batch = schedule.batch();
        self.rolling = rolling;
        let rows = if rolling { 2 * batch } else { schedule.count() + batch };
        reuse(&mut self.values, (rows, width));
        let place = if rolling { batch..2 * batch } else { schedule.initial() };
        initial.read(schedule, End::Initial, rows_of(&mut self.values, &place));
    }

    /// H.
    pub fn width(&self) -> usize {
        self.values.ncols()
    }

    /// The places of the states before and after step `s`.
    fn places(&self, schedule: &Schedule, s: usize) -> (Range<usize>, Range<usize>) {
        if !self.rolling {
            return schedule.in_history(s);
        }
        let (count, batch) = (schedule.rows(s..s + 1).len(), schedule.batch());
        let (before, after) = ((s + 1) % 2 * batch, s % 2 * batch);
        (before..before + count, after..after + count)
    }

    /// The states before step `s` and, to be written, after it.
    pub fn step(&mut self, schedule: &Schedule, s: usize) -> (&[F], &mut [F]) {
        let width = self.values.ncols();
        let (before, after) = self.places(schedule, s);
        let values = self.values.as_slice_mut().expect("a buffer in standard layout");
        let middle = before.start.max(after.start) * width;
        let (low, high) = values.split_at_mut(middle);
        if before.start < after.start {
            (&low[span(&before, width)], &mut high[..after.len() * width])
        } else {
            (&high[..before.len() * width], &mut low[span(&after, width)])
        }
    }

    /// The states before and after step `s`, to be read.
    pub fn read(&self, schedule: &Schedule, s: usize) -> (&[F], &[F]) {
        let width = self.values.ncols();
        let (before, after) = self.places(schedule, s);
        let values = self.values.as_slice().expect("a buffer in standard layout");
        (&values[span(&before, width)], &values[span(&after, width)])
    }

    /// Writes each sequence's last state to `state`, `[B, H]`.
    pub fn finish(&self, schedule: &Schedule, state: ColumnsMut<'_, '_, F>) {
        let values = self.values.as_slice().expect("a buffer in standard layout");
        state.write(schedule, End::Last, self.values.ncols(), values, |j| match schedule.length(j).checked_sub(1) {
            None if self.rolling => schedule.batch() + j,
            None => schedule.initial().start + j,
            Some(s) => self.places(schedule, s).1.start + j,
        });
    }

    /// The states after the steps, R rows one after the other.
    pub fn after(&self, schedule: &Schedule) -> &[F] {
        let values = self.values.as_slice().expect("a buffer in standard layout");
        &values[span(&schedule.after(), self.values.ncols())]
    }

    /// The states before the steps, `[R, H]`, if rows are not gathered.
    pub fn before(&self, schedule: &Schedule) -> ArrayView2<'_, F> {
        let start = if schedule.initial().start == 0 { 0 } else { schedule.batch() };
        self.values.slice(s![start..start + schedule.count(), ..])
    }
}
