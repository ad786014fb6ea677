//! The numeric kernels: everything that is written for the vector units, and all `unsafe` code of the crate.
//!
//! * `dispatch`: functions compiled once per instruction set, of which the best is picked at run time;
//! * `simd`: a small vector trait over the element types;
//! * `math`: branch-free elementary functions, which vectorise;
//! * `recurrent`: the product of a recurrent step;
//! * `product`: matrix products, of blocks (`block`) by tiles in registers (`tile`) over packed operands (`pack`).

mod block;
mod blocked;
mod buffer;
pub(crate) mod dispatch;
mod dots;
pub(crate) mod math;
mod pack;
mod product;
mod recurrent;
mod simd;
#[cfg(test)]
mod tests;
mod tile;
mod transpose;

#[cfg(test)]
pub(crate) use dispatch::for_each_isa;
pub(crate) use dispatch::vectorised;
pub(crate) use product::{
    Accumulate, Packed, Summation, product, product_in_order, product_packed, product_packed_with_bias,
    product_with_bias,
};
pub use recurrent::StepPanels;
pub use simd::Simd;
