//! Repeated products with the same weights in a pass: the weights are packed once, if that pays off.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::base::Mode;
use crate::kernels::{Accumulate, Float, Operand, Summation};
use crate::recurrence::Unrolled;

/// The order in which products are summed. Passes give the same bits in chunks of any size, except for single steps of a stream or
/// of a single sequence: for these, a product with unpacked weights is several times as fast as one that packs them.
pub(super) fn order_of<F: Float>(pass: &Unrolled<'_, F>) -> Summation {
    let stream = pass.batch() == 1 || pass.mode() == Some(Mode::Infer);
    if pass.steps() == 1 && stream { Summation::Fastest } else { Summation::Sequential }
}

/// `v W` with the same W at every step: W is packed once per pass, if there are enough steps for that to pay off.
#[derive(Clone, Default)]
pub(super) struct StepProduct<F> {
    operand: Operand<F>,
    order: Option<Summation>,
}

impl<F: Float> StepProduct<F> {
    /// Prepares for `v W` with W = `operand`.
    pub fn start(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        self.prepare(operand, pass, order_of(pass));
    }

    /// Prepares for the backward pass, which need not give the same bits in chunks.
    pub fn start_backward(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        self.prepare(operand, pass, Summation::Fastest);
    }

    fn prepare(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>, order: Summation) {
        self.order = Some(order);
        self.operand.prepare(operand, pass.packed_weights(), pass.steps() > 1);
    }

    /// `c = v · operand`, or `c += v · operand`; the operand is the same as in `start`.
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
