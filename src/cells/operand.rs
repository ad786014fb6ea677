//! Products with the same weights many times in a pass: packed once, if that pays off.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::base::Mode;
use crate::kernels::{Accumulate, Float, Operand, Summation};
use crate::recurrence::Unrolled;

/// Passes give the same bits in chunks of any size, save for single steps of a stream or of one sequence alone: there a
/// product with the weights where they lie is several times as fast as one that packs them.
pub(super) fn order_of<F: Float>(pass: &Unrolled<'_, F>) -> Summation {
    let stream = pass.batch() == 1 || pass.mode() == Some(Mode::Infer);
    if pass.steps() == 1 && stream { Summation::Fastest } else { Summation::Sequential }
}

/// `v W` with the same W at every step: packed once a pass, if there are steps enough to repay it.
#[derive(Clone, Default)]
pub(super) struct StepProduct<F> {
    operand: Operand<F>,
    order: Option<Summation>,
}

impl<F: Float> StepProduct<F> {
    /// For `v W`, W being `operand`.
    pub fn start(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        self.prepare(operand, pass, order_of(pass));
    }

    /// For the backward pass, where nothing has to have the same bits in chunks.
    pub fn start_backward(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        self.prepare(operand, pass, Summation::Fastest);
    }

    fn prepare(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>, order: Summation) {
        self.order = Some(order);
        self.operand.prepare(operand, pass.packed_weights(), pass.steps() > 1);
    }

    /// `c = v · operand`, or `c += v · operand`; the operand as at the start.
    #[inline(always)]
    pub fn multiply(
        &self,
        v: ArrayView2<'_, F>,
        operand: ArrayView2<'_, F>,
        c: ArrayViewMut2<'_, F>,
        mode: Accumulate,
    ) {
        self.operand.weight(operand, self.order.expect("started")).apply(v, mode, c);
    }
}
