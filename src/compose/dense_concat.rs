//! The connection that passes the input on beside the output.

use ndarray::{Array3, ArrayRef3, ArrayView3, s};

use crate::base::error::mismatch;
use crate::base::{Size, SizeError};
use crate::layer::kit::{Pending, StandardLayout, opaque_debug, reuse};
use crate::layer::rows::{rows_of, span};
use crate::layer::{Causal, Gradient, Graph, Layer, Sequence, Signal, Summary, Unsupported};
use crate::parameters;

const NAME: &str = "DenseConcat";

/// A dense connection around any layer: `y = [x, branch(x)]`, side by side (Huang, Liu et al. 2017, DenseNet).
///
/// Maps `[T, B, I]` to `[T, B, I + O]`, for a branch from I features to O. In a stack, every layer reads the outputs of all layers
/// before it, and the gradient has a direct path to each of them: `dL/dx` is the first I features of `dL/dy` plus the gradient
/// through the branch. The state is the branch's, and the parameters keep their names.
///
/// ```
/// use gradflow::{
///     Layer, compose::{DenseConcat, Stacked}, layers::Linear, rand::{SeedableRng, rngs::StdRng}, recurrent::GruCell,
/// };
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// assert_eq!(DenseConcat::new(GruCell::<f32>::new(8, 5, rng)).output_size(8.into()), Ok(13));
/// // Each layer adds 5 features: 8, 13, 18, 23.
/// let net = Stacked::build(3, |k| DenseConcat::new(Linear::<f32>::new(8 + 5 * k, 5, rng)));
/// assert_eq!(net.output_size(8.into()), Ok(23));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DenseConcat<L: Layer> {
    /// The layer whose output is set beside the input.
    pub branch: L,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for DenseConcat<L> { branch as "" } }

impl<L: Layer> DenseConcat<L> {
    /// `y = [x, branch(x)]`
    pub fn new(branch: L) -> Self {
        DenseConcat { branch }
    }
}

/// The cache of a [`DenseConcat`].
pub struct DenseConcatCache<L: Layer> {
    pending: Pending,
    x_copy: StandardLayout<L::Elem>,
    branch_copy: StandardLayout<L::Elem>,
    branch: L::Cache,
    y: Array3<L::Elem>,  // [T, B, I + O]
    dx: Array3<L::Elem>, // [T, B, I]
}

opaque_debug! { DenseConcatCache<L: Layer> }

impl<L: Layer> Default for DenseConcatCache<L> {
    fn default() -> Self {
        DenseConcatCache {
            pending: Pending::default(),
            x_copy: StandardLayout::default(),
            branch_copy: StandardLayout::default(),
            branch: L::Cache::default(),
            y: Array3::default((0, 0, 0)),
            dx: Array3::default((0, 0, 0)),
        }
    }
}

impl<L: Layer> Layer for DenseConcat<L> {
    type Elem = L::Elem;
    type State = L::State;
    type Cache = DenseConcatCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.branch.expect_same_steps(NAME)?;
        let branch = self.branch.output_size(input).map_err(|error| error.inside(NAME))?;
        match input {
            Size::Features(features) => Ok(features + branch),
            Size::Tokens => Err(SizeError::new(NAME, "takes features, got token ids")),
        }
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        summary.add::<L::Elem>(name, NAME, &());
        summary.inside(|summary| self.branch.describe(name, summary));
    }

    fn zero_state(&self, batch: usize) -> L::State {
        self.branch.zero_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        let branch = self.branch.add_to_graph(graph, x)?;
        let features = x.features(NAME)? + branch.features(NAME)?;
        Ok(x.with(graph.node("Concat", &[x.value, branch.value], &[("axis", 2.into())]), features))
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &'c mut DenseConcatCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let DenseConcatCache { pending, x_copy, branch_copy, branch, y, .. } = cache;
        let mark = pending.begin(&(), x);
        self.expect_size(x);
        let branch = self.branch.forward_pass(x, state, branch);
        let (x_features, added) = (x.features(NAME, None), branch.dim().2);
        let (steps, batch, features) = x_features.dim();
        if branch.dim() != (steps, batch, added) {
            mismatch(NAME, "branch", &format_args!("[{steps}, {batch}, ..]"), &format_args!("{:?}", branch.shape()))
        }
        reuse(y, (steps, batch, features + added));
        let (x_values, branch) = (x_copy.values(x_features), branch_copy.values(branch));
        for run in x.runs() {
            let parts = x_values[span(&run, features)].chunks_exact(features);
            let parts = parts.zip(branch[span(&run, added)].chunks_exact(added));
            for (y, (x, branch)) in rows_of(y, &run).chunks_exact_mut(features + added).zip(parts) {
                y[..features].copy_from_slice(x);
                y[features..].copy_from_slice(branch);
            }
        }
        x.zero_padding(y);
        mark.set();
        y.view()
    }

    fn output<'c>(&self, cache: &'c DenseConcatCache<L>) -> ArrayView3<'c, L::Elem> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut DenseConcatCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let DenseConcatCache { pending, x_copy: dy_copy, branch_copy, branch, y, dx } = cache;
        let width = y.dim().2;
        pending.take(NAME, &(), x, dy, width);
        let features = x.features(NAME, None).dim().2;
        let (grad, how) = grad.parts();
        let dy_branch = dy.slice(s![.., .., features..]);
        let dx_branch = self.branch.backward_pass(x, &dy_branch, dstate, branch, Gradient::new(&mut grad.branch, how));
        if !x.wants_gradient() {
            return dx_branch;
        }
        reuse(dx, dx_branch.raw_dim());
        let (dy, dx_branch) = (dy_copy.values(dy.view()), branch_copy.values(dx_branch));
        for run in x.runs() {
            let parts = dy[span(&run, width)].chunks_exact(width);
            let parts = parts.zip(dx_branch[span(&run, features)].chunks_exact(features));
            for (dx, (dy, branch)) in rows_of(dx, &run).chunks_exact_mut(features).zip(parts) {
                for ((dx, &direct), &branch) in dx.iter_mut().zip(dy).zip(branch) {
                    *dx = direct + branch;
                }
            }
        }
        x.zero_padding(dx);
        dx.view()
    }
}

impl<L: Causal> Causal for DenseConcat<L> {}
