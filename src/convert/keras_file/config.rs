//! The layers in the configuration of a Keras model.

use std::collections::BTreeMap;

use super::described::{About, Described};
use crate::convert::json::{Value, malformed};
use crate::convert::{FileError, KerasKind};
use crate::layers::Nonlinearity;
use crate::wrap::Merge;

/// The maximum depth of nested models.
const LEVELS: usize = 8;

/// The maximum number of layers.
const MAX_LAYERS: usize = 4096;

/// The layers of a model, if its configuration lists them; that of a custom class does not.
pub fn layers(json: &[u8], keras_2: bool) -> Result<Option<Vec<Described>>, FileError> {
    let place = || "config.json".to_owned();
    let text = std::str::from_utf8(json).map_err(|_| malformed(place(), "JSON", "bytes that are not UTF-8"))?;
    let model = Value::of_text_in(text, "config.json")?;
    let mut found = Vec::new();
    let listed = add_layers(&model, keras_2, "", "", 0, &mut found)?;
    Ok(listed.then_some(found))
}

/// Whether Keras 2 wrote the file, by its `metadata.json`.
pub fn is_of_keras_2(json: &[u8]) -> Result<bool, FileError> {
    let place = || "metadata.json".to_owned();
    let text = std::str::from_utf8(json).map_err(|_| malformed(place(), "JSON", "bytes that are not UTF-8"))?;
    let members = Value::of_text_in(text, "metadata.json")?.members(&["keras_version"])?;
    Ok(members.optional("keras_version").map(Value::text).transpose()?.is_some_and(|version| version.starts_with("2.")))
}

/// Adds the layers of a model whose groups are in `group`, if it lists them.
fn add_layers(
    model: &Value<'_>,
    keras_2: bool,
    prefix: &str,
    group: &str,
    depth: usize,
    found: &mut Vec<Described>,
) -> Result<bool, FileError> {
    let members = model.members(&["class_name", "config"])?;
    let class = members.required("class_name")?.text()?;
    if depth == LEVELS || !matches!(&*class, "Functional" | "Sequential") {
        return Ok(false);
    }
    // Groups are named after the class; the second one of a class is `lstm_1`.
    let mut counts = BTreeMap::new();
    let config = members.required("config")?.members(&["layers"])?;
    let layers = config.required("layers")?.list("a list of layers", MAX_LAYERS)?;
    for layer in &layers {
        if found.len() == MAX_LAYERS {
            let place = "config.json".into();
            return Err(FileError::Limit { path: None, place, what: "layers", limit: MAX_LAYERS });
        }
        let members = layer.members(&["class_name", "config"])?;
        let class = members.required("class_name")?.text()?;
        let config = members.required("config")?;
        let name = config.members(&["name"])?.required("name")?.text()?;
        let snake = snake_case(&class);
        let count = counts.entry(snake.clone()).and_modify(|count| *count += 1).or_insert(0);
        let own = if *count == 0 { snake } else { format!("{snake}_{count}") };
        let group = if group.is_empty() { format!("layers/{own}") } else { format!("{group}/layers/{own}") };
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        if !add_layers(layer, keras_2, &name, &group, depth + 1, found)? {
            let (config, place) = (config.raw().to_owned(), config.place().to_owned());
            found.push(Described { name, group, about: Some(About { class, config, place, keras_2 }) });
        }
    }
    Ok(true)
}

/// Converts `SimpleRNN` to `simple_rnn`, as Keras does: with an underscore before each upper-case letter that a lower-case one
/// follows, and between a lower-case letter and an upper-case one.
fn snake_case(class: &str) -> String {
    let letters: Vec<char> = class.chars().filter(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    let mut snake = String::new();
    for (i, letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| letters[i]);
        let starts = letter.is_ascii_uppercase()
            && (letters.get(i + 1).is_some_and(char::is_ascii_lowercase)
                || before.is_some_and(|before| before.is_ascii_lowercase()));
        if starts && before.is_some_and(|before| before != '_') {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// A layer's options.
pub struct Options<'t> {
    class: String,
    config: Value<'t>,
    keras_2: bool,
}

impl<'t> Options<'t> {
    /// The options of a layer that Keras 2, or a later version, wrote.
    pub fn new(class: String, config: Value<'t>, keras_2: bool) -> Self {
        Options { class, config, keras_2 }
    }

    pub fn class(&self) -> &str {
        &self.class
    }

    /// The options of a layer in this one.
    pub fn inner(&self, key: &str) -> Result<Options<'t>, FileError> {
        let members = self.config.members(&[key])?;
        let layer = members.required(key)?.members(&["class_name", "config"])?;
        Ok(Options::new(layer.required("class_name")?.text()?, layer.required("config")?.clone(), self.keras_2))
    }

    pub fn expect_class(&self, class: &str) -> Result<(), FileError> {
        if self.class == class { Ok(()) } else { Err(self.config.unsupported_as(class, &self.class)) }
    }

    /// Returns an error if an option has a value other than these, as JSON; an absent option has the first value.
    pub fn expect(&self, key: &str, values: &[&str]) -> Result<(), FileError> {
        let members = self.config.members(&[key])?;
        let Some(value) = members.optional(key) else { return Ok(()) };
        let plain: String = value.raw().split_ascii_whitespace().collect();
        if values.contains(&&*plain) { Ok(()) } else { Err(value.unsupported(values.join(" or "))) }
    }

    /// How a `Bidirectional` layer merges both outputs.
    pub fn merge(&self) -> Result<Merge, FileError> {
        let modes = [
            ("\"concat\"", Merge::Concat),
            ("\"sum\"", Merge::Sum),
            ("\"ave\"", Merge::Average),
            ("\"mul\"", Merge::Multiply),
        ];
        let members = self.config.members(&["merge_mode"])?;
        // `null` is a mode, too: both outputs, separately.
        let Some(value) = members.given("merge_mode") else { return Ok(Merge::Concat) };
        let mode = modes.into_iter().find(|(mode, _)| *mode == value.raw());
        mode.map(|(_, merge)| merge).ok_or_else(|| value.unsupported(modes.map(|(mode, _)| mode).join(" or ")))
    }

    pub fn text(&self, key: &str) -> Result<String, FileError> {
        self.config.members(&[key])?.required(key)?.text()
    }

    pub fn truth(&self, key: &str) -> Result<bool, FileError> {
        let members = self.config.members(&[key])?;
        let value = members.required(key)?;
        match value.raw() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(value.malformed("true or false")),
        }
    }

    /// A number that can be an epsilon.
    pub fn number(&self, key: &str) -> Result<f64, FileError> {
        let members = self.config.members(&[key])?;
        let value = members.required(key)?;
        let number = value.raw().parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
        number.ok_or_else(|| value.malformed("a positive number"))
    }

    /// The kind of a recurrent layer whose options this crate has too.
    pub fn kind(&self, backward: bool) -> Result<KerasKind, FileError> {
        self.expect("go_backwards", &[if backward { "true" } else { "false" }])?;
        let activation = || self.activation("activation", Nonlinearity::Tanh);
        let recurrent_activation = || self.activation("recurrent_activation", Nonlinearity::Sigmoid);
        Ok(match &*self.class {
            "SimpleRNN" => KerasKind::SimpleRnn { activation: activation()? },
            "LSTM" => KerasKind::Lstm { activation: activation()?, recurrent_activation: recurrent_activation()? },
            "GRU" => KerasKind::Gru {
                reset_after: self.truth("reset_after")?,
                activation: activation()?,
                recurrent_activation: recurrent_activation()?,
            },
            _ => return Err(self.config.unsupported_as("SimpleRNN, LSTM or GRU", &self.class)),
        })
    }

    /// An activation, by its name or as a layer; `default` if it is not given.
    fn activation(&self, key: &str, default: Nonlinearity) -> Result<Nonlinearity, FileError> {
        let members = self.config.members(&[key])?;
        let Some(value) = members.given(key) else { return Ok(default) };
        if value.raw().starts_with('{') {
            return layer_activation(value);
        }
        let name = if value.is_null() { "linear".to_owned() } else { value.text()? };
        Ok(match &*name {
            "linear" => Nonlinearity::Identity,
            "tanh" => Nonlinearity::Tanh,
            "sigmoid" => Nonlinearity::Sigmoid,
            "hard_sigmoid" if self.keras_2 => Nonlinearity::HARD_SIGMOID_ONNX,
            "hard_sigmoid" => Nonlinearity::HARD_SIGMOID,
            "relu" => Nonlinearity::Relu,
            "leaky_relu" => Nonlinearity::LeakyRelu { slope: 0.2 },
            "elu" => Nonlinearity::Elu { alpha: 1.0 },
            "gelu" => Nonlinearity::Gelu,
            "silu" | "swish" => Nonlinearity::Silu,
            "softplus" => Nonlinearity::Softplus,
            "softsign" => Nonlinearity::Softsign,
            _ => return Err(value.unsupported(format!("one of {NAMES}"))),
        })
    }
}

/// The activations that are known by name.
const NAMES: &str = "linear, tanh, sigmoid, hard_sigmoid, relu, leaky_relu, elu, gelu, silu, softplus, softsign";

/// An activation that is given as a layer, with a number of its own.
fn layer_activation(value: &Value<'_>) -> Result<Nonlinearity, FileError> {
    let members = value.members(&["class_name", "config"])?;
    let class = members.required("class_name")?.text()?;
    let number = |key: &str| {
        let config = members.required("config")?.members(&[key])?;
        let value = config.required(key)?;
        let number = value.raw().parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| value.malformed("a finite number"))
    };
    match &*class {
        "LeakyReLU" => Ok(Nonlinearity::LeakyRelu { slope: number("negative_slope")? }),
        "ELU" => Ok(Nonlinearity::Elu { alpha: number("alpha")? }),
        _ => Err(value.unsupported_as(&format!("one of {NAMES}, a LeakyReLU or an ELU"), &class)),
    }
}
