//! Optimizers, with PyTorch's exact semantics.

mod adam;
mod sgd;

pub use adam::{Adam, AdamW};
pub use sgd::Sgd;

use crate::tensors::check_alike;
use crate::{Float, Tensors};

/// Changes a model's parameters by their gradient.
///
/// What an optimizer remembers is made at the first step, in the shapes of the model; it serves that model from then
/// on.
pub trait Optimizer<F: Float> {
    /// One step.
    ///
    /// # Panics
    /// Where `grad` has other tensors than `model`, or `model` other ones than at the first step.
    fn step(&mut self, model: &mut dyn Tensors<F>, grad: &dyn Tensors<F>);

    /// The learning rate.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate, for the steps to come.
    ///
    /// # Panics
    /// Where it is negative or not finite.
    fn set_learning_rate(&mut self, learning_rate: f64);
}

/// Panics unless `value` is finite and at least 0.
#[track_caller]
fn check_setting(optimizer: &str, setting: &str, value: f64) -> f64 {
    assert!(
        value >= 0.0 && value.is_finite(),
        "{optimizer}: {setting}: expected a finite number, at least 0, got {value}"
    );
    value
}

/// Panics unless `value` is in `[0, 1)`.
#[track_caller]
fn check_fraction(optimizer: &str, setting: &str, value: f64) -> f64 {
    assert!((0.0..1.0).contains(&value), "{optimizer}: {setting}: expected a number in 0..1, got {value}");
    value
}

/// Calls `update` for each tensor's index, once the gradient is known to fit the model.
#[track_caller]
fn for_each_tensor<F: Float>(
    optimizer: &str,
    model: &mut dyn Tensors<F>,
    grad: &dyn Tensors<F>,
    mut update: impl FnMut(usize, &mut [F], &[F]),
) {
    check_alike(&optimizer, model, grad);
    for i in 0..model.count() {
        update(i, model.tensor_mut(i), grad.tensor(i).1);
    }
}
