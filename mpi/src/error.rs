//! What went wrong, and on which rank.

use std::fmt;

/// An error of one rank, as all ranks are told it: those that are told return the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankError {
    /// The rank on which it happened; of several, the lowest.
    pub rank: usize,
    /// What happened there.
    pub reason: String,
}

impl fmt::Display for RankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}: {}", self.rank, self.reason)
    }
}

impl std::error::Error for RankError {}
