//! Where a backward pass leaves the gradient of a layer's parameters.

use crate::base::{Tensors, TensorsExt};
use crate::kernels::{Accumulate, Float};

/// A gradient, and whether a backward pass adds to it or overwrites it.
///
/// ```text
/// Gradient::add(&mut grad)          grad = grad + dL/dθ      what `&mut grad` alone means
/// Gradient::overwrite(&mut grad)    grad = dL/dθ             what grad held is not read, and may be NaN
/// ```
///
/// A sum is for several batches or chunks, or several uses of one layer (tied weights). To overwrite is for the gradient of
/// one pass: nothing has to be set to zero before, and memory is written once instead of written, read and written again, which
/// takes most of a training step if weights are large and rows are few.
///
/// In a layer's [`backward_pass`](super::Layer::backward_pass), one that only adds says `let grad = grad.to_add();`, one
/// that can overwrite says `let (grad, how) = grad.parts();`, and a layer made of layers hands
/// `Gradient::new(&mut grad.branch, how)` to each of them.
#[derive(Debug)]
pub struct Gradient<'g, L> {
    grad: &'g mut L,
    how: Accumulate,
}

impl<'g, L> Gradient<'g, L> {
    /// To be added to, or overwritten.
    pub fn new(grad: &'g mut L, how: Accumulate) -> Self {
        Gradient { grad, how }
    }

    /// To be added to.
    pub fn add(grad: &'g mut L) -> Self {
        Gradient { grad, how: Accumulate::Add }
    }

    /// To be overwritten.
    pub fn overwrite(grad: &'g mut L) -> Self {
        Gradient { grad, how: Accumulate::Overwrite }
    }

    /// The gradient, and what is to be done with it.
    pub fn parts(self) -> (&'g mut L, Accumulate) {
        (self.grad, self.how)
    }

    /// The gradient for a layer that only adds: set to zero first if it was to be overwritten.
    pub fn to_add<F: Float>(self) -> &'g mut L
    where
        L: Tensors<F>,
    {
        start(self.grad, self.how);
        self.grad
    }

    /// The same gradient, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> Gradient<'_, L> {
        Gradient { grad: self.grad, how: self.how }
    }
}

impl<'g, L> From<&'g mut L> for Gradient<'g, L> {
    fn from(grad: &'g mut L) -> Self {
        Gradient::add(grad)
    }
}

/// Zero, if the gradient is to be overwritten and is then added to.
pub(crate) fn start<F: Float>(gradient: &mut (impl Tensors<F> + ?Sized), how: Accumulate) {
    if how == Accumulate::Overwrite {
        gradient.set_zero();
    }
}
