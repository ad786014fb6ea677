//! Recurrent cells: one file each, with equations, forward and backward in that order.
//!
//! All three share a shape. What comes from x, for all steps at once, is one large product; then, step by step, what
//! comes from h is added and the gates act. Backward the same in reverse: step by step the gates' gradients, then the
//! parameters' as large products over all steps. `products` has those; only the gates differ from cell to cell. The loop
//! over time is in `recurrent`.

mod builder;
mod derivatives;
mod gru;
mod lstm;
mod products;
mod rnn;
mod units;

use ndarray::{Array, Array1, Array2, ArrayView2, ArrayViewMut2, Dimension};

pub(crate) use builder::Model;
pub use builder::{BuiltCell, CellBuilder, Gated};
pub use gru::{GruBuffers, GruCell, GruReset};
pub use lstm::{LstmBuffers, LstmCell};
pub use rnn::{RnnBuffers, RnnCell, RnnNonlinearity};

use crate::base::{Tensors, check_shape};
use crate::kernels::Float;

/// `(I, H)` of a cell of `gates` gates whose h has `output` features (H where nothing projects it); panics where its
/// parameters do not fit each other. `per_gate`: biases, and gains of the normalisation.
#[track_caller]
fn cell_sizes<F: Float>(
    cell: &str,
    gates: usize,
    output: Option<usize>,
    [weight_ih, weight_hh]: [&Array2<F>; 2],
    per_gate: [&Option<Array1<F>>; 4],
) -> (usize, usize) {
    let (input, hidden) = (weight_ih.ncols(), weight_hh.nrows() / gates);
    check_shape(cell, "weight_hh", &[gates * hidden, output.unwrap_or(hidden)], weight_hh.shape());
    check_shape(cell, "weight_ih", &[gates * hidden, input], weight_ih.shape());
    for (name, values) in ["bias_ih", "bias_hh", "norm_ih", "norm_hh"].into_iter().zip(per_gate) {
        if let Some(values) = values {
            check_shape(cell, name, &[gates * hidden], values.shape());
        }
    }
    (input, hidden)
}

/// A step's rows, one after the other.
fn flat<'a, F>(rows: ArrayView2<'a, F>) -> &'a [F] {
    rows.to_slice().expect("rows side by side")
}

/// A step's rows, one after the other.
fn flat_mut<'a, F>(rows: ArrayViewMut2<'a, F>) -> &'a mut [F] {
    rows.into_slice().expect("rows side by side")
}

/// The values of a parameter, where there is one.
fn values<F: Float, D: Dimension>(tensor: &Option<Array<F, D>>) -> Option<&[F]> {
    tensor.as_ref().map(|tensor| tensor.tensor(0).1)
}

/// The values of a parameter, where there is one.
fn values_mut<F: Float, D: Dimension>(tensor: &mut Option<Array<F, D>>) -> Option<&mut [F]> {
    tensor.as_mut().map(|tensor| tensor.tensor_mut(0))
}
