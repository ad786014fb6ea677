//! An initial state that is learned.

use ndarray::{Array2, ArrayRef3, ArrayView3};
use num_traits::{One, Zero};

use crate::base::error::check_batch;
use crate::base::tensors::{check_alike, join};
use crate::base::{Size, SizeError, Tensors, TensorsExt, check_gradient};
use crate::kernels::Float;
use crate::layer::batch_state::{Places, keep};
use crate::layer::gradient::start;
use crate::layer::graph::Axis;
use crate::layer::kit::{Pending, opaque_debug};
use crate::layer::stage::{Chain, Place};
use crate::layer::{
    Causal, Gradient, Graph, Internal, Layer, Piece, Sequence, Signal, Stage, Stages, Steps, Summary, Unsupported,
};
use crate::parameters;

const NAME: &str = "LearnedState";

/// Any layer with a state, whose initial state is a parameter: sequences start from it instead of zero.
///
/// ```text
/// s_0 = started ∘ s + (1 - started) ∘ initial        started: 0 at a sequence's start, 1 from its first step on
/// ```
///
/// [`zero_state`](Layer::zero_state) gives a state that has not started. Every pass leaves one that has, so chunks and streams
/// continue from it. To start a sequence anew, set its `started` back to 0.
///
/// With [resets](Sequence::with_resets), every piece starts from the initial state, whose gradient is the sum over all starts. The
/// layer inside then gets a state with a row for each [piece](Sequence::pieces).
///
/// ```
/// use gradflow::ndarray::{Array3, arr2};
/// use gradflow::{Layer, TensorsExt, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell, wrap::LearnedState};
///
/// let cell = LearnedState::new(LstmCell::<f32>::new(3, 4, &mut StdRng::seed_from_u64(0)));
/// assert_eq!(cell.names()[4..], ["initial.h", "initial.c"]);
/// let (x, mut state) = (Array3::<f32>::ones((5, 2, 3)), cell.zero_state(2));
/// cell.forward(&x, &mut state, &mut cell.cache());
/// assert_eq!(state.started, arr2(&[[1.0], [1.0]]));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedState<L: Layer> {
    /// The layer.
    pub layer: L,
    /// Its initial state, for a batch of one; initially zero.
    pub initial: L::State,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for LearnedState<L> { layer as "", initial } }

impl<L: Layer> LearnedState<L> {
    /// `layer` with a learned initial state, which is zero at first.
    pub fn new(layer: L) -> Self {
        LearnedState { initial: layer.zero_state(1), layer }
    }
}

/// The state of a [`LearnedState`] layer.
#[derive(Clone, Debug, PartialEq)]
pub struct StartedState<F, S> {
    /// The state of the layer inside.
    pub state: S,
    /// `[B, 1]`: 0 for a sequence that has not started yet, 1 for one that has.
    pub started: Array2<F>,
}

impl<F: Float, S: Tensors<F>> Tensors<F> for StartedState<F, S> {
    fn count(&self) -> usize {
        self.state.count() + 1
    }
    crate::__tensors_by_index! { F; state [""], started [] }
}

/// The cache of a [`LearnedState`] layer.
pub struct LearnedStateCache<L: Layer> {
    pending: Pending,
    layer: L::Cache,
    /// The state that the last forward pass was given.
    given: Option<StartedState<L::Elem, L::State>>,
    dstate: Option<L::State>,
    pieces: PieceStates<L>,
}

opaque_debug! { LearnedStateCache<L: Layer> }

impl<L: Layer> Default for LearnedStateCache<L> {
    fn default() -> Self {
        let pieces = PieceStates { one: None, all: None };
        LearnedStateCache { pending: Pending::default(), layer: L::Cache::default(), given: None, dstate: None, pieces }
    }
}

impl<L: Layer> LearnedState<L> {
    /// The pieces that start from their states here: those with a step, since a state that no step reads stays as it is. If the
    /// layer changes the number of steps, a sequence starts from the state of its first piece, and ends in that of its last one.
    fn starting<'x>(&self, x: &Sequence<'x, L::Elem>) -> impl Iterator<Item = Piece> + use<'x, L> {
        let (x, other_steps) = (*x, matches!(self.layer.output_steps(), Steps::Count(_)));
        let has_steps = move |b: usize| x.valid_steps(b).next().is_some();
        x.pieces().filter(move |piece| x.reaches(piece) || other_steps && has_steps(piece.sequence))
    }

    /// Marks the rows whose pieces start here as started.
    fn mark_started(&self, x: &Sequence<'_, L::Elem>, started: &mut Array2<L::Elem>) {
        for row in self.starting(x).filter_map(|piece| piece.last) {
            started[[row, 0]] = L::Elem::one();
        }
    }
}

/// The row of a piece's state at an end of a pass.
type End = fn(&Piece) -> Option<usize>;
const INITIAL: End = |piece| piece.initial;
const LAST: End = |piece| piece.last;

/// The states of the pieces of a batch with resets, or their gradients.
struct PieceStates<L: Layer> {
    one: Option<StartedState<L::Elem, L::State>>,
    all: Option<StartedState<L::Elem, L::State>>,
}

impl<L: Layer> PieceStates<L> {
    /// A state with a row for each piece: the rows of `state` go to the pieces at an end of each sequence, and the remaining pieces
    /// have not started.
    #[track_caller]
    fn spread(
        &mut self,
        layer: &LearnedState<L>,
        x: &Sequence<'_, L::Elem>,
        state: &StartedState<L::Elem, L::State>,
        end: End,
    ) -> &mut StartedState<L::Elem, L::State> {
        let (batch, rows) = (x.dims().1, x.with_piece_states().state_rows());
        let one = self.one.get_or_insert_with(|| layer.zero_state(1));
        if (0..one.count()).any(|i| state.values(i).len() != batch * one.values(i).len()) {
            check_alike(&format_args!("{NAME}: state"), &layer.zero_state(batch), state);
        }
        self.all = self.all.take().filter(|all| all.started.nrows() == rows);
        let all = self.all.get_or_insert_with(|| layer.zero_state(rows));
        all.set_zero();
        copy_rows(one, (state, batch), (all, rows), rows_of_pieces(x, end));
        all
    }

    /// Copies the states of the pieces at an end of each sequence back to `state`.
    fn collect(&self, x: &Sequence<'_, L::Elem>, state: &mut StartedState<L::Elem, L::State>, end: End) {
        let (batch, rows) = (x.dims().1, x.with_piece_states().state_rows());
        let (one, all) = self.one.as_ref().zip(self.all.as_ref()).expect("spread before");
        copy_rows(one, (all, rows), (state, batch), rows_of_pieces(x, end).map(|(b, row)| (row, b)));
    }
}

/// The rows of the sequences' states at an end of the pass, each with the row of its piece.
fn rows_of_pieces<F: Float>(x: &Sequence<'_, F>, end: End) -> impl Iterator<Item = (usize, usize)> {
    let pieces = x.pieces().zip(x.with_piece_states().pieces());
    pieces.filter_map(move |(piece, numbered)| end(&piece).zip(end(&numbered)))
}

/// Whether the layer inside needs a state for each piece.
fn has_pieces<F: Float>(x: &Sequence<'_, F>) -> bool {
    x.has_resets() && !x.has_piece_states()
}

/// Copies rows of one state to rows of another, as in `pairs`. Both come with their numbers of rows; `one` is a state of one row.
fn copy_rows<F: Float, S: Tensors<F>>(
    one: &S,
    (from, from_rows): (&S, usize),
    (to, to_rows): (&mut S, usize),
    pairs: impl Iterator<Item = (usize, usize)>,
) {
    for (from_row, to_row) in pairs {
        for i in 0..one.count() {
            let batches = [(from.shape(i), from_rows), (to.shape(i), to_rows)];
            let [from_places, to_places] = Places::of_all(batches, one.shape(i));
            for ((from_place, _), (place, _)) in from_places.row(from_row).zip(to_places.row(to_row)) {
                to.tensor_mut(i)[place].copy_from_slice(&from.values(i)[from_place]);
            }
        }
    }
}

impl<L: Layer> LearnedState<L> {
    /// Gives the learned state to the sequences that start here; keeps the state that came in.
    #[track_caller]
    fn begin(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut StartedState<L::Elem, L::State>,
        given: &mut Option<StartedState<L::Elem, L::State>>,
    ) {
        let rows = x.state_rows();
        check_batch(NAME, "state.started", x.dims(), &[rows, 1], state.started.shape());
        keep(given, state);
        for i in 0..self.initial.count() {
            let (shape, initial) = self.initial.tensor(i);
            let places = Places::new(state.state.shape(i), shape, rows);
            let (values, started) = (state.state.tensor_mut(i), &state.started);
            for row in self.starting(x).filter_map(|piece| piece.initial) {
                let started = started[[row, 0]];
                for (own, one) in places.row(row) {
                    for (value, &initial) in values[own].iter_mut().zip(&initial[one]) {
                        *value = started * *value + (L::Elem::one() - started) * initial;
                    }
                }
            }
        }
    }

    /// The forward pass, with a row of `state` for each row of the layer's state.
    #[track_caller]
    fn forward_rows<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut StartedState<L::Elem, L::State>,
        given: &mut Option<StartedState<L::Elem, L::State>>,
        layer: &'c mut L::Cache,
    ) -> ArrayView3<'c, L::Elem> {
        self.begin(x, state, given);
        let y = self.layer.forward_pass(x, &mut state.state, layer);
        self.mark_started(x, &mut state.started);
        y
    }

    /// The backward pass, with a row of `dstate` for each row of the layer's state.
    #[track_caller]
    #[allow(clippy::too_many_arguments)]
    fn backward_rows<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut StartedState<L::Elem, L::State>>,
        given: &Option<StartedState<L::Elem, L::State>>,
        d: &mut Option<L::State>,
        layer: &'c mut L::Cache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let (grad, how) = grad.parts();
        check_gradient(NAME, self, &*grad);
        let rows = x.state_rows();
        let Some(given) = given.as_ref().filter(|given| given.started.nrows() == rows) else {
            return self.layer.backward_pass(x, dy, None, layer, Gradient::new(&mut grad.layer, how)); // which refuses
        };
        match &dstate {
            Some(dstate) => keep(d, &dstate.state),
            None => {
                keep(d, &given.state);
                d.as_mut().expect("kept").set_zero();
            }
        }
        let d = d.as_mut().expect("kept");
        let dx = self.layer.backward_pass(x, dy, Some(d), layer, Gradient::new(&mut grad.layer, how));
        start(&mut grad.initial, how);
        self.begin_backward(x, given, d, &mut grad.initial, dstate);
        dx
    }

    /// Computes the gradient of the learned state and, if it is wanted, that of the `given` one, from `d`, the gradient of the
    /// state that the layer started from. `dstate` comes in as the gradient of the final state.
    fn begin_backward(
        &self,
        x: &Sequence<'_, L::Elem>,
        given: &StartedState<L::Elem, L::State>,
        d: &L::State,
        dinitial: &mut L::State,
        mut dstate: Option<&mut StartedState<L::Elem, L::State>>,
    ) {
        let (one, rows) = (L::Elem::one(), x.state_rows());
        if let Some(dstate) = &mut dstate {
            dstate.state.copy_from(d);
            let rows = self.starting(x).filter_map(|piece| piece.initial);
            rows.for_each(|row| dstate.started[[row, 0]] = L::Elem::zero());
        }
        for i in 0..self.initial.count() {
            let ((shape, initial), (all, d), given_values) =
                (self.initial.tensor(i), d.tensor(i), given.state.values(i));
            let places = Places::new(all, shape, rows);
            for row in self.starting(x).filter_map(|piece| piece.initial) {
                let started = given.started[[row, 0]];
                for (own, place) in places.row(row) {
                    for (sum, &d) in dinitial.tensor_mut(i)[place.clone()].iter_mut().zip(&d[own.clone()]) {
                        *sum += (one - started) * d;
                    }
                    let Some(dstate) = &mut dstate else { continue };
                    let values = given_values[own.clone()].iter().zip(&initial[place]);
                    for (&d, (&given, &initial)) in d[own.clone()].iter().zip(values) {
                        dstate.started[[row, 0]] += d * (given - initial);
                    }
                    for (out, &d) in dstate.state.tensor_mut(i)[own.clone()].iter_mut().zip(&d[own]) {
                        *out = started * d;
                    }
                }
            }
        }
    }
}

impl<L: Layer> Layer for LearnedState<L> {
    type Elem = L::Elem;
    type State = StartedState<L::Elem, L::State>;
    type Cache = LearnedStateCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.layer.output_size(input)
    }

    fn output_steps(&self) -> Steps {
        self.layer.output_steps()
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        summary.add(name, NAME, &self.initial);
        summary.inside(|summary| self.layer.describe(name, summary));
    }

    fn zero_state(&self, batch: usize) -> Self::State {
        StartedState { state: self.layer.zero_state(batch), started: Array2::zeros((batch, 1)) }
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        // The learned state for sequences that start here, for others the state that came in.
        let started = graph.next_state(self.initial.count());
        let started_before = graph.initial_state(started);
        let one = graph.scalar(1.0);
        for i in 0..self.initial.count() {
            let (name, (shape, values)) = (join("initial", self.initial.name(i)), self.initial.tensor(i));
            let tensor = graph.next_state(i);
            let axes = graph.state_shape(tensor).to_vec();
            if axes.len() < 2 || axes[axes.len() - 2] != Axis::Batch {
                return Err(
                    graph.refuse(format!("{NAME} of a state whose sequences are not along its last axis but one"))
                );
            }
            let learned = graph.parameter(&name, shape, values.to_vec());
            let value = match (graph.initial_state(tensor), started_before) {
                (Some(state), Some(started)) => {
                    let state = graph.node("Mul", &[started, state], &[]);
                    let new = graph.node("Sub", &[one, started], &[]);
                    let learned = graph.node("Mul", &[new, learned], &[]);
                    graph.node("Add", &[state, learned], &[])
                }
                _ => {
                    let sizes: Vec<_> = axes
                        .iter()
                        .map(|axis| match axis {
                            Axis::Fixed(size) => graph.integers(&[*size as i64]),
                            Axis::Batch | Axis::Time => graph.batch(),
                        })
                        .collect();
                    let shape = graph.node("Concat", &sizes, &[("axis", 0.into())]);
                    graph.node("Expand", &[learned, shape], &[])
                }
            };
            graph.set_initial_state(tensor, value);
        }
        let y = self.layer.add_to_graph(graph, x)?;
        let started = graph.take_state()?;
        let (batch, width) = (graph.batch(), graph.integers(&[1]));
        let shape = graph.node("Concat", &[batch, width], &[("axis", 0.into())]);
        let all = graph.node("Expand", &[one, shape], &[]);
        graph.set_final_state(started, all);
        Ok(y)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut Self::State,
        cache: &'c mut LearnedStateCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let LearnedStateCache { pending, layer, given, pieces, .. } = cache;
        let mark = pending.begin(&self.initial, x);
        let y = if has_pieces(x) {
            let all = pieces.spread(self, x, state, INITIAL);
            let y = self.forward_rows(&x.with_piece_states(), all, given, layer);
            pieces.collect(x, state, LAST);
            y
        } else {
            self.forward_rows(x, state, given, layer)
        };
        mark.set();
        y
    }

    fn forward_onto(
        &self,
        x: &Sequence<'_, L::Elem>,
        skip: ArrayView3<'_, L::Elem>,
        state: &mut Self::State,
        cache: &mut LearnedStateCache<L>,
        y: &mut ArrayRef3<L::Elem>,
        internal: Internal,
    ) {
        let LearnedStateCache { pending, layer, given, pieces, .. } = cache;
        let mark = pending.begin(&self.initial, x);
        if has_pieces(x) {
            let (of_pieces, all) = (x.with_piece_states(), pieces.spread(self, x, state, INITIAL));
            self.begin(&of_pieces, all, given);
            self.layer.forward_onto(&of_pieces, skip, &mut all.state, layer, y, internal);
            self.mark_started(&of_pieces, &mut all.started);
            pieces.collect(x, state, LAST);
        } else {
            self.begin(x, state, given);
            self.layer.forward_onto(x, skip, &mut state.state, layer, y, internal);
            self.mark_started(x, &mut state.started);
        }
        mark.set();
    }

    fn output<'c>(&self, cache: &'c LearnedStateCache<L>) -> ArrayView3<'c, L::Elem> {
        self.layer.output(&cache.layer)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut Self::State>,
        cache: &'c mut LearnedStateCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let LearnedStateCache { pending, layer, given, dstate: d, pieces } = cache;
        // The layer inside checks the shape of `dy`.
        pending.take_with_steps(NAME, &self.initial, x, dy, [dy.dim().0, dy.dim().2]);
        match dstate {
            Some(dstate) if has_pieces(x) => {
                let all = pieces.spread(self, x, dstate, LAST);
                let dx = self.backward_rows(&x.with_piece_states(), dy, Some(all), given, d, layer, grad);
                pieces.collect(x, dstate, INITIAL);
                dx
            }
            None if has_pieces(x) => self.backward_rows(&x.with_piece_states(), dy, None, given, d, layer, grad),
            dstate => self.backward_rows(x, dy, dstate, given, d, layer, grad),
        }
    }
}

impl<L: Causal> Causal for LearnedState<L> {
    fn stages(&self, stages: &mut Stages<L::Elem>) {
        let mut inside = Stages::new(stages.features());
        self.layer.stages(&mut inside);
        let (output, zero) = (inside.features(), L::Elem::zero());
        let (initial, state) = (self.initial.clone(), self.layer.zero_state(1));
        stages.push(Box::new(StartingStage::<L> { chain: Chain::new(inside), output, initial, state, started: zero }));
    }
}

/// A [`LearnedState`] in a stream.
struct StartingStage<L: Layer> {
    chain: Chain<L::Elem>,
    output: usize,
    initial: L::State,
    state: L::State, // a buffer in which the state is mixed
    started: L::Elem,
}

impl<L: Layer> StartingStage<L> {
    /// `s_0 = started ∘ s + (1 - started) ∘ initial`
    fn start(&mut self) {
        let (started, one) = (self.started, L::Elem::one());
        self.chain.store(&mut self.state, Place::FRONT);
        for i in 0..self.initial.count() {
            let initial = self.initial.tensor(i).1;
            for (value, &initial) in self.state.tensor_mut(i).iter_mut().zip(initial) {
                *value = started * *value + (one - started) * initial;
            }
        }
        self.chain.load(&self.state, Place::FRONT);
        self.started = one;
    }
}

impl<L: Layer> Stage<L::Elem> for StartingStage<L> {
    fn output(&self) -> usize {
        self.output
    }

    fn run(&mut self, steps: usize, x: &[L::Elem], y: &mut [L::Elem]) {
        if self.started != L::Elem::one() {
            self.start();
        }
        self.chain.run(steps, x, y);
    }

    fn tensors(&self) -> usize {
        self.chain.tensors() + 1
    }

    fn load(&mut self, state: &dyn Tensors<L::Elem>, at: Place) {
        self.chain.load(state, at);
        let place = Place { first: at.first + self.chain.tensors(), ..at };
        place.read(state, 0, std::slice::from_mut(&mut self.started));
    }

    fn store(&self, state: &mut dyn Tensors<L::Elem>, at: Place) {
        self.chain.store(state, at);
        let place = Place { first: at.first + self.chain.tensors(), ..at };
        place.write(state, 0, &[self.started]);
    }

    fn boxed(&self) -> Box<dyn Stage<L::Elem>> {
        let StartingStage { chain, output, initial, state, started } = self;
        let (initial, state) = (initial.clone(), state.clone());
        Box::new(StartingStage::<L> { chain: chain.clone(), output: *output, initial, state, started: *started })
    }
}
