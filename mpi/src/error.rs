//! Errors, with the rank on which they happened.

use std::fmt;

/// An error of one rank. It is sent to all ranks, which return the same error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankError {
    /// The rank on which it happened; the lowest if there are several.
    pub rank: usize,
    /// What went wrong.
    pub reason: String,
}

impl fmt::Display for RankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}: {}", self.rank, self.reason)
    }
}

impl std::error::Error for RankError {}
