//! Errors that are values, and the one function through which a programming error panics.

use super::tensors::{Tensors, check_alike};
use crate::kernels::Float;
use std::fmt;

/// Sequence lengths that do not fit their batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LengthsError {
    /// One length per sequence is needed.
    Count {
        /// The number of lengths given.
        lengths: usize,
        /// The number of sequences in the batch.
        batch: usize,
    },
    /// A length is longer than the batch's time axis.
    OutOfRange {
        /// The sequence, counted from 0.
        sequence: usize,
        /// Its length.
        length: usize,
        /// The number of steps, T.
        steps: usize,
    },
}

impl fmt::Display for LengthsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LengthsError::Count { lengths, batch } => write!(f, "{lengths} lengths for a batch of {batch} sequences"),
            LengthsError::OutOfRange { sequence, length, steps } => {
                write!(f, "length {length} of sequence {sequence} is not in 0..={steps}")
            }
        }
    }
}

impl std::error::Error for LengthsError {}

/// Panics for a wrong shape; the message names the layer that found it, the argument, the expected shape and the actual one.
#[cold]
#[inline(never)]
#[track_caller]
pub(crate) fn mismatch(layer: &str, argument: &str, expected: &dyn fmt::Display, got: &dyn fmt::Display) -> ! {
    panic!("{layer}: {argument}: expected {expected}, got {got}")
}

/// Panics unless the two shapes are the same, with the wording of this crate's layers: for the state, the parameters
/// and any other argument that a layer must check.
///
/// # Panics
/// Panics if they differ, with `layer: argument: expected [..], got [..]`.
#[track_caller]
#[inline] // Only a few comparisons if the ranks are known; each pass makes several such checks.
pub fn check_shape(layer: &str, argument: &str, expected: &[usize], got: &[usize]) {
    let is_same = expected.len() == got.len() && expected.iter().zip(got).all(|(expected, got)| expected == got);
    if !is_same {
        mismatch(layer, argument, &format_args!("{expected:?}"), &format_args!("{got:?}"))
    }
}

/// As [`check_shape`], for an argument with an axis of B sequences that goes with an `x` of T steps and B sequences. If only the
/// number of sequences differs, the message names a likely cause.
#[track_caller]
pub(crate) fn check_batch(layer: &str, argument: &str, x: (usize, usize), expected: &[usize], got: &[usize]) {
    let (steps, batch) = x;
    let mut others = expected.iter().zip(got).filter(|(expected, got)| expected != got);
    let of_other_batch = expected.len() == got.len() && others.next().is_some_and(|(&expected, _)| expected == batch);
    if of_other_batch && others.next().is_none() {
        let got = format_args!(
            "{got:?}; x has T = {steps} steps of B = {batch} sequences: if its first axis counts the sequences, give the \
             layer `Sequence::batch_first(x)`"
        );
        mismatch(layer, argument, &format_args!("{expected:?}"), &got)
    }
    check_shape(layer, argument, expected, got);
}

/// Panics unless `grad` has the tensors of `layer`, called `name`: a gradient made before a bias or a scale was added
/// would otherwise silently not train it.
///
/// # Panics
/// Panics if they differ, with the tensor and both shapes.
#[track_caller]
pub fn check_gradient<F: Float>(name: &str, layer: &impl Tensors<F>, grad: &impl Tensors<F>) {
    check_alike(&format_args!("{name}: grad"), layer, grad);
}

/// Panics unless the batch has at least one step of at least one sequence, with at least one feature each.
#[track_caller]
pub(crate) fn check_not_empty(layer: &str, shape: &[usize]) {
    if shape.contains(&0) {
        mismatch(layer, "x", &"at least one step, one sequence and one feature", &format_args!("{shape:?}"))
    }
}

/// The error with the file's name in its text.
#[cfg(any(feature = "safetensors", feature = "onnx", feature = "plugin-formats", feature = "keras"))]
pub fn named(path: &std::path::Path, error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
