//! Which positions of a batch are valid: those within their sequence's length.

use std::ops::Range;

use ndarray::ArrayRef3;

use super::sequence::Sequence;
use crate::base::LengthsError;
use crate::kernels::Float;

impl<'a, F: Float> Sequence<'a, F> {
    /// The same batch with one length per sequence, in any order.
    ///
    /// # Errors
    /// Where their number is not `B`, or a length is 0 or above `T`.
    pub fn with_lengths(self, lengths: &'a [usize]) -> Result<Self, LengthsError> {
        let (steps, batch) = self.dims();
        if lengths.len() != batch {
            return Err(LengthsError::Count { lengths: lengths.len(), batch });
        }
        match lengths.iter().position(|length| !(1..=steps).contains(length)) {
            Some(sequence) => Err(LengthsError::OutOfRange { sequence, length: lengths[sequence], steps }),
            None => Ok(Sequence { lengths: Some(lengths), lengths_start: self.start, ..self }),
        }
    }

    /// Whether lengths were given.
    #[inline]
    pub fn has_lengths(&self) -> bool {
        self.lengths.is_some()
    }

    /// The length of sequence `b`: `T` where no lengths were given.
    #[inline]
    pub fn length(&self, b: usize) -> usize {
        let (steps, passed) = (self.dims().0, self.start - self.lengths_start);
        self.lengths.map_or(steps, |lengths| lengths[b].saturating_sub(passed).min(steps))
    }

    /// Whether sequence `b` reaches step `t`.
    #[inline]
    pub fn valid(&self, t: usize, b: usize) -> bool {
        t < self.length(b)
    }

    /// The number of valid positions: the sum of the lengths.
    pub fn valid_count(&self) -> usize {
        (0..self.dims().1).map(|b| self.length(b)).sum()
    }

    /// Step `t`'s valid rows, as ranges of the `T * B` rows counted together: row `t * B + b` is step `t` of
    /// sequence `b`.
    pub fn step_runs(&self, t: usize) -> impl Iterator<Item = Range<usize>> + use<'a, F> {
        let batch = self.dims().1;
        let this = *self;
        let mut b = 0;
        std::iter::from_fn(move || {
            let start = (b..batch).find(|&b| this.valid(t, b))?;
            b = (start..batch).find(|&b| !this.valid(t, b)).unwrap_or(batch);
            Some(t * batch + start..t * batch + b)
        })
    }

    /// All valid rows of the `T * B`, in as few ranges as there are: what a feed-forward layer works on.
    ///
    /// ```
    /// # use gradflow::{Sequence, ndarray::Array3};
    /// let x = Array3::<f32>::zeros((4, 3, 1));
    /// let x = Sequence::from(&x).with_lengths(&[4, 1, 2])?;
    /// assert_eq!(x.runs().collect::<Vec<_>>(), [0..4, 5..7, 9..10]);
    /// # Ok::<(), gradflow::LengthsError>(())
    /// ```
    pub fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<'a, F> {
        let (steps, batch) = self.dims();
        let this = *self;
        let full = (0..batch).map(|b| self.length(b)).min().unwrap_or(0);
        let mut pieces = std::iter::once(0..full * batch)
            .chain((full..steps).flat_map(move |t| this.step_runs(t)))
            .filter(|run| !run.is_empty());
        let mut pending = pieces.next();
        std::iter::from_fn(move || {
            let mut run = pending.take()?;
            for next in pieces.by_ref() {
                if next.start != run.end {
                    pending = Some(next);
                    break;
                }
                run.end = next.end;
            }
            Some(run)
        })
    }

    /// Zeroes what lies past the lengths in a buffer of `[T, B, any]`.
    pub fn zero_padding(&self, values: &mut ArrayRef3<F>) {
        if !self.has_lengths() {
            return;
        }
        for (t, mut step) in values.outer_iter_mut().enumerate() {
            for (b, mut row) in step.outer_iter_mut().enumerate() {
                if !self.valid(t, b) {
                    row.fill(F::zero());
                }
            }
        }
    }
}
