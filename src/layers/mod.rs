//! Feed-forward layers, which map each of the `T * B` rows on its own, convolutions in time, and layers from many steps to one and
//! back.

pub(crate) mod activation;
pub(crate) mod causal_conv1d;
mod dropout;
pub(crate) mod embedding;
pub(crate) mod feed_forward;
mod identity;
mod last_step;
mod layer_norm;
mod linear;
mod pool;
mod repeat;
mod stage;
mod strided_conv1d;
mod taps;
pub(crate) mod time;

pub use crate::base::Init;
pub use activation::{Activation, Nonlinearity};
pub use causal_conv1d::{CausalConv1d, CausalConv1dBuilder};
pub use dropout::Dropout;
pub use embedding::{Embedding, EmbeddingBuilder};
pub use feed_forward::FeedForward;
pub use identity::Identity;
pub use last_step::LastStep;
pub use layer_norm::LayerNorm;
pub use linear::{Linear, LinearBuilder};
pub use pool::Pool;
pub use repeat::Repeat;
pub use strided_conv1d::StridedConv1d;

use crate::kernels::Float;
use crate::layer::display_summary;

display_summary! {
    Activation<F: Float>,
    CausalConv1d<F: Float>,
    Dropout<F: Float>,
    Embedding<F: Float>,
    FeedForward<F: Float>,
    Identity<F: Float>,
    LastStep<F: Float>,
    LayerNorm<F: Float>,
    Linear<F: Float>,
    Pool<F: Float>,
    Repeat<F: Float>,
    StridedConv1d<F: Float>,
}
