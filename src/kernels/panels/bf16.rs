//! Weights in 16 bits: the upper half of an f32, rounded to nearest, ties to even.
//!
//! ```text
//! a row of a panel, P columns:   [P / 2 vectors][lanes] words of 32 bits
//!                                 column 2 j lanes + i in the lower half of word i of vector j, column (2 j + 1) lanes + i in the upper
//! ```
//!
//! So two vectors of weights take one load, a shift and a mask, on every instruction set, and the sums are those of
//! [`sweep`](super::sweep), in the same order.
#![allow(unsafe_code)]

use ndarray::{ArrayView2, Axis};
use pulp::Simd;

use super::stored::Stored;
use crate::kernels::buffer::Bits;
use crate::kernels::gemm::geometry::Sizes;
use crate::kernels::simd::vector::read_at;

/// A unit of a panel, of the size of a weight. Which weight it stands for depends on the layout of the row.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in crate::kernels) struct Bf16(u16);

impl Bits for Bf16 {}

impl Stored<f32> for Bf16 {
    #[inline(always)]
    unsafe fn load_row<S: Simd, const N: usize>(simd: S, from: *const Self) -> [S::f32s; N] {
        const { assert!(N.is_multiple_of(2)) };
        let (shift, mask) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
        let mut vectors = [simd.splat_f32s(0.0); N];
        for j in 0..N / 2 {
            // SAFETY: guaranteed by the caller, as N / 2 vectors are N times `lanes` weights; every bit pattern is a vector.
            let words = unsafe { read_at(from.cast::<S::u32s>().wrapping_add(j)) };
            vectors[2 * j] = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words, shift));
            vectors[2 * j + 1] = simd.transmute_f32s_u32s(simd.and_u32s(words, mask));
        }
        vectors
    }
}

/// The upper half of the bits of `x`, rounded. A finite `x` stays finite, as the largest number of 16 bits if need be; NaN stays NaN.
pub(in crate::kernels) fn round(x: f32) -> u16 {
    const LARGEST: u16 = 0x7f7f;
    let bits = x.to_bits();
    let upper = (bits >> 16) as u16;
    if x.is_nan() {
        return upper | 0x40; // quiet: otherwise it could become an infinity
    }
    let rounded = ((bits + 0x7fff + u32::from(upper & 1)) >> 16) as u16;
    if x.is_finite() && rounded & 0x7fff > LARGEST { upper & 0x8000 | LARGEST } else { rounded }
}

/// Writes `operand`, `[K, M]`, to panels `[M / P][K][P / 2]` of words.
pub(super) fn pack(operand: ArrayView2<'_, f32>, Sizes { panel_width: width, lanes, .. }: Sizes, panels: &mut [u32]) {
    let row = width / 2;
    panels.fill(0);
    if operand.nrows() == 0 {
        return;
    }
    for (m, column) in operand.axis_iter(Axis(1)).enumerate() {
        let (panel, vector, lane) = (m / width, m % width / lanes, m % lanes);
        let to = panels[panel * column.len() * row + vector / 2 * lanes + lane..].iter_mut().step_by(row);
        let shift = 16 * (vector % 2);
        to.zip(column).for_each(|(word, &weight)| *word |= u32::from(round(weight)) << shift);
    }
}
