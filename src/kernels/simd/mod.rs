//! Vector primitives, and the choice of the instruction set at run time.

pub(crate) mod dispatch;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod square;
pub(crate) mod vector;
