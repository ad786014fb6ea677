//! The minimal long short-term memory cell, whose gates do not depend on the state.

mod equations;
mod loops;
mod options;

use ndarray::{Array1, Array2, ArrayView2};
use rand::Rng;

use self::loops::{update, update_backward};
pub use self::options::MinLstmOptions;
use super::builder::{BuiltCell, CellBuilder, Draw, constructors};
use super::inputs::FromInput;
use super::options::{CommonOptions, DEFAULT_EPS, probabilities};
use super::units::{flat, flat_mut};
use super::weights::{Weights, add_bias_gradients, input_sizes, values, values_mut};
use crate::base::{Init, TensorsExt};
use crate::kernels::Float;
use crate::layer::Gradient;
use crate::layer::kit::{opaque_debug, reuse};
use crate::layer::rows::rows_of;
use crate::parameters;
use crate::recurrence::{AllSteps, Cell, CellSizes, CellStep, CellStepBackward, Unrolled, Zoneout, compiled_loop};

const NAME: &str = "MinLstmCell";

/// A minLSTM (Feng, Tung, Ahmed, Bengio and Hajimirsadeghi 2024, "Were RNNs all we needed?"): an LSTM whose gates and candidate
/// depend on x alone, and whose forget and input gates are scaled to add up to 1.
///
/// ```text
/// f_t = σ(W_if x_t + b_f)                    forget gate
/// i_t = σ(W_ii x_t + b_i)                    input gate
/// n_t = W_in x_t + b_n                       the candidate; the paper's h̃
/// f'_t = f_t / (f_t + i_t)                   what is kept
/// i'_t = i_t / (f_t + i_t) = 1 - f'_t        what is written
/// h_t = f'_t ∘ h_{t-1} + i'_t ∘ n_t
/// ```
///
/// There is no product at each step, only one for all steps. This is the paper's plain form, in which no function is applied to n.
/// There is no output gate, and h is the memory. Two gates decide together what z decides alone in a
/// [minGRU](crate::recurrent::MinGruCell). The quotients are also accurate if both gates are almost 0.
///
/// Backward, where `dy` is `dL/dy` and `dh_t` is the whole gradient, from the loss and from step `t + 1`:
///
/// ```text
/// d = dh_t ∘ (h_{t-1} - n_t) ∘ f'_t ∘ i'_t
/// da_f = d ∘ (1 - f_t)        da_i = -d ∘ (1 - i_t)        dn = dh_t ∘ i'_t        dh_{t-1} = dh_t ∘ f'_t
/// dx_t = W_ifᵀ da_f + W_iiᵀ da_i + W_inᵀ dn        dW = Σ [da_f; da_i; dn] x_tᵀ        db = Σ [da_f; da_i; dn]
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` (all `h_t`) | `[T, B, H]` |
/// | state `h` | `[B, H]` |
///
/// The weights are stacked in the order f, i, n.
///
/// # Variants
/// Options of the [builder](MinLstmCell::builder), in any combination:
///
/// | | |
/// | --- | --- |
/// | [`layer_norm`](CellBuilder::layer_norm) | `W x` becomes `γ ∘ n(W x)`, n over f and i together, and over n (Ba, Kiros and Hinton 2016) |
/// | [`zoneout`](CellBuilder::zoneout) | units of h keep their values at random: see [`Zoneout`] |
///
/// There is no recurrent dropout, because there is no recurrent product.
///
/// ```
/// use gradflow::{Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::MinLstmCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell = MinLstmCell::<f32>::builder(3, 4).forget_bias(1.0).build(rng);
/// let y = cell.forward(&Array3::ones((5, 2, 3)), &mut cell.zero_state(2), &mut cell.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 4));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MinLstmCell<F> {
    /// `[3 H, I]`
    pub weight_ih: Array2<F>,
    /// `[3 H]`, if there is a bias.
    pub bias_ih: Option<Array1<F>>,
    /// `[3 H]`, with layer normalisation: the gain `γ`
    pub norm_ih: Option<Array1<F>>,
    norm_eps: f64,
    zoneout: Option<Zoneout>,
}
parameters! {
    impl<F: Float> Tensors<F> for MinLstmCell<F> { weight_ih, bias_ih, norm_ih; skip norm_eps, zoneout }
}

impl<F: Float> BuiltCell for MinLstmCell<F> {
    type Elem = F;
    type Options = MinLstmOptions;

    #[track_caller]
    fn draw<R: Rng + ?Sized>(options: &MinLstmOptions, draw: &mut Draw<'_, R>) -> Self {
        let MinLstmOptions { common } = *options;
        let CommonOptions { bias, layer_norm, zoneout } = common;
        let (input, hidden) = (draw.input, draw.hidden);
        MinLstmCell {
            weight_ih: draw.weight("weight_ih", [3, hidden, input], Init::XavierUniform { gain: 1.0 }),
            bias_ih: bias.then(|| draw.bias("bias_ih", 3, &[0, 1, 2], &[])),
            norm_ih: layer_norm.map(|_| Array1::ones(3 * hidden)),
            norm_eps: layer_norm.unwrap_or(DEFAULT_EPS),
            zoneout: draw.zoneout(zoneout, 0.0),
        }
    }
}

constructors! { MinLstmCell, "A cell with the defaults of [`CellBuilder`]." }

impl<F: Float> MinLstmCell<F> {
    /// H, the number of output features.
    pub fn hidden_size(&self) -> usize {
        self.weight_ih.nrows() / 3
    }

    /// The cell's options: everything besides its weights.
    pub fn options(&self) -> MinLstmOptions {
        let [zoneout, _] = probabilities(self.zoneout);
        let layer_norm = self.norm_ih.is_some().then_some(self.norm_eps);
        MinLstmOptions { common: CommonOptions { bias: self.bias_ih.is_some(), layer_norm, zoneout } }
    }

    fn weights(&self) -> Weights<'_, F> {
        let hidden = self.hidden_size();
        Weights::whole(&self.weight_ih, &self.norm_ih, self.norm_eps, [2 * hidden, hidden])
    }
}

/// The values that a [`MinLstmCell`] keeps for its backward pass.
#[derive(Clone, Default)]
pub struct MinLstmBuffers<F> {
    input: FromInput<F>,
    gates: Array2<F>, // [R, 3 H]: a_f, a_i and n, then 1 - f, 1 - i and n and, after a backward pass, their gradients
    shares: Array2<F>, // [R, 2 H]: f' and i'
}
opaque_debug!(MinLstmBuffers<F: Float>);

impl<F: Float> Cell for MinLstmCell<F> {
    type Elem = F;
    type State = Array2<F>;
    type Buffers = MinLstmBuffers<F>;

    compiled_loop! { MinLstmCell }

    fn sizes(&self) -> CellSizes {
        let (input, output) = input_sizes(NAME, 3, &self.weight_ih, &self.bias_ih, &self.norm_ih);
        CellSizes { name: NAME, input, output, memory: 0 }
    }

    fn initial_state(&self, batch: usize) -> Array2<F> {
        Array2::zeros((batch, self.hidden_size()))
    }

    fn zoneout(&self) -> Option<Zoneout> {
        self.zoneout
    }

    fn begin(&self, pass: &Unrolled<'_, F>, buffers: &mut MinLstmBuffers<F>) {
        buffers.input.start(&self.weights(), pass);
        reuse(&mut buffers.shares, (pass.rows(), 2 * self.hidden_size()));
    }

    fn project_input(&self, pass: &Unrolled<'_, F>, x: ArrayView2<'_, F>, buffers: &mut MinLstmBuffers<F>) {
        buffers.input.project_input(self.weights(), values(&self.bias_ih), pass, x, &mut buffers.gates);
    }

    fn forward_step(&self, step: CellStep<'_, F>, buffers: &mut MinLstmBuffers<F>) {
        let CellStep { rows, h_before, h, .. } = step;
        let (gates, shares) = (rows_of(&mut buffers.gates, &rows), rows_of(&mut buffers.shares, &rows));
        update(self.hidden_size(), gates, shares, flat(h_before), flat_mut(h));
    }

    fn clear_gradient(&self, grad: &mut Self) {
        let MinLstmCell { bias_ih, norm_ih, .. } = grad;
        [bias_ih, norm_ih].into_iter().for_each(TensorsExt::set_zero);
    }

    fn backward_step(&self, step: CellStepBackward<'_, F>, buffers: &mut MinLstmBuffers<F>, _: &mut Self) {
        let CellStepBackward { rows, h_before, dh, .. } = step;
        let (gates, shares) = (rows_of(&mut buffers.gates, &rows), rows_of(&mut buffers.shares, &rows));
        update_backward(self.hidden_size(), gates, shares, flat(h_before), flat_mut(dh));
    }

    fn finish_backward(&self, pass: AllSteps<'_, F>, buffers: &mut MinLstmBuffers<F>, grad: Gradient<'_, Self>) {
        let (grad, how) = grad.parts();
        let MinLstmBuffers { input, gates, .. } = buffers;
        let dnorm = values_mut(&mut grad.norm_ih);
        input.finish(self.weights(), pass, gates.view(), grad.weight_ih.view_mut(), dnorm, how);
        add_bias_gradients(gates.view(), [&mut grad.bias_ih]);
    }
}
