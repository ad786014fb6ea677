//! The vector primitives of the element types.
#![allow(unsafe_code)]

#[cfg(not(target_arch = "aarch64"))]
use pulp::MemMask;

#[cfg(target_arch = "aarch64")]
use super::neon::{
    load_first_f32, load_first_f64, splat_f32, splat_f64, transpose_2x2 as transpose_f64,
    transpose_4x4 as transpose_f32, whole_f32, whole_f64,
};
#[cfg(target_arch = "x86_64")]
use super::square::{transpose_4x4 as transpose_f64, transpose_8x8 as transpose_f32};

/// The alignment that the address of a [streamed](Simd::stream) vector must have.
pub(crate) const STREAM_ALIGNMENT: usize = 16;

/// A value at any address.
#[repr(C, packed)]
struct Unaligned<T>(T);

/// The value at `at`, without the checks that a build with debug assertions adds to `*at` and to `read_unaligned`: in the
/// innermost loops they take many times as long as the arithmetic, to compile and to run.
///
/// # Safety
///
/// `at` is valid for reads of a `T`, for as long as the result is used.
#[inline(always)]
#[allow(clippy::transmute_ptr_to_ref)] // A cast would be checked.
unsafe fn at<'a, T>(at: *const T) -> &'a Unaligned<T> {
    // SAFETY: an address and a reference are the same bits, every address is aligned for it, and the caller vouches for the rest.
    unsafe { std::mem::transmute::<*const T, &Unaligned<T>>(at) }
}

/// The value at `from`, which may have any address.
///
/// # Safety
///
/// `from` is valid for reads of a `T`.
#[inline(always)]
pub(crate) unsafe fn read_at<T: Copy>(from: *const T) -> T {
    // SAFETY: guaranteed by the caller.
    unsafe { at(from).0 }
}

/// [`at`], for writing.
///
/// # Safety
///
/// `at` is valid for writes of a `T`, and nothing else refers to it while the result is used.
#[inline(always)]
#[allow(clippy::transmute_ptr_to_ref)] // As above.
unsafe fn at_mut<'a, T>(at: *mut T) -> &'a mut Unaligned<T> {
    // SAFETY: as above.
    unsafe { std::mem::transmute::<*mut T, &mut Unaligned<T>>(at) }
}

/// Prefetches a cache line to the L1 cache.
#[inline(always)]
pub(crate) fn prefetch_l1<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing; every x86-64 has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Prefetches a cache line to the L2 cache.
#[inline(always)]
pub(crate) fn prefetch_l2<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing; every x86-64 has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The vector operations of an element type, with which each algorithm is written once for both types and for all
/// instruction sets.
///
/// The names differ from those of [`num_traits::Float`], which every user of this trait also has in scope.
#[doc(hidden)]
pub trait Simd: Copy + 'static {
    /// A vector register.
    type Vector<S: pulp::Simd>: Copy;

    /// Selects leading elements of a vector.
    type Mask<S: pulp::Simd>: Copy;

    /// The number of elements of a vector.
    fn lanes<S: pulp::Simd>() -> usize;

    /// `x` in every lane.
    fn splat<S: pulp::Simd>(simd: S, x: Self) -> Self::Vector<S>;

    /// Reads a vector whose elements will be factors.
    ///
    /// # Safety
    ///
    /// As [`load`](Self::load).
    unsafe fn load_factors<S: pulp::Simd>(simd: S, from: *const Self) -> Self::Vector<S>;

    /// Element `k` of `a` in every lane, where [`load_factors`](Self::load_factors) has read `a`. With NEON, this takes no instruction
    /// if the result is a factor of [`fused`](Self::fused).
    fn splat_element<S: pulp::Simd>(simd: S, a: Self::Vector<S>, k: usize) -> Self::Vector<S>;

    /// `a + b`.
    fn plus<S: pulp::Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// `a b + c`, rounded once if the instruction set can.
    fn fused<S: pulp::Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;

    /// The sum of the lanes.
    fn total<S: pulp::Simd>(simd: S, a: Self::Vector<S>) -> Self;

    /// Selects the first `count` lanes.
    fn first<S: pulp::Simd>(simd: S, count: usize) -> Self::Mask<S>;

    /// Reads an element.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads.
    unsafe fn read(from: *const Self) -> Self;

    /// Reads a vector.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of [`lanes`](Self::lanes) elements.
    unsafe fn load<S: pulp::Simd>(simd: S, from: *const Self) -> Self::Vector<S>;

    /// Reads N vectors, one after the other. Unlike N [loads](Self::load), they are at offsets from one address, which are free in
    /// WebAssembly's loads.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of N times [`lanes`](Self::lanes) elements.
    unsafe fn load_row<S: pulp::Simd, const N: usize>(simd: S, from: *const Self) -> [Self::Vector<S>; N];

    /// Reads element `k` of the `T` elements from `from` on, at an offset from one address.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of `T` elements.
    unsafe fn read_of<const T: usize>(from: *const Self, k: usize) -> Self;

    /// Writes a vector.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of [`lanes`](Self::lanes) elements.
    unsafe fn store<S: pulp::Simd>(simd: S, to: *mut Self, a: Self::Vector<S>);

    /// Writes a vector with a non-temporal store, if the machine has one; a fence must follow the last store.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of [`lanes`](Self::lanes) elements, and a multiple of [`STREAM_ALIGNMENT`]
    /// if the size of a vector is.
    unsafe fn stream<S: pulp::Simd>(simd: S, to: *mut Self, a: Self::Vector<S>);

    /// Reads the selected lanes; the others are zero.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of the selected elements.
    unsafe fn load_first<S: pulp::Simd>(simd: S, mask: Self::Mask<S>, from: *const Self) -> Self::Vector<S>;

    /// Writes the selected lanes.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of the selected elements.
    unsafe fn store_first<S: pulp::Simd>(simd: S, mask: Self::Mask<S>, to: *mut Self, a: Self::Vector<S>);

    /// The side of the square that [`transpose_square`](Self::transpose_square) copies.
    const SQUARE: usize;

    /// Copies a square from contiguous columns, `column` apart, to contiguous rows, `row` apart.
    ///
    /// # Safety
    ///
    /// The elements are readable at the source and writable at the destination; on x86-64, the machine has AVX.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    unsafe fn transpose_square(from: *const Self, column: isize, to: *mut Self, row: usize);
}

macro_rules! simd {
    ($element:ident, $count:ident, $vector:ident, $mask:ident, $lanes:ident, $splat:ident, $add:ident, $mul_add:ident,
     $sum:ident, $between:ident, $load:ident, $store:ident,
     $side:literal, $transpose:ident, $whole:ident, $splat_element:ident, $load_first:ident) => {
        impl Simd for $element {
            type Vector<S: pulp::Simd> = S::$vector;
            #[cfg(not(target_arch = "aarch64"))]
            type Mask<S: pulp::Simd> = MemMask<S::$mask>;
            // The number of elements, because NEON has no masked instructions.
            #[cfg(target_arch = "aarch64")]
            type Mask<S: pulp::Simd> = usize;

            #[inline(always)]
            fn lanes<S: pulp::Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            fn splat<S: pulp::Simd>(simd: S, x: Self) -> Self::Vector<S> {
                simd.$splat(x)
            }

            #[inline(always)]
            unsafe fn load_factors<S: pulp::Simd>(simd: S, from: *const Self) -> Self::Vector<S> {
                // SAFETY: guaranteed by the caller.
                let a = unsafe { Self::load(simd, from) };
                #[cfg(target_arch = "aarch64")]
                if size_of::<Self::Vector<S>>() == 16 {
                    // SAFETY: as below.
                    return unsafe { std::mem::transmute_copy(&$whole(std::mem::transmute_copy(&a))) };
                }
                a
            }

            #[inline(always)]
            fn splat_element<S: pulp::Simd>(simd: S, a: Self::Vector<S>, k: usize) -> Self::Vector<S> {
                #[cfg(target_arch = "aarch64")]
                if size_of::<Self::Vector<S>>() == 16 {
                    // SAFETY: vectors of 16 bytes are vectors of NEON, which every such processor has.
                    unsafe {
                        let element = $splat_element(std::mem::transmute_copy(&a), k);
                        return std::mem::transmute_copy(&element);
                    }
                }
                assert!(k < Self::lanes::<S>(), "element {k} of a vector");
                // SAFETY: element `k` is in the vector.
                simd.$splat(unsafe { at((&raw const a).cast::<Self>().wrapping_add(k)).0 })
            }

            #[inline(always)]
            fn plus<S: pulp::Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn fused<S: pulp::Simd>(
                simd: S,
                a: Self::Vector<S>,
                b: Self::Vector<S>,
                c: Self::Vector<S>,
            ) -> Self::Vector<S> {
                simd.$mul_add(a, b, c)
            }

            #[inline(always)]
            fn total<S: pulp::Simd>(simd: S, a: Self::Vector<S>) -> Self {
                simd.$sum(a)
            }

            #[cfg(target_arch = "aarch64")]
            #[inline(always)]
            fn first<S: pulp::Simd>(_: S, count: usize) -> Self::Mask<S> {
                count
            }

            #[cfg(not(target_arch = "aarch64"))]
            #[inline(always)]
            fn first<S: pulp::Simd>(simd: S, count: usize) -> Self::Mask<S> {
                // A new mask selects the masked instructions: the one that pulp returns jumps through a table.
                MemMask::new(simd.$between(0, count as $count).mask())
            }

            #[inline(always)]
            unsafe fn read(from: *const Self) -> Self {
                // SAFETY: the caller vouches for the element.
                unsafe { at(from).0 }
            }

            #[inline(always)]
            unsafe fn load<S: pulp::Simd>(_: S, from: *const Self) -> Self::Vector<S> {
                // SAFETY: the caller vouches for the elements, and every bit pattern is a vector.
                unsafe { at(from.cast::<Self::Vector<S>>()).0 }
            }

            #[inline(always)]
            unsafe fn load_row<S: pulp::Simd, const N: usize>(_: S, from: *const Self) -> [Self::Vector<S>; N] {
                // SAFETY: the caller vouches for the elements, and every bit pattern is a vector.
                unsafe { at(from.cast::<[Self::Vector<S>; N]>()).0 }
            }

            #[inline(always)]
            unsafe fn read_of<const T: usize>(from: *const Self, k: usize) -> Self {
                // SAFETY: the caller vouches for the elements.
                unsafe { at(from.cast::<[Self; T]>()).0[k] }
            }

            #[inline(always)]
            unsafe fn store<S: pulp::Simd>(_: S, to: *mut Self, a: Self::Vector<S>) {
                // SAFETY: the caller vouches for the elements.
                unsafe { at_mut(to.cast::<Self::Vector<S>>()).0 = a }
            }

            #[inline(always)]
            unsafe fn stream<S: pulp::Simd>(simd: S, to: *mut Self, a: Self::Vector<S>) {
                #[cfg(target_arch = "x86_64")]
                if size_of::<Self::Vector<S>>().is_multiple_of(STREAM_ALIGNMENT) {
                    let parts = (&raw const a).cast::<std::arch::x86_64::__m128>();
                    for part in 0..size_of::<Self::Vector<S>>() / STREAM_ALIGNMENT {
                        // SAFETY: this is a part of the vector, and the caller vouches for the destination.
                        unsafe {
                            let to = to.wrapping_byte_add(part * STREAM_ALIGNMENT).cast::<f32>();
                            std::arch::x86_64::_mm_stream_ps(to, at(parts.wrapping_add(part)).0);
                        }
                    }
                    return;
                }
                // SAFETY: guaranteed by the caller.
                unsafe { Self::store(simd, to, a) }
            }

            #[cfg(target_arch = "aarch64")]
            #[inline(always)]
            unsafe fn load_first<S: pulp::Simd>(simd: S, count: usize, from: *const Self) -> Self::Vector<S> {
                if count >= Self::lanes::<S>() {
                    // SAFETY: the caller vouches for the selected elements, which are all of them.
                    return unsafe { Self::load(simd, from) };
                }
                if size_of::<Self::Vector<S>>() != 16 {
                    return simd.$splat(0.0);
                }
                // SAFETY: the caller vouches for the selected elements, and vectors of 16 bytes are vectors of NEON.
                unsafe { std::mem::transmute_copy(&$load_first(from, count)) }
            }

            #[cfg(not(target_arch = "aarch64"))]
            #[inline(always)]
            unsafe fn load_first<S: pulp::Simd>(simd: S, mask: Self::Mask<S>, from: *const Self) -> Self::Vector<S> {
                // SAFETY: the caller vouches for the selected elements.
                unsafe { simd.$load(mask, from) }
            }

            #[cfg(target_arch = "aarch64")]
            #[inline(always)]
            unsafe fn store_first<S: pulp::Simd>(simd: S, count: usize, to: *mut Self, a: Self::Vector<S>) {
                let mut elements = [0.0; 16 / size_of::<$element>()];
                // SAFETY: the array is at least as long as a vector, and the caller vouches for the selected elements.
                unsafe {
                    Self::store(simd, elements.as_mut_ptr(), a);
                    for k in 0..count.min(Self::lanes::<S>()) {
                        at_mut(to.wrapping_add(k)).0 = elements[k];
                    }
                }
            }

            #[cfg(not(target_arch = "aarch64"))]
            #[inline(always)]
            unsafe fn store_first<S: pulp::Simd>(simd: S, mask: Self::Mask<S>, to: *mut Self, a: Self::Vector<S>) {
                // SAFETY: the caller vouches for the selected elements.
                unsafe { simd.$store(mask, to, a) }
            }

            const SQUARE: usize = if cfg!(target_arch = "aarch64") { 16 / size_of::<$element>() } else { $side };

            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            #[inline(always)]
            unsafe fn transpose_square(from: *const Self, column: isize, to: *mut Self, row: usize) {
                // SAFETY: the caller vouches for the elements and for AVX; every AArch64 has NEON.
                unsafe { $transpose(from, column, to, row) }
            }
        }
    };
}

simd!(
    f32,
    u32,
    f32s,
    m32s,
    F32_LANES,
    splat_f32s,
    add_f32s,
    mul_add_e_f32s,
    reduce_sum_f32s,
    mask_between_m32s,
    mask_load_ptr_f32s,
    mask_store_ptr_f32s,
    8,
    transpose_f32,
    whole_f32,
    splat_f32,
    load_first_f32
);
simd!(
    f64,
    u64,
    f64s,
    m64s,
    F64_LANES,
    splat_f64s,
    add_f64s,
    mul_add_e_f64s,
    reduce_sum_f64s,
    mask_between_m64s,
    mask_load_ptr_f64s,
    mask_store_ptr_f64s,
    4,
    transpose_f64,
    whole_f64,
    splat_f64,
    load_first_f64
);
