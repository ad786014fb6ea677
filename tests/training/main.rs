//! Training: losses, optimizers, gradient probes, and that a training step allocates nothing.

#[path = "../common/mod.rs"]
mod common;

mod allocations;
mod losses;
mod optim;
mod probe;
