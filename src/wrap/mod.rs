//! Layers that run another layer differently: in both directions, from a learned state, in chunks, prepacked, with a normalised
//! weight, with weights that are dropped, or with its gradients recorded.

pub(crate) mod bidirectional;
mod forwarding;
pub(crate) mod learned_state;
mod prepacked;
mod probed;
pub(crate) mod truncated;
pub(crate) mod weight_drop;
pub(crate) mod weight_norm;

pub use crate::base::{GradientFlow, GradientProbe, LayerFlow};
pub use crate::kernels::WeightPrecision;
pub use bidirectional::{Bidirectional, BothStates, Merge};
pub use learned_state::{LearnedState, StartedState};
pub use prepacked::Prepacked;
pub use probed::Probed;
pub use truncated::TruncatedBptt;
pub use weight_drop::WeightDrop;
pub use weight_norm::WeightNorm;

use crate::layer::{Causal, Layer, display_summary};

display_summary! {
    Bidirectional<L: Layer>,
    LearnedState<L: Layer>,
    Prepacked<L: Layer>,
    Probed<L: Layer>,
    TruncatedBptt<L: Causal>,
    WeightDrop<L: Layer>,
    WeightNorm<L: Layer>,
}
