//! Files: state dicts, checkpoints, PyTorch's state dicts, weights of ONNX and Keras.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "safetensors")]
mod checkpoint;
mod convert;
#[cfg(feature = "safetensors")]
mod pytorch;
