//! Optimizers, parameter groups, schedules and gradient accumulation: PyTorch's numbers, laws, states that are restored to the bit,
//! refusals, and no allocation.

mod averages;
mod clipped;
mod moments;
#[cfg(feature = "safetensors")]
mod schedules;

use gradflow::ndarray::{Array, Array1, Array2, Array3, Axis, Dimension, s};
use gradflow::rand::RngExt;
use gradflow::{
    Float, Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    author::NamedTensors,
    clip::{ClipAdaptive, ClipNorm, NonFinite, NormSummary},
    layers::{Embedding, LayerNorm, Linear},
    loss::{Loss, MeanSquaredError, SoftmaxCrossEntropy},
    optim::{
        Adagrad, Adam, AdamW, GradAccumulator, Group, NAdam, Optimizer, OptimizerState, OptimizerStateError,
        ParameterGroups, RmsProp, Schedule, Select, Sgd,
    },
    parameters,
    recurrent::{GruCell, LstmCell},
};
use serde_json::Value;

use crate::common::{Within, allocations, assert_all_near, assert_says, evaluate, panic_of, rng};

const NEAR: Within = Within::either(1e-12);

/// Number of steps in `optimizers.py`, unless a case has its own.
const STEPS: usize = 7;

#[derive(Clone, Debug, PartialEq)]
struct Model<F> {
    w: Array2<F>,
    b: Array1<F>,
}
parameters! { impl<F: Float> Tensors<F> for Model<F> { w, b } }

impl<F: Float> Model<F> {
    /// As in `optimizers.py`.
    fn new() -> Self {
        let w = Array2::from_shape_fn((3, 2), |(i, j)| F::of((1.0 + (2 * i + j) as f64).cos()));
        Model { w, b: Array1::from_shape_fn(3, |k| F::of(0.5 - 0.3 * k as f64)) }
    }

    /// As in `optimizers.py`.
    fn gradient(&self, step: usize) -> Self {
        fn of<F: Float, D: Dimension>(p: &Array<F, D>, step: usize, offset: f64) -> Array<F, D> {
            let mut gradient = p.clone();
            for (k, value) in gradient.iter_mut().enumerate() {
                *value = F::of(0.3 * value.widen() + (1.3 * step as f64 + 0.7 * k as f64 + offset).sin());
            }
            gradient
        }
        Model { w: of(&self.w, step, 0.0), b: of(&self.b, step, 0.4) }
    }

    fn train(&mut self, optimizer: &mut dyn Optimizer<F>, steps: std::ops::RangeInclusive<usize>) {
        for step in steps {
            let gradient = self.gradient(step);
            optimizer.step(self, &gradient);
        }
    }

    fn elements(&self) -> Vec<F> {
        self.w.iter().chain(&self.b).copied().collect()
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
}

#[track_caller]
fn golden() -> Value {
    serde_json::from_str(include_str!("optimizers.json")).expect("a golden file")
}

/// The optimizer of a golden case.
fn optimizer<F: Float>(case: &Value) -> Box<dyn Optimizer<F>> {
    let name = case["optimizer"].as_str().expect("a name");
    let settings = &case["settings"];
    let get = |key: &str| settings.get(key).and_then(Value::as_f64);
    let rate = get("lr").expect("a learning rate");
    let mut known = vec!["lr"];
    let is_on = |key: &str| settings.get(key).and_then(Value::as_bool) == Some(true);
    macro_rules! build {
        ($optimizer:expr; $($setting:ident),*) => {{
            let mut optimizer = $optimizer;
            $(
                known.push(stringify!($setting));
                if let Some(value) = get(stringify!($setting)) {
                    optimizer = optimizer.$setting(value);
                }
            )*
            optimizer
        }};
    }
    macro_rules! adam {
        ($adam:ident; $switch:ident $(, $setting:ident)*) => {{
            let mut adam = build!($adam::new(rate); eps, weight_decay $(, $setting)*);
            known.extend(["betas", stringify!($switch)]);
            if let Some(betas) = settings.get("betas").map(numbers) {
                adam = adam.betas(betas[0], betas[1]);
            }
            Box::new(if is_on(stringify!($switch)) { adam.$switch() } else { adam })
        }};
    }
    let optimizer: Box<dyn Optimizer<F>> = match name {
        "Sgd" => {
            let sgd = build!(Sgd::new(rate); momentum, dampening, weight_decay);
            known.push("nesterov");
            Box::new(if is_on("nesterov") { sgd.nesterov() } else { sgd })
        }
        "Adam" => adam!(Adam; amsgrad),
        "AdamW" => adam!(AdamW; amsgrad),
        "NAdam" => adam!(NAdam; decoupled_weight_decay, momentum_decay),
        "RmsProp" => {
            let rms_prop = build!(RmsProp::new(rate); alpha, eps, momentum, weight_decay);
            known.push("centered");
            Box::new(if is_on("centered") { rms_prop.centered() } else { rms_prop })
        }
        "Adagrad" => Box::new(build!(Adagrad::new(rate); lr_decay, initial_accumulator_value, eps, weight_decay)),
        name => panic!("unknown optimizer {name}"),
    };
    for key in settings.as_object().expect("settings").keys() {
        assert!(known.contains(&key.as_str()), "{name}: unknown setting {key}");
    }
    optimizer
}

/// An optimizer of each kind and variant, in `F`, with its description.
fn all<F: Float>() -> Vec<(String, Box<dyn Optimizer<F>>)> {
    let golden = golden();
    let cases = golden["optimizers"].as_array().expect("cases").iter().filter(|case| case.get("steps").is_none());
    cases.map(|case| (format!("{} {}", case["optimizer"], case["settings"]), optimizer(case))).collect()
}

#[test]
fn optimizers_are_pytorchs() {
    let golden = golden();
    let cases = golden["optimizers"].as_array().expect("cases");
    assert!(cases.len() >= 31);
    let mut largest = 0.0;
    let mut compare = |got: &[f64], want: &[f64], what: &str| {
        assert_all_near(got, want, NEAR, what);
        for (got, want) in got.iter().zip(want) {
            largest = f64::max(largest, (got - want).abs() / want.abs().max(1.0));
        }
    };
    for case in cases {
        let steps = case.get("steps").map_or(STEPS, |steps| steps.as_u64().expect("steps") as usize);
        let (what, mut optimizer) = (case["settings"].to_string(), optimizer::<f64>(case));
        let mut model = Model::new();
        model.train(&mut *optimizer, 1..=steps);
        let what = format!("{} {what}, {steps} steps", case["optimizer"]);
        compare(&model.elements(), &numbers(&case["values"]), &what);
        let (state, moments) = (optimizer.state(), case["moments"].as_object().expect("moments"));
        assert_eq!(state.tensors.count(), moments.len(), "{what}");
        for (name, want) in moments {
            let (_, got) = state.tensors.get(name).unwrap_or_else(|| panic!("{what}: no {name}"));
            compare(got, &numbers(want), &format!("{what}: {name}"));
        }
        assert_eq!(state.steps, steps as u64);
    }
    println!("{} optimizers: largest difference {largest:.1e}", cases.len());
}

/// The same code in f32, to the precision of f32.
#[test]
fn single_precision_follows_double() {
    let steps_of = |(mut optimizer, mut model): (Box<dyn Optimizer<f64>>, Model<f64>)| {
        model.train(&mut *optimizer, 1..=STEPS);
        model.elements()
    };
    for ((what, double), (_, mut single)) in all::<f64>().into_iter().zip(all::<f32>()) {
        let want = steps_of((double, Model::new()));
        let mut model = Model::<f32>::new();
        model.train(&mut *single, 1..=STEPS);
        for (got, want) in model.elements().iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{what}: {got} for {want}");
        }
    }
}

/// Rounding makes the variance of equal gradients negative, and PyTorch's next step is NaN then.
#[test]
fn a_centered_mean_square_never_gives_nan_of_its_own() {
    let mut optimizer = RmsProp::new(1e-9).alpha(0.5).centered();
    let mut p = Array1::<f32>::zeros(64);
    let gradient = Array1::from_shape_fn(64, |k| 0.1 + 0.37 * k as f32);
    for _ in 0..300 {
        optimizer.step(&mut p, &gradient);
    }
    assert!(p.iter().all(|p| p.is_finite()), "{p}");
    let state = optimizer.state();
    let (v, m) = (state.tensors.get("square_avg").unwrap().1, state.tensors.get("grad_avg").unwrap().1);
    assert!(v.iter().zip(m).any(|(v, m)| v - m * m < 0.0), "nothing was rounded below zero");
    // A NaN from outside stays.
    let pass = ClipNorm::new(1.0).non_finite(NonFinite::Pass);
    optimizer.step_clipped(&mut p, &Array1::from_elem(64, f32::NAN), pass).unwrap();
    assert!(p.iter().all(|p| p.is_nan()));
}

/// A NaN or an infinity would stay in the weights, so it is reported before it gets there.
#[test]
fn a_gradient_that_is_not_finite_reaches_no_weight() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for mut optimizer in with_groups::<f32>(&ParameterGroups::new()) {
            // After the first of the pieces in which a tensor is processed.
            let mut model = (Array1::<f32>::ones(5), Array1::<f32>::ones(20_000));
            let mut gradient = model.clone();
            gradient.1[19_000] = bad;
            let message = panic_of(|| optimizer.step(&mut model, &gradient));
            let kind = optimizer.state().kind;
            assert_says(&message, &[&kind, "step", "the gradient is not finite (norm", "first in 1", "step_clipped"]);
            assert!(model.1.iter().all(|value| value.is_finite()), "{kind}");
        }
    }
}

/// A tensor that is processed in pieces gets the same steps as its elements would alone.
#[test]
fn large_tensors_are_stepped_as_small_ones() {
    let gradient = |step: usize| Array1::from_shape_fn(20_001, |k| ((k * step) as f32).sin());
    for (mut large, mut small) in
        with_groups::<f32>(&ParameterGroups::new()).into_iter().zip(with_groups(&ParameterGroups::new()))
    {
        let (mut whole, at) = (gradient(7), [0, 8191, 8192, 16_384, 20_000]);
        let mut some = Array1::from_iter(at.map(|k| whole[k]));
        for step in 1..4 {
            let gradient = gradient(step);
            large.step(&mut whole, &gradient);
            small.step(&mut some, &Array1::from_iter(at.map(|k| gradient[k])));
        }
        assert_eq!(some.to_vec(), at.map(|k| whole[k]), "{}", large.state().kind);
    }
}

// ---- states ----

#[test]
fn a_restored_optimizer_continues_to_the_bit() {
    fn check<F: Float>() {
        for ((what, mut whole), (_, mut resumed)) in all::<F>().into_iter().zip(all::<F>()) {
            let mut model = Model::<F>::new();
            assert_eq!(whole.state().tensors.count(), 0, "{what}: nothing is remembered before the first step");
            whole.set_learning_rate(0.03);
            model.train(&mut *whole, 1..=3);
            let (state, mut copy) = (whole.state(), model.clone());
            assert_eq!((state.steps, state.setting("lr")), (3, Some(0.03)), "{what}");
            resumed.load_state(&copy, &state).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(resumed.state(), state, "{what}");
            model.train(&mut *whole, 4..=9);
            copy.train(&mut *resumed, 4..=9);
            let bits = |model: &Model<F>| model.elements().iter().map(|value| value.bits()).collect::<Vec<_>>();
            assert_eq!(bits(&copy), bits(&model), "{what}");
            assert_eq!(resumed.state(), whole.state(), "{what}");
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_state_before_the_first_step_restores_too() {
    let (mut used, mut model) = (AdamW::new(0.1), Model::<f64>::new());
    let fresh = used.state();
    model.train(&mut used, 1..=2);
    used.load_state(&model, &fresh).unwrap();
    assert_eq!(used.state(), fresh);
    let (mut a, mut b) = (model.clone(), model);
    a.train(&mut used, 1..=3);
    b.train(&mut AdamW::new(0.1), 1..=3);
    assert_eq!(a, b);
}

#[test]
fn states_that_do_not_fit_are_refused_and_change_nothing() {
    use OptimizerStateError::*;
    let (mut optimizer, mut model) = (AdamW::new(0.1), Model::<f64>::new());
    model.train(&mut optimizer, 1..=2);
    let good = optimizer.state();
    let mut refuses = |change: &dyn Fn(&mut OptimizerState<f64>), want: OptimizerStateError, says: &str| {
        let mut state = good.clone();
        change(&mut state);
        let error = optimizer.load_state(&model, &state).unwrap_err();
        assert_eq!(error, want);
        assert_eq!(error.to_string(), says);
        assert_eq!(optimizer.state(), good, "a refused state left a trace");
    };
    fn set(state: &mut OptimizerState<f64>, name: &str, value: f64) {
        state.settings.iter_mut().find(|(setting, _)| setting == name).unwrap().1 = value;
    }
    fn triples(tensors: &NamedTensors<f64>) -> Vec<(String, Vec<usize>, Vec<f64>)> {
        (0..tensors.count()).map(|i| (tensors.name(i), tensors.shape(i).to_vec(), tensors.values(i).to_vec())).collect()
    }
    fn edit(state: &mut OptimizerState<f64>, change: impl Fn(&mut Vec<(String, Vec<usize>, Vec<f64>)>)) {
        let mut list = triples(&state.tensors);
        change(&mut list);
        state.tensors = NamedTensors::new(list);
    }

    let kind = Kind { expected: "AdamW".into(), got: "Adam".into() };
    refuses(&|state| state.kind = "Adam".into(), kind, "the state is of Adam, not of AdamW");
    refuses(&|state| set(state, "lr", -1.0), LearningRate { got: Some(-1.0) }, "the state's learning rate is -1");
    refuses(&|state| state.settings.clear(), LearningRate { got: None }, "the state has no learning rate");
    let steps = |got: u64| (Steps { got }, format!("the state has taken {got} steps, more than any training can"));
    for count in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1] {
        let (error, says) = steps(count);
        refuses(&|state| state.steps = count, error, &says);
    }
    let setting = |got| Setting { name: "beta2".into(), expected: 0.999, got };
    let meant = "; if that is meant, `Optimizer::load_moments` goes on with the settings here";
    let says = format!("beta2 is 0.9 in the state and 0.999 here{meant}");
    refuses(&|state| set(state, "beta2", 0.9), setting(Some(0.9)), &says);
    let forget = |state: &mut OptimizerState<f64>| state.settings.retain(|(name, _)| name != "beta2");
    refuses(&forget, setting(None), "the state has no beta2, which is 0.999 here");
    let missing = || MissingTensor { name: "exp_avg_sq.b".into() };
    refuses(&|state| edit(state, |list| drop(list.pop())), missing(), "the state has no exp_avg_sq.b");
    let unexpected = |name: &str| UnexpectedTensor { name: name.into() };
    let says = "the state has exp_avg.w, which the model has no use for";
    refuses(&|state| edit(state, |list| list.push(list[0].clone())), unexpected("exp_avg.w"), says);
    refuses(&|state| state.steps = 0, unexpected("exp_avg.w"), says);
    let turn = |state: &mut OptimizerState<f64>| edit(state, |list| list[0].1 = vec![2, 3]);
    let shape = Shape { name: "exp_avg.w".into(), expected: vec![3, 2], got: vec![2, 3] };
    refuses(&turn, shape, "exp_avg.w is [2, 3] in the state and [3, 2] in the model");
}

// ---- groups ----

#[test]
fn groups_are_pytorchs() {
    let groups =
        ParameterGroups::new().add(Select::suffix("b"), Group::new().learning_rate_factor(0.5).weight_decay(0.0));
    let mut model = Model::new();
    model.train(&mut AdamW::new(0.05).weight_decay(0.2).groups(groups), 1..=STEPS);
    assert_all_near(&model.elements(), &numbers(&golden()["groups"]), NEAR, "groups");
}

fn with_groups<F: Float>(groups: &ParameterGroups) -> Vec<Box<dyn Optimizer<F>>> {
    let groups = || groups.clone();
    vec![
        Box::new(Sgd::new(0.1).weight_decay(0.3).groups(groups())),
        Box::new(Sgd::new(0.1).momentum(0.9).weight_decay(0.3).groups(groups())),
        Box::new(Adam::new(0.1).weight_decay(0.3).groups(groups())),
        Box::new(AdamW::new(0.1).weight_decay(0.3).groups(groups())),
        Box::new(AdamW::new(0.1).betas(0.9, 0.5).amsgrad().weight_decay(0.3).groups(groups())),
        Box::new(NAdam::new(0.1).weight_decay(0.3).groups(groups())),
        Box::new(NAdam::new(0.1).decoupled_weight_decay().weight_decay(0.3).groups(groups())),
        Box::new(RmsProp::new(0.1).momentum(0.5).centered().weight_decay(0.3).groups(groups())),
        Box::new(Adagrad::new(0.1).weight_decay(0.3).groups(groups())),
    ]
}

#[test]
fn frozen_parameters_do_not_change_and_have_no_moments() {
    let frozen = ParameterGroups::new().add(Select::prefix("w"), Group::new().frozen());
    for mut optimizer in with_groups::<f64>(&frozen) {
        let (before, mut model) = (Model::<f64>::new(), Model::new());
        model.train(&mut *optimizer, 1..=5);
        let kind = optimizer.state().kind;
        assert_eq!(model.w, before.w, "{kind}");
        assert!(model.b.iter().zip(&before.b).all(|(a, b)| a != b), "{kind}");
        assert!(optimizer.state().tensors.names().iter().all(|name| name.ends_with(".b")), "{kind}");
        // A frozen parameter's gradient is not even read.
        let (mut gradient, w) = (model.gradient(6), model.w.clone());
        gradient.w.fill(f64::NAN);
        optimizer.step(&mut model, &gradient);
        assert!(model.w == w && model.b.iter().all(|value| value.is_finite()), "{kind}");
    }
}

#[test]
fn what_is_frozen_is_part_of_a_state() {
    let frozen = || ParameterGroups::new().add(Select::prefix("w"), Group::new().frozen());
    let (mut part, mut model) = (AdamW::new(0.1).groups(frozen()), Model::<f64>::new());
    model.train(&mut part, 1..=2);
    AdamW::new(0.1).groups(frozen()).load_state(&model, &part.state()).unwrap();
    let error = AdamW::new(0.1).load_state(&model, &part.state()).unwrap_err();
    assert_eq!(error, OptimizerStateError::MissingTensor { name: "exp_avg.w".into() });
}

#[test]
fn without_decay_a_zero_gradient_changes_nothing() {
    let rng = &mut rng(0);
    let mut model = (LstmCell::<f64>::new(3, 4, rng), LayerNorm::new(4), Linear::new(4, 2, rng));
    // Parameters that neither decay nor gradient moves must stay as they are, so they must not be zero from the start.
    for i in 0..model.count() {
        model.tensor_mut(i).iter_mut().for_each(|value| *value = rng.random_range(0.5..1.0));
    }
    for mut optimizer in with_groups(&ParameterGroups::new().add(Select::Vectors, Group::new().weight_decay(0.0))) {
        let (before, grad) = (model.clone(), model.zeros_like());
        optimizer.step(&mut model, &grad);
        for i in 0..model.count() {
            let changed = model.values(i) != before.values(i);
            assert_eq!(changed, model.shape(i).len() == 2, "{}: {}", optimizer.state().kind, model.name(i));
        }
    }
}

#[test]
fn rules_add_up() {
    let groups = ParameterGroups::new()
        .add(Select::contains("w"), Group::new().learning_rate_factor(0.5).weight_decay(1.0))
        .add(Select::matching("matrices", |_, shape| shape.len() == 2), Group::new().learning_rate_factor(0.5))
        .add(Select::prefix("w"), Group::new().weight_decay(2.0));
    let mut model = Model::<f64> { w: Array2::ones((3, 2)), b: Array1::ones(3) };
    let gradient = Model { w: Array2::ones((3, 2)), b: Array1::ones(3) };
    Sgd::new(0.1).groups(groups).step(&mut model, &gradient);
    assert_eq!(model.w, Array2::from_elem((3, 2), 1.0 - 0.1 * 0.25 * (1.0 + 2.0)));
    assert_eq!(model.b, Array1::from_elem(3, 1.0 - 0.1));
}

#[test]
fn a_rule_that_fits_nothing_is_named() {
    for (select, says) in [
        (Select::prefix("encoder."), "prefix \"encoder.\""),
        (Select::suffix("bais"), "suffix \"bais\""),
        (Select::contains("norm"), "part \"norm\""),
        (Select::matching("cubes", |_, shape| shape.len() == 3), "cubes"),
    ] {
        let groups = ParameterGroups::new().add(Select::Vectors, Group::new()).add(select, Group::new());
        let (mut model, gradient) = (Model::<f64>::new(), Model::new());
        let message = panic_of(|| AdamW::new(0.1).groups(groups).step(&mut model, &gradient));
        assert_eq!(message, format!("AdamW: groups: {says}: fits no parameter of [\"w\", \"b\"]"));
    }
}

// ---- schedules ----

#[test]
fn schedules_are_pytorchs() {
    let golden = golden();
    let cases = golden["schedules"].as_object().expect("schedules");
    assert!(cases.len() >= 8);
    for (text, want) in cases {
        let schedule: Schedule = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let want = numbers(want);
        let got: Vec<_> = (0..want.len()).map(|step| schedule.learning_rate(step as u64)).collect();
        assert_all_near(&got, &want, NEAR, text);
        assert_eq!(schedule.to_string(), *text);
    }
}

#[test]
fn schedules_begin_and_end_where_they_say() {
    assert_eq!(Schedule::constant(0.5).learning_rate(u64::MAX), 0.5);
    let cosine = Schedule::cosine(0.5, 100, 0.125);
    assert_eq!((cosine.learning_rate(0), cosine.learning_rate(100)), (0.5, 0.125));
    assert_eq!(cosine.learning_rate(7), cosine.learning_rate(2_000_000_007), "a whole number of periods later");
    let cycle = Schedule::one_cycle(0.5, 100);
    for step in [99, 100, 10_000, u64::MAX] {
        assert!((cycle.learning_rate(step) - 0.5 / 25.0 / 1e4).abs() < 1e-18, "step {step}");
    }
    let warm = Schedule::one_cycle(0.5, 100).warm_up(10, 0.0);
    assert_eq!(warm.learning_rate(0), 0.0);
    assert_eq!(warm.learning_rate(10), cycle.learning_rate(0));
    assert_eq!(warm.learning_rate(41), cycle.learning_rate(31));
    assert_eq!(Schedule::step(0.5, 10, 0.0).learning_rate(10), 0.0);
}

/// Numbers without a short decimal form survive the round trip to the bit.
#[test]
fn a_schedules_text_is_exact() {
    let rng = &mut rng(3);
    for _ in 0..200 {
        let mut number = || 10f64.powf(rng.random_range(-12.0..3.0));
        let (a, b, c) = (number(), number(), number());
        let (fraction, steps) = (rng.random_range(0.0..1.0), rng.random_range(2..=u64::MAX));
        for schedule in [
            Schedule::constant(a),
            Schedule::step(a, steps, b),
            Schedule::cosine(a, steps, b),
            Schedule::one_cycle_with(a, steps, fraction, b, c),
        ] {
            for schedule in [schedule.clone(), schedule.warm_up(steps, fraction)] {
                assert_eq!(schedule.to_string().parse(), Ok(schedule));
            }
        }
    }
}

#[test]
fn texts_that_are_no_schedule_are_refused() {
    for text in [
        "",
        "constant",
        "constant()",
        "constant(0.1",
        "constant(0.1) ",
        "constant(-0.1)",
        "constant(NaN)",
        "constant(inf)",
        "constant(0.1, 2)",
        "step(0.1, 0, 0.5)",
        "step(0.1, 1.5, 0.5)",
        "cosine(0.1, 0, 0.0)",
        "one_cycle(0.1, 1, 0.3, 25.0, 10000.0)",
        "one_cycle(0.1, 10, 1.0, 25.0, 10000.0)",
        "one_cycle(0.1, 10, 0.3, 0.0, 10000.0)",
        "warm_up(5, 0.1)",
        "warm_up(5, 0.1) ",
        "warm_up(0, 0.1) constant(0.1)",
        "warm_up(5, 0.1) warm_up(5, 0.1) constant(0.1)",
    ] {
        let error = text.parse::<Schedule>().expect_err(text);
        assert_eq!(error.to_string(), format!("no schedule: {text:?}"));
    }
}

// ---- accumulation ----

/// Sequences `at` of a batch, time-major.
fn part<F: Float>(x: &Array3<F>, at: std::ops::Range<usize>) -> Array3<F> {
    x.slice_axis(Axis(1), at.into()).as_standard_layout().to_owned()
}

#[test]
fn micro_batches_add_up_to_the_whole_batch() {
    let rng = &mut rng(4);
    let model = (GruCell::<f64>::new(3, 5, rng), Linear::new(5, 4, rng));
    let x = Array3::from_shape_simple_fn((6, 8, 3), || rng.random_range(-1.0..1.0));
    let target = Array3::from_shape_simple_fn((6, 8, 4), || rng.random_range(-1.0..1.0));
    let ids = Array2::from_shape_simple_fn((6, 8), || rng.random_range(0..4));
    let lengths = [6, 1, 4, 2, 5, 6, 3, 1];
    // Batches of different sizes and, because of their lengths, of very different weights.
    let parts = [0..1, 1..4, 4..6, 6..8];
    let mut dy = Array3::default((0, 0, 0));
    for classes in [false, true] {
        let loss_of = |mean: bool, y: &Array3<f64>, at: std::ops::Range<usize>, dy: &mut Array3<f64>| {
            let lengths = Some(&lengths[at.clone()]);
            match (classes, mean) {
                (true, true) => evaluate(&SoftmaxCrossEntropy::new(), y, &ids.slice(s![.., at]), lengths, dy),
                (true, false) => evaluate(&SoftmaxCrossEntropy::new().sum(), y, &ids.slice(s![.., at]), lengths, dy),
                (false, true) => evaluate(&MeanSquaredError::new(), y, &part(&target, at), lengths, dy),
                (false, false) => evaluate(&MeanSquaredError::new().sum(), y, &part(&target, at), lengths, dy),
            }
        };
        let (mut cache, mut want) = (model.cache(), model.zeros_like());
        let whole = Sequence::from(&x).with_lengths(&lengths).unwrap();
        let mut state = model.zero_state(8);
        let pass = model.pass(whole, &mut state, &mut cache);
        let want_loss = loss_of(true, &pass.output().to_owned(), 0..8, &mut dy);
        pass.backward(&dy, &mut want);

        let mut accumulator = GradAccumulator::new(&model);
        for round in 0..2 {
            for at in parts.clone() {
                let (x, mut state) = (part(&x, at.clone()), model.zero_state(at.len()));
                let x = Sequence::from(&x).with_lengths(&lengths[at.clone()]).unwrap();
                let pass = model.pass(x, &mut state, &mut cache);
                let sum = loss_of(false, &pass.output().to_owned(), at, &mut dy);
                let count = x.valid_count() * if classes { 1 } else { 4 };
                accumulator.backward(pass, &dy, sum, count);
            }
            let (loss, grad) = accumulator.mean();
            assert!((loss - want_loss).abs() < 1e-12, "round {round}: {loss} for {want_loss}");
            for i in 0..want.count() {
                assert_all_near(grad.values(i), want.values(i), NEAR, &format!("round {round}: {}", want.name(i)));
            }
        }
    }
    assert!(panic_of(|| GradAccumulator::new(&model).mean().0).contains("no batch"));
}

// ---- refusals ----

#[test]
fn settings_that_make_no_sense_are_refused() {
    macro_rules! refused {
        ($($act:expr, $who:literal, $setting:literal;)*) => {$(
            let message = panic_of(|| $act);
            assert!(message.starts_with(concat!($who, ": ", $setting, ": expected")), "{message}");
        )*};
    }
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        refused! {
            Sgd::<f64>::new(bad), "Sgd", "learning rate";
            Sgd::<f64>::new(0.1).momentum(bad), "Sgd", "momentum";
            Sgd::<f64>::new(0.1).weight_decay(bad), "Sgd", "weight decay";
            Adam::<f64>::new(bad), "Adam", "learning rate";
            Adam::<f64>::new(0.1).eps(bad), "Adam", "eps";
            Adam::<f64>::new(0.1).betas(0.9, bad), "Adam", "beta2";
            Adam::<f64>::new(0.1).weight_decay(bad), "Adam", "weight decay";
            AdamW::<f64>::new(bad), "AdamW", "learning rate";
            AdamW::<f64>::new(0.1).betas(bad, 0.9), "AdamW", "beta1";
            RmsProp::<f64>::new(bad), "RmsProp", "learning rate";
            RmsProp::<f64>::new(0.1).alpha(bad), "RmsProp", "alpha";
            RmsProp::<f64>::new(0.1).eps(bad), "RmsProp", "eps";
            RmsProp::<f64>::new(0.1).momentum(bad), "RmsProp", "momentum";
            RmsProp::<f64>::new(0.1).weight_decay(bad), "RmsProp", "weight decay";
            RmsProp::<f64>::new(0.1).set_learning_rate(bad), "RmsProp", "learning rate";
            NAdam::<f64>::new(bad), "NAdam", "learning rate";
            NAdam::<f64>::new(0.1).betas(bad, 0.9), "NAdam", "beta1";
            NAdam::<f64>::new(0.1).betas(0.9, bad), "NAdam", "beta2";
            NAdam::<f64>::new(0.1).eps(bad), "NAdam", "eps";
            NAdam::<f64>::new(0.1).momentum_decay(bad), "NAdam", "momentum_decay";
            NAdam::<f64>::new(0.1).weight_decay(bad), "NAdam", "weight decay";
            NAdam::<f64>::new(0.1).set_learning_rate(bad), "NAdam", "learning rate";
            Adagrad::<f64>::new(bad), "Adagrad", "learning rate";
            Adagrad::<f64>::new(0.1).lr_decay(bad), "Adagrad", "lr_decay";
            Adagrad::<f64>::new(0.1).initial_accumulator_value(bad), "Adagrad", "initial_accumulator_value";
            Adagrad::<f64>::new(0.1).eps(bad), "Adagrad", "eps";
            Adagrad::<f64>::new(0.1).weight_decay(bad), "Adagrad", "weight decay";
            Adagrad::<f64>::new(0.1).set_learning_rate(bad), "Adagrad", "learning rate";
            Group::new().learning_rate_factor(bad), "Group", "learning rate factor";
            Group::new().weight_decay(bad), "Group", "weight decay";
            Schedule::constant(bad), "Schedule", "learning rate";
            Schedule::step(bad, 1, 0.5), "Schedule", "learning rate";
            Schedule::step(0.1, 1, bad), "Schedule", "factor";
            Schedule::cosine(bad, 1, 0.0), "Schedule", "learning rate";
            Schedule::cosine(0.1, 1, bad), "Schedule", "minimum";
            Schedule::one_cycle(bad, 10), "Schedule", "maximum";
            Schedule::one_cycle_with(0.1, 10, bad, 25.0, 1e4), "Schedule", "pct_start";
            Schedule::one_cycle_with(0.1, 10, 0.3, bad, 1e4), "Schedule", "div_factor";
            Schedule::one_cycle_with(0.1, 10, 0.3, 25.0, bad), "Schedule", "final_div_factor";
            Schedule::constant(0.1).warm_up(5, bad), "Schedule", "start";
        }
    }
    refused! {
        RmsProp::<f64>::new(0.1).alpha(1.0), "RmsProp", "alpha";
        Sgd::<f64>::new(0.1).dampening(f64::NAN), "Sgd", "dampening";
        Schedule::step(0.1, 0, 0.5), "Schedule", "every";
        Schedule::cosine(0.1, 0, 0.0), "Schedule", "steps";
        Schedule::one_cycle(0.1, 1), "Schedule", "steps";
        Schedule::one_cycle_with(0.1, 10, 1.0, 25.0, 1e4), "Schedule", "pct_start";
        Schedule::one_cycle_with(0.1, 10, 0.3, 0.0, 1e4), "Schedule", "div_factor";
        Schedule::constant(0.1).warm_up(0, 0.1), "Schedule", "steps";
    }
    refused! {
        Schedule::constant(1e39), "Schedule", "learning rate";
        Schedule::one_cycle_with(1.0, 10, 0.3, 1e-300, 1e4), "Schedule", "div_factor";
        Schedule::one_cycle_with(1.0, 10, 0.3, 25.0, 1e-300), "Schedule", "final_div_factor";
        Adam::<f64>::new(0.1).eps(0.0), "Adam", "eps";
        RmsProp::<f64>::new(0.1).eps(0.0), "RmsProp", "eps";
        Adagrad::<f64>::new(0.1).eps(0.0), "Adagrad", "eps";
        Adam::<f32>::new(0.1).set_learning_rate(1e39), "Adam", "learning rate";
    }
    // Each of them is a number in f32, but together they are not.
    let groups = || {
        let factor = || Group::new().learning_rate_factor(1e30);
        ParameterGroups::new().add(Select::prefix("w"), factor()).add(Select::prefix("w"), factor())
    };
    let (mut model, grad) = (Model::<f32>::new(), Model::<f32>::new());
    let message = panic_of(|| Sgd::new(0.1).groups(groups()).step(&mut model, &grad));
    assert!(message.starts_with("Sgd: learning rate factors: expected"), "{message}");
    let groups = ParameterGroups::new().add(Select::prefix("w"), Group::new().learning_rate_factor(1e30));
    let message = panic_of(|| Sgd::new(1e30).groups(groups).step(&mut model, &grad));
    assert!(message.starts_with("Sgd: learning rate times its factor: expected"), "{message}");
    assert_eq!(model, Model::new());
    let twice = panic_of(|| Schedule::constant(0.1).warm_up(1, 0.1).warm_up(1, 0.1));
    assert_eq!(twice, "Schedule: warm_up: there is one already");
}

/// At every step, however large, and from every text that can be parsed.
#[test]
fn learning_rates_are_finite() {
    let largest = f64::from(f32::MAX);
    let one_cycle = |steps| Schedule::one_cycle_with(1e-3, steps, 0.999_999_999_999_999_9, 1e-40, 1e-1);
    let schedules = [
        Schedule::constant(largest),
        Schedule::step(0.1, 1, 1.5),
        Schedule::step(0.0, 1, 1.5),
        Schedule::step(largest, 1, 1e300),
        Schedule::step(0.1, 1, 0.0),
        Schedule::cosine(largest, u64::MAX, 0.0),
        Schedule::cosine(0.0, 1, largest),
        one_cycle(2),
        one_cycle(u64::MAX),
        one_cycle(1 << 60),
    ];
    let warm = schedules.clone().map(|schedule| schedule.warm_up(1000, 1e308));
    for schedule in schedules.into_iter().chain(warm) {
        for step in [0, 1, 2, 3, 10, 999, 1000, 5000, 1 << 40, 1 << 53, 1 << 60, u64::MAX - 1, u64::MAX] {
            let rate = schedule.learning_rate(step);
            assert!((0.0..=largest).contains(&rate), "{schedule}, step {step}: {rate:e}");
            Adam::<f32>::new(0.1).set_learning_rate(rate);
        }
        assert_eq!(schedule.to_string().parse(), Ok(schedule));
    }
    assert_eq!(Schedule::step(0.1, 1, 1.5).learning_rate(1_000_000), largest);
    for text in ["constant(1e39)", "step(1e39, 1, 0.5)", "one_cycle(1.0, 10, 0.3, 1e-300, 1.0)", "cosine(0.1, 1, 1e39)"]
    {
        assert!(text.parse::<Schedule>().is_err(), "{text}");
    }
}

#[test]
fn states_that_no_training_has_are_refused() {
    for (what, mut optimizer) in all::<f64>() {
        let mut model = Model::new();
        model.train(&mut *optimizer, 1..=3);
        let good = optimizer.state();
        for steps in [u64::MAX, u64::MAX - 1, (1 << 53) + 1] {
            let state = OptimizerState { steps, ..good.clone() };
            let error = optimizer.load_state(&model, &state).unwrap_err();
            assert_eq!(error, OptimizerStateError::Steps { got: steps }, "{what}");
            assert_eq!(error.to_string(), format!("the state has taken {steps} steps, more than any training can"));
            assert_eq!(optimizer.state(), good, "{what}: changed by a refusal");
        }
        // The last accepted state can make steps, and parameters stay finite.
        let mut old = model.clone();
        optimizer.load_state(&old, &OptimizerState { steps: 1 << 53, ..good.clone() }).unwrap();
        old.train(&mut *optimizer, 1..=2);
        assert!(old.w.iter().chain(&old.b).all(|value| value.is_finite()), "{what}: {old:?}");

        let squares = ["exp_avg_sq", "max_exp_avg_sq", "sum", "square_avg"];
        let names = good.tensors.names();
        for (i, name) in names.iter().enumerate().filter(|(_, name)| squares.iter().any(|s| name.starts_with(s))) {
            let mut state = good.clone();
            state.tensors.tensor_mut(i)[0] = -1e-3;
            let error = optimizer.load_state(&model, &state).unwrap_err();
            assert_eq!(error, OptimizerStateError::NegativeSquare { name: name.clone() }, "{what}");
        }
    }
}

#[test]
fn settings_are_chosen_before_the_first_step() {
    let mut optimizer = Sgd::new(0.1);
    Model::<f64>::new().train(&mut optimizer, 1..=2);
    for change in [
        (|sgd: Sgd<f64>| sgd.momentum(0.9)) as fn(Sgd<f64>) -> Sgd<f64>,
        |sgd| sgd.weight_decay(0.1),
        |sgd| sgd.groups(ParameterGroups::new()),
    ] {
        let message = panic_of(|| change(optimizer.clone()));
        assert_eq!(message, "Sgd: settings are chosen before the first step; 2 were taken");
    }
}

#[test]
fn another_model_is_refused() {
    for (what, mut optimizer) in all::<f64>() {
        let mut model = Model::new();
        model.train(&mut *optimizer, 1..=1);
        let other = || Model { w: Array2::zeros((3, 3)), b: Array1::zeros(3) };
        let message = panic_of(|| optimizer.step(&mut other(), &other()));
        assert!(message.ends_with(": w: expected [3, 2], got [3, 3]"), "{what}: {message}");
        let more = || (Model::new(), Array1::zeros(1));
        let message = panic_of(|| optimizer.step(&mut more(), &more()));
        assert!(message.ends_with(": expected 2 tensors, got 3"), "{what}: {message}");
        assert_eq!(optimizer.state().steps, 1, "{what}: a refused step counts");
    }
}

// ---- allocations ----

#[test]
fn nothing_is_allocated_after_the_first_step() {
    fn check<F: Float>() {
        let groups = ParameterGroups::new()
            .add(Select::Vectors, Group::new().weight_decay(0.0))
            .add(Select::prefix("0."), Group::new().frozen());
        let schedule = Schedule::cosine(0.01, 10, 0.0).warm_up(5, 0.1);
        for mut optimizer in all::<F>().into_iter().map(|(_, optimizer)| optimizer).chain(with_groups(&groups)) {
            let rng = &mut rng(0);
            let mut model = (Embedding::<F>::new(7, 5, rng), LstmCell::new(5, 9, rng), Linear::new(9, 7, rng));
            let ids = Array2::from_shape_fn((6, 4), |(t, b)| (3 * t + b) % 7);
            let (mut loss, mut cache) = (SoftmaxCrossEntropy::new().sum(), model.cache());
            let (mut accumulator, mut norms) = (GradAccumulator::new(&model), NormSummary::new());
            let (mut state, lengths) = (model.zero_state(4), [6, 3, 1, 5]);
            let mut steps = 0;
            let mut step = || {
                for _ in 0..2 {
                    let x = Sequence::from(&ids).with_lengths(&lengths).unwrap();
                    let pass = model.pass(x, &mut state, &mut cache);
                    let sum = loss.of(&pass, &ids);
                    accumulator.backward(pass, sum.gradient(), sum.value(), x.valid_count());
                }
                let (_, grad) = accumulator.mean();
                ClipAdaptive::new(0.1).clip(&model, grad).unwrap();
                ClipNorm::new(0.5).per_tensor().clip(grad).unwrap();
                norms.record(ClipNorm::new(0.1).clip_report(grad).unwrap().norm);
                optimizer.set_learning_rate(schedule.learning_rate(steps));
                optimizer.step(&mut model, grad);
                steps += 1;
            };
            let first = allocations(&mut step);
            let more = allocations(|| (0..20).for_each(|_| step()));
            let kind = optimizer.state().kind;
            assert!(first > 0, "{kind}: the counter counts nothing");
            assert_eq!(more, 0, "{kind}: allocations after the first step");
            assert_eq!(norms.count(), 21);
        }
    }
    check::<f32>();
    check::<f64>();
}
