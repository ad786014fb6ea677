//! Transposition of squares in registers.
#![allow(unsafe_code)]

/// Copies `[8, 8]` from contiguous columns, `column` apart, to contiguous rows, `row` apart.
///
/// # Safety
///
/// The elements are readable at the source and writable at the destination.
#[target_feature(enable = "avx")]
#[inline]
pub(super) unsafe fn transpose_8x8(from: *const f32, column: isize, to: *mut f32, row: usize) {
    use std::arch::x86_64::*;

    // SAFETY: it reads halves of columns and writes rows of the two squares.
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

/// Copies `[4, 4]` from contiguous columns, `column` apart, to contiguous rows, `row` apart.
///
/// # Safety
///
/// The elements are readable at the source and writable at the destination.
#[target_feature(enable = "avx")]
#[inline]
pub(super) unsafe fn transpose_4x4(from: *const f64, column: isize, to: *mut f64, row: usize) {
    use std::arch::x86_64::*;

    // SAFETY: it reads halves of columns and writes rows of the two squares.
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
