//! Recurrent cells: one file each, with equations, forward and backward in that order.
//!
//! All three share a shape. The input's part of every gate, for all steps at once, is one large product; then, step
//! by step, the hidden state's part is added and the gates act. Backward the same in reverse: step by step the gates'
//! gradients, then the parameters' as large products over all steps. Only the gates differ from cell to cell.

/// A cache with a recorder can be probed.
macro_rules! records_state {
    ($cache:ident) => {
        impl<F: Float> crate::RecordsState for $cache<F> {
            fn recorder(&mut self) -> &mut StateRecorder {
                &mut self.recorder
            }
        }
    };
}

mod builder;
mod gru;
mod history;
mod lstm;
mod rnn;

use std::ops::Range;

use ndarray::{Array1, Array2};

pub use builder::{CellBuilder, Gated};
pub use gru::{GruCache, GruCell};
pub use lstm::{LstmCache, LstmCell, LstmState};
pub use rnn::{RnnCache, RnnCell, RnnNonlinearity};

use crate::cache::reuse;
use crate::error::check_shape;
use crate::{Float, Size, SizeError};

/// The sequences that the rows `run` of one step belong to: rows of a state, `[B, H]`.
fn sequences(run: &Range<usize>, batch: usize) -> Range<usize> {
    let first = run.start % batch;
    first..first + run.len()
}

/// `(I, H)` of a cell of `gates` gates whose h has `output` features (H where nothing projects it); panics where its
/// parameters do not fit each other.
#[track_caller]
fn cell_sizes<F: Float>(
    cell: &str,
    gates: usize,
    output: Option<usize>,
    [weight_ih, weight_hh]: [&Array2<F>; 2],
    biases: [&Option<Array1<F>>; 2],
) -> (usize, usize) {
    let (input, hidden) = (weight_ih.ncols(), weight_hh.nrows() / gates);
    check_shape(cell, "weight_hh", &[gates * hidden, output.unwrap_or(hidden)], weight_hh.shape());
    check_shape(cell, "weight_ih", &[gates * hidden, input], weight_ih.shape());
    for (name, bias) in ["bias_ih", "bias_hh"].into_iter().zip(biases) {
        if let Some(bias) = bias {
            check_shape(cell, name, &[gates * hidden], bias.shape());
        }
    }
    (input, hidden)
}

/// The output size of a cell that takes `takes` features and gives `output`.
fn cell_output_size(cell: &str, takes: usize, output: usize, input: Size) -> Result<usize, SizeError> {
    if input == Size::Features(takes) { Ok(output) } else { Err(SizeError::features(cell, takes, input)) }
}

/// Where a backward pass starts: the gradient of the final state is `dstate`, or zero.
fn final_gradient<F: Float>(dh: &mut Array2<F>, shape: (usize, usize), dstate: Option<&Array2<F>>) {
    reuse(dh, shape);
    match dstate {
        Some(dstate) => dh.assign(dstate),
        None => dh.fill(F::zero()),
    }
}
