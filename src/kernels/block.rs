//! Products of blocks, by sweeps of tiles.
#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};

use super::float::Float;
use super::tile::{Output, REGISTERS, Strided, most_rows, tile};

/// A block of A.
#[derive(Clone, Copy)]
pub(super) enum Left<F> {
    /// Where it is, for tiles of at most [`Left::STRIDED_ROWS`] rows: more addresses would not fit into registers.
    Strided(Strided<F>),
    /// Copied to rows [`Left::ROW`] apart: a number that the compiler knows, so that one register addresses all rows.
    Rows(*const F),
    /// Column by column in the order of the tiles, as by [`pack_tiles`](super::pack::pack_tiles).
    Tiles(*const F),
}

impl<F> Left<F> {
    /// Not a multiple of a page, which would put all rows into the same lines of the first cache.
    pub(super) const ROW: usize = super::blocked::BLOCK_DEPTH + 16;

    pub(super) const STRIDED_ROWS: usize = 8;

    /// The most rows of a tile.
    fn most_rows<S: Simd>(&self) -> usize {
        match self {
            Left::Strided(_) => most_rows::<S>().min(Self::STRIDED_ROWS),
            _ => most_rows::<S>(),
        }
    }
}

/// A block of B in panels of [`width`](super::tile::width) columns: element `(p, j)` is at
/// `start + j / width panel + p row + j % width`.
#[derive(Clone, Copy)]
pub(super) struct Right<F> {
    pub(super) start: *const F,
    pub(super) panel: usize,
    pub(super) row: isize,
}

/// A product of blocks: C `[rows, columns]` of A `[rows, depth]` and B `[depth, columns]`, whose shapes were checked.
pub struct Block<F> {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) a: Left<F>,
    pub(super) b: Right<F>,
    pub(super) c: Output<F>,
}

/// Computes C, a tile of rows after the other, each through all panels of B: the block of B stays in the second cache, the
/// rows of A in the first, and C is read and written row by row as it lies.
impl<F: Float> WithSimd for Block<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = F::lanes::<S>();
        let mut first = 0;
        if let (Left::Strided(a), true) = (self.a, self.rows <= 3 && self.b.panel == REGISTERS * lanes) {
            // B lies where it was, row by row, and a few rows of A keep the vector units busy only in wide tiles.
            // SAFETY: as the maker of the block says, which holds for columns of it.
            first = unsafe {
                match self.rows {
                    1 => self.sweep_wide::<S, 1, 8>(simd, a),
                    2 => self.sweep_wide::<S, 2, 4>(simd, a),
                    _ => self.sweep_wide::<S, 3, 4>(simd, a),
                }
            };
        }
        for (row, rows) in tiles(self.rows, self.a.most_rows::<S>()) {
            // SAFETY: as the maker of the block says, for one of the tiles.
            unsafe { self.over_panels(simd, row, rows, first) };
        }
    }
}

impl<F: Float> Block<F> {
    /// The tiles of `rows` rows from `row` on, and all columns from `first` on.
    ///
    /// # Safety
    ///
    /// As the maker of the block says.
    #[inline(always)]
    unsafe fn over_panels<S: Simd>(&self, simd: S, row: usize, rows: usize, first: usize) {
        let lanes = F::lanes::<S>();
        let mut panel = self.b.start.wrapping_add(first / (REGISTERS * lanes) * self.b.panel);
        for column in (first..self.columns).step_by(REGISTERS * lanes) {
            let columns = (REGISTERS * lanes).min(self.columns - column);
            let c = self.c.from(row, column);
            // SAFETY: as the maker of the block says, which holds for one of the panels.
            unsafe {
                match columns.div_ceil(lanes) {
                    _ if columns == REGISTERS * lanes => {
                        self.tile::<S, REGISTERS, false>(simd, row, rows, columns, panel, c);
                    }
                    1 => self.tile::<S, 1, true>(simd, row, rows, columns, panel, c),
                    _ => self.tile::<S, REGISTERS, true>(simd, row, rows, columns, panel, c),
                }
            }
            panel = panel.wrapping_add(self.b.panel);
        }
    }

    /// Computes the columns that tiles of `N` registers fill, and gives their number; B lies row by row.
    ///
    /// # Safety
    ///
    /// As the maker of the block says; it has `R` rows.
    #[inline(always)]
    unsafe fn sweep_wide<S: Simd, const R: usize, const N: usize>(&self, simd: S, a: Strided<F>) -> usize {
        let width = N * F::lanes::<S>();
        let whole = self.columns - self.columns % width;
        for column in (0..whole).step_by(width) {
            let (b, c) = (self.b.start.wrapping_add(column), self.c.from(0, column));
            // SAFETY: as the caller says, for some of the columns.
            unsafe { tile::<S, F, R, N, false, false>(simd, self.depth, width, a, b, self.b.row, c) };
        }
        whole
    }

    /// A tile of `rows` rows from `row` on.
    ///
    /// # Safety
    ///
    /// As the maker of the block says.
    #[inline(always)]
    unsafe fn tile<S: Simd, const N: usize, const EDGE: bool>(
        &self,
        simd: S,
        row: usize,
        rows: usize,
        columns: usize,
        panel: *const F,
        c: Output<F>,
    ) {
        let (depth, b_row) = (self.depth, self.b.row);
        macro_rules! tile {
            ($a:expr, $fetch:literal; $($rows:literal)+) => {
                match rows {
                    // SAFETY: as the caller says, for one of the tiles.
                    $($rows => unsafe {
                        tile::<S, F, $rows, N, EDGE, $fetch>(simd, depth, columns, $a($rows), panel, b_row, c)
                    },)+
                    _ => unreachable!("tiles of {rows} rows"),
                }
            };
        }
        match self.a {
            Left::Strided(a) => {
                let a = |_: usize| a.from(row, 0);
                if most_rows::<S>() < Left::<F>::STRIDED_ROWS {
                    tile!(a, true; 1 2 3 4 5 6);
                } else {
                    tile!(a, true; 1 2 3 4 5 6 7 8);
                }
            }
            Left::Rows(start) => {
                let start = start.wrapping_add(row * Left::<F>::ROW);
                let a = |_: usize| Strided { start, row: Left::<F>::ROW as isize, column: 1 };
                if most_rows::<S>() == 14 {
                    tile!(a, false; 8 9 10 11 12 13 14);
                } else {
                    tile!(a, false; 4 5 6);
                }
            }
            Left::Tiles(start) => {
                let start = start.wrapping_add(row * depth);
                let a = |rows: usize| Strided { start, row: 1, column: rows as isize };
                if most_rows::<S>() == 14 {
                    tile!(a, false; 8 9 10 11 12 13 14);
                } else {
                    tile!(a, false; 4 5 6);
                }
            }
        }
    }
}

/// The first row and the number of rows of each tile of C: as few tiles as can be, of about as many rows each. Above
/// `most` rows, tiles have more than half of `most`.
pub(super) fn tiles(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let count = rows.div_ceil(most);
    let mut row = 0;
    (0..count).map(move |tile| {
        let first = row;
        // Mostly it is the only one, and a division takes as long as a few tiles' terms.
        row += if count - tile == 1 { rows - first } else { (rows - first).div_ceil(count - tile) };
        (first, row - first)
    })
}
