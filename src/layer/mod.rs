//! The trait `Layer`, its input and its gradient, and the building blocks of layers.

pub(crate) mod affine;
pub(crate) mod batch_state;
#[doc(hidden)]
pub mod causal;
mod context;
pub(crate) mod fingerprint;
pub(crate) mod gradient;
pub(crate) mod graph;
mod ids;
pub mod kit;
mod layer_stage;
mod positions;
pub mod row_layer;
pub(crate) mod rows;
mod sequence;
pub(crate) mod stage;
mod steps;
mod summary;
mod traits;

pub use causal::Causal;
pub use gradient::Gradient;
pub use graph::{Attribute, Graph, Signal, StateTensor, Unsupported, Value};
pub use ids::{Id, Ids};
pub(crate) use layer_stage::LayerStage;
pub use positions::Piece;
pub use row_layer::{RowCache, RowGradients, RowLayer, Rows};
pub use sequence::Sequence;
pub use stage::{Stage, Stages};
pub use steps::Steps;
pub use summary::Summary;
pub(crate) use traits::display_summary;
pub use traits::{Internal, Layer, Pass, State};
