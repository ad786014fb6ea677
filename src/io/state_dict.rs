//! Tensors by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use safetensors::Dtype;

use super::error::{Elsewhere, LoadError, Mismatch, ShapeMismatch, TensorError, TypeMismatch};
use super::format;
use super::format::{Content, Entry, METADATA, ReadLimits};
use crate::base::tensors::{check_values, join, shown};
use crate::base::{NamedTensors, Tensors, file, half};
use crate::kernels::{Float, once};

/// Tensors by name and strings by key: the content of a safetensors file, with its own copy of the values.
///
/// See [`io`](crate::io) for an example and for the effects of a crash while saving.
#[derive(Clone, Default)]
#[must_use]
pub struct StateDict {
    pub(super) content: Content,
}

impl StateDict {
    /// An empty state dict.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tensors of a model, or of anything else that has tensors, under their own names.
    ///
    /// # Panics
    /// Panics as [`with_renamed`](StateDict::with_renamed) does.
    #[track_caller]
    pub fn of<F: Float>(tensors: &dyn Tensors<F>) -> Self {
        StateDict::new().with_tensors("", tensors)
    }

    /// Adds tensors, named `prefix.name`. A prefix `encoder.lstm` may have a trailing dot.
    ///
    /// # Panics
    /// Panics as [`with_renamed`](StateDict::with_renamed) does.
    #[track_caller]
    pub fn with_tensors<F: Float>(self, prefix: &str, tensors: &dyn Tensors<F>) -> Self {
        self.with_renamed(tensors, |name| in_prefix(prefix, name.into()))
    }

    /// Adds tensors; `rename` maps their own names to those in the file.
    ///
    /// # Panics
    /// Panics if two tensors get the same name, one gets the name `__metadata__`, or one has another number of values than
    /// its shape has elements.
    #[track_caller]
    pub fn with_renamed<F: Float>(mut self, tensors: &dyn Tensors<F>, rename: impl Fn(&str) -> String) -> Self {
        append(&mut self.content, tensors, &rename);
        self
    }

    /// Adds a string under `key`, which replaces a previous one.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.content.metadata.insert(key.into(), value.into());
        self
    }

    /// The strings by key.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.content.metadata
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.content.entries.keys().map(String::as_str)
    }

    /// The shape of the tensor called `name`.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.content.entries.get(name)?.shape)
    }

    /// The element type of the tensor called `name`, as safetensors spells it: `F32`.
    #[must_use]
    pub fn dtype(&self, name: &str) -> Option<String> {
        Some(self.content.entries.get(name)?.dtype.to_string())
    }

    /// The tensor called `name`, of type `F32` or `F64`.
    ///
    /// ```
    /// use gradflow::{io::StateDict, ndarray::arr2};
    ///
    /// let weight = arr2(&[[1.0_f32, 2.0, 3.0]]);
    /// let file = StateDict::new().with_tensors("head.weight", &weight);
    /// assert_eq!(file.tensor::<f32>("head.weight")?, weight.into_dyn());
    /// let error = file.tensor::<f32>("weight").unwrap_err();
    /// assert_eq!(error.to_string(), "the file has no tensor weight; it has head.weight");
    /// # Ok::<(), gradflow::io::TensorError>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if there is no tensor of this name, or it is of another type; [`load_with`](StateDict::load_with)
    /// converts.
    pub fn tensor<F: Float>(&self, name: &str) -> Result<ArrayD<F>, TensorError> {
        let entry = self.entry(name)?;
        if entry.dtype != dtype::<F>() {
            let expected = if dtype::<F>() == Dtype::F32 { "F32" } else { "F64" };
            return Err(TensorError::Type { name: name.into(), expected, found: entry.dtype.to_string() });
        }
        Ok(array(entry, self.values(entry).collect()))
    }

    /// The values of the tensor called `name` as indices, such as token ids, labels or lengths: integers of any type, none of
    /// them negative.
    ///
    /// # Errors
    /// Returns an error if there is no tensor of this name, it is of another type, or a value is negative or too large for a
    /// `usize`.
    pub fn indices(&self, name: &str) -> Result<ArrayD<usize>, TensorError> {
        let entry = self.entry(name)?;
        let (size, signed) = match entry.dtype {
            Dtype::I8 => (1, true),
            Dtype::I16 => (2, true),
            Dtype::I32 => (4, true),
            Dtype::I64 => (8, true),
            Dtype::U8 => (1, false),
            Dtype::U16 => (2, false),
            Dtype::U32 => (4, false),
            Dtype::U64 => (8, false),
            other => {
                let expected = "I8 to I64 or U8 to U64";
                return Err(TensorError::Type { name: name.into(), expected, found: other.to_string() });
            }
        };
        let index = |element: &[u8]| {
            let negative = signed && element[size - 1] >= 0x80;
            let mut bits = [if negative { 0xff } else { 0 }; 8];
            bits[..size].copy_from_slice(element);
            let value = if negative { i64::from_le_bytes(bits).into() } else { i128::from(u64::from_le_bytes(bits)) };
            usize::try_from(value).map_err(|_| TensorError::Value { name: name.into(), value })
        };
        let values = self.content.data[entry.range.clone()].chunks_exact(size).map(index);
        Ok(array(entry, values.collect::<Result<_, _>>()?))
    }

    fn entry(&self, name: &str) -> Result<&Entry, TensorError> {
        self.content.entries.get(name).ok_or_else(|| {
            let similar = |other: &&str| within(name, other).is_some() || other.ends_with(&format!(".{name}"));
            let similar = self.names().filter(similar).take(5).map(str::to_owned).collect();
            TensorError::Missing { name: name.into(), similar }
        })
    }

    /// Reads a file, within the default [`ReadLimits`].
    ///
    /// # Errors
    /// Returns an error if it cannot be read, is not a safetensors file, or exceeds the limits.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        StateDict::open_with(path, ReadLimits::new())
    }

    /// Reads a file, within `limits`.
    ///
    /// # Errors
    /// Returns an error as [`open`](StateDict::open) does.
    pub fn open_with(path: impl AsRef<Path>, limits: ReadLimits) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let read = || StateDict::read_with(File::open(path)?, limits);
        read().map_err(|error: LoadError| error.at(path))
    }

    /// Reads a file's bytes to their end, within the default [`ReadLimits`].
    ///
    /// # Errors
    /// Returns an error if they cannot be read, are not those of a safetensors file, or exceed the limits.
    pub fn read_from(reader: impl Read) -> Result<Self, LoadError> {
        StateDict::read_with(reader, ReadLimits::new())
    }

    /// Reads a file's bytes to their end, within `limits`.
    ///
    /// # Errors
    /// Returns an error as [`read_from`](StateDict::read_from) does.
    pub fn read_with(mut reader: impl Read, limits: ReadLimits) -> Result<Self, LoadError> {
        Ok(StateDict { content: format::read(&mut reader, limits)? })
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
        self.save_with(self.metadata(), &mut writer)
    }

    /// As [`save_to`](StateDict::save_to), with other metadata.
    pub(super) fn save_with(&self, metadata: &BTreeMap<String, String>, writer: &mut dyn Write) -> io::Result<()> {
        format::write(&self.content, metadata, writer)
    }

    pub(super) fn metadata_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.content.metadata
    }

    /// Every tensor, by name: its name, type, shape and bytes.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, Dtype, &[usize], &[u8])> {
        let Content { data, entries, .. } = &self.content;
        entries.iter().map(|(name, Entry { dtype, shape, range })| (&**name, *dtype, &**shape, &data[range.clone()]))
    }

    /// Copies the tensors into `tensors`, by their own names. Integers and booleans that have no place there are skipped.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, unexpected, or of another shape or type; nothing is changed then.
    ///
    /// # Panics
    /// Panics as [`load_with`](StateDict::load_with) does.
    #[track_caller]
    pub fn load<F: Float>(&self, tensors: &mut dyn Tensors<F>) -> Result<(), Mismatch> {
        self.load_with(&LoadOptions::new(), tensors).map(|_| ())
    }

    /// [`load`](StateDict::load) with other names, leniently, or with conversion; returns what was [`Skipped`].
    ///
    /// # Errors
    /// Returns an error as [`load`](StateDict::load) does; if lenient, missing and unexpected tensors are an error only if no
    /// tensor at all is found.
    ///
    /// # Panics
    /// Panics if a tensor of `tensors` has another number of values than its shape has elements, or if that number has changed
    /// when the tensor is written.
    #[track_caller]
    pub fn load_with<F: Float>(
        &self,
        options: &LoadOptions<'_>,
        tensors: &mut dyn Tensors<F>,
    ) -> Result<Skipped, Mismatch> {
        load(self, options.lookup(), tensors)
    }

    /// Decides how `tensors` are loaded.
    #[track_caller]
    fn fit<F: Float>(&self, options: Lookup<'_>, tensors: &dyn Tensors<F>) -> Result<Fit<'_>, Mismatch> {
        use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
        let (mut mismatch, mut skipped) = (Mismatch::default(), Skipped::default());
        let (mut entries, mut asked) = (Vec::new(), BTreeSet::new());
        for i in 0..tensors.count() {
            let name = options.name_in_file(&tensors.name(i));
            let names = options.names_of_one(&name);
            let mut found = names.iter().filter_map(|name| self.content.entries.get_key_value(name));
            let first = found.next();
            if let Some((first, entry)) = first {
                let differing = found.find(|(_, other)| !self.is_same(entry, other));
                let names = differing.map(|(other, _)| Box::new([first.clone(), other.clone()]));
                mismatch.tied = mismatch.tied.or(names);
            }
            asked.extend(names);
            match first.map(|(_, entry)| entry) {
                None => mismatch.missing.push(name.clone()),
                Some(entry) => {
                    let (shape, values) = tensors.tensor(i);
                    check_values("StateDict", &name, shape, values.len());
                    let (expected, found) = (shape.to_vec(), entry.shape.clone());
                    if expected != found {
                        mismatch.shapes.push(ShapeMismatch { name: name.clone(), expected, found });
                    }
                    mismatch.types.extend(wrong_type::<F>(&name, entry, options.convert));
                    entries.push((i, entry));
                }
            }
        }
        let others = self.names().filter(|name| within(options.prefix, name).is_some() && !asked.contains(*name));
        let (unused, unexpected) = others.map(str::to_owned).partition(|name| {
            let dtype = self.content.entries[name].dtype;
            matches!(dtype, I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 | BOOL)
        });
        (skipped.unexpected, mismatch.unexpected) = (unused, unexpected);
        if !mismatch.missing.is_empty() {
            mismatch.elsewhere = self.elsewhere(options, tensors);
        }
        // If no tensor at all is found, the names are probably wrong.
        if options.lenient && (!entries.is_empty() || tensors.count() == 0) {
            skipped.missing = std::mem::take(&mut mismatch.missing);
            skipped.unexpected.append(&mut mismatch.unexpected);
            skipped.unexpected.sort();
        }
        if mismatch.is_empty() { Ok(Fit { entries, skipped }) } else { Err(mismatch) }
    }

    /// Whether both hold the same type, shape and bits.
    fn is_same(&self, one: &Entry, other: &Entry) -> bool {
        let bytes = |entry: &Entry| &self.content.data[entry.range.clone()];
        one.dtype == other.dtype && one.shape == other.shape && bytes(one) == bytes(other)
    }

    /// The prefixes, other than the one that was asked for, under which the file has all of `tensors`, in their shapes.
    fn elsewhere<F: Float>(&self, options: Lookup<'_>, tensors: &dyn Tensors<F>) -> Box<[Elsewhere]> {
        let fits = |prefix: &str| {
            let other = Lookup { prefix, ..options };
            let entry = |i| self.content.entries.get(&other.name_in_file(&tensors.name(i)));
            (0..tensors.count()).all(|i| entry(i).is_some_and(|entry| entry.shape == tensors.tensor(i).0))
        };
        let first = Lookup { prefix: "", ..options }.name_in_file(&tensors.name(0));
        let asked = options.prefix.strip_suffix('.').unwrap_or(options.prefix);
        let elsewhere = |name: &str| {
            let prefix = prefix_of(name, &first).filter(|&prefix| prefix != asked && fits(prefix))?;
            Some(Elsewhere { prefix: prefix.into(), name: name.into() })
        };
        self.names().filter_map(elsewhere).collect()
    }

    /// The values of a tensor of floating-point numbers, converted if they are of another type.
    fn values<F: Float>(&self, entry: &Entry) -> impl Iterator<Item = F> {
        let own = entry.dtype == dtype::<F>();
        let bytes = &self.content.data[entry.range.clone()];
        bytes.chunks_exact(entry.dtype.bitsize() / 8).map(move |element| {
            let mut bits = [0; 8];
            bits[..element.len()].copy_from_slice(element);
            let bits = u64::from_le_bytes(bits);
            match entry.dtype {
                _ if own => F::from_bits(bits),
                Dtype::F16 => F::of(half::from_f16(bits as u16).into()),
                Dtype::BF16 => F::of(half::from_bf16(bits as u16).into()),
                Dtype::F32 => F::of(f32::from_bits(bits as u32).into()),
                _ => F::of(f64::from_bits(bits)),
            }
        })
    }
}

once! {
    #[track_caller]
    fn append<'a, F: Float>(content: &'a mut Content, tensors: &'a dyn Tensors<F>, rename: &'a Rename<'a>) {
        let Content { data, entries, .. } = content;
        for i in 0..tensors.count() {
            let name = rename(&tensors.name(i));
            let (shape, values) = tensors.tensor(i);
            check_values("StateDict", &name, shape, values.len());
            let start = data.len();
            data.reserve(size_of_val(values));
            for value in values {
                data.extend_from_slice(&value.bits().to_le_bytes()[..size_of::<F>()]);
            }
            let entry = Entry { dtype: dtype::<F>(), shape: shape.to_vec(), range: start..data.len() };
            assert!(name != METADATA, "StateDict: {name}: expected another name");
            let taken = entries.insert(name.clone(), entry).is_some();
            assert!(!taken, "StateDict: {}: expected one tensor of this name, got two", shown(&name));
        }
    }

    #[track_caller]
    fn load<'a, F: Float>(
        dict: &'a StateDict,
        options: Lookup<'a>,
        tensors: &'a mut dyn Tensors<F>,
    ) -> Result<Skipped, Mismatch> {
        let fit = dict.fit(options, tensors)?;
        for (i, entry) in fit.entries {
            let name = tensors.name(i);
            let values = tensors.tensor_mut(i);
            check_values("StateDict: load", &name, &entry.shape, values.len());
            dict.values(entry).zip(values).for_each(|(value, place)| *place = value);
        }
        Ok(fit.skipped)
    }

    pub(super) fn check_fit<'a, F: Float>(
        dict: &'a StateDict,
        options: Lookup<'a>,
        tensors: &'a dyn Tensors<F>,
    ) -> Result<(), Mismatch> {
        dict.fit(options, tensors).map(|_| ())
    }

    /// All tensors under `prefix`, named without it.
    pub(super) fn named_tensors<'a, F: Float>(dict: &'a StateDict, prefix: &'a str) -> Result<NamedTensors<F>, Mismatch> {
        let (mut mismatch, mut tensors) = (Mismatch::default(), Vec::new());
        for (name, entry) in &dict.content.entries {
            let Some(rest) = within(prefix, name) else { continue };
            match wrong_type::<F>(name, entry, false) {
                Some(wrong) => mismatch.types.push(wrong),
                None => tensors.push((rest.to_owned(), entry.shape.clone(), dict.values(entry).collect())),
            }
        }
        if mismatch.is_empty() { Ok(NamedTensors::new(tensors)) } else { Err(mismatch) }
    }
}

/// The entry for each tensor, by the tensor's index, and what is skipped.
struct Fit<'a> {
    entries: Vec<(usize, &'a Entry)>,
    skipped: Skipped,
}

/// Compares the content: names, types, shapes, bits and metadata.
impl PartialEq for StateDict {
    fn eq(&self, other: &Self) -> bool {
        self.metadata() == other.metadata() && self.tensors().eq(other.tensors())
    }
}

impl fmt::Debug for StateDict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tensors: BTreeMap<_, _> = self.tensors().map(|(name, dtype, shape, _)| (name, (dtype, shape))).collect();
        f.debug_struct("StateDict").field("tensors", &tensors).field("metadata", self.metadata()).finish()
    }
}

/// How tensors are looked up in a file, and what happens if they are not there.
///
/// A tensor is looked up under `prefix.rename(name)`.
///
/// ```
/// use gradflow::io::{LoadOptions, StateDict};
/// use gradflow::{compose::Stacked, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell};
///
/// # let rng = &mut StdRng::seed_from_u64(0);
/// # let mut stack = Stacked::new(vec![LstmCell::<f32>::new(3, 4, rng), LstmCell::new(4, 4, rng)]);
/// // A stack of cells, `1.weight_ih`, from an `nn.LSTM` with as many layers, `weight_ih_l1`.
/// let rename = |name: &str| name.split_once('.').map(|(k, name)| format!("{name}_l{k}")).unwrap();
/// let file = StateDict::new().with_renamed(&stack, rename);
/// assert_eq!(file.names().next(), Some("bias_hh_l0"));
/// file.load_with(&LoadOptions::new().rename(rename), &mut stack)?;
/// # Ok::<(), gradflow::io::Mismatch>(())
/// ```
#[derive(Default)]
#[must_use]
pub struct LoadOptions<'a> {
    prefix: String,
    rename: Option<Box<Rename<'a>>>,
    tied: Vec<[String; 2]>,
    lenient: bool,
    convert: bool,
}

type Rename<'a> = dyn Fn(&str) -> String + 'a;

impl<'a> LoadOptions<'a> {
    /// Uses the tensors' own names, strictly, without conversion.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loads only the tensors under `prefix`, such as `encoder.lstm` (with or without a trailing dot): the rest of the file is
    /// neither used nor unexpected.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        LoadOptions { prefix: prefix.into(), ..self }
    }

    /// Looks tensors up under other names: `rename` maps the model's name to the one in the file, without the prefix. Two tensors
    /// may be loaded from one.
    pub fn rename(self, rename: impl Fn(&str) -> String + 'a) -> Self {
        LoadOptions { rename: Some(Box::new(rename)), ..self }
    }

    /// Makes `name` and `other`, without the prefix, names of one tensor in the file, like
    /// [tied weights](crate::compose::TiedEmbedding) in PyTorch's state dicts. A tensor that is looked up under one of them is
    /// also found under the other. If the file has both, they must hold the same bits.
    ///
    /// ```
    /// use gradflow::io::{LoadOptions, StateDict};
    /// use gradflow::{compose::TiedEmbedding, layers::{Embedding, Identity}, ndarray::Array2};
    ///
    /// // A model with `decoder.weight = encoder.weight` has both in its state dict.
    /// let weight = Array2::<f32>::from_elem((9, 4), 0.5);
    /// let file = StateDict::new().with_tensors("encoder.weight", &weight).with_tensors("decoder.weight", &weight);
    ///
    /// let mut model = TiedEmbedding::new(Embedding::<f32>::zeros(9, 4), Identity::new());
    /// let options = LoadOptions::new().rename(|_| "encoder.weight".into()).tied("encoder.weight", "decoder.weight");
    /// file.load_with(&options, &mut model)?;
    /// assert_eq!(model.embedding.weight, weight);
    /// # Ok::<(), gradflow::io::Mismatch>(())
    /// ```
    pub fn tied(mut self, name: impl Into<String>, other: impl Into<String>) -> Self {
        self.tied.push([name.into(), other.into()]);
        self
    }

    /// Missing tensors keep their values, and unexpected ones are skipped; both are reported in [`Skipped`]. Another shape or
    /// type is still an error, and so is a file that has none of the tensors.
    pub fn lenient(self) -> Self {
        LoadOptions { lenient: true, ..self }
    }

    /// Widens `F16`, `BF16` and `F32` to the model's type, and rounds `F64` to an `f32` model's. Other types, such as integers
    /// and floating-point numbers of 8 bits, are not converted.
    pub fn convert(self) -> Self {
        LoadOptions { convert: true, ..self }
    }

    /// The same options, borrowed.
    pub(super) fn lookup(&self) -> Lookup<'_> {
        let LoadOptions { prefix, rename, tied, lenient, convert } = self;
        Lookup { prefix, rename: rename.as_deref(), tied, lenient: *lenient, convert: *convert }
    }
}

impl fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LoadOptions { prefix, rename, tied, lenient, convert } = self;
        let mut debug = f.debug_struct("LoadOptions");
        debug.field("prefix", prefix).field("rename", &rename.is_some()).field("tied", tied);
        debug.field("lenient", lenient).field("convert", convert).finish()
    }
}

/// [`LoadOptions`], borrowed.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    prefix: &'a str,
    rename: Option<&'a Rename<'a>>,
    tied: &'a [[String; 2]],
    lenient: bool,
    convert: bool,
}

impl Lookup<'_> {
    fn name_in_file(&self, name: &str) -> String {
        in_prefix(self.prefix, self.rename.map_or_else(|| name.into(), |rename| rename(name)))
    }

    /// All names of the tensor that is called `name` in the file, that one first.
    fn names_of_one(&self, name: &str) -> Vec<String> {
        let mut names = vec![name.to_owned()];
        let mut at = 0;
        while let Some(name) = names.get(at).cloned() {
            for pair in self.tied {
                let [one, other] = pair.each_ref().map(|tied| in_prefix(self.prefix, tied.clone()));
                let partner = if one == name {
                    other
                } else if other == name {
                    one
                } else {
                    continue;
                };
                if !names.contains(&partner) {
                    names.push(partner);
                }
            }
            at += 1;
        }
        names
    }
}

/// The tensors that loading skipped, under the file's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Tensors that the model has and the file lacks: unchanged in the model.
    pub missing: Vec<String>,
    /// Tensors that the file holds and the model does not use: all of them if lenient, otherwise only integers and booleans,
    /// which are ids, masks or counters and never parameters.
    pub unexpected: Vec<String>,
}

/// The array of an entry's values, whose number matches the shape.
fn array<T>(entry: &Entry, values: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(&entry.shape), values).expect("checked when it was read or added")
}

/// The prefix under which `name` is `rest`, if `name` ends with it: see [`Mismatch::elsewhere`].
fn prefix_of<'a>(name: &'a str, rest: &str) -> Option<&'a str> {
    match name.strip_suffix(rest)? {
        prefix if prefix.is_empty() || rest.is_empty() => Some(prefix),
        prefix => prefix.strip_suffix('.'),
    }
}

fn in_prefix(prefix: &str, name: String) -> String {
    join(prefix.strip_suffix('.').unwrap_or(prefix), name)
}

/// The name without the prefix, if it starts with it.
fn within<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
    match name.strip_prefix(prefix)? {
        rest if prefix.is_empty() || rest.is_empty() => Some(rest),
        rest => rest.strip_prefix('.'),
    }
}

fn dtype<F: Float>() -> Dtype {
    if size_of::<F>() == size_of::<f32>() { Dtype::F32 } else { Dtype::F64 }
}

fn wrong_type<F: Float>(name: &str, entry: &Entry, convert: bool) -> Option<TypeMismatch> {
    let (expected, found) = (dtype::<F>(), entry.dtype);
    let fits = found == expected || convert && matches!(found, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64);
    (!fits).then(|| TypeMismatch { name: name.into(), expected: expected.to_string(), found: found.to_string() })
}
