//! What the configuration of a Keras model says of its layers.

use std::collections::BTreeMap;

use super::described::{About, Described};
use crate::cells::RnnNonlinearity;
use crate::convert::json::{Value, malformed};
use crate::convert::{FileError, KerasKind};

/// Models in models, at most so deep.
const LEVELS: usize = 8;

/// More layers are refused.
const MAX_LAYERS: usize = 4096;

/// The layers of a model, if it is one of layers that are listed: a class of its own says nothing of them.
pub fn layers(json: &[u8]) -> Result<Option<Vec<Described>>, FileError> {
    let place = || "config.json".to_owned();
    let text = std::str::from_utf8(json).map_err(|_| malformed(place(), "JSON", "bytes that are not UTF-8"))?;
    let model = Value::of_text_in(text, "config.json")?;
    let mut found = Vec::new();
    let listed = add_layers(&model, "", "", 0, &mut found)?;
    Ok(listed.then_some(found))
}

/// Adds the layers of a model whose groups are in `group`; not if it does not list them.
fn add_layers(
    model: &Value<'_>,
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
    // Groups are called by the class, the second of a class `lstm_1`.
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
        if !add_layers(layer, &name, &group, depth + 1, found)? {
            let about = Some(About { class, config: config.raw().to_owned(), place: config.place().to_owned() });
            found.push(Described { name, group, about });
        }
    }
    Ok(true)
}

/// `SimpleRNN` is `simple_rnn`, as Keras makes it: an underscore before each upper-case letter that a lower-case one follows, and
/// between a lower-case letter and an upper-case one.
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
}

impl<'t> Options<'t> {
    pub fn new(class: String, config: Value<'t>) -> Self {
        Options { class, config }
    }

    pub fn class(&self) -> &str {
        &self.class
    }

    /// The options of a layer in this one.
    pub fn inner(&self, key: &str) -> Result<Options<'t>, FileError> {
        let members = self.config.members(&[key])?;
        let layer = members.required(key)?.members(&["class_name", "config"])?;
        Ok(Options::new(layer.required("class_name")?.text()?, layer.required("config")?.clone()))
    }

    pub fn expect_class(&self, class: &str) -> Result<(), FileError> {
        if self.class == class { Ok(()) } else { Err(self.config.unsupported_as(class, &self.class)) }
    }

    /// Fails if an option has another value than one of these, as JSON; one that is absent has the first.
    pub fn expect(&self, key: &str, values: &[&str]) -> Result<(), FileError> {
        let members = self.config.members(&[key])?;
        let Some(value) = members.optional(key) else { return Ok(()) };
        let plain: String = value.raw().split_ascii_whitespace().collect();
        if values.contains(&&*plain) { Ok(()) } else { Err(value.unsupported(values.join(" or "))) }
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
        let kind = match &*self.class {
            "SimpleRNN" => {
                self.expect("activation", &["\"tanh\"", "\"relu\""])?;
                let relu = self.text("activation")? == "relu";
                return Ok(KerasKind::SimpleRnn(if relu { RnnNonlinearity::Relu } else { RnnNonlinearity::Tanh }));
            }
            "LSTM" => KerasKind::Lstm,
            "GRU" => KerasKind::Gru { reset_after: self.truth("reset_after")? },
            _ => return Err(self.config.unsupported_as("SimpleRNN, LSTM or GRU", &self.class)),
        };
        self.expect("activation", &["\"tanh\""])?;
        self.expect("recurrent_activation", &["\"sigmoid\""])?;
        Ok(kind)
    }
}
