//! Feed-forward layers: each row of the `T * B` on its own.

pub(crate) mod activation;
mod dropout;
mod embedding;
mod feed_forward;
mod identity;
mod layer_norm;
mod linear;

pub use activation::{Activation, Nonlinearity};
pub use dropout::Dropout;
pub use embedding::{Embedding, EmbeddingCache};
pub use feed_forward::{FeedForward, FeedForwardCache};
pub use identity::Identity;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
