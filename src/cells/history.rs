//! A state at every step: what a recurrence writes and its backward pass reads.

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis, s};

use crate::cache::{reuse, rows};
use crate::{Float, Sequence};

/// A state `v` before the first step and after each: `[T + 1, B, H]`.
///
/// Rows are counted as in [`Sequence::step_runs`]: row `t * B + b` is sequence `b` before step `t`.
#[derive(Clone, Default)]
pub(super) struct History<F>(Array3<F>);

impl<F: Float> History<F> {
    /// Room for `steps` steps from `initial`, `[B, H]`.
    pub fn start(&mut self, steps: usize, initial: &Array2<F>) {
        let (batch, hidden) = initial.dim();
        reuse(&mut self.0, (steps + 1, batch, hidden));
        self.0.index_axis_mut(Axis(0), 0).assign(initial);
    }

    /// The rows `run` of one step, before it and after it.
    pub fn step(&mut self, run: &Range<usize>) -> (&[F], &mut [F]) {
        let (_, batch, hidden) = self.0.dim();
        let now = (run.start / batch + 1) * batch;
        let values = self.0.as_slice_mut().expect("a buffer in standard layout");
        let (before, after) = values.split_at_mut(now * hidden);
        let after = &mut after[(run.start + batch - now) * hidden..(run.end + batch - now) * hidden];
        (&before[run.start * hidden..run.end * hidden], after)
    }

    /// Leaves each sequence's last valid state in `state`.
    pub fn finish(&self, x: &Sequence<'_, F>, state: &mut Array2<F>) {
        for (b, mut row) in state.outer_iter_mut().enumerate() {
            row.assign(&self.0.slice(s![x.length(b), b, ..]));
        }
    }

    /// Zeroes what lies past the lengths.
    pub fn zero_padding(&mut self, x: &Sequence<'_, F>) {
        let Some(lengths) = x.lengths() else { return };
        for (b, &length) in lengths.iter().enumerate() {
            self.0.slice_mut(s![length + 1.., b, ..]).fill(F::zero());
        }
    }

    /// The state after every step, `[T, B, H]`; empty before the first `start`.
    pub fn after(&self) -> ArrayView3<'_, F> {
        self.0.slice(s![self.0.dim().0.min(1).., .., ..])
    }

    /// The state before every step, `[T · B, H]`.
    pub fn before(&self) -> ArrayView2<'_, F> {
        let steps = self.0.dim().0 - 1;
        rows(self.0.slice(s![..steps, .., ..]))
    }
}
