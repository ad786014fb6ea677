//! All results of a pass.

use gradflow::ndarray::Array3;
use gradflow::{Float, Tensors, TensorsExt};

/// Outputs, states and gradients by name, in `f64`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub tensors: Vec<(String, Vec<f64>)>,
}

impl Outcome {
    pub fn add<F: Float>(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = F>) {
        self.tensors.push((name.into(), values.into_iter().map(Float::widen).collect()));
    }

    pub fn add_array<F: Float>(&mut self, name: &str, array: &Array3<F>) {
        self.add(name, array.iter().copied());
    }

    pub fn add_all<F: Float>(&mut self, prefix: &str, tensors: &(impl Tensors<F> + ?Sized)) {
        for i in 0..tensors.count() {
            // Layers inside layers may have tensors with the same name.
            self.add(format!("{prefix} {i} {}", tensors.name(i)), tensors.values(i).iter().copied());
        }
    }

    pub fn get(&self, name: &str) -> Option<&[f64]> {
        self.tensors.iter().find(|(other, _)| other == name).map(|(_, values)| &values[..])
    }

    /// Only the tensors whose names start with one of `prefixes`.
    pub fn only(&self, prefixes: &[&str]) -> Outcome {
        let wanted = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        Outcome { tensors: self.tensors.iter().filter(|(name, _)| wanted(name)).cloned().collect() }
    }

    /// The first difference in names, sizes or bits.
    pub fn difference(&self, other: &Outcome) -> Option<String> {
        if self.tensors.len() != other.tensors.len() {
            return Some(format!("{} tensors and {}", self.tensors.len(), other.tensors.len()));
        }
        for ((name, values), (other_name, other_values)) in self.tensors.iter().zip(&other.tensors) {
            if name != other_name || values.len() != other_values.len() {
                return Some(format!("{name} [{}] and {other_name} [{}]", values.len(), other_values.len()));
            }
            let differ = |(a, b): &(&f64, &f64)| a.to_bits() != b.to_bits();
            if let Some(at) = values.iter().zip(other_values).position(|pair| differ(&pair)) {
                return Some(format!("{name}, element {at}: {:e} and {:e}", values[at], other_values[at]));
            }
        }
        None
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.tensors.iter().flat_map(|(_, values)| values).flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The same tensors with other values, in the format of [`to_bytes`](Outcome::to_bytes).
    pub fn with_bytes(&self, bytes: &[u8]) -> Outcome {
        let mut values = bytes.chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().expect("8 bytes")));
        let mut outcome = self.clone();
        for (_, tensor) in &mut outcome.tensors {
            tensor.iter_mut().for_each(|value| *value = values.next().expect("as many values"));
        }
        assert!(values.next().is_none(), "as many values");
        outcome
    }
}
