//! Files of other kinds, told apart by their first bytes.

use std::fmt;

/// The longest header that the safetensors format allows.
pub const MAX_HEADER: usize = 100_000_000;

/// The kind of a file, judged by its first bytes. Its [`Display`](fmt::Display) text
/// names the kind and says what can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A safetensors file.
    Safetensors,
    /// A file written by `torch.save`: a zip file with a pickle in it.
    PyTorchZip,
    /// A Python pickle, which `torch.save` wrote before PyTorch 1.6.
    Pickle,
    /// An archive of NumPy arrays.
    Npz,
    /// One NumPy array.
    Npy,
    /// Keras' own format: a zip file with HDF5 in it.
    KerasZip,
    /// HDF5, often weights of Keras.
    Hdf5,
    /// An ONNX model.
    Onnx,
    /// A TensorFlow Lite model.
    TfLite,
    /// A GGUF model.
    Gguf,
    /// Any other zip file.
    Zip,
    /// A file compressed with gzip or zstd.
    Compressed,
    /// A pointer that Git LFS leaves in place of a file that it has not fetched.
    GitLfsPointer,
    /// A web page, often from a failed download.
    Html,
    /// JSON, often the index of a model in several files.
    Json,
    /// An empty file.
    Empty,
}

impl FileKind {
    /// A number of bytes that is enough to tell the kinds apart.
    pub(crate) const ENOUGH: usize = 512;

    /// The kind of a file that begins with these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Option<FileKind> {
        let starts = |start: &[u8]| bytes.starts_with(start);
        let text = bytes.trim_ascii_start();
        let tag = |tag: &[u8]| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
        let header = bytes.split_first_chunk().map(|(&length, rest)| (u64::from_le_bytes(length), rest.first()));
        Some(match bytes {
            [] => FileKind::Empty,
            _ if header.is_some_and(|(length, first)| length <= MAX_HEADER as u64 && first == Some(&b'{')) => {
                FileKind::Safetensors
            }
            _ if starts(b"PK\x03\x04") => zip(bytes),
            [0x80, 2..=5, ..] => FileKind::Pickle,
            _ if starts(b"\x93NUMPY") => FileKind::Npy,
            _ if starts(b"\x89HDF\r\n\x1a\n") => FileKind::Hdf5,
            _ if starts(b"GGUF") => FileKind::Gguf,
            _ if starts(&[0x1f, 0x8b]) || starts(&[0x28, 0xb5, 0x2f, 0xfd]) => FileKind::Compressed,
            _ if starts(b"version https://git-lfs") => FileKind::GitLfsPointer,
            _ if bytes.get(4..8) == Some(b"TFL3") => FileKind::TfLite,
            // Protocol buffers: field 1, the version of the format, then another field of `ModelProto`.
            [0x08, 1..=64, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] => FileKind::Onnx,
            _ if tag(b"<!doctype html") || tag(b"<html") => FileKind::Html,
            _ if text.strip_prefix(b"{").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"")) => {
                FileKind::Json
            }
            _ => return None,
        })
    }
}

/// The kind of a zip file, by the name of its first entry.
fn zip(bytes: &[u8]) -> FileKind {
    let length = bytes.get(26..28).map_or(0, |length| usize::from(u16::from_le_bytes([length[0], length[1]])));
    let name = bytes.get(30..).map_or(&[][..], |rest| &rest[..length.min(rest.len())]);
    match name {
        _ if name.ends_with(b"/data.pkl") || name.ends_with(b"/byteorder") || name.ends_with(b"/version") => {
            FileKind::PyTorchZip
        }
        _ if name.ends_with(b".npy") => FileKind::Npz,
        b"metadata.json" | b"config.json" | b"model.weights.h5" => FileKind::KerasZip,
        _ => FileKind::Zip,
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PYTORCH: &str = "with the feature `pytorch`, `StateDict::open_pytorch` reads it; or in Python, \
                               `safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)` converts a \
                               state dict";
        const KERAS: &str = "with the feature `keras`, `gradflow::convert::KerasFile` reads it";
        let (what, advice) = match self {
            FileKind::Safetensors => ("a safetensors file", "`StateDict::open` reads it"),
            FileKind::PyTorchZip => ("a zip file of PyTorch", PYTORCH),
            FileKind::Pickle => ("a Python pickle, as of an old PyTorch", PYTORCH),
            FileKind::Npz => (
                "NumPy arrays in a zip file",
                "in Python, `safetensors.numpy.save_file(dict(numpy.load(path)), new_path)`",
            ),
            FileKind::Npy => {
                ("a NumPy array", "in Python, `safetensors.numpy.save_file({name: numpy.load(path)}, new_path)`")
            }
            FileKind::KerasZip => ("a Keras model", KERAS),
            FileKind::Hdf5 => ("an HDF5 file, as of Keras", KERAS),
            FileKind::Onnx => ("an ONNX model", "`gradflow::onnx::load_into` reads it, with the feature `onnx`"),
            FileKind::TfLite => ("a TensorFlow Lite model", "save the weights of the model that it was made from"),
            FileKind::Gguf => ("a GGUF model", "save the weights of the model that it was made from"),
            FileKind::Zip => ("a zip file", "unpack it"),
            FileKind::Compressed => ("a compressed file", "decompress it"),
            FileKind::GitLfsPointer => ("a pointer of Git LFS, not the file", "`git lfs pull` fetches the file"),
            FileKind::Html => ("a web page", "a download that went wrong?"),
            FileKind::Json => ("JSON", "an index of a model in several files? Open those, one after the other"),
            FileKind::Empty => ("an empty file", "was it saved to its end?"),
        };
        write!(f, "{what} ({advice})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zip_of(name: &str) -> Vec<u8> {
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.resize(26, 0);
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(name.bytes());
        bytes
    }

    #[test]
    fn kinds_are_told_apart_by_their_first_bytes() {
        let cases: [(&[u8], FileKind); 20] = [
            (b"\x02\0\0\0\0\0\0\0{}", FileKind::Safetensors),
            (&zip_of("archive/data.pkl"), FileKind::PyTorchZip),
            (&zip_of("weight.npy"), FileKind::Npz),
            (&zip_of("metadata.json"), FileKind::KerasZip),
            (&zip_of("a.txt"), FileKind::Zip),
            (b"PK\x03\x04", FileKind::Zip),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", FileKind::Pickle),
            (b"\x80\x04\x95", FileKind::Pickle),
            (b"\x93NUMPY\x01\0v\0{", FileKind::Npy),
            (b"\x89HDF\r\n\x1a\n\0", FileKind::Hdf5),
            (b"\x08\x08\x12\x07pytorch\x1a\x05", FileKind::Onnx),
            (b"\x1c\0\0\0TFL3", FileKind::TfLite),
            (b"GGUF\x03\0\0\0", FileKind::Gguf),
            (b"\x1f\x8b\x08", FileKind::Compressed),
            (b"\x28\xb5\x2f\xfd", FileKind::Compressed),
            (b"version https://git-lfs and so on", FileKind::GitLfsPointer),
            (b"\n<!DOCTYPE html><html>", FileKind::Html),
            (b"<HTML>", FileKind::Html),
            (b"{\"metadata\": {}}", FileKind::Json),
            (b"", FileKind::Empty),
        ];
        for (bytes, kind) in cases {
            assert_eq!(FileKind::of(bytes), Some(kind), "{:?}", bytes.escape_ascii().to_string());
        }
        for unknown in [&b"a text"[..], b"\0\0\0\0\0\0\0\0\0", b"\x80\x09", b"\x08\0\x12", b"PK", b"{{{{", &[0xff; 20]]
        {
            assert_eq!(FileKind::of(unknown), None, "{:?}", unknown.escape_ascii().to_string());
        }
    }
}
