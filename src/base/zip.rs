//! Zip files whose entries are not compressed, as PyTorch and Keras write them: the byte range of each entry.

use std::collections::BTreeMap;
use std::ops::Range;

use rawzip::{CompressionMethod, ZipArchive};

/// The byte range of each entry in the file, or a message that says what is wrong with it. Checksums are ignored, because PyTorch
/// can be told to write none.
pub fn entries(file: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let archive = ZipArchive::from_slice(file).map_err(|error| error.to_string())?;
    let mut entries = BTreeMap::new();
    let mut records = archive.entries();
    while let Some(record) = records.next_entry().map_err(|error| error.to_string())? {
        let name = String::from_utf8_lossy(record.file_path().as_bytes()).into_owned();
        if record.is_dir() {
            continue;
        }
        let told = |what: &dyn std::fmt::Display| format!("{name}: {what}");
        if record.compression_method() != CompressionMethod::STORE || record.flags().is_encrypted() {
            return Err(told(&"expected an entry that is stored as it is, got a compressed or encrypted one"));
        }
        let (start, end) = archive.get_entry(record.wayfinder()).map_err(|error| told(&error))?.compressed_data_range();
        let [start, end] = [start, end].map(|place| usize::try_from(place).unwrap_or(usize::MAX));
        if start > end || end > file.len() {
            return Err(told(&"its bytes lie beyond the end of the file"));
        }
        if entries.contains_key(&name) {
            return Err(told(&"there are two entries of this name"));
        }
        entries.insert(name, start..end);
    }
    Ok(entries)
}
