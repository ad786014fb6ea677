//! Half of a recurrent state, h or the memory, in a forward pass and its backward pass.

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::history::History;
use super::schedule::{End, Schedule};
use super::state::{Columns, ColumnsMut};
use super::zoneout::PassZoneout;
use crate::kernels::Float;
use crate::layer::affine::add_onto;
use crate::layer::kit::reuse;
use crate::layer::rows::{rows_of, span};

/// Half of a state, h or the memory, in a forward pass and its backward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct StateTrack<F> {
    pub history: History<F>, // [R + B, ·]
    has_zoneout: bool,
    candidate: Array2<F>, // [R, ·], with zoneout: the states that the cell computed
    pub d: Array2<F>,     // [B, ·]
    d_past: Array2<F>,    // [B, ·], with zoneout: the gradient that bypasses the cell
}

impl<F: Float> StateTrack<F> {
    /// Starts a forward pass from `initial`, `[B, width]`.
    pub fn start(
        &mut self,
        schedule: &Schedule,
        width: usize,
        initial: Columns<'_, F>,
        rolling: bool,
        has_zoneout: bool,
    ) {
        self.history.start(schedule, width, initial, rolling);
        self.has_zoneout = has_zoneout;
        reuse(&mut self.candidate, (if has_zoneout { schedule.count() } else { 0 }, width));
    }

    /// The rows before step `s` and, to be written, after it.
    pub fn step(&mut self, schedule: &Schedule, s: usize) -> (ArrayView2<'_, F>, ArrayViewMut2<'_, F>) {
        let (now, width) = (schedule.rows(s..s + 1), self.candidate.ncols());
        let shape = (now.len(), width);
        let (before, after) = match self.has_zoneout {
            true => (self.history.read(schedule, s).0, rows_of(&mut self.candidate, &now)),
            false => self.history.step(schedule, s),
        };
        let before = ArrayView2::from_shape(shape, before).expect("whole rows");
        (before, ArrayViewMut2::from_shape(shape, after).expect("whole rows"))
    }

    /// Applies zoneout after step `s`.
    pub fn zone_out(&mut self, schedule: &Schedule, s: usize, zoneout: PassZoneout) {
        let (now, width) = (schedule.rows(s..s + 1), self.candidate.ncols());
        let candidate = rows_of(&mut self.candidate, &now);
        let (before, after) = self.history.step(schedule, s);
        for j in 0..if width == 0 { 0 } else { now.len() } {
            let row = span(&(j..j + 1), width);
            let (t, b) = (schedule.time(s, j), schedule.sequence(j));
            zoneout.forward(t, b, &before[row.clone()], &candidate[row.clone()], &mut after[row]);
        }
    }

    /// Starts a backward pass from the gradient of the final state, or from zero.
    pub fn start_backward(&mut self, schedule: &Schedule, dstate: Option<Columns<'_, F>>) {
        let shape = (schedule.batch(), self.candidate.ncols());
        reuse(&mut self.d, shape);
        reuse(&mut self.d_past, if self.has_zoneout { shape } else { (0, shape.1) });
        match dstate {
            None => self.d.fill(F::zero()),
            Some(dstate) => dstate.read(schedule, End::Last, rows_of(&mut self.d, &(0..shape.0))),
        }
    }

    /// Goes backward through the zoneout of step `s`: `d` becomes the gradient of the state that the cell computed.
    pub fn zone_out_backward(&mut self, schedule: &Schedule, s: usize, zoneout: PassZoneout) {
        let count = if self.d.ncols() == 0 { 0 } else { schedule.rows(s..s + 1).len() };
        for j in 0..count {
            let (t, b) = (schedule.time(s, j), schedule.sequence(j));
            zoneout.backward(t, b, rows_of(&mut self.d, &(j..j + 1)), rows_of(&mut self.d_past, &(j..j + 1)));
        }
    }

    /// Adds the gradient that bypassed the cell to the one that went through it.
    pub fn add_past(&mut self, schedule: &Schedule, s: usize) {
        let first = 0..schedule.rows(s..s + 1).len();
        add_onto(rows_of(&mut self.d_past, &first), rows_of(&mut self.d, &first));
    }

    /// The rows before step `s`, those after it as the cell wrote them, and the gradient of the latter.
    pub fn step_back(
        &mut self,
        schedule: &Schedule,
        s: usize,
    ) -> (ArrayView2<'_, F>, ArrayView2<'_, F>, ArrayViewMut2<'_, F>) {
        let now = schedule.rows(s..s + 1);
        let shape = (now.len(), self.candidate.ncols());
        let (before, after) = self.history.read(schedule, s);
        let after = if self.has_zoneout { &*rows_of(&mut self.candidate, &now) } else { after };
        let view = |values| ArrayView2::from_shape(shape, values).expect("whole rows");
        let d = rows_of(&mut self.d, &(0..now.len()));
        (view(before), view(after), ArrayViewMut2::from_shape(shape, d).expect("whole rows"))
    }

    /// Writes the gradient of the initial state to `dstate`.
    pub fn finish_backward(&self, schedule: &Schedule, dstate: ColumnsMut<'_, '_, F>) {
        let d = self.d.as_slice().expect("a buffer in standard layout");
        dstate.write(schedule, End::Initial, self.d.ncols(), d, |j| j);
    }

    /// The state before each row's step, `[R, ·]`.
    pub fn before<'a>(&'a self, schedule: &Schedule, gathered: &'a mut Array2<F>) -> ArrayView2<'a, F> {
        if !schedule.gathered() {
            return self.history.before(schedule);
        }
        reuse(gathered, (schedule.count(), self.candidate.ncols()));
        for s in 0..schedule.steps() {
            rows_of(gathered, &schedule.rows(s..s + 1)).copy_from_slice(self.history.read(schedule, s).0);
        }
        gathered.view()
    }
}
