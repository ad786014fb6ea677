//! The options of an [`RnnCell`](super::RnnCell).

use crate::base::Init;
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{Activated, CellOptions, CommonOptions, HiddenZoneout, RecurrentProduct};
use crate::layers::Nonlinearity;

/// The options of an [`RnnCell`](crate::recurrent::RnnCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RnnOptions {
    /// The function f.
    pub nonlinearity: Nonlinearity,
    /// The limit to which sums are clipped, if any.
    pub clip: Option<f64>,
    /// The probability of recurrent dropout.
    pub recurrent_dropout: f64,
    /// The number of heads of the recurrent weights.
    pub heads: usize,
    /// The options that every cell has.
    pub common: CommonOptions,
}

impl Default for RnnOptions {
    fn default() -> Self {
        let (nonlinearity, clip) = (Nonlinearity::Tanh, None);
        RnnOptions { nonlinearity, clip, recurrent_dropout: 0.0, heads: 1, common: CommonOptions::default() }
    }
}

impl CellOptions for RnnOptions {
    fn common(&mut self) -> &mut CommonOptions {
        &mut self.common
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        vec![("recurrent_dropout", self.recurrent_dropout), ("zoneout", self.common.zoneout)]
    }

    fn activations(&self) -> Vec<(&'static str, Nonlinearity)> {
        vec![("nonlinearity", self.nonlinearity)]
    }

    fn clip(&self) -> Option<f64> {
        self.clip
    }
}

impl Activated for RnnOptions {
    fn clip_mut(&mut self) -> &mut Option<f64> {
        &mut self.clip
    }
}

impl RecurrentProduct for RnnOptions {
    fn recurrent_dropout(&mut self) -> &mut f64 {
        &mut self.recurrent_dropout
    }

    fn heads(&mut self) -> &mut usize {
        &mut self.heads
    }
}

impl HiddenZoneout for RnnOptions {}

impl<M: Model<Cell: BuiltCell<Options = RnnOptions>>> CellBuilder<M, RnnOptions> {
    /// Sets f, which is tanh by default. With any f but tanh and relu, or with [`clip`](CellBuilder::clip), the cell computes unit
    /// by unit, without vector instructions, and a [`Stream`](crate::stream::Stream) runs its forward pass.
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if a number in `nonlinearity` is not finite.
    #[track_caller]
    pub fn nonlinearity(mut self, nonlinearity: Nonlinearity) -> Self {
        self.options.nonlinearity = nonlinearity;
        self
    }

    /// The initialization of `bias_ih`.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn bias_ih(self, init: impl Into<Init>) -> Self {
        self.init("bias_ih", init)
    }
}
