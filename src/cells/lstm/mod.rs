//! The long short-term memory cell.

mod equations;
mod loops;

use ndarray::{Array1, Array2, ArrayView2, s};
use rand::Rng;

use self::loops::{add_products, backward, memory_gradients, read, read_backward, remember, remember_backward};
use super::builder::{BuiltCell, CellBuilder, Gated, Model, Options, Parameters};
use super::products::{HiddenPart, InputPart, Normal, StepProduct, Weights, add_bias_gradients, add_biases};
use super::{cell_sizes, flat, flat_mut, values, values_mut};
use crate::base::{Init, RandomDrop, Tensors, TensorsExt, check_shape};
use crate::kernels::{Accumulate, Float, product};
use crate::layer::Gradient;
use crate::layer::affine::add_rows;
use crate::layer::kit::reuse;
use crate::layer::rows::{rows_of, view_mut_of_rows};
use crate::layers::LayerNorm;
use crate::parameters;
use crate::recurrence::{AllSteps, Cell, CellSizes, CellStep, CellStepBackward, LstmState, Unrolled, Zoneout};

const NAME: &str = "LstmCell";

/// A long short-term memory cell (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).
///
/// ```text
/// i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)        input gate: what is written
/// f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)        forget gate: what is kept
/// g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)     what could be written
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
/// The memory's gradient passes a step through `f_t` alone, no matrix: a gate near 1 carries it as far as needed. The
/// weights are stacked in the order i, f, g, o and named as in PyTorch's `nn.LSTMCell`.
///
/// # Variants
/// Options of the [builder](LstmCell::builder), in any combination:
///
/// | | |
/// | --- | --- |
/// | [`peepholes`](CellBuilder::peepholes) | the gates see the memory: `p_i ∘ c_{t-1}`, `p_f ∘ c_{t-1}` and `p_o ∘ c_t` are added under their σ (Gers and Schmidhuber 2000) |
/// | [`coupled`](CellBuilder::coupled) | `f_t = 1 - i_t`, without weights of its own (Greff et al. 2017) |
/// | [`projection`](CellBuilder::projection) | `h_t = W_hr (o_t ∘ tanh(c_t))`, PyTorch's `proj_size` (Sak et al. 2014) |
/// | [`layer_norm`](CellBuilder::layer_norm) | the gates' sums are `γ_ih ∘ n(W_ih x_t) + b_ih + γ_hh ∘ n(W_hh h_{t-1}) + b_hh`, n over all gates together, and `h_t = o_t ∘ tanh(γ_c ∘ n(c_t) + β_c)` (Ba, Kiros and Hinton 2016) |
/// | [`recurrent_dropout`](CellBuilder::recurrent_dropout) | `W_hh (m ∘ h_{t-1})`, one mask for all steps (Gal and Ghahramani 2016) |
/// | [`zoneout`](CellBuilder::zoneout) | units of h and c that keep their values: see [`Zoneout`] |
///
/// ```
/// use gradflow::{Causal, Layer, LstmCell, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell = LstmCell::<f32>::new(3, 4, rng);
/// let (mut state, mut cache) = (cell.zero_state(2), cell.cache());
/// let y = cell.forward((&Array3::ones((5, 2, 3))).into(), &mut state, &mut cache);
/// assert_eq!(y.dim(), (5, 2, 4));
/// // One step at a time, from where the sequence ended:
/// let y = cell.step(&Array3::ones((1, 2, 3)), &mut state, &mut cache);
/// assert_eq!(y, state.h);
///
/// let variant: LstmCell<f32> = LstmCell::builder(3, 4).peepholes().coupled().layer_norm().build(rng);
/// assert_eq!(variant.weight_ih.dim(), (3 * 4, 3)); // gates i, g, o
/// ```
#[derive(Clone, Debug)]
pub struct LstmCell<F> {
    /// `[4 H, I]`: i, f, g, o; with coupled gates `[3 H, I]`: i, g, o
    pub weight_ih: Array2<F>,
    /// `[4 H, H]`, with a projection `[4 H, P]`; with coupled gates 3 H rows
    pub weight_hh: Array2<F>,
    /// `[4 H]`; without biases, both are `None`.
    pub bias_ih: Option<Array1<F>>,
    /// `[4 H]`
    pub bias_hh: Option<Array1<F>>,
    /// `[P, H]`, the projection, where there is one.
    pub weight_hr: Option<Array2<F>>,
    /// `[3, H]`, with peepholes: those of i, f and o; with coupled gates `[2, H]`: i and o
    pub peephole: Option<Array2<F>>,
    /// `[4 H]`, with layer normalisation: the gain `γ_ih`
    pub norm_ih: Option<Array1<F>>,
    /// `[4 H]`, with layer normalisation: the gain `γ_hh`
    pub norm_hh: Option<Array1<F>>,
    /// `[H]` each, with layer normalisation: weight `γ_c` and bias `β_c`
    pub norm_c: Option<LayerNorm<F>>,
    coupled: bool,
    recurrent_dropout: Option<RandomDrop>,
    zoneout: Option<Zoneout>,
}
parameters! {
    impl<F: Float> Tensors<F> for LstmCell<F> {
        weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole, norm_ih, norm_hh, norm_c;
        skip coupled, recurrent_dropout, zoneout
    }
}

/// The gates' places in the order i, f, g, o.
const GATES: &[usize] = &[0, 1, 2, 3];
const COUPLED_GATES: &[usize] = &[0, 2, 3];
const INPUT: usize = 0;
const FORGET: usize = 1;

impl<F: Float> BuiltCell for LstmCell<F> {
    type Elem = F;
    const DEFAULT_BIAS: Option<(usize, f64)> = Some((FORGET, 1.0));

    fn gates(options: &Options) -> &'static [usize] {
        if options.coupled { COUPLED_GATES } else { GATES }
    }

    fn assemble(parameters: Parameters<F>, options: &Options) -> Self {
        let Parameters { weight_ih, weight_hh, weight_hr, bias_ih, bias_hh, norm_ih, norm_hh } = parameters;
        let hidden = options.hidden;
        LstmCell {
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
            weight_hr,
            peephole: options.peepholes.then(|| Array2::zeros((if options.coupled { 2 } else { 3 }, hidden))),
            norm_c: norm_ih.is_some().then(|| LayerNorm::new(hidden)),
            norm_ih,
            norm_hh,
            coupled: options.coupled,
            recurrent_dropout: options.recurrent_dropout,
            zoneout: options.zoneout,
        }
    }
}

impl<F: Float> Gated for LstmCell<F> {
    const KEEPS: usize = FORGET;
    const WRITES: Option<usize> = Some(INPUT);
}

impl<F: Float> LstmCell<F> {
    /// A cell with the defaults of [`CellBuilder`]: forget bias 1, orthogonal recurrent weights.
    pub fn new(input: usize, hidden: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::builder(input, hidden).build(rng)
    }

    /// To choose variants, and how each parameter starts.
    pub fn builder(input: usize, hidden: usize) -> CellBuilder<Self> {
        CellBuilder::new(input, hidden)
    }

    /// All parameters zero, for weights that will be loaded.
    pub fn zeros(input: usize, hidden: usize) -> Self {
        Self::builder(input, hidden).zeros()
    }

    /// I, the number of input features.
    pub fn input_size(&self) -> usize {
        self.weight_ih.ncols()
    }

    /// H, the size of the memory.
    pub fn hidden_size(&self) -> usize {
        self.weight_hh.nrows() / self.gate_count()
    }

    /// Whether `f = 1 - i`.
    pub fn is_coupled(&self) -> bool {
        self.coupled
    }

    fn gate_count(&self) -> usize {
        if self.coupled { 3 } else { 4 }
    }

    /// How the gates see x and h: a product each, normalised over all gates together.
    fn weights(&self) -> [Weights<'_, F>; 2] {
        let groups = [self.weight_ih.nrows(), 0];
        [
            Weights { weight: self.weight_ih.view(), gain: values(&self.norm_ih), groups },
            Weights { weight: self.weight_hh.view(), gain: values(&self.norm_hh), groups },
        ]
    }
}

/// What an [`LstmCell`] keeps for its backward pass.
#[derive(Clone, Default)]
pub struct LstmBuffers<F> {
    input: InputPart<F>,
    hidden: HiddenPart<F>,
    bias: Array1<F>,     // [4 H]: the sum of both
    gates: Array2<F>,    // [R, 4 H]: a, then i, f, g, o and, after a backward pass, their da
    normal_c: Normal<F>, // [R, H], with layer normalisation: n(c)
    u: Array2<F>,        // [R, H], with layer normalisation: γ_c ∘ n(c) + β_c, which is read in place of c
    projection: Projection<F>,
    scratch: Array2<F>,
}

/// What a projection `h = W_hr m` needs besides; unused without one.
#[derive(Clone, Default)]
struct Projection<F> {
    product: StepProduct<F>,
    m: Array2<F>,  // [R, H]: o ∘ tanh(c)
    dm: Array2<F>, // [B, H]
    dh: Array2<F>, // [R, P]: dL/dh of every step
}

impl<F: Float> Cell for LstmCell<F> {
    type Elem = F;
    type State = LstmState<F>;
    type Buffers = LstmBuffers<F>;

    fn sizes(&self) -> CellSizes {
        let output = self.weight_hr.as_ref().map(|weight_hr| weight_hr.nrows());
        let per_gate = [&self.bias_ih, &self.bias_hh, &self.norm_ih, &self.norm_hh];
        let (input, hidden) = cell_sizes(NAME, self.gate_count(), output, [&self.weight_ih, &self.weight_hh], per_gate);
        if let Some(weight_hr) = &self.weight_hr {
            check_shape(NAME, "weight_hr", &[self.weight_hh.ncols(), hidden], weight_hr.shape());
        }
        if let Some(peephole) = &self.peephole {
            check_shape(NAME, "peephole", &[self.gate_count() - 1, hidden], peephole.shape());
        }
        CellSizes { name: NAME, input, output: self.weight_hh.ncols(), memory: hidden }
    }

    fn zoneout(&self) -> Option<Zoneout> {
        self.zoneout
    }

    fn begin(&self, pass: &Unrolled<'_, F>, buffers: &mut LstmBuffers<F>) {
        let LstmBuffers { input, hidden, projection, normal_c, u, .. } = buffers;
        let [weights_ih, weights] = self.weights();
        input.start(&weights_ih, pass);
        hidden.start(weights, NAME, self.recurrent_dropout, pass);
        let size = self.hidden_size();
        if let Some(weight_hr) = &self.weight_hr {
            projection.product.start(weight_hr.t(), pass);
            reuse(&mut projection.m, (pass.rows(), size));
        }
        if self.norm_c.is_some() {
            normal_c.start((pass.rows(), size));
            reuse(u, (pass.rows(), size));
        }
    }

    fn project(&self, pass: &Unrolled<'_, F>, x: ArrayView2<'_, F>, buffers: &mut LstmBuffers<F>) {
        let [weights, _] = self.weights();
        let LstmBuffers { input, gates, bias, .. } = buffers;
        let bias = add_biases([&self.bias_ih, &self.bias_hh], self.weight_ih.nrows(), bias);
        input.project(weights, bias, pass, x, gates);
    }

    fn forward_step(&self, step: CellStep<'_, F>, buffers: &mut LstmBuffers<F>) {
        let LstmBuffers { hidden, gates, normal_c, u, projection, .. } = buffers;
        let CellStep { rows, h_before, c_before, mut h, c, .. } = step;
        let ([_, weights], size) = (self.weights(), self.hidden_size());
        // a += W_hh h_{t-1}
        hidden.add(weights, &rows, h_before, view_mut_of_rows(gates.view_mut(), &rows));

        let (gates, c_before, c) = (rows_of(gates, &rows), flat(c_before), flat_mut(c));
        let peephole = values(&self.peephole).unwrap_or(&[]);
        let m = match &self.weight_hr {
            Some(_) => rows_of(&mut projection.m, &rows),
            None => flat_mut(h.view_mut()),
        };
        remember(size, self.coupled, gates, peephole, c_before, c);
        if let Some(norm) = &self.norm_c {
            // u = γ_c ∘ n(c) + β_c
            let mut u = u.slice_mut(s![rows.clone(), ..]);
            u.assign(&norm.bias);
            flat_mut(normal_c.z(&rows)).copy_from_slice(c);
            normal_c.add(&rows, [size, 0], norm.weight.tensor(0).1, u.view_mut());
            read(size, self.coupled, gates, peephole, c, flat(u.view()), m);
        } else {
            read(size, self.coupled, gates, peephole, c, c, m);
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
        let (coupled, peephole) = (self.coupled, values(&self.peephole).unwrap_or(&[]));
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
            read_backward(size, coupled, gates_now, dm, flat_mut(u.view_mut()));
            add_rows(u.view(), dnorm.bias.tensor_mut(0));
            normal_c.backward(&rows, [size, 0], norm.weight.tensor(0).1, u.view(), dnorm.weight.tensor_mut(0));
            dc += &normal_c.dz(&rows);
            let dc = flat_mut(dc);
            recorder.memory(size, || memory_gradients(size, gates_now, peephole, c, None, dc));
            remember_backward(size, coupled, gates_now, peephole, c_before, dc);
        } else {
            let dc = flat_mut(dc);
            recorder.memory(size, || memory_gradients(size, gates_now, peephole, c, Some(dm), dc));
            backward(size, coupled, gates_now, peephole, c_before, c, dm, dc);
        }
        if let Some(dpeephole) = &mut grad.peephole {
            // dp_i = Σ da_i ∘ c_{t-1}, dp_f = Σ da_f ∘ c_{t-1}, dp_o = Σ da_o ∘ c_t
            let seen: &[(usize, &[F])] =
                if self.coupled { &[(0, c_before), (2, c)] } else { &[(0, c_before), (1, c_before), (3, c)] };
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

impl<F: Float, M: Model<Cell = LstmCell<F>>> CellBuilder<M> {
    /// With gates that see the memory (Gers and Schmidhuber 2000); their weights start at 0.
    pub fn peepholes(mut self) -> Self {
        self.options.peepholes = true;
        self
    }

    /// With `f = 1 - i`: what is forgotten is what is written over (Greff et al. 2017). Unless the input gate's bias is
    /// given, it starts as the negative of the forget gate's, so that the memory holds from the start.
    pub fn coupled(mut self) -> Self {
        self.options.coupled = true;
        self
    }

    /// With h projected to `size` features: a large memory behind a small recurrent product (Sak et al. 2014).
    ///
    /// # Panics
    /// Where `size` is 0.
    #[track_caller]
    pub fn projection(mut self, size: usize) -> Self {
        assert!(size > 0, "{NAME}: sizes must not be 0, got projection {size}");
        self.options.projection = Some(size);
        self
    }

    /// How the projection's weight starts.
    pub fn weight_hr(self, init: impl Into<Init>) -> Self {
        self.projection_weight(init)
    }

    /// How the input gate's bias starts.
    pub fn input_bias(self, init: impl Into<Init>) -> Self {
        self.gate_bias(0, init)
    }

    /// How the forget gate's bias starts: at `b`, an unused memory fades by `σ(b)` a step.
    pub fn forget_bias(self, init: impl Into<Init>) -> Self {
        self.gate_bias(1, init)
    }

    /// How the bias of `g`, what could be written, starts.
    pub fn cell_bias(self, init: impl Into<Init>) -> Self {
        self.gate_bias(2, init)
    }

    /// How the output gate's bias starts.
    pub fn output_bias(self, init: impl Into<Init>) -> Self {
        self.gate_bias(3, init)
    }
}
