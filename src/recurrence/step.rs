//! The arguments of a cell's methods: one step's rows, forward and backward, and a view of the whole pass.

use std::fmt;
use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2};

use super::schedule::Schedule;
use crate::base::{Mode, StateRecorder};
use crate::kernels::{Float, PackedWeights};

/// A cell's name and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellSizes {
    /// The name that panics use.
    pub name: &'static str,
    /// I, the number of input features.
    pub input: usize,
    /// The size of h, which is the output.
    pub output: usize,
    /// M, the number of memory values of a sequence; 0 without a memory.
    pub memory: usize,
}

/// A pass through time, as a cell sees it.
#[derive(Debug)]
pub struct Unrolled<'a, F> {
    pub(super) schedule: &'a Schedule,
    pub(super) rows_at_once: usize,
    pub(super) mode: Option<Mode>,
    pub(super) packed: Option<&'a PackedWeights<F>>,
}

impl<F: Float> Unrolled<'_, F> {
    /// The number of steps, that of the longest [piece](crate::Sequence::pieces).
    pub fn steps(&self) -> usize {
        self.schedule.steps()
    }

    /// The maximum number of rows of a step: B, or the number of [pieces](crate::Sequence::pieces).
    pub fn batch(&self) -> usize {
        self.schedule.batch()
    }

    /// The maximum number of rows that are [projected](crate::author::Cell::project_input) at once: those of all steps together, or
    /// fewer in inference.
    pub fn rows(&self) -> usize {
        self.rows_at_once
    }

    /// Whether the rows are projected in several parts.
    pub(crate) fn in_parts(&self) -> bool {
        self.rows_at_once < self.schedule.count()
    }

    /// The packed weights of a [prepacked](crate::wrap::Prepacked) model.
    pub(crate) fn packed_weights(&self) -> Option<&PackedWeights<F>> {
        self.packed
    }

    /// The mode of the pass, if it has one.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// The sequence of the `j`th row of every step, counted in the whole batch, of which this may be a
    /// [shard](crate::Sequence::sequences).
    pub fn sequence(&self, j: usize) -> usize {
        self.schedule.sequence_of_all(j)
    }
}

/// The N rows of one step: those of the sequences, or of their pieces, that reach it.
#[derive(Debug)]
pub struct CellStep<'a, F> {
    /// The places of these rows among the rows that were [projected](crate::author::Cell::project_input).
    pub rows: Range<usize>,
    /// `[N, I]`
    pub x: ArrayView2<'a, F>,
    /// h before the step, `[N, O]`
    pub h_before: ArrayView2<'a, F>,
    /// The memory before the step, `[N, M]`: the state's tensors except h, side by side.
    pub c_before: ArrayView2<'a, F>,
    /// h after the step, `[N, O]`, to be written.
    pub h: ArrayViewMut2<'a, F>,
    /// The memory after the step, `[N, M]`, to be written.
    pub c: ArrayViewMut2<'a, F>,
}

/// One step's rows in the backward pass.
#[derive(Debug)]
pub struct CellStepBackward<'a, F> {
    /// The places of these rows among the rows of the pass.
    pub rows: Range<usize>,
    /// `[N, I]`
    pub x: ArrayView2<'a, F>,
    /// h before the step, `[N, O]`
    pub h_before: ArrayView2<'a, F>,
    /// The memory before the step, `[N, M]`: the state's tensors except h, side by side.
    pub c_before: ArrayView2<'a, F>,
    /// h as the step wrote it, `[N, O]`
    pub h: ArrayView2<'a, F>,
    /// The memory as the step wrote it, `[N, M]`
    pub c: ArrayView2<'a, F>,
    /// In: `dL/dh` after the step; out: `dL/dh` before it. `[N, O]`
    pub dh: ArrayViewMut2<'a, F>,
    /// In: the gradient of the memory after the step; out: that before it. `[N, M]`
    pub dc: ArrayViewMut2<'a, F>,
    /// `dL/dx`, `[N, I]`, to be written, unless [`finish_backward`](crate::author::Cell::finish_backward) does that; `None` if it
    /// is not wanted.
    pub dx: Option<ArrayViewMut2<'a, F>>,
    /// Records the gradients of the memory for a [`GradientProbe`](crate::wrap::GradientProbe).
    pub recorder: StepRecorder<'a>,
}

/// Records the gradients of a cell's memory for a [`GradientProbe`](crate::wrap::GradientProbe).
pub struct StepRecorder<'a> {
    pub(super) to: &'a mut StateRecorder,
    pub(super) schedule: &'a Schedule,
    pub(super) step: usize,
}

impl fmt::Debug for StepRecorder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepRecorder").field("step", &self.step).finish_non_exhaustive()
    }
}

impl StepRecorder<'_> {
    /// Records the gradient of the memory after the step, including the part that comes through `h_t`: row by row, `width` values
    /// each. `values` is called only if a probe is recording.
    pub fn memory<F: Float, I: IntoIterator<Item = F>>(&mut self, width: usize, values: impl FnOnce() -> I) {
        if self.to.is_on() {
            for (k, value) in values().into_iter().enumerate() {
                self.to.memory(self.schedule.time(self.step, k / width), [value]);
            }
        }
    }
}

/// All steps of a pass together, R rows.
#[derive(Debug)]
pub struct AllSteps<'a, F> {
    /// `[R, I]`
    pub x: ArrayView2<'a, F>,
    /// h before each row's step, `[R, O]`
    pub h_before: ArrayView2<'a, F>,
    /// `dL/dx`, `[R, I]`, to be written; `None` if it is not wanted.
    pub dx: Option<ArrayViewMut2<'a, F>>,
}
