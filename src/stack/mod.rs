//! Layers put together: one after another as tuples, as structs with named layers, as a vector of one type, or chosen at run time; and in both directions.

mod bidirectional;
mod boxed;
mod sequential;
mod stacked;

pub use bidirectional::{Bidirectional, BothCache, BothStates};
pub use boxed::{BoxCache, BoxLayer, BoxState};
pub use stacked::{Stacked, StackedCache};
