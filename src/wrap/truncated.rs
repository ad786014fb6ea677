//! Backpropagation through time in chunks.

use std::ops::Range;

use ndarray::{Array3, ArrayRef3, ArrayView3, s};
use num_traits::Zero;

use crate::base::error::{check_not_empty, mismatch};
use crate::base::{Mode, Size, SizeError, Tensors, TensorsExt, check_gradient};
use crate::kernels::{Accumulate, Float};
use crate::layer::batch_state::{Places, keep};
use crate::layer::kit::{Pending, opaque_debug, reuse};
use crate::layer::{Causal, Gradient, Graph, Internal, Layer, Sequence, Signal, Stages, Summary, Unsupported};
use crate::parameters;

const NAME: &str = "TruncatedBptt";

/// Any layer that can run on a stream, run in chunks of steps: the state is carried from chunk to chunk, and the gradient is cut at
/// each chunk's start (Williams and Peng 1990) or passed on.
///
/// ```text
/// (y_k, s_{k+1}) = layer(x_k, s_k)                                 forward, chunk after chunk
/// (dx_k, ds_k)   = backward(dy_k, 0)           cut:    ds_{k+1} is dropped
/// (dx_k, ds_k)   = backward(dy_k, ds_{k+1})    passed: as over the whole sequence
/// ```
///
/// Maps `[T, B, I]` to `[T, B, O]`; parameters, state and their names are the layer's. Outputs and states are those of the whole
/// sequence, bit for bit if the layer is recurrent. With [`pass_gradients`](TruncatedBptt::pass_gradients), the gradients are those
/// of the whole sequence, too, up to rounding. If they are cut, the gradient of a step's loss reaches the start of its chunk and no
/// further. If a sequence ended in an earlier chunk, the gradient of its final state enters there.
///
/// Passes keep the values that every chunk needs for its backward pass; with [`recompute`](TruncatedBptt::recompute), they keep
/// only the states between chunks. To step an optimizer between chunks, loop over [`Sequence::chunks`] instead, with a pass and a
/// step for each chunk and one state for all.
///
/// ```
/// use gradflow::{
///     Layer, TensorsExt, ZerosLike, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::Lstm,
///     wrap::TruncatedBptt,
/// };
///
/// let lstm = Lstm::<f64>::builder(3, 4).num_layers(2).build(&mut StdRng::seed_from_u64(0));
/// let chunked = TruncatedBptt::new(lstm.clone(), 4).pass_gradients();
/// let (x, dy) = (Array3::from_shape_fn((10, 2, 3), |(t, b, k)| (t + 2 * b + k) as f64), Array3::ones((10, 2, 4)));
///
/// let (mut whole, mut state) = (lstm.zeros_like(), lstm.zero_state(2));
/// let (mut grad, mut carried) = (chunked.zeros_like(), chunked.zero_state(2));
/// lstm.pass(&x, &mut state, &mut lstm.cache()).backward(&dy, &mut whole);
/// chunked.pass(&x, &mut carried, &mut chunked.cache()).backward(&dy, &mut grad);
/// assert_eq!(state, carried);
/// let (whole, grad) = (whole.values(0), grad.values(0));
/// assert!(whole.iter().zip(grad).all(|(whole, grad)| (whole - grad).abs() < 1e-12));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TruncatedBptt<L: Causal> {
    /// The layer.
    pub layer: L,
    steps: usize,
    passes: bool,
    recomputes: bool,
}
parameters! { impl<L: Causal> Tensors<L::Elem> for TruncatedBptt<L> { layer as ""; skip steps, passes, recomputes } }

impl<L: Causal> TruncatedBptt<L> {
    /// Runs `layer` in chunks of `steps` steps, with the gradient cut between them.
    ///
    /// # Panics
    /// Panics if `steps` is 0.
    #[track_caller]
    pub fn new(layer: L, steps: usize) -> Self {
        if steps == 0 {
            mismatch(NAME, "steps", &"at least 1", &steps)
        }
        TruncatedBptt { layer, steps, passes: false, recomputes: false }
    }

    /// Passes the gradient on from chunk to chunk.
    pub fn pass_gradients(self) -> Self {
        TruncatedBptt { passes: true, ..self }
    }

    /// Repeats each chunk's forward pass before its backward pass, so that only the states between chunks are kept (Gruslys et al.
    /// 2016). This takes the memory of one chunk, and about a third more time.
    pub fn recompute(self) -> Self {
        TruncatedBptt { recomputes: true, ..self }
    }

    /// The number of steps of a chunk.
    pub fn steps(&self) -> usize {
        self.steps
    }
}

/// The cache of a [`TruncatedBptt`].
pub struct TruncatedBpttCache<L: Layer> {
    pending: Pending,
    /// O, of the last forward pass.
    features: usize,
    /// One per chunk, or one for all.
    chunks: Vec<L::Cache>,
    /// The state at each chunk's start, if forward passes are repeated.
    starts: Vec<Option<L::State>>,
    dstate: Option<L::State>,
    /// A state of a batch of one, to find where a sequence's state is in that of a batch.
    one: Option<L::State>,
    y: Array3<L::Elem>,  // [T, B, O]
    dx: Array3<L::Elem>, // [T, B, I]
}

opaque_debug! { TruncatedBpttCache<L: Layer> }

impl<L: Layer> Default for TruncatedBpttCache<L> {
    fn default() -> Self {
        let empty = || Array3::default((0, 0, 0));
        TruncatedBpttCache {
            pending: Pending::default(),
            features: 0,
            chunks: Vec::new(),
            starts: Vec::new(),
            dstate: None,
            one: None,
            y: empty(),
            dx: empty(),
        }
    }
}

/// The chunks of `x` in the order in which they are walked: the time at which each begins, and its steps.
fn walk<'x, F: Float>(
    x: &Sequence<'x, F>,
    steps: usize,
) -> impl DoubleEndedIterator<Item = (usize, Sequence<'x, F>)> + ExactSizeIterator + use<'x, F> {
    let x = *x;
    let count = x.dims().0.div_ceil(steps);
    (0..count).map(move |k| {
        let start = if x.is_reversed() { count - 1 - k } else { k } * steps;
        (start, x.steps(start..x.dims().0.min(start + steps)))
    })
}

/// Drops the gradient of the states that reached `chunk` from an earlier one. A sequence that ended before `chunk` has its final
/// state there, and keeps its gradient.
fn cut<L: Layer>(layer: &L, chunk: &Sequence<'_, L::Elem>, one: &mut Option<L::State>, dstate: &mut L::State) {
    if !chunk.has_piece_states() && (0..chunk.dims().1).all(|b| chunk.valid_steps(b).next().is_some()) {
        return dstate.set_zero();
    }
    let one = one.get_or_insert_with(|| layer.zero_state(1));
    let rows = chunk.state_rows();
    let reached = chunk.pieces().filter(|piece| chunk.reaches(piece)).filter_map(|piece| piece.initial);
    for row in reached {
        for i in 0..dstate.count() {
            let places = Places::new(dstate.shape(i), one.shape(i), rows);
            let values = dstate.tensor_mut(i);
            places.row(row).for_each(|(own, _)| values[own].fill(L::Elem::zero()));
        }
    }
}

impl<L: Causal> TruncatedBptt<L> {
    /// Runs a forward pass over each chunk, with its steps, its part of `x`, the state, and the cache for it.
    #[track_caller]
    fn for_each_chunk(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &mut TruncatedBpttCache<L>,
        mut run: impl FnMut(Range<usize>, &Sequence<'_, L::Elem>, &mut L::State, &mut L::Cache),
    ) {
        let TruncatedBpttCache { pending, features, chunks, starts, dstate, .. } = cache;
        let mark = pending.begin(self.marked(), x);
        self.expect_size(x);
        let (steps, batch) = x.dims();
        check_not_empty(NAME, &[steps, batch]);
        *features = self.output_size(x.size()).expect("a size that fits");
        let is_kept = x.mode() != Some(Mode::Infer);
        // Inference keeps nothing that chunks would save.
        let size = if is_kept { self.steps } else { steps };
        let count = steps.div_ceil(size);
        chunks.resize_with(chunks.len().max(if self.recomputes { 1 } else { count }), L::Cache::default);
        starts.resize_with(starts.len().max(if self.recomputes { count } else { 0 }), || None);
        for (k, (start, chunk)) in walk(x, size).enumerate() {
            if self.recomputes && is_kept {
                keep(&mut starts[k], state);
            }
            let own = start..start + chunk.dims().0;
            run(own, &chunk, state, &mut chunks[if self.recomputes { 0 } else { k }]);
        }
        if self.passes {
            keep(dstate, state); // for its shape
        }
        mark.set();
    }

    /// The parameters that a backward pass must find unchanged and that the layer inside does not check: a repeated forward pass
    /// marks them anew.
    fn marked(&self) -> &dyn Tensors<L::Elem> {
        if self.recomputes { &self.layer } else { &() }
    }
}

impl<L: Causal> Layer for TruncatedBptt<L> {
    type Elem = L::Elem;
    type State = L::State;
    type Cache = TruncatedBpttCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.layer.output_size(input)
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        summary.add::<L::Elem>(name, NAME, &());
        summary.inside(|summary| self.layer.describe(name, summary));
    }

    fn zero_state(&self, batch: usize) -> L::State {
        self.layer.zero_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        self.layer.add_to_graph(graph, x)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &'c mut TruncatedBpttCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let TruncatedBpttCache { y, .. } = cache;
        let (mut all, (steps, batch)) = (std::mem::take(y), x.dims());
        self.for_each_chunk(x, state, cache, |own, chunk, state, cache| {
            let part = self.layer.forward_pass(chunk, state, cache);
            reuse(&mut all, (steps, batch, part.dim().2));
            all.slice_mut(s![own, .., ..]).assign(&part);
        });
        cache.y = all;
        cache.y.view()
    }

    fn forward_onto(
        &self,
        x: &Sequence<'_, L::Elem>,
        skip: ArrayView3<'_, L::Elem>,
        state: &mut L::State,
        cache: &mut TruncatedBpttCache<L>,
        y: &mut ArrayRef3<L::Elem>,
        internal: Internal,
    ) {
        self.for_each_chunk(x, state, cache, |own, chunk, state, cache| {
            let (skip, mut y) = (skip.slice(s![own.clone(), .., ..]), y.slice_mut(s![own, .., ..]));
            self.layer.forward_onto(chunk, skip, state, cache, &mut y, internal);
        });
    }

    fn output<'c>(&self, cache: &'c TruncatedBpttCache<L>) -> ArrayView3<'c, L::Elem> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut TruncatedBpttCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let TruncatedBpttCache { pending, features, chunks, starts, dstate: passed, one, dx, .. } = cache;
        pending.take(NAME, self.marked(), x, dy, *features);
        let (grad, mut how) = grad.parts();
        check_gradient(NAME, self, &*grad);
        let (steps, batch) = x.dims();
        let mut dstate = dstate;
        if let (None, Some(passed), true) = (&dstate, passed, self.passes) {
            passed.set_zero();
            dstate = Some(passed);
        }
        for (k, (start, chunk)) in walk(x, self.steps).enumerate().rev() {
            let cache = &mut chunks[if self.recomputes { 0 } else { k }];
            if self.recomputes {
                self.layer.forward_pass(&chunk, starts[k].as_mut().expect("kept by the forward pass"), cache);
            }
            let own = start..start + chunk.dims().0;
            let dy = dy.slice(s![own.clone(), .., ..]);
            let grad = Gradient::new(&mut grad.layer, how);
            let part = self.layer.backward_pass(&chunk, &dy, dstate.as_deref_mut(), cache, grad);
            how = Accumulate::Add;
            // If the gradient is not wanted, it is unspecified, and so is its shape.
            reuse(dx, (steps, batch, if x.wants_gradient() { part.dim().2 } else { 0 }));
            if x.wants_gradient() {
                dx.slice_mut(s![own, .., ..]).assign(&part);
            }
            if let (Some(dstate), true) = (&mut dstate, k > 0 && !self.passes) {
                cut(&self.layer, &chunk, one, dstate);
            }
        }
        dx.view()
    }
}

impl<L: Causal> Causal for TruncatedBptt<L> {
    fn stages(&self, stages: &mut Stages<L::Elem>) {
        self.layer.stages(stages);
    }
}
