//! AMSGrad's maximum, NAdam's product, and moments that continue under other settings.

use gradflow::ndarray::arr1;
use gradflow::{
    Tensors, TensorsExt,
    author::NamedTensors,
    optim::{Adam, AdamW, NAdam, Optimizer, OptimizerState, OptimizerStateError, Sgd},
};

use super::{Model, all, golden, optimizer};
use crate::common::{assert_near, bits, panic_of};

type Triple = (String, Vec<usize>, Vec<f64>);

fn edited(state: &OptimizerState<f64>, change: impl Fn(&mut Triple)) -> OptimizerState<f64> {
    let OptimizerState { kind, steps, settings, tensors } = state.clone();
    let mut list: Vec<Triple> = (0..tensors.count())
        .map(|i| (tensors.name(i), tensors.shape(i).to_vec(), tensors.values(i).to_vec()))
        .collect();
    list.iter_mut().for_each(change);
    OptimizerState { kind, steps, settings, tensors: NamedTensors::new(list) }
}

/// After a large gradient the mean square falls but the maximum stays. Under equal gradients, the steps then grow without AMSGrad and
/// stay equal with it.
#[test]
fn the_maximum_never_falls() {
    let (mut plain, mut amsgrad) = (Adam::new(0.1).betas(0.0, 0.5), Adam::new(0.1).betas(0.0, 0.5).amsgrad());
    let (mut a, mut b) = (arr1(&[0.0]), arr1(&[0.0]));
    let (mut steps_of_a, mut steps_of_b) = (Vec::<f64>::new(), Vec::<f64>::new());
    let mut maximum = 0.0;
    for step in 0..40 {
        let gradient = arr1(&[if step == 0 { 8.0 } else { 1e-2 }]);
        let before = (a[0], b[0]);
        plain.step(&mut a, &gradient);
        amsgrad.step(&mut b, &gradient);
        steps_of_a.push(before.0 - a[0]);
        steps_of_b.push(before.1 - b[0]);
        let state = amsgrad.state();
        let of = |name: &str| state.tensors.get(name).expect("a moment").1[0];
        assert!(of("max_exp_avg_sq") >= maximum && of("max_exp_avg_sq") >= of("exp_avg_sq"), "step {step}");
        maximum = of("max_exp_avg_sq");
    }
    // The first step, in which the maximum is the mean square, is the same.
    assert_eq!(steps_of_a[0].to_bits(), steps_of_b[0].to_bits());
    assert_eq!(maximum, 32.0, "half of 8²");
    assert_near(
        steps_of_a[39],
        0.1,
        crate::common::Within::absolute(1e-4),
        "the mean square is that of the small ones",
    );
    let small = 0.1 * 1e-2 / 32f64.sqrt();
    assert_near(steps_of_b[39], small, crate::common::Within::relative(1e-6), "the maximum is that of the large one");
}

/// A state from a version without AMSGrad counts as a state without it.
#[test]
fn states_without_amsgrad_load() {
    let (mut old, mut model) = (Adam::new(0.1), Model::<f64>::new());
    model.train(&mut old, 1..=3);
    let mut state = old.state();
    state.settings.retain(|(name, _)| name != "amsgrad");
    let (mut resumed, mut copy) = (Adam::new(0.1), model.clone());
    resumed.load_state(&model, &state).unwrap();
    assert_eq!(resumed.state(), old.state());
    model.train(&mut old, 4..=5);
    copy.train(&mut resumed, 4..=5);
    assert_eq!(bits(&copy), bits(&model));
    let error = Adam::new(0.1).amsgrad().load_state(&model, &state).unwrap_err();
    assert_eq!(error, OptimizerStateError::Setting { name: "amsgrad".into(), expected: 1.0, got: None });
    assert_eq!(error.to_string(), "the state has no amsgrad, which is 1 here");
    // Other settings must be there.
    state.settings.retain(|(name, _)| name != "eps");
    assert!(matches!(resumed.load_state(&model, &state), Err(OptimizerStateError::Setting { .. })));
}

#[test]
fn a_maximum_is_neither_added_nor_dropped() {
    use OptimizerStateError::{MissingTensor, Setting, UnexpectedTensor};
    let mut model = Model::<f64>::new();
    let (mut plain, mut amsgrad) = (AdamW::new(0.1), AdamW::new(0.1).amsgrad());
    model.train(&mut plain, 1..=2);
    model.train(&mut amsgrad, 1..=3);
    let (of_plain, of_amsgrad) = (plain.state(), amsgrad.state());
    for (error, expected, got) in [
        (amsgrad.load_state(&model, &of_plain), 1.0, Some(0.0)),
        (plain.load_state(&model, &of_amsgrad), 0.0, Some(1.0)),
    ] {
        assert_eq!(error, Err(Setting { name: "amsgrad".into(), expected, got }));
    }
    let error = amsgrad.load_moments(&model, &of_plain).unwrap_err();
    assert_eq!(error, MissingTensor { name: "max_exp_avg_sq.w".into() });
    let error = plain.load_moments(&model, &of_amsgrad).unwrap_err();
    assert_eq!(error, UnexpectedTensor { name: "max_exp_avg_sq.w".into() });
    let mut with_momentum = Sgd::new(0.1).momentum(0.9);
    let mut without = Sgd::new(0.1);
    model.train(&mut without, 1..=2);
    let error = with_momentum.load_moments(&model, &without.state()).unwrap_err();
    assert_eq!(error, MissingTensor { name: "momentum_buffer.w".into() });
    assert_eq!((plain.state(), amsgrad.state()), (of_plain, of_amsgrad), "a refused state left a trace");
}

#[test]
fn a_product_that_is_none_is_refused() {
    let (mut nadam, mut model) = (NAdam::new(0.1), Model::<f64>::new());
    model.train(&mut nadam, 1..=2);
    let good = nadam.state();
    assert_eq!(good.tensors.names()[4..], ["mu_product.w", "mu_product.b"]);
    assert_eq!(good.tensors.shape(4), [0; 0]);
    for bad in [1.0, 2.0, -0.1, f64::NAN, f64::INFINITY] {
        let state = edited(&good, |(name, _, values)| {
            if name == "mu_product.b" {
                values[0] = bad;
            }
        });
        let error = nadam.load_state(&model, &state).unwrap_err();
        assert!(matches!(&error, OptimizerStateError::Product { name, .. } if name == "mu_product.b"), "{error}");
        let says = format!("mu_product.b is {bad} in the state, and no product of momentums, which is in 0..1");
        assert_eq!(error.to_string(), says);
    }
    let one = edited(&good, |(name, shape, _)| {
        if name == "mu_product.w" {
            *shape = vec![1];
        }
    });
    let error = nadam.load_state(&model, &one).unwrap_err();
    let want = OptimizerStateError::Shape { name: "mu_product.w".into(), expected: vec![], got: vec![1] };
    assert_eq!(error, want);
    assert_eq!(nadam.state(), good, "a refused state left a trace");
}

/// Without averages of the gradient, NAdam does not differ from Adam.
#[test]
fn nadam_without_momentum_is_adam() {
    for decay in [0.0, 0.3] {
        let (mut a, mut b) = (Model::<f64>::new(), Model::<f64>::new());
        a.train(&mut Adam::new(0.05).betas(0.0, 0.9).weight_decay(decay), 1..=20);
        b.train(&mut NAdam::new(0.05).betas(0.0, 0.9).weight_decay(decay), 1..=20);
        assert_eq!(bits(&a), bits(&b));
        let (mut a, mut b) = (Model::<f64>::new(), Model::<f64>::new());
        a.train(&mut AdamW::new(0.05).betas(0.0, 0.9).weight_decay(decay), 1..=20);
        let decoupled = NAdam::new(0.05).betas(0.0, 0.9).decoupled_weight_decay().weight_decay(decay);
        b.train(&mut { decoupled }, 1..=20);
        assert_eq!(bits(&a), bits(&b));
    }
}

/// Loaded moments continue under all settings of the optimizer that loads them, as if each setting of the state had been changed.
#[test]
fn moments_go_on_with_other_settings() {
    for (case, (what, mut first)) in golden()["optimizers"].as_array().expect("cases").iter().zip(all::<f64>()) {
        let mut other = case.clone();
        let settings = other["settings"].as_object_mut().expect("settings");
        settings.insert("lr".into(), 0.007.into());
        settings.insert("weight_decay".into(), 0.033.into());
        if settings.contains_key("betas") {
            settings.insert("betas".into(), vec![0.6, 0.7].into());
        }
        if settings.contains_key("eps") {
            settings.insert("eps".into(), 0.02.into());
        }
        let mut model = Model::<f64>::new();
        model.train(&mut *first, 1..=4);
        let state = first.state();
        let mut resumed = optimizer::<f64>(&other);
        let own = resumed.state().settings;
        assert!(resumed.load_state(&model, &state).is_err(), "{what}");
        resumed.load_moments(&model, &state).unwrap_or_else(|error| panic!("{what}: {error}"));
        let now = resumed.state();
        assert_eq!((now.steps, &now.settings, &now.tensors), (4, &own, &state.tensors), "{what}");

        let changed = own.iter().fold(state, |state, (name, value)| state.with_setting(name, *value));
        let mut expected = optimizer::<f64>(&other);
        expected.load_state(&model, &changed).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut copy = model.clone();
        model.train(&mut *resumed, 5..=9);
        copy.train(&mut *expected, 5..=9);
        assert_eq!(bits(&model), bits(&copy), "{what}");
        assert_eq!(resumed.state(), expected.state(), "{what}");
    }
}

/// The step after loading, by the formula.
#[test]
fn a_step_with_other_settings_is_the_formulas() {
    let (mut first, mut p) = (AdamW::new(0.1), arr1(&[1.0, -2.0]));
    let gradients = [arr1(&[0.5, 2.0]), arr1(&[-1.0, 0.25])];
    first.step(&mut p, &gradients[0]);
    let mut resumed = AdamW::new(0.02).betas(0.7, 0.8).eps(1e-3).weight_decay(0.5);
    resumed.load_moments(&p, &first.state()).unwrap();
    let before = p.clone();
    resumed.step(&mut p, &gradients[1]);
    for k in 0..2 {
        let (g, h) = (gradients[0][k], gradients[1][k]);
        let (m, v) = (0.7 * (0.1 * g) + 0.3 * h, 0.8 * (0.001 * g * g) + 0.2 * h * h);
        let (m, v) = (m / (1.0 - 0.7 * 0.7), v / (1.0 - 0.8 * 0.8));
        let want = before[k] * (1.0 - 0.02 * 0.5) - 0.02 * m / (f64::sqrt(v) + 1e-3);
        assert_near(p[k], want, super::NEAR, &format!("element {k}"));
    }
}

#[test]
fn moments_of_other_kinds_and_shapes_are_refused() {
    let mut model = Model::<f64>::new();
    let mut adam = Adam::new(0.1);
    model.train(&mut adam, 1..=2);
    let state = adam.state();
    let mut adamw = AdamW::new(0.3);
    let before = adamw.state();
    let error = adamw.load_moments(&model, &state).unwrap_err();
    assert_eq!(error, OptimizerStateError::Kind { expected: "AdamW".into(), got: "Adam".into() });
    let turned = edited(&state, |(name, shape, _)| {
        if name == "exp_avg.w" {
            shape.reverse();
        }
    });
    let error = adam.load_moments(&model, &turned).unwrap_err();
    let want = OptimizerStateError::Shape { name: "exp_avg.w".into(), expected: vec![3, 2], got: vec![2, 3] };
    assert_eq!(error, want);
    assert_eq!((adamw.state(), adam.state()), (before, state), "a refused state left a trace");
    let message = panic_of(|| adam.amsgrad());
    assert_eq!(message, "Adam: settings are chosen before the first step; 2 were taken");
}
