//! Single layers: the contract, gradients, laws, options, prepacked weights, wrong input.

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

mod activations;
mod bad_input;
mod callers;
mod contract;
mod feed_forward;
mod gradcheck;
mod laws;
mod lies;
mod options;
mod own_cell;
mod prepacked;
mod reduced;
mod stream;
mod weight_drop;
