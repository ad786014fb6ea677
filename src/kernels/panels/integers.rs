//! Vectors of sums in 32 bits, of products of pairs in 16 bits.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::kernels::simd::dispatch::Vectors;
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::vector::read_at;

/// Which instructions a product with weights in 8 bits has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::kernels) enum Kernel {
    /// Those of the target that the program was built for.
    #[default]
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 with products of pairs that are added in one instruction.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Kernel {
    /// The best that this machine has, or that may be used.
    pub(super) fn best() -> Self {
        match Vectors::best() {
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(_) if std::arch::is_x86_feature_detected!("avx512vnni") => Kernel::Vnni,
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(_) => Kernel::Avx512,
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2(_) => Kernel::Avx2,
            _ => Kernel::Portable,
        }
    }

    /// The columns of a panel.
    pub(super) fn width(self) -> usize {
        match self {
            Kernel::Portable => Portable::VECTORS * Portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => Avx2::VECTORS * Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => Avx512::<false>::VECTORS * Avx512::<false>::LANES,
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => Vnni::VECTORS * Vnni::LANES,
        }
    }
}

/// Vectors of integers. Whoever calls the methods is compiled for the instructions, and runs where they are.
pub(super) trait Integers: Copy {
    /// The columns of a vector.
    const LANES: usize;
    /// The vectors in a row of a panel.
    const VECTORS: usize;
    /// `LANES` sums in 32 bits.
    type Sums: Copy;
    /// `LANES` pairs in 16 bits.
    type Pairs: Copy;

    /// Sums of nothing.
    fn zero(self) -> Self::Sums;

    /// Any pairs.
    fn pairs(self) -> Self::Pairs;

    /// Pairs of weights, widened.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of `2 LANES` weights.
    unsafe fn load(self, from: *const i8) -> Self::Pairs;

    /// The same pair for all columns.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of two values.
    unsafe fn broadcast(self, from: *const i16) -> Self::Pairs;

    /// `sums + a0 b0 + a1 b1`.
    fn add_products(self, sums: Self::Sums, a: Self::Pairs, b: Self::Pairs) -> Self::Sums;

    /// `to = base + sums (scales step)`, each operation rounded.
    ///
    /// # Safety
    ///
    /// `LANES` elements of `scales` and `base` are readable, and of `to` writable.
    unsafe fn write(self, sums: Self::Sums, step: f32, scales: *const f32, base: Option<*const f32>, to: *mut f32);
}

/// Arrays, which the compiler turns into whatever vectors there are.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Integers for Portable {
    const LANES: usize = 8;
    const VECTORS: usize = 1;
    type Sums = [i32; 8];
    type Pairs = [i16; 16];

    #[inline(always)]
    fn zero(self) -> [i32; 8] {
        [0; 8]
    }

    #[inline(always)]
    fn pairs(self) -> [i16; 16] {
        [0; 16]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> [i16; 16] {
        // SAFETY: as the caller says.
        unsafe { from.cast::<[i8; 16]>().read() }.map(i16::from)
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const i16) -> [i16; 16] {
        // SAFETY: as the caller says.
        let pair = unsafe { from.cast::<[i16; 2]>().read() };
        std::array::from_fn(|k| pair[k % 2])
    }

    #[inline(always)]
    fn add_products(self, sums: [i32; 8], a: [i16; 16], b: [i16; 16]) -> [i32; 8] {
        let product = |k: usize| i32::from(a[k]).wrapping_mul(i32::from(b[k]));
        std::array::from_fn(|j| sums[j].wrapping_add(product(2 * j).wrapping_add(product(2 * j + 1))))
    }

    #[inline(always)]
    unsafe fn write(self, sums: [i32; 8], step: f32, scales: *const f32, base: Option<*const f32>, to: *mut f32) {
        for (j, sum) in sums.into_iter().enumerate() {
            // SAFETY: as the caller says.
            unsafe {
                let value = sum as f32 * (*scales.add(j) * step);
                *to.add(j) = base.map_or(value, |base| *base.add(j) + value);
            }
        }
    }
}

/// AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Integers for Avx2 {
    const LANES: usize = 8;
    const VECTORS: usize = 2;
    type Sums = __m256i;
    type Pairs = __m256i;

    #[inline(always)]
    fn zero(self) -> __m256i {
        // SAFETY: whoever calls this has the instructions.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn pairs(self) -> __m256i {
        self.zero()
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> __m256i {
        // SAFETY: as the caller says, and as above.
        unsafe { _mm256_cvtepi8_epi16(read_at(from.cast::<__m128i>())) }
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const i16) -> __m256i {
        // SAFETY: as the caller says, and as above.
        unsafe { _mm256_set1_epi32(read_at(from.cast::<i32>())) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: whoever calls this has the instructions.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }

    #[inline(always)]
    unsafe fn write(self, sums: __m256i, step: f32, scales: *const f32, base: Option<*const f32>, to: *mut f32) {
        // SAFETY: as the caller says, and as above.
        unsafe {
            let scale = _mm256_mul_ps(_mm256_loadu_ps(scales), _mm256_set1_ps(step));
            let value = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), scale);
            _mm256_storeu_ps(to, base.map_or(value, |base| _mm256_add_ps(_mm256_loadu_ps(base), value)));
        }
    }
}

/// AVX-512 F and BW, and perhaps VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512<const VNNI: bool>;

#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> Integers for Avx512<VNNI> {
    const LANES: usize = 16;
    const VECTORS: usize = 4;
    type Sums = __m512i;
    type Pairs = __m512i;

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: whoever calls this has the instructions.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn pairs(self) -> __m512i {
        self.zero()
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> __m512i {
        // SAFETY: as the caller says, and as above.
        unsafe { _mm512_cvtepi8_epi16(read_at(from.cast::<__m256i>())) }
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const i16) -> __m512i {
        // SAFETY: as the caller says, and as above.
        unsafe { _mm512_set1_epi32(read_at(from.cast::<i32>())) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: whoever calls this has the instructions.
        unsafe {
            if VNNI {
                _mm512_dpwssd_epi32(sums, a, b)
            } else {
                _mm512_add_epi32(sums, _mm512_madd_epi16(a, b))
            }
        }
    }

    #[inline(always)]
    unsafe fn write(self, sums: __m512i, step: f32, scales: *const f32, base: Option<*const f32>, to: *mut f32) {
        // SAFETY: as the caller says, and as above.
        unsafe {
            let scale = _mm512_mul_ps(_mm512_loadu_ps(scales), _mm512_set1_ps(step));
            let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale);
            _mm512_storeu_ps(to, base.map_or(value, |base| _mm512_add_ps(_mm512_loadu_ps(base), value)));
        }
    }
}

/// The instructions of [`Kernel::Vnni`].
#[cfg(target_arch = "x86_64")]
pub(super) type Vnni = Avx512<true>;
