//! Optimizers, with PyTorch's exact semantics.

mod accumulate;
mod adagrad;
mod adam;
mod average;
mod core;
mod groups;
mod nadam;
mod optimizer;
mod plateau;
mod rms_prop;
mod schedule;
mod sgd;
mod state;

pub use accumulate::GradAccumulator;
pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use average::{Averaged, NonFiniteWeight, WeightAverage};
pub use groups::{Group, ParameterGroups, Select};
pub use nadam::NAdam;
pub use optimizer::Optimizer;
pub use plateau::ReduceLrOnPlateau;
pub use rms_prop::RmsProp;
pub use schedule::{Schedule, ScheduleError};
pub use sgd::Sgd;
pub use state::{OptimizerState, OptimizerStateError};
