//! The innermost loop: a tile of C, `R` rows by `N` vectors, in registers.
//!
//! ```text
//! sums[R][N] = 0
//! for p in 0..depth:
//!     b[N] = row p of B                 N loads, each used R times; the row 8 further on is prefetched
//!     for i in 0..R:
//!         sums[i] += A[i, p] b          one broadcast for N multiply-adds
//! C = base + sums
//! ```
//!
//! The largest tile has 14 x 2 accumulators of 32 registers, or 6 x 2 of 16. A and B are read from the copies that
//! [`copy`](super::copy) makes, or in place. Each tile is a [separate function](out_of_line).
#![allow(unsafe_code)]

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use super::geometry::{COPY_ROW, LINE_BYTES, MOST_ELEMENTS, ROWS_AHEAD, geometry, tile_width};
use super::operand::{Base, Output, Strided};
use crate::kernels::float::Float;
use crate::kernels::simd::dispatch::out_of_line;
use crate::kernels::simd::vector::{prefetch_l1, prefetch_l2};

/// The memory layout of A, as far as a tile of `R` rows is compiled for it.
pub(super) trait Layout {
    /// Whether the next `R` rows of A's matrix are prefetched meanwhile; its rows are contiguous and perhaps far away.
    const FETCHES_NEXT: bool = false;

    /// Which elements of A are known to be contiguous.
    const CONTIGUOUS: Contiguous = Contiguous::Unknown;

    /// Whether A is a copy: then B is one too, in panels as wide as a tile.
    const IS_COPY: bool = false;

    /// A, with the strides that are known at compile time.
    fn strides<F, const R: usize>(a: Strided<F>) -> Strided<F>;
}

/// The elements of A that are contiguous, so that they can be loaded as vectors.
pub(super) enum Contiguous {
    Unknown,
    Rows,
    Columns,
}

/// In place, with any strides.
pub(super) struct InPlace;

impl Layout for InPlace {
    const FETCHES_NEXT: bool = cfg!(target_arch = "x86_64");

    #[inline(always)]
    fn strides<F, const R: usize>(a: Strided<F>) -> Strided<F> {
        a
    }
}

/// In place, with contiguous rows.
pub(super) struct InPlaceRows;

impl Layout for InPlaceRows {
    const CONTIGUOUS: Contiguous = Contiguous::Rows;

    #[inline(always)]
    fn strides<F, const R: usize>(a: Strided<F>) -> Strided<F> {
        Strided { column: 1, ..a }
    }
}

/// In place, with contiguous columns.
pub(super) struct InPlaceColumns;

impl Layout for InPlaceColumns {
    const CONTIGUOUS: Contiguous = Contiguous::Columns;

    #[inline(always)]
    fn strides<F, const R: usize>(a: Strided<F>) -> Strided<F> {
        Strided { row: 1, ..a }
    }
}

/// In place, with any strides; there are no other rows.
pub(super) struct AllRows;

impl Layout for AllRows {
    #[inline(always)]
    fn strides<F, const R: usize>(a: Strided<F>) -> Strided<F> {
        a
    }
}

/// Copied to rows [`COPY_ROW`] apart, so that one register addresses all of them.
pub(super) struct CopiedRows;

impl Layout for CopiedRows {
    const CONTIGUOUS: Contiguous = Contiguous::Rows;
    const IS_COPY: bool = true;

    #[inline(always)]
    fn strides<F, const R: usize>(a: Strided<F>) -> Strided<F> {
        Strided { start: a.start, row: COPY_ROW as isize, column: 1 }
    }
}

/// Copied column by column, in the order of the tiles.
pub(super) struct CopiedTiles;

impl Layout for CopiedTiles {
    const CONTIGUOUS: Contiguous = Contiguous::Columns;
    const IS_COPY: bool = true;

    #[inline(always)]
    fn strides<F, const R: usize>(a: Strided<F>) -> Strided<F> {
        Strided { start: a.start, row: 1, column: R as isize }
    }
}

/// The operands of a tile: A `[R, depth]`, B `[depth, columns]` with rows `b_row` apart, C `[R, columns]`.
pub(super) struct Operands<F> {
    pub depth: usize,
    pub columns: usize,
    pub a: Strided<F>,
    pub b: *const F,
    pub b_row: isize,
    pub c: Output<F>,
}

/// `C <- base + A B` for `R` rows and `N` vectors of columns, of which the last is cut off after `columns` if `EDGE`.
///
/// # Safety
///
/// A `[R, depth]` is readable, B `[depth, columns]` too (`columns = N lanes` unless `EDGE`), and C `[R, columns]` is writable
/// and overlaps neither; a row that is its base is readable.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, F: Float, A: Layout, const R: usize, const N: usize, const EDGE: bool>(
    simd: S,
    operands: &Operands<F>,
) {
    out_of_line(simd, Tile::<F, A, R, N, EDGE>(operands, PhantomData));
}

struct Tile<'a, F, A, const R: usize, const N: usize, const EDGE: bool>(&'a Operands<F>, PhantomData<A>);

impl<F: Float, A: Layout, const R: usize, const N: usize, const EDGE: bool> WithSimd for Tile<'_, F, A, R, N, EDGE> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
    fn with_simd<S: Simd>(self, simd: S) {
        let Operands { depth, columns, a, mut b, b_row, c } = *self.0;
        let a = A::strides::<F, R>(a);
        let lanes = F::lanes::<S>();
        // Loads at constant offsets from one address are combined in pairs.
        let b_row =
            if const { geometry::<S>().by_element && A::IS_COPY } { tile_width::<S, F>() as isize } else { b_row };
        // The last vector of a row may be cut off.
        let edge = if EDGE { Some(F::first(simd, columns.wrapping_sub((N - 1) * lanes))) } else { None };
        let load = |from: *const F, j: usize| {
            // SAFETY: the callers below pass a row of `columns` elements.
            unsafe {
                match edge {
                    Some(edge) if j == N - 1 => F::load_first(simd, edge, from),
                    _ => F::load(simd, from),
                }
            }
        };

        prefetch_output::<S, F, R, N>(c);
        let mut sums = [[F::splat(simd, F::zero()); N]; R];
        let mut a_column = a.start;
        macro_rules! add_factor {
            ($i:expr, $a:expr, $b:expr) => {
                for j in 0..N {
                    sums[$i][j] = F::fused(simd, $a, $b[j], sums[$i][j]);
                }
            };
        }
        macro_rules! add_term {
            () => {
                let mut b_vectors = [F::splat(simd, F::zero()); N];
                for j in 0..N {
                    // Row p of B.
                    b_vectors[j] = load(b.wrapping_add(j * lanes), j);
                    prefetch_l1(b.wrapping_offset(b_row.wrapping_mul(ROWS_AHEAD)).wrapping_add(j * lanes));
                }
                if const { geometry::<S>().by_element && matches!(A::CONTIGUOUS, Contiguous::Columns) } && R >= lanes {
                    for i in 0..R {
                        // Each vector is loaded once for all its rows; the last begins earlier, so that it stays within the column.
                        let first = (i - i % lanes).min(R - lanes);
                        // SAFETY: `lanes` of the R elements of column p.
                        let a = unsafe { F::load_factors(simd, a_column.wrapping_add(first)) };
                        add_factor!(i, F::splat_element(simd, a, i - first), b_vectors);
                    }
                } else {
                    for i in 0..R {
                        let from = a_column.wrapping_offset((i as isize).wrapping_mul(a.row));
                        // SAFETY: element (i, p) of A, with p < depth.
                        let a = F::splat(simd, unsafe { F::read(from) });
                        add_factor!(i, a, b_vectors);
                    }
                }
                a_column = a_column.wrapping_offset(a.column);
                b = b.wrapping_offset(b_row);
            };
        }
        let unroll = const { geometry::<S>().tile_unroll };
        let mut left = depth;
        if const { geometry::<S>().by_element && matches!(A::CONTIGUOUS, Contiguous::Rows) } {
            // As many terms at a time as a vector has elements: a vector of a row of A is loaded once, and its elements are factors.
            while left >= lanes {
                let mut b_vectors = [[F::splat(simd, F::zero()); N]; MOST_ELEMENTS];
                for p in 0..lanes {
                    for j in 0..N {
                        b_vectors[p][j] = load(b.wrapping_add(j * lanes), j);
                    }
                    b = b.wrapping_offset(b_row);
                }
                for i in 0..R {
                    let from = a_column.wrapping_offset((i as isize).wrapping_mul(a.row));
                    // SAFETY: `lanes` elements of row i, which has at least as many left.
                    let a = unsafe { F::load_factors(simd, from) };
                    for p in 0..lanes {
                        add_factor!(i, F::splat_element(simd, a, p), b_vectors[p]);
                    }
                }
                a_column = a_column.wrapping_add(lanes);
                left = left.wrapping_sub(lanes);
            }
        }
        while left > 0 {
            let mut run = left;
            if A::FETCHES_NEXT {
                // The terms of a cache line of a row of A; the next tile's lines are prefetched.
                run = run.min(LINE_BYTES / size_of::<F>());
                for i in 0..R {
                    prefetch_l2(a_column.wrapping_offset(((R + i) as isize).wrapping_mul(a.row)));
                }
            }
            left = left.wrapping_sub(run);
            while run >= unroll {
                for _ in 0..unroll {
                    add_term!();
                }
                run = run.wrapping_sub(unroll);
            }
            while run > 0 {
                add_term!();
                run = run.wrapping_sub(1);
            }
        }

        // SAFETY: guaranteed by the caller.
        unsafe { finish::<S, F, R, N, EDGE>(simd, columns, sums, c) };
    }
}

/// Prefetches `R` rows and `N` vectors of columns of C to the L1 cache, for when the sums are done.
#[inline(always)]
pub(crate) fn prefetch_output<S: Simd, F: Float, const R: usize, const N: usize>(c: Output<F>) {
    for i in 0..R {
        for j in 0..N {
            prefetch_l1(c.at(i, j * F::lanes::<S>()));
        }
    }
}

/// `C <- base + sums` for `R` rows and `N` vectors of columns, which are cut off after `columns` if `EDGE`.
///
/// # Safety
///
/// C `[R, columns]` is writable, `columns` being `N lanes` unless `EDGE`; a row that is its base is readable.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
pub(crate) unsafe fn finish<S: Simd, F: Float, const R: usize, const N: usize, const EDGE: bool>(
    simd: S,
    columns: usize,
    sums: [[F::Vector<S>; N]; R],
    c: Output<F>,
) {
    let lanes = F::lanes::<S>();
    if EDGE && const { geometry::<S>().by_element } {
        // There are no masked instructions. If the sums had computed indices, the tile's loop would write each of them to memory.
        let mut elements = [[[F::zero(); MOST_ELEMENTS]; N]; R];
        for i in 0..R {
            for j in 0..N {
                // SAFETY: as many elements as a vector has, or more.
                unsafe { F::store(simd, elements[i][j].as_mut_ptr(), sums[i][j]) };
            }
        }
        for (i, elements) in elements.iter().enumerate() {
            let elements = elements.iter().flat_map(|elements| &elements[..lanes]);
            // SAFETY: row i of C, as far as its columns go.
            unsafe { finish_row(elements.take(columns), c.from(i, 0)) };
        }
        return;
    }
    // Selects the columns of vector j.
    let mask = |j: usize| F::first(simd, columns.saturating_sub(j * lanes).min(lanes));
    let mut masks = [None; N];
    if EDGE {
        for j in 0..N {
            masks[j] = Some(mask(j));
        }
    }
    let store = |to: *mut F, j: usize, sum: F::Vector<S>| {
        // SAFETY: a vector of a row of C, as far as its columns go.
        unsafe {
            match masks[j] {
                Some(mask) => F::store_first(simd, mask, to, sum),
                None => F::store(simd, to, sum),
            }
        }
    };
    // A loop for each case, so that it is unrolled, and no sum leaves its register.
    let (base, base_row) = match c.base {
        Base::Nothing => {
            for i in 0..R {
                for j in 0..N {
                    store(c.at(i, j * lanes), j, sums[i][j]);
                }
            }
            return;
        }
        Base::Output => (c.start.cast_const(), c.row),
        Base::Row(row) => (row, 0),
    };
    for i in 0..R {
        for j in 0..N {
            let from = base.wrapping_offset((i as isize).wrapping_mul(base_row)).wrapping_add(j * lanes);
            // SAFETY: a vector of the base, as far as its columns go.
            let base = unsafe {
                match masks[j] {
                    Some(mask) => F::load_first(simd, mask, from),
                    None => F::load(simd, from),
                }
            };
            store(c.at(i, j * lanes), j, F::plus(simd, base, sums[i][j]));
        }
    }
}

/// `C <- base + sums` for a row.
///
/// # Safety
///
/// As many elements of C as there are sums are writable, and those of its base are readable.
#[inline(always)]
pub(super) unsafe fn finish_row<'a, F: Float>(sums: impl Iterator<Item = &'a F>, c: Output<F>) {
    for (j, &sum) in sums.enumerate() {
        let to = c.at(0, j);
        // SAFETY: guaranteed by the caller.
        unsafe {
            *to = match c.base {
                Base::Nothing => sum,
                Base::Output => *to + sum,
                Base::Row(row) => *row.wrapping_add(j) + sum,
            };
        }
    }
}
