//! Optimizers, with PyTorch's exact semantics.

mod accumulate;
mod adagrad;
mod adam;
mod core;
mod groups;
mod rms_prop;
mod schedule;
mod sgd;
mod state;

pub use accumulate::GradAccumulator;
pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use groups::{Group, ParameterGroups, Select};
pub use rms_prop::RmsProp;
pub use schedule::{Schedule, ScheduleError};
pub use sgd::Sgd;
pub use state::{OptimizerState, OptimizerStateError};

use self::core::optimizer;
use crate::base::{NamedTensors, Tensors, TensorsExt};
use crate::clip::{ClipNorm, ClipReport, NonFiniteGradient};
use crate::kernels::Float;

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

    /// Clipping and a step in one: [`ClipNorm::clip_report`] and [`step`](Optimizer::step), to the bit.
    ///
    /// ```text
    /// f = min(1, max / (‖g‖ + eps))      one pass that reads g
    /// step with f · g                    one pass that reads g, p and the moments, and writes p and the moments
    /// ```
    ///
    /// `grad` stays as it is. An optimizer that does not implement it clips a copy.
    ///
    /// ```
    /// use gradflow::{ClipNorm, Optimizer, Sgd, ndarray::arr1};
    ///
    /// let mut parameter = arr1(&[1.0, 2.0]);
    /// let report = Sgd::new(0.5).step_clipped(&mut parameter, &arr1(&[3.0, -4.0]), ClipNorm::new(2.5).eps(0.0))?;
    /// assert_eq!((report.norm, report.scale), (5.0, 0.5));
    /// assert_eq!(parameter, arr1(&[0.25, 3.0]));
    /// # Ok::<(), gradflow::NonFiniteGradient>(())
    /// ```
    ///
    /// # Errors
    /// Where the norm is not finite and [`NonFinite::Error`](crate::NonFinite::Error) is chosen; nothing is changed
    /// then, and no step is counted.
    ///
    /// # Panics
    /// As [`step`](Optimizer::step).
    fn step_clipped(
        &mut self,
        model: &mut dyn Tensors<F>,
        grad: &dyn Tensors<F>,
        clip: ClipNorm,
    ) -> Result<ClipReport, NonFiniteGradient> {
        let mut clipped = NamedTensors::zeros_like(grad);
        clipped.copy_from(grad);
        let report = clip.clip_report(&mut clipped)?;
        self.step(model, &clipped);
        Ok(report)
    }

    /// The learning rate.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate, for the steps to come.
    ///
    /// # Panics
    /// Where it is negative or not finite.
    fn set_learning_rate(&mut self, learning_rate: f64);

    /// All that the optimizer remembers, by name.
    fn state(&self) -> OptimizerState<F>;

    /// Restores what [`state`](Optimizer::state) gave, learning rate included, so that training goes on to the bit as
    /// if it had not been interrupted. The other settings are not restored but must be the same.
    ///
    /// # Errors
    /// Where the state is of another kind of optimizer or has other settings, or its tensors have not the names and
    /// shapes that belong to `model`; nothing is changed then.
    ///
    /// # Panics
    /// Where a rule of the [`ParameterGroups`] fits no parameter of `model`.
    fn load_state(&mut self, model: &dyn Tensors<F>, state: &OptimizerState<F>) -> Result<(), OptimizerStateError>;
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
