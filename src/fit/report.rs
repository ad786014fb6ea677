//! What a training tells while it runs.

use std::ops::ControlFlow;

use super::history::History;

/// A training step that was taken.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// The steps taken so far, this one included.
    pub steps: u64,
    /// The epochs that ended before it.
    pub epoch: usize,
    /// The loss of its batch, before the step.
    pub loss: f64,
    /// The norm of the gradient, before clipping.
    pub norm: f64,
    /// What clipping multiplied the gradient by: 1 if nothing was clipped.
    pub scale: f64,
    /// The learning rate.
    pub learning_rate: f64,
}

/// What [`Fit::run`](super::Fit::run) tells, and asks whether to go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report<'a, L> {
    /// A step was taken.
    Step(&'a Step),
    /// An epoch has ended, and the checkpoint is saved.
    Epoch {
        /// All epochs so far; as text, the last one in a line.
        history: &'a History,
        /// The model after it: not the best one, but the last; with an [average](super::Fit::average), with the average.
        model: &'a L,
    },
}

/// A report that says nothing: `run(…, fit::quiet)`.
pub fn quiet<L>(_: Report<'_, L>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A report that prints a line an epoch on standard output: `run(…, fit::print)`.
///
/// ```text
/// epoch   1  step    120  training 0.6931    validation 0.6420    learning rate 1.0e-3  best
/// ```
pub fn print<L>(report: Report<'_, L>) -> ControlFlow<()> {
    if let Report::Epoch { history, .. } = report {
        println!("{history}");
    }
    ControlFlow::Continue(())
}
