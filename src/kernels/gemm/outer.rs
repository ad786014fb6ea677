//! Products of a few terms: sums of outer products. Most of the time goes into reading and writing C.
//!
//! ```text
//! for 2 rows of C at a time:
//!     for a vector of columns at a time:
//!         b[D] = that vector of each row of B
//!         C[i] = A[i, 0] b[0] + ... + A[i, D-1] b[D-1]           or C[i] + that
//! ```
//!
//! A C of 16 MiB or more that is overwritten is written with non-temporal stores: its first elements would have left the caches
//! when the last are written, and a write into a cache reads the line first. With these stores, eight residual blocks of 1024
//! features train on one row in 52 ms, without them in 59 ms.
#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};

use super::operand::{Base, Output, Product};
use crate::kernels::float::Float;
use crate::kernels::once::once;
use crate::kernels::simd::dispatch::{dispatch, out_of_line};
use crate::kernels::simd::vector::STREAM_ALIGNMENT;

/// The minimum size of a C that is written with non-temporal stores.
const STREAM_BYTES: usize = 16 << 20;

/// The maximum terms of such a product.
pub(crate) const MOST_TERMS: usize = 4;

/// Whether a C of this size, which is overwritten, is written with non-temporal stores.
pub(super) fn is_streamed<F>(rows: usize, columns: usize, c: &Output<F>) -> bool {
    let (start, row) = (c.start.addr(), c.row.unsigned_abs() * size_of::<F>());
    cfg!(target_arch = "x86_64")
        && rows * columns * size_of::<F>() >= STREAM_BYTES
        && start.is_multiple_of(STREAM_ALIGNMENT)
        && row.is_multiple_of(STREAM_ALIGNMENT)
}

once! {
    /// Computes a product of at most [`MOST_TERMS`] terms that overwrites C or is added to it; the rows of B are contiguous. If
    /// `streamed`, it is written with non-temporal stores.
    ///
    /// # Safety
    ///
    /// As [`Product`] says; if `streamed`, [`is_streamed`] is true for this C or for one of which it is a part.
    pub(super) unsafe fn by_outer_products<'a, F: Float>(product: Product<F>, streamed: bool) {
        dispatch(Outer { product, streamed })
    }
}

struct Outer<F> {
    product: Product<F>,
    streamed: bool,
}

impl<F: Float> WithSimd for Outer<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.product.depth {
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
        let product = &self.product;
        match product.c.base {
            Base::Nothing if self.streamed => {
                out_of_line(simd, Rows::<F, D, false, true>(product));
                // Other threads must see C once they see that it is done.
                #[cfg(target_arch = "x86_64")]
                // SAFETY: every x86-64 has this instruction.
                unsafe {
                    std::arch::x86_64::_mm_sfence();
                }
            }
            Base::Nothing => out_of_line(simd, Rows::<F, D, false, false>(product)),
            Base::Output => out_of_line(simd, Rows::<F, D, true, false>(product)),
            Base::Row(_) => unreachable!("outer products onto a row"),
        }
    }
}

/// A product of `D` terms that is added to C if `ADD` and otherwise overwrites it, with non-temporal stores if `STREAM`.
struct Rows<'a, F, const D: usize, const ADD: bool, const STREAM: bool>(&'a Product<F>);

impl<F: Float, const D: usize, const ADD: bool, const STREAM: bool> WithSimd for Rows<'_, F, D, ADD, STREAM> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self.0.rows;
        for i in (0..rows - rows % 2).step_by(2) {
            self.rows::<S, 2>(simd, i);
        }
        if rows % 2 == 1 {
            self.rows::<S, 1>(simd, rows - 1);
        }
    }
}

impl<F: Float, const D: usize, const ADD: bool, const STREAM: bool> Rows<'_, F, D, ADD, STREAM> {
    /// `R` rows of C from row `i` on.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
    fn rows<S: Simd, const R: usize>(&self, simd: S, i: usize) {
        let Product { columns, a, b, c, .. } = *self.0;
        let lanes = F::lanes::<S>();
        let whole = columns - columns % lanes;
        let mut factors = [[F::splat(simd, F::zero()); D]; R];
        let mut to = [c.start; R];
        for r in 0..R {
            for p in 0..D {
                // SAFETY: an element of A.
                factors[r][p] = F::splat(simd, unsafe { F::read(a.from(i + r, p).start) });
            }
            to[r] = c.from(i + r, 0).start;
        }
        let mut terms = [F::splat(simd, F::zero()); D];
        for j in (0..whole).step_by(lanes) {
            for p in 0..D {
                // SAFETY: a vector of each row of B.
                terms[p] = unsafe { F::load(simd, b.from(p, j).start) };
            }
            for r in 0..R {
                let to = to[r].wrapping_add(j);
                let sum = sum::<S, F, D>(simd, factors[r], terms);
                // SAFETY: a vector of a row of C, whose alignment `is_streamed` has checked if it is streamed.
                unsafe {
                    match (ADD, STREAM) {
                        (true, _) => F::store(simd, to, F::plus(simd, F::load(simd, to), sum)),
                        (_, true) => F::stream(simd, to, sum),
                        _ => F::store(simd, to, sum),
                    }
                }
            }
        }
        if whole < columns {
            let rest = F::first(simd, columns - whole);
            for p in 0..D {
                // SAFETY: the last elements of each row of B.
                terms[p] = unsafe { F::load_first(simd, rest, b.from(p, whole).start) };
            }
            for r in 0..R {
                let to = to[r].wrapping_add(whole);
                let sum = sum::<S, F, D>(simd, factors[r], terms);
                // SAFETY: the last elements of a row of C.
                unsafe {
                    let sum = if ADD { F::plus(simd, F::load_first(simd, rest, to), sum) } else { sum };
                    F::store_first(simd, rest, to, sum);
                }
            }
        }
    }
}

/// `Σ a b`, in the order of the terms.
#[inline(always)]
fn sum<S: Simd, F: Float, const D: usize>(simd: S, a: [F::Vector<S>; D], b: [F::Vector<S>; D]) -> F::Vector<S> {
    let mut sum = F::splat(simd, F::zero());
    for p in 0..D {
        sum = F::fused(simd, a[p], b[p], sum);
    }
    sum
}
