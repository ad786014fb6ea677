//! The LSTM with exponential gates.

mod equations;
mod loops;
mod options;
mod state;

use ndarray::{Array1, Array2, ArrayView2, s};
use rand::Rng;

use self::loops::{backward, memory, memory_gradients, output};
use self::options::FORGET;
pub use self::options::SlstmOptions;
pub use self::state::SlstmState;
use super::builder::{BuiltCell, CellBuilder, Draw, constructors};
use super::heads::Heads;
use super::hidden::FromHidden;
use super::inputs::FromInput;
use super::options::{CommonOptions, DEFAULT_EPS, Start, probabilities, probability};
use super::units::{flat, flat_mut};
use super::weights::{Weights, add_bias_gradients, cell_sizes, values, values_mut};
use crate::base::{Init, RandomDrop, TensorsExt};
use crate::kernels::{Accumulate, Float};
use crate::layer::Gradient;
use crate::layer::kit::{opaque_debug, reuse};
use crate::layer::rows::{rows_of, view_mut_of_rows};
use crate::parameters;
use crate::recurrence::{AllSteps, Cell, CellSizes, CellStep, CellStepBackward, Unrolled, Zoneout, compiled_loop};

const NAME: &str = "SlstmCell";

/// An sLSTM (Beck, Pöppel, Spanring, Auer, Prudnikova, Kopp, Klambauer, Brandstetter and Hochreiter 2024, "xLSTM"): an LSTM with
/// an exponential input gate, a normaliser, and a stabiliser for both.
///
/// ```text
/// a = W_ih x_t + W_hh h_{t-1} + b_ih       the sums a_i, a_f, a_z, a_o
/// z_t = tanh(a_z)                          the candidate
/// o_t = σ(a_o)                             output gate: what is read
/// m_t = max(ln σ(a_f) + m_{t-1}, a_i)      the stabiliser
/// i_t = exp(a_i - m_t)                     input gate: how much what is written weighs
/// f_t = exp(ln σ(a_f) + m_{t-1} - m_t)     forget gate: how much what is there weighs
/// c_t = f_t ∘ c_{t-1} + i_t ∘ z_t          the memory
/// n_t = f_t ∘ n_{t-1} + i_t                the normaliser: the sum of the weights
/// h_t = o_t ∘ c_t / n_t
/// ```
///
/// An LSTM's input gate can at most write the new value in full, whatever was written before. Here, a step can outweigh all others,
/// and so revise the stored value. The memory `c_t / n_t` is a weighted mean of all z. `h_t` does not depend on `m_t`, which is
/// chosen to keep both exponentials at most 1. While nothing is remembered (`n_{t-1} = 0`), `m_t` is `a_i`.
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` (all `h_t`) | `[T, B, H]` |
/// | state [`h`, `c`, `n`, `m`](SlstmState) | `[B, H]` each |
///
/// The weights are stacked in the order i, f, z, o. There is one bias.
///
/// Backward, where `dy` is `dL/dy`, `dh_t` is the whole gradient, from the loss and from step `t + 1`, and `dc⁺`, `dn⁺`, `dm⁺` are
/// the gradients from step `t + 1`:
///
/// ```text
/// da_o = dh_t ∘ c_t / n_t ∘ σ'(o_t)                 σ'(y) = y (1 - y),  tanh'(y) = 1 - y²,  of their values y
/// dc_t = dc⁺ + dh_t ∘ o_t / n_t                     dn_t = dn⁺ - dh_t ∘ o_t ∘ c_t / n_t²
/// da_z = dc_t ∘ i_t ∘ tanh'(z_t)
/// di = (dc_t ∘ z_t + dn_t) ∘ i_t                    du = (dc_t ∘ c_{t-1} + dn_t ∘ n_{t-1}) ∘ f_t
/// dm_t = dm⁺ - di - du                              added to di or to du, whichever is of the larger one of a_i and u = ln σ(a_f) + m_{t-1}
/// da_i = di                                         da_f = du ∘ (1 - σ(a_f))
/// dc_{t-1} = dc_t ∘ f_t                             dn_{t-1} = dn_t ∘ f_t                             dm_{t-1} = du
/// dh_{t-1} = W_hhᵀ da_t                             dx_t = W_ihᵀ da_t
/// dW_ih = Σ da_t x_tᵀ                               dW_hh = Σ da_t h_{t-1}ᵀ                           db_ih = Σ da_t
/// ```
///
/// # Variants
/// Options of the [builder](SlstmCell::builder), in any combination:
///
/// | | |
/// | --- | --- |
/// | [`heads`](CellBuilder::heads) | `W_hh` of each gate is block-diagonal: the paper's memory mixing within heads |
/// | [`exponential_forget`](CellBuilder::exponential_forget) | `f_t = exp(a_f + m_{t-1} - m_t)`, and `m_t = max(a_f + m_{t-1}, a_i)` |
/// | [`layer_norm`](CellBuilder::layer_norm) | the gates' sums are `γ_ih ∘ n(W_ih x_t) + γ_hh ∘ n(W_hh h_{t-1}) + b_ih`, n over all gates together (Ba, Kiros and Hinton 2016) |
/// | [`recurrent_dropout`](CellBuilder::recurrent_dropout) | `W_hh (mask ∘ h_{t-1})`, one mask for all steps (Gal and Ghahramani 2016) |
/// | [`zoneout`](CellBuilder::zoneout) | units of h keep their values at random: see [`Zoneout`] |
///
/// The paper's sLSTM *block* has a convolution, a group normalisation and projections around the cell. Convolution and projections are layers
/// of this crate; the group normalisation is not.
///
/// ```
/// use gradflow::{Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::SlstmCell};
///
/// let cell = SlstmCell::<f32>::builder(3, 8).heads(2).build(&mut StdRng::seed_from_u64(0));
/// let mut state = cell.zero_state(2);
/// let y = cell.forward(&Array3::ones((5, 2, 3)), &mut state, &mut cell.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 8));
/// assert!(state.n.iter().all(|&n| n >= 1.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SlstmCell<F> {
    /// `[4 H, I]`
    pub weight_ih: Array2<F>,
    /// `[4 H, H]`, with heads `[4 H, H / heads]`
    pub weight_hh: Array2<F>,
    /// `[4 H]`, if there is a bias.
    pub bias_ih: Option<Array1<F>>,
    /// `[4 H]`, with layer normalisation: the gain `γ_ih`
    pub norm_ih: Option<Array1<F>>,
    /// `[4 H]`, with layer normalisation: the gain `γ_hh`
    pub norm_hh: Option<Array1<F>>,
    exponential_forget: bool,
    norm_eps: f64,
    heads: usize,
    recurrent_dropout: Option<RandomDrop>,
    zoneout: Option<Zoneout>,
}
parameters! {
    impl<F: Float> Tensors<F> for SlstmCell<F> {
        weight_ih, weight_hh, bias_ih, norm_ih, norm_hh;
        skip exponential_forget, norm_eps, heads, recurrent_dropout, zoneout
    }
}

impl<F: Float> BuiltCell for SlstmCell<F> {
    type Elem = F;
    type Options = SlstmOptions;

    #[track_caller]
    fn draw<R: Rng + ?Sized>(options: &SlstmOptions, draw: &mut Draw<'_, R>) -> Self {
        let SlstmOptions { exponential_forget, recurrent_dropout, heads, common } = *options;
        let CommonOptions { bias, layer_norm, zoneout } = common;
        let (input, hidden) = (draw.input, draw.hidden);
        let forget = Init::Constant(if exponential_forget { 0.0 } else { 1.0 });
        let gain = || layer_norm.map(|_| Array1::ones(4 * hidden));
        SlstmCell {
            weight_ih: draw.weight("weight_ih", [4, hidden, input], Init::XavierUniform { gain: 1.0 }),
            weight_hh: draw.recurrent_weight(4, hidden, heads),
            bias_ih: bias.then(|| draw.bias("bias_ih", 4, &[0, 1, 2, 3], &[(FORGET, Start::Init(forget))])),
            norm_ih: gain(),
            norm_hh: gain(),
            exponential_forget,
            norm_eps: layer_norm.unwrap_or(DEFAULT_EPS),
            heads,
            recurrent_dropout: draw.recurrent_dropout(recurrent_dropout),
            zoneout: draw.zoneout(zoneout, 0.0),
        }
    }
}

constructors! { SlstmCell, "A cell with the defaults of [`CellBuilder`]; its forget bias is 1." }

impl<F: Float> SlstmCell<F> {
    /// H, the number of output features.
    pub fn hidden_size(&self) -> usize {
        self.weight_hh.nrows() / 4
    }

    /// The cell's options: everything besides its weights.
    pub fn options(&self) -> SlstmOptions {
        let [zoneout, _] = probabilities(self.zoneout);
        SlstmOptions {
            exponential_forget: self.exponential_forget,
            recurrent_dropout: probability(self.recurrent_dropout),
            heads: self.heads,
            common: CommonOptions {
                bias: self.bias_ih.is_some(),
                layer_norm: self.norm_ih.is_some().then_some(self.norm_eps),
                zoneout,
            },
        }
    }

    /// The gates' weights of x and h: a product each, normalised over all gates together.
    fn weights(&self) -> [Weights<'_, F>; 2] {
        let (eps, groups) = (self.norm_eps, [self.weight_ih.nrows(), 0]);
        [
            Weights::whole(&self.weight_ih, &self.norm_ih, eps, groups),
            Weights::whole(&self.weight_hh, &self.norm_hh, eps, groups),
        ]
    }
}

/// The values that an [`SlstmCell`] keeps for its backward pass.
#[derive(Clone, Default)]
pub struct SlstmBuffers<F> {
    input: FromInput<F>,
    hidden: FromHidden<F>,
    gates: Array2<F>, // [R, 4 H]: a, then i, f, z, o and, after a backward pass, their da
    slope: Array2<F>, // [R, H], unless the forget gate is an exponential: 1 - σ(a_f)
    scratch: Array2<F>,
}
opaque_debug!(SlstmBuffers<F: Float>);

impl<F: Float> Cell for SlstmCell<F> {
    type Elem = F;
    type State = SlstmState<F>;
    type Buffers = SlstmBuffers<F>;

    compiled_loop! { SlstmCell }

    fn sizes(&self) -> CellSizes {
        let per_gate = [&self.bias_ih, &None, &self.norm_ih, &self.norm_hh];
        let weights = [&self.weight_ih, &self.weight_hh];
        let (input, output) = cell_sizes(NAME, 4, self.heads, None, weights, per_gate);
        CellSizes { name: NAME, input, output, memory: 3 * output }
    }

    fn initial_state(&self, batch: usize) -> SlstmState<F> {
        let zeros = || Array2::zeros((batch, self.hidden_size()));
        SlstmState { h: zeros(), c: zeros(), n: zeros(), m: zeros() }
    }

    fn zoneout(&self) -> Option<Zoneout> {
        self.zoneout
    }

    fn drops(&self) -> bool {
        self.recurrent_dropout.is_some() || self.zoneout.is_some()
    }

    fn begin(&self, pass: &Unrolled<'_, F>, buffers: &mut SlstmBuffers<F>) {
        let SlstmBuffers { input, hidden, slope, .. } = buffers;
        let ([weights_ih, weights], size) = (self.weights(), self.hidden_size());
        input.start(&weights_ih, pass);
        hidden.start(weights, Heads::new(NAME, self.heads, size), NAME, self.recurrent_dropout, pass);
        let slopes = if self.exponential_forget { 0 } else { size };
        reuse(slope, (pass.rows(), slopes));
    }

    fn project_input(&self, pass: &Unrolled<'_, F>, x: ArrayView2<'_, F>, buffers: &mut SlstmBuffers<F>) {
        let [weights, _] = self.weights();
        buffers.input.project_input(weights, values(&self.bias_ih), pass, x, &mut buffers.gates);
    }

    fn forward_step(&self, step: CellStep<'_, F>, buffers: &mut SlstmBuffers<F>) {
        let SlstmBuffers { hidden, gates, slope, .. } = buffers;
        let CellStep { rows, h_before, c_before, h, c, .. } = step;
        let ([_, weights], size) = (self.weights(), self.hidden_size());
        // a += W_hh h_{t-1}
        hidden.add(weights, &rows, h_before, view_mut_of_rows(gates.view_mut(), &rows));
        let (gates, slope, cnm) = (rows_of(gates, &rows), rows_of(slope, &rows), flat_mut(c));
        memory(size, self.exponential_forget, gates, slope, flat(c_before), cnm);
        output(size, gates, cnm, flat_mut(h));
    }

    fn clear_gradient(&self, grad: &mut Self) {
        let SlstmCell { bias_ih, norm_ih, norm_hh, .. } = grad;
        [bias_ih, norm_ih, norm_hh].into_iter().for_each(TensorsExt::set_zero);
    }

    fn begin_backward(&self, pass: &Unrolled<'_, F>, buffers: &mut SlstmBuffers<F>) {
        buffers.hidden.start_backward(self.weight_hh.view(), pass);
    }

    fn backward_step(&self, step: CellStepBackward<'_, F>, buffers: &mut SlstmBuffers<F>, grad: &mut Self) {
        let SlstmBuffers { hidden, gates, slope, scratch, .. } = buffers;
        let CellStepBackward { rows, c_before, c, mut dh, dc, mut recorder, .. } = step;
        let ([_, weights], size) = (self.weights(), self.hidden_size());
        let (gates_now, slope, before, cnm) = (rows_of(gates, &rows), rows_of(slope, &rows), flat(c_before), flat(c));
        let (dh_now, dcnm) = (flat_mut(dh.view_mut()), flat_mut(dc));
        recorder.memory(3 * size, || memory_gradients(size, gates_now, cnm, dh_now, dcnm));
        backward(size, self.exponential_forget, gates_now, slope, before, cnm, dh_now, dcnm);
        // dh_{t-1} = W_hhᵀ da
        let da = gates.slice(s![rows.clone(), ..]);
        hidden.backward(weights, &rows, da, values_mut(&mut grad.norm_hh), dh, Accumulate::Overwrite, scratch);
    }

    fn finish_backward(&self, pass: AllSteps<'_, F>, buffers: &mut SlstmBuffers<F>, grad: Gradient<'_, Self>) {
        let (grad, how) = grad.parts();
        let SlstmBuffers { input, hidden, gates, .. } = buffers;
        let ([weights, _], da) = (self.weights(), gates.view());
        let dw_hh = grad.weight_hh.view_mut();
        hidden.weight_gradient(self.norm_hh.is_some(), da, pass.h_before, dw_hh, how);
        input.finish(weights, pass, da, grad.weight_ih.view_mut(), values_mut(&mut grad.norm_ih), how);
        add_bias_gradients(da, [&mut grad.bias_ih]);
    }
}
