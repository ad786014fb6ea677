//! Vectors of sums in 32 bits, for products of groups of terms: pairs in 16 bits, or fours in 8.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::kernels::gemm::geometry::{PANEL_ROWS, ROW_PANELS};
use crate::kernels::simd::dispatch::Vectors;
use crate::kernels::simd::vector::read_at;

/// The instructions that a product with weights in 8 bits uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::kernels) enum Kernel {
    /// Those of the target that the program was built for.
    #[default]
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 with four products in one instruction, for values in 8 bits, or for each half of values in 16.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Kernel {
    /// The best kernel that this machine has and that may be used.
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

    /// The number of columns of a panel.
    pub(super) fn width(self) -> usize {
        match self {
            Kernel::Portable => Portable::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => Avx2::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => Avx512::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => Fours::WIDTH,
        }
    }

    /// The number of terms of a group.
    pub(super) fn terms(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => Fours::TERMS,
            _ => Portable::TERMS,
        }
    }
}

/// The number of bits of the values that are multiplied with weights in 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::kernels) enum Values {
    #[default]
    Sixteen,
    Eight,
}

/// An operation that [`Integers::out_of_line`] compiles for the instructions of `I`.
pub(super) trait Operation<I> {
    /// # Safety
    ///
    /// The condition that the operation's type states holds, and the machine has the instructions.
    unsafe fn run(self, simd: I);
}

/// Vectors of integers. Callers of the methods are compiled for the instructions, and run only if the machine has them.
pub(super) trait Integers: Copy {
    /// The number of columns of a vector.
    const LANES: usize;
    /// The number of vectors in a row of a panel.
    const VECTORS: usize;
    /// The number of columns of a panel.
    const WIDTH: usize = Self::VECTORS * Self::LANES;
    /// The number of terms of a group.
    const TERMS: usize = 2;
    /// The number of words of a group of values. The first words of a block's groups are one after another, then their next words.
    const WORDS: usize = 1;
    /// The maximum rows of a tile, and the number of panels that a single row is multiplied with at a time.
    const TILE: (usize, usize) = (PANEL_ROWS, ROW_PANELS);
    /// `LANES` sums in 32 bits.
    type Sums: Copy;
    /// `LANES` groups of weights.
    type Weights: Copy;
    /// A group of values, for all columns.
    type Values: Copy;

    /// Runs `operation`, compiled for the instructions, as a function of its own.
    ///
    /// # Safety
    ///
    /// As [`Operation::run`].
    unsafe fn out_of_line<Op: Operation<Self>>(self, operation: Op);

    /// Empty sums.
    fn zero(self) -> Self::Sums;

    /// The values from which sums start.
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
    unsafe fn load(self, from: *const i8) -> Self::Weights;

    /// A group of values, from a block of `groups` groups.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of [`WORDS`](Self::WORDS) words, `groups` apart.
    unsafe fn broadcast(self, from: *const u32, groups: usize) -> Self::Values;

    /// `sums + Σ weights values`.
    fn add_products(self, sums: Self::Sums, weights: Self::Weights, values: Self::Values) -> Self::Sums;

    /// `to = base + sums (scales step)`, each operation rounded.
    ///
    /// # Safety
    ///
    /// `LANES` elements of `scales` and `base` are readable, and of `to` writable.
    unsafe fn write(self, sums: Self::Sums, step: f32, scales: *const f32, base: Option<*const f32>, to: *mut f32);
}

/// [`Integers::out_of_line`] for these target features.
macro_rules! compiled_for {
    ($($features:literal)?) => {
        #[inline(never)]
        $(#[target_feature(enable = $features)])?
        unsafe fn out_of_line<Op: Operation<Self>>(self, operation: Op) {
            // SAFETY: guaranteed by the caller.
            unsafe { operation.run(self) }
        }
    };
}

/// Arrays, which the compiler turns into the vectors that there are.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Integers for Portable {
    const LANES: usize = 8;
    const VECTORS: usize = 1;
    // On x86-64 these run only if nothing else can, but are compiled with all others.
    const TILE: (usize, usize) = if cfg!(target_arch = "x86_64") { (3, 1) } else { (PANEL_ROWS, ROW_PANELS) };
    type Sums = [i32; 8];
    type Weights = [i16; 16];
    type Values = [i16; 16];

    compiled_for!();

    #[inline(always)]
    fn zero(self) -> [i32; 8] {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> [i16; 16] {
        // SAFETY: guaranteed by the caller.
        unsafe { from.cast::<[i8; 16]>().read() }.map(i16::from)
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const u32, _: usize) -> [i16; 16] {
        // SAFETY: guaranteed by the caller.
        let [a, b, c, d] = unsafe { read_at(from) }.to_ne_bytes();
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
            // SAFETY: guaranteed by the caller.
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
    type Weights = __m256i;
    type Values = __m256i;

    compiled_for!("avx2,fma");

    #[inline(always)]
    fn zero(self) -> __m256i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> __m256i {
        // SAFETY: guaranteed by the caller, who has the instructions.
        unsafe { _mm256_cvtepi8_epi16(read_at(from.cast::<__m128i>())) }
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const u32, _: usize) -> __m256i {
        // SAFETY: guaranteed by the caller, who has the instructions.
        unsafe { _mm256_set1_epi32(read_at(from.cast::<i32>())) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }

    #[inline(always)]
    unsafe fn write(self, sums: __m256i, step: f32, scales: *const f32, base: Option<*const f32>, to: *mut f32) {
        // SAFETY: guaranteed by the caller, who has the instructions.
        unsafe {
            let scale = _mm256_mul_ps(_mm256_loadu_ps(scales), _mm256_set1_ps(step));
            let value = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), scale);
            _mm256_storeu_ps(to, base.map_or(value, |base| _mm256_add_ps(_mm256_loadu_ps(base), value)));
        }
    }
}

/// AVX-512 F and BW.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Integers for Avx512 {
    const LANES: usize = 16;
    const VECTORS: usize = 4;
    type Sums = __m512i;
    type Weights = __m512i;
    type Values = __m512i;

    compiled_for!("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq");

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> __m512i {
        // SAFETY: guaranteed by the caller, who has the instructions.
        unsafe { _mm512_cvtepi8_epi16(read_at(from.cast::<__m256i>())) }
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const u32, _: usize) -> __m512i {
        // SAFETY: guaranteed by the caller, who has the instructions.
        unsafe { _mm512_set1_epi32(read_at(from.cast::<i32>())) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(a, b)) }
    }

    #[inline(always)]
    unsafe fn write(self, sums: __m512i, step: f32, scales: *const f32, base: Option<*const f32>, to: *mut f32) {
        // SAFETY: guaranteed by the caller, who has the instructions.
        unsafe {
            let scale = _mm512_mul_ps(_mm512_loadu_ps(scales), _mm512_set1_ps(step));
            let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale);
            _mm512_storeu_ps(to, base.map_or(value, |base| _mm512_add_ps(_mm512_loadu_ps(base), value)));
        }
    }
}

/// AVX-512 VNNI, four products at a time: weights in 8 bits, and values in 8 bits without a sign, with 128 added.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Fours;

#[cfg(target_arch = "x86_64")]
impl Integers for Fours {
    const LANES: usize = 16;
    const VECTORS: usize = 4;
    const TERMS: usize = 4;
    type Sums = __m512i;
    type Weights = __m512i;
    type Values = __m512i;

    compiled_for!("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni");

    #[inline(always)]
    fn zero(self) -> __m512i {
        Avx512.zero()
    }

    #[inline(always)]
    unsafe fn start(self, offsets: *const i32) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { read_at(offsets.cast::<__m512i>()) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { read_at(from.cast::<__m512i>()) }
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const u32, groups: usize) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { Avx512.broadcast(from, groups) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, weights: __m512i, values: __m512i) -> __m512i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_dpbusd_epi32(sums, values, weights) }
    }

    #[inline(always)]
    unsafe fn write(self, sums: __m512i, step: f32, scales: *const f32, base: Option<*const f32>, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { Avx512.write(sums, step, scales, base, to) }
    }
}

/// The same with values in 16 bits, in halves: the upper halves with 128 added, and the lower halves, which have no sign.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Halves;

#[cfg(target_arch = "x86_64")]
impl Integers for Halves {
    const LANES: usize = 16;
    const VECTORS: usize = 4;
    const TERMS: usize = 4;
    const WORDS: usize = 2;
    // Twice as many sums as other kernels.
    const TILE: (usize, usize) = (PANEL_ROWS / 2, ROW_PANELS / 2);
    type Sums = [__m512i; 2];
    type Weights = __m512i;
    type Values = [__m512i; 2];

    compiled_for!("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni");

    #[inline(always)]
    fn zero(self) -> [__m512i; 2] {
        [Avx512.zero(); 2]
    }

    #[inline(always)]
    unsafe fn start(self, offsets: *const i32) -> [__m512i; 2] {
        // SAFETY: guaranteed by the caller.
        unsafe { [Fours.start(offsets), Avx512.zero()] }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const i8) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { Fours.load(from) }
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const u32, groups: usize) -> [__m512i; 2] {
        // SAFETY: guaranteed by the caller.
        unsafe { [Avx512.broadcast(from, groups), Avx512.broadcast(from.wrapping_add(groups), groups)] }
    }

    #[inline(always)]
    fn add_products(self, sums: [__m512i; 2], weights: __m512i, values: [__m512i; 2]) -> [__m512i; 2] {
        let [upper, lower] = sums;
        [Fours.add_products(upper, weights, values[0]), Fours.add_products(lower, weights, values[1])]
    }

    #[inline(always)]
    unsafe fn write(
        self,
        [upper, lower]: [__m512i; 2],
        step: f32,
        scales: *const f32,
        base: Option<*const f32>,
        to: *mut f32,
    ) {
        // SAFETY: guaranteed by the caller, who has the instructions.
        unsafe {
            let sums = _mm512_add_epi32(_mm512_slli_epi32::<8>(upper), lower);
            Avx512.write(sums, step, scales, base, to);
        }
    }
}
