//! What the driver and its workers say to each other: one JSON object a line, over a worker's stdin and stdout.
//!
//! Each peer is a process of its own, which the driver asks in turn; tensors travel as safetensors files.

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

/// What the driver asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Request {
    /// Makes the model, input and buffers of a point, from the tensors in a file.
    Prepare { point: Point, given: PathBuf },
    /// Runs once and writes what came out: `y`, and in training `dx` and `grad.{parameter}`; of whole steps, `loss` and
    /// `param.{parameter}`.
    Outputs { to: PathBuf },
    /// Runs a number of iterations and returns how long they took.
    Run { iterations: u64 },
    /// Runs a number of times and returns how long each run took; not asked of Python.
    Each { runs: usize },
    /// Runs a number of iterations and returns how much memory they took above that before `Prepare`.
    Memory { point: Point, given: PathBuf, iterations: u64 },
}

/// What a worker answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The first line: who this is.
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
    /// The process's largest resident size, above what it was before the point.
    pub peak: u64,
    /// What the layer keeps between forward and backward, where the peer can tell.
    pub cache: Option<u64>,
}
