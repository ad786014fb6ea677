//! Rows of buffers as slices and matrices.

use std::ops::Range;

use ndarray::{ArrayRef, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, Dimension};

use crate::kernels::Float;

/// `values`, any number of rows of `width`, as a matrix.
pub(crate) fn matrix_mut<F: Float>(values: &mut [F], width: usize) -> ArrayViewMut2<'_, F> {
    ArrayViewMut2::from_shape((values.len() / width, width), values).expect("whole rows")
}

/// `values`, any number of rows of `width`, as a matrix.
pub(crate) fn matrix<F: Float>(values: &[F], width: usize) -> ArrayView2<'_, F> {
    ArrayView2::from_shape((values.len() / width, width), values).expect("whole rows")
}

/// The values of a row of a matrix whose rows are contiguous.
#[inline(always)]
pub(crate) fn row_of<F>(row: ArrayView1<'_, F>) -> &[F] {
    row.to_slice().expect("contiguous rows")
}

/// The values of a row of a matrix whose rows are contiguous.
#[inline(always)]
pub(crate) fn row_of_mut<F>(row: ArrayViewMut1<'_, F>) -> &mut [F] {
    row.into_slice().expect("contiguous rows")
}

/// The range of the rows `run` among the values of rows of `width`.
pub(crate) fn span(run: &Range<usize>, width: usize) -> Range<usize> {
    run.start * width..run.end * width
}

/// The rows `run` of a buffer `[T, B, G]` or `[B, G]`, side by side.
pub(crate) fn rows_of<'a, F: Float, D: Dimension>(buffer: &'a mut ArrayRef<F, D>, run: &Range<usize>) -> &'a mut [F] {
    let width = buffer.shape()[buffer.ndim() - 1];
    &mut buffer.as_slice_mut().expect("a buffer in standard layout")[span(run, width)]
}

/// The rows `run` of a matrix. (Slicing does the same, but its cost would be noticeable in each step of a recurrence.)
pub(crate) fn view_of_rows<'a, F>(matrix: ArrayView2<'a, F>, run: &Range<usize>) -> ArrayView2<'a, F> {
    matrix.split_at(Axis(0), run.end).0.split_at(Axis(0), run.start).1
}

/// [`view_of_rows`], for writing.
pub(crate) fn view_mut_of_rows<'a, F>(matrix: ArrayViewMut2<'a, F>, run: &Range<usize>) -> ArrayViewMut2<'a, F> {
    matrix.split_at(Axis(0), run.end).0.split_at(Axis(0), run.start).1
}

/// The values of contiguous rows.
pub(crate) fn values_of<F>(rows: ArrayView2<'_, F>) -> &[F] {
    rows.to_slice().expect("rows side by side")
}

/// [`values_of`], for writing.
pub(crate) fn values_of_mut<F>(rows: ArrayViewMut2<'_, F>) -> &mut [F] {
    rows.into_slice().expect("rows side by side")
}
