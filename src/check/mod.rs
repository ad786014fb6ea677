//! Gradients against finite differences, and the contract that every layer keeps.

pub(crate) mod contract;
mod gradcheck;

pub use contract::{Contract, CountAllocations, Input};
pub use gradcheck::{GradCheck, GradReport, TensorCheck, gradcheck};
