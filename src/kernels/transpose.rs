//! Copies of matrices whose columns are contiguous.
#![allow(unsafe_code)]

use pulp::Simd;

use super::float::Float;
use super::tile::{Strided, prefetch};

/// Copies a matrix of any strides to rows `width` apart: fast where its columns are contiguous.
///
/// # Safety
///
/// The matrix is readable.
#[inline(always)]
pub(super) unsafe fn transpose<S: Simd, F: Float>(
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
    #[cfg(target_arch = "x86_64")]
    if !S::IS_SCALAR && matrix.row == 1 {
        let side = F::SQUARE;
        (rows_done, columns_done) = (rows - rows % side, columns - columns % side);
        assert!(rows_done == 0 || to.len() >= (rows_done - 1) * width + columns_done);
        for j in (0..columns_done).step_by(side) {
            for i in (0..rows_done).step_by(side) {
                let from = matrix.from(i, j);
                // A line holds two squares' rows: that of the columns after these.
                if i % (2 * side) == 0 {
                    (side..2 * side).for_each(|k| prefetch::<_, true>(matrix.from(i, j + k).start));
                }
                // SAFETY: a square of the matrix, and its place in `to`; AVX is there.
                unsafe { F::transpose_square(from.start, from.column, to.as_mut_ptr().add(i * width + j), width) };
            }
        }
    }
    for (i, to) in to.chunks_mut(width).take(rows).enumerate() {
        let from = if i < rows_done { columns_done } else { 0 };
        for (j, to) in to[..columns].iter_mut().enumerate().skip(from) {
            // SAFETY: an element of the matrix.
            *to = unsafe { *matrix.from(i, j).start };
        }
    }
}

/// Copies `[8, 8]` with contiguous columns, `column` apart, to rows `row` apart.
///
/// # Safety
///
/// The elements are readable, and writable where they go.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
pub(super) unsafe fn transpose_8x8(from: *const f32, column: isize, to: *mut f32, row: usize) {
    use std::arch::x86_64::*;

    // SAFETY: halves of columns, and rows, of the two squares.
    unsafe {
        // Column j in the lower half, column j + 4 in the upper.
        let pair = |j: isize, half: isize| {
            let low = _mm_loadu_ps(from.offset(j * column + half));
            let high = _mm_loadu_ps(from.offset((j + 4) * column + half));
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
        };
        for half in [0, 4] {
            let (c0, c1, c2, c3) = (pair(0, half), pair(1, half), pair(2, half), pair(3, half));
            let (low01, high01) = (_mm256_unpacklo_ps(c0, c1), _mm256_unpackhi_ps(c0, c1));
            let (low23, high23) = (_mm256_unpacklo_ps(c2, c3), _mm256_unpackhi_ps(c2, c3));
            let to = to.add(half as usize * row);
            _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(low01, low23));
            _mm256_storeu_ps(to.add(row), _mm256_shuffle_ps::<0xee>(low01, low23));
            _mm256_storeu_ps(to.add(2 * row), _mm256_shuffle_ps::<0x44>(high01, high23));
            _mm256_storeu_ps(to.add(3 * row), _mm256_shuffle_ps::<0xee>(high01, high23));
        }
    }
}

/// Copies `[4, 4]` with contiguous columns, `column` apart, to rows `row` apart.
///
/// # Safety
///
/// The elements are readable, and writable where they go.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
pub(super) unsafe fn transpose_4x4(from: *const f64, column: isize, to: *mut f64, row: usize) {
    use std::arch::x86_64::*;

    // SAFETY: halves of columns, and rows, of the two squares.
    unsafe {
        let pair = |j: isize, half: isize| {
            let low = _mm_loadu_pd(from.offset(j * column + half));
            let high = _mm_loadu_pd(from.offset((j + 2) * column + half));
            _mm256_insertf128_pd::<1>(_mm256_castpd128_pd256(low), high)
        };
        for half in [0, 2] {
            let (c0, c1) = (pair(0, half), pair(1, half));
            let to = to.add(half as usize * row);
            _mm256_storeu_pd(to, _mm256_unpacklo_pd(c0, c1));
            _mm256_storeu_pd(to.add(row), _mm256_unpackhi_pd(c0, c1));
        }
    }
}
