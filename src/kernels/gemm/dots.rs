//! Products by dot products of a few rows and a few columns at a time, mostly of a matrix and a vector.
//!
//! ```text
//! for 4 columns of B at a time, for 4 rows of A at a time (at the edges 2 or 1; 8 columns for a single row):
//!     sums[R][N] = 0
//!     for p in 0..depth, a vector at a time:
//!         sums[i][j] += A[i, p..] B[p.., j]
//!     C[i, j] = base + the sum of the lanes of sums[i][j]
//! ```
//!
//! If the depth is small, the sums across a vector take longer than the products. Their order differs from that of tiles.
#![allow(unsafe_code)]

use std::cell::RefCell;

use pulp::{Simd, WithSimd};

use super::copy::{Copied, Order, copy};
use super::geometry::geometry;
use super::operand::{Base, Output, Product, Strided};
use crate::kernels::buffer::{Buffer, with_scratch};
use crate::kernels::float::Float;
use crate::kernels::once::once;
use crate::kernels::simd::dispatch::{dispatch, out_of_line};

/// Computes each element of C separately. The columns of B are contiguous; the rows of A are contiguous or copied.
///
/// # Safety
///
/// As [`Product`] says; the columns of B are contiguous, and so are the rows of A if `a_rows_contiguous`.
pub(super) unsafe fn by_dots<F: Float>(product: Product<F>, a_rows_contiguous: bool) {
    thread_local! {
        static ROWS: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
    }
    if a_rows_contiguous {
        // SAFETY: guaranteed by the caller.
        return unsafe { multiply_dots(Dots(product)) };
    }
    let Product { rows, depth, a: from, .. } = product;
    with_scratch(&ROWS, rows * depth, |to| {
        // SAFETY: A is readable.
        unsafe { copy(Copied { from, rows, columns: depth, order: Order::Compact, to: &mut *to }) };
        let a = Strided { start: to.as_ptr(), row: depth as isize, column: 1 };
        // SAFETY: guaranteed by the caller, and for the copy instead of A.
        unsafe { multiply_dots(Dots(Product { a, ..product })) };
    });
}

once! {
    /// Computes C.
    ///
    /// # Safety
    ///
    /// As [`Product`] and [`Dots`] say.
    unsafe fn multiply_dots<'a, F: Float>(dots: Dots<F>) {
        dispatch(dots)
    }
}

/// A product in which the rows of A and the columns of B are contiguous.
struct Dots<F>(Product<F>);

/// The maximum rows, and columns, whose sums are computed together.
const SIDE: usize = 4;

/// The number of vectors of terms between two increments of the addresses, with NEON.
const UNROLL: usize = 4;

/// The number of columns whose sums are computed together for a single row: enough to keep the vector units busy.
const ROW_COLUMNS: usize = 8;

impl<F: Float> WithSimd for Dots<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { rows, depth, columns, a, b, c } = self.0;
        let mut first = 0;
        if rows == 1 {
            while columns - first >= ROW_COLUMNS {
                // SAFETY: some of the columns.
                unsafe {
                    dots::<S, F, 1, ROW_COLUMNS>(simd, depth, a, b.transposed().from(first, 0), c.from(0, first))
                };
                first += ROW_COLUMNS;
            }
        }
        if columns - first >= SIDE {
            first = out_of_line(simd, Columns::<F, SIDE> { product: &self.0, first });
        }
        if columns - first >= 2 {
            first = out_of_line(simd, Columns::<F, 2> { product: &self.0, first });
        }
        if columns > first {
            out_of_line(simd, Columns::<F, 1> { product: &self.0, first });
        }
    }
}

/// Computes the columns from `first` on, `N` at a time while at least `N` are left; returns the first that is left.
struct Columns<'a, F, const N: usize> {
    product: &'a Product<F>,
    first: usize,
}

impl<F: Float, const N: usize> WithSimd for Columns<'_, F, N> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let Product { rows, depth, columns, a, b, c } = *self.product;
        let mut first = self.first;
        while columns - first >= N {
            let b = b.transposed().from(first, 0);
            let mut row = 0;
            while row < rows {
                let (a, c) = (a.from(row, 0), c.from(row, first));
                // SAFETY: some of the rows and columns.
                row += unsafe {
                    match rows - row {
                        1 => dots::<S, F, 1, N>(simd, depth, a, b, c),
                        2 | 3 => dots::<S, F, 2, N>(simd, depth, a, b, c),
                        _ => dots::<S, F, SIDE, N>(simd, depth, a, b, c),
                    }
                };
            }
            first += N;
        }
        first
    }
}

/// `C <- base + A B^T` for `R` rows and `N` columns, where the rows of A and of `B^T` are contiguous; returns `R`.
///
/// # Safety
///
/// A `[R, depth]` and `B^T` `[N, depth]` are readable with unit column strides, and C `[R, N]` is writable and overlaps
/// neither.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
unsafe fn dots<S: Simd, F: Float, const R: usize, const N: usize>(
    simd: S,
    depth: usize,
    a: Strided<F>,
    b_transposed: Strided<F>,
    c: Output<F>,
) -> usize {
    let lanes = F::lanes::<S>();
    let mut sums = [[F::splat(simd, F::zero()); N]; R];
    let whole = depth - depth % lanes;
    let mut p = 0;
    macro_rules! add_terms {
        (|$i:ident| $a:expr, |$j:ident| $b:expr) => {
            let mut b_vectors = [F::splat(simd, F::zero()); N];
            for $j in 0..N {
                // SAFETY: `lanes` elements of row j from column p on, which is in the matrix.
                b_vectors[$j] = unsafe { F::load(simd, $b) };
            }
            for $i in 0..R {
                // SAFETY: likewise, of row i.
                let a = unsafe { F::load(simd, $a) };
                for j in 0..N {
                    sums[$i][j] = F::fused(simd, a, b_vectors[j], sums[$i][j]);
                }
            }
        };
    }
    if const { geometry::<S>().by_element } {
        // Incrementing the address of a row takes an instruction; a constant offset from it takes none.
        let (mut a_rows, mut b_rows) = ([a.start; R], [b_transposed.start; N]);
        for i in 0..R {
            a_rows[i] = a.from(i, 0).start;
        }
        for j in 0..N {
            b_rows[j] = b_transposed.from(j, 0).start;
        }
        while p + UNROLL * lanes <= whole {
            for k in 0..UNROLL {
                add_terms!(|i| a_rows[i].wrapping_add(k * lanes), |j| b_rows[j].wrapping_add(k * lanes));
            }
            a_rows = a_rows.map(|row| row.wrapping_add(UNROLL * lanes));
            b_rows = b_rows.map(|row| row.wrapping_add(UNROLL * lanes));
            p = p.wrapping_add(UNROLL * lanes);
        }
    }
    while p < whole {
        add_terms!(|i| a.from(i, p).start, |j| b_transposed.from(j, p).start);
        p = p.wrapping_add(lanes);
    }
    if p < depth {
        let rest = F::first(simd, depth - p);
        for i in 0..R {
            // SAFETY: the elements of row i from column p to the last.
            let a = unsafe { F::load_first(simd, rest, a.from(i, p).start) };
            for j in 0..N {
                // SAFETY: likewise, of row j.
                let b = unsafe { F::load_first(simd, rest, b_transposed.from(j, p).start) };
                sums[i][j] = F::fused(simd, a, b, sums[i][j]);
            }
        }
    }
    for i in 0..R {
        for j in 0..N {
            let sum = F::total(simd, sums[i][j]);
            let to = c.from(i, j).start;
            // SAFETY: element (i, j) of C, and element j of a row that is its base.
            unsafe {
                *to = match c.base {
                    Base::Nothing => sum,
                    Base::Output => *to + sum,
                    Base::Row(row) => *row.wrapping_add(j) + sum,
                };
            }
        }
    }
    R
}
