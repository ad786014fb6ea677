//! The storage of weights in panels that are swept.
#![allow(unsafe_code)]

use pulp::Simd;

use crate::kernels::float::Float;
use crate::kernels::simd::vector;

/// The form in which a weight is stored in a panel.
pub(super) trait Stored<F: Float>: Copy {
    /// The N vectors of a row of a panel.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of N times [`lanes`](vector::Simd::lanes) weights.
    unsafe fn load_row<S: Simd, const N: usize>(simd: S, from: *const Self) -> [F::Vector<S>; N];
}

/// A weight stored unchanged.
impl<F: Float> Stored<F> for F {
    #[inline(always)]
    unsafe fn load_row<S: Simd, const N: usize>(simd: S, from: *const Self) -> [F::Vector<S>; N] {
        // SAFETY: guaranteed by the caller.
        unsafe { <F as vector::Simd>::load_row(simd, from) }
    }
}
