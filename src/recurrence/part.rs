//! One part of a recurrent state, h or c, through a pass and back.

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::history::History;
use super::rows::Rows;
use super::zoneout::Keep;
use crate::kernels::Float;
use crate::layer::affine::add_onto;
use crate::layer::kit::reuse;
use crate::layer::rows::{rows_of, span};

/// One part of the state, h or c, through a pass and back.
#[derive(Clone, Default)]
pub(super) struct Part<F> {
    pub history: History<F>, // [R + B, ·]
    zoned: bool,             // whether there is zoneout
    candidate: Array2<F>,    // [R, ·], with zoneout: what the cell computed
    pub d: Array2<F>,        // [B, ·]
    d_kept: Array2<F>,       // [B, ·], with zoneout: what goes past the cell
}

impl<F: Float> Part<F> {
    pub fn start(&mut self, rows: &Rows, initial: ArrayView2<'_, F>, rolling: bool, zoned: bool) {
        self.history.start(rows, initial, rolling);
        self.zoned = zoned;
        reuse(&mut self.candidate, (if zoned { rows.count() } else { 0 }, initial.ncols()));
    }

    /// Step `s`'s rows, before it and, to be written, after it.
    pub fn step(&mut self, rows: &Rows, s: usize) -> (ArrayView2<'_, F>, ArrayViewMut2<'_, F>) {
        let (now, width) = (rows.of(s..s + 1), self.candidate.ncols());
        let shape = (now.len(), width);
        let (before, after) = match self.zoned {
            true => (self.history.read(rows, s).0, rows_of(&mut self.candidate, &now)),
            false => self.history.step(rows, s),
        };
        let before = ArrayView2::from_shape(shape, before).expect("whole rows");
        (before, ArrayViewMut2::from_shape(shape, after).expect("whole rows"))
    }

    /// Zoneout after step `s`.
    pub fn keep(&mut self, rows: &Rows, s: usize, keep: Keep) {
        let (now, width) = (rows.of(s..s + 1), self.candidate.ncols());
        let candidate = rows_of(&mut self.candidate, &now);
        let (before, after) = self.history.step(rows, s);
        for j in 0..if width == 0 { 0 } else { now.len() } {
            let row = span(&(j..j + 1), width);
            let (t, b) = (rows.time(s, j), rows.sequence(j));
            keep.forward(t, b, &before[row.clone()], &candidate[row.clone()], &mut after[row]);
        }
    }

    /// The gradient of the final state, zero where none is given, starts the way back.
    pub fn start_backward(&mut self, rows: &Rows, dstate: Option<ArrayView2<'_, F>>) {
        let shape = (rows.batch(), self.candidate.ncols());
        reuse(&mut self.d, shape);
        reuse(&mut self.d_kept, if self.zoned { shape } else { (0, shape.1) });
        match dstate {
            None => self.d.fill(F::zero()),
            Some(dstate) => {
                for (j, mut row) in self.d.outer_iter_mut().enumerate() {
                    row.assign(&dstate.row(rows.sequence(j)));
                }
            }
        }
    }

    /// Zoneout on the way back through step `s`: `d` becomes the gradient of what the cell computed.
    pub fn split(&mut self, rows: &Rows, s: usize, keep: Keep) {
        let count = if self.d.ncols() == 0 { 0 } else { rows.of(s..s + 1).len() };
        for j in 0..count {
            let (t, b) = (rows.time(s, j), rows.sequence(j));
            keep.backward(t, b, rows_of(&mut self.d, &(j..j + 1)), rows_of(&mut self.d_kept, &(j..j + 1)));
        }
    }

    /// And what went past the cell joins what came through it.
    pub fn join(&mut self, rows: &Rows, s: usize) {
        let first = 0..rows.of(s..s + 1).len();
        add_onto(rows_of(&mut self.d_kept, &first), rows_of(&mut self.d, &first));
    }

    /// Step `s`'s rows: before, as the cell wrote them, and their gradient.
    pub fn step_back(&mut self, rows: &Rows, s: usize) -> (ArrayView2<'_, F>, ArrayView2<'_, F>, ArrayViewMut2<'_, F>) {
        let now = rows.of(s..s + 1);
        let shape = (now.len(), self.candidate.ncols());
        let (before, after) = self.history.read(rows, s);
        let after = if self.zoned { &*rows_of(&mut self.candidate, &now) } else { after };
        let view = |values| ArrayView2::from_shape(shape, values).expect("whole rows");
        let d = rows_of(&mut self.d, &(0..now.len()));
        (view(before), view(after), ArrayViewMut2::from_shape(shape, d).expect("whole rows"))
    }

    /// The gradient of the initial state.
    pub fn finish_backward(&self, rows: &Rows, mut dstate: ArrayViewMut2<'_, F>) {
        for (j, row) in self.d.outer_iter().enumerate() {
            dstate.row_mut(rows.sequence(j)).assign(&row);
        }
    }

    /// The state before each row's step, `[R, ·]`.
    pub fn before<'a>(&'a self, rows: &Rows, packed: &'a mut Array2<F>) -> ArrayView2<'a, F> {
        if !rows.packed() {
            return self.history.before(rows);
        }
        reuse(packed, (rows.count(), self.candidate.ncols()));
        for s in 0..rows.steps() {
            rows_of(packed, &rows.of(s..s + 1)).copy_from_slice(self.history.read(rows, s).0);
        }
        packed.view()
    }
}
