//! Models of audio plug-ins.

mod guitarml;
pub mod keras_json;
mod keras_layers;
pub mod nam;
mod numbers;

use crate::base::Tensors;
use crate::convert::FileError;
use crate::kernels::Float;

/// The default limit of a file's size in bytes. Files of plug-ins have less than one million.
const MAX_FILE_BYTES: usize = 64 << 20;

/// The maximum number of layers: each takes some memory before its weights are read.
const MAX_LAYERS: usize = 1024;

/// Returns an error with the name of the first tensor that has a value that JSON cannot represent.
fn check_finite<F: Float>(tensors: &impl Tensors<F>) -> Result<(), FileError> {
    let bad = (0..tensors.count()).find(|&i| tensors.tensor(i).1.iter().any(|value| !value.is_finite()));
    bad.map_or(Ok(()), |i| Err(FileError::NotFinite { tensor: tensors.name(i) }))
}
