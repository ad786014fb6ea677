//! A small vector trait over the element types.
#![allow(unsafe_code)]

use pulp::{MemMask, WithSimd};

use super::block::Block;
use super::dispatch::dispatch;
use super::dots::Dots;
use super::outer::{ALIGNMENT, Outer};
use super::pack::Pack;
use super::packed::{PackOperand, Sweep};
use super::transpose::{transpose_4x4, transpose_8x8};
use super::{math, packed};
#[cfg(target_arch = "x86_64")]
#[cfg(target_arch = "x86_64")]

/// The sizes that follow from the registers of the instruction set.
pub struct Tiling {
    /// The columns of a tile.
    pub width: usize,
    /// The most rows of a tile.
    pub rows: usize,
    /// The columns of a panel of a packed operand.
    pub panel: usize,
}

/// What the kernels need of an element type, so that each algorithm is written once for both types and for all
/// instruction sets.
///
/// The names keep clear of those of [`num_traits::Float`], which every user of this trait also has in scope.
#[doc(hidden)]
pub trait Simd: Copy + 'static {
    /// A register of elements.
    type Vector<S: pulp::Simd>: Copy;

    /// Selects leading elements of a register.
    type Mask<S: pulp::Simd>: Copy;

    /// The elements of a register.
    fn lanes<S: pulp::Simd>() -> usize;

    /// `x` in every lane.
    fn splat<S: pulp::Simd>(simd: S, x: Self) -> Self::Vector<S>;

    /// `a + b`.
    fn plus<S: pulp::Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// `a b + c`, rounded once where the instruction set can.
    fn fused<S: pulp::Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;

    /// The sum of the lanes.
    fn total<S: pulp::Simd>(simd: S, a: Self::Vector<S>) -> Self;

    /// Selects the first `count` lanes.
    fn first<S: pulp::Simd>(simd: S, count: usize) -> Self::Mask<S>;

    /// Reads a register.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of [`lanes`](Self::lanes) elements.
    unsafe fn load<S: pulp::Simd>(simd: S, from: *const Self) -> Self::Vector<S>;

    /// Writes a register.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of [`lanes`](Self::lanes) elements.
    unsafe fn store<S: pulp::Simd>(simd: S, to: *mut Self, a: Self::Vector<S>);

    /// Writes a register past the caches, where the machine can; a fence must follow the last one.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of [`lanes`](Self::lanes) elements, and a multiple of [`ALIGNMENT`](super::outer::ALIGNMENT)
    /// if a register is.
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

    /// Copies a square with contiguous columns, `column` apart, to rows `row` apart.
    ///
    /// # Safety
    ///
    /// The elements are readable, and writable where they go; the machine has AVX.
    #[cfg(target_arch = "x86_64")]
    unsafe fn transpose_square(from: *const Self, column: isize, to: *mut Self, row: usize);

    /// The sizes of tiles and panels. Like the products below, a method of the element types so that it is compiled once, in
    /// this crate, and not again in every crate that names a layer.
    fn tiling() -> Tiling;

    /// Multiplies blocks.
    fn multiply(block: Block<Self>);

    /// Multiplies by dot products.
    fn multiply_by_dots(dots: Dots<Self>);

    /// Multiplies into a large matrix, past the caches.
    fn multiply_outer(outer: Outer<Self>);

    /// Copies an operand.
    fn pack(pack: Pack<'_, Self>);

    /// Packs a right operand for many products.
    fn pack_operand(pack: PackOperand<'_, Self>);

    /// Multiplies with an operand packed for many products.
    fn multiply_packed(sweep: Sweep<'_, Self>);

    /// See [`math::exp`].
    fn exponential(self) -> Self;

    /// See [`math::tanh`].
    fn hyperbolic_tangent(self) -> Self;

    /// See [`math::sigmoid`].
    fn logistic(self) -> Self;

    /// See [`math::tanh_fraction`].
    fn hyperbolic_tangent_fraction(self) -> (Self, Self);

    /// See [`math::sigmoid_fraction`].
    fn logistic_fraction(self) -> (Self, Self);

    /// See [`math::normal_cdf`].
    fn normal_distribution(self) -> Self;
}

macro_rules! simd {
    ($element:ident, $count:ident, $vector:ident, $mask:ident, $lanes:ident, $splat:ident, $add:ident, $mul_add:ident,
     $sum:ident, $between:ident, $load:ident, $store:ident,
     $side:literal, $transpose:ident) => {
        impl Simd for $element {
            type Vector<S: pulp::Simd> = S::$vector;
            type Mask<S: pulp::Simd> = MemMask<S::$mask>;

            #[inline(always)]
            fn lanes<S: pulp::Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            fn splat<S: pulp::Simd>(simd: S, x: Self) -> Self::Vector<S> {
                simd.$splat(x)
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

            #[inline(always)]
            fn first<S: pulp::Simd>(simd: S, count: usize) -> Self::Mask<S> {
                // A mask made anew, for the masked instructions: the one that pulp returns jumps through a table.
                MemMask::new(simd.$between(0, count as $count).mask())
            }

            #[inline(always)]
            unsafe fn load<S: pulp::Simd>(_: S, from: *const Self) -> Self::Vector<S> {
                // SAFETY: the caller vouches for the elements, and every bit pattern is a register.
                unsafe { from.cast::<Self::Vector<S>>().read_unaligned() }
            }

            #[inline(always)]
            unsafe fn store<S: pulp::Simd>(_: S, to: *mut Self, a: Self::Vector<S>) {
                // SAFETY: the caller vouches for the elements.
                unsafe { to.cast::<Self::Vector<S>>().write_unaligned(a) }
            }

            #[inline(always)]
            unsafe fn stream<S: pulp::Simd>(simd: S, to: *mut Self, a: Self::Vector<S>) {
                #[cfg(target_arch = "x86_64")]
                if size_of::<Self::Vector<S>>().is_multiple_of(ALIGNMENT) {
                    let parts = (&raw const a).cast::<std::arch::x86_64::__m128>();
                    for part in 0..size_of::<Self::Vector<S>>() / ALIGNMENT {
                        // SAFETY: a part of the register, and the caller vouches for where it goes.
                        unsafe {
                            let part_of_a = parts.add(part).read_unaligned();
                            std::arch::x86_64::_mm_stream_ps(to.cast::<f32>().add(part * 4), part_of_a);
                        }
                    }
                    return;
                }
                // SAFETY: as the caller says.
                unsafe { Self::store(simd, to, a) }
            }

            #[inline(always)]
            unsafe fn load_first<S: pulp::Simd>(simd: S, mask: Self::Mask<S>, from: *const Self) -> Self::Vector<S> {
                // SAFETY: the caller vouches for the selected elements.
                unsafe { simd.$load(mask, from) }
            }

            #[inline(always)]
            unsafe fn store_first<S: pulp::Simd>(simd: S, mask: Self::Mask<S>, to: *mut Self, a: Self::Vector<S>) {
                // SAFETY: the caller vouches for the selected elements.
                unsafe { simd.$store(mask, to, a) }
            }

            const SQUARE: usize = $side;

            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn transpose_square(from: *const Self, column: isize, to: *mut Self, row: usize) {
                // SAFETY: the caller vouches for the elements and for AVX.
                unsafe { $transpose(from, column, to, row) }
            }

            #[inline(never)]
            fn tiling() -> Tiling {
                struct Ask;
                impl WithSimd for Ask {
                    type Output = Tiling;
                    #[inline(always)]
                    fn with_simd<S: pulp::Simd>(self, _: S) -> Tiling {
                        Tiling {
                            width: super::tile::width::<S, $element>(),
                            rows: super::tile::most_rows::<S>(),
                            panel: packed::panel_width::<S, $element>(),
                        }
                    }
                }
                dispatch(Ask)
            }

            #[inline(never)]
            fn multiply(block: Block<Self>) {
                dispatch(block)
            }

            #[inline(never)]
            fn multiply_by_dots(dots: Dots<Self>) {
                dispatch(dots)
            }

            #[inline(never)]
            fn multiply_outer(outer: Outer<Self>) {
                dispatch(outer)
            }

            #[inline(never)]
            fn pack(pack: Pack<'_, Self>) {
                dispatch(pack)
            }

            #[inline(never)]
            fn pack_operand(pack: PackOperand<'_, Self>) {
                dispatch(pack)
            }

            #[inline(never)]
            fn multiply_packed(sweep: Sweep<'_, Self>) {
                dispatch(sweep)
            }

            #[inline(always)]
            fn exponential(self) -> Self {
                math::$element::exp(self)
            }

            #[inline(always)]
            fn hyperbolic_tangent(self) -> Self {
                math::$element::tanh(self)
            }

            #[inline(always)]
            fn logistic(self) -> Self {
                math::$element::sigmoid(self)
            }

            #[inline(always)]
            fn hyperbolic_tangent_fraction(self) -> (Self, Self) {
                math::$element::tanh_fraction(self)
            }

            #[inline(always)]
            fn logistic_fraction(self) -> (Self, Self) {
                math::$element::sigmoid_fraction(self)
            }

            #[inline(always)]
            fn normal_distribution(self) -> Self {
                math::$element::normal_cdf(self)
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
    transpose_8x8
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
    transpose_4x4
);
