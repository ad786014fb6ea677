//! The rows that each step of a causal convolution reads, and copies of their values side by side.

use std::ops::Range;

use crate::kernels::{Float, vectorised};
use crate::layer::Sequence;
use crate::layer::rows::span;

/// The taps of a causal kernel: tap `j` of K reads the row `(K - 1 - j) · dilation` steps back. There is one output row for every
/// `stride` steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Taps {
    pub kernel: usize,
    pub dilation: usize,
    pub stride: usize,
}

/// Where a row of features lies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Among the `T · B` rows of x.
    Here(usize),
    /// Among the `P · B` rows of the state before the first step.
    Before(usize),
    /// Before a piece without an initial state: zeros.
    Nothing,
}

/// The order in which valid rows are read, for a batch with a mask or resets: its [pieces](Sequence::pieces), one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    is_used: bool,
    pieces: Vec<Read>,
    order: Vec<usize>,           // the valid rows of x, piece after piece
    places: Vec<(usize, usize)>, // [T · B]: the piece of each valid row, and its place in the order
    ends: Vec<Option<usize>>,    // the piece that ends in each row of a state
}

/// A piece, as it is read.
#[derive(Clone, Copy, Debug)]
struct Read {
    start: usize,
    end: usize,
    initial: Option<usize>,
}

impl Pieces {
    /// Finds the pieces of `x`.
    pub fn plan<F: Float>(&mut self, x: &Sequence<'_, F>) {
        self.is_used = x.has_mask() || x.has_resets() || x.has_piece_states();
        if !self.is_used {
            return;
        }
        let (steps, batch) = x.dims();
        let Pieces { pieces, order, places, ends, .. } = self;
        pieces.clear();
        order.clear();
        places.clear();
        places.resize(steps * batch, (0, 0));
        ends.clear();
        ends.resize(x.state_rows(), None);
        for piece in x.pieces() {
            let start = order.len();
            order.extend(x.steps_of(&piece).map(|t| t * batch + piece.sequence));
            if x.is_reversed() {
                order[start..].reverse();
            }
            for (place, &row) in (start..).zip(&order[start..]) {
                places[row] = (pieces.len(), place);
            }
            if let Some(row) = piece.last {
                ends[row] = Some(pieces.len());
            }
            pieces.push(Read { start, end: order.len(), initial: piece.initial });
        }
    }

    /// The row `back` rows before `place` in the order, where `place` lies in the piece or just past its end; `reach` is P.
    fn row_before(&self, piece: usize, place: usize, back: usize, reach: usize) -> Place {
        let Read { start, initial, .. } = self.pieces[piece];
        match (place.checked_sub(back).filter(|&place| place >= start), initial) {
            (Some(place), _) => Place::Here(self.order[place]),
            (None, Some(row)) => Place::Before((reach + (place - start) - back) * self.ends.len() + row),
            (None, None) => Place::Nothing,
        }
    }
}

/// The rows that a step can read: those of x, `[T, B, I]`, and of the state before it, `[P, B, I]`.
#[derive(Clone, Copy)]
pub(super) struct History<'a, F> {
    pub pieces: &'a Pieces,
    pub x: &'a [F],
    pub before: &'a [F],
    /// A row of zeros.
    pub zeros: &'a [F],
}

/// The gradients of the rows of a [`History`], to be added to.
pub(super) struct HistoryGradient<'a, F> {
    pub pieces: &'a Pieces,
    pub dx: &'a mut [F],
    /// `None`: not wanted.
    pub dbefore: Option<&'a mut [F]>,
}

impl Taps {
    /// P, the number of earlier steps that a step can read.
    pub fn reach(self) -> usize {
        self.kernel.saturating_sub(1) * self.dilation
    }

    /// How many steps back tap `j` reads.
    fn back(self, j: usize) -> usize {
        (self.kernel - 1 - j) * self.dilation
    }

    /// The row of sequence `b` that is read `back` steps before its `read`th step, counted from zero in the order of reading.
    /// `back` is at most P.
    #[inline]
    fn row_before<F: Float>(self, x: &Sequence<'_, F>, b: usize, read: usize, back: usize) -> Place {
        let batch = x.dims().1;
        match read.checked_sub(back) {
            Some(read) => Place::Here(step_read(x, b, read) * batch + b),
            None => Place::Before((self.reach() + read - back) * batch + b),
        }
    }

    /// The row that tap `j` reads for output row `at`.
    #[inline]
    fn row_of<F: Float>(self, x: &Sequence<'_, F>, pieces: &Pieces, at: usize, j: usize) -> Place {
        if pieces.is_used {
            let (piece, place) = pieces.places[at];
            return pieces.row_before(piece, place, self.back(j), self.reach());
        }
        let batch = x.dims().1;
        let (t, b) = (at / batch * self.stride, at % batch);
        // `step_read` is its own inverse.
        self.row_before(x, b, step_read(x, b, t), self.back(j))
    }

    /// The number of adjacent output rows, from `at` on, for which the rows that each tap reads are adjacent, too.
    fn side_by_side<F: Float>(self, x: &Sequence<'_, F>, pieces: &Pieces, at: usize) -> usize {
        if pieces.is_used {
            return 1;
        }
        let batch = x.dims().1;
        let (t, rest_of_step) = (at / batch, batch - at % batch);
        match (x.is_reversed(), x.has_lengths()) {
            // Each sequence is read from a different step.
            (true, true) => 1,
            // Steps of x are read from the last to the first, but the state holds its steps in the order of reading.
            (true, false) => rest_of_step,
            (false, _) if self.stride > 1 => rest_of_step,
            // Until another tap leaves the state.
            (false, _) if t < self.reach() => rest_of_step + (self.dilation - 1 - t % self.dilation) * batch,
            (false, _) => usize::MAX,
        }
    }

    /// Copies the rows that each of the output rows `rows` reads, `[n, I · K]`: the values of a feature side by side, oldest first.
    pub fn gather<F: Float>(
        self,
        x: &Sequence<'_, F>,
        history: History<'_, F>,
        rows: Range<usize>,
        width: usize,
        columns: &mut [F],
    ) {
        let (mut at, mut columns) = (rows.start, columns);
        while at < rows.end {
            let count = self.side_by_side(x, history.pieces, at).min(rows.end - at);
            let (own, rest) = columns.split_at_mut(count * width * self.kernel);
            let source = |j: usize| match self.row_of(x, history.pieces, at, j) {
                Place::Here(row) => &history.x[span(&(row..row + count), width)],
                Place::Before(row) => &history.before[span(&(row..row + count), width)],
                Place::Nothing => history.zeros,
            };
            let mut sources = [&[][..]; TOGETHER];
            match sources.get_mut(..self.kernel) {
                Some(sources) => {
                    sources.iter_mut().enumerate().for_each(|(j, values)| *values = source(j));
                    interleave(sources, own);
                }
                None => (0..self.kernel).for_each(|j| spread(self.kernel, j, source(j), own)),
            }
            (at, columns) = (at + count, rest);
        }
    }

    /// Adds the gradients of [gathered](Taps::gather) rows to the gradients of the original rows.
    pub fn scatter<F: Float>(
        self,
        x: &Sequence<'_, F>,
        columns: &[F],
        rows: Range<usize>,
        width: usize,
        gradient: &mut HistoryGradient<'_, F>,
    ) {
        let (mut at, mut columns) = (rows.start, columns);
        while at < rows.end {
            let count = self.side_by_side(x, gradient.pieces, at).min(rows.end - at);
            let (own, rest) = columns.split_at(count * width * self.kernel);
            for j in 0..self.kernel {
                let sums = match (self.row_of(x, gradient.pieces, at, j), &mut gradient.dbefore) {
                    (Place::Here(row), _) => &mut gradient.dx[span(&(row..row + count), width)],
                    (Place::Before(row), Some(dbefore)) => &mut dbefore[span(&(row..row + count), width)],
                    (Place::Before(_), None) | (Place::Nothing, _) => continue,
                };
                add_tap(self.kernel, j, own, sums);
            }
            (at, columns) = (at + count, rest);
        }
    }

    /// The state after each sequence's last valid step, `[P, B, I]`.
    pub fn advance<F: Float>(self, x: &Sequence<'_, F>, history: History<'_, F>, width: usize, state: &mut [F]) {
        let rows = x.state_rows();
        for (row, to) in state.chunks_exact_mut(width).enumerate() {
            to.copy_from_slice(match self.row_kept(x, history.pieces, row % rows, row / rows) {
                Place::Here(row) => &history.x[span(&(row..row + 1), width)],
                Place::Before(row) => &history.before[span(&(row..row + 1), width)],
                Place::Nothing => history.zeros,
            });
        }
    }

    /// Adds the gradient of the final state to the gradients of the rows in it.
    pub fn advance_backward<F: Float>(
        self,
        x: &Sequence<'_, F>,
        dstate: &[F],
        width: usize,
        gradient: &mut HistoryGradient<'_, F>,
    ) {
        let rows = x.state_rows();
        for (row, d) in dstate.chunks_exact(width).enumerate() {
            let sums = match (self.row_kept(x, gradient.pieces, row % rows, row / rows), &mut gradient.dbefore) {
                (Place::Here(row), _) => &mut gradient.dx[span(&(row..row + 1), width)],
                (Place::Before(row), Some(dbefore)) => &mut dbefore[span(&(row..row + 1), width)],
                (Place::Before(_), None) | (Place::Nothing, _) => continue,
            };
            sums.iter_mut().zip(d).for_each(|(sum, &d)| *sum += d);
        }
    }

    /// The row that becomes step `p` of the P steps in row `b` of the final state. A state in which no piece ends stays as it is.
    fn row_kept<F: Float>(self, x: &Sequence<'_, F>, pieces: &Pieces, b: usize, p: usize) -> Place {
        let back = self.reach() - p;
        if !pieces.is_used {
            return self.row_before(x, b, x.length(b), back);
        }
        match pieces.ends[b] {
            Some(piece) => pieces.row_before(piece, pieces.pieces[piece].end, back, self.reach()),
            None => Place::Before(p * pieces.ends.len() + b),
        }
    }
}

/// The step of sequence `b` that is read after `read` others; also the number of steps that are read before step `read`.
#[inline]
fn step_read<F: Float>(x: &Sequence<'_, F>, b: usize, read: usize) -> usize {
    if x.is_reversed() { x.length(b) - 1 - read } else { read }
}

/// The maximum number of taps whose rows are copied in one pass.
const TOGETHER: usize = 8;

/// Interleaves K rows: values with the same index go side by side.
#[inline(always)]
fn weave<const K: usize, F: Float>(sources: &[&[F]], columns: &mut [F]) {
    let columns = columns.as_chunks_mut::<K>().0;
    let sources: [&[F]; K] = std::array::from_fn(|j| &sources[j][..columns.len()]);
    for (m, column) in columns.iter_mut().enumerate() {
        for j in 0..K {
            column[j] = sources[j][m];
        }
    }
}

/// Adds every K-th value, from the `j`th on.
#[inline(always)]
fn add_every<const K: usize, F: Float>(j: usize, columns: &[F], sums: &mut [F]) {
    for (sum, column) in sums.iter_mut().zip(columns.as_chunks::<K>().0) {
        *sum += column[j];
    }
}

vectorised! {
    /// Interleaves at most [`TOGETHER`] rows: values with the same index go side by side.
    fn interleave<'a, F: Float>(sources: &'a [&'a [F]], columns: &'a mut [F]) {
        match sources.len() {
            1 => columns.copy_from_slice(sources[0]),
            2 => weave::<2, F>(sources, columns),
            3 => weave::<3, F>(sources, columns),
            4 => weave::<4, F>(sources, columns),
            5 => weave::<5, F>(sources, columns),
            6 => weave::<6, F>(sources, columns),
            7 => weave::<7, F>(sources, columns),
            _ => weave::<TOGETHER, F>(sources, columns),
        }
    }
}

vectorised! {
    /// Writes `source` to every `kernel`th value of `columns`, from the `j`th on.
    fn spread<'a, F: Float>(kernel: usize, j: usize, source: &'a [F], columns: &'a mut [F]) {
        for (column, &value) in columns.chunks_exact_mut(kernel).zip(source) {
            column[j] = value;
        }
    }
}

vectorised! {
    /// Adds every `kernel`th value, from the `j`th on, to `sums`.
    fn add_tap<'a, F: Float>(kernel: usize, j: usize, columns: &'a [F], sums: &'a mut [F]) {
        match kernel {
            1 => add_every::<1, F>(j, columns, sums),
            2 => add_every::<2, F>(j, columns, sums),
            3 => add_every::<3, F>(j, columns, sums),
            4 => add_every::<4, F>(j, columns, sums),
            _ => {
                for (sum, column) in sums.iter_mut().zip(columns.chunks_exact(kernel)) {
                    *sum += column[j];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;

    /// For output rows that count as adjacent, each tap reads adjacent rows, in every mode.
    #[test]
    fn rows_side_by_side_are_those_of_each_row() {
        let (steps, batch) = (7, 3);
        let (x, none) = (Array3::<f64>::zeros((steps, batch, 1)), Pieces::default());
        for (kernel, dilation, stride) in [
            (1, 1, 1),
            (2, 1, 1),
            (3, 1, 1),
            (3, 2, 1),
            (2, 5, 1),
            (4, 3, 1),
            (2, 9, 1),
            (3, 1, 2),
            (2, 3, 3),
            (3, 2, 9),
        ] {
            let taps = Taps { kernel, dilation, stride };
            for x in [
                Sequence::from(&x),
                Sequence::from(&x).reversed(),
                Sequence::from(&x).with_lengths(&[4, 7, 1]).unwrap(),
                Sequence::from(&x).with_lengths(&[4, 7, 1]).unwrap().reversed(),
            ] {
                let rows = x.every(stride);
                for (at, end) in rows.runs().flat_map(|run| run.clone().map(move |at| (at, run.end))) {
                    let count = taps.side_by_side(&x, &none, at).min(end - at);
                    for j in 0..kernel {
                        let first = taps.row_of(&x, &none, at, j);
                        for more in 0..count {
                            let expected = match first {
                                Place::Here(row) => Place::Here(row + more),
                                Place::Before(row) => Place::Before(row + more),
                                Place::Nothing => Place::Nothing,
                            };
                            assert_eq!(
                                taps.row_of(&x, &none, at + more, j),
                                expected,
                                "{taps:?}, {at} + {more}, tap {j}"
                            );
                        }
                    }
                }
            }
        }
    }
}
