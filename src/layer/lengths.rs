//! How far each sequence of a batch reaches.

use std::ops::Range;

use crate::base::LengthsError;

/// The lengths of a batch's sequences, if they were given: those of the whole sequences, also in a chunk of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lengths<'a> {
    of_all: Option<&'a [usize]>, // [B]
    /// The steps before the first step here.
    passed: usize,
}

impl<'a> Lengths<'a> {
    /// One length for each of `batch` sequences of at most `steps` steps.
    pub fn new(lengths: &'a [usize], steps: usize, batch: usize) -> Result<Self, LengthsError> {
        if lengths.len() != batch {
            return Err(LengthsError::Count { lengths: lengths.len(), batch });
        }
        match lengths.iter().position(|length| !(1..=steps).contains(length)) {
            Some(sequence) => Err(LengthsError::OutOfRange { sequence, length: lengths[sequence], steps }),
            None => Ok(Lengths { of_all: Some(lengths), passed: 0 }),
        }
    }

    /// Those of the steps from `first` on.
    pub fn after_steps(self, first: usize) -> Self {
        Lengths { passed: self.passed + first, ..self }
    }

    /// Those of the sequences `range`.
    pub fn of_sequences(self, range: Range<usize>) -> Self {
        Lengths { of_all: self.of_all.map(|lengths| &lengths[range]), ..self }
    }

    /// Whether lengths were given.
    #[inline]
    pub fn are_given(&self) -> bool {
        self.of_all.is_some()
    }

    /// The length of sequence `b`, of which `steps` steps are here.
    #[inline]
    pub fn of(&self, b: usize, steps: usize) -> usize {
        self.of_all.map_or(steps, |lengths| lengths[b].saturating_sub(self.passed).min(steps))
    }
}
