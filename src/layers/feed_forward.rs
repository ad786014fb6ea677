//! Two affine layers with a nonlinearity between them.

use ndarray::{Array1, Array3, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, s};
use rand::Rng;

use super::activation::{
    Activation, Nonlinearity, activate_backward_with_bias, activate_in_place, activate_with_slope,
};
use super::linear::Linear;
use crate::base::check_shape;
use crate::base::{Mode, Size, SizeError, TensorsExt, check_gradient};
use crate::kernels::Weight;
use crate::kernels::once;
use crate::kernels::{
    Accumulate, BLOCK_BYTES, BLOCK_DEPTH, Float, PackedWeights, block_rows, even_chunks, product, with_elements,
    with_operands,
};
use crate::layer::Gradient;
use crate::layer::Internal;
use crate::layer::affine::{add_bias_to, affine, bias_gradient, input_gradient, start_rows, weight_gradient};
use crate::layer::gradient::start;
use crate::layer::kit::rows;
use crate::layer::kit::{Pending, StandardLayout, reuse};
use crate::layer::rows::{matrix, matrix_mut, rows_of, span};
use crate::layer::{Causal, Graph, Layer, Sequence, Signal, Stages, Unsupported};
use crate::parallel::for_each_part;
use crate::parallel::in_pass;
use crate::parallel::product_work;
use crate::parameters;

const NAME: &str = "FeedForward";

/// Two affine layers with a nonlinearity between them, from D features to `hidden` and back.
///
/// ```text
/// a = W₁ x + b₁                             [H]        h = f(a)        y = W₂ h + b₂
/// dL/da = f'(a) ∘ W₂ᵀ dL/dy                 dL/dx = W₁ᵀ dL/da
/// ```
///
/// Training keeps `h` and `f'(a)`, 2 H values per row; inference keeps nothing. Many rows are processed in blocks of rows and
/// hidden units, which stay in the L2 cache. The layer equals a [`Linear`], an [`Activation`] and a [`Linear`] one after another,
/// with fewer passes over memory and fewer buffers.
///
/// ```
/// use gradflow::{Layer, TensorsExt, layers::{FeedForward, Nonlinearity}, rand::{SeedableRng, rngs::StdRng}};
///
/// let layer = FeedForward::<f32>::new(8, 32, Nonlinearity::Gelu, &mut StdRng::seed_from_u64(0));
/// assert_eq!(layer.names(), ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]);
/// assert_eq!(layer.output_size(8.into()), Ok(8));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FeedForward<F: Float> {
    /// `[hidden, D]`
    pub fc1: Linear<F>,
    /// f
    pub activation: Activation<F>,
    /// `[D, hidden]`
    pub fc2: Linear<F>,
}
parameters! { impl<F: Float> Tensors<F> for FeedForward<F> { fc1, activation, fc2 } }

impl<F: Float> FeedForward<F> {
    /// A layer for rows of `features` elements, with `hidden` units inside; weights are initialized as by [`Linear::new`].
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn new(features: usize, hidden: usize, f: Nonlinearity, rng: &mut (impl Rng + ?Sized)) -> Self {
        FeedForward {
            fc1: Linear::new(features, hidden, rng),
            activation: Activation::new(f),
            fc2: Linear::new(hidden, features, rng),
        }
    }

    /// A layer for rows of `features` elements, with `hidden` units inside and all weights zero, for weights that will be loaded.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn zeros(features: usize, hidden: usize, f: Nonlinearity) -> Self {
        FeedForward {
            fc1: Linear::zeros(features, hidden),
            activation: Activation::new(f),
            fc2: Linear::zeros(hidden, features),
        }
    }
}

/// The cache of a [`FeedForward`].
#[derive(Clone, Debug, Default)]
pub struct FeedForwardCache<F> {
    pending: Pending,
    x_copy: StandardLayout<F>,
    dy_copy: StandardLayout<F>,
    slope: Array1<F>, // T · B rows of H: a, then f'(a), or h in inference; after a backward pass T · B rows of I: dx
    h: Array3<F>,     // [T, B, H] and, in a backward pass, da
    y: Array3<F>,     // [T, B, O]; unused if the output is added to a skip connection
}

impl<F: Float> FeedForward<F> {
    fn hidden_size(&self) -> usize {
        self.fc1.weight.nrows()
    }

    /// The approximate work of a pass.
    fn work(&self, x: &Sequence<'_, F>) -> u64 {
        let (steps, batch) = x.dims();
        product_work(steps * batch, 2 * self.fc1.weight.len())
    }

    /// `y += W₂ f(W₁ x + b₁)` on the valid rows; the values that the backward pass needs stay in the cache.
    #[track_caller]
    fn add_to(
        &self,
        x: &Sequence<'_, F>,
        x_copy: &mut StandardLayout<F>,
        slope: &mut Array1<F>,
        h: &mut Array3<F>,
        y: &mut ArrayRef3<F>, // [T, B, O]
    ) {
        let ((steps, batch), hidden, output) = (x.dims(), self.hidden_size(), self.fc2.weight.nrows());
        let x_rows = x_copy.rows(x.features(NAME, None));
        let weights = x.packed_weights();
        let in_blocks = weights.is_some() || x.runs().all(|run| run.len() >= BLOCKED_ROWS);
        let infer = x.mode() == Some(Mode::Infer);
        if !(infer && in_blocks) {
            reuse(slope, steps * batch * hidden.max(self.fc1.input_size()));
        }
        if !infer {
            reuse(h, (steps, batch, hidden));
        }
        let slope = slope.as_slice_mut().expect("a buffer in standard layout");
        for run in x.runs() {
            let (x_run, y) = (x_rows.slice(s![run.clone(), ..]), matrix_mut(rows_of(y, &run), output));
            match (in_blocks, infer) {
                (true, _) => {
                    let kept = (!infer).then(|| {
                        let (slope, h) = (&mut slope[span(&run, hidden)], rows_of(h, &run));
                        (matrix_mut(slope, hidden), matrix_mut(h, hidden))
                    });
                    // With fewer rows, each product is split among threads instead.
                    let work = if run.len() >= BLOCKED_ROWS { self.work(x) } else { 0 };
                    self.add_in_blocks(x_run, weights, work, kept, y);
                }
                (false, _) => {
                    let mut a = matrix_mut(&mut slope[span(&run, hidden)], hidden);
                    let (f, Linear { weight, bias }) = (self.activation.nonlinearity(), &self.fc1);
                    affine(x, x_run, weight, bias.as_ref(), a.view_mut());
                    let h = if infer {
                        activate_in_place(f, a.view_mut());
                        a
                    } else {
                        let mut h = matrix_mut(rows_of(h, &run), hidden);
                        activate_with_slope(f, a, h.view_mut());
                        h
                    };
                    product(h.view(), self.fc2.weight.t(), y, Accumulate::Add);
                }
            }
        }
    }

    /// `y += W₂ f(W₁ x + b₁)`, in blocks of rows and hidden units that are in the L2 cache when they are used; keeps `f'(a)` and
    /// `h`, `[N, H]`, if `kept` has room for them. The rows are split among threads as `work` allows.
    fn add_in_blocks(
        &self,
        x: ArrayView2<'_, F>, // [N, I]
        weights: Option<&PackedWeights<F>>,
        work: u64,
        mut kept: Option<(ArrayViewMut2<'_, F>, ArrayViewMut2<'_, F>)>,
        mut y: ArrayViewMut2<'_, F>, // [N, O]
    ) {
        let hidden = self.hidden_size();
        // Few rows take all units at once: the weights are read in one stream, and no thread waits between blocks.
        let at_once = weights.is_some() && x.nrows() * hidden * size_of::<F>() <= BLOCK_BYTES;
        with_operands(|[own1, own2]| {
            for (first, count) in even_chunks(hidden, if at_once { hidden } else { BLOCK_DEPTH }) {
                let units = first..first + count;
                let w1 = self.fc1.weight.slice(s![units.clone(), ..]).reversed_axes();
                let w2 = self.fc2.weight.slice(s![.., units.clone()]).reversed_axes();
                let part = Units {
                    count,
                    w1: Weight::packed(w1, weights, own1),
                    bias: self.fc1.bias.as_ref().map(|bias| &bias.values(0)[units.clone()]),
                    f: self.activation.nonlinearity(),
                    w2: Weight::packed(w2, weights, own2),
                };
                let block = s![.., units];
                let kept = kept.as_mut().map(|(slope, h)| (slope.slice_mut(block), h.slice_mut(block)));
                for_each_part((x, (y.view_mut(), kept)), work / hidden as u64 * count as u64, 1, |(x, (y, kept))| {
                    part.add(x, kept, y);
                });
            }
        });
    }
}

/// A block of hidden units.
struct Units<'a, F> {
    count: usize,      // U
    w1: Weight<'a, F>, // [I, U]
    bias: Option<&'a [F]>,
    f: Nonlinearity,
    w2: Weight<'a, F>, // [U, O]
}

impl<F: Float> Units<'_, F> {
    /// Adds these units' part of y, see [`FeedForward::add_in_blocks`].
    fn add(
        &self,
        x: ArrayView2<'_, F>,
        mut kept: Option<(ArrayViewMut2<'_, F>, ArrayViewMut2<'_, F>)>, // [N, U]
        mut y: ArrayViewMut2<'_, F>,
    ) {
        let Units { count: units, w1, bias, f, w2 } = self;
        let (units, f) = (*units, *f);
        with_elements(if kept.is_some() { 0 } else { block_rows::<F>().min(x.nrows()) * units }, |passing| {
            for first in (0..x.nrows()).step_by(block_rows::<F>()) {
                let rows = first..x.nrows().min(first + block_rows::<F>());
                let block = s![rows.clone(), ..];
                let (mut a, h) = match &mut kept {
                    None => (matrix_mut(&mut passing[..rows.len() * units], units), None),
                    Some((slope, h)) => (slope.slice_mut(block), Some(h.slice_mut(block))),
                };
                w1.apply(x.slice(block), *bias, a.view_mut());
                let h = match h {
                    None => {
                        activate_in_place(f, a.view_mut());
                        a
                    }
                    Some(mut h) => {
                        activate_with_slope(f, a, h.view_mut());
                        h
                    }
                };
                w2.apply(h.view(), Accumulate::Add, y.slice_mut(block));
            }
        });
    }
}

/// Minimum rows for which packing the weights pays off.
const BLOCKED_ROWS: usize = 256;

once! {
    /// `y`, left in the cache.
    #[track_caller]
    fn forward<'a, F: Float>(layer: &'a FeedForward<F>, x: &'a Sequence<'a, F>, cache: &'a mut FeedForwardCache<F>) {
        let FeedForwardCache { pending, x_copy, slope, h, y, .. } = cache;
        let mark = pending.begin(layer, x);
        layer.expect_size(x);
        x.features(NAME, None); // not empty
        let (steps, batch) = x.dims();
        reuse(y, (steps, batch, layer.fc2.weight.nrows()));
        for run in x.runs() {
            start_rows(layer.fc2.bias.as_ref().map(|bias| bias.values(0)), rows_of(y, &run));
        }
        in_pass(|| (layer.work(x), 2), || layer.add_to(x, x_copy, slope, h, y));
        x.zero_padding(y);
        mark.set();
    }

    /// `y = skip + layer(x)`, on the valid rows.
    #[track_caller]
    fn forward_onto<'a, F: Float>(
        layer: &'a FeedForward<F>,
        x: &'a Sequence<'a, F>,
        skip: &'a [F], // T · B rows of O
        cache: &'a mut FeedForwardCache<F>,
        y: &'a mut ArrayRef3<F>,
    ) {
        let FeedForwardCache { pending, x_copy, slope, h, .. } = cache;
        let mark = pending.begin(layer, x);
        layer.expect_size(x);
        x.features(NAME, None); // not empty
        let ((steps, batch), output) = (x.dims(), layer.fc2.weight.nrows());
        check_shape(NAME, "y", &[steps, batch, output], y.shape());
        for run in x.runs() {
            add_bias_to(&skip[span(&run, output)], layer.fc2.bias.as_ref(), rows_of(y, &run));
        }
        in_pass(|| (layer.work(x), 2), || layer.add_to(x, x_copy, slope, h, y));
        mark.set();
    }

    /// `dx`, left in the cache in place of `slope`.
    #[track_caller]
    fn backward<'a, F: Float>(
        layer: &'a FeedForward<F>,
        x: &'a Sequence<'a, F>,
        dy: &'a ArrayRef3<F>,
        cache: &'a mut FeedForwardCache<F>,
        grad: Gradient<'a, FeedForward<F>>,
    ) {
        let FeedForwardCache { pending, x_copy, dy_copy, slope, h, .. } = cache;
        pending.take(NAME, layer, x, dy, layer.fc2.weight.nrows());
        let (grad, how) = grad.parts();
        check_gradient(NAME, layer, &*grad);
        in_pass(
            || (layer.work(x), 2),
            || {
                let ((steps, batch), hidden) = (x.dims(), layer.hidden_size());
                let (x_rows, dy) = (x_copy.rows(x.features(NAME, None)), dy_copy.rows(dy.view()));
                let slope = slope.as_slice_mut().expect("a buffer in standard layout");

                weight_gradient(x, dy, rows(h.view()), &mut grad.fc2.weight, how);
                if let Some(bias) = &mut grad.fc2.bias {
                    bias_gradient(x, dy, bias, how);
                }
                start(&mut grad.fc1.bias, how);
                for run in x.runs() {
                    let da = rows_of(h, &run);
                    let dy = dy.slice(s![run.clone(), ..]);
                    product(dy, layer.fc2.weight.view(), matrix_mut(da, hidden), Accumulate::Overwrite);
                    let dbias = grad.fc1.bias.as_mut().map(|bias| bias.as_slice_mut().expect("a tensor in standard layout"));
                    let slope = matrix(&slope[span(&run, hidden)], hidden);
                    activate_backward_with_bias(slope, matrix_mut(da, hidden), dbias);
                }
                let da = rows(h.view());
                weight_gradient(x, da, x_rows, &mut grad.fc1.weight, how);
                let width = if x.wants_gradient() { layer.fc1.input_size() } else { 0 };
                let dx = &mut slope[..steps * batch * width];
                let mut dx = ArrayViewMut3::from_shape((steps, batch, width), dx).expect("as many values");
                input_gradient(x, da, &layer.fc1.weight, &mut dx);
            },
        );
    }
}

impl<F: Float> Layer for FeedForward<F> {
    type Elem = F;
    type State = ();
    type Cache = FeedForwardCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let hidden = self.fc1.output_size(input).map_err(|error| error.inside("fc1"))?;
        self.fc2.output_size(hidden.into()).map_err(|error| error.inside("fc2"))
    }

    fn zero_state(&self, _batch: usize) {}

    fn add_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        let x = graph.inside("fc1", |graph| self.fc1.add_to_graph(graph, x))?;
        let x = graph.inside("activation", |graph| self.activation.add_to_graph(graph, x))?;
        graph.inside("fc2", |graph| self.fc2.add_to_graph(graph, x))
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        _: &mut (),
        cache: &'c mut FeedForwardCache<F>,
    ) -> ArrayView3<'c, F> {
        forward(self, &x.reborrow(), cache);
        cache.y.view()
    }

    fn forward_onto(
        &self,
        x: &Sequence<'_, F>,
        skip: ArrayView3<'_, F>,
        _: &mut (),
        cache: &mut FeedForwardCache<F>,
        y: &mut ArrayRef3<F>,
        _: Internal,
    ) {
        check_shape(NAME, "skip", y.shape(), skip.shape());
        let skip = skip.to_slice().expect("a skip in standard layout");
        forward_onto(self, &x.reborrow(), skip, cache, y);
    }

    fn output<'c>(&self, cache: &'c FeedForwardCache<F>) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut FeedForwardCache<F>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, F> {
        backward(self, &x.reborrow(), dy, cache, grad);
        let ((steps, batch), input) = (x.dims(), if x.wants_gradient() { self.fc1.input_size() } else { 0 });
        let dx = &cache.slope.as_slice().expect("a buffer in standard layout")[..steps * batch * input];
        ArrayView3::from_shape((steps, batch, input), dx).expect("as many values")
    }
}

impl<F: Float> Causal for FeedForward<F> {
    fn stages(&self, stages: &mut Stages<F>) {
        self.fc1.stages(stages);
        self.activation.stages(stages);
        self.fc2.stages(stages);
    }
}
