//! The equations of a plain recurrent cell's unit, forward and backward.
//!
//! A step gets the sum `a` from x and h:
//!
//! ```text
//! h = f(a)            f: tanh, relu, or another function
//! da = dh f'          f' as a function of f's value, or of a
//! ```

use crate::cells::activations::Activations;
use crate::kernels::Float;
use crate::kernels::derivatives::d_relu;
use crate::kernels::math::relu;

/// The options that change the equations.
pub(super) trait Variant {
    const RELU: bool;
}

/// h.
#[inline(always)]
pub(super) fn activate<F: Float, V: Variant, A: Activations<F>>(act: A, a: F) -> F {
    if V::RELU { relu(a) } else { act.value(act.candidate(a)) }
}

/// da, from a and h.
#[inline(always)]
pub(super) fn activate_backward<F: Float, V: Variant, A: Activations<F>>(act: A, dh: F, a: F, h: F) -> F {
    let [_, slope] = if V::RELU { [h, d_relu(h)] } else { act.candidate_slope(act.kept(a, h)) };
    dh * slope
}
