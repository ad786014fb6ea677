//! A whole training run.

use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use super::error::{LoadError, Mismatch};
use super::format::ReadLimits;
use super::state_dict::{LoadOptions, StateDict, check_fit, named_tensors};
use crate::base::{Tensors, file};
use crate::kernels::{Float, once};
use crate::optim::{Optimizer, OptimizerState, Schedule, WeightAverage};

/// The only format so far.
const VERSION: u32 = 1;

/// The prefix of this crate's keys.
const RESERVED: &str = "gradflow.";
const FORMAT: &str = "gradflow.format";
const CHECKSUM: &str = "gradflow.checksum";
const SCHEDULE: &str = "gradflow.schedule";
const NUMBER: &str = "gradflow.number.";

/// The section of the optimizer's tensors.
const OPTIMIZER: &str = "optimizer";

/// The keys of a state whose tensors are in a section.
struct Keys {
    kind: String,
    steps: String,
    /// The prefix of each setting's key.
    setting: String,
}

impl Keys {
    fn optimizer() -> Self {
        Keys::under("gradflow.optimizer")
    }

    fn average(section: &str) -> Self {
        Keys::under(&format!("gradflow.average.{section}"))
    }

    fn under(prefix: &str) -> Self {
        Keys { kind: format!("{prefix}.kind"), steps: format!("{prefix}.steps"), setting: format!("{prefix}.setting.") }
    }
}

/// A training run as a value: tensors in named sections, an optimizer's state, a schedule, numbers and notes.
///
/// It has its own copy of everything, so that training can continue while another thread saves it. See [`io`](crate::io) for an
/// example, the file's format, and the effects of a crash while saving.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Checkpoint {
    dict: StateDict,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint::new()
    }
}

impl Checkpoint {
    /// An empty checkpoint.
    pub fn new() -> Self {
        Checkpoint { dict: StateDict::new().with_metadata(FORMAT, VERSION.to_string()) }
    }

    /// Adds the tensors of a model, a carried state or anything else that has tensors, in a section of their own, such as
    /// `model`, `state` or `average`.
    ///
    /// # Panics
    /// Panics if the section's name is empty, has a dot or is `optimizer`, or two of its tensors have the same name.
    #[track_caller]
    pub fn with_tensors<F: Float>(self, section: &str, tensors: &dyn Tensors<F>) -> Self {
        check_section(section);
        Checkpoint { dict: self.dict.with_tensors(section, tensors) }
    }

    /// Adds the whole state of an optimizer.
    ///
    /// # Panics
    /// Panics if there is one already, or two of the model's tensors have the same name.
    #[track_caller]
    pub fn with_optimizer<F: Float>(self, optimizer: &dyn Optimizer<F>) -> Self {
        let keys = Keys::optimizer();
        assert!(!self.dict.metadata().contains_key(&keys.kind), "Checkpoint: expected one optimizer, got two");
        Checkpoint { dict: with_state(self.dict, OPTIMIZER, &keys, &optimizer.state()) }
    }

    /// Adds an average of weights, whose tensors are in a section of their own, such as `average`:
    /// [`load_tensors`](Checkpoint::load_tensors) copies them into a model, and [`load_average`](Checkpoint::load_average) into
    /// an average that continues.
    ///
    /// ```
    /// use gradflow::{io::Checkpoint, ndarray::arr1, optim::WeightAverage};
    ///
    /// let (mut model, mut average) = (arr1(&[1.0_f32, -1.0]), WeightAverage::ema(0.99));
    /// average.update(&model)?;
    /// let checkpoint = Checkpoint::new().with_tensors("model", &model).with_average("average", &average);
    ///
    /// let mut resumed = WeightAverage::ema(0.99);
    /// checkpoint.load_average("average", &model, &mut resumed)?;
    /// assert_eq!(resumed.state(), average.state());
    /// checkpoint.load_tensors("average", &mut model)?; // for inference
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// Panics as [`with_tensors`](Checkpoint::with_tensors) and [`WeightAverage::state`] do.
    #[track_caller]
    pub fn with_average<F: Float>(self, section: &str, average: &WeightAverage<F>) -> Self {
        check_section(section);
        Checkpoint { dict: with_state(self.dict, section, &Keys::average(section), &average.state()) }
    }

    /// Adds a schedule.
    pub fn with_schedule(self, schedule: &Schedule) -> Self {
        Checkpoint { dict: self.dict.with_metadata(SCHEDULE, schedule.to_string()) }
    }

    /// Adds a number: the step, a random generator's seed and position, the position in the data.
    pub fn with_number(self, name: &str, number: u64) -> Self {
        Checkpoint { dict: self.dict.with_metadata(format!("{NUMBER}{name}"), number.to_string()) }
    }

    /// Adds a string of the caller's under `key`, which replaces a previous one.
    ///
    /// # Panics
    /// Panics if the key begins with `gradflow.`, the prefix of this crate's keys.
    #[track_caller]
    pub fn with_metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        assert!(!key.starts_with(RESERVED), "Checkpoint: metadata: expected a key outside {RESERVED}, got {key:?}");
        Checkpoint { dict: self.dict.with_metadata(key, value) }
    }

    /// Saves to a file, whole or not at all: see [`io`](crate::io).
    ///
    /// # Errors
    /// Returns an error if the file could not be written; an existing file is untouched then.
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        file::replace(path.as_ref(), &mut |writer| self.save_to(writer))
    }

    /// Writes a file's bytes to `writer`.
    ///
    /// # Errors
    /// Returns the writer's errors.
    pub fn save_to(&self, mut writer: impl Write) -> io::Result<()> {
        let mut metadata = self.dict.metadata().clone();
        metadata.insert(CHECKSUM.into(), checksum(&self.dict));
        self.dict.save_with(&metadata, &mut writer)
    }

    /// Reads a file, within the default [`ReadLimits`].
    ///
    /// # Errors
    /// Returns an error if it cannot be read, is not a safetensors file or not a checkpoint, is of an unknown format, was
    /// altered, or exceeds the limits.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Checkpoint::open_with(path, ReadLimits::new())
    }

    /// Reads a file, within `limits`.
    ///
    /// # Errors
    /// Returns an error as [`open`](Checkpoint::open) does.
    pub fn open_with(path: impl AsRef<Path>, limits: ReadLimits) -> Result<Self, LoadError> {
        let path = path.as_ref();
        Checkpoint::verified(StateDict::open_with(path, limits)?).map_err(|error| error.at(path))
    }

    /// Reads a file's bytes to their end, within the default [`ReadLimits`].
    ///
    /// # Errors
    /// Returns an error as [`open`](Checkpoint::open) does.
    pub fn read_from(reader: impl Read) -> Result<Self, LoadError> {
        Checkpoint::read_with(reader, ReadLimits::new())
    }

    /// Reads a file's bytes to their end, within `limits`.
    ///
    /// # Errors
    /// Returns an error as [`open`](Checkpoint::open) does.
    pub fn read_with(reader: impl Read, limits: ReadLimits) -> Result<Self, LoadError> {
        Checkpoint::verified(StateDict::read_with(reader, limits)?)
    }

    fn verified(mut dict: StateDict) -> Result<Self, LoadError> {
        let path = None;
        let Some(format) = dict.metadata().get(FORMAT) else { return Err(LoadError::NotACheckpoint { path }) };
        if *format != VERSION.to_string() {
            return Err(LoadError::Version { path, found: format.clone(), supported: VERSION });
        }
        let saved = dict.metadata_mut().remove(CHECKSUM).ok_or_else(|| absent(CHECKSUM))?;
        let actual = checksum(&dict);
        if saved == actual { Ok(Checkpoint { dict }) } else { Err(LoadError::Checksum { path, saved, actual }) }
    }

    /// Copies a section's tensors into `tensors`.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, unexpected, or of another shape or type; nothing is changed then.
    pub fn load_tensors<F: Float>(&self, section: &str, tensors: &mut dyn Tensors<F>) -> Result<(), Mismatch> {
        self.dict.load_with(&LoadOptions::new().prefix(section), tensors).map(|_| ())
    }

    /// Restores the optimizer, for `model`.
    ///
    /// # Errors
    /// Returns an error if the checkpoint has no optimizer, or the optimizer's state does not fit: see
    /// [`Optimizer::load_state`]. Nothing is changed then.
    pub fn load_optimizer<F: Float>(
        &self,
        model: &dyn Tensors<F>,
        optimizer: &mut dyn Optimizer<F>,
    ) -> Result<(), LoadError> {
        Ok(optimizer.load_state(model, &self.optimizer_state()?)?)
    }

    /// The optimizer's state, to inspect it or to continue with other settings:
    ///
    /// ```
    /// use gradflow::{io::Checkpoint, ndarray::arr1, optim::{AdamW, Optimizer}};
    ///
    /// let (mut parameter, gradient) = (arr1(&[1.0_f32, -1.0]), arr1(&[0.5, 2.0]));
    /// let mut optimizer = AdamW::new(0.1);
    /// optimizer.step(&mut parameter, &gradient);
    /// let checkpoint = Checkpoint::new().with_optimizer(&optimizer);
    ///
    /// let mut resumed = AdamW::new(0.05).weight_decay(0.3);
    /// resumed.load_moments(&parameter, &checkpoint.optimizer_state()?)?;
    /// # Ok::<(), gradflow::io::LoadError>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the checkpoint has no optimizer, a value of its state is invalid, or its tensors are of another type.
    pub fn optimizer_state<F: Float>(&self) -> Result<OptimizerState<F>, LoadError> {
        state(self, OPTIMIZER, &Keys::optimizer())
    }

    /// Restores an average of `model`'s weights.
    ///
    /// # Errors
    /// Returns an error if the checkpoint has no average in this section, or its state does not fit: see [`WeightAverage::load_state`].
    /// Nothing is changed then.
    pub fn load_average<F: Float>(
        &self,
        section: &str,
        model: &dyn Tensors<F>,
        average: &mut WeightAverage<F>,
    ) -> Result<(), LoadError> {
        Ok(average.load_state(model, &state(self, section, &Keys::average(section))?)?)
    }

    /// Restores a model, from its section, and its optimizer: both or neither.
    ///
    /// # Errors
    /// Returns an error as [`load_tensors`](Checkpoint::load_tensors) and [`load_optimizer`](Checkpoint::load_optimizer)
    /// do; nothing is changed then.
    pub fn load_training<F: Float>(
        &self,
        section: &str,
        model: &mut dyn Tensors<F>,
        optimizer: &mut dyn Optimizer<F>,
    ) -> Result<(), LoadError> {
        check_fit(&self.dict, LoadOptions::new().prefix(section).lookup(), model)?;
        self.load_optimizer(model, optimizer)?;
        Ok(self.load_tensors(section, model)?)
    }

    /// The schedule.
    ///
    /// # Errors
    /// Returns an error if there is none, or its text is not a schedule.
    pub fn schedule(&self) -> Result<Schedule, LoadError> {
        Ok(self.text(SCHEDULE)?.parse()?)
    }

    /// The number called `name`.
    ///
    /// # Errors
    /// Returns an error if there is none, or its text is not a number.
    pub fn number(&self, name: &str) -> Result<u64, LoadError> {
        self.parsed(&format!("{NUMBER}{name}"))
    }

    /// The caller's string under `key`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.dict.metadata().get(key).map(String::as_str)
    }

    /// All tensors, as `section.name`, and all metadata: to inspect, or to load from with [`LoadOptions`].
    pub fn state_dict(&self) -> &StateDict {
        &self.dict
    }

    fn text(&self, key: &str) -> Result<&str, LoadError> {
        self.metadata(key).ok_or_else(|| absent(key))
    }

    fn parsed<T: FromStr>(&self, key: &str) -> Result<T, LoadError> {
        let value = self.text(key)?;
        value.parse().map_err(|_| LoadError::Value { key: key.into(), value: value.into() })
    }
}

once! {
    /// Adds the whole state of an optimizer or an average.
    #[track_caller]
    fn with_state<'a, F: Float>(
        dict: StateDict,
        section: &'a str,
        keys: &'a Keys,
        state: &'a OptimizerState<F>,
    ) -> StateDict {
        let OptimizerState { kind, steps, settings, tensors } = state;
        let dict = dict.with_tensors(section, tensors).with_metadata(&keys.kind, kind);
        let dict = dict.with_metadata(&keys.steps, steps.to_string());
        let with_setting = |dict: StateDict, (name, value): &(String, f64)| {
            dict.with_metadata(format!("{}{name}", keys.setting), value.to_string())
        };
        settings.iter().fold(dict, with_setting)
    }

    /// Reads the state of an optimizer or an average.
    fn state<'a, F: Float>(
        checkpoint: &'a Checkpoint,
        section: &'a str,
        keys: &'a Keys,
    ) -> Result<OptimizerState<F>, LoadError> {
        let (kind, steps) = (checkpoint.text(&keys.kind)?.to_owned(), checkpoint.parsed(&keys.steps)?);
        let names = checkpoint.dict.metadata().keys().filter_map(|key| Some((key, key.strip_prefix(&keys.setting)?)));
        let settings = names.map(|(key, name)| Ok((name.to_owned(), checkpoint.parsed(key)?)));
        let settings = settings.collect::<Result<_, LoadError>>()?;
        Ok(OptimizerState { kind, steps, settings, tensors: named_tensors(&checkpoint.dict, section)? })
    }
}

#[track_caller]
fn check_section(section: &str) {
    let allowed = !section.is_empty() && !section.contains('.') && section != OPTIMIZER;
    assert!(allowed, "Checkpoint: section: expected a name without dots that is not reserved, got {section:?}");
}

fn absent(key: &str) -> LoadError {
    LoadError::Absent { key: key.into() }
}

/// The checksum of a checkpoint's content, as [`io`](crate::io) defines it.
fn checksum(dict: &StateDict) -> String {
    let mut hash = Fnv1a::new();
    hash.number(dict.names().count());
    for (name, dtype, shape, bytes) in dict.tensors() {
        hash.text(name);
        hash.text(&dtype.to_string());
        hash.number(shape.len());
        shape.iter().for_each(|&size| hash.number(size));
        hash.bytes(bytes);
    }
    for (key, value) in dict.metadata() {
        hash.text(key);
        hash.text(value);
    }
    format!("{:016x}", hash.0)
}

/// The 64-bit hash of Fowler, Noll and Vo. Each byte changes it by a bijection, so two texts of the same length that differ in
/// one byte never have the same hash.
struct Fnv1a(u64);

impl Fnv1a {
    fn new() -> Self {
        Fnv1a(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn number(&mut self, number: usize) {
        self.bytes(&(number as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.bytes(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::Fnv1a;

    #[test]
    fn the_hash_is_fnv_1a() {
        for (text, expected) in
            [("", 0xcbf29ce484222325_u64), ("a", 0xaf63dc4c8601ec8c), ("foobar", 0x85944171f73967e8)]
        {
            let mut hash = Fnv1a::new();
            hash.bytes(text.as_bytes());
            assert_eq!(hash.0, expected);
        }
    }
}
