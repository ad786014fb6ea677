//! Matrix products.
//!
//! ```text
//! product(A, B, C), and the products with a `Weight` that is not packed
//!   plan                  checks the shapes, picks a strategy from shapes and strides, and splits C among threads
//!     in_place            few rows or terms: both operands are read where they lie
//!     outer               up to four terms: C is streamed through the registers
//!     dots                few rows, or columns, and contiguous columns of B: dot products
//!     goto                large products: blocks of both operands are copied, then multiplied
//!       copy              to where the tiles read them in order
//!       block             tiles swept over the panels of a block
//!         tile            the innermost loop: up to 28 accumulators in registers
//! geometry, operand       the sizes of all these, and matrices as they see them
//! ```
//!
//! The order of the sums depends only on the shapes, the strides and the instruction set, so equal products have equal bits.

mod block;
pub(super) mod copy;
mod dots;
pub(super) mod geometry;
mod goto;
mod in_place;
pub(super) mod operand;
pub(super) mod outer;
pub(super) mod plan;
pub(super) mod tile;

use ndarray::{ArrayView2, ArrayViewMut2};

use self::operand::{Accumulate, Start};
use self::plan::{Summation, compute};
use super::float::Float;

/// C `[m, n]` <- A `[m, k]` B `[k, n]`, or C + A B.
///
/// A and B may have any strides, as transposed views have; the columns of C are contiguous. Infinities and NaN
/// propagate as in the sum of products. For a bias, or sums in order, see [`Weight`](super::Weight).
pub(crate) fn product<F: Float>(a: ArrayView2<'_, F>, b: ArrayView2<'_, F>, c: ArrayViewMut2<'_, F>, mode: Accumulate) {
    compute(a, b, c, Start::From(mode), Summation::Fastest);
}
