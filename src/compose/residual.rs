//! The residual connection around any layer.

use ndarray::{Array1, Array3, ArrayRef3, ArrayView3};
use num_traits::Zero;
use rand::Rng;

use crate::base::error::mismatch;
use crate::base::tensors::out_of_range;
use crate::base::{Expect, Size, SizeError, Tensors, check_gradient, check_number, check_shape, check_sizes};
use crate::kernels::{Float, vectorised};
use crate::layer::affine::add;
use crate::layer::gradient::start;
use crate::layer::kit::{Pending, StandardLayout, opaque_debug, reuse};
use crate::layer::rows::{rows_of, span};
use crate::layer::stage::{BLOCK, Chain, Place};
use crate::layer::{
    Causal, Gradient, Graph, Internal, Layer, RowCache, Sequence, Signal, Stage, Stages, Summary, Unsupported,
};
use crate::layers::Linear;
use crate::parameters;

const NAME: &str = "Residual";

/// The factor of a residual branch.
#[derive(Clone, Debug, PartialEq)]
pub enum BranchScale<F> {
    /// A number that is not trained: 1, or `1/sqrt(L)` in a stack of L blocks.
    Fixed(f64),
    /// One learned number, `[1]`: ReZero (Bachlechner et al. 2020) starts it at 0.
    Scalar(Array1<F>),
    /// One learned number per feature, `[D]`: LayerScale (Touvron et al. 2021) starts them small.
    PerFeature(Array1<F>),
}

impl<F: Float> BranchScale<F> {
    fn learned(&self) -> Option<&Array1<F>> {
        match self {
            BranchScale::Fixed(_) => None,
            BranchScale::Scalar(scale) | BranchScale::PerFeature(scale) => Some(scale),
        }
    }

    fn learned_mut(&mut self) -> Option<&mut Array1<F>> {
        match self {
            BranchScale::Fixed(_) => None,
            BranchScale::Scalar(scale) | BranchScale::PerFeature(scale) => Some(scale),
        }
    }
}

impl<F: Float> Tensors<F> for BranchScale<F> {
    fn count(&self) -> usize {
        usize::from(self.learned().is_some())
    }
    fn name(&self, i: usize) -> String {
        self.learned().map_or_else(|| out_of_range(i), |scale| scale.name(i))
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        self.learned().map_or_else(|| out_of_range(i), |scale| scale.tensor(i))
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [F] {
        self.learned_mut().map_or_else(|| out_of_range(i), |scale| scale.tensor_mut(i))
    }
}

/// A skip connection around any layer, recurrent ones included: `y = shortcut(x) + scale ∘ branch(x)` (He et al.
/// 2015).
///
/// The Jacobian is that of the shortcut plus that of the branch: with the identity as shortcut, a gradient passes a
/// stack of any depth undiminished, and each branch adds to it.
///
/// Maps `[T, B, I]` to `[T, B, O]`; the identity needs `I = O`, otherwise the shortcut is a learned [`Linear`]. The state is the
/// branch's. The branch's parameters keep their names; the others are `scale` and `shortcut.weight`.
///
/// ```
/// use gradflow::{Layer, TensorsExt, compose::Residual, rand::{SeedableRng, rngs::StdRng}, recurrent::GruCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let block = Residual::new(GruCell::<f32>::new(8, 8, rng)).rezero();
/// assert_eq!(block.names().last().unwrap(), "scale");
/// assert_eq!(block.output_size(8.into()), Ok(8));
/// let widening = Residual::projected(GruCell::<f32>::new(8, 16, rng), 8, rng);
/// assert_eq!(widening.output_size(8.into()), Ok(16));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Residual<L: Layer> {
    /// The layer whose output is added to the skip connection.
    pub branch: L,
    /// The factor of the branch.
    pub scale: BranchScale<L::Elem>,
    /// The map on the skip connection, if it is not the identity.
    pub shortcut: Option<Linear<L::Elem>>,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for Residual<L> { branch as "", scale, shortcut } }

impl<L: Layer> Residual<L> {
    /// `y = x + branch(x)`
    pub fn new(branch: L) -> Self {
        Residual { branch, scale: BranchScale::Fixed(1.0), shortcut: None }
    }

    /// `y = W x + branch(x)`, for a branch that maps `input` features to another number of them.
    ///
    /// # Panics
    /// Panics if the branch does not take `input` features.
    #[track_caller]
    pub fn projected(branch: L, input: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        let output = match branch.output_size(input.into()) {
            Ok(output) => output,
            Err(error) => panic!("{NAME}: {error}"),
        };
        Residual { shortcut: Some(Linear::builder(input, output).bias(false).build(rng)), ..Self::new(branch) }
    }

    /// Multiplies the branch by a number that is not trained: `1/sqrt(L)` keeps the variance of a stack of L blocks.
    ///
    /// # Panics
    /// Panics if `scale` is not finite in the element type.
    #[track_caller]
    pub fn scaled(self, scale: f64) -> Self {
        let scale = check_number::<L::Elem>(NAME, "scale", Expect::Finite, scale);
        Residual { scale: BranchScale::Fixed(scale), ..self }
    }

    /// Multiplies the branch by one learned number that starts at 0, so the block starts as its shortcut.
    pub fn rezero(self) -> Self {
        Residual { scale: BranchScale::Scalar(Array1::zeros(1)), ..self }
    }

    /// Multiplies the branch by one learned number per feature, all starting at `initial`; `features` is the number of output
    /// features.
    ///
    /// # Panics
    /// Panics if `features` is 0, or if `initial` is not finite in the element type.
    #[track_caller]
    pub fn layer_scale(self, features: usize, initial: f64) -> Self {
        check_sizes::<L::Elem, 1>(NAME, [("features", features)], &[&[features]]);
        let initial = check_number::<L::Elem>(NAME, "layer_scale", Expect::Finite, initial);
        let scale = Array1::from_elem(features, L::Elem::of(initial));
        Residual { scale: BranchScale::PerFeature(scale), ..self }
    }
}

/// The cache of a [`Residual`].
pub struct ResidualCache<L: Layer> {
    pending: Pending,
    x_copy: StandardLayout<L::Elem>,
    dy_copy: StandardLayout<L::Elem>,
    branch: L::Cache,
    shortcut: RowCache<Linear<L::Elem>>,
    y: Array3<L::Elem>, // [T, B, O] and, after a backward pass, dx, [T, B, I]
    d: Array3<L::Elem>, // [T, B, O]: scale ∘ dy on the valid rows, if the scale is not 1
}

opaque_debug! { ResidualCache<L: Layer> }

impl<L: Layer> Default for ResidualCache<L> {
    fn default() -> Self {
        ResidualCache {
            pending: Pending::default(),
            x_copy: StandardLayout::default(),
            dy_copy: StandardLayout::default(),
            branch: L::Cache::default(),
            shortcut: RowCache::default(),
            y: Array3::default((0, 0, 0)),
            d: Array3::default((0, 0, 0)),
        }
    }
}

vectorised! {
    /// y = x + scale ∘ branch, row by row; `scale` is one number, or one per feature.
    fn add_scaled<'a, F: Float>(features: usize, scale: &'a [F], x: &'a [F], branch: &'a [F], y: &'a mut [F]) {
        let rows = y.chunks_exact_mut(features).zip(x.chunks_exact(features)).zip(branch.chunks_exact(features));
        for ((y, x), branch) in rows {
            if let [scale] = *scale {
                for ((y, &x), &branch) in y.iter_mut().zip(x).zip(branch) {
                    *y = x + scale * branch;
                }
            } else {
                for (((y, &x), &branch), &scale) in y.iter_mut().zip(x).zip(branch).zip(scale) {
                    *y = x + scale * branch;
                }
            }
        }
    }
}

vectorised! {
    /// d = scale ∘ dy, row by row.
    fn multiply<'a, F: Float>(features: usize, scale: &'a [F], dy: &'a [F], d: &'a mut [F]) {
        for (d, dy) in d.chunks_exact_mut(features).zip(dy.chunks_exact(features)) {
            if let [scale] = *scale {
                for (d, &dy) in d.iter_mut().zip(dy) {
                    *d = scale * dy;
                }
            } else {
                for ((d, &dy), &scale) in d.iter_mut().zip(dy).zip(scale) {
                    *d = scale * dy;
                }
            }
        }
    }
}

/// dscale += Σ dy ∘ branch, over all rows and, for one number, all features.
fn add_scale_gradient<F: Float>(features: usize, dy: &[F], branch: &[F], dscale: &mut [F]) {
    for (dy, branch) in dy.chunks_exact(features).zip(branch.chunks_exact(features)) {
        for (k, (&dy, &branch)) in dy.iter().zip(branch).enumerate() {
            dscale[k % dscale.len()] += dy * branch;
        }
    }
}

impl<L: Layer> Residual<L> {
    /// Whether the branch is added without a scale.
    fn is_unscaled(&self) -> bool {
        matches!(self.scale, BranchScale::Fixed(scale) if scale == 1.0)
    }

    /// The scale as one number, or one per feature.
    #[track_caller]
    fn with_scale<R>(&self, features: usize, act: impl FnOnce(&[L::Elem]) -> R) -> R {
        match &self.scale {
            BranchScale::Fixed(scale) => act(&[L::Elem::of(*scale)]),
            BranchScale::Scalar(scale) => {
                check_shape(NAME, "scale", &[1], scale.shape());
                act(scale.tensor(0).1)
            }
            BranchScale::PerFeature(scale) => {
                check_shape(NAME, "scale", &[features], scale.shape());
                act(scale.tensor(0).1)
            }
        }
    }
}

impl<L: Layer> Layer for Residual<L> {
    type Elem = L::Elem;
    type State = L::State;
    type Cache = ResidualCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.branch.expect_same_steps(NAME)?;
        let branch = self.branch.output_size(input).map_err(|error| error.inside(NAME))?;
        let direct = match (&self.shortcut, input) {
            (Some(shortcut), _) => {
                shortcut.output_size(input).map_err(|error| error.inside("shortcut").inside(NAME))?
            }
            (None, Size::Features(features)) => features,
            (None, Size::Tokens) => return Err(SizeError::new(NAME, "takes features, got token ids")),
        };
        if branch == direct {
            Ok(branch)
        } else {
            let reason = format!("has {direct} features on the skip connection and {branch} from the branch");
            Err(SizeError::new(NAME, reason))
        }
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        summary.add(name, NAME, &(self.scale.clone(), self.shortcut.clone()));
        summary.inside(|summary| self.branch.describe(name, summary));
    }

    fn zero_state(&self, batch: usize) -> L::State {
        self.branch.zero_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        let branch = self.branch.add_to_graph(graph, x)?;
        let features = branch.features(NAME)?;
        let direct = match &self.shortcut {
            Some(shortcut) => graph.inside("shortcut", |graph| shortcut.add_to_graph(graph, x))?,
            None => x,
        };
        let scale = match &self.scale {
            BranchScale::Fixed(1.0) => None,
            BranchScale::Fixed(scale) => Some(graph.scalar(*scale)),
            BranchScale::Scalar(scale) | BranchScale::PerFeature(scale) => {
                Some(graph.parameter("scale", scale.shape(), scale.to_vec()))
            }
        };
        let scaled = scale.map_or(branch.value, |scale| graph.node("Mul", &[branch.value, scale], &[]));
        Ok(x.with(graph.node("Add", &[direct.value, scaled], &[]), features))
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &'c mut ResidualCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let ResidualCache { pending, x_copy, dy_copy: branch_copy, branch, shortcut, y, .. } = cache;
        let mark = pending.begin(&self.scale, x);
        self.expect_size(x);
        let direct = match &self.shortcut {
            Some(layer) => layer.forward_pass(x, &mut (), shortcut),
            None => x.features(NAME, None),
        };
        let direct = x_copy.view(direct);
        reuse(y, direct.raw_dim());
        if self.is_unscaled() {
            self.branch.forward_onto(x, direct, state, branch, y, Internal);
            x.zero_padding(y);
            mark.set();
            return y.view();
        }
        let branch = self.branch.forward_pass(x, state, branch);
        if branch.dim() != direct.dim() {
            mismatch(NAME, "branch", &format_args!("{:?}", direct.shape()), &format_args!("{:?}", branch.shape()))
        }
        let features = y.dim().2;
        let (direct, branch) = (direct.to_slice().expect("standard layout"), branch_copy.values(branch));
        self.with_scale(features, |scale| {
            for run in x.runs() {
                let span = span(&run, features);
                add_scaled(features, scale, &direct[span.clone()], &branch[span], rows_of(y, &run));
            }
        });
        x.zero_padding(y);
        mark.set();
        y.view()
    }

    fn output<'c>(&self, cache: &'c ResidualCache<L>) -> ArrayView3<'c, L::Elem> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut ResidualCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let ResidualCache { pending, x_copy, dy_copy, branch, shortcut, y, d } = cache;
        let features = y.dim().2;
        pending.take(NAME, &self.scale, x, dy, features);
        let (grad, how) = grad.parts();
        check_gradient(NAME, self, &*grad);
        let dy_values = dy_copy.values(dy.view());
        if let Some(dscale) = grad.scale.learned_mut() {
            start(dscale, how);
            let branch = x_copy.values(self.branch.output(branch));
            for run in x.runs() {
                let span = span(&run, features);
                add_scale_gradient(features, &dy_values[span.clone()], &branch[span], dscale.tensor_mut(0));
            }
        }
        let d: &ArrayRef3<_> = if self.is_unscaled() {
            dy
        } else {
            reuse(d, dy.raw_dim());
            self.with_scale(features, |scale| {
                for run in x.runs() {
                    multiply(features, scale, &dy_values[span(&run, features)], rows_of(d, &run));
                }
            });
            d
        };
        let dx_branch = self.branch.backward_pass(x, d, dstate, branch, Gradient::new(&mut grad.branch, how));
        let dx_direct = match (&self.shortcut, &mut grad.shortcut) {
            (Some(layer), Some(grad)) => layer.backward_pass(x, dy, None, shortcut, Gradient::new(grad, how)),
            _ => dy.view(),
        };
        if !x.wants_gradient() {
            return dx_branch;
        }
        let (dx, direct, branch) = (y, dy_copy.view(dx_direct), x_copy.view(dx_branch));
        reuse(dx, branch.raw_dim());
        add(x, direct, branch, dx);
        x.zero_padding(dx);
        dx.view()
    }
}

impl<L: Causal> Causal for Residual<L> {
    fn stages(&self, stages: &mut Stages<L::Elem>) {
        let [mut branch, mut shortcut] = [Stages::new(stages.features()), Stages::new(stages.features())];
        self.branch.stages(&mut branch);
        if let Some(linear) = &self.shortcut {
            linear.stages(&mut shortcut);
        }
        let output = branch.features();
        let scale = match &self.scale {
            BranchScale::Fixed(scale) => vec![L::Elem::of(*scale); output],
            BranchScale::Scalar(scale) => vec![scale[0]; output],
            BranchScale::PerFeature(scale) => scale.to_vec(),
        };
        let skip = vec![L::Elem::zero(); BLOCK * output];
        let (branch, shortcut) = (Chain::new(branch), Chain::new(shortcut));
        stages.push(Box::new(ResidualStage { branch, shortcut, scale, skip }));
    }
}

/// A [`Residual`] in a stream.
#[derive(Clone)]
struct ResidualStage<F: Float> {
    branch: Chain<F>,
    shortcut: Chain<F>,
    scale: Vec<F>, // [O]
    skip: Vec<F>,  // [BLOCK, O]: the output of the shortcut
}

impl<F: Float> Stage<F> for ResidualStage<F> {
    fn output(&self) -> usize {
        self.scale.len()
    }

    fn run(&mut self, steps: usize, x: &[F], y: &mut [F]) {
        let ResidualStage { branch, shortcut, scale, skip } = self;
        let (output, skip) = (scale.len(), &mut skip[..y.len()]);
        branch.run(steps, x, y);
        shortcut.run(steps, x, skip);
        for t in 0..steps {
            let own = t * output..(t + 1) * output;
            let (y, skip) = (&mut y[own.clone()], &skip[own]);
            for k in 0..output {
                y[k] = skip[k] + scale[k] * y[k];
            }
        }
    }

    fn tensors(&self) -> usize {
        self.branch.tensors()
    }

    fn load(&mut self, state: &dyn Tensors<F>, at: Place) {
        self.branch.load(state, at);
    }

    fn store(&self, state: &mut dyn Tensors<F>, at: Place) {
        self.branch.store(state, at);
    }

    fn boxed(&self) -> Box<dyn Stage<F>> {
        Box::new(self.clone())
    }
}
