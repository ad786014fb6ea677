//! From sequences to the batches of a training: padding, buckets, windows, one-hot vectors, normalisation and splits.

mod batch;

pub use batch::{Batch, Values};
