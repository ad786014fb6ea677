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
pub use highway::{Highway, HighwayBuilder, HighwayCache};
pub use norm_blocks::{PostNormBlock, PreNormBlock, PreNormBranch};
pub use residual::{BranchScale, Residual, ResidualCache};
pub use stacked::{Stacked, StackedCache};
pub use stochastic_depth::{StochasticDepth, StochasticDepthCache};

use crate::kernels::Float;
use crate::layer::{Layer, display_summary};

display_summary! {
    BoxLayer<F: Float>,
    DenseConcat<L: Layer>,
    Highway<L: Layer>,
    PostNormBlock<F: Float>,
    PreNormBlock<F: Float>,
    PreNormBranch<F: Float>,
    Residual<L: Layer>,
    Stacked<L: Layer>,
    StochasticDepth<L: Layer>,
}
