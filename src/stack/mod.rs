//! Layers one after another: as tuples, as structs with named layers, as a vector of one type, or chosen at run time.

mod boxed;
mod sequential;
mod stacked;

pub use boxed::{BoxCache, BoxLayer, BoxState};
pub use stacked::{Stacked, StackedCache};
