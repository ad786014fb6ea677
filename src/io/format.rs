//! The safetensors format: 8 bytes with the length of a header, the header in JSON, the tensors' bytes.
//!
//! It is read by the `safetensors` crate, and written here, so that tensors go to the file without another copy of them all, and
//! the same content gives the same bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::ops::Range;

use safetensors::{Dtype, SafeTensors};

use super::error::LoadError;
use crate::base::file_kind::{FileKind, MAX_HEADER};
use crate::base::tensors::elements_of;

/// The key of the header's metadata: no tensor can have it as its name.
pub const METADATA: &str = "__metadata__";

/// A tensor's type, shape and place in the file.
#[derive(Clone, Debug)]
pub struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Within the bytes that the entries belong to.
    pub range: Range<usize>,
}

/// The content of a file; the entries' ranges are of `data`.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub data: Vec<u8>,
    pub entries: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

/// Limits of a file's header, or of the pickle of a PyTorch file, for untrusted files.
///
/// Reading a header takes several times its own size in memory, and time; the tensors' bytes take their own size. The defaults
/// bound the header's part to some 100 MB, far above what models need. A file that exceeds a limit is refused with
/// [`LoadError::Limit`](crate::io::LoadError::Limit) before its header is parsed.
///
/// ```
/// use gradflow::{io::{LoadError, ReadLimits, StateDict}, ndarray::arr1};
///
/// let mut file = Vec::new();
/// StateDict::new().with_tensors("a", &arr1(&[1.0_f32])).with_tensors("b", &arr1(&[2.0_f32])).save_to(&mut file)?;
/// assert!(StateDict::read_from(&file[..]).is_ok());
/// let error = StateDict::read_with(&file[..], ReadLimits::new().tensors(1)).unwrap_err();
/// assert!(matches!(error, LoadError::Limit { what: "tensors", limit: 1, .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ReadLimits {
    pub(super) header: usize,
    pub(super) tensors: usize,
    pub(super) axes: usize,
    pub(super) metadata: usize,
}

impl ReadLimits {
    /// A header of 16 MiB, with 65,536 tensors of 64 axes each and 65,536 entries of metadata.
    pub fn new() -> Self {
        ReadLimits { header: 1 << 24, tensors: 1 << 16, axes: 64, metadata: 1 << 16 }
    }

    /// Limits the header to this many bytes; more than 100,000,000 are never read, as the format says.
    pub fn header_bytes(self, header: usize) -> Self {
        ReadLimits { header: header.min(MAX_HEADER), ..self }
    }

    /// Limits the number of tensors.
    pub fn tensors(self, tensors: usize) -> Self {
        ReadLimits { tensors, ..self }
    }

    /// Limits the number of axes of a tensor.
    pub fn axes(self, axes: usize) -> Self {
        ReadLimits { axes, ..self }
    }

    /// Limits the number of metadata entries.
    pub fn metadata_entries(self, metadata: usize) -> Self {
        ReadLimits { metadata, ..self }
    }

    /// Returns an error if a header, which need not be valid, exceeds a limit.
    fn check(self, counts: &Counts) -> Result<(), LoadError> {
        let checks = [
            ("tensors", self.tensors, counts.tensors()),
            ("axes of a tensor", self.axes, counts.longest_list),
            ("entries of metadata", self.metadata, counts.metadata),
        ];
        match checks.into_iter().find(|(_, limit, count)| count > limit) {
            Some((what, limit, _)) => Err(LoadError::Limit { path: None, what, limit }),
            None => Ok(()),
        }
    }
}

impl Default for ReadLimits {
    fn default() -> Self {
        ReadLimits::new()
    }
}

/// Reads a whole file. A file that cannot be in the safetensors format is refused after its first bytes.
pub fn read(reader: &mut dyn Read, limits: ReadLimits) -> Result<Content, LoadError> {
    let mut data = Vec::new();
    Read::take(&mut *reader, 9).read_to_end(&mut data)?;
    let length = match data.split_first_chunk() {
        Some((&length, b"{")) => usize::try_from(u64::from_le_bytes(length)).ok(),
        _ => None,
    };
    let Some(header) = length.filter(|&length| length <= MAX_HEADER) else {
        reader.take((FileKind::ENOUGH - data.len()) as u64).read_to_end(&mut data)?;
        return Err(match FileKind::of(&data) {
            Some(kind) => LoadError::Foreign { path: None, expected: "safetensors", kind },
            None => LoadError::malformed("no header"),
        });
    };
    if header > limits.header {
        return Err(LoadError::Limit { path: None, what: "bytes of header", limit: limits.header });
    }
    let start = 8 + header;
    Read::take(&mut *reader, header.saturating_sub(1) as u64).read_to_end(&mut data)?;
    let counts = data.get(8..start).map(count).ok_or_else(|| LoadError::malformed("the header is cut off"))?;
    limits.check(&counts)?;
    reader.read_to_end(&mut data)?;
    let (_, metadata) = SafeTensors::read_metadata(&data).map_err(LoadError::malformed)?;
    let mut entries = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        if elements_of(&info.shape).is_none() {
            return Err(LoadError::malformed(format_args!("there is no array of shape {:?}", info.shape)));
        }
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        entries.insert(name, Entry { dtype: info.dtype, shape: info.shape.clone(), range });
    }
    // The `safetensors` crate keeps one of several tensors of the same name.
    if counts.outer_keys != entries.len() + usize::from(metadata.metadata().is_some()) {
        return Err(LoadError::malformed("two tensors have the same name"));
    }
    let metadata = metadata.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(Content { data, entries, metadata })
}

/// The content of a header, counted without parsing it.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    /// The keys of the outermost object: tensors, and the metadata.
    outer_keys: usize,
    /// Whether one of them may be the metadata's.
    has_metadata: bool,
    /// The largest number of keys of an object that is, or may be, the metadata: a tensor's object has three.
    metadata: usize,
    /// The largest number of elements of a list.
    longest_list: usize,
}

impl Counts {
    fn tensors(&self) -> usize {
        self.outer_keys - usize::from(self.has_metadata)
    }
}

/// Counts colons and commas outside strings, which in valid JSON are keys and elements.
fn count(json: &[u8]) -> Counts {
    let mut counts = Counts::default();
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let (mut in_metadata, mut entries, mut elements) = (false, 0, 0);
    for (at, byte) in json.iter().enumerate() {
        if depth > 2 && elements == 0 && !byte.is_ascii_whitespace() && *byte != b']' {
            elements = 1;
            counts.longest_list = counts.longest_list.max(1);
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                elements = 0;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' if depth == 1 => {
                in_metadata = json[..at].trim_ascii_end().ends_with(b"\"__metadata__\"");
                entries = 0;
                counts.outer_keys += 1;
                counts.has_metadata |= in_metadata;
            }
            b':' if depth == 2 => {
                entries += 1;
                // The name of the metadata may be spelled with escapes.
                if in_metadata || entries > 3 {
                    counts.metadata = counts.metadata.max(entries);
                }
            }
            b',' if depth > 2 => {
                elements += 1;
                counts.longest_list = counts.longest_list.max(elements);
            }
            _ => {}
        }
    }
    counts
}

/// Writes a whole file: large elements first, so that all are aligned, then by name.
pub fn write(content: &Content, metadata: &BTreeMap<String, String>, writer: &mut dyn Write) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_counted_without_being_parsed() {
        let header = br#"{"__metadata__" : {"a:":"b,", "\"":"{["}, "x": {"shape":[1, 2,3]}, "y":{"shape":[ ]}}"#;
        assert_eq!(count(header), Counts { outer_keys: 3, has_metadata: true, metadata: 2, longest_list: 3 });
        assert_eq!(count(br#"{"a":{"shape":[ 7 ]}}"#).longest_list, 1);
        assert_eq!(count(br#"{"a":{"shape":[ ]}}"#).longest_list, 0);
        assert_eq!(count(br#"{"\u005f_metadata__":{"a":"","b":"","c":"","d":""}}"#).metadata, 4);
        assert_eq!(count(br#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#).metadata, 0);
        // Invalid JSON must not cause a panic; the counts do not matter.
        for junk in [&b"}}}]]]:,:,"[..], b"\\", b"\"", b"{[{[::,,", b""] {
            count(junk);
        }
    }
}
