//! Products by dot products, of a few rows and a few columns at a time.
#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};

use super::float::Float;
use super::tile::{Output, Strided, dots};

/// A product by dot products: C `[rows, columns]` of A `[rows, depth]`, with contiguous rows, and `B^T`
/// `[columns, depth]`, with contiguous rows too. The shapes were checked.
pub struct Dots<F> {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) a: Strided<F>,
    pub(super) b_transposed: Strided<F>,
    pub(super) c: Output<F>,
}

impl<F: Float> WithSimd for Dots<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, depth, columns, a, b_transposed, c } = self;
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
}

/// # Safety
///
/// As for [`Dots`], for `N` columns.
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
