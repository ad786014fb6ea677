//! The equations of a plain recurrent cell, applied to all units of a step.

use super::equations::{self, Variant};
use crate::cells::activations::activated;
use crate::cells::units::{for_each_unit, with_switches};
use crate::kernels::Float;

struct Switches<const RELU: bool>;

impl<const RELU: bool> Variant for Switches<RELU> {
    const RELU: bool = RELU;
}

activated! {
    /// h.
    pub(super) fn activate<'a, F: Float; act: A>(relu: bool, a: &'a [F], h: &'a mut [F]) {
        with_switches!([relu]; [relu] => V in for_each_unit! {
            rows: 1, units: h.len(), <F, V: Variant>, act: A;
            write { h: [_h => h]; }
            read { a: [a]; }
            same {}
            let h = equations::activate::<F, V, A>(act, a);
        });
    }

    /// Replaces a by da.
    pub(super) fn activate_backward<'a, F: Float; act: A>(relu: bool, h: &'a [F], dh: &'a [F], da: &'a mut [F]) {
        with_switches!([relu]; [relu] => V in for_each_unit! {
            rows: 1, units: da.len(), <F, V: Variant>, act: A;
            write { da: [a => da]; }
            read { h: [h]; dh: [dh]; }
            same {}
            let da = equations::activate_backward::<F, V, A>(act, dh, a, h);
        });
    }
}
