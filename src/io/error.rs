//! The errors of files, and of models that do not fit them.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::base::error::named;
use crate::base::file_kind::FileKind;
use crate::base::tensors::shown;
use crate::optim::{OptimizerStateError, ScheduleError};

/// Why a file was not loaded: nothing was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// It could not be read.
    Io(io::Error),
    /// It is not a safetensors file, or a damaged one.
    Malformed {
        /// Its path, if it was [opened](crate::io::StateDict::open) by path.
        path: Option<PathBuf>,
        /// What is wrong with it.
        reason: String,
    },
    /// It is a PyTorch file that is damaged, or holds something that cannot be read.
    PyTorch {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
        /// Where in the file: a byte of its pickle, or the name of a tensor.
        place: String,
        /// What was expected there.
        expected: String,
        /// What was found there.
        got: String,
    },
    /// It is a file of another kind, and its first bytes say which.
    Foreign {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
        /// What was expected: `safetensors`, `PyTorch`.
        expected: &'static str,
        /// The kind of file that it is.
        kind: FileKind,
    },
    /// Its header, or the pickle of a PyTorch file, exceeds the [`ReadLimits`](crate::io::ReadLimits).
    Limit {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
        /// What exceeds the limit.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// It is a safetensors file, but not a checkpoint of this crate.
    NotACheckpoint {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
    },
    /// It is a checkpoint of a format that this version of the crate does not know.
    Version {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
        /// Its format.
        found: String,
        /// The format that is known.
        supported: u32,
    },
    /// It was altered after it was saved.
    Checksum {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
        /// The checksum that was saved.
        saved: String,
        /// The checksum of its content now.
        actual: String,
    },
    /// It does not hold what was asked for.
    Absent {
        /// The metadata key that was asked for.
        key: String,
    },
    /// A value in its metadata is invalid.
    Value {
        /// The metadata key.
        key: String,
        /// The value.
        value: String,
    },
    /// The text of its schedule is invalid.
    Schedule(ScheduleError),
    /// Its tensors do not fit.
    Mismatch(Mismatch),
    /// The optimizer's state does not fit.
    Optimizer(OptimizerStateError),
}

impl LoadError {
    pub(super) fn malformed(reason: impl fmt::Display) -> Self {
        LoadError::Malformed { path: None, reason: reason.to_string() }
    }

    #[cfg(feature = "pytorch")]
    pub(super) fn pytorch(place: impl fmt::Display, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        let [place, expected, got] = [place.to_string(), expected.to_string(), got.to_string()];
        LoadError::PyTorch { path: None, place, expected, got }
    }

    /// Adds the file's path, which only the caller of a reader knows.
    pub(super) fn at(mut self, place: &Path) -> Self {
        use LoadError::*;
        match &mut self {
            Io(error) => *error = named(place, std::mem::replace(error, io::ErrorKind::Other.into())),
            Malformed { path, .. }
            | PyTorch { path, .. }
            | Foreign { path, .. }
            | Limit { path, .. }
            | NotACheckpoint { path }
            | Version { path, .. }
            | Checksum { path, .. } => *path = Some(place.to_owned()),
            Absent { .. } | Value { .. } | Schedule(_) | Mismatch(_) | Optimizer(_) => {}
        }
        self
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use LoadError::{Checksum, Foreign, Limit, Malformed, NotACheckpoint, PyTorch, Version};
        if let Malformed { path: Some(path), .. }
        | PyTorch { path: Some(path), .. }
        | Foreign { path: Some(path), .. }
        | Limit { path: Some(path), .. }
        | NotACheckpoint { path: Some(path) }
        | Version { path: Some(path), .. }
        | Checksum { path: Some(path), .. } = self
        {
            write!(f, "{}: ", path.display())?;
        }
        match self {
            LoadError::Io(error) => error.fmt(f),
            Malformed { reason, .. } => write!(f, "not a safetensors file, or a damaged one: {reason}"),
            PyTorch { place, expected, got, .. } => write!(f, "{place}: expected {expected}, got {got}"),
            Foreign { expected, kind, .. } => write!(f, "expected a {expected} file, got {kind}"),
            Limit { what, limit, .. } => {
                write!(f, "the file has more than {limit} {what}; if it can be trusted, `ReadLimits` raises the limit")
            }
            NotACheckpoint { .. } => {
                write!(
                    f,
                    "a safetensors file, but no checkpoint: it has no metadata gradflow.format; `StateDict` reads it"
                )
            }
            Version { found, supported, .. } => {
                write!(f, "a checkpoint of format {found}, where format {supported} is known")
            }
            Checksum { saved, actual, .. } => {
                write!(f, "the checkpoint was altered: its checksum is {actual} and was {saved}")
            }
            LoadError::Absent { key } => write!(f, "the checkpoint has no {key}"),
            LoadError::Value { key, value } => write!(f, "the checkpoint's {key} makes no sense: {value:?}"),
            LoadError::Schedule(error) => error.fmt(f),
            LoadError::Mismatch(mismatch) => mismatch.fmt(f),
            LoadError::Optimizer(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::Io(error) => Some(error),
            LoadError::Schedule(error) => Some(error),
            LoadError::Mismatch(error) => Some(error),
            LoadError::Optimizer(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        LoadError::Io(error)
    }
}

impl From<Mismatch> for LoadError {
    fn from(mismatch: Mismatch) -> Self {
        LoadError::Mismatch(mismatch)
    }
}

impl From<ScheduleError> for LoadError {
    fn from(error: ScheduleError) -> Self {
        LoadError::Schedule(error)
    }
}

impl From<OptimizerStateError> for LoadError {
    fn from(error: OptimizerStateError) -> Self {
        LoadError::Optimizer(error)
    }
}

/// All differences between the tensors of a file and those of a model, under the file's names: nothing was changed.
///
/// If tensors are missing, but the file has all of the model's tensors under other prefixes, the text says so:
///
/// ```
/// use gradflow::{io::StateDict, layers::Linear};
///
/// let file = StateDict::new().with_tensors("head", &Linear::<f32>::zeros(3, 2));
/// let error = file.load(&mut Linear::<f32>::zeros(3, 2)).unwrap_err();
/// assert_eq!(error.elsewhere[0].prefix, "head");
/// assert!(error.to_string().contains(r#"the file has head.weight: `LoadOptions::prefix("head")`"#));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Tensors that the model needs and the file lacks.
    pub missing: Vec<String>,
    /// Tensors that the file holds and the model does not use.
    pub unexpected: Vec<String>,
    /// Tensors of another shape.
    pub shapes: Vec<ShapeMismatch>,
    /// Tensors of another element type.
    pub types: Vec<TypeMismatch>,
    /// The first two names that should stand for [one tensor](crate::io::LoadOptions::tied) in the file, but hold different ones.
    pub tied: Option<Box<[String; 2]>>,
    /// If some are missing: the other prefixes under which the file has all of them. One of these may have been forgotten.
    pub elsewhere: Box<[Elsewhere]>,
}

/// A prefix under which a file has all tensors of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elsewhere {
    /// The prefix, as [`LoadOptions::prefix`](crate::io::LoadOptions::prefix) takes it; it may be empty.
    pub prefix: String,
    /// The name of the first of the tensors in the file.
    pub name: String,
}

/// A tensor that has another shape in the file than in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShapeMismatch {
    /// Its name.
    pub name: String,
    /// The shape in the model.
    pub expected: Vec<usize>,
    /// The shape in the file.
    pub found: Vec<usize>,
}

/// A tensor that has another element type in the file than in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypeMismatch {
    /// Its name.
    pub name: String,
    /// The type in the model, as safetensors spells it: `F32`.
    pub expected: String,
    /// The type in the file.
    pub found: String,
}

impl Mismatch {
    pub(super) fn is_empty(&self) -> bool {
        let Mismatch { missing, unexpected, shapes, types, tied, elsewhere: _ } = self;
        missing.is_empty() && unexpected.is_empty() && shapes.is_empty() && types.is_empty() && tied.is_none()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the file does not fit the model")?;
        for (what, names) in [("missing in the file", &self.missing), ("unexpected in the file", &self.unexpected)] {
            if !names.is_empty() {
                let names: Vec<_> = names.iter().map(|name| shown(name)).collect();
                write!(f, "\n  {what}: {}", names.join(", "))?;
            }
        }
        for Elsewhere { prefix, name } in self.elsewhere.iter().take(3) {
            write!(f, "\n  the file has {}: `LoadOptions::prefix({prefix:?})`", shown(name))?;
        }
        for ShapeMismatch { name, expected, found } in &self.shapes {
            write!(f, "\n  {}: expected shape {expected:?}, found {found:?}", shown(name))?;
        }
        for TypeMismatch { name, expected, found } in &self.types {
            write!(f, "\n  {}: expected type {expected}, found {found}", shown(name))?;
        }
        if let Some([one, other]) = self.tied.as_deref() {
            write!(f, "\n  {one} and {other}: expected one tensor under two names, found two")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatch {}

/// Why one tensor of a file could not be read as an array.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorError {
    /// There is no tensor of this name.
    Missing {
        /// The name that was asked for.
        name: String,
        /// The names in the file that end with it or begin with it.
        similar: Vec<String>,
    },
    /// Its type has no counterpart, or is not the one that was asked for.
    Type {
        /// Its name.
        name: String,
        /// The types that can be read.
        expected: &'static str,
        /// Its type, as safetensors spells it.
        found: String,
    },
    /// A value is not an index: it is negative, or too large for this machine.
    Value {
        /// The tensor's name.
        name: String,
        /// The value.
        value: i128,
    },
}

impl fmt::Display for TensorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorError::Missing { name, similar } => {
                write!(f, "the file has no tensor {}", shown(name))?;
                if similar.is_empty() { Ok(()) } else { write!(f, "; it has {}", similar.join(", ")) }
            }
            TensorError::Type { name, expected, found } => {
                write!(f, "{}: expected type {expected}, found {found}", shown(name))
            }
            TensorError::Value { name, value } => write!(f, "{}: expected indices, found {value}", shown(name)),
        }
    }
}

impl std::error::Error for TensorError {}
