//! What training minimises: a number, and its gradient by the model's output.

mod cross_entropy;
mod mean_squared;

pub use cross_entropy::SoftmaxCrossEntropy;
pub use mean_squared::MeanSquaredError;

/// How the losses of all positions become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean over the positions that count; 0 where none does.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// What each of `count` positions' losses is multiplied by.
    fn weight(self, count: usize) -> f64 {
        match self {
            Reduction::Mean => 1.0 / count.max(1) as f64,
            Reduction::Sum => 1.0,
        }
    }
}

/// Panics unless the lengths, where given, are one for each sequence and within the steps.
#[track_caller]
fn check_lengths(loss: &str, lengths: Option<&[usize]>, (steps, batch): (usize, usize)) {
    let Some(lengths) = lengths else { return };
    if lengths.len() != batch || lengths.iter().any(|&length| length > steps) {
        let expected = format_args!("{batch} lengths of at most {steps}");
        crate::error::mismatch(loss, "lengths", &expected, &format_args!("{lengths:?}"))
    }
}
