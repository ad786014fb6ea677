//! Products of a few terms into a matrix that no cache holds: sums of outer products.
#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};

use super::tile::{Output, Strided};
use crate::float::Float;

/// From so many bytes on, C is written past the caches: what was written first would be gone from them when the last is
/// written, and to write into a cache is to read a line before.
const LEAST_BYTES: usize = 16 << 20;

/// What [`Simd::stream`](super::Simd::stream) wants its addresses to be multiples of.
pub(super) const ALIGNMENT: usize = 16;

/// C `[rows, columns]` <- A `[rows, depth]` B `[depth, columns]`, of at most [`SHALLOW`](super::product::SHALLOW) terms, the rows of
/// B being contiguous. The shapes were checked.
pub struct Outer<F> {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) a: Strided<F>,
    pub(super) b: Strided<F>,
    pub(super) c: Output<F>,
}

/// Whether a C of this size, which is overwritten, is written past the caches.
pub(super) fn is_streamed<F>(rows: usize, columns: usize, c: &Output<F>) -> bool {
    let (start, row) = (c.start.addr(), c.row.unsigned_abs() * size_of::<F>());
    cfg!(target_arch = "x86_64")
        && rows * columns * size_of::<F>() >= LEAST_BYTES
        && start.is_multiple_of(ALIGNMENT)
        && row.is_multiple_of(ALIGNMENT)
}

impl<F: Float> WithSimd for Outer<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.depth {
            1 => self.add_up::<S, 1>(simd),
            2 => self.add_up::<S, 2>(simd),
            3 => self.add_up::<S, 3>(simd),
            4 => self.add_up::<S, 4>(simd),
            depth => unreachable!("{depth} terms"),
        }
    }
}

impl<F: Float> Outer<F> {
    #[inline(always)]
    fn add_up<S: Simd, const D: usize>(&self, simd: S) {
        let lanes = F::lanes::<S>();
        let whole = self.columns - self.columns % lanes;
        let rest = F::first(simd, self.columns - whole);
        for i in 0..self.rows {
            // SAFETY: element (i, p) of A.
            let a: [_; D] = std::array::from_fn(|p| F::splat(simd, unsafe { *self.a.from(i, p).start }));
            let c = self.c.from(i, 0).start;
            for j in (0..whole).step_by(lanes) {
                let mut sum = F::splat(simd, F::zero());
                for (p, &a) in a.iter().enumerate() {
                    // SAFETY: a register of row p of B.
                    sum = F::fused(simd, a, unsafe { F::load(simd, self.b.from(p, j).start) }, sum);
                }
                // SAFETY: a register of row i of C, which starts where `is_streamed` has looked.
                unsafe { F::stream(simd, c.wrapping_add(j), sum) };
            }
            if whole < self.columns {
                let mut sum = F::splat(simd, F::zero());
                for (p, &a) in a.iter().enumerate() {
                    // SAFETY: the last elements of row p of B.
                    let b = unsafe { F::load_first(simd, rest, self.b.from(p, whole).start) };
                    sum = F::fused(simd, a, b, sum);
                }
                // SAFETY: the last elements of row i of C.
                unsafe { F::store_first(simd, rest, c.wrapping_add(whole), sum) };
            }
        }
        // Other threads must see C once they see that it is done.
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 has it.
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
    }
}
