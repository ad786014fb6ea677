//! Which positions of a batch are valid, and where its sequences start anew.

use std::ops::Range;

use ndarray::{ArrayView2, s};

use crate::base::LengthsError;

/// What is known of a batch's positions beside their values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Positions<'a> {
    lengths: Option<Whole<&'a [usize]>>,         // [B]
    mask: Option<ArrayView2<'a, bool>>,          // [T, B]: which are valid
    resets: Option<Whole<ArrayView2<'a, bool>>>, // [T, B]: where a piece starts
    /// If states have a row for each piece: the steps of the whole sequences whose pieces are counted.
    counted: Option<(usize, usize)>,
}

/// What was given of whole sequences, of which the steps here may be a chunk.
#[derive(Clone, Copy, Debug)]
struct Whole<T> {
    given: T,
    /// The steps before the first step here.
    passed: usize,
}

impl<T> Whole<T> {
    fn after_steps(self, first: usize) -> Self {
        Whole { passed: self.passed + first, ..self }
    }

    fn map<U>(self, of: impl FnOnce(T) -> U) -> Whole<U> {
        Whole { given: of(self.given), passed: self.passed }
    }
}

impl<'a> Positions<'a> {
    /// With one length for each of `batch` sequences of at most `steps` steps.
    pub fn with_lengths(self, lengths: &'a [usize], steps: usize, batch: usize) -> Result<Self, LengthsError> {
        if lengths.len() != batch {
            return Err(LengthsError::Count { lengths: lengths.len(), batch });
        }
        match lengths.iter().position(|&length| length > steps) {
            Some(sequence) => Err(LengthsError::OutOfRange { sequence, length: lengths[sequence], steps }),
            None => Ok(Positions { lengths: Some(Whole { given: lengths, passed: 0 }), ..self }),
        }
    }

    pub fn with_mask(self, mask: ArrayView2<'a, bool>) -> Self {
        Positions { mask: Some(mask), ..self }
    }

    pub fn with_resets(self, resets: ArrayView2<'a, bool>) -> Self {
        Positions { resets: Some(Whole { given: resets, passed: 0 }), ..self }
    }

    /// With states that have a row for each piece of the `steps` steps from here.
    pub fn with_piece_states(self, steps: usize) -> Self {
        let first = self.resets.map_or(0, |resets| resets.passed);
        Positions { counted: Some((first, first + steps)), ..self }
    }

    /// The same, borrowed for a shorter time. (A view is invariant.)
    pub fn reborrow<'s>(self) -> Positions<'s>
    where
        'a: 's,
    {
        let mask = self.mask.map(|mask| mask.reborrow());
        let resets = self.resets.map(|resets| resets.map(|resets| resets.reborrow()));
        Positions { lengths: self.lengths, mask, resets, counted: self.counted }
    }

    /// Those of the steps `range`.
    pub fn of_steps(self, range: Range<usize>) -> Self {
        let first = range.start;
        Positions {
            lengths: self.lengths.map(|lengths| lengths.after_steps(first)),
            mask: self.mask.map(|mask| mask.slice_move(s![range, ..])),
            resets: self.resets.map(|resets| resets.after_steps(first)),
            ..self
        }
    }

    /// Those of the sequences `range`.
    pub fn of_sequences(self, range: Range<usize>) -> Self {
        let part = |marks: ArrayView2<'a, bool>| marks.slice_move(s![.., range.clone()]);
        Positions {
            lengths: self.lengths.map(|lengths| lengths.map(|lengths| &lengths[range.clone()])),
            mask: self.mask.map(part),
            resets: self.resets.map(|resets| resets.map(part)),
            ..self
        }
    }

    pub fn have_lengths(&self) -> bool {
        self.lengths.is_some()
    }

    pub fn have_mask(&self) -> bool {
        self.mask.is_some()
    }

    pub fn have_resets(&self) -> bool {
        self.resets.is_some()
    }

    pub fn have_piece_states(&self) -> bool {
        self.counted.is_some()
    }

    /// The length of sequence `b`, of which `steps` steps are here.
    #[inline]
    pub fn length(&self, b: usize, steps: usize) -> usize {
        self.lengths.map_or(steps, |Whole { given, passed }| given[b].saturating_sub(passed).min(steps))
    }

    /// Whether step `t` of sequence `b`, which is within its length, is not masked.
    #[inline]
    pub fn is_unmasked(&self, t: usize, b: usize) -> bool {
        self.mask.is_none_or(|mask| mask[[t, b]])
    }

    /// Whether a piece starts with step `t` of sequence `b`, which is within its length.
    #[inline]
    pub fn starts_anew(&self, t: usize, b: usize) -> bool {
        self.resets.is_some_and(|Whole { given, passed }| given[[passed + t, b]])
    }

    /// The number of marks among the steps `range` of the whole sequence `b`.
    fn marks(&self, b: usize, range: Range<usize>) -> usize {
        let Some(Whole { given, passed }) = self.resets else { return 0 };
        let end = match self.lengths {
            Some(lengths) => (lengths.given[b] + passed).saturating_sub(lengths.passed).min(range.end),
            None => range.end,
        };
        (range.start..end).filter(|&step| given[[step, b]]).count()
    }

    /// If states have a row for each piece, the number of marks of sequence `b`: before the `steps` steps here, among them and
    /// after them.
    fn counted_marks(&self, b: usize, steps: usize) -> [usize; 3] {
        let (Some((start, end)), Some(Whole { passed, .. })) = (self.counted, self.resets) else { return [0; 3] };
        [start..passed, passed..passed + steps, passed + steps..end].map(|range| self.marks(b, range))
    }

    /// The number of rows that a state has for some of the sequences.
    pub fn state_rows(&self, sequences: Range<usize>) -> usize {
        match self.counted {
            None => sequences.len(),
            Some((start, end)) => sequences.map(|b| 1 + self.marks(b, start..end)).sum(),
        }
    }
}

/// A part of a sequence between two resets: it starts from a state of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// The sequence, b.
    pub sequence: usize,
    /// Its steps; none, if the sequence starts anew before its first step here.
    pub steps: Range<usize>,
    /// The row of the initial state that it starts from, and that takes the gradient there. `None`: it starts anew.
    pub initial: Option<usize>,
    /// The row of the final state that it ends in. `None`: its last state is dropped.
    pub last: Option<usize>,
}

/// See [`Sequence::pieces`](super::Sequence::pieces).
#[derive(Clone, Debug)]
pub(super) struct Pieces<'a> {
    positions: Positions<'a>,
    steps: usize,
    batch: usize,
    is_reversed: bool,
    sequence: usize,
    /// The steps of the sequence that are in no piece yet.
    rest: Range<usize>,
    /// Whether these are all.
    is_first: bool,
    /// If states have a row for each piece, that of the next one, and the first of the next sequence.
    row: usize,
    next_row: usize,
}

impl<'a> Pieces<'a> {
    /// Of `batch` sequences of `steps` steps, in the order in which they are read.
    pub fn new(positions: Positions<'a>, steps: usize, batch: usize, is_reversed: bool) -> Self {
        let (rest, is_first) = (0..0, true);
        let mut pieces =
            Pieces { positions, steps, batch, is_reversed, sequence: 0, rest, is_first, row: 0, next_row: 0 };
        pieces.start_sequence();
        pieces
    }

    fn start_sequence(&mut self) {
        if self.sequence < self.batch {
            self.rest = 0..self.positions.length(self.sequence, self.steps);
            self.is_first = true;
            let [before, here, after] = self.positions.counted_marks(self.sequence, self.steps);
            self.row = self.next_row + before + if self.is_reversed { here } else { 0 };
            self.next_row += before + here + after + 1;
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let Pieces { positions, is_reversed, sequence, is_first, row, .. } = *self;
        if sequence == self.batch {
            return None;
        }
        let rest = self.rest.clone();
        // The mark of a piece's own start, if steps are read forward, is not the next one's.
        let border = match (positions.have_resets(), is_reversed) {
            (false, _) => None,
            (true, false) => {
                (rest.start + usize::from(!is_first)..rest.end).find(|&t| positions.starts_anew(t, sequence))
            }
            (true, true) => rest.clone().rev().find(|&t| positions.starts_anew(t, sequence)),
        };
        let steps = match border {
            None => {
                self.sequence += 1;
                self.start_sequence();
                rest
            }
            Some(border) => {
                self.is_first = false;
                let (before, after) = (rest.start..border, border..rest.end);
                let (piece, rest, next) =
                    if is_reversed { (after, before, row.wrapping_sub(1)) } else { (before, after, row + 1) };
                (self.rest, self.row) = (rest, next);
                piece
            }
        };
        let of = |carries: bool| match positions.counted {
            Some(_) => Some(row),
            None => carries.then_some(sequence),
        };
        Some(Piece { sequence, steps, initial: of(is_first), last: of(border.is_none()) })
    }
}
