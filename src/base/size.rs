//! The size of a layer's input.

use std::fmt;

/// The number of features of a layer's input, if it has features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Token ids, `[T, B]`: they have no features.
    Tokens,
    /// The `D` of `[T, B, D]`.
    Features(usize),
}

impl Size {
    /// The number of features, for a layer called `layer` that takes any.
    ///
    /// # Errors
    /// Returns an error if these are token ids.
    pub fn features(self, layer: &str) -> Result<usize, SizeError> {
        match self {
            Size::Features(features) => Ok(features),
            Size::Tokens => Err(SizeError::new(layer, "takes features, got token ids")),
        }
    }
}

impl From<usize> for Size {
    fn from(features: usize) -> Self {
        Size::Features(features)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Tokens => f.write_str("token ids"),
            Size::Features(features) => features.fmt(f),
        }
    }
}

/// The error of a layer that was given an input of a size it does not take.
///
/// Its text names the layer, with its place in the model, and both sizes: `head: Linear takes 5 features, got 4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeError {
    layer: String,
    reason: String,
}

impl SizeError {
    /// The error of `layer`, for `reason`.
    pub fn new(layer: impl Into<String>, reason: impl Into<String>) -> Self {
        SizeError { layer: layer.into(), reason: reason.into() }
    }

    /// The error of a `layer` that takes `takes` features and was given `got`.
    pub fn features(layer: &str, takes: usize, got: Size) -> Self {
        SizeError::new(layer, format!("takes {takes} features, got {got}"))
    }

    /// The same error, seen from the model that has the layer under the name `part`.
    pub fn inside(self, part: impl fmt::Display) -> Self {
        SizeError { layer: format!("{part}: {}", self.layer), ..self }
    }
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.layer, self.reason)
    }
}

impl std::error::Error for SizeError {}
