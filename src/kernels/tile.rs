//! The innermost loops: tiles of C held in registers.
#![allow(unsafe_code)]

use pulp::Simd;

use crate::float::Float;

/// The registers in a row of a tile.
pub(super) const fn registers<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

/// The columns of a tile.
pub(super) fn width<S: Simd, F: Float>() -> usize {
    registers::<S>() * F::lanes::<S>()
}

/// A matrix in memory: element `(i, j)` is at `start + i row + j column`.
#[derive(Clone, Copy)]
pub(super) struct Strided<F> {
    pub(super) start: *const F,
    pub(super) row: isize,
    pub(super) column: isize,
}

impl<F> Strided<F> {
    /// The matrix from element `(i, j)` on; offsets past the end are never read.
    #[inline(always)]
    pub(super) fn from(self, i: usize, j: usize) -> Self {
        let offset = (i as isize).wrapping_mul(self.row).wrapping_add((j as isize).wrapping_mul(self.column));
        Self { start: self.start.wrapping_offset(offset), ..self }
    }

    #[inline(always)]
    pub(super) fn transposed(self) -> Self {
        Self { start: self.start, row: self.column, column: self.row }
    }
}

/// A matrix in memory of which the columns are contiguous: element `(i, j)` is at `start + i row + j`.
#[derive(Clone, Copy)]
pub(super) struct Output<F> {
    pub(super) start: *mut F,
    pub(super) row: isize,
    /// Whether to add to the elements, or to overwrite them unread.
    pub(super) add: bool,
}

impl<F> Output<F> {
    /// The matrix from element `(i, j)` on.
    #[inline(always)]
    pub(super) fn from(self, i: usize, j: usize) -> Self {
        let offset = (i as isize).wrapping_mul(self.row).wrapping_add(j as isize);
        Self { start: self.start.wrapping_offset(offset), ..self }
    }

    /// The matrix, for the terms of a product from `depth` on: the first ones may overwrite it, the others add to it.
    #[inline(always)]
    pub(super) fn after(self, depth: usize) -> Self {
        Self { add: self.add || depth > 0, ..self }
    }
}

/// `C <- A B` or `C <- C + A B` for `R` rows and `N` registers of columns, of which the last is cut off after
/// `columns` where `EDGE`.
///
/// # Safety
///
/// A `[R, depth]` is readable, B `[depth, columns]` too (rows `b_row` apart, `columns = N lanes` unless `EDGE`), and C
/// `[R, columns]` is writable and overlaps neither.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
pub(super) unsafe fn tile<S: Simd, F: Float, const R: usize, const N: usize, const EDGE: bool>(
    simd: S,
    depth: usize,
    columns: usize,
    a: Strided<F>,
    b: *const F,
    b_row: isize,
    c: Output<F>,
) {
    let lanes = F::lanes::<S>();
    let edge = F::first(simd, columns - (N - 1) * lanes);

    let mut sums = [[F::splat(simd, F::zero()); N]; R];
    let mut a_rows = [a.start; R];
    for i in 0..R {
        a_rows[i] = a.from(i, 0).start;
    }
    let (mut a_offset, mut b) = (0, b);
    for _ in 0..depth {
        let mut b_vectors = [F::splat(simd, F::zero()); N];
        for j in 0..N {
            let from = b.wrapping_add(j * lanes);
            // SAFETY: row p of B has `columns` elements, of which the last register is cut off at an edge.
            b_vectors[j] =
                unsafe { if EDGE && j == N - 1 { F::load_first(simd, edge, from) } else { F::load(simd, from) } };
        }
        for i in 0..R {
            // SAFETY: element (i, p) of A, with p < depth.
            let a = F::splat(simd, unsafe { *a_rows[i].wrapping_offset(a_offset) });
            for j in 0..N {
                sums[i][j] = F::fused(simd, a, b_vectors[j], sums[i][j]);
            }
        }
        a_offset = a_offset.wrapping_add(a.column);
        b = b.wrapping_offset(b_row);
    }

    for i in 0..R {
        for j in 0..N {
            let to = c.from(i, j * lanes).start;
            // SAFETY: row i of C has `columns` elements, of which the last register is cut off at an edge.
            unsafe {
                if EDGE && j == N - 1 {
                    let mut sum = sums[i][j];
                    if c.add {
                        sum = F::plus(simd, F::load_first(simd, edge, to), sum);
                    }
                    F::store_first(simd, edge, to, sum);
                } else {
                    let mut sum = sums[i][j];
                    if c.add {
                        sum = F::plus(simd, F::load(simd, to), sum);
                    }
                    F::store(simd, to, sum);
                }
            }
        }
    }
}

/// `C <- A B^T` or `C <- C + A B^T` for `R` rows and `N` columns as dot products, where the rows of A and of `B^T` are
/// contiguous.
///
/// # Safety
///
/// A `[R, depth]` and `B^T` `[N, depth]` are readable with unit column strides, and C `[R, N]` is writable and overlaps
/// neither.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
pub(super) unsafe fn dots<S: Simd, F: Float, const R: usize, const N: usize>(
    simd: S,
    depth: usize,
    a: Strided<F>,
    b_transposed: Strided<F>,
    c: Output<F>,
) {
    let lanes = F::lanes::<S>();
    let mut sums = [[F::splat(simd, F::zero()); N]; R];
    let mut p = 0;
    while p + lanes <= depth {
        let mut b_vectors = [F::splat(simd, F::zero()); N];
        for j in 0..N {
            // SAFETY: `lanes` elements of row j from column p on, which is in the matrix.
            b_vectors[j] = unsafe { F::load(simd, b_transposed.from(j, p).start) };
        }
        for i in 0..R {
            // SAFETY: likewise, of row i.
            let a = unsafe { F::load(simd, a.from(i, p).start) };
            for j in 0..N {
                sums[i][j] = F::fused(simd, a, b_vectors[j], sums[i][j]);
            }
        }
        p += lanes;
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
            // SAFETY: element (i, j) of C.
            unsafe { *to = if c.add { *to + sum } else { sum } };
        }
    }
}
