//! The state of an sLSTM.

use ndarray::{Array, Dimension, Ix2};

use crate::kernels::Float;
use crate::parameters;
use crate::recurrence::StackState;

/// The state of an [`SlstmCell`](crate::recurrent::SlstmCell): its output, its memory, and the memory's normaliser and stabiliser.
///
/// The memory is `c e^m` and the sum of its weights `n e^m`. If n is 0, as in a new state, nothing is remembered.
///
/// For one cell it holds matrices. For a model of several layers and directions (`SlstmState<F, Ix3>`) it holds those of its cells
/// along a new first axis.
#[derive(Clone, Debug, PartialEq)]
pub struct SlstmState<F, D: Dimension = Ix2> {
    /// The output of the last step, `[B, H]`.
    pub h: Array<F, D>,
    /// The memory, `[B, H]`.
    pub c: Array<F, D>,
    /// The normaliser, `[B, H]`: the sum of the weights of all written values, never negative.
    pub n: Array<F, D>,
    /// The stabiliser, `[B, H]`: the logarithm of the scale of c and n.
    pub m: Array<F, D>,
}
parameters! { impl<F: Float, D: Dimension> Tensors<F> for SlstmState<F, D> { h, c, n, m } }

impl<F: Float, D: Dimension> StackState<F> for SlstmState<F, D> {
    type Stacked = SlstmState<F, D::Larger>;

    fn stack(&self, cells: usize) -> Self::Stacked {
        let SlstmState { h, c, n, m } = self;
        SlstmState { h: h.stack(cells), c: c.stack(cells), n: n.stack(cells), m: m.stack(cells) }
    }
}
