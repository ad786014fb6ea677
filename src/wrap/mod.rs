//! A layer run in another way: in both directions, from a learned state, in chunks, packed, or with its gradients recorded.

mod batch_state;
mod bidirectional;
mod forwarding;
mod learned_state;
mod prepacked;
mod probed;
mod truncated;

pub use bidirectional::{Bidirectional, BothCache, BothStates};
pub use learned_state::{LearnedState, LearnedStateCache, StartedState};
pub use prepacked::Prepacked;
pub use probed::Probed;
pub use truncated::{TruncatedBptt, TruncatedBpttCache};

use crate::layer::{Causal, Layer, display_summary};

display_summary! {
    Bidirectional<L: Layer>,
    LearnedState<L: Layer>,
    Prepacked<L: Layer>,
    Probed<L: Layer>,
    TruncatedBptt<L: Causal>,
}
