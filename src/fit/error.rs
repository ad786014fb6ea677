//! Why a training ends early.

use std::{fmt, io};

use crate::base::LengthsError;
use crate::clip::NonFiniteGradient;
use crate::optim::NonFiniteWeight;

/// Why a training ended early.
#[derive(Debug)]
#[non_exhaustive]
pub enum FitError {
    /// The gradient was not finite. The model is as it was before this step.
    Gradient(NonFiniteGradient),
    /// A step led to weights that are not finite, which the [average](crate::fit::Fit::average) would keep.
    Weights(NonFiniteWeight),
    /// The lengths of a batch do not fit it.
    Lengths(LengthsError),
    /// The checkpoint could not be written; an existing one is untouched.
    Save(io::Error),
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FitError::Gradient(error) => write!(f, "training diverged: {error}"),
            FitError::Weights(error) => write!(f, "training diverged: {error}"),
            FitError::Lengths(error) => error.fmt(f),
            FitError::Save(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FitError::Gradient(error) => Some(error),
            FitError::Weights(error) => Some(error),
            FitError::Lengths(error) => Some(error),
            FitError::Save(error) => Some(error),
        }
    }
}

impl From<NonFiniteGradient> for FitError {
    fn from(error: NonFiniteGradient) -> Self {
        FitError::Gradient(error)
    }
}

impl From<NonFiniteWeight> for FitError {
    fn from(error: NonFiniteWeight) -> Self {
        FitError::Weights(error)
    }
}

impl From<LengthsError> for FitError {
    fn from(error: LengthsError) -> Self {
        FitError::Lengths(error)
    }
}

impl From<io::Error> for FitError {
    fn from(error: io::Error) -> Self {
        FitError::Save(error)
    }
}
