//! Random models of all public layers, over random batches: all ways to compute the same numbers agree.

mod assume;
mod attend;
mod batch;
mod build;
mod compare;
mod outcome;

pub use outcome::Outcome;

use crate::targets::choices::Choices;
use crate::targets::panic_of;
use build::Spec;

/// The result for an input, or the sum over several.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Models that were run.
    pub models: u64,
    /// Sizes that should be refused, and were.
    pub refused: u64,
    /// Finite differences that were compared with a gradient.
    pub differences: u64,
    /// Finite differences that disagree with themselves at two step sizes, because of a kink.
    pub kinks: u64,
    /// Models in which a normalisation suppresses a gradient in `f32` and not in `f64`.
    pub held_back: u64,
}

pub fn run(data: &[u8]) {
    check(data);
}

/// Runs all comparisons for the model and the batch that `data` describes.
pub fn check(data: &[u8]) -> Report {
    let choices = &mut Choices::new(data);
    let batch = batch::Shape::choose(choices);
    let spec = Spec::choose(choices, batch.input());
    let batch = batch::Batch::choose(choices, batch, &spec);
    if batch.is_empty() || !spec.root.takes(batch.shape.steps) {
        let refused = panic_of(|| compare::reference(&spec, &batch));
        let Err(message) = refused else { panic!("accepted: {spec:#?}\n{batch:?}") };
        assert!(["expected", "takes"].iter().any(|word| message.contains(word)), "{message}\n{spec:#?}\n{batch:?}");
        return Report { refused: 1, ..Report::default() };
    }
    // The message alone must show what is wrong.
    match panic_of(|| compare::all(&spec, &batch, choices)) {
        Ok(report) => report,
        Err(message) => panic!("{message}\n{spec:#?}\n{batch:?}"),
    }
}

/// The outcome in `f64` of the model that `data` describes, if it is not refused: for comparisons between processes.
pub fn outcome(data: &[u8]) -> Option<Outcome> {
    let choices = &mut Choices::new(data);
    let batch = batch::Shape::choose(choices);
    let spec = Spec::choose(choices, batch.input());
    let batch = batch::Batch::choose(choices, batch, &spec);
    (!batch.is_empty() && spec.root.takes(batch.shape.steps)).then(|| compare::reference(&spec, &batch))
}

/// Panics unless rounding explains the difference between the outcomes of two processes for `data`.
pub fn assert_agrees(data: &[u8], got: &Outcome, want: &Outcome) {
    let choices = &mut Choices::new(data);
    let batch = batch::Shape::choose(choices);
    let spec = Spec::choose(choices, batch.input());
    let batch = batch::Batch::choose(choices, batch, &spec);
    compare::Judge::of(&spec, &batch, want).near("another instruction set", got);
}
