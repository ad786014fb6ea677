//! Convolution in time.

use std::marker::PhantomData;

use ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut2, s};
use rand::Rng;

use super::taps::{History, HistoryGradient, Pieces, Taps};
use crate::base::error::{check_batch, mismatch};
use crate::base::{Init, Size, SizeError, Tensors, TensorsExt, check_gradient, check_shape, check_sizes};
use crate::kernels::{Accumulate, Float, Summation, Weight, once, product, vectorised};
use crate::layer::affine::bias_gradient;
use crate::layer::gradient::start;
use crate::layer::kit::{Pending, StandardLayout, opaque_debug, reuse};
use crate::layer::rows::{matrix, matrix_mut, rows_of, span, values_of, values_of_mut};
use crate::layer::{Causal, Gradient, Graph, Layer, Sequence, Signal, Unsupported};
use crate::parameters;

const NAME: &str = "CausalConv1d";

/// A convolution in time whose output at a step reads that step and those before it (van den Oord et al. 2016).
///
/// ```text
/// y_t = b + Σ_j W_j x_{t - (K-1-j) d}         j < K         K: kernel, d: dilation, W_j [O, I]: tap j
///
/// dL/dW_j = Σ_t dL/dy_t x_{t - (K-1-j) d}ᵀ     dL/db = Σ_t dL/dy_t     dL/dx_t = Σ_j W_jᵀ dL/dy_{t + (K-1-j) d}
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` | `[T, B, O]` |
/// | state | `[P, B, I]`, P = (K - 1) d: the last P steps, oldest first |
///
/// With G groups, the features are split into G equal parts, and each output reads only the features of its own part: W_j is block
/// diagonal. G = I = O is a depthwise convolution, which has a separate kernel for each feature.
///
/// For a stride, see [`StridedConv1d`](crate::layers::StridedConv1d).
///
/// Weight and bias have the names and shapes of `torch.nn.Conv1d`, so a state dict loads unchanged. A `Conv1d` pads both ends; the
/// causal convolution is `conv(F.pad(x, (P, 0)))` for a `Conv1d` without padding. As there, a new sequence has zeros before its
/// first step.
///
/// A stream, or the next chunk, continues from the state; the state's gradient is the gradient of the inputs in it. With
/// [lengths](Sequence::with_lengths) or a [mask](Sequence::with_mask), it holds the last P valid steps of each sequence, and
/// kernels skip masked steps. A [reset](Sequence::with_resets) begins a new sequence, with zeros before its first step. In a
/// [reversed](Sequence::reversed) batch, as the reverse direction of a [`Bidirectional`](crate::wrap::Bidirectional) gets it,
/// "before" means after: `y_t` reads step `t` and those that follow it up to the sequence's last valid step, and the state holds
/// the first P steps.
///
/// Each output reads P + 1 steps. A gradient that goes through n such layers passes through n products, not one for each step. It
/// vanishes or explodes with n, and a residual connection helps, as in a recurrent net over time. See
/// [`TemporalBlock`](crate::compose::TemporalBlock).
///
/// ```
/// use gradflow::{Causal, Layer, layers::CausalConv1d, ndarray::{Array3, s}, rand::{SeedableRng, rngs::StdRng}};
///
/// let conv = CausalConv1d::<f32>::builder(3, 4, 2).dilation(4).build(&mut StdRng::seed_from_u64(0));
/// let x = Array3::from_shape_fn((10, 2, 3), |(t, b, k)| (t * 6 + b * 3 + k) as f32 / 60.0);
/// let y = conv.forward(&x, &mut conv.zero_state(2), &mut conv.cache()).to_owned();
/// assert_eq!(y.dim(), (10, 2, 4));
///
/// // Step by step: the state holds the last four.
/// let (mut state, mut cache) = (conv.zero_state(2), conv.cache());
/// assert_eq!(state.dim(), (4, 2, 3));
/// for t in 0..10 {
///     let step = conv.step(&x.slice(s![t..=t, .., ..]), &mut state, &mut cache);
///     assert!(step.iter().zip(y.slice(s![t, .., ..])).all(|(step, y)| (step - y).abs() < 1e-6));
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CausalConv1d<F> {
    /// `[O, I / G, K]`: the taps for each output and each feature that it reads, oldest step first.
    pub weight: Array3<F>,
    /// `[O]`
    pub bias: Option<Array1<F>>,
    pub(super) dilation: usize,
    pub(super) groups: usize,
}
parameters! { impl<F: Float> Tensors<F> for CausalConv1d<F> { weight, bias; skip dilation, groups } }

impl<F: Float> CausalConv1d<F> {
    /// A kernel of `kernel` taps; weight and bias are uniform in `±1/sqrt(I · kernel)`, as in PyTorch.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn new(input: usize, output: usize, kernel: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::builder(input, output, kernel).build(rng)
    }

    /// A builder, to choose the dilation, the groups, how the parameters are initialized, and whether there is a bias.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn builder(input: usize, output: usize, kernel: usize) -> CausalConv1dBuilder<F> {
        let sizes = [("input", input), ("output", output), ("kernel", kernel)];
        check_sizes::<F, 3>(NAME, sizes, &[&[output, input, kernel]]);
        let taps = Taps { kernel, dilation: 1, stride: 1 };
        CausalConv1dBuilder { input, output, taps, groups: 1, weight: None, bias: Some(None), elem: PhantomData }
    }

    /// Weight and bias are zero, for parameters that will be loaded.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn zeros(input: usize, output: usize, kernel: usize) -> Self {
        Self::builder(input, output, kernel).zeros()
    }

    /// I, the number of input features.
    pub fn input_size(&self) -> usize {
        self.weight.dim().1 * self.groups
    }

    /// K, the number of taps.
    pub fn kernel(&self) -> usize {
        self.weight.dim().2
    }

    /// The distance in steps from one tap to the next.
    pub fn dilation(&self) -> usize {
        self.dilation
    }

    /// G, the number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// P + 1, the number of input steps that one output step reads.
    pub fn receptive_field(&self) -> usize {
        self.taps(1).reach() + 1
    }

    /// The taps, with an output for one of every `stride` steps.
    pub(super) fn taps(&self, stride: usize) -> Taps {
        Taps { kernel: self.kernel(), dilation: self.dilation, stride }
    }

    /// O, after a check of the parameters' shapes.
    #[track_caller]
    fn checked_output(&self) -> usize {
        let (output, _, kernel) = self.weight.dim();
        if kernel == 0 || output % self.groups != 0 {
            let expected = format_args!("[O, I / G, K] with K above 0 and an O that {} groups divide", self.groups);
            mismatch(NAME, "weight", &expected, &format_args!("{:?}", self.weight.shape()))
        }
        if let Some(bias) = &self.bias {
            check_shape(NAME, "bias", &[output], bias.shape());
        }
        output
    }

    /// The weight as a matrix, `[O, I / G · K]`.
    fn matrix(&self) -> ArrayView2<'_, F> {
        let (_, input, kernel) = self.weight.dim();
        matrix(self.values(0), input * kernel)
    }

    /// Whether each output reads a single feature, its own.
    fn is_depthwise(&self) -> bool {
        self.weight.dim().1 == 1 && self.weight.dim().0 == self.groups
    }

    /// y, `[N, O]`, from the gathered rows `columns`, `[N, I · K]`.
    fn multiply(&self, pass: &Sequence<'_, F>, columns: ArrayView2<'_, F>, mut y: ArrayViewMut2<'_, F>) {
        let bias = self.bias.as_ref().map(|bias| bias.tensor(0).1);
        if self.is_depthwise() {
            return depthwise(self.kernel(), self.values(0), bias, values_of(columns), values_of_mut(y));
        }
        let (outputs, reads) = (self.weight.dim().0 / self.groups, self.matrix().ncols());
        for group in 0..self.groups {
            let (own, read) = (span(&(group..group + 1), outputs), span(&(group..group + 1), reads));
            let weight = self.matrix();
            let weight = weight.slice(s![own.clone(), ..]);
            let weight = Weight::stored(weight.t(), pass.packed_weights(), columns.nrows(), Summation::Fastest);
            let bias = bias.map(|bias| &bias[own.clone()]);
            weight.apply(columns.slice(s![.., read]), bias, y.slice_mut(s![.., own]));
        }
    }

    /// dW from dy, `[N, O]`, and dcolumns in place of `columns`, if `wanted`.
    fn multiply_backward(
        &self,
        dy: ArrayView2<'_, F>,
        mut columns: ArrayViewMut2<'_, F>,
        dweight: &mut [F],
        how: Accumulate,
        wanted: bool,
    ) {
        if self.is_depthwise() {
            if how == Accumulate::Overwrite {
                dweight.fill(F::zero());
            }
            return depthwise_backward(self.kernel(), self.values(0), values_of(dy), values_of_mut(columns), dweight);
        }
        let (outputs, reads) = (self.weight.dim().0 / self.groups, self.matrix().ncols());
        for (group, dweight) in dweight.chunks_exact_mut(outputs * reads).enumerate() {
            let (own, read) = (span(&(group..group + 1), outputs), span(&(group..group + 1), reads));
            let (dy, mut columns) = (dy.slice(s![.., own.clone()]), columns.slice_mut(s![.., read]));
            product(dy.t(), columns.view(), matrix_mut(dweight, reads), how); // dW = dyᵀ columns
            if wanted {
                product(dy, self.matrix().slice(s![own, ..]), columns.view_mut(), Accumulate::Overwrite);
            }
        }
    }
}

/// The options of a new [`CausalConv1d`]; made by [`CausalConv1d::builder`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a builder makes nothing before `build` or `zeros`"]
pub struct CausalConv1dBuilder<F> {
    input: usize,
    output: usize,
    taps: Taps,
    groups: usize,
    /// `None`: as in PyTorch.
    weight: Option<Init>,
    bias: Option<Option<Init>>,
    elem: PhantomData<F>,
}

impl<F: Float> CausalConv1dBuilder<F> {
    /// The distance in steps from one tap to the next, 1 by default.
    ///
    /// # Panics
    /// Panics if `dilation` is 0, or if the taps reach so far back that no memory could hold the state.
    #[track_caller]
    pub fn dilation(self, dilation: usize) -> Self {
        let reach = (self.taps.kernel - 1).saturating_mul(dilation);
        check_sizes::<F, 2>(NAME, [("dilation", dilation), ("input", self.input)], &[&[reach, self.input]]);
        CausalConv1dBuilder { taps: Taps { dilation, ..self.taps }, ..self }
    }

    /// The number of equal parts into which the features are split, 1 by default. Each output reads one part.
    ///
    /// # Panics
    /// Panics if `groups` does not divide both the input and the output features.
    #[track_caller]
    pub fn groups(self, groups: usize) -> Self {
        let CausalConv1dBuilder { input, output, .. } = self;
        if groups == 0 || input % groups != 0 || output % groups != 0 {
            let expected = format_args!("a number that divides input {input} and output {output}");
            mismatch(NAME, "groups", &expected, &groups)
        }
        CausalConv1dBuilder { groups, ..self }
    }

    /// The initialization of the weight, as a matrix with a row for each output.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn weight(self, init: impl Into<Init>) -> Self {
        CausalConv1dBuilder { weight: Some(init.into().checked::<F>(NAME, "weight")), ..self }
    }

    /// The initialization of the bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn bias_init(self, init: impl Into<Init>) -> Self {
        CausalConv1dBuilder { bias: Some(Some(init.into().checked::<F>(NAME, "bias"))), ..self }
    }

    /// Whether there is a bias.
    pub fn bias(self, bias: bool) -> Self {
        CausalConv1dBuilder { bias: bias.then_some(self.bias.flatten()), ..self }
    }

    /// Builds the layer with parameters drawn from `rng`: the same seed gives the same bits.
    pub fn build(self, rng: &mut (impl Rng + ?Sized)) -> CausalConv1d<F> {
        let (weight, bias) = (self.weight, self.bias);
        let mut conv = self.zeros();
        let (output, reads) = conv.matrix().dim();
        let init = Init::Uniform { bound: 1.0 / (reads as f64).sqrt() };
        let mut drawn = Array2::zeros((output, reads));
        weight.unwrap_or(init).fill(&mut drawn, rng);
        conv.weight.tensor_mut(0).copy_from_slice(drawn.values(0));
        if let (Some(values), Some(bias)) = (&mut conv.bias, bias) {
            let mut drawn = Array2::zeros((1, output));
            bias.unwrap_or(init).fill(&mut drawn, rng);
            *values = drawn.into_iter().collect();
        }
        conv
    }

    /// All parameters zero, for weights that will be loaded.
    pub fn zeros(self) -> CausalConv1d<F> {
        let CausalConv1dBuilder { input, output, taps, groups, bias, .. } = self;
        let weight = Array3::zeros((output, input / groups, taps.kernel));
        CausalConv1d { weight, bias: bias.map(|_| Array1::zeros(output)), dilation: taps.dilation, groups }
    }
}

vectorised! {
    /// y = bias + the taps of each feature's own kernel.
    fn depthwise<'a, F: Float>(
        kernel: usize,
        weight: &'a [F],       // [I, K]
        bias: Option<&'a [F]>, // [I]
        columns: &'a [F],      // [N, I, K]
        y: &'a mut [F],        // [N, I]
    ) {
        let features = weight.len() / kernel;
        for (y, columns) in y.chunks_exact_mut(features).zip(columns.chunks_exact(weight.len())) {
            match bias {
                Some(bias) => y.copy_from_slice(bias),
                None => y.fill(F::zero()),
            }
            for ((y, column), weight) in
                y.iter_mut().zip(columns.chunks_exact(kernel)).zip(weight.chunks_exact(kernel))
            {
                for (&value, &weight) in column.iter().zip(weight) {
                    *y += value * weight;
                }
            }
        }
    }
}

vectorised! {
    /// dW += dy ∘ columns; columns = dy ∘ W.
    fn depthwise_backward<'a, F: Float>(
        kernel: usize,
        weight: &'a [F],      // [I, K]
        dy: &'a [F],          // [N, I]
        columns: &'a mut [F], // [N, I, K]
        dweight: &'a mut [F], // [I, K]
    ) {
        let features = weight.len() / kernel;
        for (dy, columns) in dy.chunks_exact(features).zip(columns.chunks_exact_mut(weight.len())) {
            let kernels = weight.chunks_exact(kernel).zip(dweight.chunks_exact_mut(kernel));
            for ((&dy, column), (weight, dweight)) in dy.iter().zip(columns.chunks_exact_mut(kernel)).zip(kernels) {
                for ((value, &weight), dweight) in column.iter_mut().zip(weight).zip(dweight) {
                    *dweight += dy * *value;
                    *value = dy * weight;
                }
            }
        }
    }
}

/// The cache of a [`CausalConv1d`].
#[derive(Default)]
pub struct CausalConv1dCache<F> {
    pending: Pending,
    pieces: Pieces,
    x_copy: StandardLayout<F>,
    dy_copy: StandardLayout<F>,
    before: Array3<F>,  // [P, B, I]: the state before the pass
    zeros: Vec<F>,      // [I]
    columns: Array2<F>, // [rows of a block, I · K]
    y: Array3<F>,       // [T, B, O]
    dx: Array3<F>,      // [T, B, I]
    dbefore: Array3<F>, // [P, B, I]
}
opaque_debug! { CausalConv1dCache<F: Float> }

impl<F: Float> CausalConv1dCache<F> {
    /// `[T, B, O]`, after a forward pass.
    pub(super) fn output(&self) -> ArrayView3<'_, F> {
        self.y.view()
    }

    /// `[T, B, I]`, after a backward pass; unspecified if it was not wanted.
    pub(super) fn input_gradient(&self) -> ArrayView3<'_, F> {
        self.dx.view()
    }
}

/// The number of elements in a block of [gathered](Taps::gather) rows, which stays in the L2 cache.
const BLOCK: usize = 1 << 16;

/// The minimum number of rows in a block: with fewer, the copy of the weight that each product makes would not pay off.
const BLOCK_ROWS: usize = 256;

/// `range` in blocks of at most `rows`.
fn blocks(range: std::ops::Range<usize>, rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let end = range.end;
    range.step_by(rows).map(move |first| first..end.min(first + rows))
}

/// The number of rows to gather at a time, of `all` rows of `width` elements.
fn block_rows(all: usize, width: usize) -> usize {
    (BLOCK / width).max(BLOCK_ROWS).min(all)
}

once! {
    /// `y`, left in the cache, and the new state, in place. Messages call the layer `name`.
    #[track_caller]
    pub(super) fn forward<'a, F: Float>(
        name: &'static str,
        layer: &'a CausalConv1d<F>,
        taps: Taps,
        x: &'a Sequence<'a, F>,
        state: &'a mut Array3<F>,
        cache: &'a mut CausalConv1dCache<F>,
    ) {
        let CausalConv1dCache { pending, pieces, x_copy, before, zeros, columns, y, .. } = cache;
        let mark = pending.begin(layer, x);
        let (input, output) = (layer.input_size(), layer.checked_output());
        let features = x.features(name, Some(input));
        let out = x.every(taps.stride);
        let (steps, batch) = out.dims();
        check_batch(name, "state", x.dims(), &[taps.reach(), x.state_rows(), input], state.shape(0));
        pieces.plan(x);
        zeros.resize(input, F::zero());
        reuse(before, state.raw_dim());
        before.assign(state);
        reuse(y, (steps, batch, output));
        let width = input * taps.kernel;
        let rows = block_rows(steps * batch, width);
        reuse(columns, (rows, width));
        let history = History { pieces, x: x_copy.values(features), before: before.values(0), zeros };
        for block in out.runs().flat_map(|run| blocks(run, rows)) {
            let columns = rows_of(columns, &(0..block.len()));
            taps.gather(x, history, block.clone(), input, columns);
            layer.multiply(x, matrix(columns, width), matrix_mut(rows_of(y, &block), output));
        }
        out.zero_padding(y);
        taps.advance(x, history, input, state.tensor_mut(0));
        mark.set();
    }

    /// `dx`, left in the cache, and the gradient of the initial state, in place. Messages call the layer `name`.
    #[track_caller]
    pub(super) fn backward<'a, F: Float>(
        name: &'static str,
        layer: &'a CausalConv1d<F>,
        taps: Taps,
        x: &'a Sequence<'a, F>,
        dy: &'a ArrayRef3<F>,
        dstate: Option<&'a mut Array3<F>>,
        cache: &'a mut CausalConv1dCache<F>,
        grad: Gradient<'a, CausalConv1d<F>>,
    ) {
        let CausalConv1dCache { pending, pieces, x_copy, dy_copy, before, zeros, columns, dx, dbefore, .. } = cache;
        let (input, output, out) = (layer.input_size(), layer.checked_output(), x.every(taps.stride));
        pending.take_with_steps(name, layer, x, dy, [out.dims().0, output]);
        let (grad, mut how) = grad.parts();
        check_gradient(name, layer, &*grad);
        let (features, dy) = (x.features(name, Some(input)), dy_copy.rows(dy.view()));
        let (steps, batch) = x.dims();
        if let Some(dbias) = &mut grad.bias {
            bias_gradient(&out, dy, dbias, how);
        }
        let wanted = x.wants_gradient() || dstate.is_some();
        reuse(dx, (steps, batch, if wanted { input } else { 0 }));
        dx.set_zero();
        if let Some(dstate) = &dstate {
            check_batch(name, "dstate", x.dims(), before.shape(0), dstate.shape(0));
            reuse(dbefore, before.raw_dim());
            dbefore.set_zero();
        }
        let mut gradient = HistoryGradient {
            pieces,
            dx: dx.tensor_mut(0),
            dbefore: dstate.is_some().then(|| dbefore.tensor_mut(0)),
        };
        if let Some(dstate) = &dstate {
            taps.advance_backward(x, dstate.values(0), input, &mut gradient);
        }
        let width = input * taps.kernel;
        let rows = block_rows(dy.nrows(), width);
        let history = History { pieces, x: x_copy.values(features), before: before.values(0), zeros };
        for block in out.runs().flat_map(|run| blocks(run, rows)) {
            let columns = rows_of(columns, &(0..block.len()));
            taps.gather(x, history, block.clone(), input, columns);
            let dy = dy.slice(s![block.clone(), ..]);
            layer.multiply_backward(dy, matrix_mut(columns, width), grad.weight.tensor_mut(0), how, wanted);
            how = Accumulate::Add;
            if wanted {
                taps.scatter(x, columns, block, input, &mut gradient);
            }
        }
        start(&mut grad.weight, how); // if no row is valid
        if let Some(dstate) = dstate {
            dstate.assign(dbefore);
        }
    }
}

impl<F: Float> Layer for CausalConv1d<F> {
    type Elem = F;
    type State = Array3<F>;
    type Cache = CausalConv1dCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        match input {
            Size::Features(features) if features == self.input_size() => Ok(self.weight.dim().0),
            input => Err(SizeError::features(NAME, self.input_size(), input)),
        }
    }

    fn zero_state(&self, batch: usize) -> Array3<F> {
        Array3::zeros((self.taps(1).reach(), batch, self.input_size()))
    }

    fn add_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        let (output, taps, input) = (self.checked_output(), self.taps(1), x.features(NAME)?);
        // In the order in which the steps are read.
        let read = graph.in_order_of_reading(x, x.value);
        let (state, reach) = (graph.take_state()?, taps.reach() as i64);
        let before = graph.initial_state(state);
        let (all, missing) = match before.filter(|_| reach > 0) {
            Some(before) => (graph.node("Concat", &[before, read], &[("axis", 0.into())]), 0), // [P + T, B, I]
            None => (read, reach),
        };
        let weight = graph.parameter("weight", self.weight.shape(), self.weight.iter().copied().collect());
        let bias = self.bias.as_ref().map(|bias| graph.parameter("bias", &[output], bias.to_vec()));
        let batch_first = graph.node("Transpose", &[all], &[("perm", vec![1, 2, 0].into())]);
        let attributes = [
            ("dilations", vec![taps.dilation as i64].into()),
            ("group", (self.groups as i64).into()),
            ("kernel_shape", vec![taps.kernel as i64].into()),
            ("pads", vec![missing, 0].into()),
            ("strides", vec![1].into()),
        ];
        let y = graph.node_of("Conv", &[Some(batch_first), Some(weight), bias], &attributes, 1)[0];
        let y = graph.node("Transpose", &[y], &[("perm", vec![2, 0, 1].into())]);
        if graph.has_states() {
            let last = match graph.lengths(x) {
                _ if reach == 0 => before,
                None => Some(graph.slice(all, [-reach, i64::MAX], 0)),
                Some(lengths) => {
                    let axes = graph.integers(&[0, 2]);
                    let lengths = graph.node("Cast", &[lengths], &[("to", 7.into())]);
                    let lengths = graph.node("Unsqueeze", &[lengths, axes], &[]); // [1, B, 1]
                    let axes = graph.integers(&[1, 2]);
                    let steps = graph.integers(&(0..reach).collect::<Vec<_>>());
                    let steps = graph.node("Unsqueeze", &[steps, axes], &[]); // [P, 1, 1]
                    let steps = graph.node("Add", &[steps, lengths], &[]);
                    let (length, batch) = (graph.integers(&[reach]), graph.batch());
                    let width = graph.integers(&[input as i64]);
                    let shape = graph.node("Concat", &[length, batch, width], &[("axis", 0.into())]);
                    let steps = graph.node("Expand", &[steps, shape], &[]);
                    Some(graph.node("GatherElements", &[all, steps], &[("axis", 0.into())]))
                }
            };
            if let Some(last) = last {
                graph.set_final_state(state, last);
            }
        }
        let y = graph.in_order_of_reading(x, y);
        Ok(x.with(y, output))
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        state: &mut Array3<F>,
        cache: &'c mut CausalConv1dCache<F>,
    ) -> ArrayView3<'c, F> {
        forward(NAME, self, self.taps(1), &x.reborrow(), state, cache);
        cache.output()
    }

    fn output<'c>(&self, cache: &'c CausalConv1dCache<F>) -> ArrayView3<'c, F> {
        cache.output()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut Array3<F>>,
        cache: &'c mut CausalConv1dCache<F>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, F> {
        backward(NAME, self, self.taps(1), &x.reborrow(), dy, dstate, cache, grad);
        cache.input_gradient()
    }
}

impl<F: Float> Causal for CausalConv1d<F> {}
