//! The numeric kernels: everything that is written for the vector units, and all `unsafe` code of the crate.
//!
//! * `dispatch`: functions compiled once per instruction set, of which the best is picked at run time;
//! * `simd`: a small vector trait over the element types;
//! * `math`: branch-free elementary functions, which vectorise;
//! * `product`: matrix products, of blocks (`block`) by tiles in registers (`tile`) over packed operands (`pack`);
//! * `outer`: sums of a few outer products, large ones past the caches;
//! * `packed`: products with weights that are packed once for many of them, as those of recurrent steps.

mod block;
mod blocked;
mod buffer;
pub(crate) mod dispatch;
mod dots;
mod float;
pub(crate) mod math;
mod once;
mod outer;
mod pack;
mod packed;
mod packed_weights;
mod product;
mod simd;
#[cfg(test)]
mod tests;
mod tile;
mod transpose;

pub(crate) use blocked::{BLOCK_BYTES, BLOCK_DEPTH, block_rows, parts};
#[cfg(test)]
pub(crate) use dispatch::for_each_isa;
pub(crate) use dispatch::vectorised;
pub use float::Float;
pub use once::Once;
pub(crate) use once::once;
pub use packed::Packed;
pub(crate) use packed::{with_elements, with_operands};
pub(crate) use packed_weights::{Kept, PackedWeights};
pub use product::Accumulate;
pub(crate) use product::{Summation, product, product_in_order, product_with_bias};
