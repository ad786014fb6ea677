//! Recurrent cells, each in a folder: equations in `equations.rs`, the cell and its documentation in `mod.rs`.
//!
//! The part of the sums that comes from x is one large product for all steps (`inputs`). Then, step by step, the part that comes
//! from h is added (`hidden`) and the gates act on each unit (`units`). The backward pass does the same in reverse: the gates'
//! gradients step by step, then the parameters' gradients as large products over all steps. Only the equations differ from cell to
//! cell. The loop over time is in `recurrence`. A stream of one sequence has its own kernels (`stage`).

mod activations;
mod builder;
mod gru;
mod heads;
mod hidden;
mod inputs;
mod lstm;
mod mgu;
mod min_gru;
mod min_lstm;
mod normal;
pub(crate) mod onnx;
mod operand;
mod options;
mod rnn;
mod slstm;
mod stage;
mod units;
mod weights;

pub(crate) use builder::Model;
pub use builder::{BuiltCell, CellBuilder};
pub use gru::{GruBuffers, GruCell, GruOptions, GruReset};
pub use lstm::{LstmBuffers, LstmCell, LstmOptions};
pub use mgu::{MguBuffers, MguCell, MguOptions};
pub use min_gru::{MinGruBuffers, MinGruCell, MinGruOptions};
pub use min_lstm::{MinLstmBuffers, MinLstmCell, MinLstmOptions};
pub use onnx::{OnnxCell, OnnxNode, OnnxOperator};
pub use options::{Activated, CellOptions, CommonOptions, Gated, GatedActivations, HiddenZoneout, RecurrentProduct};
pub use rnn::{RnnBuffers, RnnCell, RnnOptions};
pub use slstm::{SlstmBuffers, SlstmCell, SlstmOptions, SlstmState};

use crate::kernels::Float;
use crate::layer::display_summary;

display_summary! {
    GruCell<F: Float>,
    LstmCell<F: Float>,
    MguCell<F: Float>,
    MinGruCell<F: Float>,
    MinLstmCell<F: Float>,
    RnnCell<F: Float>,
    SlstmCell<F: Float>,
}
