//! The protocol of the driver and its workers: one JSON object a line, over a worker's stdin and stdout.
//!
//! Each peer is a separate process, which the driver asks in turn; tensors are passed as safetensors files.

mod point;
mod serve;
mod streaming;
mod tensors;
mod training;

pub use point::{Cell, Dtype, Mode, Point};
pub use serve::{Peer, Work, serve};
pub use streaming::{Steps, Streaming};
pub use tensors::{Tensor, Tensors};
pub use training::{Trainer, Training};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A request of the driver.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Request {
    /// Makes the model, input and buffers of a point, from the tensors in a file.
    Prepare { point: Point, given: PathBuf },
    /// Runs once and writes the results: `y`, and in training `dx` and `grad.{parameter}`; for whole steps, `loss` and
    /// `param.{parameter}`.
    Outputs { to: PathBuf },
    /// Runs a number of iterations and returns how long they took.
    Run { iterations: u64 },
    /// Runs a number of times and returns how long each run took; not asked of Python.
    Each { runs: usize },
    /// Runs a number of iterations and returns how much memory they took above that before `Prepare`.
    Memory { point: Point, given: PathBuf, iterations: u64 },
}

/// The answer of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The first line: name and version.
    Version(String),
    Done,
    Seconds(f64),
    Nanoseconds(Vec<u64>),
    Memory(Memory),
    /// The peer has no such layer, or not in this mode: why.
    Cannot(String),
}

/// Bytes that a point takes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// The process's largest resident size, less its size before the point.
    pub peak: u64,
    /// The bytes that the layer keeps between forward and backward, if the peer can tell.
    pub cache: Option<u64>,
}
