//! Averages of a model's weights over its training.

use std::fmt;
use std::ops::Deref;

use super::state::{OptimizerState, OptimizerStateError, ToTake};
use crate::base::tensors::{check_alike, check_values, shown};
use crate::base::{Expect, NamedTensors, Tensors, TensorsExt, check_number};
use crate::kernels::softmax::all_finite;
use crate::kernels::{Float, once, vectorised};

const NAME: &str = "WeightAverage";

/// An average of a model's weights over the steps of its training: PyTorch's `AveragedModel`. It is often a better model than the
/// last weights.
///
/// ```text
/// a ← p                       at the first update, n = 0
/// a ← a + w · (p - a)         then, with n the updates that are averaged already
/// w = 1 - decay               ema: an exponential moving average (Tarvainen and Valpola 2017)
/// w = 1 / (n + 1)             swa: the mean of all, stochastic weight averaging (Izmailov et al. 2018)
/// ```
///
/// Since the average starts as a copy of the weights, it needs no bias correction. Parameters that the optimizer does not change
/// stay as they are, to the bit.
///
/// [`swap_in`](WeightAverage::swap_in) puts the average into the model, for validation. The value that it returns can be read but
/// not trained, and puts the model's own weights back when it is dropped. [`Fit::average`](crate::fit::Fit::average) does all of
/// this.
///
/// ```
/// use gradflow::ndarray::arr1;
/// use gradflow::optim::{Optimizer, Sgd, WeightAverage};
///
/// let (mut model, mut optimizer) = (arr1(&[1.0]), Sgd::new(1.0));
/// let mut average = WeightAverage::ema(0.75);
/// for _ in 0..3 {
///     optimizer.step(&mut model, &arr1(&[-1.0]));
///     average.update(&model)?; // 2, 2.25, 2.6875
/// }
/// {
///     let averaged = average.swap_in(&mut model);
///     assert_eq!(averaged[0], 2.6875);
/// }
/// assert_eq!(model[0], 4.0); // its own weights again
/// average.copy_to(&mut model); // at the end
/// assert_eq!(model[0], 2.6875);
/// # Ok::<(), gradflow::optim::NonFiniteWeight>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct WeightAverage<F> {
    rule: Rule,
    start: u64,
    updates: u64,
    average: Option<NamedTensors<F>>,
    /// Whether this holds the model's own weights, while the model holds the average.
    swapped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Ema { decay: f64, warm_up: bool },
    Swa,
}

impl<F: Float> WeightAverage<F> {
    /// An exponential moving average: with a `decay` of 0.999, over roughly the last thousand updates. PyTorch's
    /// `get_ema_multi_avg_fn`.
    ///
    /// # Panics
    /// Panics if the decay is not in `0..1`, in the element type too.
    #[track_caller]
    pub fn ema(decay: f64) -> Self {
        let decay = check_number::<F>(NAME, "decay", Expect::Fraction, decay);
        Self::new(Rule::Ema { decay, warm_up: false })
    }

    /// The mean of all updates: PyTorch's default, and its `get_swa_multi_avg_fn`. Best [started](WeightAverage::start) late, when the
    /// weights only move around a minimum.
    pub fn swa() -> Self {
        Self::new(Rule::Swa)
    }

    fn new(rule: Rule) -> Self {
        WeightAverage { rule, start: 0, updates: 0, average: None, swapped: false }
    }

    /// Uses a smaller decay at first, so that the weights of the first steps count less: `min(decay, (1 + n) / (10 + n))`, as
    /// TensorFlow's `ExponentialMovingAverage` with its `num_updates`.
    ///
    /// # Panics
    /// Panics if this is [`swa`](WeightAverage::swa), which has no decay, or there was an update.
    #[track_caller]
    pub fn warm_up(self) -> Self {
        self.check_unused();
        match self.rule {
            Rule::Ema { decay, .. } => WeightAverage { rule: Rule::Ema { decay, warm_up: true }, ..self },
            Rule::Swa => panic!("{NAME}: warm_up: the mean of all has no decay"),
        }
    }

    /// Leaves out the first `updates` updates: until then, the average is a copy of the weights.
    ///
    /// # Panics
    /// Panics if there was an update.
    #[track_caller]
    pub fn start(self, updates: u64) -> Self {
        self.check_unused();
        WeightAverage { start: updates, ..self }
    }

    #[track_caller]
    fn check_unused(&self) {
        assert!(self.updates == 0, "{NAME}: settings are chosen before the first update; {} were made", self.updates);
    }

    #[track_caller]
    fn check_not_swapped(&self, what: &str) {
        assert!(
            !self.swapped,
            "{NAME}: {what}: the average is still in the model: what swap_in returned was never dropped"
        );
    }

    #[track_caller]
    fn get(&self, what: &str) -> &NamedTensors<F> {
        self.check_not_swapped(what);
        let Some(average) = &self.average else { panic!("{NAME}: {what}: expected an update before it, got none") };
        average
    }

    /// Adds the weights of `model` to the average, after a step. The first call allocates the average in the shapes of the model;
    /// it serves that model from then on.
    ///
    /// # Errors
    /// Returns an error if a weight is infinite or NaN, because it would stay in the average. Nothing is changed then.
    ///
    /// # Panics
    /// Panics if the model does not have the tensors of the first update, or the average is still in it, because the value
    /// returned by [`swap_in`](WeightAverage::swap_in) was leaked.
    #[track_caller]
    pub fn update(&mut self, model: &dyn Tensors<F>) -> Result<(), NonFiniteWeight> {
        self.check_not_swapped("update");
        if let Some(average) = &self.average {
            check_alike(&NAME, average, model);
        }
        if let Some(i) = (0..model.count()).find(|&i| !all_finite(model.values(i))) {
            return Err(NonFiniteWeight { tensor: model.name(i) });
        }
        match &mut self.average {
            None => self.average = Some(copy_of(model)),
            Some(average) => match self.updates.saturating_sub(self.start) {
                0 => average.copy_from(model),
                averaged => approach_all(self.rule.weight(averaged), average, model),
            },
        }
        self.updates += 1;
        Ok(())
    }

    /// Puts the average into `model` until the returned value is dropped; then the model has its own weights again, to the bit.
    /// In between, it can be read but not changed, so that no step starts from the average:
    ///
    /// ```compile_fail,E0499
    /// # use gradflow::{ndarray::arr1, optim::{Optimizer, Sgd, WeightAverage}};
    /// # let (mut model, mut optimizer, mut average) = (arr1(&[1.0]), Sgd::new(1.0), WeightAverage::ema(0.75));
    /// let averaged = average.swap_in(&mut model);
    /// optimizer.step(&mut model, &arr1(&[-1.0]));
    /// assert_eq!(averaged[0], 1.0);
    /// ```
    ///
    /// Nothing is copied or allocated: model and average swap their elements.
    ///
    /// # Panics
    /// Panics if there was no update, or the model does not have the tensors of the first one, or the average is still in
    /// it.
    #[track_caller]
    pub fn swap_in<'a, M: Tensors<F> + ?Sized>(&'a mut self, model: &'a mut M) -> Averaged<'a, F, M> {
        check_alike(&NAME, self.get("swap_in"), &*model);
        let Some(average) = &mut self.average else { unreachable!("got above") };
        let mut averaged = Averaged { model, average, swapped: &mut self.swapped };
        averaged.swap();
        averaged
    }

    /// Copies the average into `model`, at the end of a training.
    ///
    /// # Panics
    /// Panics as [`swap_in`](WeightAverage::swap_in) does.
    #[track_caller]
    pub fn copy_to(&self, model: &mut dyn Tensors<F>) {
        let average = self.get("copy_to");
        check_alike(&NAME, average, &*model);
        model.copy_from(average);
    }

    /// The number of updates, including those before the [start](WeightAverage::start).
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The average, under the names of the model; `None` before the first update.
    ///
    /// # Panics
    /// Panics if the average is still in the model.
    #[must_use]
    #[track_caller]
    pub fn tensors(&self) -> Option<&NamedTensors<F>> {
        self.check_not_swapped("tensors");
        self.average.as_ref()
    }

    fn kind(&self) -> &'static str {
        match self.rule {
            Rule::Ema { .. } => "Ema",
            Rule::Swa => "Swa",
        }
    }

    fn settings(&self) -> Vec<(&'static str, f64)> {
        let mut settings = match self.rule {
            Rule::Ema { decay, warm_up } => vec![("decay", decay), ("warm_up", f64::from(u8::from(warm_up)))],
            Rule::Swa => vec![],
        };
        settings.push(("start", self.start as f64));
        settings
    }

    /// The whole state, by name, in the form of an optimizer's: `steps` are the updates, and the tensors have the names of the
    /// model's. [`Checkpoint::with_average`](crate::io::Checkpoint::with_average) saves it.
    ///
    /// # Panics
    /// Panics if the average is still in the model.
    #[must_use]
    #[track_caller]
    pub fn state(&self) -> OptimizerState<F> {
        OptimizerState {
            kind: self.kind().into(),
            steps: self.updates,
            settings: self.settings().into_iter().map(|(name, value)| (name.into(), value)).collect(),
            tensors: self.tensors().cloned().unwrap_or_else(|| NamedTensors::new([])),
        }
    }

    /// Restores a [`state`](WeightAverage::state), so that the average continues to the bit. The settings must be the same; to
    /// continue with another decay, change it by [`OptimizerState::with_setting`].
    ///
    /// # Errors
    /// Returns an error if the state is of another kind or has other settings, its tensors do not have the names and shapes of
    /// `model`'s, or one of them is not finite. Nothing is changed then.
    pub fn load_state(&mut self, model: &dyn Tensors<F>, state: &OptimizerState<F>) -> Result<(), OptimizerStateError> {
        state.check_kind(self.kind())?;
        state.check_settings(&self.settings(), &[])?;
        let mut tensors = ToTake::new(&state.tensors);
        let mut average = None;
        if state.steps > 0 {
            let mut list = Vec::new();
            for i in 0..model.count() {
                let (name, shape) = (model.name(i), model.shape(i));
                let values = tensors.take(&name, shape)?;
                if !all_finite(values) {
                    return Err(OptimizerStateError::NonFinite { name });
                }
                list.push((name, shape.to_vec(), values.to_vec()));
            }
            average = Some(NamedTensors::new(list));
        }
        tensors.finish()?;
        (self.updates, self.average, self.swapped) = (state.steps, average, false);
        Ok(())
    }
}

impl Rule {
    /// The weight of the next update, after `averaged` ones.
    fn weight(self, averaged: u64) -> f64 {
        let averaged = averaged as f64;
        match self {
            Rule::Ema { decay, warm_up: false } => 1.0 - decay,
            Rule::Ema { decay, warm_up: true } => 1.0 - decay.min((1.0 + averaged) / (10.0 + averaged)),
            Rule::Swa => 1.0 / (averaged + 1.0),
        }
    }
}

once! {
    #[track_caller]
    fn copy_of<'a, F: Float>(model: &'a dyn Tensors<F>) -> NamedTensors<F> {
        NamedTensors::new((0..model.count()).map(|i| {
            let ((shape, values), name) = (model.tensor(i), model.name(i));
            check_values(NAME, &name, shape, values.len());
            (name, shape.to_vec(), values.to_vec())
        }))
    }

    fn approach_all<'a, F: Float>(weight: f64, average: &'a mut NamedTensors<F>, model: &'a dyn Tensors<F>) {
        for i in 0..model.count() {
            approach(F::of(weight), F::of(1.0 - weight), average.tensor_mut(i), model.values(i));
        }
    }

    fn swap_all<'a, F: Float>(average: &'a mut NamedTensors<F>, model: &'a mut dyn Tensors<F>) {
        for i in 0..model.count().min(average.count()) {
            for (a, p) in average.tensor_mut(i).iter_mut().zip(model.tensor_mut(i)) {
                std::mem::swap(a, p);
            }
        }
    }
}

vectorised! {
    /// As PyTorch's `lerp`: from the nearer end, so that no digits are lost. Equal values stay as they are, and no difference
    /// overflows.
    fn approach<'a, F: Float>(weight: F, rest: F, average: &'a mut [F], p: &'a [F]) {
        let from_average = weight < rest;
        for (a, &p) in average.iter_mut().zip(p) {
            *a = if from_average { *a + (weight * p - weight * *a) } else { p + (rest * *a - rest * p) };
        }
    }
}

/// A model with the [average](WeightAverage) of its weights: dereferences to the model. When it is dropped, the model has its own
/// weights again.
///
/// If it is leaked ([`std::mem::forget`]), the average stays in the model, and the next call of the [`WeightAverage`] panics.
#[must_use = "the model has its own weights again as soon as this is dropped"]
pub struct Averaged<'a, F: Float, M: Tensors<F> + ?Sized> {
    model: &'a mut M,
    average: &'a mut NamedTensors<F>,
    swapped: &'a mut bool,
}

impl<F: Float, M: Tensors<F> + ?Sized> Averaged<'_, F, M> {
    fn swap(&mut self) {
        swap_all(self.average, &mut self.model);
        *self.swapped = !*self.swapped;
    }
}

impl<F: Float, M: Tensors<F> + ?Sized> Deref for Averaged<'_, F, M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.model
    }
}

impl<F: Float, M: Tensors<F> + ?Sized> Drop for Averaged<'_, F, M> {
    fn drop(&mut self) {
        self.swap();
    }
}

impl<F: Float, M: Tensors<F> + ?Sized> fmt::Debug for Averaged<'_, F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Averaged").finish_non_exhaustive()
    }
}

/// A weight that is infinite or NaN, which an average would keep: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NonFiniteWeight {
    /// The first tensor with an element that is not finite.
    pub tensor: String,
}

impl fmt::Display for NonFiniteWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the weights are not finite, first in {}", shown(&self.tensor))
    }
}

impl std::error::Error for NonFiniteWeight {}
