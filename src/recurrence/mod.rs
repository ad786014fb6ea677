//! The trait of recurrent cells, and the loop over time, forward and backward, that all cells share.

mod cache;
mod cell;
mod cell_layer;
mod history;
mod schedule;
#[cfg(feature = "rayon")]
mod shards;
mod state;
mod step;
mod track;
mod zoneout;

pub use cell::{Cell, CellCache};
pub(crate) use cell::{backward, forward};
pub(crate) use cell_layer::compiled_loop;
pub use state::{LstmState, StackState};
pub(crate) use state::{StateViewMut, fits, refuse_state};
pub use step::{AllSteps, CellSizes, CellStep, CellStepBackward, StepRecorder, Unrolled};
pub use zoneout::Zoneout;
