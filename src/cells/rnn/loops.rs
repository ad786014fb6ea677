//! The equations of a plain recurrent cell, applied to all units of a step.

use super::equations::{self, Variant};
use super::options::RnnOptions;
use crate::cells::options::RnnNonlinearity;
use crate::cells::units::{for_each_unit, with_switches};
use crate::kernels::{Float, vectorised};

struct Switches<const RELU: bool>;

impl<const RELU: bool> Variant for Switches<RELU> {
    const RELU: bool = RELU;
}

/// The options that change the equations: relu.
#[inline(always)]
fn switches(options: &RnnOptions) -> [bool; 1] {
    let RnnOptions { nonlinearity, recurrent_dropout: _, common: _ } = *options;
    match nonlinearity {
        RnnNonlinearity::Tanh => [false],
        RnnNonlinearity::Relu => [true],
    }
}

vectorised! {
    /// h.
    pub(super) fn activate<'a, F: Float>(options: &'a RnnOptions, a: &'a [F], h: &'a mut [F]) {
        with_switches!(switches(options); [relu] => V in for_each_unit! {
            rows: 1, units: h.len(), <F, V: Variant>;
            write { h: [_h => h]; }
            read { a: [a]; }
            same {}
            let h = equations::activate::<F, V>(a);
        });
    }

    /// da.
    pub(super) fn activate_backward<'a, F: Float>(options: &'a RnnOptions, h: &'a [F], dh: &'a [F], da: &'a mut [F]) {
        with_switches!(switches(options); [relu] => V in for_each_unit! {
            rows: 1, units: da.len(), <F, V: Variant>;
            write { da: [_da => da]; }
            read { h: [h]; dh: [dh]; }
            same {}
            let da = equations::activate_backward::<F, V>(dh, h);
        });
    }
}
