//! Operations of NEON that `pulp` does not have.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

/// Returns `a`, but hides from the compiler that it was loaded. Otherwise the compiler would load the two elements one by one and
/// copy each to both lanes, which takes more instructions than a vector whose elements are operands of `fmla`.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
pub(super) unsafe fn whole_f64(mut a: float64x2_t) -> float64x2_t {
    // SAFETY: the assembly is only a comment, without an instruction.
    unsafe {
        std::arch::asm!("/* {0:v} */", inout(vreg) a, options(pure, nomem, nostack, preserves_flags));
    }
    a
}

/// Returns `a`: the compiler does not split vectors of four.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
pub(super) unsafe fn whole_f32(a: float32x4_t) -> float32x4_t {
    a
}

/// Element `k` of `a` in every lane, which becomes an operand of `fmla`.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
pub(super) unsafe fn splat_f32(a: float32x4_t, k: usize) -> float32x4_t {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match k {
            0 => vdupq_laneq_f32::<0>(a),
            1 => vdupq_laneq_f32::<1>(a),
            2 => vdupq_laneq_f32::<2>(a),
            3 => vdupq_laneq_f32::<3>(a),
            _ => unreachable!("element {k} of a vector"),
        }
    }
}

/// Element `k` of `a` in every lane.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
pub(super) unsafe fn splat_f64(a: float64x2_t, k: usize) -> float64x2_t {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match k {
            0 => vdupq_laneq_f64::<0>(a),
            1 => vdupq_laneq_f64::<1>(a),
            _ => unreachable!("element {k} of a vector"),
        }
    }
}

/// The first `count` elements, fewer than four, followed by zeros.
///
/// # Safety
///
/// `count` elements are readable.
#[inline(always)]
pub(super) unsafe fn load_first_f32(from: *const f32, count: usize) -> float32x4_t {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let zero = vdupq_n_f32(0.0);
        let two = || vreinterpretq_f32_u64(vsetq_lane_u64::<0>(from.cast::<u64>().read_unaligned(), vdupq_n_u64(0)));
        match count {
            0 => zero,
            1 => vld1q_lane_f32::<0>(from, zero),
            2 => two(),
            _ => vld1q_lane_f32::<2>(from.add(2), two()),
        }
    }
}

/// The first element if `count` is 1, followed by zeros.
///
/// # Safety
///
/// `count` elements are readable.
#[inline(always)]
pub(super) unsafe fn load_first_f64(from: *const f64, count: usize) -> float64x2_t {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let zero = vdupq_n_f64(0.0);
        if count == 0 { zero } else { vld1q_lane_f64::<0>(from, zero) }
    }
}

/// Copies `[4, 4]` from contiguous columns, `column` apart, to contiguous rows, `row` apart.
///
/// # Safety
///
/// The elements are readable at the source and writable at the destination.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn transpose_4x4(from: *const f32, column: isize, to: *mut f32, row: usize) {
    // SAFETY: it reads columns and writes rows of the two squares.
    unsafe {
        // Pairs of elements from two columns: those of rows 0 and 2, and those of rows 1 and 3.
        let pair = |j: isize| {
            let (a, b) = (vld1q_f32(from.offset(j * column)), vld1q_f32(from.offset((j + 1) * column)));
            (vreinterpretq_f64_f32(vtrn1q_f32(a, b)), vreinterpretq_f64_f32(vtrn2q_f32(a, b)))
        };
        let ((even01, odd01), (even23, odd23)) = (pair(0), pair(2));
        vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(even01, even23)));
        vst1q_f32(to.add(row), vreinterpretq_f32_f64(vtrn1q_f64(odd01, odd23)));
        vst1q_f32(to.add(2 * row), vreinterpretq_f32_f64(vtrn2q_f64(even01, even23)));
        vst1q_f32(to.add(3 * row), vreinterpretq_f32_f64(vtrn2q_f64(odd01, odd23)));
    }
}

/// Copies `[2, 2]` from contiguous columns, `column` apart, to contiguous rows, `row` apart.
///
/// # Safety
///
/// The elements are readable at the source and writable at the destination.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn transpose_2x2(from: *const f64, column: isize, to: *mut f64, row: usize) {
    // SAFETY: it reads columns and writes rows of the two squares.
    unsafe {
        let (a, b) = (vld1q_f64(from), vld1q_f64(from.offset(column)));
        vst1q_f64(to, vtrn1q_f64(a, b));
        vst1q_f64(to.add(row), vtrn2q_f64(a, b));
    }
}
