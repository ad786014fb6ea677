//! The two element types.

use super::math::Elementary;
use super::simd::vector::Simd;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// An element type: `f32`, for training and inference, or `f64`, for gradient checks and laws.
///
/// The trait is sealed: every layer is generic over it and no other type implements it. Hyper-parameters, losses and norms
/// are `f64` for both types.
pub trait Float:
    sealed::Sealed
    + Simd
    + Elementary
    + num_traits::Float
    + num_traits::NumAssign
    + ndarray::LinalgScalar
    + ndarray::ScalarOperand
    + Default
    + std::fmt::Debug
    + std::fmt::Display
    + std::iter::Sum
    + Send
    + Sync
    + 'static
{
    /// The nearest value to `x`.
    fn of(x: f64) -> Self;

    /// The value as `f64`, exactly.
    fn widen(self) -> f64;

    /// The bits, widened: equal exactly if the values are the same, sign of zero and NaN payload included.
    fn bits(self) -> u64;

    /// The value that has these bits, as [`bits`](Float::bits) gives them.
    fn from_bits(bits: u64) -> Self;

    /// Calls a function's instance for this type.
    #[doc(hidden)]
    #[track_caller]
    fn once<T: Once>(arguments: T::Arguments<'_, Self>) -> T::Output<Self>;
}

impl Float for f32 {
    #[inline]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline]
    fn widen(self) -> f64 {
        f64::from(self)
    }
    #[inline]
    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
    #[inline]
    fn from_bits(bits: u64) -> f32 {
        f32::from_bits(bits as u32)
    }
    #[inline(always)]
    fn once<T: Once>(arguments: T::Arguments<'_, f32>) -> T::Output<f32> {
        T::f32(arguments)
    }
}

impl Float for f64 {
    #[inline]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline]
    fn widen(self) -> f64 {
        self
    }
    #[inline]
    fn bits(self) -> u64 {
        self.to_bits()
    }
    #[inline]
    fn from_bits(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    #[inline(always)]
    fn once<T: Once>(arguments: T::Arguments<'_, f64>) -> T::Output<f64> {
        T::f64(arguments)
    }
}

/// A function that is generic over the element type, as its two instances.
///
/// Generic code is compiled in every crate that uses it, and again whenever that crate changes. The instances here are not
/// generic, so they are compiled only in their own crate. [`Float::once`] picks one.
pub trait Once {
    /// The arguments of the function.
    type Arguments<'a, F: Float>;
    /// The type of its result.
    type Output<F: Float>;

    /// The function for `f32`.
    fn f32(arguments: Self::Arguments<'_, f32>) -> Self::Output<f32>;

    /// The function for `f64`.
    fn f64(arguments: Self::Arguments<'_, f64>) -> Self::Output<f64>;
}
