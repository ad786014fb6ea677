//! `y = b + v W` for one row v at a time: the product of a stream, whose next v is computed from this y.
//!
//! ```text
//! for each tile of W's columns, forward at one step and backward at the next:
//!     sums[0][N] = b, sums[1..SPLIT] = 0
//!     for k in 0..K, SPLIT at a time:
//!         sums[s] += v[k + s] W[k + s]        one broadcast for N multiply-adds
//!     y = Σ sums
//! ```
//!
//! A multiply-add takes four cycles and two can begin in each, so at least eight accumulators should be in use; a narrow tile
//! is split for that. Weights that exceed the L1 cache are read forward and backward in turn, so that a step finds in the cache
//! the weights that the step before read last: most of 64 KiB of weights, with a cache of 48.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use super::buffer::Buffer;
use super::float::Float;
use super::simd::dispatch::{Vectors, out_of_line};

/// The number of lanes of the widest vector. M is a multiple of it.
pub(crate) const LANES: usize = 16;

/// The size of the widest vector in bytes.
const WIDE: usize = 64;

/// A fixed number of elements, aligned to a cache line.
#[derive(Clone, Default)]
pub(crate) struct Aligned<F> {
    buffer: Buffer,
    len: usize,
    element: PhantomData<F>,
}

impl<F: Float> Aligned<F> {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut aligned = Aligned { buffer: Buffer::new(), len, element: PhantomData };
        aligned.buffer.at_least::<F>(len).fill(F::zero());
        aligned
    }

    #[inline(always)]
    pub(crate) fn values(&self) -> &[F] {
        &self.buffer.elements()[..self.len]
    }

    #[inline(always)]
    pub(crate) fn values_mut(&mut self) -> &mut [F] {
        &mut self.buffer.elements_mut()[..self.len]
    }
}

/// b `[M]` and W `[K, M]`, in tiles of columns.
///
/// ```text
/// [tiles][1 + K][N vectors]        b is the first row; N differs from tile to tile
/// ```
#[derive(Clone)]
pub(crate) struct RowWeights<F> {
    tiles: Aligned<F>,
    vectors: Vec<usize>, // N of each tile
    depth: usize,
    columns: usize,
}

impl<F: Float> RowWeights<F> {
    /// Packs `bias(m)` and `weight(k, m)`. M is a multiple of [`LANES`].
    pub(crate) fn new(
        vectors: Vectors,
        [depth, columns]: [usize; 2],
        bias: &dyn Fn(usize) -> F,
        weight: &dyn Fn(usize, usize) -> F,
    ) -> Self {
        assert!(columns.is_multiple_of(LANES), "{columns} columns");
        let lanes = vectors.run(Lanes(PhantomData::<F>));
        let tile_widths = if lanes * size_of::<F>() == WIDE { &TILES[..] } else { &FEW_TILES };
        let (mut tiles, mut widths, mut start) = (Aligned::zeros((1 + depth) * columns), Vec::new(), 0);
        let mut rest = tiles.values_mut();
        while start < columns {
            let n = *tile_widths.iter().find(|&n| n * lanes <= columns - start).expect("whole vectors");
            let (tile, after) = rest.split_at_mut((1 + depth) * n * lanes);
            for (k, row) in tile.chunks_exact_mut(n * lanes).enumerate() {
                let value = |m| k.checked_sub(1).map_or_else(|| bias(m), |k| weight(k, m));
                row.iter_mut().zip(start..).for_each(|(to, m)| *to = value(m));
            }
            widths.push(n);
            (rest, start) = (after, start + n * lanes);
        }
        RowWeights { tiles, vectors: widths, depth, columns }
    }

    /// M
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Computes `y = b + v W`, with the instruction set that the tiles were made for. If `backward`, the tiles are taken from last
    /// to first, with the same bits.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd>(&self, simd: S, v: &[F], y: &mut [F], backward: bool) {
        out_of_line(simd, Multiply { weights: self, v, y, backward });
    }
}

/// The widths of tiles, in vectors. Each takes time to compile, so only AVX-512 has the widths for GRUs of 16 units and LSTMs of 24.
const TILES: [usize; 6] = [8, 6, 4, 3, 2, 1];
const FEW_TILES: [usize; 4] = [8, 4, 2, 1];

/// The number of lanes.
struct Lanes<F>(PhantomData<F>);

impl<F: Float> WithSimd for Lanes<F> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        F::lanes::<S>()
    }
}

struct Multiply<'a, F> {
    weights: &'a RowWeights<F>,
    v: &'a [F],     // [K]
    y: &'a mut [F], // [M]
    backward: bool,
}

impl<F: Float> WithSimd for Multiply<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Multiply { weights: RowWeights { tiles, vectors, depth, .. }, v, mut y, backward } = self;
        assert_eq!(v.len(), *depth, "the elements of v");
        let mut tiles = tiles.values();
        if let &[n] = &vectors[..] {
            return multiply_tile(simd, n, tiles, v, y);
        }
        for i in 0..vectors.len() {
            let n = vectors[if backward { vectors.len() - 1 - i } else { i }];
            let (columns, len) = (n * F::lanes::<S>(), (1 + depth) * n * F::lanes::<S>());
            let (tile, part);
            if backward {
                (tiles, tile) = tiles.split_at(tiles.len() - len);
                (y, part) = y.split_at_mut(y.len() - columns);
            } else {
                (tile, tiles) = tiles.split_at(len);
                (part, y) = y.split_at_mut(columns);
            }
            multiply_tile(simd, n, tile, v, part);
        }
    }
}

/// `y = b + v W` for the columns of a tile, `rows` `[1 + K][N vectors]`.
#[inline(always)]
fn multiply_tile<S: Simd, F: Float>(simd: S, n: usize, rows: &[F], v: &[F], y: &mut [F]) {
    let columns = n * F::lanes::<S>();
    assert!(rows.len() == (1 + v.len()) * columns && y.len() == columns, "the elements of a tile");
    let (rows, y) = (rows.as_ptr(), y.as_mut_ptr());
    // There are registers for sixteen accumulators with AVX-512, for about eight elsewhere.
    let wide = size_of::<F::Vector<S>>() == WIDE;
    // SAFETY: there are 1 + K rows of N vectors, and N vectors of y, as asserted above.
    unsafe {
        match n {
            1 => sums::<S, F, 1, 4>(simd, rows, v, y),
            2 => sums::<S, F, 2, 4>(simd, rows, v, y),
            3 if wide => sums::<S, F, 3, 4>(simd, rows, v, y),
            4 => sums::<S, F, 4, 2>(simd, rows, v, y),
            6 if wide => sums::<S, F, 6, 2>(simd, rows, v, y),
            8 if wide => sums::<S, F, 8, 2>(simd, rows, v, y),
            8 => sums::<S, F, 8, 1>(simd, rows, v, y),
            _ => unreachable!("a tile of {n} vectors"),
        }
    }
}

/// `y = b + v W` for N vectors of columns, with SPLIT accumulators each.
///
/// # Safety
///
/// `1 + v.len()` rows of N vectors can be read at `rows`, and N vectors can be written at `y`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
unsafe fn sums<S: Simd, F: Float, const N: usize, const SPLIT: usize>(simd: S, mut rows: *const F, v: &[F], y: *mut F) {
    let lanes = F::lanes::<S>();
    // SAFETY: guaranteed by the caller; `rows` moves on by one row for each element of v.
    let load = |rows: *const F, j: usize| unsafe { F::load(simd, rows.wrapping_add(j * lanes)) };
    let mut sums = [[F::splat(simd, F::zero()); N]; SPLIT];
    for j in 0..N {
        sums[0][j] = load(rows, j);
    }
    let (chunks, rest) = v.as_chunks::<SPLIT>();
    for chunk in chunks {
        for s in 0..SPLIT {
            rows = rows.wrapping_add(N * lanes);
            let v = F::splat(simd, chunk[s]);
            for j in 0..N {
                sums[s][j] = F::fused(simd, v, load(rows, j), sums[s][j]);
            }
        }
    }
    for s in 0..SPLIT {
        if s < rest.len() {
            rows = rows.wrapping_add(N * lanes);
            let v = F::splat(simd, rest[s]);
            for j in 0..N {
                sums[s][j] = F::fused(simd, v, load(rows, j), sums[s][j]);
            }
        }
    }
    for j in 0..N {
        let mut half = SPLIT;
        while half > 1 {
            half /= 2;
            for s in 0..half {
                sums[s][j] = F::plus(simd, sums[s][j], sums[s + half][j]);
            }
        }
        // SAFETY: guaranteed by the caller.
        unsafe { F::store(simd, y.wrapping_add(j * lanes), sums[0][j]) };
    }
}
