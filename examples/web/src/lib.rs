//! The lecture in a browser: how far a gradient reaches, and a character model that continues typed text.
//!
//! JavaScript calls the functions in [`exports`]; the same functions in Rust are in [`flow`] and [`writer`], and
//! `src/bin/numbers.rs` prints what they compute as native code, for comparison.

#[allow(unsafe_code)]
pub mod exports;
pub mod flow;
pub mod writer;
