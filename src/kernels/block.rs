//! Products of blocks, by sweeps of tiles.
#![allow(unsafe_code)]

use pulp::Simd;

use super::tile::{Output, Strided, dots, registers, tile};
use crate::float::Float;

/// The most rows of C in a tile: with them, 24 of 32 registers or 12 of 16 accumulate.
const ROWS: usize = 6;

/// A block of A.
#[derive(Clone, Copy)]
pub(super) enum Left<F> {
    /// Where it is.
    Strided(Strided<F>),
    /// In the order of the tiles, as by [`pack_rows`](super::pack::pack_rows).
    Packed(*const F),
}

/// A block of B in panels of [`width`](super::tile::width) columns: element `(p, j)` is at
/// `start + j / width panel + p row + j % width`.
#[derive(Clone, Copy)]
pub(super) struct Right<F> {
    pub(super) start: *const F,
    pub(super) panel: usize,
    pub(super) row: isize,
}

/// A product of blocks: C `[rows, columns]` of A `[rows, depth]` and B `[depth, columns]`.
pub(super) struct Block<F> {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) a: Left<F>,
    pub(super) b: Right<F>,
    pub(super) c: Output<F>,
}

impl<F: Float> Block<F> {
    /// Computes C, one panel of B after the other.
    ///
    /// # Safety
    ///
    /// A and B are readable as described, and C is writable and overlaps neither.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd>(&self, simd: S) {
        // SAFETY: as the caller says.
        unsafe {
            if registers::<S>() == 4 {
                self.sweep_panels::<S, 4>(simd);
            } else {
                self.sweep_panels::<S, 2>(simd);
            }
        }
    }

    /// # Safety
    ///
    /// As [`multiply`](Self::multiply).
    #[inline(always)]
    unsafe fn sweep_panels<S: Simd, const N: usize>(&self, simd: S) {
        let lanes = F::lanes::<S>();
        let mut panel = self.b.start;
        for column in (0..self.columns).step_by(N * lanes) {
            let columns = (N * lanes).min(self.columns - column);
            let c = self.c.from(0, column);
            // SAFETY: one of the panels.
            unsafe {
                match columns.div_ceil(lanes) {
                    _ if columns == N * lanes => self.sweep_rows::<S, N, false>(simd, columns, panel, c),
                    1 => self.sweep_rows::<S, 1, true>(simd, columns, panel, c),
                    2 => self.sweep_rows::<S, 2, true>(simd, columns, panel, c),
                    3 => self.sweep_rows::<S, 3, true>(simd, columns, panel, c),
                    _ => self.sweep_rows::<S, 4, true>(simd, columns, panel, c),
                }
            }
            panel = panel.wrapping_add(self.b.panel);
        }
    }

    /// # Safety
    ///
    /// As [`multiply`](Self::multiply), for one panel.
    #[inline(always)]
    unsafe fn sweep_rows<S: Simd, const N: usize, const EDGE: bool>(
        &self,
        simd: S,
        columns: usize,
        panel: *const F,
        c: Output<F>,
    ) {
        for (row, rows) in tiles(self.rows) {
            let a = match self.a {
                Left::Strided(a) => a.from(row, 0),
                Left::Packed(start) => {
                    Strided { start: start.wrapping_add(row * self.depth), row: 1, column: rows as isize }
                }
            };
            let c = c.from(row, 0);
            let (depth, b_row) = (self.depth, self.b.row);
            // SAFETY: one of the tiles.
            unsafe {
                match rows {
                    1 => tile::<S, F, 1, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    2 => tile::<S, F, 2, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    3 => tile::<S, F, 3, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    4 => tile::<S, F, 4, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    5 => tile::<S, F, 5, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    _ => tile::<S, F, ROWS, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                }
            }
        }
    }
}

/// The first row and the number of rows of each tile of C: as few tiles as can be, of about as many rows each.
pub(super) fn tiles(rows: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let count = rows.div_ceil(ROWS);
    let mut row = 0;
    (0..count).map(move |tile| {
        let first = row;
        row += (rows - first).div_ceil(count - tile);
        (first, row - first)
    })
}

/// C of A and B by dot products, of a few rows of A and a few columns of B at a time.
///
/// # Safety
///
/// A `[rows, depth]` is readable with contiguous rows, `b_transposed` `[columns, depth]` too, and C `[rows, columns]`
/// is writable and overlaps neither.
#[inline(always)]
pub(super) unsafe fn multiply_by_dots<S: Simd, F: Float>(
    simd: S,
    (rows, depth, columns): (usize, usize, usize),
    a: Strided<F>,
    b_transposed: Strided<F>,
    c: Output<F>,
) {
    let mut first = 0;
    if rows == 1 {
        // As many sums at a time as for several rows, to keep the vector units busy.
        while first + 8 <= columns {
            let (b, c) = (b_transposed.from(first, 0), c.from(0, first));
            // SAFETY: eight of the columns.
            unsafe { dots::<S, F, 1, 8>(simd, depth, a, b, c) };
            first += 8;
        }
    }
    for column in (first..columns).step_by(4) {
        let (b, c) = (b_transposed.from(column, 0), c.from(0, column));
        // SAFETY: some of the columns.
        unsafe {
            match columns - column {
                1 => dot_columns::<S, F, 1>(simd, rows, depth, a, b, c),
                2 => dot_columns::<S, F, 2>(simd, rows, depth, a, b, c),
                3 => dot_columns::<S, F, 3>(simd, rows, depth, a, b, c),
                _ => dot_columns::<S, F, 4>(simd, rows, depth, a, b, c),
            }
        }
    }
}

/// # Safety
///
/// As [`multiply_by_dots`], for `N` columns.
#[inline(always)]
unsafe fn dot_columns<S: Simd, F: Float, const N: usize>(
    simd: S,
    rows: usize,
    depth: usize,
    a: Strided<F>,
    b_transposed: Strided<F>,
    c: Output<F>,
) {
    for row in (0..rows).step_by(4) {
        let (a, c) = (a.from(row, 0), c.from(row, 0));
        // SAFETY: some of the rows.
        unsafe {
            match rows - row {
                1 => dots::<S, F, 1, N>(simd, depth, a, b_transposed, c),
                2 => dots::<S, F, 2, N>(simd, depth, a, b_transposed, c),
                3 => dots::<S, F, 3, N>(simd, depth, a, b_transposed, c),
                _ => dots::<S, F, 4, N>(simd, depth, a, b_transposed, c),
            }
        }
    }
}
