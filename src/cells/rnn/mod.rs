//! The plain recurrent cell.

mod equations;
mod loops;
mod onnx;
mod options;
mod stage;

use ndarray::{Array1, Array2, ArrayView2, s};
use rand::Rng;

use self::loops::{activate, activate_backward};
pub use self::options::RnnOptions;
use super::activations::{Chosen, STANDARD};
use super::builder::{BuiltCell, CellBuilder, Draw, constructors};
use super::heads::Heads;
use super::hidden::FromHidden;
use super::inputs::FromInput;
use super::onnx::operator_cell;
use super::options::{CommonOptions, DEFAULT_EPS, probabilities, probability};
use super::units::{flat, flat_mut};
use super::weights::{Weights, add_bias_gradients, add_biases, cell_sizes, values_mut};
use crate::base::{Init, RandomDrop, TensorsExt};
use crate::kernels::{Accumulate, Float};
use crate::layer::kit::opaque_debug;
use crate::layer::rows::{rows_of, view_mut_of_rows};
use crate::layer::{Gradient, Stage};
use crate::layers::Nonlinearity;
use crate::parameters;
use crate::recurrence::{AllSteps, Cell, CellSizes, CellStep, CellStepBackward, Unrolled, Zoneout, compiled_loop};

const NAME: &str = "RnnCell";

/// A plain recurrent cell (Elman 1990).
///
/// ```text
/// h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)        f: tanh, relu, or another function
/// ```
///
/// Backward, where `dy` is `dL/dy` and `dh_t` is the whole gradient, from the loss and from step `t + 1`:
///
/// ```text
/// da_t = dh_t ∘ f'(h_t)        tanh'(y) = 1 - y²,  relu'(y) = 1 if y > 0, else 0,  of their values y
/// dh_{t-1} = W_hhᵀ da_t        dx_t = W_ihᵀ da_t
/// dW_ih = Σ da_t x_tᵀ          dW_hh = Σ da_t h_{t-1}ᵀ          db_ih = db_hh = Σ da_t
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` (all `h_t`) | `[T, B, H]` |
/// | state `h` | `[B, H]` |
///
/// The gradient of a far `h_{t-k}` passes through k factors `W_hhᵀ diag(f'(a))`, so it vanishes or explodes. This is the problem
/// that [`LstmCell`](crate::recurrent::LstmCell) addresses. Parameters are named as in PyTorch's `nn.RNNCell`.
///
/// # Variants
/// Options of the [builder](RnnCell::builder), in any combination: [`nonlinearity`](CellBuilder::nonlinearity) (relu or any other),
/// [`clip`](CellBuilder::clip) (`h_t = f(max(-limit, min(limit, a_t)))`, ONNX's), [`layer_norm`](CellBuilder::layer_norm)
/// (`a = γ_ih ∘ n(W_ih x_t) + b_ih + γ_hh ∘ n(W_hh h_{t-1}) + b_hh`, Ba, Kiros and Hinton 2016), [`heads`](CellBuilder::heads),
/// [`recurrent_dropout`](CellBuilder::recurrent_dropout), [`zoneout`](CellBuilder::zoneout).
///
/// ```
/// use gradflow::{Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::RnnCell};
///
/// let cell = RnnCell::<f32>::new(3, 4, &mut StdRng::seed_from_u64(0));
/// let mut state = cell.zero_state(2);
/// let y = cell.forward(&Array3::ones((5, 2, 3)), &mut state, &mut cell.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 4));
/// assert_eq!(state, y.index_axis(gradflow::ndarray::Axis(0), 4));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RnnCell<F> {
    /// `[H, I]`
    pub weight_ih: Array2<F>,
    /// `[H, H]`; with heads `[H, H / heads]`
    pub weight_hh: Array2<F>,
    /// `[H]`; without biases, both are `None`.
    pub bias_ih: Option<Array1<F>>,
    /// `[H]`
    pub bias_hh: Option<Array1<F>>,
    /// `[H]`, with layer normalisation: the gain `γ_ih`
    pub norm_ih: Option<Array1<F>>,
    /// `[H]`, with layer normalisation: the gain `γ_hh`
    pub norm_hh: Option<Array1<F>>,
    relu: bool,
    chosen: Option<Chosen>, // neither tanh nor relu
    norm_eps: f64,
    heads: usize,
    recurrent_dropout: Option<RandomDrop>,
    zoneout: Option<Zoneout>,
}
parameters! {
    impl<F: Float> Tensors<F> for RnnCell<F> {
        weight_ih, weight_hh, bias_ih, bias_hh, norm_ih, norm_hh; skip relu, chosen, norm_eps, heads, recurrent_dropout, zoneout
    }
}

impl<F: Float> BuiltCell for RnnCell<F> {
    type Elem = F;
    type Options = RnnOptions;

    #[track_caller]
    fn draw<R: Rng + ?Sized>(options: &RnnOptions, draw: &mut Draw<'_, R>) -> Self {
        let RnnOptions { nonlinearity, clip, recurrent_dropout, heads, common } = *options;
        let relu = nonlinearity == Nonlinearity::Relu && clip.is_none();
        let chosen = Chosen { candidate: nonlinearity, clip, ..STANDARD };
        let CommonOptions { bias, layer_norm, zoneout } = common;
        let (input, hidden) = (draw.input, draw.hidden);
        let gain = || layer_norm.map(|_| Array1::ones(hidden));
        RnnCell {
            weight_ih: draw.weight("weight_ih", [1, hidden, input], Init::XavierUniform { gain: 1.0 }),
            weight_hh: draw.recurrent_weight(1, hidden, heads),
            bias_ih: bias.then(|| draw.bias("bias_ih", 1, &[0], &[])),
            bias_hh: bias.then(|| draw.bias("bias_hh", 1, &[0], &[])),
            norm_ih: gain(),
            norm_hh: gain(),
            relu,
            chosen: chosen.unless_standard().filter(|_| !relu),
            norm_eps: layer_norm.unwrap_or(DEFAULT_EPS),
            heads,
            recurrent_dropout: draw.recurrent_dropout(recurrent_dropout),
            zoneout: draw.zoneout(zoneout, 0.0),
        }
    }
}

constructors! { RnnCell, "A tanh cell with the defaults of [`CellBuilder`]." }

impl<F: Float> RnnCell<F> {
    /// The cell's options: everything besides its weights.
    pub fn options(&self) -> RnnOptions {
        let [zoneout, _] = probabilities(self.zoneout);
        let Chosen { candidate, clip, .. } = self.chosen.unwrap_or(STANDARD);
        RnnOptions {
            nonlinearity: if self.relu { Nonlinearity::Relu } else { candidate },
            clip,
            recurrent_dropout: probability(self.recurrent_dropout),
            heads: self.heads,
            common: CommonOptions {
                bias: self.bias_ih.is_some() || self.bias_hh.is_some(),
                layer_norm: self.norm_ih.is_some().then_some(self.norm_eps),
                zoneout,
            },
        }
    }

    /// H, the number of output features.
    pub fn hidden_size(&self) -> usize {
        self.weight_hh.nrows()
    }

    fn weights(&self) -> [Weights<'_, F>; 2] {
        let (eps, groups) = (self.norm_eps, [self.weight_ih.nrows(), 0]);
        [
            Weights::whole(&self.weight_ih, &self.norm_ih, eps, groups),
            Weights::whole(&self.weight_hh, &self.norm_hh, eps, groups),
        ]
    }
}

/// The values that an [`RnnCell`] keeps for its backward pass.
#[derive(Clone, Default)]
pub struct RnnBuffers<F> {
    input: FromInput<F>,
    hidden: FromHidden<F>,
    bias: Array1<F>, // [H]: the sum of both
    a: Array2<F>,    // [R, H] and, after a backward pass, da
    scratch: Array2<F>,
}
opaque_debug!(RnnBuffers<F: Float>);

impl<F: Float> Cell for RnnCell<F> {
    type Elem = F;
    type State = Array2<F>;
    type Buffers = RnnBuffers<F>;

    fn sizes(&self) -> CellSizes {
        let per_gate = [&self.bias_ih, &self.bias_hh, &self.norm_ih, &self.norm_hh];
        let (input, output) = cell_sizes(NAME, 1, self.heads, None, [&self.weight_ih, &self.weight_hh], per_gate);
        CellSizes { name: NAME, input, output, memory: 0 }
    }

    fn initial_state(&self, batch: usize) -> Array2<F> {
        Array2::zeros((batch, self.hidden_size()))
    }

    fn zoneout(&self) -> Option<Zoneout> {
        self.zoneout
    }

    fn drops(&self) -> bool {
        self.recurrent_dropout.is_some() || self.zoneout.is_some()
    }

    operator_cell!();

    fn stage(&self) -> Option<Box<dyn Stage<F>>> {
        stage::stage(self)
    }

    compiled_loop! { RnnCell }

    fn begin(&self, pass: &Unrolled<'_, F>, buffers: &mut RnnBuffers<F>) {
        let [weights_ih, weights] = self.weights();
        buffers.input.start(&weights_ih, pass);
        let heads = Heads::new(NAME, self.heads, self.hidden_size());
        buffers.hidden.start(weights, heads, NAME, self.recurrent_dropout, pass);
    }

    fn project_input(&self, pass: &Unrolled<'_, F>, x: ArrayView2<'_, F>, buffers: &mut RnnBuffers<F>) {
        let RnnBuffers { input, bias, a, .. } = buffers;
        let [weights, _] = self.weights();
        let bias = add_biases([&self.bias_ih, &self.bias_hh], self.hidden_size(), bias);
        input.project_input(weights, bias, pass, x, a);
    }

    fn forward_step(&self, step: CellStep<'_, F>, buffers: &mut RnnBuffers<F>) {
        let RnnBuffers { hidden, a, .. } = buffers;
        let CellStep { rows, h_before, h, .. } = step;
        let [_, weights] = self.weights();
        // a += W_hh h_{t-1}
        hidden.add(weights, &rows, h_before, view_mut_of_rows(a.view_mut(), &rows));
        activate(self.chosen.as_ref(), self.relu, rows_of(a, &rows), flat_mut(h));
    }

    fn clear_gradient(&self, grad: &mut Self) {
        let RnnCell { bias_ih, bias_hh, norm_ih, norm_hh, .. } = grad;
        [bias_ih, bias_hh, norm_ih, norm_hh].into_iter().for_each(TensorsExt::set_zero);
    }

    fn begin_backward(&self, pass: &Unrolled<'_, F>, buffers: &mut RnnBuffers<F>) {
        buffers.hidden.start_backward(self.weight_hh.view(), pass);
    }

    fn backward_step(&self, step: CellStepBackward<'_, F>, buffers: &mut RnnBuffers<F>, grad: &mut Self) {
        let RnnBuffers { hidden, a: da, scratch, .. } = buffers;
        let CellStepBackward { rows, h, dh, .. } = step;
        activate_backward(self.chosen.as_ref(), self.relu, flat(h), flat(dh.view()), rows_of(da, &rows));
        // dh_{t-1} = W_hhᵀ da
        let ([_, weights], da, dnorm) = (self.weights(), da.slice(s![rows.clone(), ..]), values_mut(&mut grad.norm_hh));
        hidden.backward(weights, &rows, da, dnorm, dh, Accumulate::Overwrite, scratch);
    }

    fn finish_backward(&self, pass: AllSteps<'_, F>, buffers: &mut RnnBuffers<F>, grad: Gradient<'_, Self>) {
        let (grad, how) = grad.parts();
        let RnnBuffers { input, hidden, a: da, .. } = buffers;
        let ([weights, _], da) = (self.weights(), da.view());
        let dw_hh = grad.weight_hh.view_mut();
        hidden.weight_gradient(self.norm_hh.is_some(), da, pass.h_before, dw_hh, how);
        input.finish(weights, pass, da, grad.weight_ih.view_mut(), values_mut(&mut grad.norm_ih), how);
        add_bias_gradients(da, [&mut grad.bias_ih, &mut grad.bias_hh]);
    }
}
