//! The minimal gated unit.

mod equations;
mod loops;
mod options;

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rand::Rng;

use self::loops::{forget, forget_backward, update, update_backward};
pub use self::options::MguOptions;
use super::builder::{BuiltCell, CellBuilder, Draw, constructors};
use super::heads::Heads;
use super::hidden::FromHidden;
use super::inputs::FromInput;
use super::options::{CommonOptions, DEFAULT_EPS, probabilities, probability};
use super::units::{flat, flat_mut};
use super::weights::{Weights, add_bias_gradients, cell_sizes, values, values_mut};
use crate::base::{Init, RandomDrop, TensorsExt};
use crate::kernels::{Accumulate, Float};
use crate::layer::Gradient;
use crate::layer::kit::{opaque_debug, reuse};
use crate::layer::rows::{rows_of, view_mut_of_rows, view_of_rows};
use crate::parameters;
use crate::recurrence::{AllSteps, Cell, CellSizes, CellStep, CellStepBackward, Unrolled, Zoneout, compiled_loop};

const NAME: &str = "MguCell";

/// A minimal gated unit (Zhou, Wu, Zhang and Zhou 2016): a GRU with a single gate that is both reset and update gate, and with two
/// thirds of the weights.
///
/// ```text
/// f_t = σ(W_if x_t + W_hf h_{t-1} + b_f)              forget gate: what is overwritten
/// v_t = f_t ∘ h_{t-1}
/// n_t = tanh(W_in x_t + W_hn v_t + b_n)               the candidate
/// h_t = (1 - f_t) ∘ h_{t-1} + f_t ∘ n_t
/// ```
///
/// As in the paper, f acts before the product, and near 1 it overwrites the state: the opposite of a
/// [GRU](crate::recurrent::GruCell)'s z, which near 1 keeps it.
///
/// Backward, where `dy` is `dL/dy` and `dh_t` is the whole gradient, from the loss and from step `t + 1`:
///
/// ```text
/// da_n = dh_t ∘ f_t ∘ tanh'(n_t)        dv = W_hnᵀ da_n
/// df   = dh_t ∘ (n_t - h_{t-1}) + dv ∘ h_{t-1}
/// da_f = df ∘ σ'(f_t)
/// dh_{t-1} = dh_t ∘ (1 - f_t) + dv ∘ f_t + W_hfᵀ da_f
/// dx_t = W_ifᵀ da_f + W_inᵀ da_n        dW_ih = Σ da x_tᵀ    dW_hf = Σ da_f h_{t-1}ᵀ    dW_hn = Σ da_n v_tᵀ    db = Σ da
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` (all `h_t`) | `[T, B, H]` |
/// | state `h` | `[B, H]` |
///
/// The weights are stacked in the order f, n. There is one bias, since a second would be redundant.
///
/// # Variants
/// Options of the [builder](MguCell::builder), in any combination:
///
/// | | |
/// | --- | --- |
/// | [`layer_norm`](CellBuilder::layer_norm) | each `W v` becomes `γ ∘ n(W v)`, n over each gate separately (Ba, Kiros and Hinton 2016) |
/// | [`heads`](CellBuilder::heads) | `W_h` of each gate is block-diagonal: a unit reads only the h of its own head |
/// | [`recurrent_dropout`](CellBuilder::recurrent_dropout) | each `W_h v` becomes `W_h (m ∘ v)`, one mask for all steps (Gal and Ghahramani 2016) |
/// | [`zoneout`](CellBuilder::zoneout) | units of h keep their values at random: see [`Zoneout`] |
///
/// ```
/// use gradflow::{Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::MguCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell = MguCell::<f32>::builder(3, 4).forget_bias(-1.0).build(rng);
/// let y = cell.forward(&Array3::ones((5, 2, 3)), &mut cell.zero_state(2), &mut cell.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 4));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MguCell<F> {
    /// `[2 H, I]`
    pub weight_ih: Array2<F>,
    /// `[2 H, H]`; with heads `[2 H, H / heads]`
    pub weight_hh: Array2<F>,
    /// `[2 H]`, if there is a bias.
    pub bias_ih: Option<Array1<F>>,
    /// `[2 H]`, with layer normalisation: the gain `γ_ih`
    pub norm_ih: Option<Array1<F>>,
    /// `[2 H]`, with layer normalisation: the gain `γ_hh`
    pub norm_hh: Option<Array1<F>>,
    norm_eps: f64,
    heads: usize,
    recurrent_dropout: Option<RandomDrop>,
    zoneout: Option<Zoneout>,
}
parameters! {
    impl<F: Float> Tensors<F> for MguCell<F> {
        weight_ih, weight_hh, bias_ih, norm_ih, norm_hh; skip norm_eps, heads, recurrent_dropout, zoneout
    }
}

impl<F: Float> BuiltCell for MguCell<F> {
    type Elem = F;
    type Options = MguOptions;

    #[track_caller]
    fn draw<R: Rng + ?Sized>(options: &MguOptions, draw: &mut Draw<'_, R>) -> Self {
        let MguOptions { recurrent_dropout, heads, common } = *options;
        let CommonOptions { bias, layer_norm, zoneout } = common;
        let (input, hidden) = (draw.input, draw.hidden);
        let gain = || layer_norm.map(|_| Array1::ones(2 * hidden));
        MguCell {
            weight_ih: draw.weight("weight_ih", [2, hidden, input], Init::XavierUniform { gain: 1.0 }),
            weight_hh: draw.recurrent_weight(2, hidden, heads),
            bias_ih: bias.then(|| draw.bias("bias_ih", 2, &[0, 1], &[])),
            norm_ih: gain(),
            norm_hh: gain(),
            norm_eps: layer_norm.unwrap_or(DEFAULT_EPS),
            heads,
            recurrent_dropout: draw.recurrent_dropout(recurrent_dropout),
            zoneout: draw.zoneout(zoneout, 0.0),
        }
    }
}

constructors! { MguCell, "A cell with the defaults of [`CellBuilder`]." }

impl<F: Float> MguCell<F> {
    /// H, the number of output features.
    pub fn hidden_size(&self) -> usize {
        self.weight_hh.nrows() / 2
    }

    /// The cell's options: everything besides its weights.
    pub fn options(&self) -> MguOptions {
        let [zoneout, _] = probabilities(self.zoneout);
        MguOptions {
            recurrent_dropout: probability(self.recurrent_dropout),
            heads: self.heads,
            common: CommonOptions {
                bias: self.bias_ih.is_some(),
                layer_norm: self.norm_ih.is_some().then_some(self.norm_eps),
                zoneout,
            },
        }
    }

    /// The weights of x, those from h to f, and those from v to n.
    fn weights(&self) -> [Weights<'_, F>; 3] {
        let (hidden, eps) = (self.hidden_size(), self.norm_eps);
        let [f, n] = Weights::split(&self.weight_hh, &self.norm_hh, eps, hidden);
        [Weights::whole(&self.weight_ih, &self.norm_ih, eps, [hidden, hidden]), f, n]
    }
}

/// The values that an [`MguCell`] keeps for its backward pass.
#[derive(Clone, Default)]
pub struct MguBuffers<F> {
    input: FromInput<F>,
    hidden_f: FromHidden<F>,
    hidden_n: FromHidden<F>,
    gates: Array2<F>, // [R, 2 H]: a, then f, n and, after a backward pass, their da
    v: Array2<F>,     // [R, H]
    dv: Array2<F>,    // [B, H]
    df: Array2<F>,    // [B, H]: the part of df that comes from h
    scratch: Array2<F>,
}
opaque_debug!(MguBuffers<F: Float>);

impl<F: Float> Cell for MguCell<F> {
    type Elem = F;
    type State = Array2<F>;
    type Buffers = MguBuffers<F>;

    compiled_loop! { MguCell }

    fn sizes(&self) -> CellSizes {
        let per_gate = [&self.bias_ih, &None, &self.norm_ih, &self.norm_hh];
        let (input, output) = cell_sizes(NAME, 2, self.heads, None, [&self.weight_ih, &self.weight_hh], per_gate);
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

    fn begin(&self, pass: &Unrolled<'_, F>, buffers: &mut MguBuffers<F>) {
        let MguBuffers { input, hidden_f, hidden_n, v, .. } = buffers;
        let [weights_ih, weights_f, weights_n] = self.weights();
        input.start(&weights_ih, pass);
        let heads = Heads::new(NAME, self.heads, self.hidden_size());
        hidden_f.start(weights_f, heads, NAME, self.recurrent_dropout, pass);
        hidden_n.start(weights_n, heads, NAME, self.recurrent_dropout, pass);
        reuse(v, (pass.rows(), self.hidden_size()));
    }

    fn project_input(&self, pass: &Unrolled<'_, F>, x: ArrayView2<'_, F>, buffers: &mut MguBuffers<F>) {
        let [weights, ..] = self.weights();
        buffers.input.project_input(weights, values(&self.bias_ih), pass, x, &mut buffers.gates);
    }

    fn forward_step(&self, step: CellStep<'_, F>, buffers: &mut MguBuffers<F>) {
        let MguBuffers { hidden_f, hidden_n, gates, v, .. } = buffers;
        let CellStep { rows, h_before, h, .. } = step;
        let ([_, weights_f, weights_n], hidden) = (self.weights(), self.hidden_size());
        // a_f += W_hf h_{t-1}
        let (a_f, _) = view_mut_of_rows(gates.view_mut(), &rows).split_at(Axis(1), hidden);
        hidden_f.add(weights_f, &rows, h_before, a_f);
        forget(hidden, rows_of(gates, &rows), flat(h_before), rows_of(v, &rows));
        // a_n += W_hn v
        let (_, a_n) = view_mut_of_rows(gates.view_mut(), &rows).split_at(Axis(1), hidden);
        hidden_n.add(weights_n, &rows, view_of_rows(v.view(), &rows), a_n);
        update(hidden, rows_of(gates, &rows), flat(h_before), flat_mut(h));
    }

    fn clear_gradient(&self, grad: &mut Self) {
        let MguCell { bias_ih, norm_ih, norm_hh, .. } = grad;
        [bias_ih, norm_ih, norm_hh].into_iter().for_each(TensorsExt::set_zero);
    }

    fn begin_backward(&self, pass: &Unrolled<'_, F>, buffers: &mut MguBuffers<F>) {
        let MguBuffers { hidden_f, hidden_n, dv, df, .. } = buffers;
        let [_, weights_f, weights_n] = self.weights();
        hidden_f.start_backward(weights_f.weight, pass);
        hidden_n.start_backward(weights_n.weight, pass);
        reuse(dv, (pass.batch(), self.hidden_size()));
        reuse(df, (pass.batch(), self.hidden_size()));
    }

    fn backward_step(&self, step: CellStepBackward<'_, F>, buffers: &mut MguBuffers<F>, grad: &mut Self) {
        let MguBuffers { hidden_f, hidden_n, gates, dv, df, scratch, .. } = buffers;
        let CellStepBackward { rows, h_before, mut dh, .. } = step;
        let ([_, weights_f, weights_n], hidden, first) = (self.weights(), self.hidden_size(), 0..rows.len());
        let (da_f, da_n) = (s![rows.clone(), ..hidden], s![rows.clone(), hidden..]);
        let (dnorm_f, dnorm_n) = values_mut(&mut grad.norm_hh).map(|gain| gain.split_at_mut(hidden)).unzip();
        let df = rows_of(df, &first);
        update_backward(hidden, rows_of(gates, &rows), flat(h_before), flat_mut(dh.view_mut()), df);
        // dv = W_hnᵀ da_n
        let dv_now = dv.slice_mut(s![first.clone(), ..]);
        hidden_n.backward(weights_n, &rows, gates.slice(da_n), dnorm_n, dv_now, Accumulate::Overwrite, scratch);
        let dv = rows_of(dv, &first);
        forget_backward(hidden, rows_of(gates, &rows), flat(h_before), df, dv, flat_mut(dh.view_mut()));
        // dh_{t-1} += W_hfᵀ da_f
        hidden_f.backward(weights_f, &rows, gates.slice(da_f), dnorm_f, dh, Accumulate::Add, scratch);
    }

    fn finish_backward(&self, pass: AllSteps<'_, F>, buffers: &mut MguBuffers<F>, grad: Gradient<'_, Self>) {
        let (grad, how) = grad.parts();
        let MguBuffers { input, hidden_f, hidden_n, gates, v, .. } = buffers;
        let ([weights, ..], hidden, normalised) = (self.weights(), self.hidden_size(), self.norm_hh.is_some());
        let (da_f, da_n) = gates.view().split_at(Axis(1), hidden);
        let (dw_f, dw_n) = grad.weight_hh.view_mut().split_at(Axis(0), hidden);
        hidden_f.weight_gradient(normalised, da_f, pass.h_before, dw_f, how);
        hidden_n.weight_gradient(normalised, da_n, v.view(), dw_n, how);
        input.finish(weights, pass, gates.view(), grad.weight_ih.view_mut(), values_mut(&mut grad.norm_ih), how);
        add_bias_gradients(gates.view(), [&mut grad.bias_ih]);
    }
}
