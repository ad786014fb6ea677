//! What an [`RnnCell`](super::RnnCell) can be.

use crate::base::Init;
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{CellOptions, CommonOptions, RecurrentProduct, RnnNonlinearity, WithoutMemory};

/// The options of an [`RnnCell`](crate::recurrent::RnnCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RnnOptions {
    /// Its f.
    pub nonlinearity: RnnNonlinearity,
    /// The probability of recurrent dropout.
    pub recurrent_dropout: f64,
    /// Those that every cell has.
    pub common: CommonOptions,
}

impl CellOptions for RnnOptions {
    fn common(&mut self) -> &mut CommonOptions {
        &mut self.common
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        vec![("recurrent_dropout", self.recurrent_dropout), ("zoneout", self.common.zoneout)]
    }
}

impl RecurrentProduct for RnnOptions {
    fn recurrent_dropout(&mut self) -> &mut f64 {
        &mut self.recurrent_dropout
    }
}

impl WithoutMemory for RnnOptions {}

impl<M: Model<Cell: BuiltCell<Options = RnnOptions>>> CellBuilder<M, RnnOptions> {
    /// With another f than tanh.
    pub fn nonlinearity(mut self, nonlinearity: RnnNonlinearity) -> Self {
        self.options.nonlinearity = nonlinearity;
        self
    }

    /// How `bias_ih` starts.
    ///
    /// # Panics
    /// Panics if a number of `init` makes no sense: see [`Init::fill`].
    #[track_caller]
    pub fn bias_ih(self, init: impl Into<Init>) -> Self {
        self.init("bias_ih", init)
    }
}
