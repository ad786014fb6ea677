//! Values that can be cut into parts.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// A value that can be divided among several threads: rows of a matrix, elements, indices.
pub(crate) trait Split: Sized + Send {
    /// The number of elements.
    fn count(&self) -> usize;
    /// The first `at` elements, and the rest.
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

/// `None`, or a value as long as the one that it is split together with.
impl<A: Split> Split for Option<A> {
    fn count(&self) -> usize {
        self.as_ref().map_or(0, A::count)
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.map(|whole| whole.split(at)).unzip()
    }
}

/// Two values that are split at the same places.
impl<A: Split, B: Split> Split for (A, B) {
    fn count(&self) -> usize {
        self.0.count()
    }
    fn split(self, at: usize) -> (Self, Self) {
        let ((a, other_a), (b, other_b)) = (self.0.split(at), self.1.split(at));
        ((a, b), (other_a, other_b))
    }
}
