//! The learning rate range test.

use std::ops::RangeInclusive;

use super::error::FitError;
use super::supervised::{self, Supervised};
use crate::base::ZerosLike;
use crate::clip::ClipNorm;
use crate::layer::Layer;
use crate::loss::Loss;
use crate::optim::Optimizer;

/// The weight of the past in the smoothed loss.
const SMOOTHING: f64 = 0.9;

/// The test ends when the smoothed loss is above its lowest value times this.
const DIVERGED: f64 = 4.0;

/// A step of the learning rate range test.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LrPoint {
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The loss of its batch, before the step.
    pub loss: f64,
    /// The mean of the losses up to here; recent ones weigh most.
    pub smoothed: f64,
}

/// The result of the learning rate range test: see [`lr_range`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LrRange {
    /// One entry per step, with growing learning rates, until the loss diverges.
    pub points: Vec<LrPoint>,
}

impl LrRange {
    /// The point at which the smoothed loss is lowest.
    #[must_use]
    pub fn lowest(&self) -> Option<LrPoint> {
        self.points.iter().copied().reduce(|lowest, next| if next.smoothed < lowest.smoothed { next } else { lowest })
    }

    /// A learning rate to start with: a tenth of the one at which the smoothed loss is [lowest](LrRange::lowest), because
    /// training is no longer stable near the edge. `None` if there are no points.
    #[must_use]
    pub fn suggestion(&self) -> Option<f64> {
        self.lowest().map(|point| point.learning_rate / 10.0)
    }
}

/// The learning rate range test (Smith 2017, with the exponential growth that is usual today): trains a copy of the model with
/// a learning rate that grows from step to step, until the loss diverges.
///
/// ```text
/// lr_k = from (to / from)^(k / (steps - 1))        k = 0 … steps - 1
/// v_k  = β v_{k-1} + (1 - β) L_k                   smoothed_k = v_k / (1 - β^{k+1})        β = 0.9
/// ```
///
/// A learning rate is good if the loss falls fastest there, and too large past the lowest point. Pass an `optimizer` that has
/// taken no step, and do not use it afterwards; `batches` are repeated until the test ends. It ends early after a gradient that
/// is not finite, or a smoothed loss above four times its lowest value. An
/// [example](https://docs.rs/crate/gradflow/latest/source/examples/lr_range.rs) draws the curve.
///
/// ```
/// use gradflow::fit;
/// use gradflow::ndarray::Array3;
/// use gradflow::{layers::Linear, loss::MeanSquaredError, optim::Sgd};
///
/// let model = Linear::<f64>::zeros(1, 1);
/// let batches = [(Array3::ones((1, 8, 1)), Array3::from_elem((1, 8, 1), 2.0))];
/// let range = fit::lr_range(&model, &mut Sgd::new(0.0), &mut MeanSquaredError::new(), &batches, 1e-3..=10.0, 100)?;
/// assert!(range.points.last().unwrap().learning_rate < 10.0); // it diverged before that
/// let learning_rate = range.suggestion().unwrap();
/// assert!((0.1..0.5).contains(&learning_rate)); // the error shrinks by |1 - 4 lr| a step: stable below 1/2
/// # Ok::<(), gradflow::fit::FitError>(())
/// ```
///
/// # Errors
/// Returns an error if the lengths of a batch do not fit it.
///
/// # Panics
/// Panics if there is no batch, there are fewer than 2 steps, or the learning rates are not positive, finite and growing.
#[track_caller]
pub fn lr_range<L, C, B>(
    model: &L,
    optimizer: &mut dyn Optimizer<L::Elem>,
    loss: &mut C,
    batches: &[B],
    learning_rates: RangeInclusive<f64>,
    steps: u32,
) -> Result<LrRange, FitError>
where
    L: Layer,
    C: Loss<L::Elem>,
    B: Supervised<L::Elem, Targets = C::Targets>,
{
    let (from, to) = learning_rates.into_inner();
    let growing = from > 0.0 && from < to && to.is_finite();
    assert!(growing, "lr_range: learning rates: expected 0 < from < to < ∞, got {from}..={to}");
    assert!(steps >= 2, "lr_range: steps: expected at least 2, got {steps}");
    assert!(!batches.is_empty(), "lr_range: batches: expected at least one, got none");
    let mut model = model.clone();
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    let (mut range, mut average, mut lowest) = (LrRange { points: Vec::new() }, 0.0, f64::INFINITY);
    for (k, batch) in (0..steps).zip(batches.iter().cycle()) {
        let x = batch.input()?.train(u64::from(k));
        let mut state = model.zero_state(x.dims().1);
        let pass = model.pass(x, &mut state, &mut cache);
        let (_, evaluated) = supervised::evaluate(loss, &pass, batch);
        let (loss, gradient) = (evaluated.value(), evaluated.gradient());
        pass.backward_into(gradient, &mut grad);
        let learning_rate = from * (to / from).powf(f64::from(k) / f64::from(steps - 1));
        average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
        let smoothed = average / (1.0 - SMOOTHING.powi(k as i32 + 1));
        if !smoothed.is_finite() {
            break;
        }
        range.points.push(LrPoint { learning_rate, loss, smoothed });
        lowest = smoothed.min(lowest);
        if smoothed > DIVERGED * lowest {
            break;
        }
        optimizer.set_learning_rate(learning_rate);
        if optimizer.step_clipped(&mut model, &grad, ClipNorm::new(f64::INFINITY)).is_err() {
            break;
        }
    }
    Ok(range)
}
