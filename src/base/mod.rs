//! Named tensors, sizes, errors, initial weights and random masks.

pub(crate) mod error;
#[cfg(any(feature = "safetensors", feature = "onnx", feature = "plugin-formats"))]
pub(crate) mod file;
#[cfg(any(feature = "safetensors", feature = "keras"))]
pub(crate) mod file_kind;
pub mod half;
mod init;
mod mode;
mod number;
mod probe;
pub(crate) mod random;
mod size;
pub mod tensors;
#[cfg(any(feature = "pytorch", feature = "keras"))]
pub(crate) mod zip;

pub use error::{LengthsError, check_gradient, check_shape};
pub use init::Init;
pub use mode::Mode;
pub(crate) use number::{Expect, check_number, check_sizes};
pub(crate) use probe::norm;
pub use probe::{GradientFlow, GradientProbe, LayerFlow, RecordsState, StateRecorder};
pub use random::RandomDrop;
pub use size::{Size, SizeError};
pub use tensors::{NamedTensors, Tensors, TensorsExt, ZerosLike};
