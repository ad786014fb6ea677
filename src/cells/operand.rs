//! Products with the same weights many times in a pass: packed once, if that pays off.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::base::Mode;
use crate::kernels::{Accumulate, Float, Kept, Packed, Summation, product_in_order};
use crate::recurrence::Unrolled;

/// Passes give the same bits in chunks of any size, save for single steps of a stream or of one sequence alone: there a
/// product with the weights where they lie is several times as fast as one that packs them.
pub(super) fn order_of<F: Float>(pass: &Unrolled<'_, F>) -> Summation {
    let stream = pass.batch() == 1 || pass.mode() == Some(Mode::Infer);
    if pass.steps() == 1 && stream { Summation::Fastest } else { Summation::Sequential }
}

/// Weights that a pass multiplies with many times: packed for it, or once for all passes of a [prepacked](crate::Prepacked)
/// model.
#[derive(Clone, Default)]
pub(super) struct Operand<F> {
    own: Packed<F>,
    is_own: bool,
    shared: Option<Kept<F>>,
}

impl<F: Float> Operand<F> {
    /// Before a pass; `repay` says whether its products repay packing.
    pub fn start(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>, repay: bool) {
        match pass.packed_weights() {
            Some(weights) => weights.keep(operand, &mut self.shared),
            None => self.shared = None,
        }
        self.is_own = self.shared.is_none() && repay;
        if self.is_own {
            self.own.pack(operand);
        }
    }

    /// Its packed form, if it is packed.
    pub fn packed(&self) -> Option<&Packed<F>> {
        match &self.shared {
            Some(shared) => Some(&shared.packed),
            None => self.is_own.then_some(&self.own),
        }
    }
}

/// `W v` with the same W at every step: packed once a pass, if there are steps enough to repay it.
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

    /// For the way back: nothing there has to have the same bits in chunks.
    pub fn start_backward(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        self.prepare(operand, pass, Summation::Fastest);
    }

    fn prepare(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>, order: Summation) {
        self.order = Some(order);
        self.operand.start(operand, pass, pass.steps() > 1);
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
        match self.operand.packed() {
            Some(packed) => packed.multiply(v, c, mode),
            None => product_in_order(v, operand, c, mode, self.order.expect("started")),
        }
    }
}
