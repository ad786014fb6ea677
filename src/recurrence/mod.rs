//! Recurrence without a cell in it: what a cell is, and the loop over time, forward and back, for every cell.

mod cell;
mod history;
mod part;
mod rows;
#[cfg(feature = "rayon")]
mod shards;
pub(crate) mod time_loop;
mod zoneout;

pub use cell::{
    AllSteps, Cell, CellSizes, CellStep, CellStepBackward, LstmState, RecurrentState, StateParts, StepRecorder,
    Unrolled,
};
pub use time_loop::CellCache;
pub use zoneout::Zoneout;
