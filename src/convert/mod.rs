//! Weights of ONNX and Keras, and models of audio plug-ins: read and written by documented conversions.
//!
//! PyTorch's weights need no conversion: their names, shapes and gate orders are those of this crate; see [`io`](crate::io). With
//! the feature `keras`, `KerasFile` reads Keras' files; with `plugin-formats`, `nam` and `keras_json` read and write whole files.
//!
//! One [`OnnxNode`] or [`KerasLayer`] is one layer of a [`Recurrent`](crate::recurrent::Recurrent) model, in one direction or in
//! both; consecutive ones are its layers. [`from_onnx`](crate::recurrent::Recurrent::from_onnx),
//! [`to_onnx`](crate::recurrent::Recurrent::to_onnx), [`from_keras`](crate::recurrent::Recurrent::from_keras) and
//! [`to_keras`](crate::recurrent::Recurrent::to_keras) convert arrays.
//!
//! # Gates
//!
//! | | here and in PyTorch | ONNX | Keras |
//! | --- | --- | --- | --- |
//! | LSTM | i, f, g, o | i, o, f, c | i, f, c, o |
//! | its peepholes | i, f, o | i, o, f | |
//! | GRU | r, z, n | z, r, h | z, r, h |
//! | GRU, reset after the product | [`GruReset::AfterProduct`](crate::recurrent::GruReset) | `linear_before_reset=1` | `reset_after=True` |
//! | GRU, reset before the product | [`GruReset::BeforeProduct`](crate::recurrent::GruReset) | `linear_before_reset=0` | `reset_after=False` |
//! | activations | [`gate_activation`](crate::recurrent::CellBuilder::gate_activation), [`candidate_activation`](crate::recurrent::CellBuilder::candidate_activation), [`output_activation`](crate::recurrent::CellBuilder::output_activation) | `activations`: f, g, h | `recurrent_activation`, and `activation` for the other two |
//! | clipped sums | [`clip`](crate::recurrent::CellBuilder::clip) | `clip` | |
//! | LSTM, f = 1 - i | [`coupled`](crate::recurrent::CellBuilder::coupled): no weights for f | `input_forget=1`: weights of f without meaning | |
//!
//! # Shapes
//!
//! G is the number of gates, and D that of directions, forward first. Keras' weights are transposed; its batch comes first, see
//! [`Sequence::batch_first`](crate::Sequence::batch_first).
//!
//! | | here | ONNX | Keras |
//! | --- | --- | --- | --- |
//! | of x | `weight_ih` `[G H, I]` | `W` `[D, G H, I]` | `kernel` `[I, G H]` |
//! | of h | `weight_hh` `[G H, H]` | `R` `[D, G H, H]` | `recurrent_kernel` `[H, G H]` |
//! | biases | `bias_ih`, `bias_hh` `[G H]` | `B` `[D, 2 G H]`: both, one after the other | `bias` `[G H]`: their sum; with `reset_after` `[2, G H]` |
//! | peepholes | `peephole` `[3, H]` | `P` `[D, 3 H]` | |
//! | states | `[L D, B, H]` | `[D, B, H]` per node | `[B, H]` per layer and direction |
//! | outputs | `[T, B, D H]` | `[T, D, B, H]` | `[B, T, D H]` |
//!
//! # Directions
//!
//! ONNX' `direction=reverse` and Keras' `go_backwards=True` are a model of one direction with
//! [`x.reversed()`](crate::Sequence::reversed) as its input. Outputs stay at their steps, as in ONNX; Keras returns them in the
//! order in which the steps were taken.
//!
//! # What is lost
//!
//! A round trip from ONNX and back preserves every bit, except for the weights of f without meaning. So does one from Keras and
//! back. In a conversion to Keras, two biases become their sum, unless the reset gate acts after the product. Dropout is not part
//! of the weights. A [`ConvertError`] refuses options that the other system does not have, such as layer normalisation.

#[cfg(any(feature = "keras", feature = "plugin-formats"))]
mod file_error;
#[cfg(any(feature = "keras", feature = "plugin-formats"))]
mod json;
mod keras;
#[cfg(feature = "keras")]
mod keras_file;
mod onnx;
#[cfg(feature = "plugin-formats")]
mod plugin;

use std::fmt;

use ndarray::ArrayView2;

pub use crate::cells::{OnnxCell, OnnxNode, OnnxOperator};
#[cfg(any(feature = "keras", feature = "plugin-formats"))]
pub use file_error::FileError;
pub use keras::{KerasCell, KerasKind, KerasLayer, KerasWeights};
#[cfg(feature = "keras")]
pub use keras_file::{KerasDense, KerasFile};
#[cfg(feature = "plugin-formats")]
pub use plugin::{keras_json, nam};

use crate::base::Tensors;
use crate::cells::BuiltCell;
use crate::kernels::Float;
use crate::layers::Nonlinearity;

/// Why weights could not be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConvertError {
    /// There are no layers; a model has at least one.
    NoLayers,
    /// A layer of another kind than the model's cells.
    Kind {
        /// The layer, counted from 0.
        layer: usize,
        /// The kind of the model's cells there.
        expected: &'static str,
        /// The kind of the layer.
        got: &'static str,
    },
    /// A layer with another number of directions than the model.
    Directions {
        /// The layer, counted from 0.
        layer: usize,
        /// The model's number.
        expected: usize,
        /// The layer's number.
        got: usize,
    },
    /// A tensor of another shape.
    Shape {
        /// The layer, counted from 0.
        layer: usize,
        /// The tensor, as the other system calls it.
        tensor: &'static str,
        /// The shape that the other tensors require.
        expected: Vec<usize>,
        /// The shape that it has.
        got: Vec<usize>,
    },
    /// A tensor that layers of this kind do not have.
    Unexpected {
        /// The layer, counted from 0.
        layer: usize,
        /// The tensor, as the other system calls it.
        tensor: &'static str,
    },
    /// A number that is invalid, or becomes so in the element type.
    Number {
        /// The layer, counted from 0.
        layer: usize,
        /// What the number belongs to: `clip`, or a number of an activation.
        option: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// An option of the model that the other system does not have.
    Unsupported {
        /// The layer, counted from 0.
        layer: usize,
        /// The option, or the parameter that it brings.
        option: String,
    },
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConvertError::NoLayers => f.write_str("expected at least one layer, got none"),
            ConvertError::Kind { layer, expected, got } => write!(f, "layer {layer}: expected {expected}, got {got}"),
            ConvertError::Directions { layer, expected, got } => {
                write!(f, "layer {layer}: expected directions: {expected}, got {got}")
            }
            ConvertError::Shape { layer, tensor, expected, got } => {
                write!(f, "layer {layer}: {tensor}: expected {expected:?}, got {got:?}")
            }
            ConvertError::Number { layer, option, expected, got } => {
                write!(f, "layer {layer}: {option}: expected {expected}, got {got}")
            }
            ConvertError::Unexpected { layer, tensor } => write!(f, "layer {layer}: {tensor}: expected none"),
            ConvertError::Unsupported { layer, option } => {
                write!(f, "layer {layer}: {option} has no counterpart there")
            }
        }
    }
}

impl std::error::Error for ConvertError {}

type Elem<C> = <C as BuiltCell>::Elem;

/// The counterpart of a cell, or the error for an option without one.
fn supported<T>(layer: usize, counterpart: Result<T, impl Into<String>>) -> Result<T, ConvertError> {
    counterpart.map_err(|option| ConvertError::Unsupported { layer, option: option.into() })
}

fn check_array(layer: usize, tensor: &'static str, expected: &[usize], got: &[usize]) -> Result<(), ConvertError> {
    if expected == got && !got.contains(&0) {
        return Ok(());
    }
    // An empty tensor never fits, so the error expects at least one element.
    let expected = expected.iter().map(|&size| size.max(1)).collect();
    Err(ConvertError::Shape { layer, tensor, expected, got: got.to_vec() })
}

/// Checks the numbers of activations, and the clipping limit.
fn check_numbers<F: Float>(layer: usize, activations: &[Nonlinearity], clip: Option<f64>) -> Result<(), ConvertError> {
    let is_finite = |number: f64| number.is_finite() && F::of(number).is_finite();
    let refuse =
        |option, expected, number| Err(ConvertError::Number { layer, option, expected, got: format!("{number:?}") });
    for (name, number) in activations.iter().flat_map(|f| f.numbers()) {
        if !is_finite(number) {
            return refuse(name, "a finite number", number);
        }
    }
    match clip {
        Some(clip) if !is_finite(clip) || F::of(clip) <= F::zero() => refuse("clip", "a finite number above 0", clip),
        _ => Ok(()),
    }
}

/// Sets tensor `name` of a cell from gates in another order: the cell's `k`th gate is the `places[k]`th of them.
fn read<F: Float>(cell: &mut impl Tensors<F>, name: &str, gates: ArrayView2<'_, F>, places: &[usize]) {
    let i = (0..cell.count()).find(|&i| cell.name(i) == name).expect("a parameter of the cell");
    let own = cell.tensor_mut(i);
    let size = own.len() / places.len();
    for (own, &place) in own.chunks_exact_mut(size).zip(places) {
        own.iter_mut().zip(gates.row(place)).for_each(|(own, &value)| *own = value);
    }
}
