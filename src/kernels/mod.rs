//! The numeric kernels: everything that is written for the vector units, and the two element types.
//!
//! | | |
//! | --- | --- |
//! | `simd` | a trait of vector primitives, and the choice of the instruction set at run time |
//! | `float`, `once` | the two element types, and functions that are compiled once for each of them, in this crate |
//! | `math` | branch-free elementary functions, which vectorise |
//! | `buffer` | reusable aligned memory |
//! | `gemm` | matrix products: the sizes (`geometry`), the choice of a strategy (`plan`), and the strategies |
//! | `panels` | products with weights that are packed once for many products |
//! | `row_product` | products of one row, step after step, for streams |
//! | `norm`, `softmax` | layer normalisation and softmax of rows, forward and backward |

mod buffer;
pub(crate) mod derivatives;
mod float;
mod gemm;
pub(crate) mod math;
pub(crate) mod norm;
pub(crate) mod once;
mod panels;
pub(crate) mod row_product;
pub(crate) mod simd;
pub(crate) mod softmax;
#[cfg(test)]
mod tests;

pub(crate) use buffer::with_elements;
pub use float::{Float, Once};
pub(crate) use gemm::geometry::{BLOCK_BYTES, BLOCK_DEPTH, block_rows, even_chunks};
pub use gemm::operand::Accumulate;
pub(crate) use gemm::plan::Summation;
pub(crate) use gemm::product;
pub(crate) use once::{once, vectorised};
pub(crate) use panels::packed::with_operands;
pub use panels::precision::WeightPrecision;
pub(crate) use panels::store::PackedWeights;
pub(crate) use panels::weight::{Operand, Weight};
#[cfg(any(test, fuzzing))]
pub(crate) use simd::dispatch::for_each_isa;
