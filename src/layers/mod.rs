//! Feed-forward layers: each row of the `T * B` on its own.

mod activation;
mod dropout;
mod embedding;
mod identity;
mod layer_norm;
mod linear;

pub use activation::{Activation, ActivationCache, Nonlinearity};
pub(crate) use activation::{activate_backward_with_bias, activate_in_place, activate_with_slope};
pub use dropout::{Dropout, DropoutCache};
pub(crate) use dropout::{Mask, RandomDrop, chosen, multiply as drop_row};
pub use embedding::{Embedding, EmbeddingCache};
pub use identity::{Identity, IdentityCache};
pub use layer_norm::{LayerNorm, LayerNormCache};
pub use linear::{Linear, LinearCache};

use crate::{Size, SizeError};

/// The output size of a layer that takes any number of features and keeps it.
pub(crate) fn same_size(layer: &str, input: Size) -> Result<usize, SizeError> {
    match input {
        Size::Features(features) => Ok(features),
        Size::Tokens => Err(SizeError::new(layer, "takes features, got token ids")),
    }
}
