//! The numeric kernels: everything that is written for the vector units, and all `unsafe` code of the crate.
//!
//! * [`simd`]: a small vector trait over the element types, and the choice of the instruction set at run time;
//! * [`math`]: branch-free elementary functions that vectorise;
//! * [`product`]: matrix products on register tiles ([`tile`]) over packed panels ([`pack`]).

mod buffer;
pub(crate) mod math;
mod pack;
pub(crate) mod product;
pub(crate) mod simd;
#[cfg(test)]
mod tests;
mod tile;

pub use simd::Simd;

pub(crate) use math::{erf, exp, sigmoid, tanh};
pub(crate) use product::{Accumulate, Packed, product, product_packed};
pub(crate) use simd::vectorised;
