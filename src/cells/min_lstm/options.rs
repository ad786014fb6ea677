//! What a [`MinLstmCell`](super::MinLstmCell) can be.

use crate::base::Init;
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{CellOptions, CommonOptions, Gated, HiddenZoneout, Start};

/// The options of a [`MinLstmCell`](crate::recurrent::MinLstmCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MinLstmOptions {
    /// Those that every cell has.
    pub common: CommonOptions,
}

/// The gates' places.
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
    /// How the forget gate's bias starts: with `b` and an input bias of 0, an unused state fades by about `1 - σ(b)` a step.
    ///
    /// # Panics
    /// Panics if a number of `init` makes no sense: see [`Init::fill`].
    #[track_caller]
    pub fn forget_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("forget_bias", FORGET, init)
    }

    /// How the input gate's bias starts.
    ///
    /// # Panics
    /// Panics if a number of `init` makes no sense: see [`Init::fill`].
    #[track_caller]
    pub fn input_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("input_bias", INPUT, init)
    }

    /// How the bias of what could be written starts.
    ///
    /// # Panics
    /// Panics if a number of `init` makes no sense: see [`Init::fill`].
    #[track_caller]
    pub fn candidate_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("candidate_bias", CANDIDATE, init)
    }
}
