//! Longer texts: what the library is for, and how its parts go together.

#[doc = include_str!("../docs/gradients.md")]
pub mod gradients {}

#[doc = include_str!("../docs/recurrent.md")]
pub mod recurrent {}
