//! Products with weights that are packed once for many products: `v W` of every step of a recurrence, of a part of the steps at
//! a time, or of a model whose weights stay as they are.
//!
//! `packed` is W in panels, `sweep` multiplies with them, `bf16` and `int8` (over `integers`) are weights in fewer bits, `store` shares them among
//! the passes of a model, and `weight` is W however it lies.

pub(super) mod bf16;
pub(super) mod int8;
pub(super) mod integers;
pub(super) mod packed;
pub(super) mod precision;
pub(super) mod store;
mod stored;
mod sweep;
pub(super) mod weight;
