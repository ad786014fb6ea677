//! What a forward pass is for.

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training: dropout draws its masks from `seed`.
    Train {
        /// Another seed, another mask; the same seed, the same bits.
        seed: u64,
    },
    /// Evaluation, with a backward pass possible: dropout passes everything.
    Eval,
    /// Inference: as evaluation, and nothing is kept for a backward pass.
    Infer,
}
