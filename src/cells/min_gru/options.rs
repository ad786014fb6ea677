//! The options of a [`MinGruCell`](super::MinGruCell).

use crate::base::Init;
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{CellOptions, CommonOptions, Gated, HiddenZoneout, Start};

/// The options of a [`MinGruCell`](crate::recurrent::MinGruCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MinGruOptions {
    /// The options that every cell has.
    pub common: CommonOptions,
}

/// The gates' indices.
const UPDATE: usize = 0;
const CANDIDATE: usize = 1;

impl CellOptions for MinGruOptions {
    fn common(&mut self) -> &mut CommonOptions {
        &mut self.common
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        vec![("zoneout", self.common.zoneout)]
    }
}

impl HiddenZoneout for MinGruOptions {}

impl Gated for MinGruOptions {
    fn chrono(keep: Init) -> Vec<(usize, Start)> {
        vec![(UPDATE, Start::Negative(keep))]
    }
}

impl<M: Model<Cell: BuiltCell<Options = MinGruOptions>>> CellBuilder<M, MinGruOptions> {
    /// The initialization of the update gate's bias: with `b`, each step multiplies an unused state by `1 - σ(b)`.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn update_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("update_bias", UPDATE, init)
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
