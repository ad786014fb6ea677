//! Lengths, masks and resets: which positions of a batch are valid, and where its sequences start anew.

use std::ops::Range;

use ndarray::{ArrayRef3, ArrayView2};

use super::Sequence;
use crate::base::{LengthsError, check_shape};
use crate::kernels::Float;
use crate::layer::positions::{Piece, Pieces};

impl<'a, F: Float> Sequence<'a, F> {
    /// The same batch with one length per sequence, in any order. A sequence of length 0 has no steps, and its state stays as it
    /// is.
    ///
    /// # Errors
    /// Returns an error if their number is not `B`, or a length is above `T`.
    pub fn with_lengths(self, lengths: &'a [usize]) -> Result<Self, LengthsError> {
        let (steps, batch) = self.dims();
        Ok(Sequence { positions: self.positions.with_lengths(lengths, steps, batch)?, ..self })
    }

    /// The same batch with a mask, `[T, B]`, `true` for each valid step, as in Keras: for padding that lengths cannot describe,
    /// on the left or between steps. A masked step is padding; the steps around it follow each other directly. Lengths may be
    /// given too; steps past them are padding whatever the mask says.
    ///
    /// ```
    /// use gradflow::{Layer, Sequence, ndarray::{Array3, arr2, s}, recurrent::GruCell};
    /// use gradflow::rand::{SeedableRng, rngs::StdRng};
    ///
    /// let gru = GruCell::<f64>::new(1, 4, &mut StdRng::seed_from_u64(0));
    /// let x = Array3::from_shape_fn((4, 1, 1), |(t, ..)| t as f64);
    /// let mask = arr2(&[[false], [true], [false], [true]]);
    /// let (mut state, mut cache) = (gru.zero_state(1), gru.cache());
    /// let y = gru.forward(Sequence::from(&x).with_mask(&mask), &mut state, &mut cache).to_owned();
    ///
    /// let valid = x.slice(s![1..;2, .., ..]).to_owned(); // steps 1 and 3
    /// let mut other = gru.zero_state(1);
    /// gru.forward(&valid, &mut other, &mut gru.cache());
    /// assert_eq!(state, other);
    /// assert_eq!(y[[2, 0, 0]], 0.0);
    /// ```
    ///
    /// # Panics
    /// Panics if `mask` is not `[T, B]`.
    #[track_caller]
    pub fn with_mask(self, mask: impl Into<ArrayView2<'a, bool>>) -> Self {
        let mask = self.check_marks("Sequence::with_mask", "mask", mask.into());
        Sequence { positions: self.positions.with_mask(mask), ..self }
    }

    /// The same batch with marks, `[T, B]`: before a marked step, the state of its row starts anew from [`zero_state`],
    /// and no gradient passes. So a row can hold several sequences, one after the other: packed documents, concatenated
    /// recordings, or the episodes of an environment (with a mark at the step after the last one of each episode).
    ///
    /// Outputs, gradients and the final state are those of the [pieces](Sequence::pieces) run separately. With a
    /// [`LearnedState`](crate::wrap::LearnedState), every piece starts from the learned state, whose gradient is the sum over the pieces.
    /// A reversed direction starts anew at the same borders. A mark at the first step drops the state that is given, and a reversed
    /// direction then leaves a new one. Marks past a sequence's length are not read. Layers without a state ignore resets.
    ///
    /// ```
    /// use gradflow::{Layer, Sequence, ndarray::{Array3, arr2}, recurrent::LstmCell};
    /// use gradflow::rand::{SeedableRng, rngs::StdRng};
    ///
    /// let lstm = LstmCell::<f64>::new(2, 4, &mut StdRng::seed_from_u64(0));
    /// let x = Array3::ones((4, 1, 2));
    /// let resets = arr2(&[[false], [false], [true], [false]]); // steps 0 and 1, then steps 2 and 3
    /// let (mut state, mut cache) = (lstm.zero_state(1), lstm.cache());
    /// let y = lstm.forward(Sequence::from(&x).with_resets(&resets), &mut state, &mut cache);
    /// assert_eq!(y[[0, 0, 0]], y[[2, 0, 0]]);
    /// assert_ne!(y[[1, 0, 0]], y[[2, 0, 0]]);
    /// ```
    ///
    /// # Panics
    /// Panics if `resets` is not `[T, B]`.
    ///
    /// [`zero_state`]: crate::Layer::zero_state
    #[track_caller]
    pub fn with_resets(self, resets: impl Into<ArrayView2<'a, bool>>) -> Self {
        let resets = self.check_marks("Sequence::with_resets", "resets", resets.into());
        Sequence { positions: self.positions.with_resets(resets), ..self }
    }

    /// Returns `marks`; panics unless they are given for all positions of the batch.
    #[track_caller]
    fn check_marks(&self, name: &str, argument: &str, marks: ArrayView2<'a, bool>) -> ArrayView2<'a, bool> {
        let (steps, batch) = self.dims();
        check_shape(name, argument, &[steps, batch], marks.shape());
        marks
    }

    /// The batch for layers whose states have a row for each [piece](Sequence::pieces), from which it starts and in which it ends.
    pub(crate) fn with_piece_states(self) -> Self {
        Sequence { positions: self.positions.with_piece_states(self.dims().0), ..self }
    }

    /// Whether states have a row for each piece.
    pub(crate) fn has_piece_states(&self) -> bool {
        self.positions.have_piece_states()
    }

    /// The number of rows of a state: B, unless the initial state of every [piece](Sequence::pieces) is given, as by a
    /// [`LearnedState`](crate::wrap::LearnedState).
    pub fn state_rows(&self) -> usize {
        self.positions.state_rows(0..self.dims().1)
    }

    /// The rows of a state that belong to some of the sequences.
    #[cfg(feature = "rayon")]
    pub(crate) fn state_rows_of(&self, sequences: Range<usize>) -> Range<usize> {
        let start = self.positions.state_rows(0..sequences.start);
        start..start + self.positions.state_rows(sequences)
    }

    /// Whether lengths were given.
    #[inline]
    pub fn has_lengths(&self) -> bool {
        self.positions.have_lengths()
    }

    /// Whether a mask was given.
    #[inline]
    pub fn has_mask(&self) -> bool {
        self.positions.have_mask()
    }

    /// Whether resets were given.
    #[inline]
    pub fn has_resets(&self) -> bool {
        self.positions.have_resets()
    }

    /// Whether a position may be padding.
    #[inline]
    fn is_padded(&self) -> bool {
        self.has_lengths() || self.has_mask()
    }

    /// The length of sequence `b`, masked steps included; `T` if no lengths were given.
    #[inline]
    pub fn length(&self, b: usize) -> usize {
        self.positions.length(b, self.dims().0)
    }

    /// Whether step `t` of sequence `b` is valid: within its length, and not masked.
    #[inline]
    pub fn valid(&self, t: usize, b: usize) -> bool {
        t < self.length(b) && self.positions.is_unmasked(t, b)
    }

    /// Whether the state of sequence `b` starts anew before step `t`.
    #[inline]
    pub fn starts_anew(&self, t: usize, b: usize) -> bool {
        t < self.length(b) && self.positions.starts_anew(t, b)
    }

    /// The valid steps of sequence `b`, from the first to the last.
    pub fn valid_steps(&self, b: usize) -> impl DoubleEndedIterator<Item = usize> + use<'a, F> {
        let positions = self.positions;
        (0..self.length(b)).filter(move |&t| positions.is_unmasked(t, b))
    }

    /// The number of valid positions: the sum of the lengths, less the masked steps.
    pub fn valid_count(&self) -> usize {
        (0..self.dims().1).map(|b| if self.has_mask() { self.valid_steps(b).count() } else { self.length(b) }).sum()
    }

    /// The parts into which [resets](Sequence::with_resets) cut the sequences, sequence by sequence, in the order in which they are
    /// read; without resets, each sequence is one. A hand-written layer with a state loops over them: it reads the row
    /// [`initial`](Piece::initial) of the state, or starts from zero, runs the [valid steps](Sequence::steps_of), and writes the row
    /// [`last`](Piece::last), if there is one. A backward pass goes [the other way](Sequence::pieces_backward).
    ///
    /// ```
    /// # use gradflow::{Sequence, ndarray::{Array3, arr2}};
    /// let x = Array3::<f32>::zeros((3, 2, 1));
    /// let resets = arr2(&[[false, true], [false, false], [true, false]]);
    /// let x = Sequence::from(&x).with_resets(&resets);
    /// let pieces: Vec<_> = x.pieces().map(|piece| (piece.sequence, piece.steps, piece.initial, piece.last)).collect();
    /// assert_eq!(pieces[..2], [(0, 0..2, Some(0), None), (0, 2..3, None, Some(0))]);
    /// assert_eq!(pieces[2..], [(1, 0..0, Some(1), None), (1, 0..3, None, Some(1))]); // the second starts anew
    /// ```
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + use<'a, F> {
        let (steps, batch) = self.dims();
        Pieces::new(self.positions, steps, batch, self.is_reversed())
    }

    /// The [pieces](Sequence::pieces) in the order of a backward pass: of each sequence, the one that is read last comes first.
    pub fn pieces_backward(&self) -> impl Iterator<Item = Piece> + use<'a, F> {
        let (steps, batch) = self.dims();
        let pieces = Pieces::new(self.positions, steps, batch, !self.is_reversed());
        pieces.map(|piece| Piece { initial: piece.last, last: piece.initial, ..piece })
    }

    /// The pieces of one sequence in the order of time, each with its number in the whole sequence.
    pub(crate) fn numbered_pieces(&self, b: usize) -> impl Iterator<Item = (usize, Range<usize>)> + use<'a, F> {
        let (steps, positions) = (self.dims().0, self.positions.of_sequences(&(b..b + 1)));
        let pieces = Pieces::new(positions, steps, 1, false).map(|piece| piece.steps);
        (positions.marks_before(0)..).zip(pieces)
    }

    /// The valid steps of a piece, from the first in time to the last.
    pub fn steps_of(&self, piece: &Piece) -> impl DoubleEndedIterator<Item = usize> + use<'a, F> {
        let (positions, b) = (self.positions, piece.sequence);
        piece.steps.clone().filter(move |&t| positions.is_unmasked(t, b))
    }

    /// Whether a piece has a valid step.
    pub(crate) fn reaches(&self, piece: &Piece) -> bool {
        self.steps_of(piece).next().is_some()
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

    /// All valid rows of the `T * B`, in as few ranges as possible: a feed-forward layer loops over these.
    ///
    /// ```
    /// # use gradflow::{Sequence, ndarray::Array3};
    /// let x = Array3::<f32>::zeros((4, 3, 1));
    /// let x = Sequence::from(&x).with_lengths(&[4, 1, 2])?;
    /// assert_eq!(x.runs().collect::<Vec<_>>(), [0..4, 5..7, 9..10]);
    /// # Ok::<(), gradflow::author::LengthsError>(())
    /// ```
    pub fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<'a, F> {
        let (steps, batch) = self.dims();
        let this = *self;
        let full = if self.has_mask() { 0 } else { (0..batch).map(|b| self.length(b)).min().unwrap_or(0) };
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

    /// Zeroes the padding in a buffer of `[T, B, any]`.
    pub fn zero_padding(&self, values: &mut ArrayRef3<F>) {
        if !self.is_padded() {
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
