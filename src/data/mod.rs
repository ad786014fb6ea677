//! Training batches from sequences: padding, buckets, windows, one-hot vectors, normalisation and splits.
//!
//! | | |
//! | --- | --- |
//! | sequences with their targets, and batches of them | [`Samples`], [`Batches`], [`Batch`] |
//! | windows of a series, with what comes after them | [`Windows`] |
//! | a mean of 0 and a standard deviation of 1, and back | [`Normalizer`] |
//! | parts for training, validation and test | [`split_in_order`], [`split_at_random`] |
//! | vectors for ids | [`one_hot`](one_hot()) |
//!
//! To read files, use other crates: their `Vec`s and arrays go into [`Samples`].

mod batch;
mod normalizer;
mod one_hot;
mod samples;
mod split;
mod targets;
mod windows;

pub use batch::{Batch, Values};
pub use normalizer::Normalizer;
pub use one_hot::one_hot;
pub use samples::{Batches, Samples};
pub use split::{split_at_random, split_in_order};
pub use targets::{LabelPerSequence, LabelPerStep, Targets, ValuesPerSequence, ValuesPerStep};
pub use windows::Windows;
