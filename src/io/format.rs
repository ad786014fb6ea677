//! The safetensors format: 8 bytes with the length of a header, the header in JSON, the tensors' bytes.
//!
//! It is read by the `safetensors` crate, and written here: so that tensors go to the file without another copy of
//! them all, and the same content gives the same bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::ops::Range;

use safetensors::{Dtype, SafeTensors};

use super::error::LoadError;

/// The key of the header's metadata: no tensor can have it as its name.
pub const METADATA: &str = "__metadata__";

/// The longest header that readers take.
const MAX_HEADER: usize = 100_000_000;

/// A tensor's type, shape and place in the file.
#[derive(Clone, Debug)]
pub struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Of the bytes that the entries belong to.
    pub range: Range<usize>,
}

/// What a file holds; the entries' ranges are of `data`.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub data: Vec<u8>,
    pub entries: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

/// Reads a whole file. What cannot be a safetensors file is refused after 9 bytes.
pub fn read(mut reader: impl Read) -> Result<Content, LoadError> {
    let mut data = Vec::new();
    reader.by_ref().take(9).read_to_end(&mut data)?;
    let Some((&length, b"{")) = data.split_first_chunk() else {
        return Err(LoadError::malformed("no header"));
    };
    let header = usize::try_from(u64::from_le_bytes(length)).ok().filter(|&length| length <= MAX_HEADER);
    let header = header.ok_or_else(|| LoadError::malformed("no header of at most 100 MB"))?;
    reader.read_to_end(&mut data)?;
    let (_, metadata) = SafeTensors::read_metadata(&data).map_err(LoadError::malformed)?;
    let start = 8 + header;
    let mut entries = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        entries.insert(name, Entry { dtype: info.dtype, shape: info.shape.clone(), range });
    }
    // The crate keeps one of several tensors of the same name.
    if outer_keys(&data[8..start]) != entries.len() + usize::from(metadata.metadata().is_some()) {
        return Err(LoadError::malformed("two tensors have the same name"));
    }
    let metadata = metadata.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(Content { data, entries, metadata })
}

/// The number of keys of the outermost object of a valid JSON text: of its colons outside strings.
fn outer_keys(json: &[u8]) -> usize {
    let (mut depth, mut keys, mut in_string, mut escaped) = (0, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b':' if depth == 1 => keys += 1,
            _ => {}
        }
    }
    keys
}

/// Writes a whole file: large elements first, so that all are aligned, then by name.
pub fn write(content: &Content, metadata: &BTreeMap<String, String>, mut writer: impl Write) -> io::Result<()> {
    let mut entries: Vec<_> = content.entries.iter().collect();
    entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.dtype.bitsize())); // stable
    let header = header(&entries, metadata);
    if header.len() > MAX_HEADER {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "names and metadata of more than 100 MB"));
    }
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(header.as_bytes())?;
    entries.iter().try_for_each(|(_, entry)| writer.write_all(&content.data[entry.range.clone()]))?;
    writer.flush()
}

fn header(entries: &[(&String, &Entry)], metadata: &BTreeMap<String, String>) -> String {
    let mut fields = Vec::new();
    if !metadata.is_empty() {
        let pairs: Vec<_> = metadata.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
        fields.push(format!("{}:{{{}}}", quoted(METADATA), pairs.join(",")));
    }
    let mut start = 0;
    for (name, Entry { dtype, shape, range }) in entries {
        let end = start + range.len();
        let name = quoted(name);
        fields.push(format!(r#"{name}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#));
        start = end;
    }
    let mut header = format!("{{{}}}", fields.join(","));
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    header
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..' ' => write!(quoted, "\\u{:04x}", u32::from(character)).expect("a string takes all"),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}
