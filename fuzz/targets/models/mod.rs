//! Random models of all public layers, over random batches: whatever ways there are to compute the same numbers agree.

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

/// What became of an input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// A model was run.
    pub models: u64,
    /// Sizes that are refused, and were.
    pub refused: u64,
    /// Finite differences that were compared with a gradient.
    pub differences: u64,
    /// Finite differences that disagree with themselves at two step sizes: there is a kink between.
    pub kinks: u64,
    /// Models in which a normalisation holds back a gradient in `f32` and not in `f64`.
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
    // What is wrong can be read from the message alone.
    match panic_of(|| compare::all(&spec, &batch, choices)) {
        Ok(report) => report,
        Err(message) => panic!("{message}\n{spec:#?}\n{batch:?}"),
    }
}

/// What the model that `data` describes computes in `f64`, if it is not refused: for comparisons between processes.
pub fn outcome(data: &[u8]) -> Option<Outcome> {
    let choices = &mut Choices::new(data);
    let batch = batch::Shape::choose(choices);
    let spec = Spec::choose(choices, batch.input());
    let batch = batch::Batch::choose(choices, batch, &spec);
    (!batch.is_empty() && spec.root.takes(batch.shape.steps)).then(|| compare::reference(&spec, &batch))
}

/// The largest difference that rounding explains between what two processes compute for `data`.
pub fn assert_agrees(data: &[u8], got: &Outcome, want: &Outcome) {
    let choices = &mut Choices::new(data);
    let batch = batch::Shape::choose(choices);
    let spec = Spec::choose(choices, batch.input());
    let batch = batch::Batch::choose(choices, batch, &spec);
    compare::Judge::of(&spec, &batch, want).near("another instruction set", got);
}
