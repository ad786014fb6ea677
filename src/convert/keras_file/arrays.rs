//! The HDF5 file in which Keras keeps weights: `layers/lstm/cell/vars/0` and so on.

use std::ops::RangeInclusive;

use hdf5_pure::{Datatype, DatatypeByteOrder, File, Group};
use ndarray::{ArrayD, IxDyn};

use super::described::Described;
use crate::base::half;
use crate::base::tensors::elements_of;
use crate::convert::FileError;
use crate::convert::json::malformed;
use crate::kernels::Float;

/// The maximum depth of nested groups.
const LEVELS: usize = 16;

/// The maximum number of groups.
const MAX_GROUPS: usize = 1 << 14;

pub struct Arrays {
    file: File,
    /// The size of the file in bytes.
    size: usize,
}

impl Arrays {
    pub fn read(bytes: Vec<u8>) -> Result<Self, FileError> {
        let size = bytes.len();
        let file = File::from_bytes(bytes).map_err(|error| damaged("", &error))?;
        let end = file.superblock().eof_address;
        if end > size as u64 {
            return Err(malformed(
                String::new(),
                format!("an HDF5 file of {end} bytes"),
                format!("{size}: it is cut off"),
            ));
        }
        Ok(Arrays { file, size })
    }

    pub fn has_group(&self, path: &str) -> bool {
        self.file.group(path).is_ok()
    }

    /// Every group that holds a layer: by its name if the file has one, otherwise by the end of its path.
    pub fn layers(&self) -> Result<Vec<Described>, FileError> {
        let (mut found, mut groups) = (Vec::new(), 0);
        self.add_layers(&self.file.root(), "", "", 0, &mut groups, &mut found)?;
        if found.is_empty() {
            let names = self.file.root().groups().map_err(|error| damaged("", &error))?;
            let expected = "groups of layers with their `vars`, as Keras 3 writes them";
            return Err(malformed(String::new(), expected, names.into_iter().take(20).collect::<Vec<_>>().join(", ")));
        }
        Ok(found)
    }

    fn add_layers(
        &self,
        group: &Group,
        path: &str,
        prefix: &str,
        depth: usize,
        groups: &mut usize,
        found: &mut Vec<Described>,
    ) -> Result<(), FileError> {
        if depth == LEVELS {
            return Err(FileError::Limit { path: None, place: path.into(), what: "levels of groups", limit: LEVELS });
        }
        for (name, child) in group.iter_groups().map_err(|error| damaged(path, &error))? {
            *groups += 1;
            if *groups > MAX_GROUPS {
                return Err(FileError::Limit { path: None, place: path.into(), what: "groups", limit: MAX_GROUPS });
            }
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            if matches!(&*name, "vars" | "optimizer" | "metrics" | "seed_generator") {
                continue;
            }
            // The layers of a model are in a group of this name.
            if name == "layers" {
                self.add_layers(&child, &path, prefix, depth + 1, groups, found)?;
                continue;
            }
            let inside = child.groups().map_err(|error| damaged(&path, &error))?;
            let own = child.group("vars").ok();
            let told = own.as_ref().and_then(|vars| Some(vars.attrs().ok()?.get("name")?.as_str()?.to_owned()));
            let name = told.unwrap_or(name);
            let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            let has_arrays = own.is_some_and(|vars| vars.datasets().is_ok_and(|names| !names.is_empty()));
            let is_layer = has_arrays
                || ["cell", "forward_layer", "layer"].iter().any(|part| inside.iter().any(|name| name == part));
            if is_layer {
                found.push(Described { name, group: path, about: None });
            } else {
                self.add_layers(&child, &path, &name, depth + 1, groups, found)?;
            }
        }
        Ok(())
    }

    /// The arrays of a group, which are called 0, 1 and so on.
    pub fn read_all<F: Float>(&self, path: &str, count: RangeInclusive<usize>) -> Result<Vec<ArrayD<F>>, FileError> {
        let group = self.file.group(path).map_err(|error| damaged(path, &error))?;
        let names = group.datasets().map_err(|error| damaged(path, &error))?;
        if !count.contains(&names.len()) {
            let expected = match (count.start(), count.end()) {
                (least, most) if least == most => format!("arrays: {least}"),
                (least, most) => format!("arrays: {least} to {most}"),
            };
            return Err(malformed(path.into(), expected, names.len().to_string()));
        }
        (0..names.len()).map(|i| self.array(&format!("{path}/{i}"))).collect()
    }

    fn array<F: Float>(&self, path: &str) -> Result<ArrayD<F>, FileError> {
        let damaged = |error| damaged(path, &error);
        let dataset = self.file.dataset(path).map_err(damaged)?;
        // Half-precision floats, which `read_f64` does not read, are read as bytes.
        let half: Option<fn(u16) -> f32> = match dataset.datatype().map_err(damaged)? {
            Datatype::FloatingPoint { size: 4 | 8, .. } => None,
            Datatype::FloatingPoint { size: 2, byte_order: DatatypeByteOrder::LittleEndian, layout } => {
                Some(if layout.exponent_size == 5 { half::from_f16 } else { half::from_bf16 })
            }
            _ => {
                let got = dataset.dtype().map_err(damaged)?.to_string();
                return Err(malformed(path.into(), "floating-point numbers", got));
            }
        };
        let shape: Option<Vec<usize>> =
            dataset.shape().map_err(damaged)?.into_iter().map(|size| size.try_into().ok()).collect();
        // A file may claim to hold more than it does; if it is compressed, it may hold more than its own size.
        let most = (16 * self.size + (1 << 20)) / 8;
        let count = shape.as_deref().and_then(elements_of).filter(|&count| count <= most);
        let (Some(shape), Some(count)) = (shape, count) else {
            return Err(FileError::Limit {
                path: None,
                place: path.into(),
                what: "elements, for a file of this size",
                limit: most,
            });
        };
        let values: Vec<F> = match half {
            None => dataset.read_f64().map_err(damaged)?.into_iter().map(F::of).collect(),
            Some(widen) => {
                let bytes = dataset.read_raw().map_err(damaged)?;
                let values = bytes.chunks_exact(2).map(|half| widen(u16::from_le_bytes([half[0], half[1]])));
                values.map(|value| F::of(value.into())).collect()
            }
        };
        if values.len() != count {
            return Err(malformed(path.into(), format!("{count} numbers"), values.len().to_string()));
        }
        Ok(ArrayD::from_shape_vec(IxDyn(&shape), values).expect("as many as the shape says"))
    }
}

fn damaged(place: &str, error: &hdf5_pure::Error) -> FileError {
    malformed(place.into(), "what HDF5 says of it", error.to_string())
}
