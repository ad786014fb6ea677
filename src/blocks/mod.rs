//! Direct connections: what lets a gradient pass many layers.

mod dense_concat;
mod feed_forward;
mod highway;
mod norm_blocks;
mod residual;
mod stochastic_depth;

pub use dense_concat::{DenseConcat, DenseConcatCache};
pub use feed_forward::{FeedForward, FeedForwardCache};
pub use highway::{Highway, HighwayCache};
pub use norm_blocks::{PostNormBlock, PreNormBlock, PreNormBranch};
pub use residual::{BranchScale, Residual, ResidualCache};
pub use stochastic_depth::{StochasticDepth, StochasticDepthCache};
