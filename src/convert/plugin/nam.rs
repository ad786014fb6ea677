//! `.nam` files of Neural Amp Modeler, with the architecture LSTM.
//!
//! [`NamModel`] is the content of such a file. The plug-in and the trainer (`neural-amp-modeler` 0.13, NeuralAmpModelerCore
//! 0.5.5; both by Steven Atkinson) load the files written here, and the files that they write are read here.
//!
//! # The format
//!
//! One object in JSON:
//!
//! | key | value |
//! | --- | --- |
//! | `version` | `"0.5.4"` is written; from 0.5 up to 0.7 are read |
//! | `architecture` | `"LSTM"` |
//! | `config` | `input_size`, `hidden_size`, `num_layers`; if there are several outputs, `out_channels` |
//! | `weights` | a list of numbers, see below |
//! | `sample_rate` | in Hz; may be absent |
//! | `metadata` | an object; may be absent |
//!
//! The weights are, layer by layer:
//!
//! | | shape |
//! | --- | --- |
//! | weights of x and of h side by side, gates i, f, g, o | `[4 H, I + H]`, row by row |
//! | biases | `[4 H]`, `bias_ih + bias_hh` |
//! | initial h and c of a stream | `[H]` each |
//!
//! and then the weights `[O, H]` and the biases `[O]` of the linear layer at the end. `WaveNet`, `ConvNet` and the other
//! architectures are refused with [`FileError::Unsupported`].
//!
//! # What is lost
//!
//! Two biases become their sum. Numbers are written as `f64` and read as the model's element type, so everything else in a model
//! of `f32` is preserved to the bit; `bias_hh` is zero after reading. Metadata keeps every value.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use ndarray::{Array1, Array2, Axis, Ix3, concatenate, s};
use serde_json::Map;

use super::numbers::{read, write_vector};
use super::{FileError, MAX_FILE_BYTES, MAX_LAYERS, check_finite};
use crate::base::file;
use crate::cells::LstmCell;
use crate::convert::json::Value;
use crate::convert::{ConvertError, KerasCell, KerasKind, supported};
use crate::kernels::Float;
use crate::layer::Layer;
use crate::layers::Linear;
use crate::recurrence::LstmState;
use crate::recurrent::Lstm;

/// The version that is written: the last one that changed LSTMs.
const VERSION: &str = "0.5.4";

/// The content of a `.nam` file: an LSTM of one or more layers and a linear layer, `[T, B, I]` to `[T, B, O]`.
///
/// ```
/// use gradflow::convert::nam::NamModel;
/// use gradflow::{layers::Linear, rand::{SeedableRng, rngs::StdRng}, recurrent::Lstm, stream::Stream};
///
/// # let path = std::env::temp_dir().join(format!("gradflow-doc-{}.nam", std::process::id()));
/// let rng = &mut StdRng::seed_from_u64(0);
/// let mut file = NamModel::new(Lstm::<f32>::new(1, 8, rng), Linear::new(8, 1, rng)); // after training
/// file.sample_rate = Some(48_000.0);
/// file.metadata.insert("name".into(), "Diode clipper".into());
/// file.save(&path)?;
///
/// let NamModel { model, initial_state, .. } = NamModel::<f32>::open(&path)?;
/// let mut stream = Stream::new(&model, 1)?;
/// stream.set_state(&initial_state);
/// let samples = [0.5, 0.25, 0.0].map(|sample| stream.push(&[sample])[0]);
/// assert!(samples.iter().all(|sample| sample.is_finite()));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NamModel<F: Float> {
    /// The layers.
    pub model: (Lstm<F>, Linear<F>),
    /// The initial state of a stream, `[L, 1, H]`. Trainers write the state after a stretch of silence.
    pub initial_state: (LstmState<F, Ix3>, ()),
    /// Samples per second of the audio that the model was trained on.
    pub sample_rate: Option<f64>,
    /// Information about the model: plug-ins show `name`, `modeled_by`, `gear_type` and others.
    pub metadata: Map<String, serde_json::Value>,
}

impl<F: Float> NamModel<F> {
    /// A model that starts from a state of zeros, without sample rate and metadata.
    pub fn new(lstm: Lstm<F>, head: Linear<F>) -> Self {
        let initial_state = (lstm.zero_state(1), ());
        NamModel { model: (lstm, head), initial_state, sample_rate: None, metadata: Map::new() }
    }

    /// Reads a file of at most 64 MiB.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is damaged or larger, or has another architecture.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(FileError::from);
        file.and_then(Self::read_from).map_err(|error| error.at(path))
    }

    /// Reads a file of at most 64 MiB.
    ///
    /// # Errors
    /// Returns an error as [`open`](NamModel::open) does.
    pub fn read_from(reader: impl Read) -> Result<Self, FileError> {
        Self::read_with(reader, MAX_FILE_BYTES)
    }

    /// Reads a file of at most `max_bytes`. Reading takes up to about ten times as much memory as the file.
    ///
    /// # Errors
    /// Returns an error as [`open`](NamModel::open) does.
    pub fn read_with(mut reader: impl Read, max_bytes: usize) -> Result<Self, FileError> {
        Self::of_text(&read(&mut reader, max_bytes)?)
    }

    fn of_text(text: &str) -> Result<Self, FileError> {
        let keys = ["version", "architecture", "config", "weights", "sample_rate", "metadata"];
        let file = Value::of_text(text)?.members(&keys)?;
        check_version(file.required("version")?)?;
        let architecture = file.required("architecture")?;
        if architecture.text()? != "LSTM" {
            return Err(architecture.unsupported("\"LSTM\""));
        }
        let sizes = Sizes::of_config(file.required("config")?)?;
        let weights = file.required("weights")?;
        let count = sizes.weights().ok_or_else(|| weights.malformed("fewer weights than config asks for"))?;
        let (model, state) = sizes.model(weights.vector(count)?);
        let sample_rate = match file.optional("sample_rate") {
            None => None,
            Some(rate) => match rate.number::<f64>()? {
                hertz if hertz > 0.0 => Some(hertz),
                _ => return Err(rate.malformed("a number above 0")),
            },
        };
        let metadata = file.optional("metadata").map_or_else(|| Ok(Map::new()), Value::metadata)?;
        Ok(NamModel { model, initial_state: (state, ()), sample_rate, metadata })
    }

    /// Writes a file, replacing an existing one as a whole or not at all.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, a parameter is not finite, the parts do not fit each other, or the LSTM
    /// has an option that the format does not have: peepholes, coupled gates, a projection, layer normalisation, zoneout, `clip`,
    /// activations other than tanh and the sigmoid.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        self.check()?;
        Ok(file::replace(path.as_ref(), &mut |writer| self.write(writer))?)
    }

    /// Writes the bytes that [`save`](NamModel::save) puts into a file.
    ///
    /// # Errors
    /// Returns an error as [`save`](NamModel::save) does.
    pub fn save_to(&self, mut writer: impl Write) -> Result<(), FileError> {
        self.check()?;
        Ok(self.write(&mut writer)?)
    }

    fn sizes(&self) -> Sizes {
        let (lstm, head) = &self.model;
        let (hidden, input) = (lstm.cell(0, 0).weight_hh.ncols(), lstm.cell(0, 0).weight_ih.ncols());
        Sizes { input, hidden, layers: lstm.num_layers(), output: head.weight.nrows() }
    }

    /// Returns an error if the format cannot hold the model.
    fn check(&self) -> Result<(), FileError> {
        let (Sizes { hidden, layers, output, .. }, (lstm, head)) = (self.sizes(), &self.model);
        for layer in 0..layers {
            supported(layer, lstm.cell(layer, 0).kind().and_then(KerasKind::with_its_activations))?;
        }
        let (state, bias) = (&self.initial_state.0, head.bias.as_ref());
        let outputs = [output];
        let shapes = [
            ("weight of the linear layer", vec![output, hidden], head.weight.shape()),
            ("bias of the linear layer", vec![output], bias.map_or(&outputs[..], |bias| bias.shape())),
            ("initial_state.h", vec![layers, 1, hidden], state.h.shape()),
            ("initial_state.c", vec![layers, 1, hidden], state.c.shape()),
        ];
        for (tensor, expected, got) in shapes {
            if expected != got {
                return Err(ConvertError::Shape { layer: layers, tensor, expected, got: got.to_vec() }.into());
            }
        }
        check_finite(&self.model)?;
        check_finite(state)?;
        match self.sample_rate {
            Some(rate) if !(rate.is_finite() && rate > 0.0) => {
                Err(FileError::NotFinite { tensor: "sample_rate".into() })
            }
            _ => Ok(()),
        }
    }

    fn write(&self, writer: &mut dyn Write) -> std::io::Result<()> {
        let (Sizes { input, hidden, layers, output }, (lstm, head)) = (self.sizes(), &self.model);
        write!(writer, r#"{{"version": "{VERSION}", "metadata": "#)?;
        serde_json::to_writer(&mut *writer, &self.metadata)?;
        write!(writer, r#", "architecture": "LSTM", "config": {{"input_size": {input}, "hidden_size": {hidden}, "#)?;
        write!(writer, r#""num_layers": {layers}"#)?;
        if output != 1 {
            write!(writer, r#", "in_channels": {input}, "out_channels": {output}"#)?;
        }
        write!(writer, r#"}}, "weights": "#)?;
        let mut weights = Vec::new();
        for layer in 0..layers {
            let LstmCell { weight_ih, weight_hh, bias_ih, bias_hh, .. } = lstm.cell(layer, 0);
            weights.extend(concatenate![Axis(1), *weight_ih, *weight_hh]);
            let mut bias = Array1::zeros(4 * hidden);
            [bias_ih, bias_hh].into_iter().flatten().for_each(|part| bias += part);
            weights.extend(bias);
            let state = &self.initial_state.0;
            weights.extend([&state.h, &state.c].into_iter().flat_map(|state| state.slice(s![layer, 0, ..])));
        }
        weights.extend(&head.weight);
        weights.extend(head.bias.clone().unwrap_or_else(|| Array1::zeros(output)));
        write_vector(Array1::from(weights).view(), writer)?;
        match self.sample_rate {
            Some(rate) => writeln!(writer, r#", "sample_rate": {rate:?}}}"#),
            None => writeln!(writer, "}}"),
        }
    }
}

/// Returns an error unless the LSTMs of this version are known.
fn check_version(version: &Value<'_>) -> Result<(), FileError> {
    let text = version.text()?;
    let mut numbers = text.split('.').map(str::parse::<u32>);
    match [numbers.next(), numbers.next(), numbers.next(), numbers.next()] {
        [Some(Ok(0)), Some(Ok(5..=7)), Some(Ok(_)), None] => Ok(()),
        [Some(Ok(_)), Some(Ok(_)), Some(Ok(_)), None] => Err(version.unsupported("a version from 0.5.0 to 0.7")),
        _ => Err(version.malformed("a version, such as \"0.5.4\"")),
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    input: usize,
    hidden: usize,
    layers: usize,
    output: usize,
}

impl Sizes {
    fn of_config(config: &Value<'_>) -> Result<Self, FileError> {
        let config = config.members(&["input_size", "hidden_size", "num_layers", "in_channels", "out_channels"])?;
        let size = |key: &str| config.required(key)?.whole(1, usize::MAX);
        let (input, hidden) = (size("input_size")?, size("hidden_size")?);
        let layers = config.required("num_layers")?.whole(1, MAX_LAYERS)?;
        if let Some(channels) = config.optional("in_channels") {
            channels.whole(input, input)?;
        }
        let output = config.optional("out_channels").map_or(Ok(1), |channels| channels.whole(1, usize::MAX))?;
        Ok(Sizes { input, hidden, layers, output })
    }

    /// The number of weights, unless it overflows.
    fn weights(self) -> Option<usize> {
        let Sizes { input, hidden, layers, output } = self;
        let of_layer = |input: usize| {
            let rows = hidden.checked_mul(4)?;
            let matrix = rows.checked_mul(input.checked_add(hidden)?)?;
            matrix.checked_add(rows)?.checked_add(hidden.checked_mul(2)?)
        };
        let others = of_layer(hidden)?.checked_mul(layers - 1)?;
        let head = output.checked_mul(hidden.checked_add(1)?)?;
        of_layer(input)?.checked_add(others)?.checked_add(head)
    }

    /// The model and its initial state, from weights whose number fits.
    fn model<F: Float>(self, weights: Array1<F>) -> ((Lstm<F>, Linear<F>), LstmState<F, Ix3>) {
        let Sizes { input, hidden, layers, output } = self;
        let mut rest = weights.view();
        let mut next = |count: usize| {
            let (part, after) = rest.split_at(Axis(0), count);
            rest = after;
            part
        };
        let mut cells = Vec::new();
        let mut states = Vec::new();
        for layer in 0..layers {
            let input = if layer == 0 { input } else { hidden };
            let mut cell = LstmCell::builder(input, hidden).zeros();
            let matrix = next(4 * hidden * (input + hidden));
            let matrix = matrix.to_shape((4 * hidden, input + hidden)).expect("as many numbers");
            cell.weight_ih.assign(&matrix.slice(s![.., ..input]));
            cell.weight_hh.assign(&matrix.slice(s![.., input..]));
            cell.bias_ih = Some(next(4 * hidden).to_owned());
            cells.push([cell]);
            states.push([next(hidden), next(hidden)]);
        }
        let lstm = Lstm::from_cells(cells);
        let mut state = lstm.zero_state(1);
        for (layer, [h, c]) in states.into_iter().enumerate() {
            state.h.slice_mut(s![layer, 0, ..]).assign(&h);
            state.c.slice_mut(s![layer, 0, ..]).assign(&c);
        }
        let weight: Array2<F> = next(output * hidden).to_shape((output, hidden)).expect("as many numbers").to_owned();
        let head = Linear { weight, bias: Some(next(output).to_owned()) };
        ((lstm, head), state)
    }
}
