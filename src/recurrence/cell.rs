//! What a recurrent cell is: one step and its backward step. The walk through time is the library's.

use std::ops::Range;

use ndarray::{Array, Array2, Array3, ArrayView2, ArrayViewMut2, Axis, Dimension, Ix2, Ix3};

use super::rows::Rows;
use super::zoneout::Zoneout;
use crate::base::{Mode, StateRecorder, Tensors, TensorsExt};
use crate::kernels::{Float, PackedWeights};
use crate::layer::{Gradient, State};
use crate::parameters;

/// A recurrent cell: one step forward and one step back. Every cell is a [`Layer`](crate::Layer) and
/// [`Causal`](crate::Causal): the loop over time, backpropagation through it, lengths, both directions, chunks, streams
/// and the cache come from this crate, and [`Recurrent`](crate::Recurrent) stacks it.
///
/// ```text
/// (h_t, c_t) = step(x_t, h_{t-1}, c_{t-1})        h: the output, c: a memory beside it, if there is one
/// ```
///
/// # Implementing it
/// [`sizes`](Cell::sizes), [`forward_step`](Cell::forward_step) and [`backward_step`](Cell::backward_step) are enough. A
/// step gets some rows, one for each sequence that is not over yet. `Buffers` is for what the backward step needs and
/// would not compute again: rows are counted through the whole pass, so [`begin`](Cell::begin) can make room. The other
/// methods move work out of the loop: products over all steps at once are faster than step by step.
///
/// With the feature `rayon`, a large batch is cut into shards, which threads step through at once, each with buffers and a
/// gradient of its own. A step that calls rayon must not hold a lock meanwhile: while it waits, its thread may take another
/// shard, whose steps want the same lock.
///
/// ```
/// use gradflow::ndarray::{Array2, Axis};
/// use gradflow::rand::{SeedableRng, rngs::StdRng};
/// use gradflow::{Cell, CellSizes, CellStep, CellStepBackward, Float, Init, contract::Contract, parameters};
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
pub trait Cell: Tensors<<Self as Cell>::Elem> + Clone + Send + Sync {
    /// `f32` or `f64`.
    type Elem: Float;
    /// `Array2` for h alone, [`LstmState`] for h and c.
    type State: RecurrentState<Self::Elem>;
    /// What it keeps from its forward steps for its backward steps; `()` where that is nothing.
    type Buffers: Default + Send;

    /// Its name and sizes.
    ///
    /// # Panics
    /// Where its parameters do not fit each other.
    fn sizes(&self) -> CellSizes;

    /// One step: reads `x`, `h_before` and `c_before`, writes `h` and `c`.
    fn forward_step(&self, step: CellStep<'_, Self::Elem>, buffers: &mut Self::Buffers);

    /// One step back: `dh` and `dc` come in as the gradients of the step's `h` and `c` and go out as those of `h_before`
    /// and `c_before`; parameters' gradients are added to `grad`, and `dx` is written, where it is wanted.
    fn backward_step(&self, step: CellStepBackward<'_, Self::Elem>, buffers: &mut Self::Buffers, grad: &mut Self);

    /// Before the first step of a pass.
    fn begin(&self, _pass: &Unrolled<'_, Self::Elem>, _buffers: &mut Self::Buffers) {}

    /// Before the steps whose rows are `x`, `[rows, I]`: all of a pass at once, or, in inference, a part of them at a time,
    /// whose rows are then counted from 0 again.
    fn project(&self, _pass: &Unrolled<'_, Self::Elem>, _x: ArrayView2<'_, Self::Elem>, _buffers: &mut Self::Buffers) {}

    /// Before a backward pass that overwrites `grad`, whose numbers mean nothing: sets to zero all that is then added to. What
    /// [`finish_backward`](Cell::finish_backward) overwrites can be left out.
    fn clear_gradient(&self, grad: &mut Self) {
        grad.set_zero();
    }

    /// Before the last step of a pass is done backwards.
    fn begin_backward(&self, _pass: &Unrolled<'_, Self::Elem>, _buffers: &mut Self::Buffers) {}

    /// After the first step of a pass was done backwards: what is left to be added to `grad` and written to `dx`. Where the
    /// pass overwrites the gradient, what [`clear_gradient`](Cell::clear_gradient) left out is written instead.
    fn finish_backward(
        &self,
        _pass: AllSteps<'_, Self::Elem>,
        _buffers: &mut Self::Buffers,
        _grad: Gradient<'_, Self>,
    ) {
    }

    /// How much of its state is kept at random: see [`Zoneout`].
    fn zoneout(&self) -> Option<Zoneout> {
        None
    }
}

/// A cell's name and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellSizes {
    /// What panics call it.
    pub name: &'static str,
    /// I, the number of input features.
    pub input: usize,
    /// The size of h, which is the output.
    pub output: usize,
    /// The size of c; 0 without a memory.
    pub memory: usize,
}

/// A pass through time, as a cell sees it.
pub struct Unrolled<'a, F> {
    pub(super) rows: &'a Rows,
    pub(super) rows_at_once: usize,
    pub(super) mode: Option<Mode>,
    pub(super) packed: Option<&'a PackedWeights<F>>,
}

impl<F: Float> Unrolled<'_, F> {
    /// The number of steps, that of the longest sequence.
    pub fn steps(&self) -> usize {
        self.rows.steps()
    }

    /// B, the number of sequences.
    pub fn batch(&self) -> usize {
        self.rows.batch()
    }

    /// The most rows that are [projected](Cell::project) at once: those of all steps together but in inference.
    pub fn rows(&self) -> usize {
        self.rows_at_once
    }

    /// Whether the rows are projected a part at a time.
    pub(crate) fn in_parts(&self) -> bool {
        self.rows_at_once < self.rows.count()
    }

    /// The packed weights of a [prepacked](crate::Prepacked) model.
    pub(crate) fn packed_weights(&self) -> Option<&PackedWeights<F>> {
        self.packed
    }

    /// What the pass is for.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// The sequence of the `j`th row of every step, counted in the whole batch, of which this may be a
    /// [shard](crate::Sequence::sequences).
    pub fn sequence(&self, j: usize) -> usize {
        self.rows.sequence_of_all(j)
    }
}

/// One step's rows, N of them: those of the sequences that reach it.
pub struct CellStep<'a, F> {
    /// Which of the rows that were [projected](Cell::project) they are.
    pub rows: Range<usize>,
    /// `[N, I]`
    pub x: ArrayView2<'a, F>,
    /// h before the step, `[N, O]`
    pub h_before: ArrayView2<'a, F>,
    /// c before the step, `[N, M]`
    pub c_before: ArrayView2<'a, F>,
    /// h after the step, `[N, O]`, to be written.
    pub h: ArrayViewMut2<'a, F>,
    /// c after the step, `[N, M]`, to be written.
    pub c: ArrayViewMut2<'a, F>,
}

/// One step's rows on the way back.
pub struct CellStepBackward<'a, F> {
    /// Which of the pass's rows they are.
    pub rows: Range<usize>,
    /// `[N, I]`
    pub x: ArrayView2<'a, F>,
    /// h before the step, `[N, O]`
    pub h_before: ArrayView2<'a, F>,
    /// c before the step, `[N, M]`
    pub c_before: ArrayView2<'a, F>,
    /// h as the step wrote it, `[N, O]`
    pub h: ArrayView2<'a, F>,
    /// c as the step wrote it, `[N, M]`
    pub c: ArrayView2<'a, F>,
    /// In: `dL/dh` after the step; out: before it. `[N, O]`
    pub dh: ArrayViewMut2<'a, F>,
    /// In: `dL/dc` after the step; out: before it. `[N, M]`
    pub dc: ArrayViewMut2<'a, F>,
    /// `dL/dx`, `[N, I]`, to be written, unless nobody wants it or [`finish_backward`](Cell::finish_backward) does it.
    pub dx: Option<ArrayViewMut2<'a, F>>,
    /// Shows gradients of the memory to a [`GradientProbe`](crate::GradientProbe).
    pub recorder: StepRecorder<'a>,
}

/// Where a cell with a memory shows `dL/dc_t`, for a [`GradientProbe`](crate::GradientProbe).
pub struct StepRecorder<'a> {
    pub(super) to: &'a mut StateRecorder,
    pub(super) rows: &'a Rows,
    pub(super) step: usize,
}

impl StepRecorder<'_> {
    /// The step's `dL/dc_t`, all that comes through `h_t` included, row by row, `width` values each. While nothing is
    /// recorded, `values` is not called.
    pub fn memory<F: Float, I: IntoIterator<Item = F>>(&mut self, width: usize, values: impl FnOnce() -> I) {
        if self.to.is_on() {
            for (k, value) in values().into_iter().enumerate() {
                self.to.memory(self.rows.time(self.step, k / width), [value]);
            }
        }
    }
}

/// All steps of a pass together, R rows.
pub struct AllSteps<'a, F> {
    /// `[R, I]`
    pub x: ArrayView2<'a, F>,
    /// h before each row's step, `[R, O]`
    pub h_before: ArrayView2<'a, F>,
    /// `dL/dx`, `[R, I]`, to be written.
    pub dx: Option<ArrayViewMut2<'a, F>>,
}

/// The state of an [`LstmCell`](crate::LstmCell) and of every other [`Cell`] with a memory.
///
/// As [`Array2`](ndarray::Array2)s of one cell, as [`Array3`](ndarray::Array3)s (`LstmState<F, Ix3>`) of a model of several
/// layers and directions, which stand along the first axis in PyTorch's order.
#[derive(Clone, Debug, PartialEq)]
pub struct LstmState<F, D: Dimension = Ix2> {
    /// The output of the last step, `[B, H]`; with a projection `[B, P]`.
    pub h: Array<F, D>,
    /// The memory, `[B, H]`.
    pub c: Array<F, D>,
}
parameters! { impl<F: Float, D: Dimension> Tensors<F> for LstmState<F, D> { h, c } }

/// The state of a [`Cell`], and of several of them: `Array2` and [`LstmState`] are.
pub trait RecurrentState<F: Float>: State<F> + sealed::Sealed {
    /// The states of several cells: `Array3`, or `LstmState<F, Ix3>`.
    type Layers: State<F>;

    /// `h` and `c`, `[B, O]` and `[B, M]`; without a memory, M = 0.
    fn parts(&mut self) -> StateParts<'_, F>;

    /// A zero state.
    fn zeros(batch: usize, sizes: CellSizes) -> Self;

    /// Zero states of `cells` cells: `[cells, B, O]` and `[cells, B, M]`.
    fn layers(cells: usize, batch: usize, sizes: CellSizes) -> Self::Layers;

    /// The `k`th of them.
    fn of_layer(layers: &mut Self::Layers, k: usize) -> StateParts<'_, F>;
}

/// A state's parts, borrowed.
pub struct StateParts<'a, F> {
    /// `[B, O]`
    pub h: ArrayViewMut2<'a, F>,
    /// `[B, M]`; without a memory, M = 0.
    pub c: ArrayViewMut2<'a, F>,
}

mod sealed {
    pub trait Sealed {}
    impl<F> Sealed for ndarray::Array2<F> {}
    impl<F> Sealed for super::LstmState<F> {}
}

/// `h`, and a memory of size 0.
fn without_memory<F>(h: ArrayViewMut2<'_, F>) -> StateParts<'_, F> {
    let batch = h.nrows();
    StateParts { h, c: ArrayViewMut2::from_shape((batch, 0), &mut []).expect("no elements") }
}

impl<F: Float> RecurrentState<F> for Array2<F> {
    type Layers = Array3<F>;

    fn parts(&mut self) -> StateParts<'_, F> {
        without_memory(self.view_mut())
    }

    fn zeros(batch: usize, sizes: CellSizes) -> Self {
        Array2::zeros((batch, sizes.output))
    }

    fn layers(cells: usize, batch: usize, sizes: CellSizes) -> Array3<F> {
        Array3::zeros((cells, batch, sizes.output))
    }

    fn of_layer(layers: &mut Array3<F>, k: usize) -> StateParts<'_, F> {
        without_memory(layers.index_axis_mut(Axis(0), k))
    }
}

impl<F: Float> RecurrentState<F> for LstmState<F> {
    type Layers = LstmState<F, Ix3>;

    fn parts(&mut self) -> StateParts<'_, F> {
        StateParts { h: self.h.view_mut(), c: self.c.view_mut() }
    }

    fn zeros(batch: usize, sizes: CellSizes) -> Self {
        LstmState { h: Array2::zeros((batch, sizes.output)), c: Array2::zeros((batch, sizes.memory)) }
    }

    fn layers(cells: usize, batch: usize, sizes: CellSizes) -> Self::Layers {
        LstmState { h: Array3::zeros((cells, batch, sizes.output)), c: Array3::zeros((cells, batch, sizes.memory)) }
    }

    fn of_layer(layers: &mut Self::Layers, k: usize) -> StateParts<'_, F> {
        StateParts { h: layers.h.index_axis_mut(Axis(0), k), c: layers.c.index_axis_mut(Axis(0), k) }
    }
}
