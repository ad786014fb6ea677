//! Layers made of layers: one after another, and with connections past them.

mod boxed;
mod dense_concat;
mod highway;
mod norm_blocks;
mod residual;
mod sequential;
mod stacked;
mod stochastic_depth;

pub use boxed::{BoxCache, BoxLayer, BoxState};
pub use dense_concat::{DenseConcat, DenseConcatCache};
pub use highway::{Highway, HighwayCache};
pub use norm_blocks::{PostNormBlock, PreNormBlock, PreNormBranch};
pub use residual::{BranchScale, Residual, ResidualCache};
pub use stacked::{Stacked, StackedCache};
pub use stochastic_depth::{StochasticDepth, StochasticDepthCache};
