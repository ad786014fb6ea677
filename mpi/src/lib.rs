#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod buckets;
mod element;
mod error;
mod launch;
mod options;
mod ranks;
mod shard;
mod share;
mod sum;
mod tree;

pub use buckets::{BucketSum, Going};
pub use element::Element;
pub use error::RankError;
pub use launch::run;
pub use options::{Options, Reduction, Wire};
pub use ranks::Ranks;
pub use shard::Shard;
pub use sum::TreeSum;
