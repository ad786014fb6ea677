//! Training: data, losses, metrics, optimizers, gradient probes, and that a training step allocates nothing.

#[path = "../common/mod.rs"]
mod common;

mod allocations;
mod data;
mod losses;
mod metrics;
mod optim;
mod probe;
