//! The trait of recurrent cells, and the loop over time, forward and backward, that makes a cell a layer.

use ndarray::{ArrayView2, ArrayView3};

use super::cache::LoopCache;
#[cfg(feature = "rayon")]
use super::shards::Shards;
use super::state::{StateView, StateViewMut, refuse_state};
use super::step::{AllSteps, CellSizes, CellStep, CellStepBackward, StepRecorder, Unrolled};
use super::zoneout::{PassZoneout, Zoneout};
use crate::base::{Mode, RecordsState, StateRecorder, Tensors, TensorsExt, check_gradient};
use crate::kernels::{Accumulate, Float};
use crate::layer::kit::{Pending, opaque_debug, reuse};
use crate::layer::rows::{matrix_mut, rows_of, span, view_of_rows};
use crate::layer::{Gradient, Graph, Sequence, Signal, Stage, State, Unsupported, Value};
use crate::parallel::{in_pass, product_work};

/// In inference, about this many rows are projected at a time, or as many as there are input features if that is more. This is
/// enough for fast products, without memory for all steps, and takes no more memory than the weights.
const INFERENCE_ROWS: usize = 256;

/// A recurrent cell: one step forward and one step backward. Every cell is a [`Layer`](crate::Layer) and [`Causal`](crate::Causal):
/// the loop over time, backpropagation through it, lengths, both directions, chunks, streams and the cache come from this crate,
/// and [`Recurrent`](crate::recurrent::Recurrent) stacks cells.
///
/// ```text
/// (h_t, c_t) = step(x_t, h_{t-1}, c_{t-1})        h: the output, c: a memory beside it, if there is one
/// ```
///
/// # Implementing it
/// [`sizes`](Cell::sizes), [`initial_state`](Cell::initial_state), [`forward_step`](Cell::forward_step) and
/// [`backward_step`](Cell::backward_step) are enough. A step gets one row for each sequence that has not ended yet. `Buffers` holds
/// values that the backward step needs and should not compute again. Rows are numbered through the whole pass, so
/// [`begin`](Cell::begin) can make room for them. The other methods move work out of the loop: one product over all steps is faster
/// than a product for each step.
///
/// # The state
/// Any type with tensors can be a state: the first tensor is h, `[B, O]`, and the others are the memory, `[B, ..]` each. Inside the
/// loop the memory is one matrix `c`, `[N, M]`, in which a sequence's row holds all its tensors side by side: a cell with a
/// normaliser beside its memory (`[B, H]` each) splits a row of 2 H columns, and a cell with a matrix memory `[B, D, D]` reads D²
/// columns row-major. A state that implements [`StackState`](crate::author::StackState) also works in
/// [`Recurrent`](crate::recurrent::Recurrent) models.
///
/// # Threads
/// With the feature `rayon`, a large batch is split into shards that run on several threads at once, each with its own buffers and
/// gradient. So two things that work on one thread deadlock on several:
///
/// - a step that calls rayon while it holds a lock: while rayon waits, its thread may run another shard, whose steps want the same
///   lock;
/// - a step that waits for a lock which the caller of the pass holds: the caller waits for all shards, and this shard waits for the
///   caller. The same is true of anything else that the caller would have to do first, such as receive from a channel.
///
/// A lock that a step takes itself and releases before it returns or calls rayon is fine.
///
/// ```
/// use gradflow::ndarray::Array2;
/// use gradflow::rand::{SeedableRng, rngs::StdRng};
/// use gradflow::{
///     Float, parameters, author::{Cell, CellSizes, CellStep, CellStepBackward}, check::Contract, layers::Init,
/// };
///
/// /// h_t = h_{t-1} / 2 + W x_t
/// #[derive(Clone)]
/// struct Leaky<F> { weight: Array2<F> }
/// parameters! { impl<F: Float> Tensors<F> for Leaky<F> { weight } }
///
/// impl<F: Float> Cell for Leaky<F> {
///     type Elem = F;
///     type State = Array2<F>;
///     type Buffers = ();
///
///     fn sizes(&self) -> CellSizes {
///         CellSizes { name: "Leaky", input: self.weight.ncols(), output: self.weight.nrows(), memory: 0 }
///     }
///
///     fn initial_state(&self, batch: usize) -> Array2<F> {
///         Array2::zeros((batch, self.weight.nrows()))
///     }
///
///     fn forward_step(&self, mut step: CellStep<'_, F>, _: &mut ()) {
///         step.h.assign(&step.x.dot(&self.weight.t()));
///         step.h.scaled_add(F::of(0.5), &step.h_before);
///     }
///
///     fn backward_step(&self, mut step: CellStepBackward<'_, F>, _: &mut (), grad: &mut Self) {
///         grad.weight += &step.dh.t().dot(&step.x);
///         if let Some(dx) = &mut step.dx {
///             dx.assign(&step.dh.dot(&self.weight));
///         }
///         step.dh *= F::of(0.5); // in: dL/dh_t, out: dL/dh_{t-1}
///     }
/// }
///
/// let mut weight = Array2::<f64>::zeros((4, 3));
/// Init::XavierUniform { gain: 1.0 }.fill(&mut weight, &mut StdRng::seed_from_u64(0));
/// Contract::new("Leaky", &Leaky { weight }, 3).check_causal(); // gradients, lengths, chunks, streams …
/// ```
pub trait Cell: Tensors<<Self as Cell>::Elem> + Clone + Send + Sync + 'static {
    /// `f32` or `f64`.
    type Elem: Float;
    /// h and the memory: `Array2` for h alone, [`LstmState`](crate::recurrent::LstmState) for h and c, or a type of your own.
    type State: State<Self::Elem> + 'static;
    /// The values that forward steps keep for backward steps; `()` if there are none.
    type Buffers: Default + Send + 'static;

    /// The cell's name and sizes.
    ///
    /// # Panics
    /// Panics if its parameters do not fit each other.
    #[track_caller]
    fn sizes(&self) -> CellSizes;

    /// The state before the first step of `batch` sequences: zeros, in the shapes that [`sizes`](Cell::sizes) gives.
    fn initial_state(&self, batch: usize) -> Self::State;

    /// Runs one step: reads `x`, `h_before` and `c_before`, writes `h` and `c`.
    fn forward_step(&self, step: CellStep<'_, Self::Elem>, buffers: &mut Self::Buffers);

    /// Runs one step backward: `dh` and `dc` come in as the gradients of the step's `h` and `c` and go out as those of `h_before`
    /// and `c_before`. The parameters' gradients are added to `grad`, and `dx` is written if it is wanted.
    fn backward_step(&self, step: CellStepBackward<'_, Self::Elem>, buffers: &mut Self::Buffers, grad: &mut Self);

    /// Called before the first step of a pass.
    fn begin(&self, _pass: &Unrolled<'_, Self::Elem>, _buffers: &mut Self::Buffers) {}

    /// Called before the steps whose rows are `x`, `[rows, I]`: once for all steps of a pass or, in inference, for some steps at a
    /// time, whose rows are then numbered from 0 again.
    fn project_input(
        &self,
        _pass: &Unrolled<'_, Self::Elem>,
        _x: ArrayView2<'_, Self::Elem>,
        _buffers: &mut Self::Buffers,
    ) {
    }

    /// Called before a backward pass that overwrites `grad`, which may hold any values: sets to zero the tensors that the pass adds
    /// to. Those that [`finish_backward`](Cell::finish_backward) overwrites can be left out.
    fn clear_gradient(&self, grad: &mut Self) {
        grad.set_zero();
    }

    /// Called at the start of a backward pass, before the last step's [`backward_step`](Cell::backward_step).
    fn begin_backward(&self, _pass: &Unrolled<'_, Self::Elem>, _buffers: &mut Self::Buffers) {}

    /// Called at the end of a backward pass, after the first step's [`backward_step`](Cell::backward_step): adds the missing parts
    /// to `grad` and writes those of `dx`. If the gradient is overwritten, the tensors that
    /// [`clear_gradient`](Cell::clear_gradient) left out are written instead of added to.
    fn finish_backward(
        &self,
        _pass: AllSteps<'_, Self::Elem>,
        _buffers: &mut Self::Buffers,
        _grad: Gradient<'_, Self>,
    ) {
    }

    /// The [`Zoneout`] of the cell's state, if it has one.
    fn zoneout(&self) -> Option<Zoneout> {
        None
    }

    /// Whether training drops values at random, so that each training step should have a new seed.
    #[doc(hidden)]
    fn drops(&self) -> bool {
        self.zoneout().is_some()
    }

    /// Adds the cells of one layer, one per direction, to a graph as one node: see
    /// [`Layer::add_to_graph`](crate::Layer::add_to_graph). `initial` has the tensors of the state, `[D, B, ..]` each, or `None`
    /// for zeros. Returns the output, `[T, B, D O]`, and the final state. The default returns an error.
    ///
    /// # Errors
    /// If ONNX has no operator for the cells.
    fn add_cells_to_graph(
        cells: &[Self],
        graph: &mut Graph<Self::Elem>,
        _x: Signal,
        _initial: &[Option<Value>],
    ) -> Result<(Signal, Vec<Value>), Unsupported> {
        Err(graph.refuse(format!("ONNX has no operator for {}", cells[0].sizes().name)))
    }

    /// The cell in a [`Stream`](crate::stream::Stream), if it has kernels for that.
    #[doc(hidden)]
    fn stage(&self) -> Option<Box<dyn Stage<Self::Elem>>> {
        None
    }

    /// Runs [`forward`]. The crate's own cells override this with `compiled_loop!`, which calls a `forward` that is compiled once.
    #[doc(hidden)]
    #[track_caller]
    fn loop_forward(
        &self,
        x: &Sequence<'_, Self::Elem>,
        state: StateViewMut<'_, Self::Elem>,
        cache: &mut CellCache<Self>,
    ) {
        forward(self, x, state, cache);
    }

    /// Runs [`backward`]. The crate's own cells override this with `compiled_loop!`, which calls a `backward` that is compiled
    /// once.
    #[doc(hidden)]
    #[track_caller]
    fn loop_backward(
        &self,
        x: &Sequence<'_, Self::Elem>,
        dy: ArrayView3<'_, Self::Elem>,
        dstate: Option<StateViewMut<'_, Self::Elem>>,
        cache: &mut CellCache<Self>,
        grad: Gradient<'_, Self>,
    ) {
        backward(self, x, dy, dstate, cache, grad);
    }
}

/// The cache of a [`Cell`].
pub struct CellCache<C: Cell> {
    pending: Pending,
    whole: LoopCache<C::Elem, C::Buffers>,
    #[cfg(feature = "rayon")]
    shards: Shards<C::Elem, C::Buffers, C>,
}
opaque_debug! { CellCache<C: Cell> }

impl<C: Cell> Default for CellCache<C> {
    fn default() -> Self {
        CellCache {
            pending: Pending::default(),
            whole: LoopCache::default(),
            #[cfg(feature = "rayon")]
            shards: Shards::default(),
        }
    }
}

impl<C: Cell> CellCache<C> {
    /// The output of the last forward pass, `[T, B, O]`.
    pub(crate) fn output(&self) -> ArrayView3<'_, C::Elem> {
        #[cfg(feature = "rayon")]
        if self.shards.is_used() {
            return self.shards.output();
        }
        self.whole.output()
    }

    /// `dL/dx` of the last backward pass, `[T, B, I]`, or `[T, B, 0]` if it was not wanted.
    pub(crate) fn input_gradient(&self) -> ArrayView3<'_, C::Elem> {
        #[cfg(feature = "rayon")]
        if self.shards.is_used() {
            return self.shards.input_gradient();
        }
        self.whole.dx.view()
    }
}

impl<C: Cell> RecordsState for CellCache<C> {
    fn recorder(&mut self) -> &mut StateRecorder {
        &mut self.whole.recorder
    }
}

/// The approximate work of a pass.
fn work<C: Cell>(cell: &C, x: &Sequence<'_, C::Elem>) -> u64 {
    let (steps, batch) = x.dims();
    product_work(batch, cell.element_count()).saturating_mul(steps as u64)
}

/// The zoneout of h and of the memory in a pass, if the cell has it.
#[track_caller]
fn zoneout<C: Cell>(cell: &C, name: &str, x: &Sequence<'_, C::Elem>) -> Option<[PassZoneout; 2]> {
    let zoneout = cell.zoneout()?;
    // Not a closure, because closures do not track the caller.
    Some([PassZoneout::new(name, zoneout.h, x), PassZoneout::new(name, zoneout.c, x)])
}

#[track_caller]
fn check_state<C: Cell>(cell: &C, sizes: CellSizes, what: &str, x: (usize, usize), state: &StateViewMut<'_, C::Elem>) {
    if !state.fits(sizes) {
        refuse_state(sizes.name, what, x, &cell.initial_state(state.batch()), state.tensors())
    }
}

/// Runs `cell` over all steps of `x`, from `state`, which is advanced; y is left in the cache.
#[track_caller]
pub(crate) fn forward<C: Cell>(
    cell: &C,
    x: &Sequence<'_, C::Elem>,
    mut state: StateViewMut<'_, C::Elem>,
    cache: &mut CellCache<C>,
) {
    let CellCache { pending, whole, .. } = cache;
    #[cfg(feature = "rayon")]
    let shards = &mut cache.shards;
    let mark = pending.begin(cell, x);
    let sizes = cell.sizes();
    x.features(sizes.name, Some(sizes.input));
    check_state(cell, sizes, "state", x.dims(), &state);
    // For its panic if `x` has no mode: in the closure below, the caller's line would be lost.
    let _ = zoneout(cell, sizes.name, x);
    in_pass(
        || (work(cell, x), 2),
        || {
            #[cfg(feature = "rayon")]
            if shards.plan(x, work(cell, x), cell.element_count().saturating_mul(size_of::<C::Elem>())) {
                return shards.forward(x, sizes.output, work(cell, x), state, |x, state, cache| {
                    forward_steps(cell, sizes, x, &state, cache);
                });
            }
            forward_steps(cell, sizes, x, &state.view(), whole);
            whole.final_state(&mut state);
        },
    );
    mark.set();
}

/// Runs all steps on this thread, from `initial`.
#[track_caller]
fn forward_steps<C: Cell>(
    cell: &C,
    CellSizes { name, input, output, memory }: CellSizes,
    x: &Sequence<'_, C::Elem>,
    initial: &StateView<'_, C::Elem>,
    cache: &mut LoopCache<C::Elem, C::Buffers>,
) {
    let features = x.features(name, Some(input));
    let (steps, batch, _) = features.dim();
    let zoneout = zoneout(cell, name, x);
    let infer = x.mode() == Some(Mode::Infer);
    let LoopCache { schedule, x: x_rows, h, c, y, buffers, .. } = cache;
    schedule.plan(x);
    let schedule = &*schedule;
    let x_rows = x_rows.start(features, schedule);
    h.start(schedule, output, initial.h(), false, zoneout.is_some());
    c.start(schedule, memory, initial.memory(), infer, zoneout.is_some());

    let at_once = if infer { INFERENCE_ROWS.max(input).div_ceil(schedule.batch()) } else { schedule.steps().max(1) };
    let rows_at_once = schedule.count().min(at_once * schedule.batch());
    let pass = Unrolled { schedule, rows_at_once, mode: x.mode(), packed: x.packed_weights() };
    cell.begin(&pass, buffers);
    for first in (0..schedule.steps()).step_by(at_once) {
        let some = first..schedule.steps().min(first + at_once);
        let projected = schedule.rows(some.clone());
        cell.project_input(&pass, view_of_rows(x_rows, &projected), buffers);
        for s in some {
            let now = schedule.rows(s..s + 1);
            let ((h_before, h_now), (c_before, c_now)) = (h.step(schedule, s), c.step(schedule, s));
            let step = CellStep {
                rows: now.start - projected.start..now.end - projected.start,
                x: view_of_rows(x_rows, &now),
                h_before,
                c_before,
                h: h_now,
                c: c_now,
            };
            cell.forward_step(step, buffers);
            if let Some([of_h, of_c]) = zoneout {
                h.zone_out(schedule, s, of_h);
                c.zone_out(schedule, s, of_c);
            }
        }
    }
    if schedule.gathered() {
        reuse(y, (steps, batch, output));
        schedule.scatter(h.history.after(schedule), y);
        x.zero_padding(y);
    }
}

/// The backward pass through all steps; `dL/dx` is left in the cache. `dstate` comes in as the gradient of the final state and goes
/// out as that of the initial one.
#[track_caller]
pub(crate) fn backward<C: Cell>(
    cell: &C,
    x: &Sequence<'_, C::Elem>,
    dy: ArrayView3<'_, C::Elem>,
    mut dstate: Option<StateViewMut<'_, C::Elem>>,
    cache: &mut CellCache<C>,
    grad: Gradient<'_, C>,
) {
    let sizes = cell.sizes();
    if cell.drops() {
        cache.pending.expect_another_seed(sizes.name, x);
    }
    cache.pending.take(sizes.name, cell, x, &dy, sizes.output);
    let (grad, how) = grad.parts();
    check_gradient(sizes.name, cell, &*grad);
    if let Some(dstate) = &dstate {
        check_state(cell, sizes, "dstate", x.dims(), dstate);
    }
    let grad = Gradient::new(grad, how);
    in_pass(
        || (work(cell, x), 2),
        || {
            #[cfg(feature = "rayon")]
            if cache.shards.is_used() {
                let CellCache { whole: LoopCache { recorder, .. }, shards, .. } = cache;
                recorder.start(x.dims().0);
                shards.caches().iter_mut().for_each(|shard| shard.recorder.follow(recorder));
                shards.backward(x, dy, sizes.input, work(cell, x), dstate, grad, |x, dy, dstate, cache, grad| {
                    backward_steps(cell, sizes, x, dy, dstate.as_ref(), cache, grad);
                });
                shards.caches().iter().for_each(|shard| recorder.join(&shard.recorder));
                return recorder.finish();
            }
            let given = dstate.as_ref().map(StateViewMut::view);
            backward_steps(cell, sizes, x, dy, given.as_ref(), &mut cache.whole, grad);
            if let Some(dstate) = &mut dstate {
                cache.whole.initial_gradient(dstate);
            }
        },
    );
}

/// Runs all steps backward on this thread, from `dstate`, the gradient of the final state.
#[track_caller]
fn backward_steps<C: Cell>(
    cell: &C,
    CellSizes { name, input, .. }: CellSizes,
    x: &Sequence<'_, C::Elem>,
    dy: ArrayView3<'_, C::Elem>,
    dstate: Option<&StateView<'_, C::Elem>>,
    cache: &mut LoopCache<C::Elem, C::Buffers>,
    grad: Gradient<'_, C>,
) {
    let (steps, batch) = x.dims();
    let LoopCache { schedule, x: x_rows, h, c, h_before, dx, dx_rows, buffers, recorder, .. } = cache;
    let (grad, how) = grad.parts();
    let (schedule, wanted) = (&*schedule, x.wants_gradient());
    let zoneout = zoneout(cell, name, x);
    let x_rows = x_rows.view(x.features(name, Some(input)), schedule);
    h.start_backward(schedule, dstate.map(StateView::h));
    c.start_backward(schedule, dstate.map(StateView::memory));
    reuse(dx, (steps, batch, if wanted { input } else { 0 }));
    reuse(dx_rows, (if schedule.gathered() { schedule.count() } else { 0 }, dx.dim().2));
    let all = 0..schedule.count();
    let dx_values = if schedule.gathered() { rows_of(dx_rows, &all) } else { rows_of(dx, &all) };

    match (how, schedule.count()) {
        (Accumulate::Overwrite, 0) => grad.set_zero(),
        (Accumulate::Overwrite, _) => cell.clear_gradient(grad),
        (Accumulate::Add, _) => {}
    }
    let pass = Unrolled { schedule, rows_at_once: schedule.count(), mode: x.mode(), packed: None }; // prepacked weights are for inference
    cell.begin_backward(&pass, buffers);
    recorder.start(steps);
    for s in (0..schedule.steps()).rev() {
        let now = schedule.rows(s..s + 1);
        schedule.add_step(s, dy, &mut h.d);
        if recorder.is_on() {
            for (j, row) in h.d.outer_iter().take(now.len()).enumerate() {
                recorder.hidden(schedule.time(s, j), row.iter().copied());
            }
        }
        if let Some([of_h, of_c]) = zoneout {
            h.zone_out_backward(schedule, s, of_h);
            c.zone_out_backward(schedule, s, of_c);
        }
        let ((h_before, h_now, dh), (c_before, c_now, dc)) = (h.step_back(schedule, s), c.step_back(schedule, s));
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
            recorder: StepRecorder { to: recorder, schedule, step: s },
        };
        cell.backward_step(step, buffers, grad);
        if zoneout.is_some() {
            h.add_past(schedule, s);
            c.add_past(schedule, s);
        }
    }
    recorder.finish();
    let h_before = h.before(schedule, h_before);
    let dx_all = wanted.then(|| matrix_mut(dx_values, input));
    if schedule.count() > 0 {
        let all = AllSteps { x: x_rows, h_before, dx: dx_all };
        cell.finish_backward(all, buffers, Gradient::new(grad, how));
    }
    if schedule.gathered() && wanted {
        schedule.scatter(dx_rows.as_slice().expect("standard layout"), dx);
        x.zero_padding(dx);
    }
}
