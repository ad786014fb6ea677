//! The equations of a minGRU's unit, forward and backward.
//!
//! A step gets the sums `a_z, n` from x, and the state before it, `h⁻`:
//!
//! ```text
//! z = σ(a_z)    h = (1 - z) h⁻ + z n = h⁻ + z (n - h⁻)
//! ```
//!
//! With `dy = dL/dy`, the chain rule gives, from `dh`:
//!
//! ```text
//! da_z = dh (n - h⁻) σ'(z)    dn = dh z    dh⁻ = dh (1 - z)
//! ```

use crate::kernels::Float;
use crate::kernels::derivatives::d_sigmoid;
use crate::kernels::math::sigmoid;

/// z and h.
#[inline(always)]
pub(super) fn update<F: Float>(a_z: F, n: F, h_before: F) -> [F; 2] {
    let z = sigmoid(a_z);
    [z, h_before + z * (n - h_before)]
}

/// da_z, dn and dh⁻.
#[inline(always)]
pub(super) fn update_backward<F: Float>(dh: F, z: F, n: F, h_before: F) -> [F; 3] {
    [dh * (n - h_before) * d_sigmoid(z), dh * z, dh * (F::one() - z)]
}
