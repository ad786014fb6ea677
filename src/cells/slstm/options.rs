//! The options of an [`SlstmCell`](super::SlstmCell).

use crate::base::Init;
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{CellOptions, CommonOptions, HiddenZoneout, RecurrentProduct};

/// The options of an [`SlstmCell`](crate::recurrent::SlstmCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SlstmOptions {
    /// Whether the forget gate is an exponential, like the input gate, instead of σ.
    pub exponential_forget: bool,
    /// The probability of recurrent dropout.
    pub recurrent_dropout: f64,
    /// The number of heads of the recurrent weights.
    pub heads: usize,
    /// The options that every cell has.
    pub common: CommonOptions,
}

impl Default for SlstmOptions {
    fn default() -> Self {
        SlstmOptions { exponential_forget: false, recurrent_dropout: 0.0, heads: 1, common: CommonOptions::default() }
    }
}

/// The gates' indices.
const INPUT: usize = 0;
pub(super) const FORGET: usize = 1;
const CELL: usize = 2;
const OUTPUT: usize = 3;

impl CellOptions for SlstmOptions {
    fn common(&mut self) -> &mut CommonOptions {
        &mut self.common
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        vec![("recurrent_dropout", self.recurrent_dropout), ("zoneout", self.common.zoneout)]
    }
}

impl RecurrentProduct for SlstmOptions {
    fn recurrent_dropout(&mut self) -> &mut f64 {
        &mut self.recurrent_dropout
    }

    fn heads(&mut self) -> &mut usize {
        &mut self.heads
    }
}

impl HiddenZoneout for SlstmOptions {}

impl<M: Model<Cell: BuiltCell<Options = SlstmOptions>>> CellBuilder<M, SlstmOptions> {
    /// Makes the forget gate `f_t = exp(a_f)` instead of `σ(a_f)`, the paper's alternative. Its bias starts at 0 unless it is set:
    /// with a larger bias, the memory outweighs new values more with every step.
    pub fn exponential_forget(mut self) -> Self {
        self.options.exponential_forget = true;
        self
    }

    /// The initialization of the input gate's bias: `e^b` weighs new values against the memory.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn input_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("input_bias", INPUT, init)
    }

    /// The initialization of the forget gate's bias, by default 1 unless the gate is
    /// [exponential](CellBuilder::exponential_forget).
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn forget_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("forget_bias", FORGET, init)
    }

    /// The initialization of the candidate's bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn cell_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("cell_bias", CELL, init)
    }

    /// The initialization of the output gate's bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn output_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("output_bias", OUTPUT, init)
    }
}
