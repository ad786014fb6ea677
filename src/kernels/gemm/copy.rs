//! Copies of operands, in the order in which tiles read them.
//!
//! ```text
//! B [depth, columns]  ->  panels [columns / width][depth][width]     8 rows at a time, over all panels
//! A [rows, depth]     ->  rows 528 elements apart                    if its columns are contiguous
//!                     ->  tiles [depth][r] of r rows each            if its rows are: 8 columns at a time, over all tiles
//! ```
//!
//! Operands in the other order are transposed in registers, 8 x 8 (f64: 4 x 4) elements at a time, with NEON 4 x 4 (2 x 2).
#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};

use super::block::least_rows;
use super::geometry::{COPY_ROW, even_chunks, for_height, geometry, tile_width};
use super::operand::Strided;
use crate::kernels::float::Float;
use crate::kernels::once::once;
use crate::kernels::simd::dispatch::{dispatch, out_of_line};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::kernels::simd::vector::prefetch_l2;

/// The number of elements in the panels of a `[depth, columns]` matrix.
pub(super) fn panels_len(depth: usize, columns: usize, width: usize) -> usize {
    depth * columns.next_multiple_of(width)
}

/// The order in which an operand is copied.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// B `[depth, columns]` to panels `[columns / width][depth][width]`. Surplus columns of the last panel stay as they were:
    /// tiles do not use them.
    Panels,
    /// A `[rows, depth]` to rows [`COPY_ROW`] apart.
    Rows,
    /// A `[rows, depth]` to tiles `[depth][r]`, of `r` rows each.
    Tiles,
    /// A `[rows, depth]` to rows without gaps.
    Compact,
}

/// A matrix to copy.
pub(super) struct Copied<'a, F> {
    /// The source.
    pub from: Strided<F>,
    pub rows: usize,
    pub columns: usize,
    pub order: Order,
    pub to: &'a mut [F],
}

once! {
    /// Copies a matrix.
    ///
    /// # Safety
    ///
    /// The matrix is readable.
    pub(super) unsafe fn copy<'a, F: Float>(matrix: Copied<'a, F>) {
        dispatch(matrix)
    }
}

impl<F: Float> WithSimd for Copied<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { from, rows, columns, order, to } = self;
        // SAFETY: the matrix is readable.
        unsafe {
            match order {
                Order::Panels => copy_panels(simd, from, rows, columns, to),
                Order::Rows => copy_rows(simd, from, rows, columns, COPY_ROW, to),
                Order::Compact => copy_rows(simd, from, rows, columns, columns, to),
                Order::Tiles => copy_tiles::<S, F>(from, rows, columns, to),
            }
        }
    }
}

/// # Safety
///
/// B is readable.
#[inline(always)]
unsafe fn copy_panels<S: Simd, F: Float>(simd: S, b: Strided<F>, depth: usize, columns: usize, panels: &mut [F]) {
    /// The number of rows that are copied at a time: they are far apart.
    const ROWS: usize = 8;

    let width = tile_width::<S, F>();
    let panels = &mut panels[..panels_len(depth, columns, width)];
    if depth == 0 {
        return;
    }
    let whole = if b.column == 1 { columns / width } else { 0 };
    let (wide, rest) = panels.split_at_mut(whole * depth * width);
    for first in (0..if whole > 0 { depth } else { 0 }).step_by(ROWS) {
        for (index, panel) in wide.chunks_exact_mut(depth * width).enumerate() {
            for (p, to) in panel.chunks_exact_mut(width).enumerate().skip(first).take(ROWS) {
                let from = b.from(p, index * width).start;
                // SAFETY: it reads `width` elements of row p and writes a row of the panel.
                unsafe {
                    for lane in (0..width).step_by(F::lanes::<S>()) {
                        F::store(simd, to[lane..].as_mut_ptr(), F::load(simd, from.wrapping_add(lane)));
                    }
                }
            }
        }
    }
    for (index, panel) in rest.chunks_exact_mut(depth * width).enumerate() {
        let first = (whole + index) * width;
        // SAFETY: these are the columns of one panel of B.
        unsafe { copy_rows(simd, b.from(0, first), depth, width.min(columns - first), width, panel) };
    }
}

/// Copies a matrix to rows `width` apart.
///
/// # Safety
///
/// The matrix is readable.
#[inline(always)]
pub(crate) unsafe fn copy_rows<S: Simd, F: Float>(
    simd: S,
    from: Strided<F>,
    rows: usize,
    columns: usize,
    width: usize,
    to: &mut [F],
) {
    out_of_line(simd, Rows { from, rows, columns, width, to });
}

/// The arguments of [`copy_rows`].
struct Rows<'a, F> {
    from: Strided<F>,
    rows: usize,
    columns: usize,
    width: usize,
    to: &'a mut [F],
}

impl<F: Float> WithSimd for Rows<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { from, rows, columns, width, to } = self;
        if from.column != 1 {
            // SAFETY: guaranteed by the caller of `copy_rows`.
            return unsafe { transpose(simd, from, rows, columns, width, to) };
        }
        let lanes = F::lanes::<S>();
        let whole = columns - columns % lanes;
        let edge = F::first(simd, columns - whole);
        for (i, to) in to.chunks_mut(width).take(rows).enumerate() {
            let (from, to) = (from.from(i, 0).start, &mut to[..columns]);
            for j in (0..whole).step_by(lanes) {
                // SAFETY: a vector of row i, whose elements are contiguous.
                unsafe { F::store(simd, to[j..].as_mut_ptr(), F::load(simd, from.wrapping_add(j))) };
            }
            if whole < columns {
                let last = to[whole..].as_mut_ptr();
                // SAFETY: the rest of row i.
                unsafe { F::store_first(simd, edge, last, F::load_first(simd, edge, from.wrapping_add(whole))) };
            }
        }
    }
}

/// Copies A `[rows, depth]` to tiles `[depth][r]`, of `r` rows each: fast if its columns are contiguous.
///
/// # Safety
///
/// A is readable.
#[inline(always)]
unsafe fn copy_tiles<S: Simd, F: Float>(a: Strided<F>, rows: usize, depth: usize, copy: &mut [F]) {
    /// The number of columns that are copied at a time, for all tiles: they are far apart.
    const COLUMNS: usize = 8;

    let tiles = even_chunks(rows, geometry::<S>().tile_rows);
    for first in (0..depth).step_by(COLUMNS) {
        let columns = COLUMNS.min(depth - first);
        for (row, rows) in tiles.clone() {
            let tile = &mut copy[row * depth + first * rows..][..columns * rows];
            let a = a.from(row, first);
            for_height!(rows, least_rows::<S>(), geometry::<S>().tile_rows, |R| {
                // SAFETY: a part of A.
                unsafe { copy_tile::<F, R>(a, tile) }
            });
        }
    }
}

/// Copies A `[R, columns]` to `[columns][R]`.
///
/// # Safety
///
/// A is readable.
#[inline(always)]
unsafe fn copy_tile<F: Float, const R: usize>(a: Strided<F>, tile: &mut [F]) {
    let (tile, _) = tile.as_chunks_mut::<R>();
    for (p, to) in tile.iter_mut().enumerate() {
        let from = a.from(0, p);
        // SAFETY: column p.
        unsafe {
            if a.row == 1 {
                *to = from.start.cast::<[F; R]>().read();
            } else {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = F::read(from.from(i, 0).start);
                }
            }
        }
    }
}

/// Copies a matrix of any strides to rows `width` apart: fast if its columns are contiguous.
///
/// # Safety
///
/// The matrix is readable.
#[inline(always)]
unsafe fn transpose<S: Simd, F: Float>(
    _: S,
    matrix: Strided<F>,
    rows: usize,
    columns: usize,
    width: usize,
    to: &mut [F],
) {
    #[allow(unused_mut)]
    let (mut rows_done, mut columns_done) = (0, 0);
    // On x86-64, `dispatch` knows no instruction set between none and AVX2.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if !S::IS_SCALAR && matrix.row == 1 {
        let side = F::SQUARE;
        (rows_done, columns_done) = (rows - rows % side, columns - columns % side);
        assert!(rows_done == 0 || to.len() >= (rows_done - 1) * width + columns_done);
        for j in (0..columns_done).step_by(side) {
            for i in (0..rows_done).step_by(side) {
                let from = matrix.from(i, j);
                // A cache line holds the rows of two squares. Those of the next columns are prefetched.
                if i % (2 * side) == 0 {
                    (side..2 * side).for_each(|k| prefetch_l2(matrix.from(i, j + k).start));
                }
                // SAFETY: this is a square of the matrix and its place in `to`, and the machine has AVX.
                unsafe { F::transpose_square(from.start, from.column, to.as_mut_ptr().add(i * width + j), width) };
            }
        }
    }
    for (i, to) in to.chunks_mut(width).take(rows).enumerate() {
        let from = if i < rows_done { columns_done } else { 0 };
        for (j, to) in to[..columns].iter_mut().enumerate().skip(from) {
            // SAFETY: an element of the matrix.
            *to = unsafe { F::read(matrix.from(i, j).start) };
        }
    }
}
