//! The trait of all optimizers.

use super::state::{OptimizerState, OptimizerStateError};
use crate::base::{NamedTensors, Tensors, TensorsExt};
use crate::clip::{ClipNorm, ClipReport, NonFiniteGradient};
use crate::kernels::Float;

/// Changes a model's parameters by their gradient.
///
/// The moments are allocated at the first step, in the shapes of the model; the optimizer serves that model from then on. To step
/// two parts together: `optimizer.step(&mut (&mut a, &mut b), &(&da, &db))`.
pub trait Optimizer<F: Float> {
    /// One step.
    ///
    /// # Panics
    /// Panics if `grad` does not have the tensors of `model`, or `model` those of the first step. The optimizers of this crate
    /// also panic if an element of `grad` is not finite, before it reaches the model, where it would stay; the parameters before
    /// it have been stepped by then. [`step_clipped`](Optimizer::step_clipped) returns an error instead, and changes nothing.
    #[track_caller]
    fn step(&mut self, model: &mut dyn Tensors<F>, grad: &dyn Tensors<F>);

    /// Clipping and a step in one: [`ClipNorm::clip_report`] and [`step`](Optimizer::step), to the bit.
    ///
    /// ```text
    /// f = min(1, max / (‖g‖ + eps))      one pass that reads g
    /// step with f · g                    one pass that reads g, p and the moments, and writes p and the moments
    /// ```
    ///
    /// `grad` stays as it is. Parameters that are [frozen](crate::optim::Group::frozen) have no gradient: they count neither in
    /// the norm nor in the report. The default implementation clips a copy, and does not know which parameters are frozen.
    ///
    /// ```
    /// use gradflow::{clip::ClipNorm, ndarray::arr1, optim::{Optimizer, Sgd}};
    ///
    /// let mut parameter = arr1(&[1.0, 2.0]);
    /// let report = Sgd::new(0.5).step_clipped(&mut parameter, &arr1(&[3.0, -4.0]), ClipNorm::new(2.5).eps(0.0))?;
    /// assert_eq!((report.norm, report.scale), (5.0, 0.5));
    /// assert_eq!(parameter, arr1(&[0.25, 3.0]));
    /// # Ok::<(), gradflow::clip::NonFiniteGradient>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the norm is not finite and [`NonFinite::Error`](crate::clip::NonFinite::Error) is chosen. Nothing is
    /// changed then, and no step is counted.
    ///
    /// # Panics
    /// Panics if `grad` does not have the tensors of `model`, or `model` those of the first step.
    #[track_caller]
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
    #[must_use]
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate for the following steps.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    fn set_learning_rate(&mut self, learning_rate: f64);

    /// The whole state of the optimizer, by name.
    #[must_use]
    fn state(&self) -> OptimizerState<F>;

    /// Restores a [`state`](Optimizer::state), including the learning rate, so that training continues, to the bit, as if it had
    /// not been interrupted. The other settings are not restored but must be the same; to continue with different ones on
    /// purpose, use [`load_moments`](Optimizer::load_moments).
    ///
    /// # Errors
    /// Returns an error if the state is that of another kind of optimizer or has other settings, or its tensors do not have
    /// the names and shapes of `model`'s. Nothing is changed then.
    ///
    /// # Panics
    /// Panics if a rule of the [`ParameterGroups`](crate::optim::ParameterGroups) matches no parameter of `model`.
    #[track_caller]
    fn load_state(&mut self, model: &dyn Tensors<F>, state: &OptimizerState<F>) -> Result<(), OptimizerStateError>;

    /// Restores the moments and the number of steps of a [`state`](Optimizer::state), and keeps every setting of this optimizer:
    /// learning rate, weight decay, betas, eps and all others. Use it to continue a training with different settings on purpose.
    ///
    /// The set of moments must be the same: a momentum, a centered mean square or [AMSGrad](crate::optim::Adam::amsgrad) can be
    /// neither added nor dropped. The moments were averaged with the settings of the state; from here on they decay by those of
    /// this optimizer.
    ///
    /// ```
    /// use gradflow::{ndarray::arr1, optim::{AdamW, Optimizer}};
    ///
    /// let (mut parameter, gradient) = (arr1(&[1.0, -1.0]), arr1(&[0.5, 2.0]));
    /// let mut optimizer = AdamW::new(0.1);
    /// optimizer.step(&mut parameter, &gradient);
    ///
    /// let mut resumed = AdamW::new(0.02).betas(0.9, 0.99).weight_decay(0.3);
    /// assert!(resumed.load_state(&parameter, &optimizer.state()).is_err());
    /// resumed.load_moments(&parameter, &optimizer.state())?;
    /// let state = resumed.state();
    /// assert_eq!((state.steps, state.setting("lr"), state.setting("beta2")), (1, Some(0.02), Some(0.99)));
    /// assert_eq!(state.tensors, optimizer.state().tensors);
    /// # Ok::<(), gradflow::optim::OptimizerStateError>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error as [`load_state`](Optimizer::load_state) does, except for settings. Nothing is changed then.
    ///
    /// # Panics
    /// Panics as [`load_state`](Optimizer::load_state) does.
    #[track_caller]
    fn load_moments(&mut self, model: &dyn Tensors<F>, state: &OptimizerState<F>) -> Result<(), OptimizerStateError> {
        let OptimizerState { kind, steps, settings: _, tensors } = state.clone();
        self.load_state(model, &OptimizerState { kind, steps, settings: self.state().settings, tensors })
    }
}
