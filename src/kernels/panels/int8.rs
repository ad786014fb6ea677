//! Products with weights in 8 bits, exact in integers between two roundings.
//!
//! ```text
//! W [K, M], in blocks b of at most 512 terms:     s[b, m] = max |W[b, m]| / 127,   q = W / s, rounded, in 8 bits
//! v [N, K], in the same blocks:                   t[n, b] = a power of 2,           p = v / t, rounded, in 16 bits
//! C = start + Σ_b t[n, b] s[b, m] (Σ_k p q)       the inner sum in 32 bits: 512 · 127 · 32767 < 2^31
//! ```
//!
//! A multiplication of pairs in 16 bits, with sums in 32, takes twice as many terms as one in f32, and the error of values in 16
//! bits is small beside that of the weights. Values in 8 bits would take half the time again where weights are near, but one large
//! value would leave few bits to the others of its row.
//!
//! ```text
//! panels [M / P][pairs of terms][P][2]      what is past K or M is 0; an odd block ends with half a pair
//! ```
//!
//! The bits of a result depend neither on the instruction set nor on how many rows and columns are computed together.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use pulp::WithSimd;

use super::integers::{Integers, Kernel, Portable};
#[cfg(target_arch = "x86_64")]
use super::integers::{Avx2, Avx512, Vnni};
use crate::kernels::buffer::{Buffer, with_scratch};
use crate::kernels::gemm::geometry::{PANEL_BLOCK_ROWS, PANEL_ROWS, ROW_PANELS, depth_blocks, even_chunks, for_height};
use crate::kernels::gemm::operand::{Base, Output};
use crate::kernels::simd::dispatch::dispatch;
use crate::parallel::{element_work, for_each_part};

/// W `[K, M]` in panels.
#[derive(Clone, Default)]
pub(in crate::kernels) struct Int8 {
    panels: Buffer, // [M / P][pairs][P][2] of i8
    scales: Buffer, // [blocks][M], M up to whole panels, of f32
    depth: usize,
    columns: usize,
    kernel: Kernel,
}

/// A block of terms: its place among the blocks, its first pair, and how many pairs it has.
#[derive(Clone, Copy)]
struct Block {
    index: usize,
    first: usize,
    pairs: usize,
}

/// The blocks of a depth.
fn blocks(depth: usize) -> impl Iterator<Item = Block> + Clone {
    depth_blocks(depth).enumerate().scan(0, |next, (index, (_, count))| {
        let block = Block { index, first: *next, pairs: count.div_ceil(2) };
        *next += block.pairs;
        Some(block)
    })
}

/// The pairs of terms of all blocks.
fn pairs_of(depth: usize) -> usize {
    depth_blocks(depth).map(|(_, count)| count.div_ceil(2)).sum()
}

/// The number of blocks.
fn blocks_of(depth: usize) -> usize {
    depth_blocks(depth).count()
}

impl Int8 {
    /// Packs `operand`, `[K, M]`, for the best kernel of this machine.
    pub(super) fn pack(&mut self, operand: ArrayView2<'_, f32>) {
        self.pack_for(Kernel::best(), operand);
    }

    /// Packs `operand`, `[K, M]`, for `kernel`.
    pub(in crate::kernels) fn pack_for(&mut self, kernel: Kernel, operand: ArrayView2<'_, f32>) {
        (self.depth, self.columns, self.kernel) = (operand.nrows(), operand.ncols(), kernel);
        let (depth, width, all_columns, pairs) = (self.depth, self.width(), self.all_columns(), pairs_of(self.depth));
        let panels = &mut self.panels.at_least::<i8>(2 * pairs * all_columns)[..2 * pairs * all_columns];
        let scales = &mut self.scales.at_least::<f32>(blocks_of(depth) * all_columns)[..blocks_of(depth) * all_columns];
        panels.fill(0);
        scales.fill(0.0);
        for (m, column) in operand.axis_iter(Axis(1)).enumerate() {
            for ((start, count), Block { index, first, .. }) in depth_blocks(depth).zip(blocks(depth)) {
                let terms = column.slice(s![start..start + count]);
                let scale = scale_of(terms.iter().copied());
                scales[index * all_columns + m] = scale;
                let to = &mut panels[2 * (m / width * pairs * width + first * width + m % width)..];
                for (k, &weight) in terms.iter().enumerate() {
                    to[k / 2 * 2 * width + k % 2] = quantised(weight, scale);
                }
            }
        }
    }

    /// The columns of a panel.
    pub(super) fn width(&self) -> usize {
        self.kernel.width()
    }

    /// M, up to whole panels.
    fn all_columns(&self) -> usize {
        self.columns.next_multiple_of(self.width())
    }

    /// Runs `act` with the rows of v, `[N, K]`, quantised on all threads.
    pub(in crate::kernels) fn with_rows(&self, v: ArrayView2<'_, f32>, act: impl FnOnce(&Rows<'_>)) {
        thread_local! {
            static VALUES: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
            static SCALES: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
        }
        let (rows, width, blocks) = (v.nrows(), 2 * pairs_of(self.depth), blocks_of(self.depth));
        with_scratch(&VALUES, rows * width, |values: &mut [i16]| {
            with_scratch(&SCALES, rows * blocks, |scales: &mut [f32]| {
                let to = (matrix_mut(values, rows, width), matrix_mut(scales, rows, blocks));
                for_each_part((v, to), element_work(v.len()), 1, |(v, (values, scales))| {
                    dispatch(Quantise { v, values, scales });
                });
                act(&Rows { values, scales });
            });
        });
    }

    /// Computes some rows and columns of C, whole panels or all that are left.
    ///
    /// # Safety
    ///
    /// C `[N, M]` is writable there, by nobody else meanwhile, and its base is readable; v are N rows, quantised for these weights.
    pub(in crate::kernels) unsafe fn multiply(
        &self,
        v: &Rows<'_>,
        c: Output<f32>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let product = Product { weights: self, v, c, rows, columns };
        // SAFETY: as the caller says, and a kernel is chosen where its instructions are.
        unsafe {
            match self.kernel {
                Kernel::Portable => product.compute::<_, { Portable::VECTORS }>(Portable),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2 => product.with_avx2(),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512 => product.with_avx512(),
                #[cfg(target_arch = "x86_64")]
                Kernel::Vnni => product.with_vnni(),
            }
        }
    }
}

fn matrix_mut<T>(values: &mut [T], rows: usize, columns: usize) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("as many values")
}

/// Everything but the sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
/// The magnitude of an infinity; those of NaN are above.
const INFINITE: u32 = 0x7f80_0000;

/// The step of weights: 1/127 of the largest, or NaN if one is not finite.
fn scale_of(weights: impl Iterator<Item = f32>) -> f32 {
    let largest = weights.map(|weight| weight.to_bits() & MAGNITUDE).max().unwrap_or(0);
    if largest < INFINITE { f32::from_bits(largest) / 127.0 } else { f32::NAN }
}

/// A weight in steps of `scale`.
fn quantised(weight: f32, scale: f32) -> i8 {
    if scale > 0.0 {
        // A subnormal step may be rounded down far enough for more than 127 of them.
        (f64::from(weight) / f64::from(scale)).round_ties_even().clamp(-127.0, 127.0) as i8
    } else {
        0 // All are 0, or smaller than a step can be; or the scale is NaN.
    }
}

/// Quantised rows, those of one matrix.
pub(in crate::kernels) struct Rows<'a> {
    values: &'a [i16], // [N][pairs][2]
    scales: &'a [f32], // [N][blocks]
}

/// Rows to quantise.
struct Quantise<'a> {
    v: ArrayView2<'a, f32>,         // [N, K]
    values: ArrayViewMut2<'a, i16>, // [N, 2 pairs]
    scales: ArrayViewMut2<'a, f32>, // [N, blocks]
}

impl WithSimd for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Quantise { v, mut values, mut scales } = self;
        let depth = v.ncols();
        for ((v, mut values), mut scales) in v.outer_iter().zip(values.outer_iter_mut()).zip(scales.outer_iter_mut()) {
            let (v, values) = (v.to_slice().expect("a contiguous row"), values.as_slice_mut().expect("a buffer"));
            for ((start, count), Block { index, first, pairs }) in depth_blocks(depth).zip(blocks(depth)) {
                let (to, rest) = values[2 * first..2 * (first + pairs)].split_at_mut(count);
                scales[index] = quantise(&v[start..start + count], to);
                rest.fill(0);
            }
        }
    }
}

/// Writes values in steps of a power of 2, of which the largest value has at least 2^14 and fewer than 2^15; gives the step. It is NaN
/// if a value is not finite.
#[inline(always)]
fn quantise(v: &[f32], to: &mut [i16]) -> f32 {
    /// What an exponent is above the number of the bits.
    const BIAS: u32 = 127;
    /// 1.5 2^23: the last bits of a number that is added to it are those of the nearest integer, ties to even.
    const ROUND: f32 = 12_582_912.0;

    let largest = v.iter().fold(0, |largest, x| (x.to_bits() & MAGNITUDE).max(largest));
    if largest >= INFINITE {
        to.fill(0);
        return f32::NAN;
    }
    // Where the step, or 1 over it, would be no ordinary number, it is the least that is.
    let exponent = (largest >> 23).max(15);
    let step = f32::from_bits((exponent - 14) << 23);
    let steps = f32::from_bits((2 * BIAS + 14 - exponent) << 23);
    for (to, &x) in to.iter_mut().zip(v) {
        let x = x * steps;
        let x = if x > 32767.0 { 32767.0 } else { x }; // not 32768; -32768 would not do either
        let x = if x < -32767.0 { -32767.0 } else { x };
        *to = (x + ROUND).to_bits() as i16;
    }
    step
}

/// Some rows and columns of a product.
struct Product<'a> {
    weights: &'a Int8,
    v: &'a Rows<'a>,
    c: Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// The sums of a tile with one block: its first row and column, and how many columns there are.
#[derive(Clone, Copy)]
struct Tile {
    block: Block,
    row: usize,
    column: usize,
    count: usize,
}

#[cfg(target_arch = "x86_64")]
impl Product<'_> {
    /// # Safety
    ///
    /// As [`Int8::multiply`], and there is AVX2.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn with_avx2(&self) {
        // SAFETY: as the caller says.
        unsafe { self.compute::<_, { Avx2::VECTORS }>(Avx2) }
    }

    /// # Safety
    ///
    /// As [`Int8::multiply`], and there are AVX-512 F and BW.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn with_avx512(&self) {
        // SAFETY: as the caller says.
        unsafe { self.compute::<_, { Avx512::<false>::VECTORS }>(Avx512::<false>) }
    }

    /// # Safety
    ///
    /// As [`Int8::multiply`], and there are AVX-512 F, BW and VNNI.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn with_vnni(&self) {
        // SAFETY: as the caller says.
        unsafe { self.compute::<_, { Vnni::VECTORS }>(Avx512::<true>) }
    }
}

impl Product<'_> {
    /// # Safety
    ///
    /// As [`Int8::multiply`], and the machine has the instructions of `I`.
    #[inline(always)]
    unsafe fn compute<I: Integers, const N: usize>(&self, simd: I) {
        let Product { weights: Int8 { depth, columns: all_columns, .. }, rows, columns, .. } = self;
        let width = N * I::LANES;
        let count = |column| width.min(all_columns - column);
        // SAFETY: tiles within the rows and columns, as the caller says.
        unsafe {
            if rows.len() == 1 {
                let (row, mut column) = (rows.start, columns.start);
                while column < columns.end {
                    // Several panels at a time: their sums do not wait for each other, and weights come as several streams.
                    let whole = (columns.end - column) / width;
                    for block in blocks(*depth) {
                        let tile = Tile { block, row, column, count: count(column) };
                        if whole >= ROW_PANELS {
                            self.row_tile::<I, N, ROW_PANELS>(simd, Tile { count: ROW_PANELS * width, ..tile });
                        } else {
                            self.row_tile::<I, N, 1>(simd, tile);
                        }
                    }
                    column += if whole >= ROW_PANELS { ROW_PANELS * width } else { width };
                }
                return;
            }
            for (first, height) in even_chunks(rows.len(), PANEL_BLOCK_ROWS) {
                for column in columns.clone().step_by(width) {
                    for block in blocks(*depth) {
                        for (next, count_rows) in even_chunks(height, PANEL_ROWS) {
                            let tile = Tile { block, row: rows.start + first + next, column, count: count(column) };
                            for_height!(count_rows, 2, PANEL_ROWS, |R| self.tile::<I, N, R>(simd, tile));
                        }
                    }
                }
            }
        }
    }

    /// A row and `P` panels.
    ///
    /// # Safety
    ///
    /// As [`compute`](Self::compute); the tile lies within.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
    unsafe fn row_tile<I: Integers, const N: usize, const P: usize>(&self, simd: I, tile: Tile) {
        let mut sums = [[simd.zero(); N]; P];
        let (mut weights, panel) = self.panel(&tile, N * I::LANES);
        let mut v = self.values(&tile, 0);
        for _ in 0..tile.block.pairs {
            // SAFETY: a pair of the row.
            let pair = unsafe { simd.broadcast(v) };
            for k in 0..P {
                for j in 0..N {
                    // SAFETY: vector j of a row of pairs of panel k.
                    let w = unsafe { simd.load(weights.wrapping_add(k * panel + 2 * j * I::LANES)) };
                    sums[k][j] = simd.add_products(sums[k][j], w, pair);
                }
            }
            v = v.wrapping_add(2);
            weights = weights.wrapping_add(2 * N * I::LANES);
        }
        for k in 0..P {
            let width = N * I::LANES;
            let column = tile.column + k * width;
            let count = (tile.count - k * width).min(width);
            // SAFETY: as the caller says.
            unsafe { self.finish(simd, &Tile { column, count, ..tile }, 0, sums[k]) };
        }
    }

    /// `R` rows and a panel.
    ///
    /// # Safety
    ///
    /// As [`compute`](Self::compute); the tile lies within.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // As above.
    unsafe fn tile<I: Integers, const N: usize, const R: usize>(&self, simd: I, tile: Tile) {
        let mut sums = [[simd.zero(); N]; R];
        let (mut weights, _) = self.panel(&tile, N * I::LANES);
        let mut v = [self.values(&tile, 0); R];
        for i in 0..R {
            v[i] = self.values(&tile, i);
        }
        for p in 0..tile.block.pairs {
            let mut w = [simd.pairs(); N];
            for j in 0..N {
                // SAFETY: vector j of a row of pairs of the panel.
                w[j] = unsafe { simd.load(weights.wrapping_add(2 * j * I::LANES)) };
            }
            for i in 0..R {
                // SAFETY: pair p of the block in row i.
                let pair = unsafe { simd.broadcast(v[i].wrapping_add(2 * p)) };
                for j in 0..N {
                    sums[i][j] = simd.add_products(sums[i][j], w[j], pair);
                }
            }
            weights = weights.wrapping_add(2 * N * I::LANES);
        }
        for i in 0..R {
            // SAFETY: as the caller says.
            unsafe { self.finish(simd, &tile, i, sums[i]) };
        }
    }

    /// Where the weights of a tile begin, and how far panels are apart.
    #[inline(always)]
    fn panel(&self, tile: &Tile, width: usize) -> (*const i8, usize) {
        let panel = 2 * pairs_of(self.weights.depth) * width;
        let panels = &self.weights.panels.elements::<i8>()[tile.column / width * panel..];
        (panels[2 * tile.block.first * width..].as_ptr(), panel)
    }

    /// Where the values of row `i` of a tile begin.
    #[inline(always)]
    fn values(&self, tile: &Tile, i: usize) -> *const i16 {
        let row = 2 * pairs_of(self.weights.depth);
        self.v.values[(tile.row + i) * row + 2 * tile.block.first..].as_ptr()
    }

    /// What is found with one block is written to row `i` of the tile.
    ///
    /// # Safety
    ///
    /// As [`compute`](Self::compute); the tile lies within.
    #[inline(always)]
    unsafe fn finish<I: Integers, const N: usize>(&self, simd: I, tile: &Tile, i: usize, sums: [I::Sums; N]) {
        let Tile { block, row, column, count } = *tile;
        let (weights, row) = (self.weights, row + i);
        let step = self.v.scales[row * blocks_of(weights.depth) + block.index];
        let scales = &weights.scales.elements::<f32>()[block.index * weights.all_columns() + column..][..N * I::LANES];
        let c = self.c.after(block.first).from(row, column);
        let base = match c.base {
            Base::Nothing => None,
            Base::Output => Some(c.start.cast_const()),
            Base::Row(row) => Some(row),
        };
        for (j, (sums, scales)) in sums.into_iter().zip(scales.chunks_exact(I::LANES)).enumerate() {
            let first = j * I::LANES;
            let here = count.saturating_sub(first).min(I::LANES);
            let (base, to) = (base.map(|base| base.wrapping_add(first)), c.start.wrapping_add(first));
            // SAFETY: `here` columns of the row of C and of its base, as the caller says.
            unsafe {
                if here == I::LANES {
                    simd.write(sums, step, scales.as_ptr(), base, to);
                } else {
                    let mut some = [0.0; MOST_LANES];
                    if let Some(base) = base {
                        std::ptr::copy_nonoverlapping(base, some.as_mut_ptr(), here);
                    }
                    let from = base.map(|_| some.as_ptr());
                    simd.write(sums, step, scales.as_ptr(), from, some.as_mut_ptr());
                    std::ptr::copy_nonoverlapping(some.as_ptr(), to, here);
                }
            }
        }
    }
}

/// The most lanes of a vector of sums.
const MOST_LANES: usize = 16;
