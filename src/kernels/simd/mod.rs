//! Vector primitives, and the choice of the instruction set at run time.

pub(crate) mod dispatch;
mod square;
pub(crate) mod vector;
