//! Proof: gradients against finite differences, and the contract that every layer keeps.

pub mod contract;
mod gradcheck;

pub use gradcheck::{GradCheck, GradReport, TensorCheck, gradcheck};
