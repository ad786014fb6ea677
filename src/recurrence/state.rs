//! The states of cells: as their own types, stacked for a model of several cells, and as columns of one matrix.

use std::fmt;
use std::ops::Range;

use ndarray::{Array, Dimension, Ix2};

use super::schedule::{End, Schedule};
use super::step::CellSizes;
use crate::base::error::check_batch;
use crate::base::tensors::join;
use crate::base::{Tensors, TensorsExt};
use crate::kernels::Float;
use crate::layer::State;
use crate::layer::rows::span;
use crate::parameters;

/// The state of an [`LstmCell`](crate::recurrent::LstmCell), and of any [`Cell`](crate::author::Cell) with one memory.
///
/// For one cell it holds matrices. For a model of several layers and directions (`LstmState<F, Ix3>`) it holds those of its cells
/// along a new first axis, in PyTorch's order.
#[derive(Clone, Debug, PartialEq)]
pub struct LstmState<F, D: Dimension = Ix2> {
    /// The output of the last step, `[B, H]`; with a projection `[B, P]`.
    pub h: Array<F, D>,
    /// The memory, `[B, H]`.
    pub c: Array<F, D>,
}
parameters! { impl<F: Float, D: Dimension> Tensors<F> for LstmState<F, D> { h, c } }

/// A state that can be stacked. A [`Recurrent`](crate::recurrent::Recurrent) model keeps the states of its cells in one value: each
/// tensor `[B, ..]` of a cell's state gets a new first axis, `[cells, B, ..]`.
///
/// | of a cell | of a model |
/// | --- | --- |
/// | `Array2<F>` | `Array3<F>` |
/// | [`LstmState<F>`](LstmState) | `LstmState<F, Ix3>` |
///
/// Your own state type can be generic over the number of its axes, or have a second type for models:
///
/// ```
/// use gradflow::ndarray::{Array, Dimension, Ix2, Ix3};
/// use gradflow::{Float, TensorsExt, parameters, author::StackState};
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Triple<F, D: Dimension = Ix2> { h: Array<F, D>, c: Array<F, D>, n: Array<F, D> }
/// parameters! { impl<F: Float, D: Dimension> Tensors<F> for Triple<F, D> { h, c, n } }
///
/// impl<F: Float> StackState<F> for Triple<F> {
///     type Stacked = Triple<F, Ix3>;
///
///     fn stack(&self, cells: usize) -> Triple<F, Ix3> {
///         Triple { h: self.h.stack(cells), c: self.c.stack(cells), n: self.n.stack(cells) }
///     }
/// }
///
/// let zero = || Array::<f32, Ix2>::zeros((2, 4)); // B = 2
/// let stacked = Triple { h: zero(), c: zero(), n: zero() }.stack(3);
/// assert_eq!(stacked.shape(2), [3, 2, 4]);
/// ```
pub trait StackState<F: Float>: State<F> {
    /// The states of several cells.
    type Stacked: State<F>;

    /// `cells` copies of this state: its tensors in the same order, each along a new first axis.
    fn stack(&self, cells: usize) -> Self::Stacked;
}

impl<F: Float, D: Dimension> StackState<F> for Array<F, D> {
    type Stacked = Array<F, D::Larger>;

    fn stack(&self, cells: usize) -> Self::Stacked {
        let mut shape = D::Larger::zeros(self.ndim() + 1);
        shape.slice_mut()[0] = cells;
        shape.slice_mut()[1..].copy_from_slice(self.shape());
        self.broadcast(shape).expect("a new first axis").to_owned()
    }
}

impl<F: Float, D: Dimension> StackState<F> for LstmState<F, D> {
    type Stacked = LstmState<F, D::Larger>;

    fn stack(&self, cells: usize) -> Self::Stacked {
        LstmState { h: self.h.stack(cells), c: self.c.stack(cells) }
    }
}

/// Whether `state` fits cells of these sizes: h has the shape `leading` and then O, and the memory has M values in all. `leading`
/// is `[B]`, or `[cells, B]`.
pub(crate) fn fits<F: Float>(state: &(impl Tensors<F> + ?Sized), leading: &[usize], sizes: CellSizes) -> bool {
    let rest = |i| state.shape(i).strip_prefix(leading);
    let width = |i| rest(i).map(|axes| axes.iter().product::<usize>());
    state.count() > 0
        && rest(0) == Some(&[sizes.output])
        && (1..state.count()).map(width).sum::<Option<usize>>() == Some(sizes.memory)
}

/// Panics about a state that does not [fit](fits) an input of `x` steps and sequences; `expected` is the cell's initial state.
#[cold]
#[track_caller]
pub(crate) fn refuse_state<F: Float>(
    name: &str,
    what: &str,
    x: (usize, usize),
    expected: &(impl Tensors<F> + ?Sized),
    got: &(impl Tensors<F> + ?Sized),
) -> ! {
    let (count, other) = (expected.count(), got.count());
    assert!(count == other, "{name}: {what}: expected {count} tensors, got {other}");
    for i in 0..count {
        check_batch(name, &join(what, expected.name(i)), x, expected.shape(i), got.shape(i));
    }
    panic!("{name}: initial_state: expected h, [B, O], and a memory as large as `sizes` says")
}

/// Where a cell's state lies in tensors `[B, ..]`, or `[cells, B, ..]` if the states of several cells are stacked.
#[derive(Clone, Debug)]
struct Place {
    is_stacked: bool,
    cell: usize,
    cells: usize,
    batch: usize,
    /// Some of the B rows.
    rows: Range<usize>,
}

impl Place {
    /// The number of values per sequence in a tensor of `len` values.
    fn width(&self, len: usize) -> usize {
        len / (self.cells * self.batch)
    }

    /// The range of the cell's values for these rows in a tensor of `len` values.
    fn values(&self, len: usize) -> Range<usize> {
        let first = self.cell * self.batch;
        span(&(first + self.rows.start..first + self.rows.end), self.width(len))
    }

    /// Keeps only `rows`, counted from the first of the present rows.
    #[cfg(feature = "rayon")]
    fn narrow(&mut self, rows: Range<usize>) {
        let first = self.rows.start;
        self.rows = first + rows.start..first + rows.end;
    }
}

/// A view of a cell's state: tensor 0 is h, the others are the memory.
#[derive(Clone)]
pub struct StateView<'a, F> {
    tensors: &'a (dyn Tensors<F> + Sync + 'a),
    place: Place,
}

/// A mutable view of a cell's state.
pub struct StateViewMut<'a, F> {
    tensors: &'a mut (dyn Tensors<F> + Send + Sync + 'a),
    place: Place,
}

impl<'a, F: Float> StateView<'a, F> {
    /// h, `[B, O]`.
    pub(super) fn h(&self) -> Columns<'_, F> {
        Columns { state: self, tensors: 0..1 }
    }

    /// The memory, `[B, M]`.
    pub(super) fn memory(&self) -> Columns<'_, F> {
        Columns { state: self, tensors: 1..self.tensors.count() }
    }

    /// A view of `rows`, counted from the first of the present rows.
    #[cfg(feature = "rayon")]
    pub(super) fn rows(mut self, rows: Range<usize>) -> Self {
        self.place.narrow(rows);
        self
    }
}

impl<'a, F: Float> StateViewMut<'a, F> {
    /// All of `state`, which has `batch` rows: see [`Sequence::state_rows`](crate::Sequence::state_rows).
    pub(crate) fn new(state: &'a mut (impl Tensors<F> + Send + Sync), batch: usize) -> Self {
        let place = Place { is_stacked: false, cell: 0, cells: 1, batch, rows: 0..batch };
        StateViewMut { tensors: state, place }
    }

    /// The state of one of several cells, whose states are [stacked](StackState).
    pub(crate) fn of_cell(
        stacked: &'a mut (impl Tensors<F> + Send + Sync),
        cell: usize,
        cells: usize,
        batch: usize,
    ) -> Self {
        StateViewMut { tensors: stacked, place: Place { is_stacked: true, cell, cells, batch, rows: 0..batch } }
    }

    /// The same state, borrowed for a shorter time.
    pub(crate) fn reborrow(&mut self) -> StateViewMut<'_, F> {
        StateViewMut { tensors: &mut *self.tensors, place: self.place.clone() }
    }

    /// A read-only view.
    pub(super) fn view(&self) -> StateView<'_, F> {
        StateView { tensors: &*self.tensors, place: self.place.clone() }
    }

    /// The number of rows of a cell's state.
    pub(super) fn batch(&self) -> usize {
        self.place.batch
    }

    /// The tensors, of all cells.
    pub(super) fn tensors(&self) -> &dyn Tensors<F> {
        &*self.tensors
    }

    /// Whether it [fits](fits) a cell of these sizes.
    pub(super) fn fits(&self, sizes: CellSizes) -> bool {
        let Place { is_stacked, cells, batch, .. } = self.place;
        let leading = [cells, batch];
        fits(&*self.tensors, if is_stacked { &leading } else { &leading[1..] }, sizes)
    }

    /// h, `[B, O]`.
    pub(super) fn h(&mut self) -> ColumnsMut<'_, 'a, F> {
        ColumnsMut { state: self, tensors: 0..1 }
    }

    /// The memory, `[B, M]`.
    pub(super) fn memory(&mut self) -> ColumnsMut<'_, 'a, F> {
        let tensors = 1..self.tensors.count();
        ColumnsMut { state: self, tensors }
    }

    /// A view of some of the B rows.
    #[cfg(feature = "rayon")]
    pub(super) fn rows(&mut self, rows: Range<usize>) -> StateViewMut<'_, F> {
        let place = Place { rows, ..self.place.clone() };
        StateViewMut { tensors: &mut *self.tensors, place }
    }
}

impl<F> fmt::Debug for StateView<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateView").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for StateViewMut<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateViewMut").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Tensors of a state side by side, as one matrix: a tensor `[B, ..]` takes one column for each value of a sequence.
pub(super) struct Columns<'a, F> {
    state: &'a StateView<'a, F>,
    tensors: Range<usize>,
}

impl<F: Float> Columns<'_, F> {
    /// Copies the states at an end of a pass to `rows`, `[B, ·]`, in the order of `schedule`; a row that has no state is set to
    /// zero.
    pub fn read(&self, schedule: &Schedule, end: End, rows: &mut [F]) {
        let StateView { tensors, place } = self.state;
        let (all, mut column) = (rows.len() / schedule.batch(), 0);
        for i in self.tensors.clone() {
            let values = tensors.values(i);
            let (width, values) = (place.width(values.len()), &values[place.values(values.len())]);
            if width == all && !schedule.gathered() {
                return rows.copy_from_slice(values);
            }
            for j in 0..schedule.batch() {
                let row = &mut rows[j * all + column..][..width];
                match schedule.state_row(j, end) {
                    Some(from) => row.copy_from_slice(&values[from * width..(from + 1) * width]),
                    None => row.fill(F::zero()),
                }
            }
            column += width;
        }
    }
}

/// [`Columns`] to be written.
pub(super) struct ColumnsMut<'s, 'a, F> {
    state: &'s mut StateViewMut<'a, F>,
    tensors: Range<usize>,
}

impl<F: Float> ColumnsMut<'_, '_, F> {
    /// Copies rows of `all` values to the states at an end of a pass: row `at(j)` of `values` goes to the state of the `j`th row of
    /// every step.
    pub fn write(self, schedule: &Schedule, end: End, all: usize, values: &[F], at: impl Fn(usize) -> usize) {
        let StateViewMut { tensors, place } = self.state;
        let mut column = 0;
        for i in self.tensors {
            let own = tensors.tensor_mut(i);
            let (width, place) = (place.width(own.len()), place.values(own.len()));
            let own = &mut own[place];
            if width == all && !schedule.gathered() {
                return own.copy_from_slice(&values[span(&(at(0)..at(0) + schedule.batch()), all)]);
            }
            for j in 0..schedule.batch() {
                let Some(to) = schedule.state_row(j, end) else { continue };
                let row = at(j) * all + column;
                if let Some(read) = schedule.row_read_elsewhere(j, end) {
                    own[read * width..(read + 1) * width].fill(F::zero());
                }
                own[to * width..(to + 1) * width].copy_from_slice(&values[row..row + width]);
            }
            column += width;
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3, Array4};

    use super::*;

    fn counted<D: Dimension>(mut array: Array<f64, D>, from: f64) -> Array<f64, D> {
        array.iter_mut().zip(0..).for_each(|(value, k)| *value = from + f64::from(k));
        array
    }

    /// A memory of two tensors, the second of matrices.
    #[derive(Clone)]
    struct Mixed {
        h: Array3<f64>,
        n: Array3<f64>,
        s: Array4<f64>,
    }
    parameters! { impl Tensors<f64> for Mixed { h, n, s } }

    #[test]
    fn tensors_of_a_memory_are_columns_of_one_matrix() {
        let (cells, batch) = (2, 3);
        let mut state = Mixed {
            h: counted(Array3::zeros((cells, batch, 2)), 0.0),
            n: counted(Array3::zeros((cells, batch, 1)), 100.0),
            s: counted(Array4::zeros((cells, batch, 2, 2)), 200.0),
        };
        let sizes = CellSizes { name: "Mixed", input: 1, output: 2, memory: 5 };
        assert!(fits(&state, &[cells, batch], sizes));
        assert!(!fits(&state, &[cells, batch], CellSizes { memory: 4, ..sizes }));
        assert!(!fits(&state, &[batch, cells], sizes));

        let x = Array3::<f64>::zeros((4, batch, 1));
        let lengths = [2, 4, 1];
        for (lengths, order) in [(None, [0, 1, 2]), (Some(&lengths[..]), [1, 0, 2])] {
            let mut x = crate::layer::Sequence::from(&x);
            if let Some(lengths) = lengths {
                x = x.with_lengths(lengths).unwrap();
            }
            let mut schedule = Schedule::default();
            schedule.plan(&x);
            let before = state.clone();
            let mut view = StateViewMut::of_cell(&mut state, 1, cells, batch);
            let mut rows = vec![0.0; batch * 5];
            view.view().memory().read(&schedule, End::Initial, &mut rows);
            for (row, b) in rows.chunks_exact(5).zip(order) {
                let s = 200.0 + 4.0 * (3 + b) as f64;
                assert_eq!(row, [100.0 + (3 + b) as f64, s, s + 1.0, s + 2.0, s + 3.0]);
            }
            view.memory().write(&schedule, End::Last, 5, &rows, |j| j);
            assert_eq!((&state.n, &state.s), (&before.n, &before.s));

            let mut view = StateViewMut::of_cell(&mut state, 1, cells, batch);
            view.h().write(&schedule, End::Last, 2, &[1.0, 1.5, 2.0, 2.5, 3.0, 3.5], |j| j);
            let mut expected = Array2::zeros((batch, 2));
            for (j, b) in order.into_iter().enumerate() {
                expected.row_mut(b).assign(&ndarray::arr1(&[1.0 + j as f64, 1.5 + j as f64]));
            }
            assert_eq!(state.h.index_axis(ndarray::Axis(0), 1), expected);
            assert_eq!(state.h.index_axis(ndarray::Axis(0), 0), before.h.index_axis(ndarray::Axis(0), 0));
        }
    }

    #[test]
    fn a_stacked_state_is_in_standard_layout() {
        let state = LstmState { h: counted(Array2::zeros((2, 3)), 1.0), c: counted(Array2::zeros((2, 4)), 7.0) };
        for cells in [1, 3] {
            let stacked = state.stack(cells);
            assert_eq!((stacked.shape(0), stacked.shape(1)), (&[cells, 2, 3][..], &[cells, 2, 4][..]));
            for k in 0..cells {
                assert_eq!(stacked.h.index_axis(ndarray::Axis(0), k), state.h);
                assert_eq!(stacked.c.index_axis(ndarray::Axis(0), k), state.c);
            }
        }
    }
}
