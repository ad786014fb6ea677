//! The part of the gates' sums that comes from x: one product for all steps that are projected at once.

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::normal::Normal;
use super::operand::order_of;
use super::weights::Weights;
use crate::kernels::{Accumulate, Float, Operand, product};
use crate::layer::affine::start_rows;
use crate::layer::kit::reuse;
use crate::layer::rows::rows_of;
use crate::recurrence::{AllSteps, Unrolled};

/// The part of the sums that comes from x, for all steps: `a = W x + b`, or `a = gain ∘ n(W x) + b` with layer normalisation.
#[derive(Clone, Default)]
pub(super) struct FromInput<F> {
    operand: Operand<F>, // W, packed if the rows are multiplied in several parts
    normal: Normal<F>,
}

impl<F: Float> FromInput<F> {
    /// Prepares for a pass.
    pub fn start(&mut self, Weights { weight, .. }: &Weights<'_, F>, pass: &Unrolled<'_, F>) {
        self.operand.prepare(weight.t(), pass.packed_weights(), pass.in_parts());
    }

    /// `a`, `[R, N]`, for the rows that are projected at once.
    pub fn project_input(
        &mut self,
        Weights { weight, gain, eps, groups }: Weights<'_, F>,
        bias: Option<&[F]>,
        pass: &Unrolled<'_, F>,
        x: ArrayView2<'_, F>,
        a: &mut Array2<F>,
    ) {
        reuse(a, (x.nrows(), weight.nrows()));
        let w = self.operand.weight(weight.t(), order_of(pass));
        let Some(gain) = gain else { return w.apply(x, bias, a.view_mut()) };
        let rows = 0..x.nrows();
        self.normal.start(a.dim());
        w.apply(x, Accumulate::Overwrite, self.normal.z(&rows));
        start_rows(bias, rows_of(a, &rows));
        self.normal.add(&rows, groups, (gain, eps), a.view_mut());
    }

    /// The gradients from `da`, `[R, N]`.
    pub fn finish(
        &mut self,
        Weights { weight, gain, groups, .. }: Weights<'_, F>,
        AllSteps { x, dx, .. }: AllSteps<'_, F>,
        da: ArrayView2<'_, F>,
        dw: ArrayViewMut2<'_, F>,
        dgain: Option<&mut [F]>,
        how: Accumulate,
    ) {
        let rows = 0..x.nrows();
        let dz = match gain.zip(dgain) {
            None => da,
            Some((gain, dgain)) => {
                self.normal.backward(&rows, groups, gain, da, dgain);
                self.normal.dz(&rows)
            }
        };
        product(dz.t(), x, dw, how);
        if let Some(dx) = dx {
            product(dz, weight, dx, Accumulate::Overwrite);
        }
    }
}
