//! The buffers that the loop over time keeps on one thread, from a forward pass to its backward pass.

use std::fmt;

use ndarray::{Array2, Array3, ArrayView2, ArrayView3};

use super::schedule::Schedule;
use super::state::StateViewMut;
use super::track::StateTrack;
use crate::base::StateRecorder;
use crate::kernels::Float;
use crate::layer::kit;

/// The buffers that the loop over time keeps on one thread. `B` is the type of the cell's own buffers.
pub(super) struct LoopCache<F, B> {
    pub schedule: Schedule,
    pub x: InputRows<F>,     // [R, I]
    pub h: StateTrack<F>,    // of O columns
    pub c: StateTrack<F>,    // of M columns
    pub y: Array3<F>,        // [T, B, O], if rows are gathered
    pub h_before: Array2<F>, // [R, O], if rows are gathered
    pub dx: Array3<F>,       // [T, B, I]
    pub dx_rows: Array2<F>,  // [R, I], if rows are gathered
    pub buffers: B,
    pub recorder: StateRecorder,
}

impl<F: Float, B: Default> Default for LoopCache<F, B> {
    fn default() -> Self {
        LoopCache {
            schedule: Schedule::default(),
            x: InputRows::default(),
            h: StateTrack::default(),
            c: StateTrack::default(),
            y: Array3::default((0, 0, 0)),
            h_before: Array2::default((0, 0)),
            dx: Array3::default((0, 0, 0)),
            dx_rows: Array2::default((0, 0)),
            buffers: B::default(),
            recorder: StateRecorder::default(),
        }
    }
}

impl<F, B> fmt::Debug for LoopCache<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopCache").finish_non_exhaustive()
    }
}

impl<F: Float, B> LoopCache<F, B> {
    /// The output of the last forward pass, `[T, B, O]`.
    pub fn output(&self) -> ArrayView3<'_, F> {
        let LoopCache { schedule, h, y, .. } = self;
        if schedule.gathered() || schedule.batch() == 0 {
            return y.view();
        }
        let shape = (schedule.steps(), schedule.batch(), h.history.width());
        ArrayView3::from_shape(shape, h.history.after(schedule)).expect("R rows")
    }

    /// Writes each sequence's last state to `state`, after a forward pass.
    pub fn final_state(&self, state: &mut StateViewMut<'_, F>) {
        self.h.history.finish(&self.schedule, state.h());
        self.c.history.finish(&self.schedule, state.memory());
    }

    /// Writes the gradient of the initial state to `dstate`, after a backward pass.
    pub fn initial_gradient(&self, dstate: &mut StateViewMut<'_, F>) {
        self.h.finish_backward(&self.schedule, dstate.h());
        self.c.finish_backward(&self.schedule, dstate.memory());
    }
}

/// The rows of x as one matrix: a view of x, or a copy that the forward pass makes and the backward pass uses again.
#[derive(Clone, Debug, Default)]
pub(super) struct InputRows<F> {
    is_copied: bool,
    copy: Array2<F>, // [R, I]
}

impl<F: Float> InputRows<F> {
    /// The rows for a forward pass.
    pub fn start<'a>(&'a mut self, x: ArrayView3<'a, F>, schedule: &Schedule) -> ArrayView2<'a, F> {
        self.is_copied = false;
        self.view(x, schedule)
    }

    /// The rows for the backward pass after it, with the same x.
    pub fn view<'a>(&'a mut self, x: ArrayView3<'a, F>, schedule: &Schedule) -> ArrayView2<'a, F> {
        if !schedule.gathered() && x.is_standard_layout() {
            return kit::rows(x);
        }
        if !self.is_copied {
            schedule.gather(x, &mut self.copy);
            self.is_copied = true;
        }
        self.copy.view()
    }
}
