//! Layers made of layers: one after another, or with skip connections.

pub(crate) mod boxed;
pub(crate) mod dense_concat;
pub(crate) mod highway;
mod norm_blocks;
pub(crate) mod residual;
mod sequential;
pub(crate) mod stacked;
pub(crate) mod stochastic_depth;
mod temporal_block;
pub(crate) mod tied_embedding;

pub use boxed::{BoxLayer, BoxState, Streaming, WholeSequence};
pub use dense_concat::DenseConcat;
pub use highway::{Highway, HighwayBuilder};
pub use norm_blocks::{PostNormBlock, PreNormBlock, PreNormBranch};
pub use residual::{BranchScale, Residual};
pub use stacked::Stacked;
pub use stochastic_depth::StochasticDepth;
pub use temporal_block::{NormedConv1d, TemporalBlock, TemporalBranch};
pub use tied_embedding::TiedEmbedding;

use crate::kernels::Float;
use crate::layer::{Layer, display_summary};

display_summary! {
    DenseConcat<L: Layer>,
    Highway<L: Layer>,
    NormedConv1d<F: Float>,
    PostNormBlock<F: Float>,
    PreNormBlock<F: Float>,
    PreNormBranch<F: Float>,
    Residual<L: Layer>,
    Stacked<L: Layer>,
    StochasticDepth<L: Layer>,
    TemporalBlock<L: Layer>,
    TemporalBranch<L: Layer>,
    TiedEmbedding<L: Layer>,
}
