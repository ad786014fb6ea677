//! Direct connections: what lets a gradient pass many layers.

mod feed_forward;
mod residual;

pub use feed_forward::{FeedForward, PostNormBlock, PreNormBlock, PreNormBranch};
pub use residual::{BranchScale, Residual, ResidualCache};
