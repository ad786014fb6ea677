//! The trait `Layer`, its input and its gradient, and what layers are made of.

pub(crate) mod affine;
pub(crate) mod batch_state;
mod context;
pub(crate) mod fingerprint;
pub(crate) mod gradient;
mod ids;
pub mod kit;
mod lengths;
pub mod row_layer;
pub(crate) mod rows;
mod sequence;
mod summary;
mod traits;

pub use gradient::Gradient;
pub use ids::{Id, Ids};
pub use row_layer::{RowCache, RowGradients, RowLayer, Rows};
pub use sequence::Sequence;
pub use summary::Summary;
pub(crate) use traits::display_summary;
pub use traits::{Causal, Internal, Layer, Pass, State};
