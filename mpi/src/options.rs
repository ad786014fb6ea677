//! How ranks work together.

use std::time::Duration;

/// How the ranks' partial gradients become the gradient of the whole batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduction {
    /// Along the [tree of shards](crate#the-tree-of-shards). The tree is the same for any number of ranks, and so are the bits. The
    /// number of ranks must be a power of two.
    #[default]
    Tree,
    /// By `MPI_Iallreduce`, in an order that the MPI library chooses. It takes any number of ranks, but the last bits depend on that
    /// number.
    AllReduce,
}

/// How a gradient's elements are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wire {
    /// As they are.
    #[default]
    Exact,
    /// Rounded to bfloat16: half the bytes of `f32`, a quarter of `f64`. Only with [`Reduction::Tree`].
    ///
    /// The operands of each sum of the tree and the result are rounded even if no message is sent, so the bits still do not depend on
    /// the number of ranks. With 2ᵏ shards the error of an element of the mean is at most
    ///
    /// ```text
    /// |error| ≤ ((1 + u)^(k + 1) - 1) Σ_s w_s |g_s| / Σ_s w_s        u = 2⁻⁸, a half unit in the last place
    /// ```
    ///
    /// plus the rounding of the sums in the element type itself; with 8 shards, 1.6 % of the mean magnitude.
    Bf16,
}

/// How ranks work together. Every rank must be given the same options.
///
/// ```
/// use std::time::Duration;
/// use gradflow_mpi::{Options, Reduction};
///
/// let options = Options::new().shards(16).patience(Duration::from_secs(60));
/// assert_eq!(options, Options::new().patience(Duration::from_secs(60)).shards(16).reduction(Reduction::Tree));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) shards: usize,
    pub(crate) reduction: Reduction,
    pub(crate) wire: Wire,
    pub(crate) patience: Duration,
    pub(crate) whole_up_to: usize,
}

impl Options {
    /// 8 shards, summed along the tree with exact elements, and a patience of 5 minutes.
    #[must_use]
    pub fn new() -> Self {
        Options {
            shards: 8,
            reduction: Reduction::Tree,
            wire: Wire::Exact,
            patience: Duration::from_secs(300),
            whole_up_to: 1 << 14,
        }
    }

    /// Sets the number of shards that every batch is cut into: a power of two, and at least the number of ranks. It decides the bits of
    /// a training, together with what each shard computes; the number of ranks does not.
    ///
    /// Each shard is a separate pass, so more shards than ranks mean smaller matrix products.
    ///
    /// # Panics
    /// Panics if `shards` is not a power of two.
    #[must_use]
    #[track_caller]
    pub fn shards(self, shards: usize) -> Self {
        assert!(shards.is_power_of_two(), "Options: shards: expected a power of two, got {shards}");
        Options { shards, ..self }
    }

    /// The number of shards of a batch.
    #[must_use]
    pub fn shards_of_a_batch(&self) -> usize {
        self.shards
    }

    /// Sets how gradients are summed.
    #[must_use]
    pub fn reduction(self, reduction: Reduction) -> Self {
        Options { reduction, ..self }
    }

    /// Sets how gradients are sent.
    #[must_use]
    pub fn wire(self, wire: Wire) -> Self {
        Options { wire, ..self }
    }

    /// Sets how long a rank waits for another one that sends nothing before all ranks end with an error. It must exceed the time that
    /// any rank computes alone: a shard's pass, and whatever one rank does while the others wait for it.
    ///
    /// # Panics
    /// Panics if it is zero.
    #[must_use]
    #[track_caller]
    pub fn patience(self, patience: Duration) -> Self {
        assert!(!patience.is_zero(), "Options: patience: expected a time above zero, got {patience:?}");
        Options { patience, ..self }
    }

    /// Sets up to how many bytes a gradient is exchanged whole (fewest messages); larger ones are exchanged by halves (fewest bytes).
    /// The default is 16 KiB. It changes no bit.
    #[must_use]
    pub fn whole_up_to(self, bytes: usize) -> Self {
        Options { whole_up_to: bytes, ..self }
    }

    /// The reason why this many ranks cannot work with these options.
    pub(crate) fn misfit(&self, ranks: usize) -> Option<String> {
        let Options { shards, reduction, wire, .. } = self;
        match reduction {
            Reduction::Tree if !ranks.is_power_of_two() => {
                Some(format!("ranks: expected a power of two (or Reduction::AllReduce), got {ranks}"))
            }
            Reduction::AllReduce if *wire == Wire::Bf16 => {
                Some("wire: Wire::Bf16 needs Reduction::Tree: MPI adds up no bfloat16".into())
            }
            _ if ranks > *shards => {
                Some(format!("ranks: expected at most the {shards} shards of a batch, got {ranks}"))
            }
            _ => None,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_ranks_that_do_not_fit_are_refused() {
        let tree = Options::new().shards(4);
        assert!([1, 2, 4].iter().all(|&ranks| tree.misfit(ranks).is_none()));
        assert!(tree.misfit(3).unwrap().contains("power of two") && tree.misfit(8).unwrap().contains("4 shards"));
        let any = tree.reduction(Reduction::AllReduce);
        assert!([1, 2, 3, 4].iter().all(|&ranks| any.misfit(ranks).is_none()) && any.misfit(5).is_some());
        assert!(any.wire(Wire::Bf16).misfit(2).unwrap().contains("Reduction::Tree"));
    }

    #[test]
    #[should_panic(expected = "Options: shards: expected a power of two, got 6")]
    fn shards_are_a_power_of_two() {
        let _ = Options::new().shards(6);
    }
}
