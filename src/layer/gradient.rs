//! The destination of the parameters' gradient in a layer's backward pass.

use crate::base::{Tensors, TensorsExt};
use crate::kernels::{Accumulate, Float};

/// A gradient, and whether a backward pass adds to it or overwrites it.
///
/// ```text
/// Gradient::add(&mut grad)          grad = grad + dL/dθ      what `&mut grad` alone means
/// Gradient::overwrite(&mut grad)    grad = dL/dθ             what grad held is not read, and may be NaN
/// ```
///
/// Adding is for several batches or chunks, or several uses of one layer (tied weights). Overwriting is for the gradient of
/// one pass: nothing has to be set to zero before, and memory is written once instead of written, read and written again, which
/// takes most of a training step if weights are large and rows are few.
///
/// In its [`backward_pass`](super::Layer::backward_pass), a layer that only adds says `let grad = grad.to_add();`, one
/// that can overwrite says `let (grad, how) = grad.parts();`, and a layer made of layers passes
/// `Gradient::new(&mut grad.branch, how)` to each of them.
#[derive(Debug)]
pub struct Gradient<'g, L> {
    grad: &'g mut L,
    how: Accumulate,
}

impl<'g, L> Gradient<'g, L> {
    /// A gradient to be added to or overwritten, as `how` says.
    pub fn new(grad: &'g mut L, how: Accumulate) -> Self {
        Gradient { grad, how }
    }

    /// A gradient to be added to.
    pub fn add(grad: &'g mut L) -> Self {
        Gradient { grad, how: Accumulate::Add }
    }

    /// A gradient to be overwritten.
    pub fn overwrite(grad: &'g mut L) -> Self {
        Gradient { grad, how: Accumulate::Overwrite }
    }

    /// The gradient, and whether to add to it or to overwrite it.
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

/// Sets the gradient to zero if it is to be overwritten, so that it can be added to.
pub(crate) fn start<F: Float>(gradient: &mut (impl Tensors<F> + ?Sized), how: Accumulate) {
    if how == Accumulate::Overwrite {
        gradient.set_zero();
    }
}
