//! One file: its options and its tensors.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use gradflow::ndarray::{Array, ArrayBase, ArrayD, Data, Dimension};
use gradflow::{Float, Tensors, TensorsExt};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

/// Shape and values of one tensor. The values are widened to f64, so that the same code compares `f32` and `f64`.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// The given tensors that hold integers.
const INTEGERS: [&str; 6] =
    ["input.ids", "input.lengths", "input.query_lengths", "input.memory_lengths", "input.mask", "input.resets"];

/// Named settings. Each one that is read is removed, so any that remain are unknown options.
pub struct Options(Map<String, Value>);

impl Options {
    /// Reads the value under `key` and removes it.
    fn take<T>(&mut self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, String> {
        self.0.remove(key).map(|value| read(&value).ok_or(format!("{key}: unknown value {value}"))).transpose()
    }

    /// A number, or `"inf"`.
    pub fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        self.take(key, |value| if value == "inf" { Some(f64::INFINITY) } else { value.as_f64() })
    }

    pub fn pair(&mut self, key: &str) -> Result<Option<(f64, f64)>, String> {
        self.take(key, |value| match value.as_array()?.as_slice() {
            [a, b] => Some((a.as_f64()?, b.as_f64()?)),
            _ => None,
        })
    }

    pub fn flag(&mut self, key: &str) -> Result<bool, String> {
        Ok(self.take(key, Value::as_bool)?.unwrap_or(false))
    }

    pub fn text(&mut self, key: &str) -> Result<String, String> {
        self.take(key, |value| value.as_str().map(String::from))?.ok_or(format!("{key} is missing"))
    }

    /// Fails if any option remains, unless it is explicitly switched off.
    pub fn finish(self) -> Result<(), String> {
        match self.0.iter().find(|(_, value)| !matches!(value, Value::Null | Value::Bool(false))) {
            Some((key, value)) => Err(format!("unknown option {key} = {value}")),
            None => Ok(()),
        }
    }
}

/// A case as it was read.
pub struct Case {
    options: Map<String, Value>,
    tensors: BTreeMap<String, Tensor>,
    used: RefCell<BTreeSet<String>>,
}

impl Case {
    /// The case in the bytes of a safetensors file.
    pub fn parse(bytes: &[u8]) -> Result<Case, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let metadata = header.metadata().as_ref().and_then(|metadata| metadata.get("case"));
        let options = serde_json::from_str(metadata.ok_or("no metadata under the key `case`")?)
            .map_err(|error| format!("metadata under `case`: {error}"))?;
        let mut case = Case { options, tensors: BTreeMap::new(), used: RefCell::default() };
        let floats = case.dtype()?.to_owned();
        for (name, view) in SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?.iter() {
            let values = match view.dtype() {
                Dtype::I64 if INTEGERS.contains(&name) => {
                    numbers(view.data(), |bytes| i64::from_le_bytes(bytes) as f64)
                }
                Dtype::F64 if floats == "F64" => numbers(view.data(), f64::from_le_bytes),
                Dtype::F32 if floats == "F32" => numbers(view.data(), |bytes| f32::from_le_bytes(bytes).into()),
                dtype => return Err(format!("{name} is {dtype:?} in a case of {floats}")),
            };
            case.tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
        }
        Ok(case)
    }

    pub fn kind(&self) -> Result<&str, String> {
        self.text("kind")
    }

    pub fn dtype(&self) -> Result<&str, String> {
        self.text("dtype")
    }

    fn option<'a, T>(&'a self, key: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, String> {
        self.options.get(key).map(|value| read(value).ok_or(format!("{key}: unknown value {value}"))).transpose()
    }

    pub fn text(&self, key: &str) -> Result<&str, String> {
        self.optional_text(key)?.ok_or(format!("{key} is missing"))
    }

    pub fn optional_text(&self, key: &str) -> Result<Option<&str>, String> {
        self.option(key, Value::as_str)
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, String> {
        self.option(key, Value::as_f64)
    }

    pub fn size(&self, key: &str) -> Result<usize, String> {
        let size = self.option(key, Value::as_u64)?.ok_or(format!("{key} is missing"))?;
        usize::try_from(size).map_err(|error| format!("{key}: {error}"))
    }

    pub fn flag(&self, key: &str) -> Result<bool, String> {
        self.option(key, Value::as_bool)?.ok_or(format!("{key} is missing"))
    }

    /// A list of settings, or `None` if the key is absent.
    pub fn list(&self, key: &str) -> Result<Option<&[Value]>, String> {
        self.option(key, |value| value.as_array().map(Vec::as_slice))
    }

    /// The value under `key`, of any type, or `None`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.options.get(key)
    }

    /// Settings nested in the settings.
    pub fn nested(&self, key: &str) -> Result<Options, String> {
        Ok(Options(self.option(key, |value| value.as_object().cloned())?.ok_or(format!("{key} is missing"))?))
    }

    /// Fails unless the option has the only value that is supported so far.
    pub fn only(&self, key: &str, supported: impl Into<Value>) -> Result<(), String> {
        match self.options.get(key) {
            Some(value) if *value == supported.into() => Ok(()),
            Some(value) => Err(format!("{key} = {value} is not supported yet")),
            None => Err(format!("{key} is missing")),
        }
    }

    /// A given tensor, or `None`.
    pub fn given(&self, name: &str) -> Option<&Tensor> {
        let tensor = self.tensors.get(name)?;
        self.used.borrow_mut().insert(name.to_owned());
        Some(tensor)
    }

    /// A given tensor that must exist.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, String> {
        self.given(name).ok_or(format!("{name} is missing"))
    }

    /// A given tensor as an array.
    pub fn array<F: Float, D: Dimension>(&self, name: &str) -> Result<Array<F, D>, String> {
        let Tensor { shape, values } = self.tensor(name)?;
        let values = values.iter().map(|&value| F::of(value)).collect();
        let array = ArrayD::from_shape_vec(shape.as_slice(), values).and_then(ArrayD::into_dimensionality);
        array.map_err(|error| format!("{name}: {error}"))
    }

    /// A given tensor of ids or lengths.
    pub fn integers<D: Dimension>(&self, name: &str) -> Result<Array<usize, D>, String> {
        let values = self.array::<f64, D>(name)?;
        match values.iter().find(|&&value| value < 0.0) {
            Some(value) => Err(format!("{name} holds {value}")),
            None => Ok(values.mapv(|value| value as usize)),
        }
    }

    /// Sets all of `parameters` from `state_dict.*`; `file_name` maps their names to those in the file.
    pub fn load<F: Float>(
        &self,
        parameters: &mut (impl Tensors<F> + ?Sized),
        file_name: impl Fn(String) -> String,
    ) -> Result<(), String> {
        for i in 0..parameters.count() {
            let name = format!("state_dict.{}", file_name(parameters.name(i)));
            self.fill(&name, &[], parameters, i)?;
        }
        Ok(())
    }

    /// Sets tensor `i` of `tensors` from a given one, which may have additional leading axes.
    pub fn fill<F: Float>(
        &self,
        name: &str,
        leading: &[usize],
        tensors: &mut (impl Tensors<F> + ?Sized),
        i: usize,
    ) -> Result<(), String> {
        let Tensor { shape, values } = self.tensor(name)?;
        let expected = [leading, tensors.shape(i)].concat();
        if *shape != expected {
            return Err(format!("{name}: expected {expected:?}, got {shape:?}"));
        }
        for (to, &from) in tensors.tensor_mut(i).iter_mut().zip(values) {
            *to = F::of(from);
        }
        Ok(())
    }

    /// The expected tensors.
    pub fn expected(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).filter(|(name, _)| must_come_out(name))
    }

    /// The first given tensor that was not used, which means that the test does not know it.
    pub fn unused(&self) -> Option<&str> {
        let used = self.used.borrow();
        self.tensors.keys().map(String::as_str).find(|name| !must_come_out(name) && !used.contains(*name))
    }
}

fn must_come_out(name: &str) -> bool {
    name.starts_with("output.") || name.starts_with("grad.")
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|&bytes| number(bytes)).collect()
}

/// The results, under the names of a case's tensors.
#[derive(Debug, Default)]
pub struct Results(BTreeMap<String, Tensor>);

impl Results {
    pub fn array<F: Float, D: Dimension>(&mut self, name: &str, array: &ArrayBase<impl Data<Elem = F>, D>) {
        let values = array.iter().map(|value| value.widen()).collect();
        self.0.insert(name.into(), Tensor { shape: array.shape().to_vec(), values });
    }

    /// Adds tensor `i` of `tensors`, with leading axes of length 1.
    pub fn tensor<F: Float>(&mut self, name: &str, leading: &[usize], tensors: &(impl Tensors<F> + ?Sized), i: usize) {
        let (shape, values) = tensors.tensor(i);
        let values = values.iter().map(|value| value.widen()).collect();
        self.0.insert(name.into(), Tensor { shape: [leading, shape].concat(), values });
    }

    /// Adds all of `tensors` under `prefix`; `file_name` maps their names to those in the file.
    pub fn tensors<F: Float>(
        &mut self,
        prefix: &str,
        tensors: &(impl Tensors<F> + ?Sized),
        file_name: impl Fn(String) -> String,
    ) {
        for i in 0..tensors.count() {
            self.tensor(&format!("{prefix}{}", file_name(tensors.name(i))), &[], tensors, i);
        }
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
