//! Branches that are left out at random.

use ndarray::{Array3, ArrayRef3, ArrayView3};
use rand::Rng;

use crate::base::error::mismatch;
use crate::base::random::Mask;
use crate::base::{RandomDrop, Size, SizeError, check_shape};
use crate::kernels::Float;
use crate::layer::affine::add;
use crate::layer::kit::{Pending, StandardLayout, opaque_debug, reuse};
use crate::layer::rows::{rows_of, span};
use crate::layer::{Causal, Gradient, Graph, Internal, Layer, Sequence, Signal, Summary, Unsupported};
use crate::parameters;

const NAME: &str = "StochasticDepth";

/// Stochastic depth (Huang, Sun et al. 2016), around the branch of a residual connection: in training the branch is left out at
/// random, so the depth of a stack is random.
///
/// ```text
/// train(seed):      y_tb = m_b branch(x)_tb        m_b = 0 with probability p, else 1 / (1 - p)
/// eval(), infer():  y = branch(x)
/// ```
///
/// Each sequence of the batch is kept or left out as a whole, independently of the others; with
/// [`whole_batch`](StochasticDepth::whole_batch), all are kept or left out together. `m` is a hash of the seed, the layer's id and
/// `b`, as in [`Dropout`](crate::layers::Dropout). The shapes, `[T, B, I]` to `[T, B, O]`, are the branch's, and its parameters
/// keep their names.
///
/// Only the branch's *output* is left out. A recurrent branch still runs: its state advances as in evaluation, and
/// `dL/d(final state)` passes through it, so a memory has no gaps. A NaN is not dropped.
///
/// # Panics
/// `forward` panics if `x` has no mode, that is, neither [`train`](Sequence::train), [`eval`](Sequence::eval) nor
/// [`infer`](Sequence::infer) was called.
///
/// ```
/// use gradflow::{
///     TensorsExt, compose::{Residual, Stacked, StochasticDepth}, rand::{SeedableRng, rngs::StdRng},
///     recurrent::GruCell,
/// };
///
/// let (depth, rng) = (4, &mut StdRng::seed_from_u64(0));
/// let net = Stacked::build(depth, |k| {
///     let branch = GruCell::<f32>::new(8, 8, rng);
///     Residual::new(StochasticDepth::linear(branch, 0.5, k, depth, rng))
/// });
/// let p: Vec<f64> = net.layers().iter().map(|block| block.branch.p()).collect();
/// assert_eq!(p, [0.125, 0.25, 0.375, 0.5]);
/// assert_eq!(net.names()[0], "0.weight_ih");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StochasticDepth<L: Layer> {
    /// The layer that is left out at random.
    pub branch: L,
    drop: RandomDrop,
    whole_batch: bool,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for StochasticDepth<L> { branch as ""; skip drop, whole_batch } }

impl<L: Layer> StochasticDepth<L> {
    /// Leaves the branch out with probability `p`.
    ///
    /// # Panics
    /// Panics if `p` is not in `0..1`.
    #[track_caller]
    pub fn new(branch: L, p: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        StochasticDepth { branch, drop: RandomDrop::new(NAME, p, rng), whole_batch: false }
    }

    /// Block `k`, counted from 0, of a stack of `depth` blocks whose probabilities rise linearly to `last`:
    /// `p = last (k + 1) / depth`, the paper's rule.
    ///
    /// # Panics
    /// Panics if `last` is not in `0..1`, or if `k` is not below `depth`.
    #[track_caller]
    pub fn linear(branch: L, last: f64, k: usize, depth: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        if k >= depth {
            mismatch(NAME, "k", &format_args!("a block below {depth}"), &k)
        }
        if !(0.0..1.0).contains(&last) {
            mismatch(NAME, "last", &"a probability in 0..1", &last)
        }
        Self::new(branch, last * (k + 1) as f64 / depth as f64, rng)
    }

    /// Keeps or leaves out the branch for the whole batch at once, as in the paper, instead of for each sequence.
    pub fn whole_batch(self) -> Self {
        StochasticDepth { whole_batch: true, ..self }
    }

    /// The probability with which the branch is left out.
    pub fn p(&self) -> f64 {
        self.drop.p
    }
}

/// The cache of a [`StochasticDepth`].
pub struct StochasticDepthCache<L: Layer> {
    pending: Pending,
    /// The steps and the features of the last output.
    output: [usize; 2],
    copy: StandardLayout<L::Elem>,
    branch: L::Cache,
    mask: Option<Mask>,
    y: Array3<L::Elem>, // [T, B, O] and, in a backward pass, m ∘ dy; unused if nothing is dropped
}

opaque_debug! { StochasticDepthCache<L: Layer> }

impl<L: Layer> Default for StochasticDepthCache<L> {
    fn default() -> Self {
        StochasticDepthCache {
            pending: Pending::default(),
            output: [0; 2],
            copy: StandardLayout::default(),
            branch: L::Cache::default(),
            mask: None,
            y: Array3::default((0, 0, 0)),
        }
    }
}

impl<L: Layer> StochasticDepth<L> {
    /// `y_tb = m_b v_tb` on the valid rows, zero on padding.
    fn apply(&self, mask: Mask, x: &Sequence<'_, L::Elem>, values: &[L::Elem], y: &mut Array3<L::Elem>) {
        let (_, batch, features) = y.dim();
        for run in x.runs() {
            let rows = values[span(&run, features)].chunks_exact(features);
            for (row, (to, from)) in run.clone().zip(rows_of(y, &run).chunks_exact_mut(features).zip(rows)) {
                let mask = if self.whole_batch { mask } else { mask.part(x.first_sequence() + row % batch) };
                let factor = L::Elem::of(mask.factor());
                for (to, &from) in to.iter_mut().zip(from) {
                    *to = factor * from;
                }
            }
        }
        x.zero_padding(y);
    }
}

impl<L: Layer> Layer for StochasticDepth<L> {
    type Elem = L::Elem;
    type State = L::State;
    type Cache = StochasticDepthCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.branch.expect_same_steps(NAME)?;
        self.branch.output_size(input).map_err(|error| error.inside(NAME))
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        summary.add::<L::Elem>(name, NAME, &());
        summary.inside(|summary| self.branch.describe(name, summary));
    }

    fn zero_state(&self, batch: usize) -> L::State {
        self.branch.zero_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        self.branch.add_to_graph(graph, x)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &'c mut StochasticDepthCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let StochasticDepthCache { pending, output, copy, branch, mask, y } = cache;
        let mark = pending.begin(&(), x);
        self.expect_size(x);
        *mask = self.drop.mask(NAME, x.mode());
        let branch = self.branch.forward_pass(x, state, branch);
        *output = [branch.dim().0, branch.dim().2];
        let Some(mask) = *mask else {
            mark.set();
            return branch;
        };
        reuse(y, branch.raw_dim());
        self.apply(mask, x, copy.values(branch), y);
        mark.set();
        y.view()
    }

    fn forward_onto(
        &self,
        x: &Sequence<'_, L::Elem>,
        skip: ArrayView3<'_, L::Elem>,
        state: &mut L::State,
        cache: &mut StochasticDepthCache<L>,
        y: &mut ArrayRef3<L::Elem>,
        internal: Internal,
    ) {
        if self.drop.mask(NAME, x.mode()).is_none() {
            let mark = cache.pending.begin(&(), x);
            self.expect_size(x);
            cache.mask = None;
            cache.output = [y.dim().0, y.dim().2];
            self.branch.forward_onto(x, skip, state, &mut cache.branch, y, internal);
            return mark.set();
        }
        let output = self.forward_pass(x, state, cache);
        check_shape(NAME, "y", y.shape(), output.shape());
        add(x, skip, StandardLayout::default().view(output), y);
    }

    fn output<'c>(&self, cache: &'c StochasticDepthCache<L>) -> ArrayView3<'c, L::Elem> {
        if cache.mask.is_some() { cache.y.view() } else { self.branch.output(&cache.branch) }
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut StochasticDepthCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let StochasticDepthCache { pending, output, copy, branch, mask, y: d } = cache;
        pending.take_with_steps(NAME, &(), x, dy, *output);
        let (grad, how) = grad.parts();
        let grad = Gradient::new(&mut grad.branch, how);
        let Some(mask) = *mask else { return self.branch.backward_pass(x, dy, dstate, branch, grad) };
        pending.expect_another_seed(NAME, x);
        self.apply(mask, x, copy.values(dy.view()), d);
        self.branch.backward_pass(x, d, dstate, branch, grad)
    }
}

impl<L: Causal> Causal for StochasticDepth<L> {}
