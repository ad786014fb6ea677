//! The purpose of a forward pass.

/// The purpose of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training: dropout draws its masks from `seed`.
    Train {
        /// Different seeds give different masks; the same seed gives the same bits.
        seed: u64,
    },
    /// Evaluation: dropout passes everything, and a backward pass is possible.
    Eval,
    /// Inference: as evaluation, but nothing is kept for a backward pass.
    Infer,
}
