//! Feed-forward layers: each row of the `T * B` on its own.

pub(crate) mod activation;
mod dropout;
pub(crate) mod embedding;
pub(crate) mod feed_forward;
mod identity;
mod layer_norm;
mod linear;

pub use crate::base::Init;
pub use activation::{Activation, Nonlinearity};
pub use dropout::Dropout;
pub use embedding::{Embedding, EmbeddingBuilder};
pub use feed_forward::FeedForward;
pub use identity::Identity;
pub use layer_norm::LayerNorm;
pub use linear::{Linear, LinearBuilder};

use crate::kernels::Float;
use crate::layer::display_summary;

display_summary! {
    Activation<F: Float>,
    Dropout<F: Float>,
    Embedding<F: Float>,
    FeedForward<F: Float>,
    Identity<F: Float>,
    LayerNorm<F: Float>,
    Linear<F: Float>,
}
