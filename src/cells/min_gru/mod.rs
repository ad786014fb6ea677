//! The minimal gated recurrent unit, whose gates do not depend on the state.

mod equations;
mod loops;
mod options;

use ndarray::{Array1, Array2, ArrayView2};
use rand::Rng;

use self::loops::{update, update_backward};
pub use self::options::MinGruOptions;
use super::builder::{BuiltCell, CellBuilder, Draw, constructors};
use super::inputs::FromInput;
use super::options::{CommonOptions, DEFAULT_EPS, probabilities};
use super::units::{flat, flat_mut};
use super::weights::{Weights, add_bias_gradients, input_sizes, values, values_mut};
use crate::base::{Init, TensorsExt};
use crate::kernels::Float;
use crate::layer::Gradient;
use crate::layer::kit::opaque_debug;
use crate::layer::rows::rows_of;
use crate::parameters;
use crate::recurrence::{AllSteps, Cell, CellSizes, CellStep, CellStepBackward, Unrolled, Zoneout, compiled_loop};

const NAME: &str = "MinGruCell";

/// A minGRU (Feng, Tung, Ahmed, Bengio and Hajimirsadeghi 2024, "Were RNNs all we needed?"): a GRU whose gate and candidate depend
/// on x alone.
///
/// ```text
/// z_t = σ(W_iz x_t + b_z)              update gate: what is overwritten
/// n_t = W_in x_t + b_n                 the candidate; the paper's h̃
/// h_t = (1 - z_t) ∘ h_{t-1} + z_t ∘ n_t
/// ```
///
/// There is no product at each step, only one for all steps. This is the paper's plain form, in which no function is applied to n;
/// the paper also has a form for sums of logarithms, in which n must be positive. z near 1 overwrites the state: the opposite of a
/// [GRU](crate::recurrent::GruCell)'s z.
///
/// Backward, where `dy` is `dL/dy` and `dh_t` is the whole gradient, from the loss and from step `t + 1`:
///
/// ```text
/// da_z = dh_t ∘ (n_t - h_{t-1}) ∘ σ'(z_t)        dn = dh_t ∘ z_t        dh_{t-1} = dh_t ∘ (1 - z_t)
/// dx_t = W_izᵀ da_z + W_inᵀ dn                   dW = Σ [da_z; dn] x_tᵀ        db = Σ [da_z; dn]
/// ```
///
/// The gradient of h passes a step only through `1 - z_t`, as that of an LSTM's memory does through its forget gate.
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` (all `h_t`) | `[T, B, H]` |
/// | state `h` | `[B, H]` |
///
/// The weights are stacked in the order z, n.
///
/// # Variants
/// Options of the [builder](MinGruCell::builder), in any combination:
///
/// | | |
/// | --- | --- |
/// | [`layer_norm`](CellBuilder::layer_norm) | `W x` becomes `γ ∘ n(W x)`, n over z and over n separately (Ba, Kiros and Hinton 2016) |
/// | [`zoneout`](CellBuilder::zoneout) | units of h keep their values at random: see [`Zoneout`] |
///
/// There is no recurrent dropout, because there is no recurrent product.
///
/// ```
/// use gradflow::{Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::MinGruCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell = MinGruCell::<f32>::builder(3, 4).update_bias(-1.0).build(rng);
/// let y = cell.forward(&Array3::ones((5, 2, 3)), &mut cell.zero_state(2), &mut cell.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 4));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MinGruCell<F> {
    /// `[2 H, I]`
    pub weight_ih: Array2<F>,
    /// `[2 H]`, if there is a bias.
    pub bias_ih: Option<Array1<F>>,
    /// `[2 H]`, with layer normalisation: the gain `γ`
    pub norm_ih: Option<Array1<F>>,
    norm_eps: f64,
    zoneout: Option<Zoneout>,
}
parameters! {
    impl<F: Float> Tensors<F> for MinGruCell<F> { weight_ih, bias_ih, norm_ih; skip norm_eps, zoneout }
}

impl<F: Float> BuiltCell for MinGruCell<F> {
    type Elem = F;
    type Options = MinGruOptions;

    #[track_caller]
    fn draw<R: Rng + ?Sized>(options: &MinGruOptions, draw: &mut Draw<'_, R>) -> Self {
        let MinGruOptions { common } = *options;
        let CommonOptions { bias, layer_norm, zoneout } = common;
        let (input, hidden) = (draw.input, draw.hidden);
        MinGruCell {
            weight_ih: draw.weight("weight_ih", [2, hidden, input], Init::XavierUniform { gain: 1.0 }),
            bias_ih: bias.then(|| draw.bias("bias_ih", 2, &[0, 1], &[])),
            norm_ih: layer_norm.map(|_| Array1::ones(2 * hidden)),
            norm_eps: layer_norm.unwrap_or(DEFAULT_EPS),
            zoneout: draw.zoneout(zoneout, 0.0),
        }
    }
}

constructors! { MinGruCell, "A cell with the defaults of [`CellBuilder`]." }

impl<F: Float> MinGruCell<F> {
    /// H, the number of output features.
    pub fn hidden_size(&self) -> usize {
        self.weight_ih.nrows() / 2
    }

    /// The cell's options: everything besides its weights.
    pub fn options(&self) -> MinGruOptions {
        let [zoneout, _] = probabilities(self.zoneout);
        let layer_norm = self.norm_ih.is_some().then_some(self.norm_eps);
        MinGruOptions { common: CommonOptions { bias: self.bias_ih.is_some(), layer_norm, zoneout } }
    }

    fn weights(&self) -> Weights<'_, F> {
        let hidden = self.hidden_size();
        Weights::whole(&self.weight_ih, &self.norm_ih, self.norm_eps, [hidden, hidden])
    }
}

/// The values that a [`MinGruCell`] keeps for its backward pass.
#[derive(Clone, Default)]
pub struct MinGruBuffers<F> {
    input: FromInput<F>,
    gates: Array2<F>, // [R, 2 H]: a_z and n, then z and n and, after a backward pass, da_z and dn
}
opaque_debug!(MinGruBuffers<F: Float>);

impl<F: Float> Cell for MinGruCell<F> {
    type Elem = F;
    type State = Array2<F>;
    type Buffers = MinGruBuffers<F>;

    compiled_loop! { MinGruCell }

    fn sizes(&self) -> CellSizes {
        let (input, output) = input_sizes(NAME, 2, &self.weight_ih, &self.bias_ih, &self.norm_ih);
        CellSizes { name: NAME, input, output, memory: 0 }
    }

    fn initial_state(&self, batch: usize) -> Array2<F> {
        Array2::zeros((batch, self.hidden_size()))
    }

    fn zoneout(&self) -> Option<Zoneout> {
        self.zoneout
    }

    fn begin(&self, pass: &Unrolled<'_, F>, buffers: &mut MinGruBuffers<F>) {
        buffers.input.start(&self.weights(), pass);
    }

    fn project_input(&self, pass: &Unrolled<'_, F>, x: ArrayView2<'_, F>, buffers: &mut MinGruBuffers<F>) {
        buffers.input.project_input(self.weights(), values(&self.bias_ih), pass, x, &mut buffers.gates);
    }

    fn forward_step(&self, step: CellStep<'_, F>, buffers: &mut MinGruBuffers<F>) {
        let CellStep { rows, h_before, h, .. } = step;
        update(self.hidden_size(), rows_of(&mut buffers.gates, &rows), flat(h_before), flat_mut(h));
    }

    fn clear_gradient(&self, grad: &mut Self) {
        let MinGruCell { bias_ih, norm_ih, .. } = grad;
        [bias_ih, norm_ih].into_iter().for_each(TensorsExt::set_zero);
    }

    fn backward_step(&self, step: CellStepBackward<'_, F>, buffers: &mut MinGruBuffers<F>, _: &mut Self) {
        let CellStepBackward { rows, h_before, dh, .. } = step;
        update_backward(self.hidden_size(), rows_of(&mut buffers.gates, &rows), flat(h_before), flat_mut(dh));
    }

    fn finish_backward(&self, pass: AllSteps<'_, F>, buffers: &mut MinGruBuffers<F>, grad: Gradient<'_, Self>) {
        let (grad, how) = grad.parts();
        let MinGruBuffers { input, gates } = buffers;
        let dnorm = values_mut(&mut grad.norm_ih);
        input.finish(self.weights(), pass, gates.view(), grad.weight_ih.view_mut(), dnorm, how);
        add_bias_gradients(gates.view(), [&mut grad.bias_ih]);
    }
}
