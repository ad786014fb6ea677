//! Building blocks for your own layers and cells, and the caches of the crate's layers.
//!
//! | | |
//! | --- | --- |
//! | A layer | [`Layer`](crate::Layer) with [`Gradient`], [`Size`], [`SizeError`], [`State`], [`Steps`]; [`Pending`] with its [`Mark`], [`StandardLayout`], [`reuse`], [`check_shape`] and [`check_gradient`] for its cache and its checks |
//! | A layer that maps each row on its own | [`RowLayer`] and [`row_layer!`](crate::row_layer) |
//! | A recurrent cell | [`Cell`]: a step and its backward step; [`StackState`] for your own state in a model of several cells |
//! | A layer in ONNX files | [`Graph`] with [`Signal`], [`Value`], [`Attribute`], [`StateTensor`] and [`Unsupported`] |
//! | Tensors | [`NamedTensors`], [`parameters!`](crate::parameters); [`to_bf16`], [`from_bf16`] and [`from_f16`] for values in 16 bits |
//! | Test it | [`Contract`](crate::check::Contract), [`GradCheck`](crate::check::GradCheck) |

pub use crate::attention::AttentionCache;
pub use crate::base::half::{from_bf16, from_f16, to_bf16};
pub use crate::base::{
    LengthsError, NamedTensors, RandomDrop, RecordsState, Size, SizeError, StateRecorder, check_gradient, check_shape,
};
pub use crate::cells::{
    Activated, BuiltCell, CellOptions, Gated, GatedActivations, GruBuffers, HiddenZoneout, LstmBuffers, MguBuffers,
    MinGruBuffers, MinLstmBuffers, RecurrentProduct, RnnBuffers, SlstmBuffers,
};
pub use crate::compose::boxed::BoxCache;
pub use crate::compose::dense_concat::DenseConcatCache;
pub use crate::compose::highway::HighwayCache;
pub use crate::compose::residual::ResidualCache;
pub use crate::compose::stacked::StackedCache;
pub use crate::compose::stochastic_depth::StochasticDepthCache;
pub use crate::compose::tied_embedding::TiedEmbeddingCache;
pub use crate::kernels::Accumulate;
pub use crate::layer::kit::{Mark, Pending, StandardLayout, reuse};
pub use crate::layer::{Attribute, Graph, Signal, StateTensor, Unsupported, Value};
pub use crate::layer::{Gradient, Id, Ids, Pass, Piece, RowCache, RowGradients, RowLayer, Rows, State, Steps, Summary};
pub use crate::layers::causal_conv1d::CausalConv1dCache;
pub use crate::layers::embedding::EmbeddingCache;
pub use crate::layers::feed_forward::FeedForwardCache;
pub use crate::layers::time::TimeCache;
pub use crate::recurrence::{
    AllSteps, Cell, CellCache, CellSizes, CellStep, CellStepBackward, StackState, StepRecorder, Unrolled,
};
pub use crate::recurrent::model::RecurrentCache;
pub use crate::wrap::bidirectional::BothCache;
pub use crate::wrap::learned_state::LearnedStateCache;
pub use crate::wrap::truncated::TruncatedBpttCache;
pub use crate::wrap::weight_drop::WeightDropCache;
pub use crate::wrap::weight_norm::WeightNormCache;
