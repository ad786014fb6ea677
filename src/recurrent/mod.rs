//! Recurrence: what a cell is, the loop over time for every cell, and what is built on it.

mod batch_state;
mod cell;
mod history;
mod learned_state;
mod part;
mod rows;
#[cfg(feature = "rayon")]
mod shards;
mod stack;
mod time_loop;
mod truncated;
mod zoneout;

pub use cell::{
    AllSteps, Cell, CellSizes, CellStep, CellStepBackward, LstmState, RecurrentState, StateParts, StepRecorder,
    Unrolled,
};
pub use learned_state::{LearnedState, LearnedStateCache, StartedState};
pub use stack::{BiGru, BiLstm, BiRnn, Gru, Lstm, Recurrent, RecurrentCache, Rnn};
pub use time_loop::CellCache;
pub use truncated::{TruncatedBptt, TruncatedBpttCache};
pub use zoneout::Zoneout;
