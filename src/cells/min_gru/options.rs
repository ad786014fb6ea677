//! What a [`MinGruCell`](super::MinGruCell) can be.

use crate::base::Init;
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{CellOptions, CommonOptions, Gated, HiddenZoneout, Start};

/// The options of a [`MinGruCell`](crate::recurrent::MinGruCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MinGruOptions {
    /// Those that every cell has.
    pub common: CommonOptions,
}

/// The gates' places.
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
    /// How the update gate's bias starts: at `b`, an unused state fades by `1 - σ(b)` a step.
    ///
    /// # Panics
    /// Panics if a number of `init` makes no sense: see [`Init::fill`].
    #[track_caller]
    pub fn update_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("update_bias", UPDATE, init)
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
