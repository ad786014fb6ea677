//! Models of Keras' layers in JSON, as RTNeural and the plug-ins based on it load them: AIDA-X, NeuralPi, Proteus and others.
//!
//! [`KerasJson`] is the content of such a file. It reads files of RTNeural's `save_model` (Chowdhury 2021) and AIDA-X' trainer,
//! and RTNeural's `parseJson` loads the files that it writes.
//!
//! # The format
//!
//! One object in JSON:
//!
//! | key | value |
//! | --- | --- |
//! | `in_shape` | `[null, null, I]` |
//! | `layers` | a list of objects, see below |
//! | `in_skip` | 1 if the first input is added to the output; may be absent (AIDA-X) |
//! | `in_gain`, `out_gain` | gains before and after the model in dB; may be absent (AIDA-X) |
//! | `metadata` | an object; may be absent (AIDA-X) |
//!
//! A layer has a `type`, an `activation`, a `shape` whose last number is the number of outputs, and `weights` in the shapes of
//! Keras, which [`convert`](crate::convert) describes:
//!
//! | `type` | here | `weights` |
//! | --- | --- | --- |
//! | `lstm` | [`LstmCell`](crate::recurrent::LstmCell) | `[I, 4 H]`, `[H, 4 H]`, `[4 H]` |
//! | `gru` | [`GruCell`](crate::recurrent::GruCell) with the reset gate after the product | `[I, 3 H]`, `[H, 3 H]`, `[2, 3 H]` |
//! | `dense`, `time-distributed-dense` | [`Linear`] and, unless `activation` is empty, [`Activation`](crate::layers::Activation) | `[I, O]`, `[O]` |
//! | `activation` | [`Activation`](crate::layers::Activation) | none |
//!
//! Activations are `tanh`, `relu` and `sigmoid`. That of a recurrent layer is `tanh` or empty, since RTNeural computes tanh in
//! both cases, and the sigmoid in its gates. A cell with another activation is refused when it is written. A list of weights
//! without biases is read as a layer without them. Other layers and activations, such as `conv1d`, `prelu` and `elu`, are refused
//! with [`FileError::Unsupported`] and their place.
//!
//! # GuitarML
//!
//! The trainer of GuitarML's plug-ins (Proteus, NeuralPi), Automated-GuitarAmpModelling (Wright et al. 2020), writes another
//! object: `model_data`, which describes an LSTM or GRU with a linear layer, and `state_dict`, PyTorch's tensors in lists. It is
//! recognised by its keys and read as well.
//!
//! # What is lost
//!
//! The two biases of an LSTM become their sum, and layers without biases get zeros, which RTNeural needs. Numbers are written as
//! `f64`, so everything else in a model of `f32` is preserved to the bit.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use ndarray::{Array2, Ix1, Ix2};
use serde_json::Map;

pub use super::keras_layers::KerasJsonLayer;

use super::keras_layers::{Written, last_size, name_of, read_layer};
use super::numbers::{read, write_matrix, write_vector};
use super::{FileError, MAX_FILE_BYTES, MAX_LAYERS, guitarml};
use crate::base::file;
use crate::compose::{BoxLayer, BranchScale, Residual, Stacked};
use crate::convert::json::Value;
use crate::convert::{ConvertError, check_array, supported};
use crate::kernels::Float;
use crate::layers::Linear;

const KEYS: [&str; 7] = ["in_shape", "layers", "in_skip", "in_gain", "out_gain", "metadata", "model_data"];

/// The content of a file: layers, one after another, `[T, B, I]` to `[T, B, O]`.
///
/// ```
/// use gradflow::convert::keras_json::KerasJson;
/// use gradflow::{layers::Linear, rand::{SeedableRng, rngs::StdRng}, recurrent::GruCell, stream::Stream};
///
/// # let path = std::env::temp_dir().join(format!("gradflow-doc-{}.json", std::process::id()));
/// let rng = &mut StdRng::seed_from_u64(0);
/// let (gru, head) = (GruCell::<f32>::new(1, 8, rng), Linear::new(8, 1, rng)); // after training
/// KerasJson::new([gru.into(), head.into()]).save(&path)?;
///
/// let model = KerasJson::<f32>::open(&path)?.model();
/// let mut stream = Stream::new(&model, 1)?;
/// let samples = [0.5, 0.25, 0.0].map(|sample| stream.push(&[sample])[0]);
/// assert!(samples.iter().all(|sample| sample.is_finite()));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KerasJson<F: Float> {
    /// The layers, first to last.
    pub layers: Vec<KerasJsonLayer<F>>,
    /// Whether the first feature of the input is added to the output, which has one feature then.
    pub skip: bool,
    /// The gain before the model in dB, for the input, including what is added to the output; [`model`](KerasJson::model) leaves
    /// it to the caller.
    pub input_gain: Option<f64>,
    /// The gain after the model in dB; [`model`](KerasJson::model) leaves it to the caller.
    pub output_gain: Option<f64>,
    /// Information about the model.
    pub metadata: Map<String, serde_json::Value>,
}

impl<F: Float> KerasJson<F> {
    /// Layers, first to last, and nothing else. The layers of a [`Recurrent`](crate::recurrent::Recurrent) model are its
    /// [cells](crate::recurrent::Recurrent::cell).
    pub fn new(layers: impl IntoIterator<Item = KerasJsonLayer<F>>) -> Self {
        let layers = layers.into_iter().collect();
        KerasJson { layers, skip: false, input_gain: None, output_gain: None, metadata: Map::new() }
    }

    /// A model that computes the same as the layers, and adds the first input if [`skip`](KerasJson::skip) is set.
    ///
    /// # Panics
    /// Panics if there are no layers. A model of layers that do not fit each other panics in its first pass.
    #[track_caller]
    pub fn model(&self) -> Stacked<BoxLayer<F>> {
        let layers = Stacked::new(self.layers.iter().map(KerasJsonLayer::boxed).collect());
        if !self.skip {
            return layers;
        }
        let mut weight = Array2::zeros((1, self.input_size().unwrap_or(1)));
        weight[[0, 0]] = F::one();
        let shortcut = (weight.len() > 1).then_some(Linear { weight, bias: None });
        Stacked::new(vec![BoxLayer::new(Residual { branch: layers, scale: BranchScale::Fixed(1.0), shortcut })])
    }

    /// I, the number of input features, from the first layer that has weights; `None` if there is none.
    pub fn input_size(&self) -> Option<usize> {
        self.layers.iter().find_map(KerasJsonLayer::input)
    }

    /// Reads a file of at most 64 MiB.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is damaged or larger, or has a layer that is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(FileError::from);
        file.and_then(Self::read_from).map_err(|error| error.at(path))
    }

    /// Reads a file of at most 64 MiB.
    ///
    /// # Errors
    /// Returns an error as [`open`](KerasJson::open) does.
    pub fn read_from(reader: impl Read) -> Result<Self, FileError> {
        Self::read_with(reader, MAX_FILE_BYTES)
    }

    /// Reads a file of at most `max_bytes`. Reading takes up to about ten times as much memory as the file.
    ///
    /// # Errors
    /// Returns an error as [`open`](KerasJson::open) does.
    pub fn read_with(mut reader: impl Read, max_bytes: usize) -> Result<Self, FileError> {
        Self::of_text(&read(&mut reader, max_bytes)?)
    }

    fn of_text(text: &str) -> Result<Self, FileError> {
        let whole = Value::of_text(text)?;
        let file = whole.members(&KEYS)?;
        if file.optional("model_data").is_some() {
            let (layers, skip) = guitarml::read(&whole)?;
            return Ok(KerasJson { skip, ..KerasJson::new(layers) });
        }
        let mut size = last_size(file.required("in_shape")?)?;
        let mut content = KerasJson::new([]);
        for layer in file.required("layers")?.list("a list of layers", MAX_LAYERS)? {
            content.layers.extend(read_layer(&layer, &mut size)?);
        }
        if content.input_size().is_none() {
            return Err(file.required("layers")?.malformed("a list with a layer that has weights"));
        }
        if let Some(skip) = file.optional("in_skip") {
            content.skip = skip.whole(0, 1)? == 1;
            if content.skip && size != 1 {
                return Err(skip.unsupported(format!("0 in a model of {size} outputs")));
            }
        }
        content.input_gain = file.optional("in_gain").map(Value::number).transpose()?;
        content.output_gain = file.optional("out_gain").map(Value::number).transpose()?;
        content.metadata = file.optional("metadata").map_or_else(|| Ok(Map::new()), Value::metadata)?;
        Ok(content)
    }

    /// Writes a file, replacing an existing one as a whole or not at all.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, there is no layer with weights, a parameter is not finite, the layers do
    /// not fit each other, or one cannot be written as a layer of Keras: because of an option that
    /// [`to_keras`](crate::recurrent::Recurrent::to_keras) refuses, a reset gate of a GRU that acts before the product, or an
    /// activation that is not tanh, relu or sigmoid.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let layers = self.written()?;
        Ok(file::replace(path.as_ref(), &mut |writer| self.write(&layers, writer))?)
    }

    /// Writes the bytes that [`save`](KerasJson::save) puts into a file.
    ///
    /// # Errors
    /// Returns an error as [`save`](KerasJson::save) does.
    pub fn save_to(&self, mut writer: impl Write) -> Result<(), FileError> {
        let layers = self.written()?;
        Ok(self.write(&layers, &mut writer)?)
    }

    /// The layers as they are written.
    fn written(&self) -> Result<Vec<Written<F>>, FileError> {
        let mut size = self.input_size().ok_or(ConvertError::NoLayers)?;
        let mut all: Vec<Written<F>> = Vec::new();
        for (at, layer) in self.layers.iter().enumerate() {
            let mut written = match layer {
                KerasJsonLayer::Lstm(cell) => Written::of_cell(at, "lstm", &**cell)?,
                KerasJsonLayer::Gru(cell) => Written::of_cell(at, "gru", &**cell)?,
                KerasJsonLayer::Dense(linear) => Written::of_linear(at, linear)?,
                KerasJsonLayer::Activation(activation) => {
                    let name = supported(at, name_of(activation.nonlinearity()).ok_or("the activation"))?;
                    match all.last_mut() {
                        Some(dense) if dense.kind == "dense" && dense.activation.is_empty() => {
                            dense.activation = name;
                            continue;
                        }
                        _ => Written { kind: "activation", activation: name, size, weights: Vec::new() },
                    }
                }
            };
            let expected = layer.input().unwrap_or(size);
            check_array(at, "input", &[expected], &[size])?;
            size = layer.output().unwrap_or(size);
            written.size = size;
            all.push(written);
        }
        for (gain, name) in [(self.input_gain, "input_gain"), (self.output_gain, "output_gain")] {
            if gain.is_some_and(|gain| !gain.is_finite()) {
                return Err(FileError::NotFinite { tensor: name.into() });
            }
        }
        if self.skip && size != 1 {
            let option = format!("the first input, added to {size} outputs,");
            return Err(ConvertError::Unsupported { layer: self.layers.len(), option }.into());
        }
        Ok(all)
    }

    fn write(&self, layers: &[Written<F>], writer: &mut dyn Write) -> std::io::Result<()> {
        write!(writer, r#"{{"in_shape": [null, null, {}], "#, self.input_size().unwrap_or(1))?;
        if self.skip {
            write!(writer, r#""in_skip": 1, "#)?;
        }
        for (key, gain) in [("in_gain", self.input_gain), ("out_gain", self.output_gain)] {
            if let Some(gain) = gain {
                write!(writer, r#""{key}": {gain:?}, "#)?;
            }
        }
        if !self.metadata.is_empty() {
            write!(writer, r#""metadata": "#)?;
            serde_json::to_writer(&mut *writer, &self.metadata)?;
            write!(writer, ", ")?;
        }
        write!(writer, r#""layers": ["#)?;
        for (at, Written { kind, activation, size, weights }) in layers.iter().enumerate() {
            writer.write_all(if at == 0 { b"\n" } else { b",\n" })?;
            write!(writer, r#"{{"type": "{kind}", "activation": "{activation}", "shape": [null, null, {size}], "#)?;
            write!(writer, r#""weights": ["#)?;
            for (i, array) in weights.iter().enumerate() {
                writer.write_all(if i == 0 { b"" } else { b", " })?;
                match array.ndim() {
                    1 => write_vector(array.view().into_dimensionality::<Ix1>().expect("one axis"), writer)?,
                    _ => write_matrix(array.view().into_dimensionality::<Ix2>().expect("two axes"), writer)?,
                }
            }
            writer.write_all(b"]}")?;
        }
        writer.write_all(b"\n]}\n")
    }
}
