//! The gated recurrent unit.

use ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView3, Axis, s};
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

const NAME: &str = "GruCell";

/// A gated recurrent unit (Cho et al. 2014), with the reset gate after the product, as in PyTorch and cuDNN.
///
/// ```text
/// r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)              reset gate
/// z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)              update gate: what is kept
/// s_t = W_hn h_{t-1} + b_hn
/// n_t = tanh(W_in x_t + b_in + r_t ∘ s_t)                     what could be written
/// h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}
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
/// ```
/// use gradflow::{GruCell, Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
///
/// let cell = GruCell::<f32>::builder(3, 4).update_bias(1.0).build(&mut StdRng::seed_from_u64(0));
/// let y = cell.forward((&Array3::ones((5, 2, 3))).into(), &mut cell.zero_state(2), &mut cell.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 4));
/// ```
#[derive(Clone, Debug)]
pub struct GruCell<F> {
    /// `[3 H, I]`
    pub weight_ih: Array2<F>,
    /// `[3 H, H]`
    pub weight_hh: Array2<F>,
    /// `[3 H]`; without biases, both are `None`.
    pub bias_ih: Option<Array1<F>>,
    /// `[3 H]`
    pub bias_hh: Option<Array1<F>>,
}
parameters! { impl<F: Float> Tensors<F> for GruCell<F> { weight_ih, weight_hh, bias_ih, bias_hh } }

impl<F: Float> FromParameters<F> for GruCell<F> {
    const GATES: usize = 3;
    fn from_parameters(Parameters { weight_ih, weight_hh, bias_ih, bias_hh, .. }: Parameters<F>) -> Self {
        GruCell { weight_ih, weight_hh, bias_ih, bias_hh }
    }
}

impl<F: Float> GruCell<F> {
    /// A cell with the defaults of [`CellBuilder`].
    pub fn new(input: usize, hidden: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::builder(input, hidden).build(rng)
    }

    /// To choose how each parameter starts.
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

    /// H, the number of output features.
    pub fn hidden_size(&self) -> usize {
        self.weight_hh.ncols()
    }

    fn sizes(&self) -> (usize, usize) {
        cell_sizes(NAME, 3, None, [&self.weight_ih, &self.weight_hh], [&self.bias_ih, &self.bias_hh])
    }
}

impl<F: Float> CellBuilder<GruCell<F>> {
    /// How the reset gate's bias starts.
    pub fn reset_bias(self, init: impl Into<Init>) -> Self {
        self.gate_bias(0, init)
    }

    /// How the update gate's bias starts: at `b`, an unused state fades by `σ(b)` a step.
    pub fn update_bias(self, init: impl Into<Init>) -> Self {
        self.gate_bias(1, init)
    }

    /// How `b_in`, the bias of what could be written, starts.
    pub fn candidate_bias(self, init: impl Into<Init>) -> Self {
        self.input_gate_bias(2, init)
    }

    /// How `b_hn`, the bias of `s` under the reset gate, starts.
    pub fn candidate_hidden_bias(self, init: impl Into<Init>) -> Self {
        self.hidden_gate_bias(2, init)
    }
}

/// The cache of a [`GruCell`].
#[derive(Clone, Default)]
pub struct GruCache<F> {
    pending: Pending,
    x_copy: StandardLayout<F>,
    dy_copy: StandardLayout<F>,
    packed: Packed<F>,   // W_hhᵀ; backward, its rows of r and z
    packed_n: Packed<F>, // backward, W_hn
    gates: Array3<F>,    // [T, B, 3 H]: r, z, n and, after a backward pass, their da
    s: Array3<F>,        // [T, B, H] and, after a backward pass, ds
    h_part: Array2<F>,   // [B, 3 H]: one step's W_hh h_{t-1} + b_hh
    h: History<F>,       // [T + 1, B, H]
    dh: Array2<F>,       // [B, H]
    dx: Array3<F>,       // [T, B, I]
    recorder: StateRecorder,
}
records_state!(GruCache);

/// Splits a row `[3 H]` into its gates.
#[inline(always)]
fn split<F>(row: &mut [F], hidden: usize) -> [&mut [F]; 3] {
    let (r, row) = row.split_at_mut(hidden);
    let (z, n) = row.split_at_mut(hidden);
    [r, z, n]
}

vectorised! {
    /// The gates' values in place of the input's part of their a; s and h of the step.
    fn activate<'a, F: Float>(
        hidden: usize,
        gates: &'a mut [F],
        h_part: &'a [F],
        s: &'a mut [F],
        h_before: &'a [F],
        h: &'a mut [F]
    ) {
        // A function of its own: as its arguments the compiler knows that the slices do not overlap.
        #[inline(always)]
        fn row<F: Float>(
            r: &mut [F], z: &mut [F], n: &mut [F], h_part: &[F], s: &mut [F], h_before: &[F], h: &mut [F],
        ) {
            let hidden = h.len();
            assert!([r.len(), z.len(), n.len(), s.len(), h_before.len()] == [hidden; 5]);
            let (h_r, h_part) = h_part.split_at(hidden);
            let (h_z, h_n) = h_part.split_at(hidden);
            for k in 0..hidden {
                s[k] = h_n[k];
                r[k] = sigmoid(r[k] + h_r[k]);
                z[k] = sigmoid(z[k] + h_z[k]);
                n[k] = tanh(n[k] + r[k] * s[k]);
                h[k] = n[k] + z[k] * (h_before[k] - n[k]);
            }
        }
        let parts = h_part.chunks_exact(3 * hidden).zip(s.chunks_exact_mut(hidden));
        let states = h_before.chunks_exact(hidden).zip(h.chunks_exact_mut(hidden));
        for (gates, ((h_part, s), (h_before, h))) in gates.chunks_exact_mut(3 * hidden).zip(parts.zip(states)) {
            let [r, z, n] = split(gates, hidden);
            row(r, z, n, h_part, s, h_before, h);
        }
    }
}

vectorised! {
    /// The gates' da in place of their values, ds in place of s, and z ∘ dh, the direct part of dh_{t-1}, in place of
    /// dh.
    fn activate_backward<'a, F: Float>(
        hidden: usize,
        gates: &'a mut [F],
        s: &'a mut [F],
        h_before: &'a [F],
        dy: &'a [F],
        dh: &'a mut [F]
    ) {
        #[inline(always)]
        fn row<F: Float>(
            r: &mut [F], z: &mut [F], n: &mut [F], s: &mut [F], h_before: &[F], dy: &[F], dh: &mut [F],
        ) {
            let (hidden, one) = (dh.len(), F::one());
            assert!([r.len(), z.len(), n.len(), s.len(), h_before.len(), dy.len()] == [hidden; 6]);
            for k in 0..hidden {
                let dh_k = dy[k] + dh[k];
                let da_n = dh_k * (one - z[k]) * (one - n[k] * n[k]);
                dh[k] = dh_k * z[k];
                z[k] = dh_k * (h_before[k] - n[k]) * z[k] * (one - z[k]);
                n[k] = da_n;
                (r[k], s[k]) = (da_n * s[k] * r[k] * (one - r[k]), da_n * r[k]);
            }
        }
        let parts = s.chunks_exact_mut(hidden).zip(h_before.chunks_exact(hidden));
        let gradients = dy.chunks_exact(hidden).zip(dh.chunks_exact_mut(hidden));
        for (gates, ((s, h_before), (dy, dh))) in gates.chunks_exact_mut(3 * hidden).zip(parts.zip(gradients)) {
            let [r, z, n] = split(gates, hidden);
            row(r, z, n, s, h_before, dy, dh);
        }
    }
}

impl<F: Float> Layer for GruCell<F> {
    type Elem = F;
    type State = Array2<F>;
    type Cache = GruCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        cell_output_size(NAME, self.input_size(), self.hidden_size(), input)
    }

    fn zero_state(&self, batch: usize) -> Array2<F> {
        Array2::zeros((batch, self.hidden_size()))
    }

    fn forward<'c>(&self, x: Sequence<'_, F>, state: &mut Array2<F>, cache: &'c mut GruCache<F>) -> ArrayView3<'c, F> {
        let (input, hidden) = self.sizes();
        let x_features = x.features(NAME, Some(input));
        let (steps, batch, _) = x_features.dim();
        check_shape(NAME, "state", &[batch, hidden], state.shape());
        let GruCache { pending, x_copy, packed, gates, s, h_part, h, .. } = &mut *cache;
        pending.set(&x);
        reuse(gates, (steps, batch, 3 * hidden));
        reuse(s, (steps, batch, hidden));
        reuse(h_part, (batch, 3 * hidden));
        h.start(steps, state);

        affine(&x, x_copy.rows(x_features), &self.weight_ih, &[&self.bias_ih], gates);
        let weight_hh = StepOperand::new(self.weight_hh.t(), steps, packed);
        for run in (0..steps).flat_map(|t| x.step_runs(t)) {
            let (h_before, h) = h.step(&run);
            let (gates, s, h_part) = (rows_of(gates, &run), rows_of(s, &run), rows_of(h_part, &sequences(&run, batch)));
            // W_hh h_{t-1} + b_hh
            let mut part = matrix_mut(h_part, 3 * hidden);
            let mode = match &self.bias_hh {
                Some(bias) => {
                    part.assign(bias);
                    Accumulate::Add
                }
                None => Accumulate::Overwrite,
            };
            weight_hh.multiply(matrix(h_before, hidden), part, mode);
            activate(hidden, gates, h_part, s, h_before, h);
        }
        h.finish(&x, state);
        h.zero_padding(&x);
        self.output(cache)
    }

    fn output<'c>(&self, cache: &'c GruCache<F>) -> ArrayView3<'c, F> {
        cache.h.after()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut Array2<F>>,
        cache: &'c mut GruCache<F>,
        grad: &mut Self,
    ) -> ArrayView3<'c, F> {
        let (input, hidden) = self.sizes();
        let (steps, batch) = x.dims();
        let GruCache { pending, x_copy, dy_copy, packed, packed_n, gates, s, h, dh, dx, recorder, .. } = cache;
        pending.take(NAME, &x, dy, hidden);
        check_gradient(NAME, self, grad);
        let (x_rows, dy) = (x_copy.rows(x.features(NAME, Some(input))), dy_copy.values(dy.view()));
        if let Some(dstate) = &dstate {
            check_shape(NAME, "dstate", &[batch, hidden], dstate.shape());
        }
        final_gradient(dh, (batch, hidden), dstate.as_deref());

        // r and z add the hidden state's part as it is, n under the reset gate: their rows of W_hh act apart.
        let rz = s![.., ..2 * hidden];
        let weight_rz = StepOperand::new(self.weight_hh.slice(s![..2 * hidden, ..]), steps, packed);
        let weight_n = StepOperand::new(self.weight_hh.slice(s![2 * hidden.., ..]), steps, packed_n);
        recorder.start(steps);
        for run in (0..steps).rev().flat_map(|t| x.step_runs(t)) {
            let (h_before, _) = h.step(&run);
            let (gates, s, dh) = (rows_of(gates, &run), rows_of(s, &run), rows_of(dh, &sequences(&run, batch)));
            let dy = &dy[span(&run, hidden)];
            recorder.hidden(run.start / batch, dy.iter().zip(&*dh).map(|(&dy, &dh)| dy + dh));
            activate_backward(hidden, gates, s, h_before, dy, dh);
            // dh_{t-1} = z ∘ dh + W_hrᵀ da_r + W_hzᵀ da_z + W_hnᵀ ds
            let mut dh = matrix_mut(dh, hidden);
            weight_rz.multiply(matrix(gates, 3 * hidden).slice(rz), dh.view_mut(), Accumulate::Add);
            weight_n.multiply(matrix(s, hidden), dh, Accumulate::Add);
        }
        recorder.finish();
        if let Some(dstate) = dstate {
            dstate.assign(dh);
        }

        let (da, ds, h) = (rows(gates.view()), rows(s.view()), h.before());
        let (dw_rz, dw_n) = grad.weight_hh.view_mut().split_at(Axis(0), 2 * hidden);
        add_weight_gradient(&x, da, x_rows, grad.weight_ih.view_mut());
        add_weight_gradient(&x, da.slice(rz), h, dw_rz);
        add_weight_gradient(&x, ds, h, dw_n);
        if let Some(bias) = &mut grad.bias_ih {
            add_bias_gradient(&x, da, bias.view_mut());
        }
        if let Some(bias) = &mut grad.bias_hh {
            let (db_rz, db_n) = bias.view_mut().split_at(Axis(0), 2 * hidden);
            add_bias_gradient(&x, da.slice(rz), db_rz);
            add_bias_gradient(&x, ds, db_n);
        }
        input_gradient(&x, da, &self.weight_ih, dx);
        dx.view()
    }
}

impl<F: Float> Causal for GruCell<F> {}
