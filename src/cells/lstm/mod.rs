//! The long short-term memory cell.

mod equations;
mod loops;
mod onnx;
mod options;
mod stage;

use ndarray::{Array1, Array2, ArrayView2, s};
use rand::Rng;

use self::loops::{
    Equations, add_products, backward, memory, memory_backward, memory_gradients, output, output_backward,
};
pub use self::options::LstmOptions;
use self::options::{FORGET, INPUT, OUTPUT};
use super::activations::{Chosen, STANDARD};
use super::builder::{BuiltCell, CellBuilder, Draw, constructors};
use super::heads::Heads;
use super::hidden::FromHidden;
use super::inputs::FromInput;
use super::normal::Normal;
use super::onnx::operator_cell;
use super::operand::StepProduct;
use super::options::{CommonOptions, DEFAULT_EPS, Start, probabilities, probability};
use super::units::{flat, flat_mut};
use super::weights::{Weights, add_bias_gradients, add_biases, cell_sizes, values, values_mut};
use crate::base::error::mismatch;
use crate::base::{Init, RandomDrop, Tensors, TensorsExt, check_shape};
use crate::kernels::{Accumulate, Float, product};
use crate::layer::affine::add_rows;
use crate::layer::kit::{opaque_debug, reuse};
use crate::layer::rows::{rows_of, view_mut_of_rows};
use crate::layer::{Gradient, Stage};
use crate::layers::LayerNorm;
use crate::parameters;
use crate::recurrence::{
    AllSteps, Cell, CellSizes, CellStep, CellStepBackward, LstmState, Unrolled, Zoneout, compiled_loop,
};

const NAME: &str = "LstmCell";

/// A long short-term memory cell (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).
///
/// ```text
/// i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)        input gate: what is written
/// f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)        forget gate: what is kept
/// g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)     the candidate
/// o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)        output gate: what is read
/// c_t = f_t ∘ c_{t-1} + i_t ∘ g_t                       the memory
/// h_t = o_t ∘ tanh(c_t)
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` (all `h_t`) | `[T, B, H]`, with a projection `[T, B, P]` |
/// | state `h` | `[B, H]`, with a projection `[B, P]` |
/// | state `c` | `[B, H]` |
///
/// The weights are stacked in the order i, f, g, o and named as in PyTorch's `nn.LSTMCell`.
///
/// Backward, where `dy` is `dL/dy`, `dh_t` is the whole gradient, from the loss and from step `t + 1`, and `dc⁺` is the gradient
/// from step `t + 1`:
///
/// ```text
/// da_o = dh_t ∘ tanh(c_t) ∘ σ'(o_t)                 σ'(y) = y (1 - y),  tanh'(y) = 1 - y²,  of their values y
/// dc_t = dc⁺ + dh_t ∘ o_t ∘ tanh'(tanh(c_t))
/// da_i = dc_t ∘ g_t ∘ σ'(i_t)        da_f = dc_t ∘ c_{t-1} ∘ σ'(f_t)        da_g = dc_t ∘ i_t ∘ tanh'(g_t)
/// dc_{t-1} = dc_t ∘ f_t              dh_{t-1} = W_hhᵀ da_t                  dx_t = W_ihᵀ da_t
/// dW_ih = Σ da_t x_tᵀ                dW_hh = Σ da_t h_{t-1}ᵀ                db_ih = db_hh = Σ da_t
/// ```
///
/// The memory's gradient passes a step only through `f_t`, not through a matrix: a gate near 1 carries it as far as needed.
///
/// # Variants
/// Options of the [builder](LstmCell::builder), in any combination:
///
/// | | |
/// | --- | --- |
/// | [`peepholes`](CellBuilder::peepholes) | the gates read the memory: `p_i ∘ c_{t-1}`, `p_f ∘ c_{t-1}` and `p_o ∘ c_t` are added inside their σ (Gers and Schmidhuber 2000) |
/// | [`coupled`](CellBuilder::coupled) | `f_t = 1 - i_t`, without separate weights (Greff et al. 2017) |
/// | [`gate_activation`](CellBuilder::gate_activation), [`candidate_activation`](CellBuilder::candidate_activation), [`output_activation`](CellBuilder::output_activation) | other functions in place of σ, of tanh in g and of tanh in h, with their derivatives in place of σ' and tanh': all those of ONNX's `LSTM`, and most of Keras' |
/// | [`clip`](CellBuilder::clip) | `i_t = σ(max(-limit, min(limit, a_i)))`, and likewise for f, g and o: ONNX's `clip` |
/// | [`projection`](CellBuilder::projection) | `h_t = W_hr (o_t ∘ tanh(c_t))`, PyTorch's `proj_size` (Sak et al. 2014) |
/// | [`layer_norm`](CellBuilder::layer_norm) | the gates' sums are `γ_ih ∘ n(W_ih x_t) + b_ih + γ_hh ∘ n(W_hh h_{t-1}) + b_hh`, n over all gates together, and `h_t = o_t ∘ tanh(γ_c ∘ n(c_t) + β_c)` (Ba, Kiros and Hinton 2016); [another eps](CellBuilder::layer_norm_eps) |
/// | [`heads`](CellBuilder::heads) | `W_hh` of each gate is block-diagonal: a unit reads only the h of its own head |
/// | [`recurrent_dropout`](CellBuilder::recurrent_dropout) | `W_hh (mask ∘ h_{t-1})`, one mask for all steps (Gal and Ghahramani 2016) |
/// | [`zoneout`](CellBuilder::zoneout) | units of h and c keep their values at random: see [`Zoneout`] |
///
/// ```
/// use gradflow::{Causal, Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell = LstmCell::<f32>::new(3, 4, rng);
/// let (mut state, mut cache) = (cell.zero_state(2), cell.cache());
/// let y = cell.forward(&Array3::ones((5, 2, 3)), &mut state, &mut cache);
/// assert_eq!(y.dim(), (5, 2, 4));
/// // One step at a time, from where the sequence ended:
/// let y = cell.step(&Array3::ones((1, 2, 3)), &mut state, &mut cache);
/// assert_eq!(y, state.h);
///
/// let variant: LstmCell<f32> = LstmCell::builder(3, 4).peepholes().coupled().layer_norm().build(rng);
/// assert_eq!(variant.weight_ih.dim(), (3 * 4, 3)); // gates i, g, o
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LstmCell<F> {
    /// `[4 H, I]`: i, f, g, o; with coupled gates `[3 H, I]`: i, g, o
    pub weight_ih: Array2<F>,
    /// `[4 H, H]`, with a projection `[4 H, P]`; with coupled gates 3 H rows; with heads `H / heads` or `P / heads` columns
    pub weight_hh: Array2<F>,
    /// `[4 H]`; without biases, both are `None`.
    pub bias_ih: Option<Array1<F>>,
    /// `[4 H]`
    pub bias_hh: Option<Array1<F>>,
    /// `[P, H]`, the projection, if there is one.
    pub weight_hr: Option<Array2<F>>,
    /// `[3, H]`, with peepholes: the weights of i, f and o; with coupled gates `[2, H]`: i and o
    pub peephole: Option<Array2<F>>,
    /// `[4 H]`, with layer normalisation: the gain `γ_ih`
    pub norm_ih: Option<Array1<F>>,
    /// `[4 H]`, with layer normalisation: the gain `γ_hh`
    pub norm_hh: Option<Array1<F>>,
    /// `[H]` each, with layer normalisation: weight `γ_c` and bias `β_c`
    pub norm_c: Option<LayerNorm<F>>,
    coupled: bool,
    chosen: Option<Chosen>,
    norm_eps: f64,
    heads: usize,
    recurrent_dropout: Option<RandomDrop>,
    zoneout: Option<Zoneout>,
}
parameters! {
    impl<F: Float> Tensors<F> for LstmCell<F> {
        weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole, norm_ih, norm_hh, norm_c;
        skip coupled, chosen, norm_eps, heads, recurrent_dropout, zoneout
    }
}

impl<F: Float> BuiltCell for LstmCell<F> {
    type Elem = F;
    type Options = LstmOptions;

    #[track_caller]
    fn draw<R: Rng + ?Sized>(options: &LstmOptions, draw: &mut Draw<'_, R>) -> Self {
        let LstmOptions {
            peepholes,
            coupled,
            projection,
            recurrent_dropout,
            heads,
            zoneout_c,
            gate_activation: gate,
            candidate_activation: candidate,
            output_activation: output_f,
            clip,
            common,
        } = *options;
        let CommonOptions { bias, layer_norm, zoneout } = common;
        let (input, hidden, gates) = (draw.input, draw.hidden, self::options::gates(coupled));
        let (count, output) = (gates.len(), projection.unwrap_or(hidden));
        if let Some(size) = projection.filter(|size| !(1..hidden).contains(size)) {
            // As in PyTorch, a projection must reduce the number of features.
            mismatch(NAME, "projection", &format_args!("at least 1 and fewer than the {hidden} hidden units"), &size)
        }
        let xavier = Init::XavierUniform { gain: 1.0 };
        let mut default_bias = vec![(FORGET, Start::Init(Init::Constant(1.0)))];
        if coupled {
            default_bias.push((INPUT, Start::NegativeOf(FORGET)));
        }
        let gain = || layer_norm.map(|_| Array1::ones(count * hidden));
        LstmCell {
            weight_ih: draw.weight("weight_ih", [count, hidden, input], xavier),
            weight_hh: draw.recurrent_weight(count, output, heads),
            weight_hr: projection.map(|projection| draw.weight("weight_hr", [1, projection, hidden], xavier)),
            bias_ih: bias.then(|| draw.bias("bias_ih", 4, gates, &default_bias)),
            bias_hh: bias.then(|| draw.bias("bias_hh", 4, gates, &[])),
            peephole: peepholes.then(|| Array2::zeros((count - 1, hidden))),
            norm_ih: gain(),
            norm_hh: gain(),
            norm_c: layer_norm.map(|eps| LayerNorm::new(hidden).eps(eps)),
            coupled,
            chosen: Chosen { gate, candidate, output: output_f, clip }.unless_standard(),
            norm_eps: layer_norm.unwrap_or(DEFAULT_EPS),
            heads,
            recurrent_dropout: draw.recurrent_dropout(recurrent_dropout),
            zoneout: draw.zoneout(zoneout, zoneout_c),
        }
    }
}

constructors! { LstmCell, "A cell with the defaults of [`CellBuilder`]: forget bias 1, orthogonal recurrent weights." }

impl<F: Float> LstmCell<F> {
    /// H, the size of the memory.
    pub fn hidden_size(&self) -> usize {
        self.weight_hh.nrows() / self.gate_count()
    }

    /// The cell's options: everything besides its weights.
    pub fn options(&self) -> LstmOptions {
        let [zoneout, zoneout_c] = probabilities(self.zoneout);
        let Chosen { gate, candidate, output, clip } = self.chosen.unwrap_or(STANDARD);
        LstmOptions {
            peepholes: self.peephole.is_some(),
            coupled: self.coupled,
            projection: self.weight_hr.as_ref().map(|weight_hr| weight_hr.nrows()),
            recurrent_dropout: probability(self.recurrent_dropout),
            heads: self.heads,
            zoneout_c,
            gate_activation: gate,
            candidate_activation: candidate,
            output_activation: output,
            clip,
            common: CommonOptions {
                bias: self.bias_ih.is_some() || self.bias_hh.is_some(),
                layer_norm: self.norm_ih.is_some().then_some(self.norm_eps),
                zoneout,
            },
        }
    }

    /// The options that change the equations, and the activations.
    fn equations(&self) -> (Option<&Chosen>, Equations) {
        let equations = Equations { coupled: self.coupled, peepholes: self.peephole.is_some() };
        (self.chosen.as_ref(), equations)
    }

    /// The number of features of h.
    fn output_size(&self) -> usize {
        self.weight_hh.ncols() * self.heads
    }

    fn gate_count(&self) -> usize {
        options::gates(self.coupled).len()
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

/// The values that an [`LstmCell`] keeps for its backward pass.
#[derive(Clone, Default)]
pub struct LstmBuffers<F> {
    input: FromInput<F>,
    hidden: FromHidden<F>,
    bias: Array1<F>,     // [4 H]: the sum of both
    gates: Array2<F>,    // [R, 4 H]: a, then the kept i, f, g, o and, after a backward pass, their da
    normal_c: Normal<F>, // [R, H], with layer normalisation: n(c)
    u: Array2<F>,        // [R, H], with layer normalisation: γ_c ∘ n(c) + β_c, which is read in place of c
    projection: Projection<F>,
    scratch: Array2<F>,
}
opaque_debug!(LstmBuffers<F: Float>);

/// The additional buffers of a projection `h = W_hr m`; unused without one.
#[derive(Clone, Default)]
struct Projection<F> {
    product: StepProduct<F>,
    m: Array2<F>,  // [R, H]: o ∘ tanh(u)
    dm: Array2<F>, // [B, H]
    dh: Array2<F>, // [R, P]: dL/dh of every step
}

impl<F: Float> Cell for LstmCell<F> {
    type Elem = F;
    type State = LstmState<F>;
    type Buffers = LstmBuffers<F>;

    fn sizes(&self) -> CellSizes {
        let output = self.weight_hr.as_ref().map(|weight_hr| weight_hr.nrows());
        let (gates, heads) = (self.gate_count(), self.heads);
        let per_gate = [&self.bias_ih, &self.bias_hh, &self.norm_ih, &self.norm_hh];
        let (input, hidden) = cell_sizes(NAME, gates, heads, output, [&self.weight_ih, &self.weight_hh], per_gate);
        if let Some(weight_hr) = &self.weight_hr {
            check_shape(NAME, "weight_hr", &[self.output_size(), hidden], weight_hr.shape());
        }
        if let Some(peephole) = &self.peephole {
            check_shape(NAME, "peephole", &[self.gate_count() - 1, hidden], peephole.shape());
        }
        CellSizes { name: NAME, input, output: self.output_size(), memory: hidden }
    }

    fn initial_state(&self, batch: usize) -> LstmState<F> {
        let (output, memory) = (self.output_size(), self.hidden_size());
        LstmState { h: Array2::zeros((batch, output)), c: Array2::zeros((batch, memory)) }
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

    compiled_loop! { LstmCell }

    fn begin(&self, pass: &Unrolled<'_, F>, buffers: &mut LstmBuffers<F>) {
        let LstmBuffers { input, hidden, projection, normal_c, u, .. } = buffers;
        let ([weights_ih, weights], size) = (self.weights(), self.hidden_size());
        input.start(&weights_ih, pass);
        hidden.start(weights, Heads::new(NAME, self.heads, size), NAME, self.recurrent_dropout, pass);
        if let Some(weight_hr) = &self.weight_hr {
            projection.product.start(weight_hr.t(), pass);
            reuse(&mut projection.m, (pass.rows(), size));
        }
        if self.norm_c.is_some() {
            normal_c.start((pass.rows(), size));
            reuse(u, (pass.rows(), size));
        }
    }

    fn project_input(&self, pass: &Unrolled<'_, F>, x: ArrayView2<'_, F>, buffers: &mut LstmBuffers<F>) {
        let [weights, _] = self.weights();
        let LstmBuffers { input, gates, bias, .. } = buffers;
        let bias = add_biases([&self.bias_ih, &self.bias_hh], self.weight_ih.nrows(), bias);
        input.project_input(weights, bias, pass, x, gates);
    }

    fn forward_step(&self, step: CellStep<'_, F>, buffers: &mut LstmBuffers<F>) {
        let LstmBuffers { hidden, gates, normal_c, u, projection, .. } = buffers;
        let CellStep { rows, h_before, c_before, mut h, c, .. } = step;
        let ([_, weights], size) = (self.weights(), self.hidden_size());
        // a += W_hh h_{t-1}
        hidden.add(weights, &rows, h_before, view_mut_of_rows(gates.view_mut(), &rows));

        let (gates, c_before, c) = (rows_of(gates, &rows), flat(c_before), flat_mut(c));
        let ((chosen, equations), peephole) = (self.equations(), values(&self.peephole).unwrap_or(&[]));
        let m = match &self.weight_hr {
            Some(_) => rows_of(&mut projection.m, &rows),
            None => flat_mut(h.view_mut()),
        };
        memory(chosen, size, equations, gates, peephole, c_before, c);
        if let Some(norm) = &self.norm_c {
            // u = γ_c ∘ n(c) + β_c
            let mut u = u.slice_mut(s![rows.clone(), ..]);
            u.assign(&norm.bias);
            flat_mut(normal_c.z(&rows)).copy_from_slice(c);
            normal_c.add(&rows, [size, 0], (norm.weight.tensor(0).1, norm.eps), u.view_mut());
            output(chosen, size, equations, gates, peephole, c, flat(u.view()), m);
        } else {
            output(chosen, size, equations, gates, peephole, c, c, m);
        }
        if let Some(weight_hr) = &self.weight_hr {
            let m = projection.m.slice(s![rows, ..]);
            projection.product.multiply(m, weight_hr.t(), h, Accumulate::Overwrite);
        }
    }

    fn clear_gradient(&self, grad: &mut Self) {
        let LstmCell { bias_ih, bias_hh, peephole, norm_ih, norm_hh, norm_c, .. } = grad;
        [bias_ih, bias_hh, norm_ih, norm_hh].into_iter().for_each(TensorsExt::set_zero);
        peephole.set_zero();
        norm_c.set_zero();
    }

    fn begin_backward(&self, pass: &Unrolled<'_, F>, buffers: &mut LstmBuffers<F>) {
        let LstmBuffers { hidden, projection, .. } = buffers;
        hidden.start_backward(self.weight_hh.view(), pass);
        if let Some(weight_hr) = &self.weight_hr {
            projection.product.start_backward(weight_hr.view(), pass);
            reuse(&mut projection.dm, (pass.batch(), self.hidden_size()));
            reuse(&mut projection.dh, (pass.rows(), weight_hr.nrows()));
        }
    }

    fn backward_step(&self, step: CellStepBackward<'_, F>, buffers: &mut LstmBuffers<F>, grad: &mut Self) {
        let LstmBuffers { hidden, gates, normal_c, u, projection, scratch, .. } = buffers;
        let CellStepBackward { rows, c_before, c, mut dh, mut dc, mut recorder, .. } = step;
        let ([_, weights], size) = (self.weights(), self.hidden_size());
        let (gates_now, c_before, c) = (rows_of(gates, &rows), flat(c_before), flat(c));
        let ((chosen, equations), peephole) = (self.equations(), values(&self.peephole).unwrap_or(&[]));
        let dm = match &self.weight_hr {
            Some(weight_hr) => {
                // dm = W_hrᵀ dh
                let first = 0..rows.len();
                projection.dh.slice_mut(s![rows.clone(), ..]).assign(&dh);
                let dm = projection.dm.slice_mut(s![first.clone(), ..]);
                projection.product.multiply(dh.view(), weight_hr.view(), dm, Accumulate::Overwrite);
                &*rows_of(&mut projection.dm, &first)
            }
            None => &*flat_mut(dh.view_mut()),
        };
        if let (Some(norm), Some(dnorm)) = (&self.norm_c, &mut grad.norm_c) {
            // From dm to du, and through the normalisation to dc.
            let mut u = u.slice_mut(s![rows.clone(), ..]);
            output_backward(chosen, size, equations, gates_now, dm, flat_mut(u.view_mut()));
            add_rows(u.view(), dnorm.bias.tensor_mut(0));
            normal_c.backward(&rows, [size, 0], norm.weight.tensor(0).1, u.view(), dnorm.weight.tensor_mut(0));
            dc += &normal_c.dz(&rows);
            let dc = flat_mut(dc);
            recorder.memory(size, || memory_gradients(chosen, size, gates_now, peephole, c, None, dc));
            memory_backward(chosen, size, equations, gates_now, peephole, c_before, dc);
        } else {
            let dc = flat_mut(dc);
            recorder.memory(size, || memory_gradients(chosen, size, gates_now, peephole, c, Some(dm), dc));
            backward(chosen, size, equations, gates_now, peephole, c_before, c, dm, dc);
        }
        if let Some(dpeephole) = &mut grad.peephole {
            // dp_i = Σ da_i ∘ c_{t-1}, dp_f = Σ da_f ∘ c_{t-1}, dp_o = Σ da_o ∘ c_t
            let seen: &[(usize, &[F])] = if self.coupled {
                &[(INPUT, c_before), (OUTPUT - 1, c)]
            } else {
                &[(INPUT, c_before), (FORGET, c_before), (OUTPUT, c)]
            };
            for ((gate, c), dp) in seen.iter().zip(dpeephole.tensor_mut(0).chunks_exact_mut(size)) {
                add_products(self.gate_count() * size, &gates_now[gate * size..], c, dp);
            }
        }
        // dh_{t-1} = W_hhᵀ da
        let da = gates.slice(s![rows.clone(), ..]);
        hidden.backward(weights, &rows, da, values_mut(&mut grad.norm_hh), dh, Accumulate::Overwrite, scratch);
    }

    fn finish_backward(&self, pass: AllSteps<'_, F>, buffers: &mut LstmBuffers<F>, grad: Gradient<'_, Self>) {
        let (grad, how) = grad.parts();
        let LstmBuffers { input, hidden, gates, projection, .. } = buffers;
        let ([weights, _], da) = (self.weights(), gates.view());
        let dw_hh = grad.weight_hh.view_mut();
        hidden.weight_gradient(self.norm_hh.is_some(), da, pass.h_before, dw_hh, how);
        if let Some(dw_hr) = &mut grad.weight_hr {
            product(projection.dh.t(), projection.m.view(), dw_hr.view_mut(), how);
        }
        input.finish(weights, pass, da, grad.weight_ih.view_mut(), values_mut(&mut grad.norm_ih), how);
        add_bias_gradients(da, [&mut grad.bias_ih, &mut grad.bias_hh]);
    }
}
