//! Tensors by name, in safetensors files.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use safetensors::tensor::TensorView;
use safetensors::{Dtype as Stored, SafeTensors};

use crate::Dtype;

/// Shape and row-major values. `f32` values fit `f64` exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Tensor {
    pub fn new(shape: impl Into<Vec<usize>>, values: impl IntoIterator<Item = f64>) -> Self {
        let tensor = Tensor { shape: shape.into(), values: values.into_iter().collect() };
        assert_eq!(tensor.values.len(), tensor.shape.iter().product::<usize>(), "values for {:?}", tensor.shape);
        tensor
    }

    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }

    /// The parts along the first axis.
    pub fn parts(&self) -> impl Iterator<Item = Tensor> {
        let (shape, size) = (&self.shape[1..], self.shape[1..].iter().product());
        self.values.chunks_exact(size).map(move |values| Tensor::new(shape, values.iter().copied()))
    }
}

/// Tensors by name.
#[derive(Clone, Debug, Default)]
pub struct Tensors(pub BTreeMap<String, Tensor>);

impl Tensors {
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }

    /// # Panics
    /// Panics if there is no tensor of this name.
    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let file = SafeTensors::deserialize(&bytes).map_err(io::Error::other)?;
        let tensors = file.iter().map(|(name, view)| {
            let values: Vec<f64> = match view.dtype() {
                Stored::F32 => chunks(view.data()).map(f32::from_le_bytes).map(f64::from).collect(),
                Stored::F64 => chunks(view.data()).map(f64::from_le_bytes).collect(),
                other => return Err(io::Error::other(format!("{name}: {other:?}"))),
            };
            Ok((name.to_owned(), Tensor { shape: view.shape().to_vec(), values }))
        });
        tensors.collect::<io::Result<_>>().map(Tensors)
    }

    pub fn save(&self, path: &Path, dtype: Dtype) -> io::Result<()> {
        let data: Vec<(&String, &Tensor, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, tensor)| {
                let bytes = match dtype {
                    Dtype::F32 => tensor.values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
                    Dtype::F64 => tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                };
                (name, tensor, bytes)
            })
            .collect();
        let stored = if dtype == Dtype::F32 { Stored::F32 } else { Stored::F64 };
        let views = data.iter().map(|(name, tensor, bytes)| {
            let view = TensorView::new(stored, tensor.shape.clone(), bytes).map_err(io::Error::other)?;
            Ok((name, view))
        });
        let views = views.collect::<io::Result<Vec<_>>>()?;
        safetensors::serialize_to_file(views, None, path).map_err(io::Error::other)
    }
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.chunks_exact(N).map(|chunk| chunk.try_into().expect("N bytes"))
}
