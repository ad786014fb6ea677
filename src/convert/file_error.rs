//! The errors of model files, and of models that do not fit them.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::base::error::named;
use crate::convert::ConvertError;

/// Why a model was not read from a file of Keras or of a plug-in, or not written to one.
///
/// A place is a path from the outermost object, such as `layers[1].weights[0][3]` in JSON or `layers/dense/vars/0` in HDF5; it is
/// empty for that object itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileError {
    /// The file could not be read or written.
    Io(io::Error),
    /// The file, or a part of it, is larger than the limit.
    Limit {
        /// The file, if it was opened by path.
        path: Option<PathBuf>,
        /// Where in the file.
        place: String,
        /// What exceeds the limit.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// The file is damaged, or of another format.
    Malformed {
        /// The file, if it was opened by path.
        path: Option<PathBuf>,
        /// Where in the file; line and column for text that is not JSON.
        place: String,
        /// What was expected there.
        expected: String,
        /// What was found there.
        got: String,
    },
    /// The file is valid, but its model has a part that this crate does not have.
    Unsupported {
        /// The file, if it was opened by path.
        path: Option<PathBuf>,
        /// Where in the file.
        place: String,
        /// What is supported there.
        expected: String,
        /// What was found there.
        got: String,
    },
    /// The model has something that the format does not have.
    Convert(ConvertError),
    /// A parameter is NaN or infinite, which JSON cannot represent.
    NotFinite {
        /// The name of the tensor.
        tensor: String,
    },
}

impl FileError {
    /// Adds the file's path, which only the caller of a reader knows.
    pub(super) fn at(mut self, file: &Path) -> Self {
        match &mut self {
            FileError::Io(error) => {
                *error = named(file, std::mem::replace(error, io::ErrorKind::Other.into()));
            }
            FileError::Limit { path, .. } | FileError::Malformed { path, .. } | FileError::Unsupported { path, .. } => {
                *path = Some(file.to_owned())
            }
            FileError::Convert(_) | FileError::NotFinite { .. } => {}
        }
        self
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let FileError::Limit { path, place, .. }
        | FileError::Malformed { path, place, .. }
        | FileError::Unsupported { path, place, .. } = self
        {
            if let Some(path) = path {
                write!(f, "{}: ", path.display())?;
            }
            if !place.is_empty() {
                write!(f, "{place}: ")?;
            }
        }
        match self {
            FileError::Io(error) => error.fmt(f),
            FileError::Limit { what, limit, .. } => write!(f, "more than {limit} {what}"),
            FileError::Malformed { expected, got, .. } => write!(f, "expected {expected}, got {got}"),
            FileError::Unsupported { expected, got, .. } => {
                write!(f, "expected {expected}, got {got}, which is not supported")
            }
            FileError::Convert(error) => error.fmt(f),
            FileError::NotFinite { tensor } => write!(f, "{tensor}: expected finite values, which JSON can say"),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FileError::Io(error) => Some(error),
            FileError::Convert(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        FileError::Io(error)
    }
}

impl From<ConvertError> for FileError {
    fn from(error: ConvertError) -> Self {
        FileError::Convert(error)
    }
}
