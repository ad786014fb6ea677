//! An initial state that is learned.

use ndarray::{Array2, ArrayRef3, ArrayView3};
use num_traits::{One, Zero};

use crate::base::error::check_batch;
use crate::base::tensors::join;
use crate::base::{Size, SizeError, Tensors, TensorsExt, check_gradient};
use crate::kernels::Float;
use crate::layer::batch_state::{Places, keep};
use crate::layer::gradient::start;
use crate::layer::graph::Axis;
use crate::layer::kit::{Pending, opaque_debug};
use crate::layer::stage::{Chain, Place};
use crate::layer::{Causal, Gradient, Graph, Internal, Layer, Sequence, Signal, Stage, Stages, Summary, Unsupported};
use crate::parameters;

const NAME: &str = "LearnedState";

/// Any layer with a state, whose initial state is a parameter: sequences start from it instead of zero.
///
/// ```text
/// s_0 = started ∘ s + (1 - started) ∘ initial        started: 0 at a sequence's start, 1 from its first step on
/// ```
///
/// [`zero_state`](Layer::zero_state) gives a state that has not started; every pass leaves one that has, so that chunks and
/// streams go on. Set a sequence's `started` back to 0 to start it anew.
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
    /// Its initial state, of a batch of one; zero at the start.
    pub initial: L::State,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for LearnedState<L> { layer as "", initial } }

impl<L: Layer> LearnedState<L> {
    /// `layer`, from a zero state that is learned from then on.
    pub fn new(layer: L) -> Self {
        LearnedState { initial: layer.zero_state(1), layer }
    }
}

/// The state of a [`LearnedState`] layer.
#[derive(Clone, Debug, PartialEq)]
pub struct StartedState<F, S> {
    /// The layer's own.
    pub state: S,
    /// `[B, 1]`: 0 for a sequence that is yet to start, 1 for one that has.
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
    /// What the last forward pass was given.
    given: Option<StartedState<L::Elem, L::State>>,
    dstate: Option<L::State>,
}

opaque_debug! { LearnedStateCache<L: Layer> }

impl<L: Layer> Default for LearnedStateCache<L> {
    fn default() -> Self {
        LearnedStateCache { pending: Pending::default(), layer: L::Cache::default(), given: None, dstate: None }
    }
}

/// How far sequence `b` has started before a pass; nothing if it has no step in it: its state then stays as it is.
fn begins<F: Float>(x: &Sequence<'_, F>, started: &Array2<F>, b: usize) -> Option<F> {
    (x.length(b) > 0).then(|| started[[b, 0]])
}

/// Each sequence that has a step here has started after it.
fn mark_started<F: Float>(x: &Sequence<'_, F>, started: &mut Array2<F>) {
    for (b, started) in started.iter_mut().enumerate() {
        if x.length(b) > 0 {
            *started = F::one();
        }
    }
}

impl<L: Layer> LearnedState<L> {
    /// Gives the sequences that start here the learned state; keeps what came.
    #[track_caller]
    fn begin(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut StartedState<L::Elem, L::State>,
        given: &mut Option<StartedState<L::Elem, L::State>>,
    ) {
        let batch = x.dims().1;
        check_batch(NAME, "state.started", x.dims(), &[batch, 1], state.started.shape());
        keep(given, state);
        for i in 0..self.initial.count() {
            let (shape, initial) = self.initial.tensor(i);
            let places = Places::new(state.state.shape(i), shape, batch);
            let (values, started) = (state.state.tensor_mut(i), &state.started);
            for (b, own, one) in places.sequences() {
                let Some(started) = begins(x, started, b) else { continue };
                for (value, &initial) in values[own].iter_mut().zip(&initial[one]) {
                    *value = started * *value + (L::Elem::one() - started) * initial;
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

    fn output_steps(&self) -> Option<usize> {
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
        // Of sequences that start here the learned state, of others what came.
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
        let LearnedStateCache { pending, layer, given, .. } = cache;
        let mark = pending.begin(&self.initial, x);
        self.begin(x, state, given);
        let y = self.layer.forward_pass(x, &mut state.state, layer);
        mark_started(x, &mut state.started);
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
        let LearnedStateCache { pending, layer, given, .. } = cache;
        let mark = pending.begin(&self.initial, x);
        self.begin(x, state, given);
        self.layer.forward_onto(x, skip, &mut state.state, layer, y, internal);
        mark_started(x, &mut state.started);
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
        let LearnedStateCache { pending, layer, given, dstate: d } = cache;
        // The layer inside knows what shape its output has.
        pending.take_with_steps(NAME, &self.initial, x, dy, [dy.dim().0, dy.dim().2]);
        let (grad, how) = grad.parts();
        check_gradient(NAME, self, &*grad);
        let batch = x.dims().1;
        let Some(given) = given.as_ref().filter(|given| given.started.nrows() == batch) else {
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
        let mut dstate = dstate;
        if let Some(dstate) = &mut dstate {
            for (_, d) in dstate.started.iter_mut().enumerate().filter(|(b, _)| x.length(*b) > 0) {
                *d = L::Elem::zero();
            }
        }
        for i in 0..self.initial.count() {
            let ((shape, initial), (all, d)) = (self.initial.tensor(i), d.tensor(i));
            for (b, own, one) in Places::new(all, shape, batch).sequences() {
                let Some(started) = begins(x, &given.started, b) else {
                    if let Some(dstate) = &mut dstate {
                        dstate.state.tensor_mut(i)[own.clone()].copy_from_slice(&d[own]);
                    }
                    continue;
                };
                let dinitial = &mut grad.initial.tensor_mut(i)[one.clone()];
                for (sum, &d) in dinitial.iter_mut().zip(&d[own.clone()]) {
                    *sum += (L::Elem::one() - started) * d;
                }
                let Some(dstate) = &mut dstate else { continue };
                let given = &given.state.tensor(i).1[own.clone()];
                for (&d, (&given, &initial)) in d[own.clone()].iter().zip(given.iter().zip(&initial[one])) {
                    dstate.started[[b, 0]] += d * (given - initial);
                }
                for (out, &d) in dstate.state.tensor_mut(i)[own.clone()].iter_mut().zip(&d[own]) {
                    *out = started * d;
                }
            }
        }
        dx
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
    state: L::State, // to mix it in
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
