//! Products with weights that are packed once for many products: `v W` for every step of a recurrence, for a part of the steps
//! at a time, or for a model whose weights do not change.
//!
//! `packed` is W in panels, `sweep` multiplies with them, `bf16` and `int8` (over `integers`) are weights in fewer bits, `store`
//! shares them among the passes of a model, and `weight` is W in any of these forms.

pub(super) mod bf16;
pub(super) mod int8;
pub(super) mod integers;
pub(super) mod packed;
pub(super) mod precision;
pub(super) mod store;
mod stored;
mod sweep;
pub(super) mod weight;
