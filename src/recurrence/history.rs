//! A state at every step: what a recurrence writes and its backward pass reads.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

use super::rows::Rows;
use crate::kernels::Float;
use crate::layer::kit::reuse;
use crate::layer::rows::{rows_of, span};

/// A state before the first step and after each: `[R + B, H]`, or of the last two steps alone.
#[derive(Clone, Default)]
pub(super) struct History<F> {
    values: Array2<F>,
    /// Where nothing is kept for a backward pass: two blocks of B rows, in turn.
    rolling: bool,
}

impl<F: Float> History<F> {
    /// Room for `rows` from `initial`, `[B, H]`.
    pub fn start(&mut self, rows: &Rows, initial: ArrayView2<'_, F>, rolling: bool) {
        let (batch, width) = initial.dim();
        self.rolling = rolling;
        reuse(&mut self.values, (if rolling { 2 * batch } else { rows.count() + batch }, width));
        let place = if rolling { batch..2 * batch } else { rows.initial() };
        if let (false, Some(initial)) = (rows.packed(), initial.as_slice()) {
            return rows_of(&mut self.values, &place).copy_from_slice(initial);
        }
        for (j, row) in place.enumerate() {
            self.values.row_mut(row).assign(&initial.row(rows.sequence(j)));
        }
    }

    /// The places of step `s`: before and after.
    fn places(&self, rows: &Rows, s: usize) -> (Range<usize>, Range<usize>) {
        if !self.rolling {
            return rows.in_history(s);
        }
        let (count, batch) = (rows.of(s..s + 1).len(), rows.batch());
        let (before, after) = ((s + 1) % 2 * batch, s % 2 * batch);
        (before..before + count, after..after + count)
    }

    /// Step `s`'s rows: before it and after it.
    pub fn step(&mut self, rows: &Rows, s: usize) -> (&[F], &mut [F]) {
        let width = self.values.ncols();
        let (before, after) = self.places(rows, s);
        let values = self.values.as_slice_mut().expect("a buffer in standard layout");
        let middle = before.start.max(after.start) * width;
        let (low, high) = values.split_at_mut(middle);
        if before.start < after.start {
            (&low[span(&before, width)], &mut high[..after.len() * width])
        } else {
            (&high[..before.len() * width], &mut low[span(&after, width)])
        }
    }

    /// Step `s`'s rows, to be read.
    pub fn read(&self, rows: &Rows, s: usize) -> (&[F], &[F]) {
        let width = self.values.ncols();
        let (before, after) = self.places(rows, s);
        let values = self.values.as_slice().expect("a buffer in standard layout");
        (&values[span(&before, width)], &values[span(&after, width)])
    }

    /// Leaves each sequence's last state in `state`, `[B, H]`.
    pub fn finish(&self, rows: &Rows, mut state: ArrayViewMut2<'_, F>) {
        if let (false, Some(state)) = (rows.packed(), state.as_slice_mut()) {
            return state.copy_from_slice(self.read(rows, rows.steps() - 1).1);
        }
        for j in 0..rows.batch() {
            let last = match rows.length(j).checked_sub(1) {
                None if self.rolling => rows.batch() + j,
                None => rows.initial().start + j,
                Some(s) => self.places(rows, s).1.start + j,
            };
            state.row_mut(rows.sequence(j)).assign(&self.values.row(last));
        }
    }

    /// The states after the steps, R rows one after the other.
    pub fn after(&self, rows: &Rows) -> &[F] {
        let values = self.values.as_slice().expect("a buffer in standard layout");
        &values[span(&rows.after(), self.values.ncols())]
    }

    /// The states before the steps, `[R, H]`, of rows that are not packed.
    pub fn before(&self, rows: &Rows) -> ArrayView2<'_, F> {
        let start = if rows.initial().start == 0 { 0 } else { rows.batch() };
        self.values.slice(s![start..start + rows.count(), ..])
    }
}
