//! The gated recurrent unit.

mod equations;
mod loops;
mod onnx;
mod options;
mod stage;

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rand::Rng;

use self::loops::{
    gate, reset_and_update, reset_and_update_backward, reset_before, reset_before_backward, update_after,
    update_after_backward,
};
pub use self::options::{GruOptions, GruReset};
use super::activations::{Chosen, STANDARD};
use super::builder::{BuiltCell, CellBuilder, Draw, constructors};
use super::heads::Heads;
use super::hidden::FromHidden;
use super::inputs::FromInput;
use super::onnx::operator_cell;
use super::options::{CommonOptions, DEFAULT_EPS, probabilities, probability};
use super::units::{flat, flat_mut};
use super::weights::{Weights, add_biases, cell_sizes, values, values_mut};
use crate::base::{Init, RandomDrop, Tensors, TensorsExt};
use crate::kernels::{Accumulate, Float};
use crate::layer::affine::{add_rows, start_rows};
use crate::layer::kit::{opaque_debug, reuse};
use crate::layer::rows::{matrix_mut, rows_of, view_mut_of_rows, view_of_rows};
use crate::layer::{Gradient, Stage};
use crate::parameters;
use crate::recurrence::{AllSteps, Cell, CellSizes, CellStep, CellStepBackward, Unrolled, Zoneout, compiled_loop};

const NAME: &str = "GruCell";

/// A gated recurrent unit (Cho et al. 2014), with the reset gate after the product, as in PyTorch and cuDNN.
///
/// ```text
/// r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)              reset gate
/// z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)              update gate: what is kept
/// s_t = W_hn h_{t-1} + b_hn
/// n_t = tanh(W_in x_t + b_in + r_t ∘ s_t)                     the candidate
/// h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}
/// ```
///
/// Backward, where `dy` is `dL/dy` and `dh_t` is the whole gradient, from the loss and from step `t + 1`:
///
/// ```text
/// da_n = dh_t ∘ (1 - z_t) ∘ tanh'(n_t)              σ'(y) = y (1 - y),  tanh'(y) = 1 - y²,  of their values y
/// da_z = dh_t ∘ (h_{t-1} - n_t) ∘ σ'(z_t)
/// da_r = da_n ∘ s_t ∘ σ'(r_t)        ds = da_n ∘ r_t
/// dh_{t-1} = dh_t ∘ z_t + W_hrᵀ da_r + W_hzᵀ da_z + W_hnᵀ ds        dx_t = W_ihᵀ [da_r; da_z; da_n]
/// dW_ih = Σ [da_r; da_z; da_n] x_tᵀ  dW_hh = Σ [da_r; da_z; ds] h_{t-1}ᵀ
/// db_ih = Σ [da_r; da_z; da_n]       db_hh = Σ [da_r; da_z; ds]
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` (all `h_t`) | `[T, B, H]` |
/// | state `h` | `[B, H]` |
///
/// The weights are stacked in the order r, z, n and named as in PyTorch's `nn.GRUCell`.
///
/// # Variants
/// Options of the [builder](GruCell::builder), in any combination:
///
/// | | |
/// | --- | --- |
/// | [`reset`](CellBuilder::reset) | before the product: `n_t = tanh(W_in x_t + b_in + W_hn (r_t ∘ h_{t-1}) + b_hn)` (Cho et al. 2014) |
/// | [`gate_activation`](CellBuilder::gate_activation), [`candidate_activation`](CellBuilder::candidate_activation) | other functions in place of σ and of tanh, with their derivatives in place of σ' and tanh': all those of ONNX's `GRU`, and most of Keras' |
/// | [`clip`](CellBuilder::clip) | `r_t = σ(max(-limit, min(limit, a_r)))`, and likewise for z and n: ONNX's `clip` |
/// | [`layer_norm`](CellBuilder::layer_norm) | each `W v` becomes `γ ∘ n(W v)`, n over r and z together, and over n (Ba, Kiros and Hinton 2016) |
/// | [`heads`](CellBuilder::heads) | `W_hh` of each gate is block-diagonal: a unit reads only the h of its own head |
/// | [`recurrent_dropout`](CellBuilder::recurrent_dropout) | each `W_h v` becomes `W_h (m ∘ v)`, one mask for all steps (Gal and Ghahramani 2016) |
/// | [`zoneout`](CellBuilder::zoneout) | units of h keep their values at random: see [`Zoneout`] |
///
/// ```
/// use gradflow::{Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::{GruCell, GruReset}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell = GruCell::<f32>::builder(3, 4).update_bias(1.0).reset(GruReset::BeforeProduct).build(rng);
/// let y = cell.forward(&Array3::ones((5, 2, 3)), &mut cell.zero_state(2), &mut cell.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 4));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GruCell<F> {
    /// `[3 H, I]`
    pub weight_ih: Array2<F>,
    /// `[3 H, H]`; with heads `[3 H, H / heads]`
    pub weight_hh: Array2<F>,
    /// `[3 H]`; without biases, both are `None`.
    pub bias_ih: Option<Array1<F>>,
    /// `[3 H]`
    pub bias_hh: Option<Array1<F>>,
    /// `[3 H]`, with layer normalisation: the gain `γ_ih`
    pub norm_ih: Option<Array1<F>>,
    /// `[3 H]`, with layer normalisation: the gain `γ_hh`
    pub norm_hh: Option<Array1<F>>,
    reset: GruReset,
    chosen: Option<Chosen>,
    norm_eps: f64,
    heads: usize,
    recurrent_dropout: Option<RandomDrop>,
    zoneout: Option<Zoneout>,
}
parameters! {
    impl<F: Float> Tensors<F> for GruCell<F> {
        weight_ih, weight_hh, bias_ih, bias_hh, norm_ih, norm_hh; skip reset, chosen, norm_eps, heads, recurrent_dropout, zoneout
    }
}

impl<F: Float> BuiltCell for GruCell<F> {
    type Elem = F;
    type Options = GruOptions;

    #[track_caller]
    fn draw<R: Rng + ?Sized>(options: &GruOptions, draw: &mut Draw<'_, R>) -> Self {
        let GruOptions {
            reset,
            recurrent_dropout,
            heads,
            gate_activation: gate,
            candidate_activation: candidate,
            clip,
            common,
        } = *options;
        let CommonOptions { bias, layer_norm, zoneout } = common;
        let (input, hidden) = (draw.input, draw.hidden);
        let gain = || layer_norm.map(|_| Array1::ones(3 * hidden));
        GruCell {
            weight_ih: draw.weight("weight_ih", [3, hidden, input], Init::XavierUniform { gain: 1.0 }),
            weight_hh: draw.recurrent_weight(3, hidden, heads),
            bias_ih: bias.then(|| draw.bias("bias_ih", 3, &[0, 1, 2], &[])),
            bias_hh: bias.then(|| draw.bias("bias_hh", 3, &[0, 1, 2], &[])),
            norm_ih: gain(),
            norm_hh: gain(),
            reset,
            chosen: Chosen { gate, candidate, clip, ..STANDARD }.unless_standard(),
            norm_eps: layer_norm.unwrap_or(DEFAULT_EPS),
            heads,
            recurrent_dropout: draw.recurrent_dropout(recurrent_dropout),
            zoneout: draw.zoneout(zoneout, 0.0),
        }
    }
}

constructors! { GruCell, "A cell with the defaults of [`CellBuilder`]." }

impl<F: Float> GruCell<F> {
    /// H, the number of output features.
    pub fn hidden_size(&self) -> usize {
        self.weight_hh.nrows() / 3
    }

    /// The cell's options: everything besides its weights.
    pub fn options(&self) -> GruOptions {
        let [zoneout, _] = probabilities(self.zoneout);
        let Chosen { gate, candidate, output: _, clip } = self.chosen.unwrap_or(STANDARD);
        GruOptions {
            reset: self.reset,
            recurrent_dropout: probability(self.recurrent_dropout),
            heads: self.heads,
            gate_activation: gate,
            candidate_activation: candidate,
            clip,
            common: CommonOptions {
                bias: self.bias_ih.is_some() || self.bias_hh.is_some(),
                layer_norm: self.norm_ih.is_some().then_some(self.norm_eps),
                zoneout,
            },
        }
    }

    /// The weights of x, those from h to r and z, and those from h, or from r ∘ h, to n.
    fn weights(&self) -> [Weights<'_, F>; 3] {
        let (hidden, eps) = (self.hidden_size(), self.norm_eps);
        let [rz, n] = Weights::split(&self.weight_hh, &self.norm_hh, eps, 2 * hidden);
        [Weights::whole(&self.weight_ih, &self.norm_ih, eps, [2 * hidden, hidden]), rz, n]
    }
}

/// The values that a [`GruCell`] keeps for its backward pass.
#[derive(Clone, Default)]
pub struct GruBuffers<F> {
    input: FromInput<F>,
    hidden_rz: FromHidden<F>,
    hidden_n: FromHidden<F>,
    bias: Array1<F>,    // [3 H]: the initial value of all rows of a
    gates: Array2<F>,   // [R, 3 H]: a, then the kept r, z, n and, after a backward pass, their da
    s: Array2<F>,       // [R, H]: s and, after a backward pass, ds; with the reset before the product r ∘ h
    d_reset: Array2<F>, // [B, H], with the reset before the product: d(r ∘ h)
    scratch: Array2<F>,
}
opaque_debug!(GruBuffers<F: Float>);

impl<F: Float> Cell for GruCell<F> {
    type Elem = F;
    type State = Array2<F>;
    type Buffers = GruBuffers<F>;

    fn sizes(&self) -> CellSizes {
        let per_gate = [&self.bias_ih, &self.bias_hh, &self.norm_ih, &self.norm_hh];
        let (input, output) = cell_sizes(NAME, 3, self.heads, None, [&self.weight_ih, &self.weight_hh], per_gate);
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

    compiled_loop! { GruCell }

    fn begin(&self, pass: &Unrolled<'_, F>, buffers: &mut GruBuffers<F>) {
        let GruBuffers { input, hidden_rz, hidden_n, s, .. } = buffers;
        let [weights_ih, weights_rz, weights_n] = self.weights();
        input.start(&weights_ih, pass);
        let heads = Heads::new(NAME, self.heads, self.hidden_size());
        hidden_rz.start(weights_rz, heads, NAME, self.recurrent_dropout, pass);
        hidden_n.start(weights_n, heads, NAME, self.recurrent_dropout, pass);
        reuse(s, (pass.rows(), self.hidden_size()));
    }

    fn project_input(&self, pass: &Unrolled<'_, F>, x: ArrayView2<'_, F>, buffers: &mut GruBuffers<F>) {
        let GruBuffers { input, bias, gates, .. } = buffers;
        let ([weights, ..], hidden) = (self.weights(), self.hidden_size());
        // The reset gate multiplies b_hn, unless it acts before the product.
        let outside = if self.reset == GruReset::AfterProduct { 2 * hidden } else { 3 * hidden };
        let bias = add_biases([&self.bias_ih, &self.bias_hh], outside, bias);
        input.project_input(weights, bias, pass, x, gates);
    }

    fn forward_step(&self, step: CellStep<'_, F>, buffers: &mut GruBuffers<F>) {
        let GruBuffers { hidden_rz, hidden_n, gates, s, .. } = buffers;
        let CellStep { rows, h_before, h, .. } = step;
        let ([_, weights_rz, weights_n], hidden) = (self.weights(), self.hidden_size());
        let chosen = self.chosen.as_ref();
        // a_r += W_hr h_{t-1}, a_z += W_hz h_{t-1}
        let (a_rz, _) = view_mut_of_rows(gates.view_mut(), &rows).split_at(Axis(1), 2 * hidden);
        hidden_rz.add(weights_rz, &rows, h_before, a_rz);
        gate(chosen, hidden, rows_of(gates, &rows));
        match self.reset {
            GruReset::AfterProduct => {
                // s = W_hn h_{t-1} + b_hn
                let s_now = rows_of(s, &rows);
                start_rows(values(&self.bias_hh).map(|bias| &bias[2 * hidden..]), s_now);
                hidden_n.add(weights_n, &rows, h_before, matrix_mut(s_now, hidden));
                reset_and_update(chosen, hidden, rows_of(gates, &rows), rows_of(s, &rows), flat(h_before), flat_mut(h));
            }
            GruReset::BeforeProduct => {
                reset_before(chosen, hidden, rows_of(gates, &rows), flat(h_before), rows_of(s, &rows));
                // a_n += W_hn (r ∘ h_{t-1})
                let (_, a_n) = view_mut_of_rows(gates.view_mut(), &rows).split_at(Axis(1), 2 * hidden);
                hidden_n.add(weights_n, &rows, view_of_rows(s.view(), &rows), a_n);
                update_after(chosen, hidden, rows_of(gates, &rows), flat(h_before), flat_mut(h));
            }
        }
    }

    fn clear_gradient(&self, grad: &mut Self) {
        let GruCell { bias_ih, bias_hh, norm_ih, norm_hh, .. } = grad;
        [bias_ih, bias_hh, norm_ih, norm_hh].into_iter().for_each(TensorsExt::set_zero);
    }

    fn begin_backward(&self, pass: &Unrolled<'_, F>, buffers: &mut GruBuffers<F>) {
        let GruBuffers { hidden_rz, hidden_n, d_reset, .. } = buffers;
        let [_, weights_rz, weights_n] = self.weights();
        hidden_rz.start_backward(weights_rz.weight, pass);
        hidden_n.start_backward(weights_n.weight, pass);
        reuse(d_reset, (pass.batch(), self.hidden_size()));
    }

    fn backward_step(&self, step: CellStepBackward<'_, F>, buffers: &mut GruBuffers<F>, grad: &mut Self) {
        let GruBuffers { hidden_rz, hidden_n, gates, s, d_reset, scratch, .. } = buffers;
        let CellStepBackward { rows, h_before, mut dh, .. } = step;
        let ([_, weights_rz, weights_n], hidden) = (self.weights(), self.hidden_size());
        let chosen = self.chosen.as_ref();
        let (rz, n) = (s![rows.clone(), ..2 * hidden], s![rows.clone(), 2 * hidden..]);
        let dnorm = values_mut(&mut grad.norm_hh).map(|gain| gain.split_at_mut(2 * hidden));
        let (dnorm_rz, dnorm_n) = dnorm.unzip();
        match self.reset {
            GruReset::AfterProduct => {
                let (gates, s_now) = (rows_of(gates, &rows), rows_of(s, &rows));
                reset_and_update_backward(chosen, hidden, gates, s_now, flat(h_before), flat_mut(dh.view_mut()));
                // dh_{t-1} = z ∘ dh + W_hnᵀ ds + …
                let ds = s.slice(s![rows.clone(), ..]);
                hidden_n.backward(weights_n, &rows, ds, dnorm_n, dh.view_mut(), Accumulate::Add, scratch);
            }
            GruReset::BeforeProduct => {
                let first = 0..rows.len();
                update_after_backward(chosen, hidden, rows_of(gates, &rows), flat(h_before), flat_mut(dh.view_mut()));
                // d(r ∘ h) = W_hnᵀ da_n, dh_{t-1} = z ∘ dh + r ∘ d(r ∘ h) + …
                let d_now = d_reset.slice_mut(s![first.clone(), ..]);
                hidden_n.backward(weights_n, &rows, gates.slice(n), dnorm_n, d_now, Accumulate::Overwrite, scratch);
                let (gates, d_now) = (rows_of(gates, &rows), rows_of(d_reset, &first));
                reset_before_backward(chosen, hidden, gates, flat(h_before), d_now, flat_mut(dh.view_mut()));
            }
        }
        // … + W_hrᵀ da_r + W_hzᵀ da_z
        hidden_rz.backward(weights_rz, &rows, gates.slice(rz), dnorm_rz, dh, Accumulate::Add, scratch);
    }

    fn finish_backward(&self, pass: AllSteps<'_, F>, buffers: &mut GruBuffers<F>, grad: Gradient<'_, Self>) {
        let (grad, how) = grad.parts();
        let GruBuffers { input, hidden_rz, hidden_n, gates, s, .. } = buffers;
        let ([weights, ..], hidden, normalised) = (self.weights(), self.hidden_size(), self.norm_hh.is_some());
        let (da, da_rz) = (gates.view(), gates.slice(s![.., ..2 * hidden]));
        // The gradient of the product with W_hn, and the product's input.
        let (dn, v) = match self.reset {
            GruReset::AfterProduct => (s.view(), pass.h_before),
            GruReset::BeforeProduct => (gates.slice(s![.., 2 * hidden..]), s.view()),
        };
        let (dw_rz, dw_n) = grad.weight_hh.view_mut().split_at(Axis(0), 2 * hidden);
        hidden_rz.weight_gradient(normalised, da_rz, pass.h_before, dw_rz, how);
        hidden_n.weight_gradient(normalised, dn, v, dw_n, how);
        input.finish(weights, pass, da, grad.weight_ih.view_mut(), values_mut(&mut grad.norm_ih), how);
        if let Some(bias) = &mut grad.bias_ih {
            add_rows(da, bias.tensor_mut(0));
        }
        if let Some(bias) = &mut grad.bias_hh {
            let (db_rz, db_n) = bias.tensor_mut(0).split_at_mut(2 * hidden);
            add_rows(da_rz, db_rz);
            add_rows(dn, db_n);
        }
    }
}
