//! Which sequences each step of a recurrence processes, and where their rows are.

use std::cmp::Reverse;
use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView1, ArrayView3, ArrayViewMut1, Axis};

use crate::kernels::Float;
use crate::layer::affine::add_onto;
use crate::layer::kit::reuse;
use crate::layer::rows::rows_of;
use crate::layer::{Piece, Sequence};

/// The order in which the steps of a batch of sequences are processed, and where their rows are.
///
/// In the plain case, a step's rows are the B rows of the input's step, without a copy. With lengths, a mask or resets, the
/// [pieces](Sequence::pieces) of the sequences are sorted, the longest first, and only the valid rows are gathered, step after
/// step, so that each step's pieces are the first ones of the step before. Nothing is computed for padding, each step is one
/// product, and the pieces of a sequence, which do not depend on each other, are processed side by side. The reverse direction then
/// differs only in the rows that are gathered; in the plain case it takes the steps backwards.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    steps: usize,
    batch: usize,
    reversed: bool,
    gathered: bool,
    masked: bool,
    first: usize,       // the index of the first sequence in the whole batch
    pieces: Vec<Line>,  // the longest first; only if gathered
    times: Vec<usize>,  // the valid steps of all pieces; only if masked
    starts: Vec<usize>, // [steps + 1]: the first row of each step
}

/// The valid steps of a piece of a sequence, one row of each step.
#[derive(Clone, Copy, Debug)]
struct Line {
    sequence: usize,
    /// Its first step or, with a mask, where its valid steps start in `times`.
    start: usize,
    length: usize,
    /// See [`Piece`](crate::author::Piece).
    initial: Option<usize>,
    last: Option<usize>,
}

/// Sorts `lines`, the longest first. No two keys are equal, so the order is unique. A function of its own, as sorting need not be compiled
/// for each element type.
fn sort(lines: &mut [Line]) {
    lines.sort_unstable_by_key(|line| (Reverse(line.length), line.sequence, line.start, line.last));
}

/// An end of a pass, at which a piece has a row of a state.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The state before the first step.
    Initial,
    /// The state after the last step.
    Last,
}

impl Schedule {
    /// Plans a pass over `x`.
    pub fn plan<F: Float>(&mut self, x: &Sequence<'_, F>) {
        let (steps, batch) = x.dims();
        (self.batch, self.reversed, self.first) = (batch, x.is_reversed(), x.first_sequence());
        self.masked = x.has_mask();
        let is_whole = |b: usize| x.length(b) == steps && (!self.masked || (0..steps).all(|t| x.valid(t, b)));
        let is_one_piece = |b: usize| !x.has_resets() || (0..steps).all(|t| !x.starts_anew(t, b));
        let is_plain = !x.has_piece_states() && (0..batch).all(|b| is_whole(b) && is_one_piece(b));
        self.gathered = !is_plain;
        if is_plain {
            self.steps = steps;
            return;
        }
        let Schedule { masked, pieces, times, .. } = self;
        pieces.clear();
        times.clear();
        for piece in x.pieces() {
            let (mut start, mut length) = (piece.steps.start, piece.steps.len());
            if *masked {
                start = times.len();
                times.extend(x.steps_of(&piece));
                length = times.len() - start;
            }
            let Piece { sequence, initial, last, .. } = piece;
            pieces.push(Line { sequence, start, length, initial, last });
        }
        sort(pieces);
        self.batch = pieces.len();
        self.steps = pieces[0].length;
        self.starts.clear();
        self.starts.push(0);
        for s in 0..self.steps {
            let valid = self.pieces.partition_point(|line| line.length > s);
            self.starts.push(self.starts[s] + valid);
        }
    }

    /// The number of steps to run: the greatest length.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// B, the number of pieces.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// R, the number of rows of all steps together.
    pub fn count(&self) -> usize {
        if self.gathered { self.starts[self.steps] } else { self.steps * self.batch }
    }

    /// Whether the valid rows are gathered, so that their order is not the input's.
    pub fn gathered(&self) -> bool {
        self.gathered
    }

    /// Whether the state before the first step is stored past the last row.
    fn backwards(&self) -> bool {
        self.reversed && !self.gathered
    }

    /// The rows of the steps `done`, which are numbered in the order in which they run.
    pub fn rows(&self, done: Range<usize>) -> Range<usize> {
        if self.gathered {
            self.starts[done.start]..self.starts[done.end]
        } else if self.reversed {
            (self.steps - done.end) * self.batch..(self.steps - done.start) * self.batch
        } else {
            done.start * self.batch..done.end * self.batch
        }
    }

    /// Where the states before and after step `s` are in a history `[R + B]`.
    pub fn in_history(&self, s: usize) -> (Range<usize>, Range<usize>) {
        let now = self.rows(s..s + 1);
        if self.backwards() {
            return (now.start + self.batch..now.end + self.batch, now);
        }
        let before = if s == 0 { 0 } else { self.batch + self.rows(s - 1..s).start };
        (before..before + now.len(), now.start + self.batch..now.end + self.batch)
    }

    /// Where the states before the first step are in a history `[R + B]`.
    pub fn initial(&self) -> Range<usize> {
        let start = if self.backwards() { self.count() } else { 0 };
        start..start + self.batch
    }

    /// Where the states after the steps, `[R]`, are in a history `[R + B]`.
    pub fn after(&self) -> Range<usize> {
        let start = if self.backwards() { 0 } else { self.batch };
        start..start + self.count()
    }

    /// The sequence of the `j`th row of every step.
    pub fn sequence(&self, j: usize) -> usize {
        if self.gathered { self.pieces[j].sequence } else { j }
    }

    /// The row of a state that belongs to the `j`th row of every step at an end of the pass, if there is one.
    pub fn state_row(&self, j: usize, end: End) -> Option<usize> {
        match (self.gathered, end) {
            (false, _) => Some(j),
            (true, End::Initial) => self.pieces[j].initial,
            (true, End::Last) => self.pieces[j].last,
        }
    }

    /// The sequence of the `j`th row of every step, counted in the whole batch.
    pub fn sequence_of_all(&self, j: usize) -> usize {
        self.first + self.sequence(j)
    }

    /// At [`End::Initial`], if the last state of the `j`th row of every step is not in the row of the initial state: the row of the
    /// last state. Nothing reads the initial state in that row.
    pub fn row_read_elsewhere(&self, j: usize, end: End) -> Option<usize> {
        match (end, self.state_row(j, End::Initial), self.state_row(j, End::Last)) {
            (End::Initial, Some(initial), Some(last)) if initial != last => Some(last),
            _ => None,
        }
    }

    /// The number of steps in the piece that the `j`th row of every step belongs to.
    pub fn length(&self, j: usize) -> usize {
        if self.gathered { self.pieces[j].length } else { self.steps }
    }

    /// The time t of the `j`th row of step `s`.
    pub fn time(&self, s: usize, j: usize) -> usize {
        let step = if self.reversed { self.length(j) - 1 - s } else { s };
        if !self.gathered {
            return step;
        }
        let at = self.pieces[j].start + step;
        if self.masked { self.times[at] } else { at }
    }

    /// Each gathered row with its step and its sequence, `(t, b)`.
    fn pairs(&self) -> impl Iterator<Item = (usize, (usize, usize))> {
        (0..self.steps).flat_map(move |s| {
            let rows = self.rows(s..s + 1);
            rows.clone().map(move |row| {
                let j = row - rows.start;
                (row, (self.time(s, j), self.sequence(j)))
            })
        })
    }

    /// `d += dy_s`, with the rows of step `s` taken from their places in dy, `[T, B, D]`.
    pub fn add_step<F: Float>(&self, s: usize, dy: ArrayView3<'_, F>, d: &mut Array2<F>) {
        let step = dy.index_axis_move(Axis(0), self.time(s, 0));
        if let (false, Some(step)) = (self.gathered, step.to_slice()) {
            return add_onto(step, d.as_slice_mut().expect("a buffer in standard layout"));
        }
        for j in 0..self.rows(s..s + 1).len() {
            let from = row_at(dy, self.time(s, j), self.sequence(j));
            match from.to_slice() {
                Some(from) => add_onto(from, rows_of(d, &(j..j + 1))),
                None => d.row_mut(j).zip_mut_with(&from, |d, &dy| *d += dy),
            }
        }
    }

    /// Copies the rows of `x`, `[T, B, D]`, the valid ones or all, to `[R, D]`.
    pub fn gather<F: Float>(&self, x: ArrayView3<'_, F>, to: &mut Array2<F>) {
        reuse(to, (self.count(), x.dim().2));
        if !self.gathered {
            return to.view_mut().into_shape_with_order(x.dim()).expect("T * B rows").assign(&x);
        }
        for (row, (t, b)) in self.pairs() {
            let (from, to) = (row_at(x, t, b), rows_of(to, &(row..row + 1)));
            match from.to_slice() {
                Some(from) => to.copy_from_slice(from),
                None => ArrayViewMut1::from(to).assign(&from),
            }
        }
    }

    /// Copies gathered rows back to their places in `[T, B, D]`; padding stays as it is.
    pub fn scatter<F: Copy>(&self, from: &[F], to: &mut Array3<F>) {
        let (_, batch, width) = to.dim();
        let to = to.as_slice_mut().expect("standard layout");
        for (row, (t, b)) in self.pairs() {
            let at = t * batch + b;
            to[at * width..(at + 1) * width].copy_from_slice(&from[row * width..(row + 1) * width]);
        }
    }
}

/// Row `(t, b)` of `x`, `[T, B, D]`.
fn row_at<F>(x: ArrayView3<'_, F>, t: usize, b: usize) -> ArrayView1<'_, F> {
    x.index_axis_move(Axis(0), t).index_axis_move(Axis(0), b)
}
