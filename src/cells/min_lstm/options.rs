//! The options of a [`MinLstmCell`](super::MinLstmCell).

use crate::base::Init;
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{CellOptions, CommonOptions, Gated, HiddenZoneout, Start};

/// The options of a [`MinLstmCell`](crate::recurrent::MinLstmCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MinLstmOptions {
    /// The options that every cell has.
    pub common: CommonOptions,
}

/// The gates' indices.
const FORGET: usize = 0;
const INPUT: usize = 1;
const CANDIDATE: usize = 2;

impl CellOptions for MinLstmOptions {
    fn common(&mut self) -> &mut CommonOptions {
        &mut self.common
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        vec![("zoneout", self.common.zoneout)]
    }
}

impl HiddenZoneout for MinLstmOptions {}

impl Gated for MinLstmOptions {
    fn chrono(keep: Init) -> Vec<(usize, Start)> {
        vec![(FORGET, Start::Init(keep)), (INPUT, Start::NegativeOf(FORGET))]
    }
}

impl<M: Model<Cell: BuiltCell<Options = MinLstmOptions>>> CellBuilder<M, MinLstmOptions> {
    /// The initialization of the forget gate's bias: with `b` and an input bias of 0, the state is
    /// multiplied by about `σ(b) / (σ(b) + 1/2)` at each step.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn forget_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("forget_bias", FORGET, init)
    }

    /// The initialization of the input gate's bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn input_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("input_bias", INPUT, init)
    }

    /// The initialization of the candidate's bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn candidate_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("candidate_bias", CANDIDATE, init)
    }
}
