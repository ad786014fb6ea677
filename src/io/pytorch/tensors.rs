//! The content of a PyTorch pickle: tensors by name, each a view of a storage.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype;

use super::pickle::{Id, Name, Pickle, Value, kind, shortened, too_many_values};
use crate::base::tensors::{elements_of, shown};
use crate::io::error::LoadError;
use crate::io::format::{Content, Entry, METADATA, ReadLimits};

/// How deep lists and dictionaries may be nested.
const LEVELS: usize = 64;

/// The byte ranges of the storages in the file, by their keys.
pub type Storages<'a> = BTreeMap<&'a str, Range<usize>>;

/// A storage as a pickle describes it: `("storage", type, key, device, elements)`, in old files with a view of it.
pub struct Storage<'a> {
    pub key: &'a str,
    /// `None` for untyped bytes.
    dtype: Option<Dtype>,
    elements: usize,
    /// The elements before a view.
    skipped: usize,
}

impl Storage<'_> {
    /// The size of an element in bytes.
    pub fn element(&self) -> usize {
        self.dtype.map_or(1, |dtype| dtype.bitsize() / 8)
    }
}

pub fn storage_of<'a>(pickle: &Pickle<'a>, id: Id) -> Option<Storage<'a>> {
    let (&tag, rest) = pickle.elements(id)?.split_first()?;
    let (&[kind, key, _device, elements], view) = rest.split_first_chunk()?;
    let (Some("storage"), &Value::Name(Name::Storage(dtype))) = (pickle.text(tag), pickle.value(kind)) else {
        return None;
    };
    let (key, mut elements, mut skipped) = (pickle.text(key)?, pickle.count(elements)?, 0);
    // Old files: the key of the view, the elements before it, those in it.
    if let Some(&[_, offset, size]) = view.first().and_then(|&view| pickle.elements(view)) {
        (skipped, elements) = (pickle.count(offset)?, pickle.count(size)?);
    }
    Some(Storage { key, dtype, elements, skipped })
}

impl ReadLimits {
    /// The largest number of values, of all kinds, in a pickle: a tensor takes some 30.
    pub(super) fn values(self) -> usize {
        self.tensors.saturating_mul(48).saturating_add(self.metadata.saturating_mul(4)).saturating_add(256)
    }
}

/// The tensors and strings of a pickle. The tensors' ranges are of `file` and, past its end, of the content's own bytes.
pub fn collect(
    pickle: &Pickle<'_>,
    file: &[u8],
    storages: &Storages<'_>,
    limits: ReadLimits,
) -> Result<Content, LoadError> {
    let mut reader =
        Reader { pickle, file, storages, limits, content: Content::default(), visits: 0, text: 0, copied: 0 };
    reader.visit(pickle.root(), &mut String::new(), 0)?;
    Ok(reader.content)
}

struct Reader<'a> {
    pickle: &'a Pickle<'a>,
    file: &'a [u8],
    storages: &'a Storages<'a>,
    limits: ReadLimits,
    content: Content,
    /// The number of values visited: a few may be in many places.
    visits: usize,
    /// The bytes of all names and strings.
    text: usize,
    /// The bytes of tensors that are not a contiguous piece of a storage.
    copied: usize,
}

impl Reader<'_> {
    fn visit(&mut self, id: Id, name: &mut String, depth: usize) -> Result<(), LoadError> {
        self.visits += 1;
        if self.visits > self.limits.values() {
            return Err(too_many_values(self.limits.values()));
        }
        if depth > LEVELS {
            let expected = format!("at most {LEVELS} lists and dictionaries in each other");
            return Err(LoadError::pytorch(shortened(name), expected, "more"));
        }
        let pickle = self.pickle;
        match pickle.value(id) {
            Value::None | Value::Bytes | Value::Call(Name::Encode, _) => Ok(()),
            Value::Bool(value) => self.string(name, value.to_string()),
            Value::Int(value) => self.string(name, value.to_string()),
            Value::Float(value) => self.string(name, format!("{value:?}")),
            Value::Text(value) => self.string(name, (*value).to_owned()),
            Value::Name(Name::Dtype(dtype)) => self.string(name, dtype.to_string()),
            Value::List(elements) | Value::Tuple(elements) => {
                elements.iter().enumerate().try_for_each(|(i, &id)| self.visit_in(&i.to_string(), id, name, depth))
            }
            Value::Dict(pairs) => pairs.iter().try_for_each(|&(key, id)| match pickle.value(key) {
                Value::Text(key) => self.visit_in(key, id, name, depth),
                Value::Int(key) => self.visit_in(&key.to_string(), id, name, depth),
                Value::Float(key) => self.visit_in(&format!("{key:?}"), id, name, depth),
                Value::Bool(key) => self.visit_in(&key.to_string(), id, name, depth),
                other => Err(self.refused(name, "a key that is text or a number", kind(other))),
            }),
            Value::Call(Name::Size | Name::Device, arguments) => match pickle.elements(*arguments) {
                Some(&[value, ..]) => self.visit(value, name, depth + 1),
                _ => Err(self.refused(name, "a size or a device", "none")),
            },
            Value::Call(..) => {
                let entry = self.tensor(id, name, true)?;
                self.count_text(name.len())?;
                if self.content.entries.len() >= self.limits.tensors {
                    return Err(LoadError::Limit { path: None, what: "tensors", limit: self.limits.tensors });
                }
                if name == METADATA || self.content.entries.insert(name.clone(), entry).is_some() {
                    return Err(self.refused(name, "a name of one tensor", "one that is taken"));
                }
                Ok(())
            }
            other @ (Value::Name(_) | Value::Persistent(_)) => {
                Err(self.refused(name, "a tensor, a number, text, a list or a dictionary", kind(other)))
            }
        }
    }

    /// Visits the value called `part` in the object called `name`.
    fn visit_in(&mut self, part: &str, id: Id, name: &mut String, depth: usize) -> Result<(), LoadError> {
        let length = name.len();
        // The same long key may be in many places.
        self.count_text(part.len())?;
        if length > 0 {
            name.push('.');
        }
        name.push_str(part);
        let visited = self.visit(id, name, depth + 1);
        name.truncate(length);
        visited
    }

    fn string(&mut self, name: &str, value: String) -> Result<(), LoadError> {
        self.count_text(name.len() + value.len())?;
        if self.content.metadata.len() >= self.limits.metadata {
            return Err(LoadError::Limit { path: None, what: "entries of metadata", limit: self.limits.metadata });
        }
        match self.content.metadata.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(self.refused(name, "a name of one value", "one that is taken")),
        }
    }

    fn count_text(&mut self, bytes: usize) -> Result<(), LoadError> {
        self.text += bytes;
        if self.text <= self.limits.header {
            return Ok(());
        }
        Err(LoadError::Limit { path: None, what: "bytes of names and strings", limit: self.limits.header })
    }

    /// The tensor that a call makes. A call that makes it from another tensor, as for a parameter, is allowed only if `wrapped`.
    fn tensor(&mut self, id: Id, name: &str, wrapped: bool) -> Result<Entry, LoadError> {
        let pickle = self.pickle;
        let Value::Call(function, arguments) = pickle.value(id) else {
            return Err(self.refused(name, "a tensor", kind(pickle.value(id))));
        };
        self.rebuilt(*function, *arguments, name, wrapped)
    }

    /// The tensor that a function makes from its arguments.
    fn rebuilt(&mut self, function: Name, arguments: Id, name: &str, wrapped: bool) -> Result<Entry, LoadError> {
        let pickle = self.pickle;
        let wrong = |reader: &Self| reader.refused(name, "the arguments of a tensor", "others");
        let given = pickle.elements(arguments).ok_or_else(|| wrong(self))?;
        // The arguments that may follow would say whether a tensor is its storage's conjugate or negative.
        let plain = |rest: &[Id]| {
            rest.first().is_none_or(|&id| match pickle.value(id) {
                Value::None => true,
                Value::Dict(pairs) => pairs.is_empty(),
                _ => false,
            })
        };
        let (view, dtype) = match (function, given) {
            (Name::Parameter, &[tensor, ..]) if wrapped => return self.tensor(tensor, name, false),
            (Name::FromType, &[function, kind, arguments, ..]) if wrapped => {
                return match (pickle.value(function), pickle.value(kind)) {
                    (&Value::Name(function), Value::Name(Name::TensorType)) => {
                        self.rebuilt(function, arguments, name, false)
                    }
                    _ => Err(wrong(self)),
                };
            }
            (Name::Tensor, [_, _, _, _]) => (given, None),
            (Name::TensorV2, [_, _, _, _, _, _, rest @ ..]) if plain(rest) => (given, None),
            (Name::TensorV3, [_, _, _, _, _, _, dtype, rest @ ..]) if plain(rest) => match pickle.value(*dtype) {
                Value::Name(Name::Dtype(dtype)) => (given, Some(*dtype)),
                _ => return Err(wrong(self)),
            },
            _ => return Err(wrong(self)),
        };
        let &[storage, offset, size, stride, ..] = view else { return Err(wrong(self)) };
        let storage = match pickle.value(storage) {
            Value::Persistent(id) => storage_of(pickle, *id),
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.refused(name, "a storage of a known type", "another value"))?;
        let counts = |id| pickle.elements(id)?.iter().map(|&id| pickle.count(id)).collect::<Option<Vec<_>>>();
        let (Some(dtype), Some(offset), Some(shape), Some(strides)) =
            (dtype.or(storage.dtype), pickle.count(offset), counts(size), counts(stride))
        else {
            return Err(wrong(self));
        };
        self.view(name, &storage, dtype, offset, &shape, &strides)
    }

    /// A view of a storage: element `i` is element `offset + Σ i stride` of it.
    fn view(
        &mut self,
        name: &str,
        storage: &Storage<'_>,
        dtype: Dtype,
        offset: usize,
        shape: &[usize],
        strides: &[usize],
    ) -> Result<Entry, LoadError> {
        if shape.len() > self.limits.axes {
            return Err(LoadError::Limit { path: None, what: "axes of a tensor", limit: self.limits.axes });
        }
        let size = dtype.bitsize() / 8;
        let count = elements_of(shape).filter(|_| shape.len() == strides.len());
        let Some(count) = count else {
            return Err(self.refused(name, "a shape and as many strides", &format!("{shape:?} and {strides:?}")));
        };
        let Some(place) = self.storages.get(storage.key) else {
            return Err(self.refused(name, &format!("a storage {}", shortened(storage.key)), "none"));
        };
        // The bytes of the storage, or of the view of it, that the pickle describes.
        let bytes = || {
            let start = storage.skipped.checked_mul(storage.element())?;
            let end = start.checked_add(storage.elements.checked_mul(storage.element())?)?;
            (end <= place.len()).then(|| place.start + start..place.start + end)
        };
        let Some(bytes) = bytes() else {
            let expected = format!("storage {} of {} elements", shortened(storage.key), storage.elements);
            return Err(self.refused(name, &expected, &format!("{} bytes", place.len())));
        };
        if count == 0 {
            return Ok(Entry { dtype, shape: shape.to_vec(), range: bytes.start..bytes.start });
        }
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(offset, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?));
        let held = bytes.len() / size;
        if last.is_none_or(|last| last >= held) {
            let expected = format!("a view of the {held} elements of storage {}", shortened(storage.key));
            let got = format!("shape {shape:?} with strides {strides:?} from element {offset} on");
            return Err(self.refused(name, &expected, &got));
        }
        let start = bytes.start + offset * size;
        if is_plain(shape, strides) {
            return Ok(Entry { dtype, shape: shape.to_vec(), range: start..start + count * size });
        }
        // A small storage can be viewed as a tensor of any size.
        self.copied = self.copied.saturating_add(count.saturating_mul(size));
        let most = 4 * self.file.len() + (1 << 20);
        if self.copied > most {
            let expected = format!("at most {most} bytes of tensors that are repeated or transposed");
            return Err(self.refused(name, &expected, &format!("{} bytes", self.copied)));
        }
        let begin = self.file.len() + self.content.data.len();
        let mut index = vec![0; shape.len()];
        let mut element = 0; // counted from the first
        loop {
            let at = start + element * size;
            self.content.data.extend_from_slice(&self.file[at..at + size]);
            // The next index in row-major order.
            let mut axis = shape.len();
            loop {
                if axis == 0 {
                    let range = begin..begin + count * size;
                    return Ok(Entry { dtype, shape: shape.to_vec(), range });
                }
                axis -= 1;
                if index[axis] + 1 < shape[axis] {
                    index[axis] += 1;
                    element += strides[axis];
                    break;
                }
                element -= index[axis] * strides[axis];
                index[axis] = 0;
            }
        }
    }

    #[cold]
    fn refused(&self, name: &str, expected: &str, got: &str) -> LoadError {
        LoadError::pytorch(shortened(shown(name)), expected, got)
    }
}

/// Whether the elements are contiguous in row-major order.
fn is_plain(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let plain = size == 1 || stride == expected;
        expected *= size;
        plain
    })
}
