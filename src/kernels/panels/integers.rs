//! Vectors of sums in 32 bits, of products of groups of terms: pairs in 16 bits, or fours in 8.
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
    /// The same with four products, for values in 8 bits alone.
    #[cfg(target_arch = "x86_64")]
    VnniFours,
}

impl Kernel {
    /// The best that this machine has, or that may be used, for values in 16 bits or in 8.
    pub(super) fn best(values: Values) -> Self {
        match Vectors::best() {
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(_) if std::arch::is_x86_feature_detected!("avx512vnni") => match values {
                Values::Sixteen => Kernel::Vnni,
                Values::Eight => Kernel::VnniFours,
            },
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
            Kernel::Portable => Portable::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => Avx2::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => Avx512::<false>::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => Avx512::<true>::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kernel::VnniFours => Fours::WIDTH,
        }
    }

    /// The terms of a group.
    pub(super) fn terms(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::VnniFours => Fours::TERMS,
            _ => Portable::TERMS,
        }
    }
}

/// In how many bits the values are that are multiplied with weights in 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::kernels) enum Values {
    #[default]
    Sixteen,
    Eight,
}

/// Vectors of integers. Whoever calls the methods is compiled for the instructions, and runs where they are.
pub(super) trait Integers: Copy {
    /// The columns of a vector.
    const LANES: usize;
    /// The vectors in a row of a panel.
    const VECTORS: usize;
    /// The columns of a panel.
    const WIDTH: usize = Self::VECTORS * Self::LANES;
    /// The terms of a group.
    const TERMS: usize = 2;
    /// `LANES` sums in 32 bits.
    type Sums: Copy;
    /// `LANES` groups of factors.
    type Groups: Copy;

    /// Sums of nothing.
    fn zero(self) -> Self::Sums;

    /// What sums start from.
    ///
    /// # Safety
    ///
    /// `offsets` is valid for reads of `LANES` numbers.
    #[inline(always)]
    unsafe fn start(self, _offsets: *const i32) -> Self::Sums {
        self.zero()
    }

    /// Groups of weights.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of `LANES TERMS` weights.
    unsafe fn load(self, from: *const i8) -> Self::Groups;

    /// The same group of values for all columns.
    fn broadcast(self, group: u32) -> Self::Groups;

    /// `sums + Σ weights values`.
    fn add_products(self, sums: Self::Sums, weights: Self::Groups, values: Self::Groups) -> Self::Sums;

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
    type Groups = [i16; 16];

    #[inline(always)]
    fn zero(self) -> [i32; 8] {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> [i16; 16] {
        // SAFETY: as the caller says.
        unsafe { from.cast::<[i8; 16]>().read() }.map(i16::from)
    }

    #[inline(always)]
    fn broadcast(self, group: u32) -> [i16; 16] {
        let [a, b, c, d] = group.to_ne_bytes();
        let pair = [i16::from_ne_bytes([a, b]), i16::from_ne_bytes([c, d])];
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
    type Groups = __m256i;

    #[inline(always)]
    fn zero(self) -> __m256i {
        // SAFETY: whoever calls this has the instructions.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> __m256i {
        // SAFETY: as the caller says, and as above.
        unsafe { _mm256_cvtepi8_epi16(read_at(from.cast::<__m128i>())) }
    }

    #[inline(always)]
    fn broadcast(self, group: u32) -> __m256i {
        // SAFETY: whoever calls this has the instructions.
        unsafe { _mm256_set1_epi32(group.cast_signed()) }
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
    type Groups = __m512i;

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: whoever calls this has the instructions.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> __m512i {
        // SAFETY: as the caller says, and as above.
        unsafe { _mm512_cvtepi8_epi16(read_at(from.cast::<__m256i>())) }
    }

    #[inline(always)]
    fn broadcast(self, group: u32) -> __m512i {
        // SAFETY: whoever calls this has the instructions.
        unsafe { _mm512_set1_epi32(group.cast_signed()) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: whoever calls this has the instructions.
        unsafe { if VNNI { _mm512_dpwssd_epi32(sums, a, b) } else { _mm512_add_epi32(sums, _mm512_madd_epi16(a, b)) } }
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

/// AVX-512 VNNI, four products at a time: weights in 8 bits, and values in 8 bits without a sign, 128 above what they are.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Fours;

#[cfg(target_arch = "x86_64")]
impl Integers for Fours {
    const LANES: usize = 16;
    const VECTORS: usize = 4;
    const TERMS: usize = 4;
    type Sums = __m512i;
    type Groups = __m512i;

    #[inline(always)]
    fn zero(self) -> __m512i {
        Avx512::<true>.zero()
    }

    #[inline(always)]
    unsafe fn start(self, offsets: *const i32) -> __m512i {
        // SAFETY: as the caller says.
        unsafe { read_at(offsets.cast::<__m512i>()) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> __m512i {
        // SAFETY: as the caller says.
        unsafe { read_at(from.cast::<__m512i>()) }
    }

    #[inline(always)]
    fn broadcast(self, group: u32) -> __m512i {
        Avx512::<true>.broadcast(group)
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, weights: __m512i, values: __m512i) -> __m512i {
        // SAFETY: whoever calls this has the instructions.
        unsafe { _mm512_dpbusd_epi32(sums, values, weights) }
    }

    #[inline(always)]
    unsafe fn write(self, sums: __m512i, step: f32, scales: *const f32, base: Option<*const f32>, to: *mut f32) {
        // SAFETY: as the caller says.
        unsafe { Avx512::<true>.write(sums, step, scales, base, to) }
    }
}
