//! Recurrent and residual neural networks on the CPU, every backward pass written by hand.

pub mod cache;
pub mod tensors;

mod affine;
mod blocks;
mod cells;
mod clip;
mod error;
mod float;
mod gradcheck;
mod init;
mod kernels;
mod layer;
mod layers;
mod loss;
mod optim;
mod sequence;
mod stack;

pub use ndarray;
pub use rand;

pub use blocks::*;
pub use cells::*;
pub use clip::{ClipNorm, NonFinite, NonFiniteGradient, clip_grad_norm, clip_grad_value, grad_norm};
pub use error::{LengthsError, SizeError};
pub use float::Float;
pub use gradcheck::{GradCheck, GradReport, TensorCheck};
pub use init::Init;
pub use layer::{Causal, Layer, Pass, State};
pub use layers::*;
pub use loss::{MeanSquaredError, Reduction, SoftmaxCrossEntropy};
pub use optim::{Adam, AdamW, Optimizer, Sgd};
pub use sequence::{Mode, Sequence, Size};
pub use stack::*;
pub use tensors::{NamedTensors, Tensors, TensorsExt};
