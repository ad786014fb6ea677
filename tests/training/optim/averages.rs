//! Averages of weights: PyTorch's numbers, weights that are swapped in and restored, states, refusals.

use gradflow::ndarray::{Array1, Array2, arr1};
use gradflow::{
    Float, Tensors, TensorsExt,
    author::NamedTensors,
    layers::Linear,
    optim::{
        AdamW, Group, NonFiniteWeight, OptimizerState, OptimizerStateError, ParameterGroups, Select, Sgd, WeightAverage,
    },
    recurrent::LstmCell,
};
use serde_json::Value;

use super::{Model, NEAR, golden, numbers};
use crate::common::{allocations, assert_all_near, bits, panic_of, rng};

fn average<F: Float>(case: &Value) -> WeightAverage<F> {
    let average = match case["kind"].as_str().expect("a kind") {
        "Ema" => WeightAverage::ema(case["decay"].as_f64().expect("a decay")),
        "Swa" => WeightAverage::swa(),
        kind => panic!("unknown kind {kind}"),
    };
    let average = average.start(case["start"].as_u64().expect("a start"));
    if case["warm_up"].as_bool() == Some(true) { average.warm_up() } else { average }
}

/// An average of each kind, with its description.
fn all<F: Float>() -> Vec<(String, WeightAverage<F>)> {
    let golden = golden();
    let cases = golden["averages"].as_array().expect("averages").iter();
    cases.map(|case| (format!("{}, start {}", case["kind"], case["start"]), average(case))).collect()
}

fn elements<F: Float>(tensors: &dyn Tensors<F>) -> Vec<F> {
    (0..tensors.count()).flat_map(|i| tensors.values(i).to_vec()).collect()
}

#[test]
fn averages_are_pytorchs() {
    let golden = golden();
    let cases = golden["averages"].as_array().expect("averages");
    assert_eq!(cases.len(), 10);
    let (mut compared, mut largest) = (0, 0.0);
    for case in cases {
        let (mut average, mut model, mut sgd) = (average::<f64>(case), Model::new(), Sgd::new(0.1));
        let mut single = self::average::<f32>(case);
        for step in 1..=300 {
            model.train(&mut sgd, step..=step);
            average.update(&model).unwrap();
            let rounded = Model { w: model.w.mapv(|x| x as f32), b: model.b.mapv(|x| x as f32) };
            single.update(&rounded).unwrap();
            let Some(want) = case["at"].get(step.to_string()).map(numbers) else { continue };
            let got = elements(average.tensors().unwrap());
            let what = format!("{} after {step} updates", average.state().kind);
            assert_all_near(&got, &want, NEAR, &what);
            for ((got, want), single) in got.iter().zip(&want).zip(elements(single.tensors().unwrap())) {
                largest = f64::max(largest, (got - want).abs() / want.abs().max(1.0));
                assert!((f64::from(single) - want).abs() < 2e-5, "{what}, f32: {single} for {want}");
                compared += 1;
            }
        }
        assert_eq!((average.updates(), average.tensors().unwrap().names()), (300, vec!["w".into(), "b".into()]));
    }
    println!("{} averages over 300 updates, {compared} numbers: largest difference {largest:.1e}", cases.len());
}

/// By the definition, for known weights.
#[test]
fn the_mean_of_all_is_their_mean() {
    let mut average = WeightAverage::swa().start(3);
    let mut values = Vec::new();
    for k in 0..50 {
        let value = (1.7 * k as f64).sin();
        average.update(&arr1(&[value])).unwrap();
        if k >= 3 {
            values.push(value);
        }
        let want = if k < 3 { value } else { values.iter().sum::<f64>() / values.len() as f64 };
        let got = average.tensors().unwrap().values(0)[0];
        assert!((got - want).abs() < 1e-15, "update {k}: {got} for {want}");
    }
}

#[test]
fn weights_that_are_swapped_come_back_to_the_bit() {
    fn check<F: Float>() {
        for (what, mut average) in all::<F>() {
            let (mut model, mut optimizer) = (Model::<F>::new(), AdamW::new(0.1));
            for step in 1..=60 {
                model.train(&mut optimizer, step..=step);
                average.update(&model).unwrap();
            }
            let (own, averaged) = (bits(&model), bits(average.tensors().unwrap()));
            // Without decay, the average equals the weights.
            assert_eq!(own == averaged, average.state().setting("decay") == Some(0.0), "{what}");
            {
                let swapped = average.swap_in(&mut model);
                assert_eq!(bits(&*swapped), averaged, "{what}");
                assert_eq!(format!("{swapped:?}"), "Averaged { .. }");
            }
            assert_eq!((bits(&model), bits(average.tensors().unwrap())), (own.clone(), averaged.clone()), "{what}");
            // As `dyn`, and after a panic during validation, too.
            {
                let swapped = average.swap_in(&mut model as &mut dyn Tensors<F>);
                assert_eq!(swapped.values(0).iter().map(|x| x.bits()).collect::<Vec<_>>(), averaged[..6], "{what}");
            }
            let message = panic_of(|| {
                let _swapped = average.swap_in(&mut model);
                panic!("a validation that fails");
            });
            assert_eq!(message, "a validation that fails");
            assert_eq!((bits(&model), bits(average.tensors().unwrap())), (own, averaged.clone()), "{what}");
            average.update(&model).unwrap();
            average.copy_to(&mut model);
            assert_eq!(bits(&model), bits(average.tensors().unwrap()), "{what}");
        }
    }
    check::<f32>();
    check::<f64>();
}

/// If a swapped average is leaked, any next call detects it.
#[test]
fn an_average_that_is_leaked_in_the_model_is_noticed() {
    let (mut model, mut average) = (Model::<f64>::new(), WeightAverage::ema(0.5));
    average.update(&model).unwrap();
    std::mem::forget(average.swap_in(&mut model));
    let says = |what: &str| {
        format!("WeightAverage: {what}: the average is still in the model: what swap_in returned was never dropped")
    };
    assert_eq!(panic_of(|| drop(average.update(&model))), says("update"));
    assert_eq!(panic_of(|| drop(average.swap_in(&mut model))), says("swap_in"));
    assert_eq!(panic_of(|| average.copy_to(&mut Model::new())), says("copy_to"));
    assert_eq!(panic_of(|| drop(average.state())), says("tensors"));
}

/// A parameter that the optimizer does not change is not changed by an average: `(1 - w) p + w p` would change it by rounding.
#[test]
fn frozen_parameters_stay_to_the_bit() {
    fn check<F: Float>() {
        for (what, mut average) in all::<F>() {
            let frozen = ParameterGroups::new().add(Select::prefix("w"), Group::new().frozen());
            let (mut model, mut optimizer) = (Model::<F>::new(), Sgd::new(0.1).groups(frozen));
            let w: Vec<u64> = model.w.iter().map(|x| x.bits()).collect();
            for step in 1..=60 {
                model.train(&mut optimizer, step..=step);
                average.update(&model).unwrap();
            }
            let tensors = average.tensors().unwrap();
            assert_eq!(tensors.values(0).iter().map(|x| x.bits()).collect::<Vec<_>>(), w, "{what}");
            assert!(tensors.values(1).iter().all(|x| x.is_finite()), "{what}");
        }
    }
    check::<f32>();
    check::<f64>();
}

/// The difference of two finite weights may be infinite.
#[test]
fn the_largest_weights_average_to_finite_ones() {
    for decay in [0.9, 0.5, 0.1] {
        let (mut average, mut model) = (WeightAverage::ema(decay), arr1(&[f32::MAX, -f32::MAX]));
        for _ in 0..20 {
            average.update(&model).unwrap();
            model = -model;
            let got = average.tensors().unwrap().values(0);
            assert!(got.iter().all(|x| x.is_finite()), "decay {decay}: {got:?}");
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 1, 2] {
            let (mut average, mut model) = (WeightAverage::ema(0.5), Model::<f32>::new());
            for _ in 0..at {
                average.update(&model).unwrap();
            }
            let before = average.state();
            model.b[2] = bad;
            let error = average.update(&model).unwrap_err();
            let NonFiniteWeight { tensor, .. } = &error;
            assert_eq!(tensor, "b");
            assert_eq!(error.to_string(), "the weights are not finite, first in b");
            assert_eq!(average.state(), before, "a refusal left a trace");
        }
    }
    let error = WeightAverage::swa().update(&arr1(&[f64::NAN])).unwrap_err();
    assert_eq!(error.to_string(), "the weights are not finite, first in (unnamed)");
}

#[test]
fn another_model_is_refused_by_name() {
    let mut average = WeightAverage::ema(0.5);
    let mut model = Model::<f64>::new();
    for (says, message) in [
        ("swap_in", panic_of(|| drop(average.swap_in(&mut model)))),
        ("copy_to", panic_of(|| average.copy_to(&mut model))),
    ] {
        assert_eq!(message, format!("WeightAverage: {says}: expected an update before it, got none"));
    }
    average.update(&model).unwrap();
    let before = average.state();
    let mut other = Model { w: Array2::zeros((3, 3)), b: Array1::zeros(3) };
    let mut more = (Model::<f64>::new(), Array1::zeros(1));
    for message in [
        panic_of(|| drop(average.update(&other))),
        panic_of(|| drop(average.swap_in(&mut other))),
        panic_of(|| average.copy_to(&mut other)),
    ] {
        assert_eq!(message, "WeightAverage: w: expected [3, 2], got [3, 3]");
    }
    for message in [panic_of(|| drop(average.update(&more))), panic_of(|| drop(average.swap_in(&mut more)))] {
        assert_eq!(message, "WeightAverage: expected 2 tensors, got 3");
    }
    assert_eq!(average.state(), before, "a refusal left a trace");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for bad in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
        let message = panic_of(|| WeightAverage::<f64>::ema(bad));
        assert_eq!(message, format!("WeightAverage: decay: expected a number in 0..1, got {bad:?}"));
    }
    // In f32 this number is 1, so the average would never move.
    let message = panic_of(|| WeightAverage::<f32>::ema(0.999_999_999));
    assert!(
        message.starts_with("WeightAverage: decay: expected a number in 0..1, got 0.999999999, which"),
        "{message}"
    );
    let message = panic_of(|| WeightAverage::<f64>::swa().warm_up());
    assert_eq!(message, "WeightAverage: warm_up: the mean of all has no decay");
    let mut used = WeightAverage::ema(0.5);
    used.update(&arr1(&[1.0])).unwrap();
    for change in [(|average: WeightAverage<f64>| average.warm_up()) as fn(_) -> _, |average| average.start(3)] {
        let message = panic_of(|| change(used.clone()));
        assert_eq!(message, "WeightAverage: settings are chosen before the first update; 1 were made");
    }
}

#[test]
fn a_restored_average_continues_to_the_bit() {
    fn check<F: Float>() {
        for stop in [0, 1, 5, 25] {
            for ((what, mut whole), (_, mut resumed)) in all::<F>().into_iter().zip(all::<F>()) {
                let (mut model, mut optimizer) = (Model::<F>::new(), Sgd::new(0.1));
                for step in 1..=30 {
                    model.train(&mut optimizer, step..=step);
                    if step == stop + 1 {
                        let state = whole.state();
                        assert_eq!(state.steps, stop as u64, "{what}");
                        resumed.load_state(&model, &state).unwrap_or_else(|error| panic!("{what}: {error}"));
                        assert_eq!(resumed.state(), state, "{what}");
                    }
                    whole.update(&model).unwrap();
                    if step > stop {
                        resumed.update(&model).unwrap();
                    }
                }
                assert_eq!(resumed.state(), whole.state(), "{what}, stopped after {stop}");
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn states_that_do_not_fit_are_refused_and_change_nothing() {
    use OptimizerStateError::*;
    let (mut average, mut model) = (WeightAverage::ema(0.9), Model::<f64>::new());
    average.update(&model).unwrap();
    let good = average.state();
    let settings = [("decay", 0.9), ("warm_up", 0.0), ("start", 0.0)].map(|(name, value)| (name.to_owned(), value));
    assert_eq!((good.kind.as_str(), good.steps, &good.settings[..]), ("Ema", 1, &settings[..]));
    assert_eq!(good.tensors.names(), ["w", "b"]);
    let with = |names: &[&str], turned: bool, value: f64| {
        let list = names.iter().map(|name| match (*name, turned) {
            ("w", false) => ("w".to_owned(), vec![3, 2], vec![value; 6]),
            ("w", true) => ("w".to_owned(), vec![2, 3], vec![value; 6]),
            (name, _) => (name.to_owned(), vec![3], vec![value; 3]),
        });
        OptimizerState { tensors: NamedTensors::new(list.collect::<Vec<_>>()), ..good.clone() }
    };
    let setting = |name: &str, expected, got| Setting { name: name.into(), expected, got: Some(got) };
    for (state, want, says) in [
        (
            OptimizerState { kind: "Swa".into(), ..good.clone() },
            Kind { expected: "Ema".into(), got: "Swa".into() },
            "the state is of Swa, not of Ema",
        ),
        (
            OptimizerState { steps: u64::MAX, ..good.clone() },
            Steps { got: u64::MAX },
            "the state has taken 18446744073709551615 steps, more than any training can",
        ),
        (good.clone().with_setting("decay", 0.8), setting("decay", 0.9, 0.8), "decay is 0.8 in the state and 0.9 here"),
        (good.clone().with_setting("warm_up", 1.0), setting("warm_up", 0.0, 1.0), "warm_up is 1 in the state"),
        (good.clone().with_setting("start", 5.0), setting("start", 0.0, 5.0), "start is 5 in the state"),
        (with(&["w"], false, 1.0), MissingTensor { name: "b".into() }, "the state has no b"),
        (with(&["w", "b", "c"], false, 1.0), UnexpectedTensor { name: "c".into() }, "the state has c, which the model"),
        (
            with(&["w", "b"], true, 1.0),
            Shape { name: "w".into(), expected: vec![3, 2], got: vec![2, 3] },
            "w is [2, 3] in the state and [3, 2] in the model",
        ),
        (
            with(&["w", "b"], false, f64::NAN),
            NonFinite { name: "w".into() },
            "w has an element in the state that is not finite",
        ),
        (
            OptimizerState { steps: 0, ..good.clone() },
            UnexpectedTensor { name: "w".into() },
            "the state has w, which the model has no use for",
        ),
    ] {
        let error = average.load_state(&model, &state).unwrap_err();
        assert_eq!(error, want);
        assert!(error.to_string().starts_with(says), "{error}");
        assert_eq!(average.state(), good, "a refused state left a trace");
    }
    // Another decay, on purpose.
    let mut slower = WeightAverage::ema(0.99);
    slower.load_state(&model, &good.clone().with_setting("decay", 0.99)).unwrap();
    assert_eq!((slower.updates(), bits(slower.tensors().unwrap())), (1, bits(&good.tensors)));
    // A state before the first update.
    average.load_state(&model, &WeightAverage::ema(0.9).state()).unwrap();
    assert_eq!((average.updates(), average.tensors()), (0, None));
    model.w.fill(2.0);
    average.update(&model).unwrap();
    assert_eq!(elements(average.tensors().unwrap()), elements(&model));
}

#[test]
fn nothing_is_allocated_after_the_first_update() {
    fn check<F: Float>() {
        for (what, mut average) in all::<F>() {
            let rng = &mut rng(0);
            let mut model = (LstmCell::<F>::new(5, 9, rng), Linear::new(9, 7, rng));
            let mut update = || {
                average.update(&model).unwrap();
                let swapped = average.swap_in(&mut model);
                assert_eq!(swapped.count(), 6);
                drop(swapped);
                average.copy_to(&mut model);
            };
            assert!(allocations(&mut update) > 0, "{what}: the counter counts nothing");
            assert_eq!(allocations(|| (0..20).for_each(|_| update())), 0, "{what}");
        }
    }
    check::<f32>();
    check::<f64>();
}
