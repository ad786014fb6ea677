//! Reports of a running training.

use std::ops::ControlFlow;

use super::history::History;

/// A training step that was taken.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// The steps taken so far, including this one.
    pub steps: u64,
    /// The epochs that ended before it.
    pub epoch: usize,
    /// The loss of its batch, before the step.
    pub loss: f64,
    /// The norm of the gradient, before clipping.
    pub norm: f64,
    /// The factor by which clipping multiplied the gradient: 1 if nothing was clipped.
    pub scale: f64,
    /// The learning rate.
    pub learning_rate: f64,
}

/// A report of [`Fit::run`](super::Fit::run), which asks whether to continue.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report<'a, L> {
    /// A step was taken.
    Step(&'a Step),
    /// An epoch has ended, and the checkpoint is saved.
    Epoch {
        /// All epochs so far; its text is the last one in one line.
        history: &'a History,
        /// The model after the epoch: the last one, not the best; with an [average](super::Fit::average), it has the average.
        model: &'a L,
    },
}

/// A report that does nothing: `run(…, fit::quiet)`.
pub fn quiet<L>(_: Report<'_, L>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A report that prints a line per epoch on standard output: `run(…, fit::print)`.
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
