//! The innermost loops: tiles of C held in registers.
#![allow(unsafe_code)]

use pulp::Simd;

use super::float::Float;

/// The registers in a row of a tile. Two, so that a tile is high: B is what streams from the second cache, and a row of
/// it is used as often as the tile has rows.
pub(super) const REGISTERS: usize = 2;

/// The most rows of a tile: with them, 28 of 32 registers or 12 of 16 accumulate.
pub(super) const fn most_rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 14 } else { 6 }
}

/// The columns of a tile.
pub(super) fn width<S: Simd, F: Float>() -> usize {
    REGISTERS * F::lanes::<S>()
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
    pub(super) base: Base<F>,
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(super) enum Base<F> {
    /// Nothing: C is overwritten unread.
    Nothing,
    /// The elements of C.
    Output,
    /// The same row for each row of C.
    Row(*const F),
}

impl<F> Output<F> {
    /// The matrix from element `(i, j)` on.
    #[inline(always)]
    pub(super) fn from(self, i: usize, j: usize) -> Self {
        let offset = (i as isize).wrapping_mul(self.row).wrapping_add(j as isize);
        let base = match self.base {
            Base::Row(row) => Base::Row(row.wrapping_add(j)),
            base => base,
        };
        Self { start: self.start.wrapping_offset(offset), base, ..self }
    }

    /// The matrix, for the terms of a product from `depth` on: the first ones may overwrite it, the others add to it.
    #[inline(always)]
    pub(super) fn after(self, depth: usize) -> Self {
        Self { base: if depth > 0 { Base::Output } else { self.base }, ..self }
    }
}

/// Has a cache line fetched that will be needed soon: to the first cache, or only to the second.
#[inline(always)]
pub(super) fn prefetch<T, const SECOND: bool>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

        // SAFETY: a hint, which reads nothing; every x86-64 has it.
        unsafe {
            if SECOND {
                _mm_prefetch::<_MM_HINT_T1>(at.cast());
            } else {
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Has `R` rows and `N` registers of columns of C fetched to the first cache, for when the sums are done.
#[inline(always)]
pub(super) fn fetch_output<S: Simd, F: Float, const R: usize, const N: usize>(c: Output<F>) {
    for i in 0..R {
        for j in 0..N {
            prefetch::<_, false>(c.from(i, j * F::lanes::<S>()).start);
        }
    }
}

/// The terms that are added before they are counted: to count takes the places of sums, of which a term has few with 16
/// registers.
const fn terms<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 1 } else { 4 }
}

/// The rows of B that are fetched before they are needed.
const AHEAD: isize = 8;

pub(super) const LINE_BYTES: usize = 64;

/// `C <- base + A B` for `R` rows and `N` registers of columns, of which the last is cut off after `columns` where
/// `EDGE`. Where `FETCH`, the rows of A, contiguous and perhaps far away, lie in a matrix whose next rows are fetched for the
/// tile after this one.
///
/// # Safety
///
/// A `[R, depth]` is readable, B `[depth, columns]` too (rows `b_row` apart, `columns = N lanes` unless `EDGE`), and C
/// `[R, columns]` is writable and overlaps neither; a row that is its base is readable.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
pub(super) unsafe fn tile<S: Simd, F: Float, const R: usize, const N: usize, const EDGE: bool, const FETCH: bool>(
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
    // The last register of a row may be cut off.
    let load = |from: *const F, j: usize| {
        // SAFETY: a row of `columns` elements, as the callers below say.
        unsafe { if EDGE && j == N - 1 { F::load_first(simd, edge, from) } else { F::load(simd, from) } }
    };

    fetch_output::<S, F, R, N>(c);
    let mut sums = [[F::splat(simd, F::zero()); N]; R];
    let (mut a_column, mut b) = (a.start, b);
    macro_rules! add_term {
        () => {
            let mut b_vectors = [F::splat(simd, F::zero()); N];
            for j in 0..N {
                // Row p of B.
                b_vectors[j] = load(b.wrapping_add(j * lanes), j);
                prefetch::<_, false>(b.wrapping_offset(AHEAD * b_row).wrapping_add(j * lanes));
            }
            for i in 0..R {
                // SAFETY: element (i, p) of A, with p < depth.
                let a = F::splat(simd, unsafe { *a_column.wrapping_offset(i as isize * a.row) });
                for j in 0..N {
                    sums[i][j] = F::fused(simd, a, b_vectors[j], sums[i][j]);
                }
            }
            a_column = a_column.wrapping_offset(a.column);
            b = b.wrapping_offset(b_row);
        };
    }
    let mut left = depth;
    while left > 0 {
        let mut run = left;
        if FETCH {
            // As many terms as a line of a row of A has, and those lines of the next tile.
            run = run.min(LINE_BYTES / size_of::<F>());
            for i in 0..R {
                prefetch::<_, true>(a_column.wrapping_offset((R + i) as isize * a.row));
            }
        }
        let whole = run - run % terms::<S>();
        for _ in (0..whole).step_by(terms::<S>()) {
            for _ in 0..terms::<S>() {
                add_term!();
            }
        }
        for _ in whole..run {
            add_term!();
        }
        left -= run;
    }

    // SAFETY: as the caller says.
    unsafe { finish::<S, F, R, N, EDGE>(simd, columns, sums, c) };
}

/// `C <- base + sums` for `R` rows and `N` registers of columns, which are cut off after `columns` where `EDGE`.
///
/// # Safety
///
/// C `[R, columns]` is writable, `columns` being `N lanes` unless `EDGE`; a row that is its base is readable.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
pub(super) unsafe fn finish<S: Simd, F: Float, const R: usize, const N: usize, const EDGE: bool>(
    simd: S,
    columns: usize,
    sums: [[F::Vector<S>; N]; R],
    c: Output<F>,
) {
    let lanes = F::lanes::<S>();
    let mut masks = [F::first(simd, lanes); N];
    for j in 0..N {
        masks[j] = F::first(simd, columns.saturating_sub(j * lanes).min(lanes));
    }
    let load = |from: *const F, j: usize| {
        // SAFETY: a register of a row, as far as its columns go.
        unsafe { if EDGE { F::load_first(simd, masks[j], from) } else { F::load(simd, from) } }
    };
    // A loop for each base, so that each is unrolled, and no sum leaves its register.
    macro_rules! store {
        ($base:expr) => {
            for i in 0..R {
                for j in 0..N {
                    let to = c.from(i, j * lanes).start;
                    let sum = $base(to, i, j);
                    // SAFETY: as for `load`.
                    unsafe {
                        if EDGE {
                            F::store_first(simd, masks[j], to, sum);
                        } else {
                            F::store(simd, to, sum);
                        }
                    }
                }
            }
        };
    }
    match c.base {
        Base::Nothing => store!(|_, i: usize, j: usize| sums[i][j]),
        Base::Output => store!(|to: *mut F, i: usize, j: usize| F::plus(simd, load(to, j), sums[i][j])),
        Base::Row(row) => {
            store!(|_, i: usize, j: usize| F::plus(simd, load(row.wrapping_add(j * lanes), j), sums[i][j]));
        }
    }
}

/// `C <- base + A B^T` for `R` rows and `N` columns as dot products, where the rows of A and of `B^T` are
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
}
