//! The equations of a plain recurrent cell's unit, forward and backward.
//!
//! A step is given the sum `a` of what comes from x and from h:
//!
//! ```text
//! h = f(a)            f: tanh, or relu
//! da = dh f'(h)       f' as a function of f's value
//! ```

use crate::kernels::Float;
use crate::kernels::derivatives::{d_relu, d_tanh};
use crate::kernels::math::{relu, tanh};

/// What the options change in the equations.
pub(super) trait Variant {
    const RELU: bool;
}

/// h.
#[inline(always)]
pub(super) fn activate<F: Float, V: Variant>(a: F) -> F {
    if V::RELU { relu(a) } else { tanh(a) }
}

/// da.
#[inline(always)]
pub(super) fn activate_backward<F: Float, V: Variant>(dh: F, h: F) -> F {
    dh * if V::RELU { d_relu(h) } else { d_tanh(h) }
}
