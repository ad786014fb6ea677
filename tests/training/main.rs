//! Training: data, losses, metrics, optimizers, the loop `fit`, gradient probes, and that a training step allocates nothing.

#[path = "../common/mod.rs"]
mod common;

mod allocations;
mod ctc;
mod data;
mod fit;
mod losses;
mod metrics;
mod optim;
mod probe;
mod weighted;
