//! The valid positions of a batch, and the steps at which its sequences start anew.

use std::ops::Range;

use ndarray::{ArrayView2, s};

use crate::base::LengthsError;

/// The properties of a batch's positions besides their values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Positions<'a> {
    borders: Borders<'a>,
    mask: Option<ArrayView2<'a, bool>>, // [T, B]: which are valid
    /// If states have a row for each piece: how these are counted.
    rows: Option<PieceRows<'a>>,
}

/// The ends of sequences, and the starts of their pieces.
#[derive(Clone, Copy, Debug, Default)]
struct Borders<'a> {
    lengths: Option<Whole<&'a [usize]>>,         // [B]
    resets: Option<Whole<ArrayView2<'a, bool>>>, // [T, B]: where a piece starts
}

impl<'a> Borders<'a> {
    fn after_steps(self, first: usize) -> Self {
        Borders {
            lengths: self.lengths.map(|lengths| lengths.after_steps(first)),
            resets: self.resets.map(|resets| resets.after_steps(first)),
        }
    }

    fn of_sequences(self, range: &Range<usize>) -> Self {
        Borders {
            lengths: self.lengths.map(|lengths| lengths.map(|lengths| &lengths[range.clone()])),
            resets: self.resets.map(|resets| resets.map(|resets| columns(resets, range))),
        }
    }

    fn reborrow<'s>(self) -> Borders<'s>
    where
        'a: 's,
    {
        let reborrow = |resets: Whole<ArrayView2<'a, bool>>| resets.map(|resets| resets.reborrow());
        Borders { lengths: self.lengths, resets: self.resets.map(reborrow) }
    }

    /// The number of marks among the steps `range` of the whole sequence `b`.
    fn marks(&self, b: usize, range: Range<usize>) -> usize {
        let Some(resets) = self.resets else { return 0 };
        let end = match self.lengths {
            Some(lengths) => (lengths.given[b] + resets.passed).saturating_sub(lengths.passed).min(range.end),
            None => range.end,
        };
        (range.start..end).filter(|&step| resets.given[[step, b]]).count()
    }

    /// The steps before the first step here, if there are resets.
    fn passed(&self) -> usize {
        self.resets.map_or(0, |resets| resets.passed)
    }
}

fn columns<'a>(marks: ArrayView2<'a, bool>, range: &Range<usize>) -> ArrayView2<'a, bool> {
    marks.slice_move(s![.., range.clone()])
}

/// The pieces that states have a row for: sequence by sequence, in the order of time.
#[derive(Clone, Copy, Debug)]
struct PieceRows<'a> {
    borders: Borders<'a>,
    /// The steps of the whole sequences that are counted.
    start: usize,
    end: usize,
}

impl PieceRows<'_> {
    /// The number of marks of sequence `b`.
    fn marks(&self, b: usize) -> usize {
        self.borders.marks(b, self.start..self.end)
    }

    /// The number of marks of sequence `b`: before the `steps` steps here, among them and after them.
    fn marks_around(&self, b: usize, steps: usize) -> [usize; 3] {
        let passed = self.borders.passed();
        [self.start..passed, passed..passed + steps, passed + steps..self.end].map(|range| self.borders.marks(b, range))
    }
}

/// Data given for whole sequences, of which the steps here may be a chunk.
#[derive(Clone, Copy, Debug)]
struct Whole<T> {
    given: T,
    /// The steps before the first step here.
    passed: usize,
    /// The steps of the whole sequences for each step here.
    stride: usize,
}

impl<T> Whole<T> {
    fn new(given: T) -> Self {
        Whole { given, passed: 0, stride: 1 }
    }

    fn after_steps(self, first: usize) -> Self {
        Whole { passed: self.passed + first * self.stride, ..self }
    }

    fn map<U>(self, of: impl FnOnce(T) -> U) -> Whole<U> {
        Whole { given: of(self.given), passed: self.passed, stride: self.stride }
    }
}

impl<'a> Positions<'a> {
    /// These positions with one length for each of `batch` sequences of at most `steps` steps.
    pub fn with_lengths(self, lengths: &'a [usize], steps: usize, batch: usize) -> Result<Self, LengthsError> {
        if lengths.len() != batch {
            return Err(LengthsError::Count { lengths: lengths.len(), batch });
        }
        match lengths.iter().position(|&length| length > steps) {
            Some(sequence) => Err(LengthsError::OutOfRange { sequence, length: lengths[sequence], steps }),
            None => Ok(Positions { borders: Borders { lengths: Some(Whole::new(lengths)), ..self.borders }, ..self }),
        }
    }

    pub fn with_mask(self, mask: ArrayView2<'a, bool>) -> Self {
        Positions { mask: Some(mask), ..self }
    }

    pub fn with_resets(self, resets: ArrayView2<'a, bool>) -> Self {
        Positions { borders: Borders { resets: Some(Whole::new(resets)), ..self.borders }, ..self }
    }

    /// These positions with states that have a row for each piece of the `steps` steps from here.
    pub fn with_piece_states(self, steps: usize) -> Self {
        let (borders, start) = (self.borders, self.borders.passed());
        let rows = self.have_resets().then_some(PieceRows { borders, start, end: start + steps });
        Positions { rows, ..self }
    }

    /// The positions of an output that has its own time axis, with one piece for each sequence. A state starts from the row of the
    /// piece that is read first and ends in that of the last one.
    pub fn of_other_steps(self) -> Self {
        Positions { rows: self.rows, ..Positions::default() }
    }

    /// Whether these are positions of an output that has its own time axis, with states that have a row for each piece of another axis.
    pub fn have_rows_of_other_steps(&self) -> bool {
        self.rows.is_some() && !self.have_resets()
    }

    /// The same positions, borrowed for a shorter time. (A view is invariant.)
    pub fn reborrow<'s>(self) -> Positions<'s>
    where
        'a: 's,
    {
        Positions {
            borders: self.borders.reborrow(),
            mask: self.mask.map(|mask| mask.reborrow()),
            rows: self.rows.map(|rows| PieceRows { borders: rows.borders.reborrow(), ..rows }),
        }
    }

    /// The positions of the steps `range`.
    pub fn of_steps(self, range: Range<usize>) -> Self {
        let first = range.start;
        Positions {
            borders: self.borders.after_steps(first),
            mask: self.mask.map(|mask| mask.slice_move(s![range, ..])),
            rows: self.rows.map(|rows| PieceRows { borders: rows.borders.after_steps(first), ..rows }),
        }
    }

    /// The positions of one of every `stride` steps; unless that is each step, the batch has only lengths.
    pub fn every(self, stride: usize) -> Self {
        if stride == 1 {
            return self;
        }
        let every = |lengths: Whole<_>| Whole { stride: lengths.stride.saturating_mul(stride), ..lengths };
        let borders = Borders { lengths: self.borders.lengths.map(every), resets: None };
        Positions { borders, ..Positions::default() }
    }

    /// The positions of the sequences `range`.
    pub fn of_sequences(self, range: &Range<usize>) -> Self {
        Positions {
            borders: self.borders.of_sequences(range),
            mask: self.mask.map(|mask| columns(mask, range)),
            rows: self.rows.map(|rows| PieceRows { borders: rows.borders.of_sequences(range), ..rows }),
        }
    }

    pub fn have_lengths(&self) -> bool {
        self.borders.lengths.is_some()
    }

    pub fn have_mask(&self) -> bool {
        self.mask.is_some()
    }

    pub fn have_resets(&self) -> bool {
        self.borders.resets.is_some()
    }

    pub fn have_piece_states(&self) -> bool {
        self.rows.is_some()
    }

    /// The length of sequence `b`, of which `steps` steps are here.
    #[inline]
    pub fn length(&self, b: usize, steps: usize) -> usize {
        self.borders.lengths.map_or(steps, |Whole { given, passed, stride }| {
            let rest = given[b].saturating_sub(passed);
            // A division at each position would take noticeable time.
            let rest = if stride == 1 { rest } else { rest.div_ceil(stride) };
            rest.min(steps)
        })
    }

    /// Whether step `t` of sequence `b`, which is within its length, is not masked.
    #[inline]
    pub fn is_unmasked(&self, t: usize, b: usize) -> bool {
        self.mask.is_none_or(|mask| mask[[t, b]])
    }

    /// Whether a piece starts with step `t` of sequence `b`, which is within its length.
    #[inline]
    pub fn starts_anew(&self, t: usize, b: usize) -> bool {
        self.borders.resets.is_some_and(|Whole { given, passed, .. }| given[[passed + t, b]])
    }

    /// The number of marks of sequence `b` before the steps here.
    pub fn marks_before(&self, b: usize) -> usize {
        self.borders.marks(b, 0..self.borders.passed())
    }

    /// The number of rows that a state has for some of the sequences.
    pub fn state_rows(&self, sequences: Range<usize>) -> usize {
        match self.rows {
            None => sequences.len(),
            Some(rows) => sequences.map(|b| 1 + rows.marks(b)).sum(),
        }
    }
}

/// A part of a sequence between two resets, which starts from its own state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// The sequence, b.
    pub sequence: usize,
    /// Its steps; none, if the sequence starts anew before its first step here.
    pub steps: Range<usize>,
    /// The row of the initial state that it starts from, and that receives the gradient there; `None` if it starts anew.
    pub initial: Option<usize>,
    /// The row of the final state that it ends in; `None` if its last state is dropped.
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
    /// Whether these are all steps of the sequence.
    is_first: bool,
    /// If states have a row for each piece, that of the next one, and the first of the next sequence.
    row: usize,
    next_row: usize,
}

impl<'a> Pieces<'a> {
    /// The pieces of `batch` sequences of `steps` steps, in the order in which they are read.
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
            if let (Some(rows), true) = (self.positions.rows, self.positions.have_resets()) {
                let [before, here, after] = rows.marks_around(self.sequence, self.steps);
                self.row = self.next_row + before + if self.is_reversed { here } else { 0 };
                self.next_row += before + here + after + 1;
            }
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
        if let (Some(rows), false) = (positions.rows, positions.have_resets()) {
            let first = self.next_row;
            let last = first + rows.marks(sequence);
            (self.sequence, self.next_row) = (sequence + 1, last + 1);
            self.start_sequence();
            let (initial, last) = if is_reversed { (last, first) } else { (first, last) };
            return Some(Piece { sequence, steps: rest, initial: Some(initial), last: Some(last) });
        }
        // If steps are read forward, the mark at a piece's own start does not start the next one.
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
        let of = |carries: bool| match positions.rows {
            Some(_) => Some(row),
            None => carries.then_some(sequence),
        };
        Some(Piece { sequence, steps, initial: of(is_first), last: of(border.is_none()) })
    }
}
