//! A clipped step in one pass equals clipping and then a step, to the bit.

use gradflow::ndarray::{Array1, arr1};
use gradflow::{
    Float, Tensors,
    clip::{ClipNorm, ClipReport, NonFinite, NonFiniteGradient},
    optim::{Group, Optimizer, OptimizerState, OptimizerStateError, ParameterGroups, Select, Sgd},
};

use super::{Model, all, with_groups};
use crate::common::{bits, panic_of};

/// Every optimizer, without and with groups.
fn optimizers<F: Float>() -> Vec<Box<dyn Optimizer<F>>> {
    let groups = ParameterGroups::new()
        .add(Select::Vectors, Group::new().weight_decay(0.3).learning_rate_factor(0.5))
        .add(Select::prefix("w"), Group::new().learning_rate_factor(2.0));
    let alike = all().into_iter().map(|(_, optimizer)| optimizer);
    alike.chain(with_groups(&groups)).collect()
}

/// Clips a copy and makes a step with it.
fn clip_then_step<F: Float>(
    optimizer: &mut dyn Optimizer<F>,
    model: &mut Model<F>,
    grad: &Model<F>,
    clip: ClipNorm,
) -> Result<ClipReport, NonFiniteGradient> {
    let mut grad = grad.clone();
    let report = clip.clip_report(&mut grad)?;
    optimizer.step(model, &grad);
    Ok(report)
}

/// Compares the two ways, with gradients of several steps that `spoil` changes; returns the results of the last step.
fn compare<F: Float>(clip: ClipNorm, spoil: impl Fn(&mut Model<F>)) -> Vec<Result<ClipReport, NonFiniteGradient>> {
    let mut last = Vec::new();
    for (mut two, mut one) in optimizers::<F>().into_iter().zip(optimizers()) {
        let (mut expected, mut got) = (Model::new(), Model::new());
        let mut outcome = None;
        for step in 1..=5 {
            let mut grad = expected.gradient(step);
            if step % 2 == 1 {
                spoil(&mut grad);
            }
            let before = bits(&grad);
            let want = clip_then_step(&mut *two, &mut expected, &grad, clip);
            let is = one.step_clipped(&mut got, &grad, clip);
            // Compared as text, in which NaN equals itself.
            assert_eq!(format!("{is:?}"), format!("{want:?}"));
            assert_eq!(bits(&grad), before, "the gradient has changed");
            let (state, expected_state) = (one.state(), two.state());
            let what = format!("{} {:?}, {clip:?}, step {step}", state.kind, state.settings);
            assert_eq!(bits(&got), bits(&expected), "{what}");
            assert_eq!(state.steps, expected_state.steps, "{what}");
            assert_eq!(bits(&state.tensors), bits(&expected_state.tensors), "{what}");
            outcome = Some(is);
        }
        last.extend(outcome);
    }
    last
}

fn check<F: Float>() {
    let max = |max| ClipNorm::new(max);
    let clips = [
        max(0.1),
        max(1.0).eps(0.0),
        max(0.3).norm_type(1.0),
        max(0.2).norm_type(3.0),
        max(0.2).norm_type(f64::INFINITY),
        max(0.0),
    ];
    for clip in clips {
        for outcome in compare::<F>(clip, |_| ()).into_iter().chain(compare::<F>(clip.per_tensor(), |_| ())) {
            let report = outcome.unwrap();
            assert!(report.scale < 1.0 && report.clipped == 2, "{clip:?}: nothing was clipped: {report:?}");
        }
    }
    for outcome in compare::<F>(max(1e9), |_| ()) {
        assert_eq!(outcome.unwrap().scale, 1.0);
    }
    // A factor below the smallest normal number.
    let huge = |grad: &mut Model<F>| grad.w.fill(F::of(1e30));
    compare::<F>(max(F::min_positive_value().widen()), huge);
    compare::<F>(max(1.0), |grad| grad.w.fill(F::zero()));
}

#[test]
fn a_clipped_step_is_clipping_and_a_step() {
    check::<f64>();
    check::<f32>();
}

#[test]
fn gradients_that_are_not_finite_are_treated_as_by_clipping() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let spoil = |grad: &mut Model<f64>| grad.b[1] = bad;
        for clip in [ClipNorm::new(0.1), ClipNorm::new(0.1).per_tensor(), ClipNorm::new(0.1).norm_type(f64::INFINITY)] {
            for outcome in compare(clip, spoil) {
                assert_eq!(outcome.unwrap_err().tensor, "b");
            }
            for outcome in compare(clip.non_finite(NonFinite::Skip), spoil) {
                assert_eq!(outcome.unwrap().scale, 0.0);
            }
            // A plain step would refuse it.
            for mut optimizer in optimizers::<f64>() {
                let mut model = Model::new();
                let mut grad = model.gradient(1);
                spoil(&mut grad);
                let report = optimizer.step_clipped(&mut model, &grad, clip.non_finite(NonFinite::Pass)).unwrap();
                assert_eq!(report.non_finite.as_deref(), Some("b"));
                assert!(model.b[1].is_nan(), "{:?}", model.b);
            }
        }
    }
}

/// The second refusal is for a model that has made steps before.
#[test]
fn a_gradient_that_is_refused_changes_nothing() {
    for mut optimizer in optimizers::<f64>() {
        let mut model = Model::new();
        for steps in 0..2 {
            let (before, state) = (model.clone(), optimizer.state());
            let mut grad = model.gradient(1);
            grad.w[[2, 1]] = f64::NAN;
            let error = optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0)).unwrap_err();
            assert_eq!(error.to_string(), "the gradient is not finite (norm NaN), first in w");
            assert_eq!((&model, optimizer.state()), (&before, state));
            model.train(&mut *optimizer, 1..=1);
            assert_eq!(optimizer.state().steps, steps + 1);
        }
        let other = || Model { b: Array1::zeros(4), ..Model::new() };
        let message = panic_of(|| optimizer.step_clipped(&mut model, &other(), ClipNorm::new(1.0)));
        assert!(message.ends_with(": b: expected [3], got [4]"), "{message}");
    }
}

/// As in PyTorch, where a frozen parameter has no `grad`: it counts in no norm and no report, and its NaN does not stop the step.
#[test]
fn frozen_parameters_have_no_gradient() {
    let frozen = ParameterGroups::new().add(Select::prefix("w"), Group::new().frozen());
    let clips = [
        ClipNorm::new(0.1),
        ClipNorm::new(0.1).per_tensor(),
        ClipNorm::new(0.1).norm_type(f64::INFINITY),
        ClipNorm::new(0.1).non_finite(NonFinite::Skip),
        ClipNorm::new(0.1).non_finite(NonFinite::Pass),
    ];
    for clip in clips {
        for (mut optimizer, mut alone) in with_groups::<f64>(&frozen).into_iter().zip(all::<f64>()) {
            let alone = &mut *alone.1;
            let (mut model, mut b) = (Model::new(), Model::new().b);
            for step in 1..=4 {
                let mut grad = model.gradient(step);
                grad.w.fill([f64::NAN, 1e300, f64::INFINITY, 0.0][step % 4]);
                let report = optimizer.step_clipped(&mut model, &grad, clip).unwrap();
                // The optimizer of `with_groups` may have other settings; norm and factor depend only on the gradient.
                let want = alone.step_clipped(&mut b, &grad.b, clip).unwrap();
                assert_eq!(report, want, "{clip:?}, step {step}");
                assert!(report.clipped == 1 && report.non_finite.is_none());
            }
            let initial = Model::<f64>::new();
            assert_eq!(model.w, initial.w, "frozen");
            assert!(model.b != initial.b && model.b.iter().all(|value| value.is_finite()));
            assert_eq!(optimizer.state().steps, 4);

            // NaN in a trained parameter still stops the step.
            let mut grad = model.gradient(5);
            grad.b[0] = f64::NAN;
            let before = model.clone();
            let stopped = optimizer.step_clipped(&mut model, &grad, ClipNorm::new(0.1)).unwrap_err();
            assert_eq!((stopped.tensor.as_str(), &model, optimizer.state().steps), ("b", &before, 4));
        }
    }
    // If all parameters are frozen, there is nothing to clip.
    let all_frozen = ParameterGroups::new().add(Select::contains(""), Group::new().frozen());
    for mut optimizer in with_groups::<f64>(&all_frozen) {
        let mut model = Model::new();
        let grad = model.gradient(1);
        let report = optimizer.step_clipped(&mut model, &grad, ClipNorm::new(0.1)).unwrap();
        assert_eq!((report.norm, report.clipped, model), (0.0, 0, Model::new()));
    }
}

/// An optimizer from outside the crate, which does not implement a clipped step.
struct Plain(Sgd<f64>);

impl Optimizer<f64> for Plain {
    fn step(&mut self, model: &mut dyn Tensors<f64>, grad: &dyn Tensors<f64>) {
        self.0.step(model, grad);
    }
    fn learning_rate(&self) -> f64 {
        self.0.learning_rate()
    }
    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.0.set_learning_rate(learning_rate);
    }
    fn state(&self) -> OptimizerState<f64> {
        self.0.state()
    }
    fn load_state(&mut self, model: &dyn Tensors<f64>, state: &OptimizerState<f64>) -> Result<(), OptimizerStateError> {
        self.0.load_state(model, state)
    }
}

#[test]
fn an_optimizer_without_its_own_clips_a_copy() {
    let (mut optimizer, mut parameter, mut grad) = (Plain(Sgd::new(0.5)), arr1(&[1.0, 2.0]), arr1(&[3.0, -4.0]));
    let clip = ClipNorm::new(2.5).eps(0.0);
    let report = optimizer.step_clipped(&mut parameter, &grad, clip).unwrap();
    assert_eq!((report.norm, report.scale), (5.0, 0.5));
    assert_eq!((&parameter, &grad), (&arr1(&[0.25, 3.0]), &arr1(&[3.0, -4.0])));
    grad[0] = f64::INFINITY;
    assert!(optimizer.step_clipped(&mut parameter, &grad, clip).is_err());
    assert_eq!((parameter, optimizer.state().steps), (arr1(&[0.25, 3.0]), 1));
}
