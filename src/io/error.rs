//! What can be wrong with a file, or with a model for it.

use std::{fmt, io};

use crate::optim::{OptimizerStateError, ScheduleError};

/// Why a file was not loaded: nothing was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// It could not be read.
    Io(io::Error),
    /// It is not a safetensors file, or a damaged one.
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// It is a safetensors file, but no checkpoint of this crate.
    NotACheckpoint,
    /// It is a checkpoint of a format that this version of the crate does not know.
    Version {
        /// Its format.
        found: String,
        /// The format that is known.
        supported: u32,
    },
    /// It was altered after it was saved.
    Checksum {
        /// The checksum that was saved.
        saved: String,
        /// That of what it holds now.
        actual: String,
    },
    /// It holds no such thing.
    Absent {
        /// What was asked for: a metadata key.
        key: String,
    },
    /// A value in its metadata is not one.
    Value {
        /// The metadata key.
        key: String,
        /// What stands there.
        value: String,
    },
    /// Its schedule is not one.
    Schedule(ScheduleError),
    /// Its tensors do not fit.
    Mismatch(Mismatch),
    /// The optimizer's state does not fit.
    Optimizer(OptimizerStateError),
}

impl LoadError {
    pub(super) fn malformed(reason: impl fmt::Display) -> Self {
        LoadError::Malformed { reason: reason.to_string() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Io(error) => error.fmt(f),
            LoadError::Malformed { reason } => write!(f, "not a safetensors file, or a damaged one: {reason}"),
            LoadError::NotACheckpoint => write!(f, "not a checkpoint: no metadata gradflow.format"),
            LoadError::Version { found, supported } => {
                write!(f, "a checkpoint of format {found}, where format {supported} is known")
            }
            LoadError::Checksum { saved, actual } => {
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

/// Everything in which the tensors of a file do not fit those of a model, under the file's names: nothing was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// What the model needs and the file lacks.
    pub missing: Vec<String>,
    /// What the file holds and the model has no use for.
    pub unexpected: Vec<String>,
    /// What has another shape.
    pub shapes: Vec<ShapeMismatch>,
    /// What has another element type.
    pub types: Vec<TypeMismatch>,
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
        let Mismatch { missing, unexpected, shapes, types } = self;
        missing.is_empty() && unexpected.is_empty() && shapes.is_empty() && types.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the file does not fit the model")?;
        for (what, names) in [("missing in the file", &self.missing), ("unexpected in the file", &self.unexpected)] {
            if !names.is_empty() {
                write!(f, "\n  {what}: {}", names.join(", "))?;
            }
        }
        for ShapeMismatch { name, expected, found } in &self.shapes {
            write!(f, "\n  {name}: expected shape {expected:?}, found {found:?}")?;
        }
        for TypeMismatch { name, expected, found } in &self.types {
            write!(f, "\n  {name}: expected type {expected}, found {found}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatch {}
