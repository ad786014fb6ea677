//! The sizes of the kernels, which follow from the registers of an instruction set and from the caches.
//!
//! ```text
//!                      C = A B, large                        v W, W packed
//!  registers      tile         accumulators           tile         accumulators      one row
//!     32          14 x 2        28 of 32              6 x 4         24 of 32          16 of 32
//!     NEON        10 x 2        20 of 32              5 x 4         20 of 32          16 of 32
//!     16           6 x 2        12 of 16              6 x 2         12 of 16           8 of 16
//!     WebAssembly  5 x 2        10 of 16              5 x 2         10 of 16           8 of 16
//!     scalar       4 x 2         8 of 16              6 x 2         12 of 16           8 of 16
//! ```
//!
//! A tile is some rows of C by some vectors. In large products it is high and narrow: B streams from the L2
//! cache, and each row of B is used as often as the tile has rows. With packed weights it is wide: a panel stays in the L2
//! cache for few rows.
//!
//! NEON uses the other registers for factors: they are loaded a vector at a time, and a multiply-add takes one element of it.

use pulp::{Simd, WithSimd};

use crate::kernels::float::Float;
use crate::kernels::once::once;
use crate::kernels::simd::dispatch::dispatch;

/// The sizes that follow from the number of vector registers.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    /// The maximum rows of a tile over copied blocks.
    pub tile_rows: usize,
    /// The maximum rows of a tile whose rows of A are read in place: more addresses would not fit into registers.
    pub in_place_rows: usize,
    /// The number of terms that a tile adds between two increments of the loop counter. Counting takes instruction slots from the
    /// sums. With 16 registers a term has few sums, and that costs 5 % of large products; with 28 sums per term it costs nothing.
    pub tile_unroll: usize,
    /// The number of vectors in a row of a panel of packed weights.
    pub panel_vectors: usize,
    /// Whether a multiply-add can take a factor from an element of a vector, as with NEON. Factors are then loaded a vector at a time.
    pub by_element: bool,
}

/// The maximum elements of a vector, if [`by_element`](Geometry::by_element).
pub(crate) const MOST_ELEMENTS: usize = 4;

/// AVX-512.
pub(crate) const WIDE: Geometry =
    Geometry { tile_rows: 14, in_place_rows: 8, tile_unroll: 1, panel_vectors: 4, by_element: false };

/// NEON: higher tiles leave no registers for the factors of several terms (`benches/instructions` counts what that costs).
pub(crate) const NEON: Geometry =
    Geometry { tile_rows: 10, in_place_rows: 8, tile_unroll: 1, panel_vectors: WIDE.panel_vectors, by_element: true };

/// WebAssembly on a processor with 16 registers, of which its engine reserves one, and without a fused multiply-add: a tile of 5 rows
/// needs 10 for sums, 2 for B, one for an element of A and one for a product.
const WASM: Geometry =
    Geometry { tile_rows: 5, in_place_rows: 5, tile_unroll: 2, panel_vectors: NARROW.panel_vectors, by_element: false };

/// AVX2.
pub(crate) const NARROW: Geometry =
    Geometry { tile_rows: 6, in_place_rows: 6, tile_unroll: 4, panel_vectors: 2, by_element: false };

/// Without vectors. It has few heights and no unrolling, because it runs only if nothing else can, but is compiled with all others.
const SCALAR: Geometry =
    Geometry { tile_rows: 4, in_place_rows: 4, tile_unroll: 1, panel_vectors: NARROW.panel_vectors, by_element: false };

/// The geometry of an instruction set.
pub(crate) const fn geometry<S: Simd>() -> Geometry {
    if S::F32_LANES == 1 {
        SCALAR
    } else if cfg!(target_family = "wasm") {
        WASM // `pulp` reports 32 registers.
    } else if cfg!(target_arch = "aarch64") {
        NEON
    } else if S::REGISTER_COUNT >= 32 {
        WIDE
    } else {
        NARROW
    }
}

/// The number of vectors in a row of a tile.
pub(crate) const TILE_VECTORS: usize = 2;

/// The number of columns of a tile.
#[inline(always)]
pub(crate) fn tile_width<S: Simd, F: Float>() -> usize {
    TILE_VECTORS * F::lanes::<S>()
}

/// The number of columns of a panel of packed weights.
#[inline(always)]
pub(crate) fn panel_width<S: Simd, F: Float>() -> usize {
    geometry::<S>().panel_vectors * F::lanes::<S>()
}

/// The maximum rows of a tile over packed weights: with 6, NEON has no registers for the factors.
pub(crate) const PANEL_ROWS: usize = if cfg!(any(target_family = "wasm", target_arch = "aarch64")) { 5 } else { 6 };

/// The number of terms that such a tile adds between two prefetches of the next weights.
pub(crate) const PANEL_UNROLL: usize = 4;

/// With at most this many rows, such a tile prefetches after each term: there is so much to prefetch that it would otherwise come
/// in bursts, which cost 7 % with 16 rows.
pub(crate) const PANEL_FEW_ROWS: usize = 4 * PANEL_ROWS;

/// The maximum rows that are multiplied with all panels together: they stay in the L2 cache with a part of a panel.
pub(crate) const PANEL_BLOCK_ROWS: usize = 20 * PANEL_ROWS;

/// The number of panels that a single row is multiplied with at a time: their sums do not wait for each other, and weights come
/// as several streams.
pub(crate) const ROW_PANELS: usize = 4;

/// The minimum size of weights that are prefetched from memory for a single row, [`FAR_AHEAD_BYTES`] ahead in each stream.
pub(crate) const FAR_BYTES: usize = 8 << 20;
/// See [`FAR_BYTES`].
pub(crate) const FAR_AHEAD_BYTES: usize = 1024;

/// The size of a cache line.
pub(crate) const LINE_BYTES: usize = 64;

/// The number of rows of B by which a tile prefetches ahead.
pub(crate) const ROWS_AHEAD: isize = 8;

/// The maximum depth of a block: a tile's rows of A of this length stay in the L1 cache.
pub(crate) const BLOCK_DEPTH: usize = 512;

/// The distance between the rows of A in its copy. It is not a multiple of a page, because that would map all rows to the same
/// lines of the L1 cache.
pub(crate) const COPY_ROW: usize = BLOCK_DEPTH + 16;

/// The bytes of a column of a block of A, which is in the L2 cache after it was copied.
const BLOCK_COLUMN_BYTES: usize = 224 * 4;

/// The bytes of a block of B, which stays in the L2 cache.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// The number of blocks of A that are kept for all blocks of B: more would be far away when they are needed again, and with
/// fewer, B is copied more often.
pub(crate) const KEPT_BLOCKS: usize = 8;

/// The maximum rows of C for which A is read in place: copies would be used too rarely to pay off.
pub(crate) const BLOCK_IN_PLACE_ROWS: usize = 16;

/// The maximum columns of C for which contiguous rows of A are read in place.
pub(crate) const BLOCK_IN_PLACE_COLUMNS: usize = 96;

/// The maximum rows of a block of A.
pub(crate) const fn block_rows<F>() -> usize {
    BLOCK_COLUMN_BYTES / size_of::<F>()
}

/// Splits `count` into as few chunks as possible, of at most `most` and of about equal length; yields the first index and the
/// length of each. If there are several, none is shorter than half of `most`.
#[inline(always)]
pub(crate) fn even_chunks(count: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let chunks = count.div_ceil(most);
    let mut next = 0;
    (0..chunks).map(move |chunk| {
        let first = next;
        // Usually there is one chunk, and a division takes as long as a few terms of a tile.
        next += if chunks - chunk == 1 { count - first } else { (count - first).div_ceil(chunks - chunk) };
        (first, next - first)
    })
}

/// The blocks of a depth. They are the same for all products: after each, the sums are rounded to an element of C.
#[inline(always)]
pub(crate) fn depth_blocks(depth: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    even_chunks(depth, BLOCK_DEPTH)
}

/// The sizes in elements of `F`, for the instruction set of this machine.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// The maximum rows of a tile.
    pub tile_rows: usize,
    /// The number of columns of a tile, and of a panel of a copied block.
    pub tile_width: usize,
    /// The number of columns of a panel of packed weights.
    pub panel_width: usize,
    /// The number of elements of a vector.
    pub lanes: usize,
}

once! {
    /// The sizes for the instruction set of this machine.
    pub(crate) fn sizes<'a, F: Float>() -> Sizes {
        struct Ask<F>(std::marker::PhantomData<F>);
        impl<F: Float> WithSimd for Ask<F> {
            type Output = Sizes;

            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> Sizes {
                Sizes {
                    tile_rows: geometry::<S>().tile_rows,
                    tile_width: tile_width::<S, F>(),
                    panel_width: panel_width::<S, F>(),
                    lanes: F::lanes::<S>(),
                }
            }
        }
        dispatch(Ask::<F>(std::marker::PhantomData))
    }
}

/// Evaluates an expression in which the constant `$R` is the number of rows, `$rows`, which is from `$low` to `$high`. The
/// expression is compiled once for each of these numbers, and for no others if the bounds follow from the instruction set.
macro_rules! for_height {
    ($rows:expr, $low:expr, $high:expr, |$R:ident| $call:expr) => {
        $crate::kernels::gemm::geometry::for_height!(
            @each $rows, $low, $high, $R, $call; 1 2 3 4 5 6 7 8 9 10 11 12 13 14
        )
    };
    (@each $rows:expr, $low:expr, $high:expr, $R:ident, $call:expr; $($height:literal)+) => {
        match $rows {
            $($height if const { $low <= $height && $height <= $high } => {
                const $R: usize = $height;
                $call
            })+
            rows => unreachable!("tiles of {rows} rows"),
        }
    };
}
pub(crate) use for_height;

const _: () = assert!(WIDE.tile_rows == 14, "the heights that `for_height!` lists");
