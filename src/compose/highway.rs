//! The gated connection around any layer.

use ndarray::{Array3, ArrayRef3, ArrayView3};
use rand::Rng;

use crate::base::error::mismatch;
use crate::base::{Init, Size, SizeError};
use crate::kernels::math::sigmoid;
use crate::kernels::{Float, vectorised};
use crate::layer::kit::{Pending, StandardLayout, opaque_debug, reuse};
use crate::layer::rows::{rows_of, span};
use crate::layer::{Causal, Gradient, Graph, Layer, RowCache, Sequence, Signal, Summary, Unsupported};
use crate::layers::{Linear, LinearBuilder};
use crate::parameters;

const NAME: &str = "Highway";

/// A gated connection around any layer, recurrent ones included (Srivastava, Greff and Schmidhuber 2015).
///
/// ```text
/// g = σ(W_T x + b_T)                          the transform gate: how much of the branch is let in
/// y = g ∘ branch(x) + (1 - g) ∘ x
/// ```
///
/// Maps `[T, B, D]` to `[T, B, D]`. `b_T` starts at -2, so the block starts near the identity: while the branch and `W_T` add
/// nothing, L blocks multiply a gradient by `(1 - σ(b_T))^L`. The state is the branch's. The branch's parameters keep their names;
/// the others are `gate.weight` and `gate.bias`.
///
/// ```
/// use gradflow::{
///     Layer, TensorsExt, compose::{Highway, Stacked}, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell,
/// };
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let net = Stacked::build(4, |_| Highway::builder(LstmCell::<f32>::new(8, 8, rng), 8).gate_bias(-3.0).build(rng));
/// assert_eq!(net.names()[4..6], ["0.gate.weight", "0.gate.bias"]);
/// assert_eq!(net.output_size(8.into()), Ok(8));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Highway<L: Layer> {
    /// The layer whose output the gate lets in.
    pub branch: L,
    /// `W_T`, `[D, D]`, and `b_T`, `[D]`.
    pub gate: Linear<L::Elem>,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for Highway<L> { branch as "", gate } }

impl<L: Layer> Highway<L> {
    /// A connection around a branch from `features` features to as many. `W_T` is initialized as by [`Linear::new`], and `b_T`
    /// starts at -2.
    ///
    /// # Panics
    /// Panics if the branch does not map `features` features to as many.
    #[track_caller]
    pub fn new(branch: L, features: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::builder(branch, features).build(rng)
    }

    /// A builder, to choose how the gate is initialized.
    pub fn builder(branch: L, features: usize) -> HighwayBuilder<L> {
        HighwayBuilder { branch, gate: Linear::builder(features, features).bias_init(-2.0) }
    }
}

/// The options of a new [`Highway`]; made by [`Highway::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing before `build`"]
pub struct HighwayBuilder<L: Layer> {
    branch: L,
    gate: LinearBuilder<L::Elem>,
}

impl<L: Layer> HighwayBuilder<L> {
    /// The initialization of `b_T`: -1 to -4, lower for deeper stacks.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn gate_bias(self, init: impl Into<Init>) -> Self {
        HighwayBuilder { gate: self.gate.bias_init(init), ..self }
    }

    /// The initialization of `W_T`.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn gate_weight(self, init: impl Into<Init>) -> Self {
        HighwayBuilder { gate: self.gate.weight(init), ..self }
    }

    /// Builds the layer with parameters drawn from `rng`: the same seed gives the same bits.
    ///
    /// # Panics
    /// Panics if the branch does not map `features` features to as many.
    #[track_caller]
    pub fn build(self, rng: &mut (impl Rng + ?Sized)) -> Highway<L> {
        let highway = Highway { branch: self.branch, gate: self.gate.build(rng) };
        let features = highway.gate.input_size();
        if let Err(error) = highway.output_size(features.into()) {
            panic!("{error}")
        }
        highway
    }
}

/// The cache of a [`Highway`].
pub struct HighwayCache<L: Layer> {
    pending: Pending,
    x_copy: StandardLayout<L::Elem>,
    dy_copy: StandardLayout<L::Elem>,
    branch_copy: StandardLayout<L::Elem>,
    branch: L::Cache,
    gate: RowCache<Linear<L::Elem>>,
    g: Array3<L::Elem>,  // [T, B, D] and, after a backward pass, its da
    y: Array3<L::Elem>,  // [T, B, D] and, in a backward pass, g ∘ dy
    dx: Array3<L::Elem>, // [T, B, D]
}

opaque_debug! { HighwayCache<L: Layer> }

impl<L: Layer> Default for HighwayCache<L> {
    fn default() -> Self {
        HighwayCache {
            pending: Pending::default(),
            x_copy: StandardLayout::default(),
            dy_copy: StandardLayout::default(),
            branch_copy: StandardLayout::default(),
            branch: L::Cache::default(),
            gate: RowCache::default(),
            g: Array3::default((0, 0, 0)),
            y: Array3::default((0, 0, 0)),
            dx: Array3::default((0, 0, 0)),
        }
    }
}

vectorised! {
    /// g = σ(a), y = g ∘ branch + (1 - g) ∘ x.
    fn mix<'a, F: Float>(a: &'a [F], x: &'a [F], branch: &'a [F], g: &'a mut [F], y: &'a mut [F]) {
        for ((((g, y), &a), &x), &branch) in g.iter_mut().zip(y).zip(a).zip(x).zip(branch) {
            *g = sigmoid(a);
            *y = *g * branch + (F::one() - *g) * x;
        }
    }
}

vectorised! {
    /// Replaces g by the gate's da; writes the branch's d = g ∘ dy and the direct dx = (1 - g) ∘ dy.
    fn mix_backward<'a, F: Float>(
        x: &'a [F],
        branch: &'a [F],
        dy: &'a [F],
        g: &'a mut [F],
        d: &'a mut [F],
        dx: &'a mut [F]
    ) {
        let inputs = x.iter().zip(branch).zip(dy);
        for (((g, d), dx), ((&x, &branch), &dy)) in g.iter_mut().zip(d).zip(dx).zip(inputs) {
            let kept = F::one() - *g;
            *d = *g * dy;
            *dx = kept * dy;
            *g = dy * (branch - x) * *g * kept;
        }
    }
}

vectorised! {
    /// dx += a + b.
    fn add<'a, F: Float>(a: &'a [F], b: &'a [F], dx: &'a mut [F]) {
        for ((dx, &a), &b) in dx.iter_mut().zip(a).zip(b) {
            *dx += a + b;
        }
    }
}

impl<L: Layer> Layer for Highway<L> {
    type Elem = L::Elem;
    type State = L::State;
    type Cache = HighwayCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.branch.expect_same_steps(NAME)?;
        let branch = self.branch.output_size(input).map_err(|error| error.inside(NAME))?;
        let gate = self.gate.output_size(input).map_err(|error| error.inside("gate").inside(NAME))?;
        if Size::Features(branch) == input && Size::Features(gate) == input {
            Ok(branch)
        } else {
            let reason = format!("has {input} features, {gate} from the gate and {branch} from the branch");
            Err(SizeError::new(NAME, reason))
        }
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        summary.add(name, NAME, &self.gate);
        summary.inside(|summary| self.branch.describe(name, summary));
    }

    fn zero_state(&self, batch: usize) -> L::State {
        self.branch.zero_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        let branch = self.branch.add_to_graph(graph, x)?;
        let gate = graph.inside("gate", |graph| self.gate.add_to_graph(graph, x))?;
        let gate = graph.node("Sigmoid", &[gate.value], &[]);
        // x + g (branch - x) rounds differently.
        let one = graph.scalar(1.0);
        let let_in = graph.node("Mul", &[gate, branch.value], &[]);
        let kept = graph.node("Sub", &[one, gate], &[]);
        let kept = graph.node("Mul", &[kept, x.value], &[]);
        Ok(x.with(graph.node("Add", &[let_in, kept], &[]), branch.features(NAME)?))
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &'c mut HighwayCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let HighwayCache { pending, x_copy, dy_copy: gate_copy, branch_copy, branch, gate, g, y, .. } = cache;
        let mark = pending.begin(&(), x);
        self.expect_size(x);
        let branch = self.branch.forward_pass(x, state, branch);
        let (x_features, a) = (x.features(NAME, None), self.gate.forward_pass(x, &mut (), gate));
        if branch.dim() != x_features.dim() {
            mismatch(NAME, "branch", &format_args!("{:?}", x_features.shape()), &format_args!("{:?}", branch.shape()))
        }
        let features = x_features.dim().2;
        reuse(g, x_features.raw_dim());
        reuse(y, x_features.raw_dim());
        let (x_values, a, branch) = (x_copy.values(x_features), gate_copy.values(a), branch_copy.values(branch));
        for run in x.runs() {
            let at = span(&run, features);
            let (a, x_values, branch) = (&a[at.clone()], &x_values[at.clone()], &branch[at]);
            mix(a, x_values, branch, rows_of(g, &run), rows_of(y, &run));
        }
        x.zero_padding(y);
        mark.set();
        y.view()
    }

    fn output<'c>(&self, cache: &'c HighwayCache<L>) -> ArrayView3<'c, L::Elem> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut HighwayCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let HighwayCache { pending, x_copy, dy_copy, branch_copy, branch, gate, g, y: d, dx } = cache;
        let features = d.dim().2;
        pending.take(NAME, &(), x, dy, features);
        reuse(dx, dy.raw_dim());
        let (x_values, dy) = (x_copy.values(x.features(NAME, Some(features))), dy_copy.values(dy.view()));
        let branch_values = branch_copy.values(self.branch.output(branch));
        for run in x.runs() {
            let at = span(&run, features);
            let (x_values, branch, dy) = (&x_values[at.clone()], &branch_values[at.clone()], &dy[at]);
            mix_backward(x_values, branch, dy, rows_of(g, &run), rows_of(d, &run), rows_of(dx, &run));
        }
        let (grad, how) = grad.parts();
        let dx_branch = self.branch.backward_pass(x, d, dstate, branch, Gradient::new(&mut grad.branch, how));
        let dx_gate = self.gate.backward_pass(x, g, None, gate, Gradient::new(&mut grad.gate, how));
        if !x.wants_gradient() {
            return dx_branch;
        }
        let (dx_branch, dx_gate) = (branch_copy.values(dx_branch), dy_copy.values(dx_gate));
        for run in x.runs() {
            let at = span(&run, features);
            add(&dx_branch[at.clone()], &dx_gate[at], rows_of(dx, &run));
        }
        x.zero_padding(dx);
        dx.view()
    }
}

impl<L: Causal> Causal for Highway<L> {}
