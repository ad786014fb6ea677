//! What can be cut into parts.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// What can be handed to several threads: rows of a matrix, elements, indices.
pub(crate) trait Split: Sized + Send {
    /// Of how many elements.
    fn count(&self) -> usize;
    /// The first `at`, and the others.
    fn split(self, at: usize) -> (Self, Self);
}

impl Split for Range<usize> {
    fn count(&self) -> usize {
        self.len()
    }
    fn split(self, at: usize) -> (Self, Self) {
        let middle = self.start + at;
        (self.start..middle, middle..self.end)
    }
}

impl<F: Sync> Split for &[F] {
    fn count(&self) -> usize {
        self.len()
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at(at)
    }
}

impl<F: Send> Split for &mut [F] {
    fn count(&self) -> usize {
        self.len()
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at_mut(at)
    }
}

impl<F: Sync> Split for ArrayView2<'_, F> {
    fn count(&self) -> usize {
        self.nrows()
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at(Axis(0), at)
    }
}

impl<F: Send> Split for ArrayViewMut2<'_, F> {
    fn count(&self) -> usize {
        self.nrows()
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at(Axis(0), at)
    }
}

/// Nothing, or something as long as what it goes along with.
impl<A: Split> Split for Option<A> {
    fn count(&self) -> usize {
        self.as_ref().map_or(0, A::count)
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.map(|whole| whole.split(at)).unzip()
    }
}

/// Two that are split at the same places.
impl<A: Split, B: Split> Split for (A, B) {
    fn count(&self) -> usize {
        self.0.count()
    }
    fn split(self, at: usize) -> (Self, Self) {
        let ((a, other_a), (b, other_b)) = (self.0.split(at), self.1.split(at));
        ((a, b), (other_a, other_b))
    }
}
