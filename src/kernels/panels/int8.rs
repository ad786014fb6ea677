//! Products with weights in 8 bits, exact in integers between two roundings.
//!
//! ```text
//! W [K, M], in blocks b of at most 512 terms:     s[b, m] = max |W[b, m]| / 127,   q = W / s, rounded, in 8 bits
//! v [N, K], in the same blocks:                   p = v / t[n, b], rounded
//!     in 16 bits:                                 t = the power of 2 with which the largest |p| is from 2^14 to 2^15
//!     in 8 bits:                                  t = max |v[n, b]| / 127
//! C = start + Σ_b t[n, b] s[b, m] (Σ_k p q)       the inner sum in 32 bits: 512 · 127 · 32767 < 2^31
//! ```
//!
//! A multiplication of pairs in 16 bits, with sums in 32, takes twice as many terms as one in f32, and the error of values in 16
//! bits is small compared with that of the weights. AVX-512 VNNI takes four terms instead of two, without widening the weights, for
//! values in 8 bits: it multiplies `p + 128`, which has no sign, with q, and the sums start from `-128 Σ q`. Values in 16 bits are
//! split into two of these, `p = 256 u + l`: a row that waits for its weights is as fast, and many rows take twice as long.
//!
//! ```text
//! panels [M / P][groups of terms][P][2 or 4]      what is past K or M is 0; the last group of a block may be filled up so
//! ```
//!
//! The bits of a result depend neither on the instruction set nor on the number of rows and columns that are computed together.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use pulp::WithSimd;

#[cfg(target_arch = "x86_64")]
use super::integers::{Avx2, Avx512, Fours, Halves};
use super::integers::{Integers, Kernel, Operation, Portable, Values};
use crate::kernels::buffer::{Buffer, with_scratch};
use crate::kernels::gemm::geometry::{PANEL_BLOCK_ROWS, ROW_PANELS, depth_blocks, even_chunks, for_height};
use crate::kernels::gemm::operand::{Base, Output};
use crate::kernels::simd::dispatch::dispatch;
use crate::parallel::{element_work, for_each_part};

/// W `[K, M]` in panels.
#[derive(Clone, Default)]
pub(in crate::kernels) struct Int8 {
    panels: Buffer,  // [M / P][groups][P][2 or 4] of i8
    scales: Buffer,  // [blocks][M], M up to whole panels, of f32
    offsets: Buffer, // [blocks][M], likewise, of i32: -128 Σ q
    depth: usize,
    columns: usize,
    values: Values,
    kernel: Kernel,
}

/// A block of terms: its index among the blocks, its first group, and its number of groups.
#[derive(Clone, Copy)]
struct Block {
    index: usize,
    first: usize,
    groups: usize,
}

/// The blocks of a depth, in groups of `terms` terms.
fn blocks(depth: usize, terms: usize) -> impl Iterator<Item = Block> + Clone {
    depth_blocks(depth).enumerate().scan(0, move |next, (index, (_, count))| {
        let block = Block { index, first: *next, groups: count.div_ceil(terms) };
        *next += block.groups;
        Some(block)
    })
}

/// The number of blocks.
fn blocks_of(depth: usize) -> usize {
    depth_blocks(depth).count()
}

impl Int8 {
    /// Packs `operand`, `[K, M]`, for the best kernel of this machine.
    pub(super) fn pack(&mut self, operand: ArrayView2<'_, f32>, values: Values) {
        self.pack_for(Kernel::best(), operand, values);
    }

    /// Packs `operand`, `[K, M]`, for `kernel`.
    pub(in crate::kernels) fn pack_for(&mut self, kernel: Kernel, operand: ArrayView2<'_, f32>, values: Values) {
        (self.depth, self.columns, self.kernel, self.values) = (operand.nrows(), operand.ncols(), kernel, values);
        let (depth, width, all_columns) = (self.depth, self.width(), self.all_columns());
        let (groups, terms) = (self.groups(), kernel.terms());
        let (len, numbers) = (groups * all_columns * terms, blocks_of(depth) * all_columns);
        let panels = &mut self.panels.at_least::<i8>(len)[..len];
        let scales = &mut self.scales.at_least::<f32>(numbers)[..numbers];
        let offsets = &mut self.offsets.at_least::<i32>(numbers)[..numbers];
        panels.fill(0);
        scales.fill(0.0);
        offsets.fill(0);
        for (m, column) in operand.axis_iter(Axis(1)).enumerate() {
            for ((start, count), Block { index, first, .. }) in depth_blocks(depth).zip(blocks(depth, terms)) {
                let weights = column.slice(s![start..start + count]);
                let scale = scale_of(weights.iter().copied());
                let (scale_to, offset) = (&mut scales[index * all_columns + m], &mut offsets[index * all_columns + m]);
                *scale_to = scale;
                let to = &mut panels[terms * (m / width * groups * width + first * width + m % width)..];
                for (k, &weight) in weights.iter().enumerate() {
                    let q = quantised(weight, scale);
                    to[k / terms * terms * width + k % terms] = q;
                    *offset -= 128 * i32::from(q);
                }
            }
        }
    }

    /// The number of columns of a panel.
    pub(super) fn width(&self) -> usize {
        self.kernel.width()
    }

    /// M, rounded up to whole panels.
    fn all_columns(&self) -> usize {
        self.columns.next_multiple_of(self.width())
    }

    /// The number of groups in all blocks.
    fn groups(&self) -> usize {
        blocks(self.depth, self.kernel.terms()).map(|block| block.groups).sum()
    }

    /// The number of words of a group of values.
    fn words(&self) -> usize {
        // Four values in halves take two words.
        if self.kernel.terms() == 4 && self.values == Values::Sixteen { 2 } else { 1 }
    }

    /// Runs `act` with the rows of v, `[N, K]`, quantised on all threads.
    pub(in crate::kernels) fn with_rows(&self, v: ArrayView2<'_, f32>, act: impl FnOnce(&Rows<'_>)) {
        thread_local! {
            static GROUPS: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
            static STEPS: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
        }
        let (rows, blocks, terms, words) = (v.nrows(), blocks_of(self.depth), self.kernel.terms(), self.words());
        let row = self.groups() * words;
        let mut buffer = GROUPS.take();
        buffer.at_least::<u32>(rows * row);
        with_scratch(&STEPS, rows * blocks, |steps: &mut [f32]| {
            let to = matrix_mut(steps, rows, blocks);
            let (values, work) = (self.values, element_work(v.len()));
            if terms == 2 {
                let pairs = matrix_mut(&mut buffer.elements_mut::<i16>()[..2 * rows * row], rows, 2 * row);
                for_each_part((v, (pairs, to)), work, 1, |(v, (pairs, steps))| {
                    dispatch(QuantisePairs { values, v, pairs, steps });
                });
            } else {
                let fours = matrix_mut(&mut buffer.elements_mut::<u8>()[..4 * rows * row], rows, 4 * row);
                for_each_part((v, (fours, to)), work, 1, |(v, (fours, steps))| {
                    dispatch(QuantiseFours { values, v, fours, steps });
                });
            }
            act(&Rows { groups: &buffer.elements()[..rows * row], steps });
        });
        GROUPS.set(buffer);
    }

    /// Computes some rows and columns of C, whole panels or all that are left.
    ///
    /// # Safety
    ///
    /// C `[N, M]` is writable there, by nobody else meanwhile, and its base is readable; v has N rows, quantised for these weights.
    pub(in crate::kernels) unsafe fn multiply(
        &self,
        v: &Rows<'_>,
        c: Output<f32>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let product = Product { weights: self, v, c, rows, columns };
        // SAFETY: guaranteed by the caller; a kernel is chosen only if the machine has its instructions.
        unsafe {
            match self.kernel {
                Kernel::Portable => Portable.out_of_line(Compute::<{ Portable::VECTORS }>(&product)),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2 => Avx2.out_of_line(Compute::<{ Avx2::VECTORS }>(&product)),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512 => Avx512.out_of_line(Compute::<{ Avx512::VECTORS }>(&product)),
                #[cfg(target_arch = "x86_64")]
                Kernel::Vnni if self.values == Values::Sixteen => {
                    Halves.out_of_line(Compute::<{ Halves::VECTORS }>(&product))
                }
                #[cfg(target_arch = "x86_64")]
                Kernel::Vnni => Fours.out_of_line(Compute::<{ Fours::VECTORS }>(&product)),
            }
        }
    }
}

fn matrix_mut<T>(values: &mut [T], rows: usize, columns: usize) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("as many values")
}

/// All bits but the sign.
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
        // A subnormal step may be rounded down so far that a weight has more than 127 steps.
        (f64::from(weight) / f64::from(scale)).round_ties_even().clamp(-127.0, 127.0) as i8
    } else {
        0 // All weights are 0 or smaller than a step can be, or the scale is NaN.
    }
}

/// The quantised rows of one matrix.
pub(in crate::kernels) struct Rows<'a> {
    groups: &'a [u32], // [N][groups], of two i16 or four u8 each, or of twice four u8
    steps: &'a [f32],  // [N][blocks]
}

/// Rows to quantise, as pairs of i16.
struct QuantisePairs<'a> {
    values: Values,
    v: ArrayView2<'a, f32>,        // [N, K]
    pairs: ArrayViewMut2<'a, i16>, // [N, 2 groups]
    steps: ArrayViewMut2<'a, f32>, // [N, blocks]
}

impl WithSimd for QuantisePairs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let QuantisePairs { values, v, mut pairs, mut steps } = self;
        for ((v, mut pairs), mut steps) in v.outer_iter().zip(pairs.outer_iter_mut()).zip(steps.outer_iter_mut()) {
            let (v, pairs) = (v.to_slice().expect("a contiguous row"), pairs.as_slice_mut().expect("a buffer"));
            for ((start, count), Block { index, first, groups }) in depth_blocks(v.len()).zip(blocks(v.len(), 2)) {
                let v = &v[start..start + count];
                let scale = Scale::of(values, v);
                steps[index] = scale.step;
                let (to, rest) = pairs[2 * first..2 * (first + groups)].split_at_mut(count);
                to.iter_mut().zip(v).for_each(|(to, &x)| *to = scale.quantised(x) as i16);
                rest.fill(0);
            }
        }
    }
}

/// Rows to quantise, as fours of u8: values with 128 added, or upper halves with 128 added, followed in each block by lower halves.
struct QuantiseFours<'a> {
    values: Values,
    v: ArrayView2<'a, f32>,        // [N, K]
    fours: ArrayViewMut2<'a, u8>,  // [N, 4 groups words]
    steps: ArrayViewMut2<'a, f32>, // [N, blocks]
}

impl WithSimd for QuantiseFours<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let QuantiseFours { values, v, mut fours, mut steps } = self;
        for ((v, mut fours), mut steps) in v.outer_iter().zip(fours.outer_iter_mut()).zip(steps.outer_iter_mut()) {
            let (v, fours) = (v.to_slice().expect("a contiguous row"), fours.as_slice_mut().expect("a buffer"));
            for ((start, count), Block { index, first, groups }) in depth_blocks(v.len()).zip(blocks(v.len(), 4)) {
                let v = &v[start..start + count];
                let scale = Scale::of(values, v);
                steps[index] = scale.step;
                match values {
                    Values::Eight => {
                        let (to, rest) = fours[4 * first..4 * (first + groups)].split_at_mut(count);
                        to.iter_mut().zip(v).for_each(|(to, &x)| *to = scale.quantised(x) as u8 ^ 0x80);
                        rest.fill(0x80);
                    }
                    Values::Sixteen => {
                        let both = &mut fours[8 * first..8 * (first + groups)];
                        let (upper, lower) = both.split_at_mut(4 * groups);
                        for ((upper, lower), &x) in upper.iter_mut().zip(lower.iter_mut()).zip(v) {
                            let p = scale.quantised(x);
                            (*upper, *lower) = ((p >> 8) as u8 ^ 0x80, p as u8);
                        }
                        upper[count..].fill(0x80);
                        lower[count..].fill(0);
                    }
                }
            }
        }
    }
}

/// How the values of a row's block are quantised.
#[derive(Clone, Copy)]
struct Scale {
    /// The size of a step, NaN if a value is not finite.
    step: f32,
    /// 1 over the step, or 0 if the step is NaN.
    steps: f32,
    /// The largest number of steps.
    most: f32,
}

impl Scale {
    #[inline(always)]
    fn of(values: Values, v: &[f32]) -> Self {
        /// The bias of an exponent's bits.
        const BIAS: u32 = 127;
        /// The minimum of the largest value, 2^-112: for smaller ones, 1 over the step would be infinite.
        const LEAST: u32 = 15 << 23;

        let largest = v.iter().fold(LEAST, |largest, x| (x.to_bits() & MAGNITUDE).max(largest));
        let exponent = largest >> 23;
        match values {
            _ if largest >= INFINITE => Scale { step: f32::NAN, steps: 0.0, most: 0.0 },
            Values::Sixteen => Scale {
                step: f32::from_bits((exponent - 14) << 23),
                steps: f32::from_bits((2 * BIAS + 14 - exponent) << 23),
                most: 32767.0, // not 32768, which would be another number
            },
            Values::Eight => {
                let largest = f32::from_bits(largest);
                Scale { step: largest / 127.0, steps: 127.0 / largest, most: 127.0 }
            }
        }
    }

    /// A value in steps, in two's complement, in as many of the lower bits as values have.
    #[inline(always)]
    fn quantised(self, x: f32) -> u32 {
        /// 1.5 2^23: the last bits of its sum with a number are those of the nearest integer, ties to even.
        const ROUND: f32 = 12_582_912.0;

        let x = x * self.steps;
        let x = if x > self.most { self.most } else { x };
        let x = if x < -self.most { -self.most } else { x };
        (x + ROUND).to_bits()
    }
}

/// Some rows and columns of a product.
struct Product<'a> {
    weights: &'a Int8,
    v: &'a Rows<'a>,
    c: Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// The sums of a tile with one block: the tile's first row and column, and its number of columns.
#[derive(Clone, Copy)]
struct Tile {
    block: Block,
    row: usize,
    column: usize,
    count: usize,
}

/// The whole [`Product`], in panels of `N` vectors. Condition: that of [`Int8::multiply`].
struct Compute<'a, const N: usize>(&'a Product<'a>);

impl<I: Integers, const N: usize> Operation<I> for Compute<'_, N> {
    #[inline(always)]
    unsafe fn run(self, simd: I) {
        let product = self.0;
        let Product { weights: Int8 { depth, columns: all_columns, .. }, rows, columns, .. } = product;
        let width = N * I::LANES;
        let count = |column| width.min(all_columns - column);
        // SAFETY: guaranteed by the caller, as the tiles lie within the rows and columns.
        unsafe {
            if rows.len() == 1 {
                let (row, mut column, at_once) = (rows.start, columns.start, I::TILE.1);
                while column < columns.end {
                    // Several panels at a time: their sums do not wait for each other, and weights come as several streams.
                    let several = (columns.end - column) / width >= at_once;
                    for block in blocks(*depth, I::TERMS) {
                        let tile = Tile { block, row, column, count: count(column) };
                        let whole = Tile { count: at_once * width, ..tile };
                        match at_once {
                            ROW_PANELS if several => simd.out_of_line(RowTile::<N, ROW_PANELS>(product, whole)),
                            2 if several => simd.out_of_line(RowTile::<N, 2>(product, whole)),
                            _ => simd.out_of_line(RowTile::<N, 1>(product, tile)),
                        }
                    }
                    column += if several { at_once * width } else { width };
                }
                return;
            }
            for (first, height) in even_chunks(rows.len(), PANEL_BLOCK_ROWS) {
                for column in columns.clone().step_by(width) {
                    for block in blocks(*depth, I::TERMS) {
                        for (next, len) in even_chunks(height, I::TILE.0) {
                            let tile = Tile { block, row: rows.start + first + next, column, count: count(column) };
                            for_height!(len, 2, I::TILE.0, |R| simd.out_of_line(RowsTile::<N, R>(product, tile)));
                        }
                    }
                }
            }
        }
    }
}

/// The product of a row and `P` panels. Condition: that of [`Compute`], and the tile lies within the rows and columns.
struct RowTile<'a, const N: usize, const P: usize>(&'a Product<'a>, Tile);

impl<I: Integers, const N: usize, const P: usize> Operation<I> for RowTile<'_, N, P> {
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
    unsafe fn run(self, simd: I) {
        let RowTile(product, tile) = self;
        let mut weights = product.panels::<I>(&tile, P);
        let (panel, row) = (product.weights.groups() * I::TERMS * I::WIDTH, I::TERMS * I::WIDTH);
        let offsets = product.offsets::<I>(&tile, P);
        let mut sums = [[simd.zero(); N]; P];
        for k in 0..P {
            for j in 0..N {
                // SAFETY: the offsets of vector j of panel k.
                sums[k][j] = unsafe { simd.start(offsets[k * I::WIDTH + j * I::LANES..].as_ptr()) };
            }
        }
        let (v, groups) = (product.groups::<I>(&tile, 0).as_ptr(), tile.block.groups);
        for p in 0..groups {
            // SAFETY: group p of the block.
            let group = unsafe { simd.broadcast(v.wrapping_add(p), groups) };
            for k in 0..P {
                for j in 0..N {
                    // SAFETY: vector j of a row of groups of panel k.
                    let w = unsafe { simd.load(weights.wrapping_add(k * panel + j * I::LANES * I::TERMS)) };
                    sums[k][j] = simd.add_products(sums[k][j], w, group);
                }
            }
            weights = weights.wrapping_add(row);
        }
        // SAFETY: guaranteed by the caller.
        unsafe { simd.out_of_line(Finish { product, tile, sums: sums.as_flattened(), vectors: P * N }) }
    }
}

/// The product of `R` rows and a panel. Condition: that of [`RowTile`].
struct RowsTile<'a, const N: usize, const R: usize>(&'a Product<'a>, Tile);

impl<I: Integers, const N: usize, const R: usize> Operation<I> for RowsTile<'_, N, R> {
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // As above.
    unsafe fn run(self, simd: I) {
        let RowsTile(product, tile) = self;
        let mut weights = product.panels::<I>(&tile, 1);
        let offsets = product.offsets::<I>(&tile, 1);
        let (mut sums, mut v) = ([[simd.zero(); N]; R], [product.v.groups.as_ptr(); R]);
        for i in 0..R {
            v[i] = product.groups::<I>(&tile, i).as_ptr();
            for j in 0..N {
                // SAFETY: the offsets of vector j.
                sums[i][j] = unsafe { simd.start(offsets[j * I::LANES..].as_ptr()) };
            }
        }
        for p in 0..tile.block.groups {
            // SAFETY: vector 0, and then vector j, of a row of groups of the panel.
            let mut w = [unsafe { simd.load(weights) }; N];
            for j in 1..N {
                // SAFETY: likewise.
                w[j] = unsafe { simd.load(weights.wrapping_add(j * I::LANES * I::TERMS)) };
            }
            for i in 0..R {
                // SAFETY: group p of the block in row i.
                let group = unsafe { simd.broadcast(v[i].wrapping_add(p), tile.block.groups) };
                for j in 0..N {
                    sums[i][j] = simd.add_products(sums[i][j], w[j], group);
                }
            }
            weights = weights.wrapping_add(I::TERMS * I::WIDTH);
        }
        // SAFETY: guaranteed by the caller.
        unsafe { simd.out_of_line(Finish { product, tile, sums: sums.as_flattened(), vectors: N }) }
    }
}

/// Adds a block's `sums`, in rows of `vectors` each, to C. It is compiled once, not for each height of a tile. Condition: that of
/// [`RowTile`], of as many rows and vectors as there are sums.
struct Finish<'a, Sums> {
    product: &'a Product<'a>,
    tile: Tile,
    sums: &'a [Sums],
    vectors: usize,
}

impl<I: Integers> Operation<I> for Finish<'_, I::Sums> {
    #[inline(always)]
    unsafe fn run(self, simd: I) {
        let Finish { product, tile: Tile { block, row, column, count }, sums, vectors } = self;
        let Product { weights, v, c, .. } = product;
        let scales = block.index * weights.all_columns() + column;
        let scales = &weights.scales.elements::<f32>()[scales..][..vectors * I::LANES];
        for (i, sums) in sums.chunks_exact(vectors).enumerate() {
            let row = row + i;
            let step = v.steps[row * blocks_of(weights.depth) + block.index];
            let c = c.after(block.first).from(row, column);
            let base = match c.base {
                Base::Nothing => None,
                Base::Output => Some(c.start.cast_const()),
                Base::Row(row) => Some(row),
            };
            for (j, (&sums, scales)) in sums.iter().zip(scales.chunks_exact(I::LANES)).enumerate() {
                let first = j * I::LANES;
                let here = count.saturating_sub(first).min(I::LANES);
                let (base, to) = (base.map(|base| base.wrapping_add(first)), c.start.wrapping_add(first));
                // SAFETY: guaranteed by the caller, for `here` columns of the row of C and of its base.
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
}

impl Product<'_> {
    /// The start of the weights of a tile of `panels` panels, which are all in bounds.
    #[inline(always)]
    fn panels<I: Integers>(&self, tile: &Tile, panels: usize) -> *const i8 {
        let row = I::TERMS * I::WIDTH;
        let panel = self.weights.groups() * row;
        let all = &self.weights.panels.elements::<i8>()[tile.column / I::WIDTH * panel..][..panels * panel];
        all[tile.block.first * row..][..tile.block.groups * row].as_ptr()
    }

    /// The values from which the sums of a tile of `panels` panels start.
    #[inline(always)]
    fn offsets<I: Integers>(&self, tile: &Tile, panels: usize) -> &[i32] {
        let first = tile.block.index * self.weights.all_columns() + tile.column;
        &self.weights.offsets.elements::<i32>()[first..][..panels * I::WIDTH]
    }

    /// The values of row `i` of a tile.
    #[inline(always)]
    fn groups<I: Integers>(&self, tile: &Tile, i: usize) -> &[u32] {
        let first = (tile.row + i) * self.weights.groups() + tile.block.first;
        &self.v.groups[I::WORDS * first..][..I::WORDS * tile.block.groups]
    }
}

/// The maximum lanes of a vector of sums.
const MOST_LANES: usize = 16;
