//! Models in Keras' own files.

mod arrays;
mod config;
mod described;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ndarray::{Array1, Array2, ArrayD};

use self::arrays::Arrays;
use self::config::Options;
use self::described::{About, Described};
use crate::base::file_kind::FileKind;
use crate::base::zip;
use crate::convert::json::{Value, malformed};
use crate::convert::{FileError, KerasKind, KerasLayer, KerasWeights};
use crate::kernels::Float;
use crate::layers::{Embedding, LayerNorm, Linear};
use crate::wrap::Merge;

/// A model saved by Keras 3, `.keras` or `.weights.h5`, with the feature `keras`: its layers, by their names.
///
/// A `.keras` file describes each layer, so a layer is refused if it computes anything other than its counterpart here. A
/// `.weights.h5` file holds arrays alone: a layer is of the kind that the caller asks for, with Keras' defaults. A layer of a
/// nested model is called `encoder.lstm`. Any layer may also be requested by its group in the file: `layers/lstm_1`, or, in a
/// custom class, the name of an attribute. [`Debug`](fmt::Debug) shows names and groups.
///
/// ```no_run
/// use gradflow::convert::KerasFile;
/// use gradflow::{Layer, layers::{Embedding, Linear}, recurrent::BiLstm, sequential};
///
/// sequential! {
///     #[derive(Clone, Debug)]
///     struct Tagger: Layer<f32> { embedding: Embedding<f32>, lstm: BiLstm<f32>, head: Linear<f32> }
/// }
/// // keras.Sequential([Embedding(100, 16, name="words"), Bidirectional(LSTM(32, return_sequences=True), name="lstm"),
/// //                   Dense(5, activation="softmax", name="tags")]).save("tagger.keras")
/// let file = KerasFile::open("tagger.keras")?;
/// let head = file.dense("tags")?;
/// assert_eq!(head.activation, "softmax"); // this crate's loss takes logits
/// let model = Tagger {
///     embedding: file.embedding("words")?,
///     lstm: BiLstm::from_keras(&[file.recurrent("lstm")?])?,
///     head: head.linear,
/// };
/// # drop(model);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A recurrent layer's activations are read with it. `hard_sigmoid` is that of the Keras version that wrote the file: its slope
/// is 1/6 in Keras 3, and 0.2 if the file says that Keras 2 wrote it. Everything else is read as Keras 3 writes it; no file of
/// Keras 2 was tried.
///
/// Weights are rounded to the requested element type. Dropout is not part of them. Nothing in the file is executed: a `Lambda`
/// layer is only a name.
///
/// Sources: `keras/src/saving/saving_lib.py`, and the layers' `get_config`.
pub struct KerasFile {
    arrays: Arrays,
    layers: Vec<Described>,
}

/// A `Dense` layer, or a `TimeDistributed` one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KerasDense<F> {
    /// `y = x Wᵀ + b`
    pub linear: Linear<F>,
    /// The activation that Keras applies after it, by its name there; `linear` is none, and is assumed for a file of weights.
    pub activation: String,
}

impl KerasFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Returns an error if it cannot be read, or is damaged or of another kind.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(FileError::from);
        file.and_then(KerasFile::read_from).map_err(|error| error.at(path))
    }

    /// Reads a file's bytes to their end.
    ///
    /// # Errors
    /// Returns an error as [`open`](KerasFile::open) does.
    pub fn read_from(mut reader: impl Read) -> Result<Self, FileError> {
        KerasFile::read(&mut reader)
    }

    fn read(reader: &mut dyn Read) -> Result<Self, FileError> {
        let mut file = Vec::new();
        Read::take(&mut *reader, FileKind::ENOUGH as u64).read_to_end(&mut file)?;
        let kind = FileKind::of(&file);
        if !matches!(kind, Some(FileKind::KerasZip | FileKind::Zip | FileKind::Hdf5)) {
            let got = kind.map_or("other bytes".into(), |kind| kind.to_string());
            return Err(malformed(String::new(), "a file of Keras 3, .keras or .weights.h5", got));
        }
        reader.read_to_end(&mut file)?;
        if kind == Some(FileKind::Hdf5) {
            let arrays = Arrays::read(file)?;
            let layers = arrays.layers()?;
            return Ok(KerasFile { arrays, layers });
        }
        let entries = zip::entries(&file).map_err(|reason| malformed("zip file".into(), "a sound one", reason))?;
        let entry = |name: &str| {
            let place = entries.get(name).cloned();
            place.ok_or_else(|| malformed("zip file".into(), format!("an entry {name}"), "none"))
        };
        let arrays = Arrays::read(file[entry("model.weights.h5")?].to_vec())?;
        let metadata = entries.get("metadata.json").map(|place| &file[place.clone()]);
        let keras_2 = metadata.map(config::is_of_keras_2).transpose()?.unwrap_or(false);
        let layers = config::layers(&file[entry("config.json")?], keras_2)?;
        let layers = layers.map_or_else(|| arrays.layers(), Ok)?;
        Ok(KerasFile { arrays, layers })
    }

    /// The layers' names and, if the file says so, their classes in Keras, in the file's order.
    pub fn layers(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.layers.iter().map(|layer| (&*layer.name, layer.about.as_ref().map(|about| &*about.class)))
    }

    /// A `SimpleRNN`, `LSTM` or `GRU`, or a `Bidirectional` one. In a file of weights, the latter is assumed to concatenate.
    ///
    /// In a file of weights, a `SimpleRNN` is assumed to have tanh, and a `GRU` without biases to reset after the product: `kind`
    /// can be set.
    ///
    /// # Errors
    /// Returns an error if there is no layer of this name, it is of another class, has an option that this crate does not have
    /// (an activation that is none of [`Nonlinearity`](crate::layers::Nonlinearity), `go_backwards`), or arrays that do not fit.
    pub fn recurrent<F: Float>(&self, name: &str) -> Result<KerasLayer<F>, FileError> {
        let layer = self.layer(name)?;
        let Some(options) = layer.options(&["SimpleRNN", "LSTM", "GRU", "Bidirectional"])? else {
            if self.arrays.has_group(&format!("{}/forward_layer", layer.group)) {
                return self.both(layer, None, Merge::Concat);
            }
            let (kind, forward) = self.direction(&layer.group, None)?;
            return Ok(KerasLayer { kind, forward, backward: None, merge: Merge::Concat });
        };
        if options.class() == "Bidirectional" {
            let merge = options.merge()?;
            return self.both(layer, Some(&options), merge);
        }
        let (kind, forward) = self.direction(&layer.group, Some((&options, false)))?;
        Ok(KerasLayer { kind, forward, backward: None, merge: Merge::Concat })
    }

    fn both<F: Float>(
        &self,
        layer: &Described,
        options: Option<&Options<'_>>,
        merge: Merge,
    ) -> Result<KerasLayer<F>, FileError> {
        let direction = |name: &str, key: &str, backward| {
            let options = options.map(|options| options.inner(key)).transpose()?;
            let group = format!("{}/{name}", layer.group);
            self.direction(&group, options.as_ref().map(|options| (options, backward)))
        };
        let (kind, forward) = direction("forward_layer", "layer", false)?;
        let (other, backward) = direction("backward_layer", "backward_layer", true)?;
        if other != kind {
            return Err(malformed(layer.group.clone(), format!("{kind:?} in both directions"), format!("{other:?}")));
        }
        Ok(KerasLayer { kind, forward, backward: Some(backward), merge })
    }

    /// One direction of a recurrent layer: its options, and whether it must be the backward one.
    fn direction<F: Float>(
        &self,
        group: &str,
        options: Option<(&Options<'_>, bool)>,
    ) -> Result<(KerasKind, KerasWeights<F>), FileError> {
        let group = format!("{group}/cell/vars");
        let mut arrays = self.arrays.read_all::<F>(&group, 2..=3)?.into_iter();
        let mut next = || matrix(&group, arrays.next().expect("as many as asked for"));
        let (kernel, recurrent_kernel) = (next()?, next()?);
        let bias = arrays.next();
        let kind = match options {
            Some((options, backward)) => options.kind(backward)?,
            None => {
                let (hidden, columns) = recurrent_kernel.dim();
                kind_of(hidden, columns, bias.as_ref()).ok_or_else(|| {
                    let expected = "a kernel [H, H], [H, 4 H] or [H, 3 H] of a SimpleRNN, LSTM or GRU";
                    malformed(format!("{group}/1"), expected, format!("{:?}", recurrent_kernel.shape()))
                })?
            }
        };
        Ok((kind, KerasWeights { kernel, recurrent_kernel, bias }))
    }

    /// A `Dense` layer, or a `TimeDistributed` one.
    ///
    /// # Errors
    /// Returns an error if there is no layer of this name, it is of another class, or its arrays do not fit.
    pub fn dense<F: Float>(&self, name: &str) -> Result<KerasDense<F>, FileError> {
        let layer = self.layer(name)?;
        let (mut group, mut activation) = (format!("{}/vars", layer.group), "linear".to_owned());
        match layer.options(&["Dense", "TimeDistributed"])? {
            Some(options) if options.class() == "Dense" => activation = options.text("activation")?,
            Some(options) => {
                group = format!("{}/layer/vars", layer.group);
                let inner = options.inner("layer")?;
                inner.expect_class("Dense")?;
                activation = inner.text("activation")?;
            }
            None if self.arrays.has_group(&format!("{}/layer", layer.group)) => {
                group = format!("{}/layer/vars", layer.group);
            }
            None => {}
        }
        let mut arrays = self.arrays.read_all(&group, 1..=2)?.into_iter();
        let kernel = matrix(&group, arrays.next().expect("one or two"))?; // [I, O]
        let weight = kernel.t().as_standard_layout().into_owned();
        let bias = arrays.next().map(|bias| vector(&format!("{group}/1"), bias, weight.nrows())).transpose()?;
        Ok(KerasDense { linear: Linear { weight, bias }, activation })
    }

    /// An `Embedding`.
    ///
    /// # Errors
    /// Returns an error if there is no layer of this name, it is of another class, or its array does not fit.
    pub fn embedding<F: Float>(&self, name: &str) -> Result<Embedding<F>, FileError> {
        let layer = self.layer(name)?;
        layer.options(&["Embedding"])?;
        let group = format!("{}/vars", layer.group);
        let array = self.arrays.read_all(&group, 1..=1)?.remove(0);
        Ok(Embedding { weight: matrix(&group, array)?, padding_idx: None })
    }

    /// A `LayerNormalization` over the features; without `scale`, the weights are ones, and without `center`, the biases are
    /// zeros.
    ///
    /// # Errors
    /// Returns an error if there is no layer of this name, it is of another class, normalises something else, or its arrays do
    /// not fit. From a file of weights, it also returns an error if there is only one array, since nothing says which one it is.
    pub fn layer_norm<F: Float>(&self, name: &str) -> Result<LayerNorm<F>, FileError> {
        let layer = self.layer(name)?;
        let options = layer.options(&["LayerNormalization"])?;
        let (mut scale, mut center, mut eps) = (true, true, 1e-3);
        if let Some(options) = &options {
            options.expect("axis", &["-1", "[-1]", "2", "[2]"])?;
            options.expect("rms_scaling", &["false"])?;
            (scale, center) = (options.truth("scale")?, options.truth("center")?);
            eps = options.number("epsilon")?;
        }
        let group = format!("{}/vars", layer.group);
        let count = usize::from(scale) + usize::from(center);
        if count == 0 {
            let expected = "a scale or a center, which say how many features there are";
            return Err(FileError::Unsupported {
                path: None,
                place: group,
                expected: expected.into(),
                got: "none".into(),
            });
        }
        let arrays = self.arrays.read_all::<F>(&group, count..=count)?;
        let features = arrays[0].len();
        let mut arrays = arrays.into_iter().enumerate();
        let mut next = || {
            let (i, array) = arrays.next().expect("as many as asked for");
            vector(&format!("{group}/{i}"), array, features)
        };
        let mut norm = LayerNorm::new(features.max(1)).eps(eps);
        if scale {
            norm.weight = next()?;
        }
        if center {
            norm.bias = next()?;
        }
        Ok(norm)
    }

    fn layer(&self, name: &str) -> Result<&Described, FileError> {
        let mut found = self.layers.iter().filter(|layer| layer.name == name || layer.group == name);
        match (found.next(), found.next()) {
            (Some(layer), None) => Ok(layer),
            (Some(_), Some(_)) => Err(malformed(name.into(), "one layer of this name", "several")),
            (None, _) => {
                let names: Vec<_> = self.layers.iter().take(50).map(|layer| &*layer.name).collect();
                Err(malformed("layers".into(), format!("one called {name:?}"), names.join(", ")))
            }
        }
    }
}

impl Described {
    /// Its options, if it is of one of these classes; `None` if the file has no configuration.
    fn options(&self, classes: &[&str]) -> Result<Option<Options<'_>>, FileError> {
        let Some(About { class, config, place, keras_2 }) = &self.about else { return Ok(None) };
        if !classes.contains(&&**class) {
            let expected = classes.join(" or ");
            let got = class.clone();
            return Err(FileError::Unsupported { path: None, place: self.name.clone(), expected, got });
        }
        Ok(Some(Options::new(class.clone(), Value::in_place(config, place), *keras_2)))
    }
}

/// The kind of a layer with Keras' defaults, by the shapes of its arrays.
fn kind_of<F>(hidden: usize, columns: usize, bias: Option<&ArrayD<F>>) -> Option<KerasKind> {
    Some(match columns.checked_div(hidden)? {
        _ if !columns.is_multiple_of(hidden) => return None,
        1 => KerasKind::simple_rnn(),
        3 => KerasKind::gru(bias.is_none_or(|bias| bias.ndim() == 2)),
        4 => KerasKind::lstm(),
        _ => return None,
    })
}

fn matrix<F>(place: &str, array: ArrayD<F>) -> Result<Array2<F>, FileError> {
    let shape = array.shape().to_vec();
    let matrix = array.into_dimensionality().ok().filter(|matrix: &Array2<F>| !matrix.is_empty());
    matrix.ok_or_else(|| malformed(place.into(), "a matrix", format!("an array of shape {shape:?}")))
}

fn vector<F>(place: &str, array: ArrayD<F>, length: usize) -> Result<Array1<F>, FileError> {
    let shape = array.shape().to_vec();
    let vector = array.into_dimensionality().ok().filter(|vector: &Array1<F>| vector.len() == length && length > 0);
    vector.ok_or_else(|| malformed(place.into(), format!("{length} numbers"), format!("an array of shape {shape:?}")))
}

impl fmt::Debug for KerasFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes = |layer: &Described| layer.about.as_ref().map(|about| about.class.clone());
        let layers = self.layers.iter().map(|layer| (&layer.name, &layer.group, classes(layer)));
        f.debug_struct("KerasFile").field("layers", &layers.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}
