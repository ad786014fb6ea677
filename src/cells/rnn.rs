//! The plain recurrent cell.

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
use crate::kernels::math::tanh;
use crate::kernels::{Accumulate, Packed, vectorised};
use crate::{Causal, Float, Init, Layer, Sequence, Size, SizeError, StateRecorder, parameters};

const NAME: &str = "RnnCell";

/// The f of a plain recurrent cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RnnNonlinearity {
    /// `tanh(a)`
    #[default]
    Tanh,
    /// `max(a, 0)`
    Relu,
}

/// A plain recurrent cell (Elman 1990).
///
/// ```text
/// h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)        f: tanh or relu
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` (all `h_t`) | `[T, B, H]` |
/// | state `h` | `[B, H]` |
///
/// The gradient of a far `h_{t-k}` passes through k factors `W_hhᵀ diag(f'(a))`: it vanishes or explodes, which is
/// what [`LstmCell`](crate::LstmCell) is for. Parameters are named as in PyTorch's `nn.RNNCell`.
///
/// ```
/// use gradflow::{Layer, RnnCell, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
///
/// let cell = RnnCell::<f32>::new(3, 4, &mut StdRng::seed_from_u64(0));
/// let mut state = cell.zero_state(2);
/// let y = cell.forward((&Array3::ones((5, 2, 3))).into(), &mut state, &mut cell.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 4));
/// assert_eq!(state, y.index_axis(gradflow::ndarray::Axis(0), 4));
/// ```
#[derive(Clone, Debug)]
pub struct RnnCell<F> {
    /// `[H, I]`
    pub weight_ih: Array2<F>,
    /// `[H, H]`
    pub weight_hh: Array2<F>,
    /// `[H]`; without biases, both are `None`.
    pub bias_ih: Option<Array1<F>>,
    /// `[H]`
    pub bias_hh: Option<Array1<F>>,
    nonlinearity: RnnNonlinearity,
}
parameters! { impl<F: Float> Tensors<F> for RnnCell<F> { weight_ih, weight_hh, bias_ih, bias_hh; skip nonlinearity } }

impl<F: Float> FromParameters<F> for RnnCell<F> {
    const GATES: usize = 1;
    fn from_parameters(Parameters { weight_ih, weight_hh, bias_ih, bias_hh, .. }: Parameters<F>) -> Self {
        RnnCell { weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity: RnnNonlinearity::Tanh }
    }
}

impl<F: Float> RnnCell<F> {
    /// A tanh cell with the defaults of [`CellBuilder`].
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

    /// The same cell with another f.
    pub fn with_nonlinearity(self, nonlinearity: RnnNonlinearity) -> Self {
        RnnCell { nonlinearity, ..self }
    }

    /// Its f.
    pub fn nonlinearity(&self) -> RnnNonlinearity {
        self.nonlinearity
    }

    /// I, the number of input features.
    pub fn input_size(&self) -> usize {
        self.weight_ih.ncols()
    }

    /// H, the number of output features.
    pub fn hidden_size(&self) -> usize {
        self.weight_hh.ncols()
    }
}

impl<F: Float> CellBuilder<RnnCell<F>> {
    /// How the bias of the cell's only gate starts.
    pub fn hidden_bias(self, init: impl Into<Init>) -> Self {
        self.gate_bias(0, init)
    }
}

/// The cache of an [`RnnCell`].
#[derive(Clone, Default)]
pub struct RnnCache<F> {
    pending: Pending,
    x_copy: StandardLayout<F>,
    dy_copy: StandardLayout<F>,
    packed: Packed<F>,
    a: Array3<F>,  // [T, B, H] and, after a backward pass, da
    h: History<F>, // [T + 1, B, H]
    dh: Array2<F>, // [B, H]
    dx: Array3<F>, // [T, B, I]
    recorder: StateRecorder,
}
records_state!(RnnCache);

vectorised! {
    /// h = f(a).
    fn activate<'a, F: Float>(relu: bool, a: &'a [F], h: &'a mut [F]) {
        if relu {
            for (h, &a) in h.iter_mut().zip(a) {
                // Not `max`, which would turn NaN into 0.
                *h = if a < F::zero() { F::zero() } else { a };
            }
        } else {
            for (h, &a) in h.iter_mut().zip(a) {
                *h = tanh(a);
            }
        }
    }
}

vectorised! {
    /// da = f'(a) (dy + dh), with f' from h.
    fn activate_backward<'a, F: Float>(relu: bool, h: &'a [F], dy: &'a [F], dh: &'a [F], da: &'a mut [F]) {
        let slope = |h: F| match relu {
            true if h > F::zero() => F::one(),
            true if h <= F::zero() => F::zero(),
            _ => F::one() - h * h,
        };
        for (((da, &h), &dy), &dh) in da.iter_mut().zip(h).zip(dy).zip(dh) {
            *da = slope(h) * (dy + dh);
        }
    }
}

impl<F: Float> RnnCell<F> {
    fn sizes(&self) -> (usize, usize) {
        cell_sizes(NAME, 1, None, [&self.weight_ih, &self.weight_hh], [&self.bias_ih, &self.bias_hh])
    }
}

impl<F: Float> Layer for RnnCell<F> {
    type Elem = F;
    type State = Array2<F>;
    type Cache = RnnCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        cell_output_size(NAME, self.input_size(), self.hidden_size(), input)
    }

    fn zero_state(&self, batch: usize) -> Array2<F> {
        Array2::zeros((batch, self.hidden_size()))
    }

    fn forward<'c>(&self, x: Sequence<'_, F>, state: &mut Array2<F>, cache: &'c mut RnnCache<F>) -> ArrayView3<'c, F> {
        let (input, hidden) = self.sizes();
        let x_features = x.features(NAME, Some(input));
        let (steps, batch, _) = x_features.dim();
        check_shape(NAME, "state", &[batch, hidden], state.shape());
        let RnnCache { pending, x_copy, packed, a, h, .. } = &mut *cache;
        pending.set(&x);
        reuse(a, (steps, batch, hidden));
        h.start(steps, state);

        affine(&x, x_copy.rows(x_features), &self.weight_ih, &[&self.bias_ih, &self.bias_hh], a);
        let weight_hh = StepOperand::new(self.weight_hh.t(), steps, packed);
        for run in (0..steps).flat_map(|t| x.step_runs(t)) {
            let (h_before, h) = h.step(&run);
            let a = rows_of(a, &run);
            // a += W_hh h_{t-1}
            weight_hh.multiply(matrix(h_before, hidden), matrix_mut(a, hidden), Accumulate::Add);
            activate(self.nonlinearity == RnnNonlinearity::Relu, a, h);
        }
        h.finish(&x, state);
        h.zero_padding(&x);
        self.output(cache)
    }

    fn output<'c>(&self, cache: &'c RnnCache<F>) -> ArrayView3<'c, F> {
        cache.h.after()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut Array2<F>>,
        cache: &'c mut RnnCache<F>,
        grad: &mut Self,
    ) -> ArrayView3<'c, F> {
        let (input, hidden) = self.sizes();
        let (steps, batch) = x.dims();
        let RnnCache { pending, x_copy, dy_copy, packed, a: da, h, dh, dx, recorder } = cache;
        pending.take(NAME, &x, dy, hidden);
        check_gradient(NAME, self, grad);
        let (x_rows, dy) = (x_copy.rows(x.features(NAME, Some(input))), dy_copy.values(dy.view()));
        if let Some(dstate) = &dstate {
            check_shape(NAME, "dstate", &[batch, hidden], dstate.shape());
        }
        final_gradient(dh, (batch, hidden), dstate.as_deref());

        let weight_hh = StepOperand::new(self.weight_hh.view(), steps, packed);
        recorder.start(steps);
        for run in (0..steps).rev().flat_map(|t| x.step_runs(t)) {
            let (_, h) = h.step(&run);
            let (da, dh) = (rows_of(da, &run), rows_of(dh, &sequences(&run, batch)));
            let dy = &dy[span(&run, hidden)];
            recorder.hidden(run.start / batch, dy.iter().zip(&*dh).map(|(&dy, &dh)| dy + dh));
            activate_backward(self.nonlinearity == RnnNonlinearity::Relu, h, dy, dh, da);
            // dh_{t-1} = W_hhᵀ da
            weight_hh.multiply(matrix(da, hidden), matrix_mut(dh, hidden), Accumulate::Overwrite);
        }
        recorder.finish();
        if let Some(dstate) = dstate {
            dstate.assign(dh);
        }

        let da = rows(da.view());
        add_weight_gradient(&x, da, x_rows, grad.weight_ih.view_mut());
        add_weight_gradient(&x, da, h.before(), grad.weight_hh.view_mut());
        for bias in [&mut grad.bias_ih, &mut grad.bias_hh].into_iter().flatten() {
            add_bias_gradient(&x, da, bias.view_mut());
        }
        input_gradient(&x, da, &self.weight_ih, dx);
        dx.view()
    }
}

impl<F: Float> Causal for RnnCell<F> {}
