//! The two containers of `torch.save`.
//!
//! ```text
//! since 1.6   a zip file, nothing compressed:
//!             name/data.pkl   the pickle
//!             name/data/0 …   a storage each
//!             name/byteorder  "little"
//! before      pickles one after the other: a magic number, a version, the machine's properties, the data, the storages' keys;
//!             then each storage: its number of elements in 8 bytes, its bytes
//! ```

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use super::pickle::{Pickle, Value};
use super::tensors::{Storages, collect, storage_of};
use crate::base::file_kind::FileKind;
use crate::base::zip;
use crate::io::error::LoadError;
use crate::io::format::{Content, ReadLimits};

/// The number that the older container begins with.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

pub fn read(reader: &mut dyn Read, limits: ReadLimits) -> Result<Content, LoadError> {
    let mut file = Vec::new();
    Read::take(&mut *reader, FileKind::ENOUGH as u64).read_to_end(&mut file)?;
    let kind = FileKind::of(&file);
    let read = match kind {
        Some(FileKind::PyTorchZip | FileKind::Zip) => read_zip,
        Some(FileKind::Pickle) => read_legacy,
        Some(kind) => return Err(foreign(kind)),
        None => return Err(LoadError::pytorch("byte 0", "a zip file or a pickle", "other bytes")),
    };
    reader.read_to_end(&mut file)?;
    let mut content = read(&file, limits)?;
    // The tensors' ranges are of the file, followed by the tensors that had to be copied together.
    file.append(&mut content.data);
    content.data = file;
    Ok(content)
}

fn foreign(kind: FileKind) -> LoadError {
    LoadError::Foreign { path: None, expected: "PyTorch", kind }
}

fn read_zip(file: &[u8], limits: ReadLimits) -> Result<Content, LoadError> {
    let entries = zip::entries(file).map_err(|reason| LoadError::pytorch("zip file", "a sound one", reason))?;
    let mut pickles = entries.keys().filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(name) = pickles.next() else { return Err(foreign(FileKind::Zip)) };
    let folder = &name[..name.len() - "data.pkl".len()];
    if let Some(order) = entries.get(&format!("{folder}byteorder")) {
        check_order(&file[order.clone()] == b"little", &format!("{folder}byteorder"))?;
    }
    let bytes = &file[entries[name].clone()];
    if bytes.len() > limits.header {
        return Err(LoadError::Limit { path: None, what: "bytes of pickle", limit: limits.header });
    }
    let pickle = Pickle::read(bytes, name, limits.values())?;
    let storages = entries.iter().filter_map(|(name, place)| {
        let key = name.strip_prefix(folder)?.strip_prefix("data/")?;
        Some((key, place.clone()))
    });
    collect(&pickle, file, &storages.collect(), limits)
}

fn read_legacy(file: &[u8], limits: ReadLimits) -> Result<Content, LoadError> {
    let mut at = 0;
    let mut next = |name: &'static str| {
        let rest = &file[at..];
        let pickle = Pickle::read(&rest[..rest.len().min(limits.header)], name, limits.values())?;
        at += pickle.length;
        Ok::<_, LoadError>(pickle)
    };
    let magic = next("magic number")?;
    if *magic.value(magic.root()) != Value::Int(MAGIC) {
        return Err(foreign(FileKind::Pickle));
    }
    let version = next("version")?;
    if *version.value(version.root()) != Value::Int(1001) {
        return Err(LoadError::pytorch("version", "1001", format_args!("{:?}", version.value(version.root()))));
    }
    let system = next("properties of the machine")?;
    if let Value::Dict(pairs) = system.value(system.root()) {
        let little = pairs.iter().find(|(key, _)| system.text(*key) == Some("little_endian"));
        check_order(little.is_none_or(|&(_, little)| *system.value(little) == Value::Bool(true)), "little_endian")?;
    }
    let pickle = next("data")?;
    let keys = next("keys of storages")?;
    let storages = legacy_storages(file, at, &pickle, &keys)?;
    collect(&pickle, file, &storages, limits)
}

/// The byte ranges of the storages, which follow each other from byte `at` on in the order of `keys`.
fn legacy_storages<'a>(
    file: &[u8],
    mut at: usize,
    pickle: &Pickle<'a>,
    keys: &Pickle<'a>,
) -> Result<Storages<'a>, LoadError> {
    let mut sizes = BTreeMap::new();
    for value in pickle.values() {
        if let Value::Persistent(id) = value
            && let Some(storage) = storage_of(pickle, *id)
        {
            sizes.insert(storage.key, storage.element());
        }
    }
    let elements =
        keys.elements(keys.root()).ok_or_else(|| LoadError::pytorch("keys of storages", "a list", "none"))?;
    let mut storages = BTreeMap::new();
    for &key in elements {
        let place = format!("storage at byte {at}");
        let key = keys.text(key).ok_or_else(|| LoadError::pytorch(&place, "a key that is text", "another value"))?;
        let size = sizes.get(key).ok_or_else(|| LoadError::pytorch(&place, "a storage of a tensor", "one of none"))?;
        let count = file.get(at..).and_then(<[u8]>::split_first_chunk).map(|(&count, _)| u64::from_le_bytes(count));
        let count = count.ok_or_else(|| LoadError::pytorch(&place, "its number of elements", "the end"))?;
        let range = usize::try_from(count).ok().and_then(|count| place_of(at + 8, count, *size));
        let range = range.filter(|range| range.end <= file.len());
        let range = range.ok_or_else(|| LoadError::pytorch(&place, format_args!("{count} elements"), "the end"))?;
        at = range.end;
        storages.insert(key, range);
    }
    Ok(storages)
}

fn place_of(start: usize, count: usize, size: usize) -> Option<Range<usize>> {
    Some(start..start.checked_add(count.checked_mul(size)?)?)
}

fn check_order(little: bool, place: &str) -> Result<(), LoadError> {
    if little { Ok(()) } else { Err(LoadError::pytorch(place, "little-endian numbers", "others")) }
}
