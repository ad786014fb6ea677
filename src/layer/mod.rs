//! The one trait behind which every cell, layer, block and model stands, its input, and what layers are made of.

pub(crate) mod affine;
pub mod kit;
mod lengths;
pub(crate) mod rows;
mod sequence;
mod traits;

pub use sequence::Sequence;
pub use traits::{Causal, Layer, Pass, State};
