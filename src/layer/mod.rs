//! The trait `Layer`, its input and its gradient, and what layers are made of.

pub(crate) mod affine;
mod context;
pub(crate) mod gradient;
pub mod kit;
mod lengths;
pub mod row_layer;
pub(crate) mod rows;
mod sequence;
mod summary;
mod traits;

pub use gradient::Gradient;
pub use row_layer::{RowCache, RowGradients, RowLayer, Rows};
pub use sequence::Sequence;
pub use summary::Summary;
pub(crate) use traits::display_summary;
pub use traits::{Causal, Internal, Layer, Pass, State};
