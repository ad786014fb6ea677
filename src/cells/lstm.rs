//! The long short-term memory cell.

use ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView3};
use rand::Rng;

use super::builder::{FromParameters, Parameters};
use super::history::History;
use super::{CellBuilder, cell_output_size, cell_sizes, final_gradient, sequences};
use crate::affine::{
    StepOperand, add_bias_gradient, add_weight_gradient, affine, input_gradient, matrix, matrix_mut, rows_of, span,
};
use crate::cache::{Pending, StandardLayout, reuse, rows};
use crate::error::{check_gradient, check_shape};
use crate::kernels::math::{sigmoid, tanh};
use crate::kernels::{Accumulate, Packed, vectorised};
use crate::{Causal, Float, Init, Layer, Sequence, Size, SizeError, StateRecorder, parameters};

const NAME: &str = "LstmCell";

/// A long short-term memory cell (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).
///
/// ```text
/// i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)        input gate: what is written
/// f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)        forget gate: what is kept
/// g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)     what could be written
/// o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)        output gate: what is read
/// c_t = f_t ∘ c_{t-1} + i_t ∘ g_t                       the memory
/// h_t = o_t ∘ tanh(c_t)                                 with a projection: h_t = W_hr (o_t ∘ tanh(c_t))
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
/// weights are stacked in the order i, f, g, o and named as in PyTorch's `nn.LSTMCell`. The projection is that of Sak et
/// al. 2014 (PyTorch's `proj_size`).
///
/// ```
/// use gradflow::{Causal, Layer, LstmCell, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
///
/// let cell = LstmCell::<f32>::new(3, 4, &mut StdRng::seed_from_u64(0));
/// let (mut state, mut cache) = (cell.zero_state(2), cell.cache());
/// let y = cell.forward((&Array3::ones((5, 2, 3))).into(), &mut state, &mut cache);
/// assert_eq!(y.dim(), (5, 2, 4));
/// // One step at a time, from where the sequence ended:
/// let y = cell.step(&Array3::ones((1, 2, 3)), &mut state, &mut cache);
/// assert_eq!(y, state.h);
/// ```
#[derive(Clone, Debug)]
pub struct LstmCell<F> {
    /// `[4 H, I]`
    pub weight_ih: Array2<F>,
    /// `[4 H, H]`, with a projection `[4 H, P]`
    pub weight_hh: Array2<F>,
    /// `[4 H]`; without biases, both are `None`.
    pub bias_ih: Option<Array1<F>>,
    /// `[4 H]`
    pub bias_hh: Option<Array1<F>>,
    /// `[P, H]`, the projection, where there is one.
    pub weight_hr: Option<Array2<F>>,
}
parameters! { impl<F: Float> Tensors<F> for LstmCell<F> { weight_ih, weight_hh, bias_ih, bias_hh, weight_hr } }

/// The state of an [`LstmCell`].
#[derive(Clone, Debug, PartialEq)]
pub struct LstmState<F> {
    /// The output of the last step, `[B, H]`; with a projection `[B, P]`.
    pub h: Array2<F>,
    /// The memory, `[B, H]`.
    pub c: Array2<F>,
}
parameters! { impl<F: Float> Tensors<F> for LstmState<F> { h, c } }

impl<F: Float> FromParameters<F> for LstmCell<F> {
    const GATES: usize = 4;
    fn from_parameters(parameters: Parameters<F>) -> Self {
        let Parameters { weight_ih, weight_hh, weight_hr, bias_ih, bias_hh } = parameters;
        LstmCell { weight_ih, weight_hh, bias_ih, bias_hh, weight_hr }
    }
}

impl<F: Float> LstmCell<F> {
    /// A cell with the defaults of [`CellBuilder`]: forget bias 1, orthogonal recurrent weights.
    pub fn new(input: usize, hidden: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::builder(input, hidden).build(rng)
    }

    /// To choose how each parameter starts.
    pub fn builder(input: usize, hidden: usize) -> CellBuilder<Self> {
        CellBuilder::new(input, hidden).forget_bias(1.0)
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
        self.weight_hh.nrows() / 4
    }

    /// The number of output features: H, or with a projection P.
    fn h_size(&self) -> usize {
        self.weight_hh.ncols()
    }

    /// `(I, H, the number of output features)`
    fn sizes(&self) -> (usize, usize, usize) {
        let projection = self.weight_hr.as_ref().map(|weight_hr| weight_hr.nrows());
        let biases = [&self.bias_ih, &self.bias_hh];
        let (input, hidden) = cell_sizes(NAME, 4, projection, [&self.weight_ih, &self.weight_hh], biases);
        if let Some(weight_hr) = &self.weight_hr {
            check_shape(NAME, "weight_hr", &[self.h_size(), hidden], weight_hr.shape());
        }
        (input, hidden, self.h_size())
    }
}

impl<F: Float> CellBuilder<LstmCell<F>> {
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

    /// With h projected to `size` features: a large memory behind a small recurrent product (Sak et al. 2014).
    pub fn projection(self, size: usize) -> Self {
        self.projected(size)
    }

    /// How the projection's weight starts.
    pub fn weight_hr(self, init: impl Into<Init>) -> Self {
        self.projection_weight(init)
    }
}

/// The cache of an [`LstmCell`].
#[derive(Clone, Default)]
pub struct LstmCache<F> {
    pending: Pending,
    x_copy: StandardLayout<F>,
    dy_copy: StandardLayout<F>,
    packed: Packed<F>,
    gates: Array3<F>, // [T, B, 4 H]: i, f, g, o and, after a backward pass, their da
    h: History<F>,    // [T + 1, B, H], with a projection [T + 1, B, P]
    c: History<F>,    // [T + 1, B, H]
    dh: Array2<F>,    // [B, H], with a projection [B, P]
    dc: Array2<F>,    // [B, H]
    dx: Array3<F>,    // [T, B, I]
    projection: Projection<F>,
    recorder: StateRecorder,
}
records_state!(LstmCache);

/// What a projection `h = W_hr m` needs besides; unused without one.
#[derive(Clone, Default)]
struct Projection<F> {
    packed: Packed<F>,
    m: Array3<F>,  // [T, B, H]: o ∘ tanh(c)
    dm: Array2<F>, // [B, H]
    dh: Array3<F>, // [T, B, P]: dL/dh of every step
}

/// Splits a row `[4 H]` into its gates.
#[inline(always)]
fn split<F>(row: &mut [F], hidden: usize) -> [&mut [F]; 4] {
    let (i, row) = row.split_at_mut(hidden);
    let (f, row) = row.split_at_mut(hidden);
    let (g, o) = row.split_at_mut(hidden);
    [i, f, g, o]
}

vectorised! {
    /// The gates' values in place of their a; c and m = o ∘ tanh(c) after the step.
    fn activate<'a, F: Float>(hidden: usize, gates: &'a mut [F], c_before: &'a [F], c: &'a mut [F], m: &'a mut [F]) {
        // A function of its own: as its arguments the compiler knows that the slices do not overlap.
        #[inline(always)]
        fn row<F: Float>(
            i: &mut [F], f: &mut [F], g: &mut [F], o: &mut [F], c_before: &[F], c: &mut [F], m: &mut [F],
        ) {
            let h = m.len();
            assert!([i.len(), f.len(), g.len(), o.len(), c_before.len(), c.len()] == [h; 6]);
            for k in 0..h {
                (i[k], f[k], g[k], o[k]) = (sigmoid(i[k]), sigmoid(f[k]), tanh(g[k]), sigmoid(o[k]));
                c[k] = f[k] * c_before[k] + i[k] * g[k];
                m[k] = o[k] * tanh(c[k]);
            }
        }
        let states = c_before.chunks_exact(hidden).zip(c.chunks_exact_mut(hidden)).zip(m.chunks_exact_mut(hidden));
        for (gates, ((c_before, c), m)) in gates.chunks_exact_mut(4 * hidden).zip(states) {
            let [i, f, g, o] = split(gates, hidden);
            row(i, f, g, o, c_before, c, m);
        }
    }
}

vectorised! {
    /// The gates' da in place of their values, dc before the step in place of dc after it, from dm = dL/d(o ∘ tanh(c)).
    fn activate_backward<'a, F: Float>(
        hidden: usize,
        gates: &'a mut [F],
        c_before: &'a [F],
        c: &'a [F],
        dm: &'a [F],
        dc: &'a mut [F]
    ) {
        #[inline(always)]
        #[allow(clippy::too_many_arguments)]
        fn row<F: Float>(
            i: &mut [F], f: &mut [F], g: &mut [F], o: &mut [F], c_before: &[F], c: &[F], dm: &[F], dc: &mut [F],
        ) {
            let (h, one) = (dm.len(), F::one());
            assert!([i.len(), f.len(), g.len(), o.len(), c_before.len(), c.len(), dc.len()] == [h; 7]);
            for k in 0..h {
                let tanh_c = tanh(c[k]);
                let dc_k = dc[k] + dm[k] * o[k] * (one - tanh_c * tanh_c);
                dc[k] = dc_k * f[k];
                (i[k], f[k], g[k], o[k]) = (
                    dc_k * g[k] * i[k] * (one - i[k]),
                    dc_k * c_before[k] * f[k] * (one - f[k]),
                    dc_k * i[k] * (one - g[k] * g[k]),
                    dm[k] * tanh_c * o[k] * (one - o[k]),
                );
            }
        }
        let states = c_before.chunks_exact(hidden).zip(c.chunks_exact(hidden));
        let gradients = dm.chunks_exact(hidden).zip(dc.chunks_exact_mut(hidden));
        for (gates, ((c_before, c), (dm, dc))) in gates.chunks_exact_mut(4 * hidden).zip(states.zip(gradients)) {
            let [i, f, g, o] = split(gates, hidden);
            row(i, f, g, o, c_before, c, dm, dc);
        }
    }
}

/// dL/dc_t: what came back through c_{t+1}, and through o ∘ tanh(c_t).
fn memory_gradient<'a, F: Float>(
    hidden: usize,
    gates: &'a [F],
    c: &'a [F],
    dm: &'a [F],
    dc: &'a [F],
) -> impl Iterator<Item = F> + 'a {
    let o = gates.chunks_exact(4 * hidden).flat_map(move |gates| &gates[3 * hidden..]);
    o.zip(c).zip(dm.iter().zip(dc)).map(|((&o, &c), (&dm, &dc))| {
        let tanh_c = tanh(c);
        dc + dm * o * (F::one() - tanh_c * tanh_c)
    })
}

vectorised! {
    /// dh += dy.
    fn add<'a, F: Float>(dy: &'a [F], dh: &'a mut [F]) {
        for (dh, &dy) in dh.iter_mut().zip(dy) {
            *dh += dy;
        }
    }
}

impl<F: Float> Layer for LstmCell<F> {
    type Elem = F;
    type State = LstmState<F>;
    type Cache = LstmCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        cell_output_size(NAME, self.input_size(), self.h_size(), input)
    }

    fn zero_state(&self, batch: usize) -> LstmState<F> {
        LstmState { h: Array2::zeros((batch, self.h_size())), c: Array2::zeros((batch, self.hidden_size())) }
    }

    fn forward<'c>(
        &self,
        x: Sequence<'_, F>,
        state: &mut LstmState<F>,
        cache: &'c mut LstmCache<F>,
    ) -> ArrayView3<'c, F> {
        let (input, hidden, output) = self.sizes();
        let x_features = x.features(NAME, Some(input));
        let (steps, batch, _) = x_features.dim();
        check_shape(NAME, "state.h", &[batch, output], state.h.shape());
        check_shape(NAME, "state.c", &[batch, hidden], state.c.shape());
        let LstmCache { pending, x_copy, packed, gates, h, c, projection, .. } = &mut *cache;
        pending.set(&x);
        reuse(gates, (steps, batch, 4 * hidden));
        h.start(steps, &state.h);
        c.start(steps, &state.c);
        let Projection { packed: packed_hr, m, .. } = projection;
        let weight_hr = self.weight_hr.as_ref().map(|weight_hr| {
            reuse(m, (steps, batch, hidden));
            StepOperand::new(weight_hr.t(), steps, packed_hr)
        });

        affine(&x, x_copy.rows(x_features), &self.weight_ih, &[&self.bias_ih, &self.bias_hh], gates);
        let weight_hh = StepOperand::new(self.weight_hh.t(), steps, packed);
        for run in (0..steps).flat_map(|t| x.step_runs(t)) {
            let ((h_before, h), (c_before, c)) = (h.step(&run), c.step(&run));
            let gates = rows_of(gates, &run);
            // a += W_hh h_{t-1}
            weight_hh.multiply(matrix(h_before, output), matrix_mut(gates, 4 * hidden), Accumulate::Add);
            if let Some(weight_hr) = &weight_hr {
                let m = rows_of(m, &run);
                activate(hidden, gates, c_before, c, m);
                weight_hr.multiply(matrix(m, hidden), matrix_mut(h, output), Accumulate::Overwrite);
            } else {
                activate(hidden, gates, c_before, c, h);
            }
        }
        h.finish(&x, &mut state.h);
        c.finish(&x, &mut state.c);
        h.zero_padding(&x);
        self.output(cache)
    }

    fn output<'c>(&self, cache: &'c LstmCache<F>) -> ArrayView3<'c, F> {
        cache.h.after()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut LstmState<F>>,
        cache: &'c mut LstmCache<F>,
        grad: &mut Self,
    ) -> ArrayView3<'c, F> {
        let (input, hidden, output) = self.sizes();
        let (steps, batch) = x.dims();
        let LstmCache { pending, x_copy, dy_copy, packed, gates, h, c, dh, dc, dx, projection, recorder } = cache;
        pending.take(NAME, &x, dy, output);
        check_gradient(NAME, self, grad);
        let (x_rows, dy) = (x_copy.rows(x.features(NAME, Some(input))), dy_copy.values(dy.view()));
        if let Some(dstate) = &dstate {
            check_shape(NAME, "dstate.h", &[batch, output], dstate.h.shape());
            check_shape(NAME, "dstate.c", &[batch, hidden], dstate.c.shape());
        }
        final_gradient(dh, (batch, output), dstate.as_deref().map(|dstate| &dstate.h));
        final_gradient(dc, (batch, hidden), dstate.as_deref().map(|dstate| &dstate.c));

        let Projection { packed: packed_hr, m, dm, dh: dh_steps } = projection;
        let weight_hr = self.weight_hr.as_ref().map(|weight_hr| {
            reuse(dm, (batch, hidden));
            reuse(dh_steps, (steps, batch, output));
            StepOperand::new(weight_hr.view(), steps, packed_hr)
        });

        let weight_hh = StepOperand::new(self.weight_hh.view(), steps, packed);
        recorder.start(steps);
        for run in (0..steps).rev().flat_map(|t| x.step_runs(t)) {
            let (c_before, c) = c.step(&run);
            let sequences = sequences(&run, batch);
            let (gates, dh, dc) = (rows_of(gates, &run), rows_of(dh, &sequences), rows_of(dc, &sequences));
            let t = run.start / batch;
            add(&dy[span(&run, output)], dh);
            recorder.hidden(t, dh.iter().copied());
            if let Some(weight_hr) = &weight_hr {
                rows_of(dh_steps, &run).copy_from_slice(dh);
                let dm = rows_of(dm, &sequences);
                // dm = W_hrᵀ dh
                weight_hr.multiply(matrix(dh, output), matrix_mut(dm, hidden), Accumulate::Overwrite);
                recorder.memory(t, memory_gradient(hidden, gates, c, dm, dc));
                activate_backward(hidden, gates, c_before, c, dm, dc);
            } else {
                recorder.memory(t, memory_gradient(hidden, gates, c, dh, dc));
                activate_backward(hidden, gates, c_before, c, dh, dc);
            }
            // dh_{t-1} = W_hhᵀ da
            weight_hh.multiply(matrix(gates, 4 * hidden), matrix_mut(dh, output), Accumulate::Overwrite);
        }
        recorder.finish();
        if let Some(dstate) = dstate {
            dstate.h.assign(dh);
            dstate.c.assign(dc);
        }

        let da = rows(gates.view());
        add_weight_gradient(&x, da, x_rows, grad.weight_ih.view_mut());
        add_weight_gradient(&x, da, h.before(), grad.weight_hh.view_mut());
        if let Some(dw_hr) = &mut grad.weight_hr {
            add_weight_gradient(&x, rows(dh_steps.view()), rows(m.view()), dw_hr.view_mut());
        }
        for bias in [&mut grad.bias_ih, &mut grad.bias_hh].into_iter().flatten() {
            add_bias_gradient(&x, da, bias.view_mut());
        }
        input_gradient(&x, da, &self.weight_ih, dx);
        dx.view()
    }
}

impl<F: Float> Causal for LstmCell<F> {}
