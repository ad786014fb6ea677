//! The options of an [`MguCell`](super::MguCell).

use crate::base::Init;
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{CellOptions, CommonOptions, Gated, HiddenZoneout, RecurrentProduct, Start};

/// The options of an [`MguCell`](crate::recurrent::MguCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct MguOptions {
    /// The probability of recurrent dropout.
    pub recurrent_dropout: f64,
    /// The number of heads of the recurrent weights.
    pub heads: usize,
    /// The options that every cell has.
    pub common: CommonOptions,
}

impl Default for MguOptions {
    fn default() -> Self {
        MguOptions { recurrent_dropout: 0.0, heads: 1, common: CommonOptions::default() }
    }
}

/// The gates' indices.
const FORGET: usize = 0;
const CANDIDATE: usize = 1;

impl CellOptions for MguOptions {
    fn common(&mut self) -> &mut CommonOptions {
        &mut self.common
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        vec![("recurrent_dropout", self.recurrent_dropout), ("zoneout", self.common.zoneout)]
    }
}

impl RecurrentProduct for MguOptions {
    fn recurrent_dropout(&mut self) -> &mut f64 {
        &mut self.recurrent_dropout
    }

    fn heads(&mut self) -> &mut usize {
        &mut self.heads
    }
}

impl HiddenZoneout for MguOptions {}

impl Gated for MguOptions {
    fn chrono(keep: Init) -> Vec<(usize, Start)> {
        vec![(FORGET, Start::Negative(keep))]
    }
}

impl<M: Model<Cell: BuiltCell<Options = MguOptions>>> CellBuilder<M, MguOptions> {
    /// The initialization of the forget gate's bias: with `b`, each step multiplies an unused state by `1 - σ(b)`.
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
    pub fn candidate_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("candidate_bias", CANDIDATE, init)
    }
}
