//! Tensors by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use safetensors::Dtype;

use super::error::{LoadError, Mismatch, ShapeMismatch, TypeMismatch};
use super::format::{Content, Entry, METADATA};
use super::{file, format};
use crate::base::tensors::join;
use crate::base::{NamedTensors, Tensors};
use crate::kernels::Float;

/// Tensors by name, with their own copy of the values, and strings by key: what a safetensors file holds.
///
/// See [`io`](crate::io) for an example and for what a crash while saving leaves.
#[derive(Clone, Default)]
pub struct StateDict {
    content: Content,
}

impl StateDict {
    /// Without tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tensors of a model, or of anything else that has some, under their own names.
    ///
    /// # Panics
    /// As [`with_renamed`](StateDict::with_renamed).
    #[track_caller]
    pub fn of<F: Float>(tensors: &(impl Tensors<F> + ?Sized)) -> Self {
        StateDict::new().with_tensors("", tensors)
    }

    /// With more tensors, named `prefix.name`. A prefix `encoder.lstm` may be written with or without its last dot.
    ///
    /// # Panics
    /// As [`with_renamed`](StateDict::with_renamed).
    #[track_caller]
    pub fn with_tensors<F: Float>(self, prefix: &str, tensors: &(impl Tensors<F> + ?Sized)) -> Self {
        self.with_renamed(tensors, |name| in_prefix(prefix, name.into()))
    }

    /// With more tensors, whose names in the file `rename` makes from their own.
    ///
    /// # Panics
    /// Where two tensors get the same name, or one gets the name `__metadata__`.
    #[track_caller]
    pub fn with_renamed<F: Float>(
        mut self,
        tensors: &(impl Tensors<F> + ?Sized),
        rename: impl Fn(&str) -> String,
    ) -> Self {
        let Content { data, entries, .. } = &mut self.content;
        for i in 0..tensors.count() {
            let name = rename(&tensors.name(i));
            let (shape, values) = tensors.tensor(i);
            let start = data.len();
            data.reserve(size_of_val(values));
            for value in values {
                data.extend_from_slice(&value.bits().to_le_bytes()[..size_of::<F>()]);
            }
            let entry = Entry { dtype: dtype::<F>(), shape: shape.to_vec(), range: start..data.len() };
            assert!(name != METADATA, "StateDict: {name}: expected another name");
            let taken = entries.insert(name.clone(), entry).is_some();
            assert!(!taken, "StateDict: {name}: expected one tensor of this name, got two");
        }
        self
    }

    /// With a string under `key`, in place of the one that was there.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.content.metadata.insert(key.into(), value.into());
        self
    }

    /// The strings by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.content.metadata
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.content.entries.keys().map(String::as_str)
    }

    /// The shape of the tensor called `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.content.entries.get(name)?.shape)
    }

    /// The element type of the tensor called `name`, as safetensors spells it: `F32`.
    pub fn dtype(&self, name: &str) -> Option<String> {
        Some(self.content.entries.get(name)?.dtype.to_string())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read or is not a safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let read = || StateDict::read_from(File::open(path)?);
        read().map_err(|error| match error {
            LoadError::Io(error) => LoadError::Io(file::named(path, error)),
            error => error,
        })
    }

    /// Reads a file's bytes to their end.
    ///
    /// # Errors
    /// Where they cannot be read or are not those of a safetensors file.
    pub fn read_from(reader: impl Read) -> Result<Self, LoadError> {
        Ok(StateDict { content: format::read(reader)? })
    }

    /// Saves to a file, whole or not at all: see [`io`](crate::io).
    ///
    /// # Errors
    /// Where the file could not be written; the one that was there is untouched.
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        file::replace(path.as_ref(), |writer| self.save_to(writer))
    }

    /// Writes a file's bytes; what becomes of them is the writer's matter.
    ///
    /// # Errors
    /// The writer's.
    pub fn save_to(&self, writer: impl Write) -> io::Result<()> {
        self.save_with(self.metadata(), writer)
    }

    /// As [`save_to`](StateDict::save_to), with other metadata.
    pub(super) fn save_with(&self, metadata: &BTreeMap<String, String>, writer: impl Write) -> io::Result<()> {
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

    /// Copies the tensors into `tensors`, by their own names.
    ///
    /// # Errors
    /// Where a tensor is missing, unexpected, or of another shape or type; nothing is changed then.
    pub fn load<F: Float>(&self, tensors: &mut (impl Tensors<F> + ?Sized)) -> Result<(), Mismatch> {
        self.load_with(&LoadOptions::new(), tensors).map(|_| ())
    }

    /// [`load`](StateDict::load) with other names, leniently, or with conversion; says what was skipped, which is
    /// nothing unless loading is [lenient](LoadOptions::lenient).
    ///
    /// # Errors
    /// As [`load`](StateDict::load).
    pub fn load_with<F: Float>(
        &self,
        options: &LoadOptions<'_>,
        tensors: &mut (impl Tensors<F> + ?Sized),
    ) -> Result<Skipped, Mismatch> {
        let fit = self.fit(options, tensors)?;
        for (i, entry) in fit.entries {
            let values = tensors.tensor_mut(i).iter_mut();
            self.values(entry).zip(values).for_each(|(value, place)| *place = value);
        }
        Ok(fit.skipped)
    }

    /// How `tensors` would be loaded.
    pub(super) fn fit<F: Float>(
        &self,
        options: &LoadOptions<'_>,
        tensors: &(impl Tensors<F> + ?Sized),
    ) -> Result<Fit<'_>, Mismatch> {
        let (mut mismatch, mut entries, mut asked) = (Mismatch::default(), Vec::new(), BTreeSet::new());
        for i in 0..tensors.count() {
            let name = options.name_in_file(&tensors.name(i));
            match self.content.entries.get(&name) {
                None => mismatch.missing.push(name.clone()),
                Some(entry) => {
                    let (expected, found) = (tensors.tensor(i).0.to_vec(), entry.shape.clone());
                    if expected != found {
                        mismatch.shapes.push(ShapeMismatch { name: name.clone(), expected, found });
                    }
                    mismatch.types.extend(wrong_type::<F>(&name, entry, options.convert));
                    entries.push((i, entry));
                }
            }
            asked.insert(name);
        }
        let others = self.names().filter(|name| within(&options.prefix, name).is_some() && !asked.contains(*name));
        mismatch.unexpected = others.map(str::to_owned).collect();
        let mut skipped = Skipped::default();
        if options.lenient {
            skipped.missing = std::mem::take(&mut mismatch.missing);
            skipped.unexpected = std::mem::take(&mut mismatch.unexpected);
        }
        if mismatch.is_empty() { Ok(Fit { entries, skipped }) } else { Err(mismatch) }
    }

    /// All tensors under `prefix`, without it.
    pub(super) fn named_tensors<F: Float>(&self, prefix: &str) -> Result<NamedTensors<F>, Mismatch> {
        let (mut mismatch, mut tensors) = (Mismatch::default(), Vec::new());
        for (name, entry) in &self.content.entries {
            let Some(rest) = within(prefix, name) else { continue };
            match wrong_type::<F>(name, entry, false) {
                Some(wrong) => mismatch.types.push(wrong),
                None => tensors.push((rest.to_owned(), entry.shape.clone(), self.values(entry).collect())),
            }
        }
        if mismatch.is_empty() { Ok(NamedTensors::new(tensors)) } else { Err(mismatch) }
    }

    /// The values of a tensor of `f32` or `f64`, converted where they are of the other one.
    fn values<F: Float>(&self, entry: &Entry) -> impl Iterator<Item = F> {
        let own = entry.dtype == dtype::<F>();
        let bytes = &self.content.data[entry.range.clone()];
        bytes.chunks_exact(entry.dtype.bitsize() / 8).map(move |element| {
            let mut bits = [0; 8];
            bits[..element.len()].copy_from_slice(element);
            let bits = u64::from_le_bytes(bits);
            match element.len() {
                _ if own => F::from_bits(bits),
                4 => F::of(f32::from_bits(bits as u32).into()),
                _ => F::of(f64::from_bits(bits)),
            }
        })
    }
}

/// Which entry goes into the how manieth tensor, and what goes nowhere.
pub(super) struct Fit<'a> {
    entries: Vec<(usize, &'a Entry)>,
    skipped: Skipped,
}

/// By content: names, types, shapes, bits and metadata.
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

/// How tensors are looked up in a file, and what is done about those that are not there.
///
/// A tensor is looked up under `prefix.rename(name)`.
///
/// ```
/// use gradflow::io::{LoadOptions, StateDict};
/// use gradflow::{LstmCell, Stacked, rand::{SeedableRng, rngs::StdRng}};
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
pub struct LoadOptions<'a> {
    prefix: String,
    rename: Option<Box<Rename<'a>>>,
    lenient: bool,
    convert: bool,
}

type Rename<'a> = dyn Fn(&str) -> String + 'a;

impl<'a> LoadOptions<'a> {
    /// By the tensors' own names; strictly; without conversion.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only what stands under `prefix`, as `encoder.lstm` (with or without a last dot): the rest of the file is neither
    /// used nor unexpected.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        LoadOptions { prefix: prefix.into(), ..self }
    }

    /// Under other names: `rename` makes the name in the file, without the prefix, from the model's. Two tensors may
    /// be loaded from one.
    pub fn rename(self, rename: impl Fn(&str) -> String + 'a) -> Self {
        LoadOptions { rename: Some(Box::new(rename)), ..self }
    }

    /// What is missing keeps its values, and what is unexpected is passed over; both are reported in [`Skipped`].
    /// Another shape or type is an error all the same.
    pub fn lenient(self) -> Self {
        LoadOptions { lenient: true, ..self }
    }

    /// `f64` is rounded to an `f32` model's type, and `f32` widened to an `f64` model's. Other types, as `F16`, are
    /// not converted.
    pub fn convert(self) -> Self {
        LoadOptions { convert: true, ..self }
    }

    fn name_in_file(&self, name: &str) -> String {
        in_prefix(&self.prefix, self.rename.as_ref().map_or_else(|| name.into(), |rename| rename(name)))
    }
}

/// What lenient loading passed over, under the file's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// What the model has and the file lacks: unchanged in the model.
    pub missing: Vec<String>,
    /// What the file holds and the model has no use for.
    pub unexpected: Vec<String>,
}

fn in_prefix(prefix: &str, name: String) -> String {
    join(prefix.strip_suffix('.').unwrap_or(prefix), name)
}

/// The name without the prefix, where it has it.
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
    let fits = found == expected || convert && matches!(found, Dtype::F32 | Dtype::F64);
    (!fits).then(|| TypeMismatch { name: name.into(), expected: expected.to_string(), found: found.to_string() })
}
