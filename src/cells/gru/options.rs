//! The options of a [`GruCell`](super::GruCell).

use crate::base::Init;
use crate::cells::activations::{Chosen, STANDARD};
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{
    Activated, CellOptions, CommonOptions, Gated, GatedActivations, HiddenZoneout, RecurrentProduct, Start,
};
use crate::layers::Nonlinearity;

/// Where a GRU's reset gate acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GruReset {
    /// After the product, on `W_hn h_{t-1} + b_hn`: PyTorch, cuDNN, Keras' default, ONNX with `linear_before_reset`.
    #[default]
    AfterProduct,
    /// Before the product, on `h_{t-1}`: the first paper, ONNX's default, Keras with `reset_after=False`.
    BeforeProduct,
}

/// The options of a [`GruCell`](crate::recurrent::GruCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GruOptions {
    /// Where the reset gate acts.
    pub reset: GruReset,
    /// The probability of recurrent dropout.
    pub recurrent_dropout: f64,
    /// The number of heads of the recurrent weights.
    pub heads: usize,
    /// The function used as σ: [`gate_activation`](CellBuilder::gate_activation).
    pub gate_activation: Nonlinearity,
    /// The function used as tanh in n: [`candidate_activation`](CellBuilder::candidate_activation).
    pub candidate_activation: Nonlinearity,
    /// The limit to which sums are clipped, if any.
    pub clip: Option<f64>,
    /// The options that every cell has.
    pub common: CommonOptions,
}

impl Default for GruOptions {
    fn default() -> Self {
        let Chosen { gate, candidate, output: _, clip } = STANDARD;
        GruOptions {
            reset: GruReset::default(),
            recurrent_dropout: 0.0,
            heads: 1,
            gate_activation: gate,
            candidate_activation: candidate,
            clip,
            common: CommonOptions::default(),
        }
    }
}

/// The gates' indices.
const RESET: usize = 0;
const UPDATE: usize = 1;
const CANDIDATE: usize = 2;

impl CellOptions for GruOptions {
    fn common(&mut self) -> &mut CommonOptions {
        &mut self.common
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        vec![("recurrent_dropout", self.recurrent_dropout), ("zoneout", self.common.zoneout)]
    }

    fn activations(&self) -> Vec<(&'static str, Nonlinearity)> {
        vec![("gate_activation", self.gate_activation), ("candidate_activation", self.candidate_activation)]
    }

    fn clip(&self) -> Option<f64> {
        self.clip
    }
}

impl Activated for GruOptions {
    fn clip_mut(&mut self) -> &mut Option<f64> {
        &mut self.clip
    }
}

impl GatedActivations for GruOptions {
    fn gate_and_candidate(&mut self) -> [&mut Nonlinearity; 2] {
        [&mut self.gate_activation, &mut self.candidate_activation]
    }
}

impl RecurrentProduct for GruOptions {
    fn recurrent_dropout(&mut self) -> &mut f64 {
        &mut self.recurrent_dropout
    }

    fn heads(&mut self) -> &mut usize {
        &mut self.heads
    }
}

impl HiddenZoneout for GruOptions {}

impl Gated for GruOptions {
    fn chrono(keep: Init) -> Vec<(usize, Start)> {
        vec![(UPDATE, Start::Init(keep))]
    }
}

impl<M: Model<Cell: BuiltCell<Options = GruOptions>>> CellBuilder<M, GruOptions> {
    /// Where the reset gate acts.
    pub fn reset(mut self, reset: GruReset) -> Self {
        self.options.reset = reset;
        self
    }

    /// The initialization of the reset gate's bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn reset_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("reset_bias", RESET, init)
    }

    /// The initialization of the update gate's bias: with `b`, each step multiplies an unused state by `σ(b)`.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn update_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("update_bias", UPDATE, init)
    }

    /// The initialization of `b_in`, the candidate's bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn candidate_bias(self, init: impl Into<Init>) -> Self {
        let init = init.into().checked::<<M::Cell as BuiltCell>::Elem>("cell", "candidate_bias");
        self.start("bias_ih", CANDIDATE, Start::Init(init))
    }

    /// The initialization of `b_hn`, the bias of `s`, on which the reset gate acts.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn candidate_hidden_bias(self, init: impl Into<Init>) -> Self {
        let init = init.into().checked::<<M::Cell as BuiltCell>::Elem>("cell", "candidate_hidden_bias");
        self.start("bias_hh", CANDIDATE, Start::Init(init))
    }
}
