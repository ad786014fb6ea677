//! The product of two blocks: tiles swept over panels.
//!
//! ```text
//! for each tile of rows:                   at most 14 (or 6) of them, about equally many each
//!     for each panel of B:                 2 vectors of columns
//!         tile of C += rows of A · panel
//! ```
//!
//! The block of B stays in the L2 cache, the rows of A in the L1 cache, and C is read and written row by row, in memory order.
//! With one panel after the other, each for all rows, products of a few hundred terms took up to 1.5 times as long.
#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};

use super::geometry::{COPY_ROW, MOST_ELEMENTS, NEON, TILE_VECTORS, even_chunks, for_height, geometry, tile_width};
use super::operand::{Base, Output, Strided};
use super::tile::{
    AllRows, CopiedRows, CopiedTiles, InPlace, InPlaceColumns, InPlaceRows, Layout, Operands, finish_row, tile,
};
use crate::kernels::float::Float;
use crate::kernels::once::once;
use crate::kernels::simd::dispatch::dispatch;

/// A block of A.
#[derive(Clone, Copy)]
pub(super) enum Left<F> {
    /// In place, with any strides.
    InPlace(Strided<F>),
    /// Copied to rows [`COPY_ROW`] apart.
    Rows(*const F),
    /// Copied column by column, in the order of the tiles.
    Tiles(*const F),
}

/// A block of B in panels as wide as a tile: element `(p, j)` is at `start + j / width panel + p row + j % width`.
#[derive(Clone, Copy)]
pub(super) struct Right<F> {
    pub start: *const F,
    pub panel: usize,
    pub row: isize,
}

/// A product of blocks: C `[rows, columns]` of A `[rows, depth]` and B `[depth, columns]`, whose shapes were checked.
///
/// The caller of [`multiply_blocks`], "the maker of the block" below, vouches for the addresses.
pub(super) struct Block<F> {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    pub a: Left<F>,
    pub b: Right<F>,
    pub c: Output<F>,
}

once! {
    /// Computes C.
    ///
    /// # Safety
    ///
    /// A, B and the base of C are readable and C is writable, as far as the shapes go, and C does not overlap A, B or a base other
    /// than C itself. Copies have the layouts of [`Left`] and [`Right`].
    pub(super) unsafe fn multiply_blocks<'a, F: Float>(block: Block<F>) {
        dispatch(block)
    }
}

/// The maximum rows of an A in place for which tiles are wide instead of high.
const WIDE_TILES_ROWS: usize = 3;

impl<F: Float> WithSimd for Block<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut first = 0;
        if let (Left::InPlace(a), true) = (self.a, self.rows <= WIDE_TILES_ROWS && self.b.panel == tile_width::<S, F>())
        {
            // B is in place, row by row, and a few rows of A keep the vector units busy only in wide tiles.
            // SAFETY: guaranteed by the maker of the block, also for some of its columns.
            first = unsafe {
                match self.rows {
                    1 => self.sweep_wide::<S, 1, 8>(simd, a),
                    2 => self.sweep_wide::<S, 2, 4>(simd, a),
                    _ => self.sweep_wide::<S, WIDE_TILES_ROWS, 4>(simd, a),
                }
            };
        }
        let most = match self.a {
            Left::InPlace(_) => geometry::<S>().in_place_rows,
            _ => geometry::<S>().tile_rows,
        };
        for (row, rows) in even_chunks(self.rows, most) {
            // SAFETY: guaranteed by the maker of the block, also for one of its tiles.
            unsafe { self.over_panels(simd, row, rows, first) };
        }
    }
}

impl<F: Float> Block<F> {
    /// The tiles of `rows` rows from `row` on, and all columns from `first` on.
    ///
    /// # Safety
    ///
    /// As for [`multiply_blocks`].
    #[inline(always)]
    unsafe fn over_panels<S: Simd>(&self, simd: S, row: usize, rows: usize, first: usize) {
        let (lanes, width) = (F::lanes::<S>(), tile_width::<S, F>());
        let mut panel = self.b.start.wrapping_add(first / width * self.b.panel);
        for column in (first..self.columns).step_by(width) {
            let columns = width.min(self.columns - column);
            let c = self.c.from(row, column);
            let a = match self.a {
                Left::InPlace(a) => a.from(row, 0),
                Left::Rows(start) => Strided { start: start.wrapping_add(row * COPY_ROW), row: 0, column: 0 },
                Left::Tiles(start) => Strided { start: start.wrapping_add(row * self.depth), row: 0, column: 0 },
            };
            let operands = Operands { depth: self.depth, columns, a, b: panel, b_row: self.b.row, c };
            // SAFETY: guaranteed by the maker of the block, also for one of its panels.
            unsafe {
                if columns == width {
                    self.tile::<S, TILE_VECTORS, false>(simd, rows, &operands);
                } else if const { geometry::<S>().by_element } && self.b.panel != width {
                    self.edge_of_copy(simd, rows, &operands);
                } else if const { size_of::<F::Vector<S>>() == size_of::<F>() } {
                    // Without vectors, an edge has one column.
                    self.tile::<S, 1, false>(simd, rows, &operands);
                } else if columns <= lanes {
                    self.tile::<S, 1, true>(simd, rows, &operands);
                } else {
                    self.tile::<S, TILE_VECTORS, true>(simd, rows, &operands);
                }
            }
            panel = panel.wrapping_add(self.b.panel);
        }
    }

    /// A tile of `rows` rows at the end of B. As B is a copy, whole vectors of it can be read, which is faster if there are no masked
    /// instructions.
    ///
    /// # Safety
    ///
    /// As for [`multiply_blocks`].
    #[inline(always)]
    unsafe fn edge_of_copy<S: Simd>(&self, simd: S, rows: usize, operands: &Operands<F>) {
        let mut sums = [[F::zero(); TILE_VECTORS * MOST_ELEMENTS]; NEON.tile_rows];
        let Operands { columns, c, .. } = *operands;
        let row = (TILE_VECTORS * MOST_ELEMENTS) as isize;
        let start = sums.as_flattened_mut().as_mut_ptr();
        let whole = Operands { c: Output { start, row, base: Base::Nothing }, ..*operands };
        // SAFETY: guaranteed by the caller; the output has all columns of the tile.
        unsafe {
            if columns <= F::lanes::<S>() {
                self.tile::<S, 1, false>(simd, rows, &whole);
            } else {
                self.tile::<S, TILE_VECTORS, false>(simd, rows, &whole);
            }
        }
        for (i, sums) in sums[..rows].iter().enumerate() {
            // SAFETY: row i of C, as far as its columns go.
            unsafe { finish_row(sums[..columns].iter(), c.from(i, 0)) };
        }
    }

    /// Computes the columns that tiles of `N` vectors fill, and returns their number; B is in place, row by row.
    ///
    /// # Safety
    ///
    /// As for [`multiply_blocks`]; the block has `R` rows.
    #[inline(always)]
    unsafe fn sweep_wide<S: Simd, const R: usize, const N: usize>(&self, simd: S, a: Strided<F>) -> usize {
        let width = N * F::lanes::<S>();
        let whole = self.columns - self.columns % width;
        for column in (0..whole).step_by(width) {
            let (b, c) = (self.b.start.wrapping_add(column), self.c.from(0, column));
            let operands = Operands { depth: self.depth, columns: width, a, b, b_row: self.b.row, c };
            // SAFETY: guaranteed by the caller, also for some of the columns.
            unsafe { tile::<S, F, AllRows, R, N, false>(simd, &operands) };
        }
        whole
    }

    /// A tile of `rows` rows.
    ///
    /// # Safety
    ///
    /// As for [`multiply_blocks`].
    #[inline(always)]
    unsafe fn tile<S: Simd, const N: usize, const EDGE: bool>(&self, simd: S, rows: usize, operands: &Operands<F>) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self.a {
                Left::InPlace(a) if const { geometry::<S>().by_element } && a.column == 1 => {
                    for_height!(rows, 1, geometry::<S>().in_place_rows, |R| {
                        tile::<S, F, InPlaceRows, R, N, EDGE>(simd, operands)
                    })
                }
                Left::InPlace(a) if const { geometry::<S>().by_element } && a.row == 1 => {
                    for_height!(rows, 1, geometry::<S>().in_place_rows, |R| {
                        tile::<S, F, InPlaceColumns, R, N, EDGE>(simd, operands)
                    })
                }
                Left::InPlace(_) => for_height!(rows, 1, geometry::<S>().in_place_rows, |R| {
                    tile::<S, F, InPlace, R, N, EDGE>(simd, operands)
                }),
                Left::Rows(_) => copied::<S, F, CopiedRows, N, EDGE>(simd, rows, operands),
                Left::Tiles(_) => copied::<S, F, CopiedTiles, N, EDGE>(simd, rows, operands),
            }
        }
    }
}

/// The minimum rows of a tile over a copied block: blocks of few rows are not copied, and in others tiles have more than half of
/// the maximum rows.
pub(super) const fn least_rows<S: Simd>() -> usize {
    geometry::<S>().tile_rows / 2 + 1
}

/// A tile of `rows` rows over a copied block.
///
/// # Safety
///
/// As for [`multiply_blocks`].
#[inline(always)]
unsafe fn copied<S: Simd, F: Float, A: Layout, const N: usize, const EDGE: bool>(
    simd: S,
    rows: usize,
    operands: &Operands<F>,
) {
    for_height!(rows, least_rows::<S>(), geometry::<S>().tile_rows, |R| {
        // SAFETY: guaranteed by the caller.
        unsafe { tile::<S, F, A, R, N, EDGE>(simd, operands) }
    })
}
