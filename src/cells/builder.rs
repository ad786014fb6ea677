//! How a cell's parameters start.

use std::marker::PhantomData;

use ndarray::{Array1, Array2, s};
use rand::Rng;

use crate::{Float, GruCell, Init, LstmCell, RnnCell};

mod sealed {
    /// The parameters that every cell has; gate by gate, `G` of them.
    pub struct Parameters<F> {
        /// `[G H, I]`
        pub weight_ih: ndarray::Array2<F>,
        /// `[G H, H]`, or `[G H, P]` with a projection.
        pub weight_hh: ndarray::Array2<F>,
        /// `[P, H]`, of an LSTM with a projection.
        pub weight_hr: Option<ndarray::Array2<F>>,
        /// `[G H]`
        pub bias_ih: Option<ndarray::Array1<F>>,
        /// `[G H]`
        pub bias_hh: Option<ndarray::Array1<F>>,
    }

    pub trait FromParameters<F>: Sized {
        const GATES: usize;
        fn from_parameters(parameters: Parameters<F>) -> Self;
    }
}
pub(super) use sealed::{FromParameters, Parameters};

/// A cell of this crate; sealed.
pub trait Gated: FromParameters<<Self as Gated>::Elem> {
    /// `f32` or `f64`.
    type Elem: Float;
}

impl<F: Float> Gated for RnnCell<F> {
    type Elem = F;
}

impl<F: Float> Gated for LstmCell<F> {
    type Elem = F;
}

impl<F: Float> Gated for GruCell<F> {
    type Elem = F;
}

/// The most gates that a cell has.
const MOST_GATES: usize = 4;

/// How each parameter of a cell starts: made by `RnnCell::builder`, `LstmCell::builder` and `GruCell::builder`.
///
/// Unless said otherwise, input weights are Xavier uniform, recurrent weights orthogonal (each gate on its own), biases
/// zero, and an LSTM's forget bias 1, so that its memory holds from the start (Jozefowicz et al. 2015).
///
/// ```
/// use gradflow::{Init, LstmCell, rand::{SeedableRng, rngs::StdRng}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell: LstmCell<f32> = LstmCell::builder(3, 4)
///     .weight_hh(Init::Orthogonal { gain: 0.9 })
///     .forget_bias(3.0)
///     .output_bias(-1.0)
///     .build(rng);
/// assert_eq!(cell.bias_ih.unwrap().to_vec()[4..8], [3.0; 4]);
/// ```
#[derive(Clone, Debug)]
pub struct CellBuilder<C> {
    input: usize,
    hidden: usize,
    weight_ih: Init,
    weight_hh: Init,
    weight_hr: Init,
    projection: Option<usize>,
    bias: bool,
    bias_ih: [Init; MOST_GATES],
    bias_hh: [Init; MOST_GATES],
    cell: PhantomData<fn() -> C>,
}

impl<C: Gated> CellBuilder<C> {
    pub(super) fn new(input: usize, hidden: usize) -> Self {
        assert!(input > 0 && hidden > 0, "cell: sizes must not be 0, got input {input}, hidden {hidden}");
        CellBuilder {
            input,
            hidden,
            weight_ih: Init::XavierUniform { gain: 1.0 },
            weight_hh: Init::Orthogonal { gain: 1.0 },
            weight_hr: Init::XavierUniform { gain: 1.0 },
            projection: None,
            bias: true,
            bias_ih: [Init::Constant(0.0); MOST_GATES],
            bias_hh: [Init::Constant(0.0); MOST_GATES],
            cell: PhantomData,
        }
    }

    /// How the input weights start.
    pub fn weight_ih(self, init: impl Into<Init>) -> Self {
        CellBuilder { weight_ih: init.into(), ..self }
    }

    /// How the recurrent weights start.
    pub fn weight_hh(self, init: impl Into<Init>) -> Self {
        CellBuilder { weight_hh: init.into(), ..self }
    }

    /// Whether there are biases.
    pub fn bias(self, bias: bool) -> Self {
        CellBuilder { bias, ..self }
    }

    /// Every parameter uniform in `±1/sqrt(H)`, as PyTorch starts them.
    pub fn pytorch(self) -> Self {
        let init = Init::Uniform { bound: 1.0 / (self.hidden as f64).sqrt() };
        CellBuilder {
            weight_ih: init,
            weight_hh: init,
            weight_hr: init,
            bias_ih: [init; MOST_GATES],
            bias_hh: [init; MOST_GATES],
            ..self
        }
    }

    /// The two biases of a gate add up: `bias_ih` takes the value, `bias_hh` is zero.
    pub(super) fn gate_bias(mut self, gate: usize, init: impl Into<Init>) -> Self {
        self.bias_ih[gate] = init.into();
        self.bias_hh[gate] = Init::Constant(0.0);
        self
    }

    /// The bias of a gate on the input's side alone.
    pub(super) fn input_gate_bias(mut self, gate: usize, init: impl Into<Init>) -> Self {
        self.bias_ih[gate] = init.into();
        self
    }

    /// The bias of a gate on the hidden state's side alone.
    pub(super) fn hidden_gate_bias(mut self, gate: usize, init: impl Into<Init>) -> Self {
        self.bias_hh[gate] = init.into();
        self
    }

    /// With the hidden state projected to `size` features.
    pub(super) fn projected(self, size: usize) -> Self {
        assert!(size > 0, "cell: sizes must not be 0, got projection {size}");
        CellBuilder { projection: Some(size), ..self }
    }

    /// How the projection starts.
    pub(super) fn projection_weight(self, init: impl Into<Init>) -> Self {
        CellBuilder { weight_hr: init.into(), ..self }
    }

    /// The cell with all parameters zero, for weights that will be loaded.
    pub fn zeros(self) -> C {
        let (rows, h_size) = (C::GATES * self.hidden, self.projection.unwrap_or(self.hidden));
        let bias = self.bias.then(|| Array1::zeros(rows));
        C::from_parameters(Parameters {
            weight_ih: Array2::zeros((rows, self.input)),
            weight_hh: Array2::zeros((rows, h_size)),
            weight_hr: self.projection.map(|projection| Array2::zeros((projection, self.hidden))),
            bias_ih: bias.clone(),
            bias_hh: bias,
        })
    }

    /// The cell, drawn from `rng`: the same seed gives the same bits.
    pub fn build(self, rng: &mut (impl Rng + ?Sized)) -> C {
        let Self { input, hidden, projection, .. } = self;
        let mut weight = |columns: usize, init: Init| {
            let mut weight = Array2::zeros((C::GATES * hidden, columns));
            for gate in 0..C::GATES {
                init.fill(&mut weight.slice_mut(s![gate * hidden..(gate + 1) * hidden, ..]), rng);
            }
            weight
        };
        let (weight_ih, weight_hh) =
            (weight(input, self.weight_ih), weight(projection.unwrap_or(hidden), self.weight_hh));
        let weight_hr = projection.map(|projection| {
            let mut weight = Array2::zeros((projection, hidden));
            self.weight_hr.fill(&mut weight, rng);
            weight
        });
        let mut bias = |init: [Init; MOST_GATES]| {
            let mut bias: Array1<C::Elem> = Array1::zeros(C::GATES * hidden);
            for (mut gate, init) in bias.exact_chunks_mut(hidden).into_iter().zip(init) {
                init.fill(&mut gate.view_mut().insert_axis(ndarray::Axis(0)), rng);
            }
            bias
        };
        let biases = self.bias.then(|| [bias(self.bias_ih), bias(self.bias_hh)]);
        let [bias_ih, bias_hh] = biases.map_or([None, None], |biases| biases.map(Some));
        C::from_parameters(Parameters { weight_ih, weight_hh, weight_hr, bias_ih, bias_hh })
    }
}
