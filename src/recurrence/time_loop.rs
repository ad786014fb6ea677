//! The loop over time, forward and back, for every cell.

use ndarray::{Array2, Array3, ArrayRef3, ArrayView2, ArrayView3};

use super::cell::{
    AllSteps, Cell, CellSizes, CellStep, CellStepBackward, RecurrentState, StateParts, StepRecorder, Unrolled,
};
use super::part::Part;
use super::rows::Rows;
use super::zoneout::Keep;
use crate::base::{Mode, RecordsState, Size, SizeError, StateRecorder, TensorsExt, check_gradient, check_shape};
use crate::kernels::Accumulate;
use crate::kernels::Float;
use crate::layer::Gradient;
use crate::layer::kit::{Pending, reuse};
use crate::layer::rows::{matrix_mut, rows_of, span, view_of_rows};
use crate::layer::{Causal, Layer, Sequence};
use crate::parallel::in_pass;
use crate::parallel::product_work;

/// In inference, about so many rows are projected at a time, or as many as there are inputs: enough for fast products, not
/// the memory of all steps, and no more than that of the weights.
const INFERENCE_ROWS: usize = 256;

/// The cache of a [`Cell`].
pub struct CellCache<C: Cell> {
    pending: Pending,
    rows: Rows,
    x: PassRows<C::Elem>,      // [R, I]
    h: Part<C::Elem>,          // of size O
    c: Part<C::Elem>,          // of size M
    y: Array3<C::Elem>,        // [T, B, O], where rows are packed
    h_before: Array2<C::Elem>, // [R, O], where rows are packed
    dx: Array3<C::Elem>,       // [T, B, I]
    dx_rows: Array2<C::Elem>,  // [R, I], where rows are packed
    buffers: C::Buffers,
    recorder: StateRecorder,
    #[cfg(feature = "rayon")]
    shards: super::shards::Shards<C>,
}

/// The rows of x as one matrix: where they lie, or a copy that the forward pass makes and the backward pass uses again.
#[derive(Clone, Default)]
struct PassRows<F> {
    is_copied: bool,
    copy: Array2<F>, // [R, I]
}

impl<F: Float> PassRows<F> {
    /// For a forward pass.
    fn start<'a>(&'a mut self, x: ArrayView3<'a, F>, rows: &Rows) -> ArrayView2<'a, F> {
        self.is_copied = false;
        self.view(x, rows)
    }

    /// For the backward pass after it, with the same x.
    fn view<'a>(&'a mut self, x: ArrayView3<'a, F>, rows: &Rows) -> ArrayView2<'a, F> {
        if !rows.packed() && x.is_standard_layout() {
            return crate::cache::rows(x);
        }
        if !self.is_copied {
            rows.gather(x, &mut self.copy);
            self.is_copied = true;
        }
        self.copy.view()
    }
}

impl<C: Cell> Default for CellCache<C> {
    fn default() -> Self {
        CellCache {
            pending: Pending::default(),
            rows: Rows::default(),
            x: PassRows::default(),
            h: Part::default(),
            c: Part::default(),
            y: Array3::default((0, 0, 0)),
            h_before: Array2::default((0, 0)),
            dx: Array3::default((0, 0, 0)),
            dx_rows: Array2::default((0, 0)),
            buffers: C::Buffers::default(),
            recorder: StateRecorder::default(),
            #[cfg(feature = "rayon")]
            shards: super::shards::Shards::default(),
        }
    }
}

impl<C: Cell> RecordsState for CellCache<C> {
    fn recorder(&mut self) -> &mut StateRecorder {
        &mut self.recorder
    }
}

/// The work of a pass, about.
pub(crate) fn work<C: Cell>(cell: &C, x: &Sequence<'_, C::Elem>) -> usize {
    let (steps, batch) = x.dims();
    steps * product_work(batch, cell.element_count())
}

/// What the cell keeps of its h and c, where it has [`Zoneout`](crate::Zoneout).
fn zoneout<C: Cell>(cell: &C, name: &str, x: &Sequence<'_, C::Elem>) -> Option<[Keep; 2]> {
    cell.zoneout().map(|zoneout| [zoneout.h, zoneout.c].map(|drop| Keep::new(name, drop, x)))
}

#[track_caller]
fn check_state<F>(name: &str, what: &str, sizes: CellSizes, batch: usize, state: &StateParts<'_, F>) {
    let StateParts { h, c } = state;
    for (part, size, got) in [(".h", sizes.output, h.shape()), (".c", sizes.memory, c.shape())] {
        if got != [batch, size] {
            let part = if sizes.memory == 0 { "" } else { part };
            check_shape(name, &format!("{what}{part}"), &[batch, size], got);
        }
    }
}

/// `cell` over all steps of `x`, from `state`, which is advanced: `[T, B, O]`.
pub(crate) fn forward<'c, C: Cell>(
    cell: &C,
    x: &Sequence<'_, C::Elem>,
    state: StateParts<'_, C::Elem>,
    cache: &'c mut CellCache<C>,
) -> ArrayView3<'c, C::Elem> {
    #[cfg(feature = "rayon")]
    if cache.shards.plan(cell, x) {
        let sizes = cell.sizes();
        x.features(sizes.name, Some(sizes.input));
        check_state(sizes.name, "state", sizes, x.dims().1, &state);
        cache.pending.set(x);
        return cache.shards.forward(cell, x, state);
    }
    forward_alone(cell, x, state, cache)
}

/// [`forward`] on this thread.
pub(crate) fn forward_alone<'c, C: Cell>(
    cell: &C,
    x: &Sequence<'_, C::Elem>,
    state: StateParts<'_, C::Elem>,
    cache: &'c mut CellCache<C>,
) -> ArrayView3<'c, C::Elem> {
    let sizes @ CellSizes { name, input, output, .. } = cell.sizes();
    let features = x.features(name, Some(input));
    let (steps, batch, _) = features.dim();
    check_state(name, "state", sizes, batch, &state);
    let zoneout = zoneout(cell, name, x);
    let infer = x.mode() == Some(Mode::Infer);
    let CellCache { pending, rows, x: x_rows, h, c, y, buffers, .. } = &mut *cache;
    pending.set(x);
    rows.plan(x);
    let rows = &*rows;
    let x_rows = x_rows.start(features, rows);
    h.start(rows, state.h.view(), false, zoneout.is_some());
    c.start(rows, state.c.view(), infer, zoneout.is_some());

    let at_once = if infer { INFERENCE_ROWS.max(input).div_ceil(batch) } else { rows.steps().max(1) };
    let rows_at_once = rows.count().min(at_once * batch);
    let pass = Unrolled { rows, rows_at_once, mode: x.mode(), packed: x.packed_weights() };
    cell.begin(&pass, buffers);
    for first in (0..rows.steps()).step_by(at_once) {
        let some = first..rows.steps().min(first + at_once);
        let projected = rows.of(some.clone());
        cell.project(&pass, view_of_rows(x_rows, &projected), buffers);
        for s in some {
            let now = rows.of(s..s + 1);
            let ((h_before, h_now), (c_before, c_now)) = (h.step(rows, s), c.step(rows, s));
            let step = CellStep {
                rows: now.start - projected.start..now.end - projected.start,
                x: view_of_rows(x_rows, &now),
                h_before,
                c_before,
                h: h_now,
                c: c_now,
            };
            cell.forward_step(step, buffers);
            if let Some([keep_h, keep_c]) = zoneout {
                h.keep(rows, s, keep_h);
                c.keep(rows, s, keep_c);
            }
        }
    }
    h.history.finish(rows, state.h);
    c.history.finish(rows, state.c);
    if rows.packed() {
        reuse(y, (steps, batch, output));
        rows.scatter(output, h.history.after(rows), rows_of(y, &(0..steps * batch)));
        x.zero_padding(y);
    }
    output_alone(output, cache)
}

/// The output of the last forward pass.
pub(crate) fn output<'c, C: Cell>(cell: &C, cache: &'c CellCache<C>) -> ArrayView3<'c, C::Elem> {
    #[cfg(feature = "rayon")]
    if cache.shards.is_used() {
        return cache.shards.output();
    }
    output_alone(cell.sizes().output, cache)
}

/// Of `output` features.
fn output_alone<C: Cell>(output: usize, cache: &CellCache<C>) -> ArrayView3<'_, C::Elem> {
    let CellCache { rows, h, y, .. } = cache;
    if rows.packed() || rows.batch() == 0 {
        return y.view();
    }
    let shape = (rows.steps(), rows.batch(), output);
    ArrayView3::from_shape(shape, h.history.after(rows)).expect("R rows")
}

/// The way back through all steps: `dstate` in as the gradient of the final state, out as that of the initial one.
pub(crate) fn backward<'c, C: Cell>(
    cell: &C,
    x: &Sequence<'_, C::Elem>,
    dy: ArrayView3<'_, C::Elem>,
    dstate: Option<StateParts<'_, C::Elem>>,
    cache: &'c mut CellCache<C>,
    grad: Gradient<'_, C>,
) -> ArrayView3<'c, C::Elem> {
    #[cfg(feature = "rayon")]
    if cache.shards.is_used() {
        let CellCache { pending, recorder, shards, .. } = cache;
        let sizes = cell.sizes();
        pending.take(sizes.name, x, &dy, sizes.output);
        let (grad, how) = grad.parts();
        check_gradient(sizes.name, cell, &*grad);
        if let Some(dstate) = &dstate {
            check_state(sizes.name, "dstate", sizes, x.dims().1, dstate);
        }
        recorder.start(x.dims().0);
        shards.caches().iter_mut().for_each(|shard| shard.recorder.follow(recorder));
        shards.backward(cell, x, dy, dstate, Gradient::new(grad, how));
        shards.caches().iter().for_each(|shard| recorder.join(&shard.recorder));
        recorder.finish();
        return shards.input_gradient();
    }
    backward_alone(cell, x, dy, dstate, cache, grad)
}

/// [`backward`] on this thread.
pub(crate) fn backward_alone<'c, C: Cell>(
    cell: &C,
    x: &Sequence<'_, C::Elem>,
    dy: ArrayView3<'_, C::Elem>,
    dstate: Option<StateParts<'_, C::Elem>>,
    cache: &'c mut CellCache<C>,
    grad: Gradient<'_, C>,
) -> ArrayView3<'c, C::Elem> {
    let sizes @ CellSizes { name, input, output, .. } = cell.sizes();
    let (steps, batch) = x.dims();
    let CellCache { pending, rows, x: x_rows, h, c, h_before, dx, dx_rows, buffers, recorder, .. } = cache;
    pending.take(name, x, &dy, output);
    let (grad, how) = grad.parts();
    check_gradient(name, cell, &*grad);
    if let Some(dstate) = &dstate {
        check_state(name, "dstate", sizes, batch, dstate);
    }
    let (rows, wanted) = (&*rows, x.wants_gradient());
    let zoneout = zoneout(cell, name, x);
    let x_rows = x_rows.view(x.features(name, Some(input)), rows);
    h.start_backward(rows, dstate.as_ref().map(|dstate| dstate.h.view()));
    c.start_backward(rows, dstate.as_ref().map(|dstate| dstate.c.view()));
    reuse(dx, (steps, batch, if wanted { input } else { 0 }));
    reuse(dx_rows, (if rows.packed() { rows.count() } else { 0 }, dx.dim().2));
    let all = 0..rows.count();
    let dx_values = if rows.packed() { rows_of(dx_rows, &all) } else { rows_of(dx, &all) };

    match (how, rows.count()) {
        (Accumulate::Overwrite, 0) => grad.set_zero(),
        (Accumulate::Overwrite, _) => cell.clear_gradient(grad),
        (Accumulate::Add, _) => {}
    }
    cell.begin_backward(&Unrolled { rows, rows_at_once: rows.count(), mode: x.mode(), packed: None }, buffers);
    recorder.start(steps);
    for s in (0..rows.steps()).rev() {
        let now = rows.of(s..s + 1);
        rows.add_step(s, dy, &mut h.d);
        if recorder.is_on() {
            for (j, row) in h.d.outer_iter().take(now.len()).enumerate() {
                recorder.hidden(rows.time(s, j), row.iter().copied());
            }
        }
        if let Some([keep_h, keep_c]) = zoneout {
            h.split(rows, s, keep_h);
            c.split(rows, s, keep_c);
        }
        let ((h_before, h_now, dh), (c_before, c_now, dc)) = (h.step_back(rows, s), c.step_back(rows, s));
        let step = CellStepBackward {
            x: view_of_rows(x_rows, &now),
            h_before,
            c_before,
            h: h_now,
            c: c_now,
            dh,
            dc,
            dx: wanted.then(|| matrix_mut(&mut dx_values[span(&now, input)], input)),
            rows: now,
            recorder: StepRecorder { to: recorder, rows, step: s },
        };
        cell.backward_step(step, buffers, grad);
        if zoneout.is_some() {
            h.join(rows, s);
            c.join(rows, s);
        }
    }
    recorder.finish();
    let h_before = h.before(rows, h_before);
    let dx_all = wanted.then(|| matrix_mut(dx_values, input));
    if rows.count() > 0 {
        let all = AllSteps { x: x_rows, h_before, dx: dx_all };
        cell.finish_backward(all, buffers, Gradient::new(grad, how));
    }

    if let Some(dstate) = dstate {
        h.finish_backward(rows, dstate.h);
        c.finish_backward(rows, dstate.c);
    }
    if rows.packed() && wanted {
        rows.scatter(input, dx_rows.as_slice().expect("standard layout"), rows_of(dx, &(0..steps * batch)));
        x.zero_padding(dx);
    }
    dx.view()
}

impl<C: Cell> Layer for C {
    type Elem = C::Elem;
    type State = C::State;
    type Cache = CellCache<C>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let sizes = self.sizes();
        match input {
            Size::Features(features) if features == sizes.input => Ok(sizes.output),
            _ => Err(SizeError::features(sizes.name, sizes.input, input)),
        }
    }

    fn zero_state(&self, batch: usize) -> C::State {
        C::State::zeros(batch, self.sizes())
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, C::Elem>,
        state: &mut C::State,
        cache: &'c mut CellCache<C>,
    ) -> ArrayView3<'c, C::Elem> {
        in_pass(|| (work(self, x), 2), || forward(self, x, state.parts(), cache))
    }

    fn output<'c>(&self, cache: &'c CellCache<C>) -> ArrayView3<'c, C::Elem> {
        output(self, cache)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, C::Elem>,
        dy: &ArrayRef3<C::Elem>,
        dstate: Option<&mut C::State>,
        cache: &'c mut CellCache<C>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, C::Elem> {
        in_pass(|| (work(self, x), 2), || backward(self, x, dy.view(), dstate.map(C::State::parts), cache, grad))
    }
}

impl<C: Cell> Causal for C {}
