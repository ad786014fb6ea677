//! Files: state dicts, checkpoints, PyTorch's state dicts, weights of ONNX and Keras, models of plug-ins.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "safetensors")]
mod checkpoint;
mod convert;
#[cfg(all(feature = "keras", feature = "safetensors"))]
mod keras;
#[cfg(feature = "plugin-formats")]
mod plugins;
#[cfg(feature = "safetensors")]
mod pytorch;
#[cfg(feature = "safetensors")]
mod tied;
#[cfg(feature = "pytorch")]
mod torch_save;
