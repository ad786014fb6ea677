//! Schedules over hundreds of steps, and `ReduceLrOnPlateau`, against PyTorch; their texts, laws and refusals.

use gradflow::io::StateDict;
use gradflow::optim::{Adam, Optimizer, ReduceLrOnPlateau, Schedule};
use gradflow::rand::RngExt;

use crate::common::{Within, assert_all_near, assert_near, panic_of, rng};

/// Rates are at most 1, so the relative difference says more.
const NEAR: Within = Within { epsilon: 1e-15, max_relative: 1e-12 };

/// The file that `schedules.py` wrote.
fn golden() -> StateDict {
    StateDict::read_from(&include_bytes!("schedules.safetensors")[..]).expect("golden schedules")
}

fn values(golden: &StateDict, name: &str) -> Vec<f64> {
    golden.tensor::<f64>(name).expect("f64").into_raw_vec_and_offset().0
}

fn largest(largest: &mut f64, got: &[f64], want: &[f64]) {
    for (got, want) in got.iter().zip(want) {
        *largest = largest.max((got - want).abs());
    }
}

#[test]
fn schedules_are_pytorchs_over_hundreds_of_steps() {
    let golden = golden();
    let (mut cases, mut difference) = (0, 0.0);
    for name in golden.names().filter(|name| name.starts_with("schedule.")) {
        let text = &name["schedule.".len()..];
        let schedule: Schedule = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(schedule.to_string(), text);
        let want = values(&golden, name);
        assert_eq!(want.len(), 300);
        let got: Vec<_> = (0..300).map(|step| schedule.learning_rate(step)).collect();
        assert_all_near(&got, &want, NEAR, text);
        largest(&mut difference, &got, &want);
        cases += 1;
    }
    assert_eq!(cases, 31);
    println!("{cases} schedules over 300 steps: largest difference {difference:.1e}");
}

#[test]
fn plateaus_are_pytorchs() {
    let golden = golden();
    let (mut cases, mut reductions, mut difference) = (0, 0, 0.0);
    for name in golden.names().filter(|name| name.starts_with("plateau.")) {
        let (metric, text) = name["plateau.".len()..].split_once('.').expect("a metric and a text");
        let metric = values(&golden, &format!("metric.{metric}"));
        let mut plateau: ReduceLrOnPlateau = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(plateau.to_string(), text);
        let changes = golden.tensor::<f64>(name).expect("f64");
        reductions += changes.shape()[0];
        let mut want = vec![0.1; metric.len()];
        for change in changes.rows() {
            want[change[0] as usize..].fill(change[1]);
        }
        let mut got = Vec::new();
        for (call, &value) in metric.iter().enumerate() {
            let before = plateau.learning_rate(0);
            let reduced = plateau.step(value);
            got.push(plateau.learning_rate(call as u64));
            assert_eq!(reduced, got[call] != before, "{name}: call {call}");
            // As if restored from a checkpoint, in every state that it reaches.
            plateau = plateau.to_string().parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_all_near(&got, &want, NEAR, name);
        largest(&mut difference, &got, &want);
        cases += 1;
    }
    assert_eq!(cases, 65);
    println!("{cases} plateaus over 300 calls, {reductions} reductions: largest difference {difference:.1e}");
}

/// The methods named like PyTorch's arguments produce the golden texts.
#[test]
fn the_methods_set_what_the_text_says() {
    let new = || ReduceLrOnPlateau::new(0.1);
    for (plateau, text) in [
        (new(), "reduce_lr_on_plateau(0.1, min, 0.1, 10, 0.0001, rel, 0, 0.0, 1e-8) best(inf, 0, 0)"),
        (new().maximize(), "reduce_lr_on_plateau(0.1, max, 0.1, 10, 0.0001, rel, 0, 0.0, 1e-8) best(-inf, 0, 0)"),
        (
            new().factor(0.5).patience(3).threshold_abs(0.25).cooldown(2).min_lr(0.01).eps(0.002).warm_up(7, 0.125),
            "warm_up(7, 0.125) reduce_lr_on_plateau(0.1, min, 0.5, 3, 0.25, abs, 2, 0.01, 0.002) best(inf, 0, 0)",
        ),
        (
            new().threshold_abs(0.25).threshold(0.5),
            "reduce_lr_on_plateau(0.1, min, 0.1, 10, 0.5, rel, 0, 0.0, 1e-8) best(inf, 0, 0)",
        ),
    ] {
        assert_eq!(plateau.to_string(), text);
        assert_eq!(text.parse(), Ok(plateau));
    }
}

#[test]
fn a_plateau_warms_up_as_a_schedule_does() {
    let (mut plateau, schedule) =
        (ReduceLrOnPlateau::new(0.3).patience(0).warm_up(9, 0.125), Schedule::constant(0.3).warm_up(9, 0.125));
    for step in [0, 1, 5, 8, 9, 10, u64::MAX] {
        assert_eq!(plateau.learning_rate(step).to_bits(), schedule.learning_rate(step).to_bits(), "step {step}");
    }
    assert!(!plateau.step(1.0) && plateau.step(1.0));
    let reduced = Schedule::constant(0.3 * 0.1).warm_up(9, 0.125);
    for step in [0, 3, 9, 100] {
        assert_eq!(plateau.learning_rate(step).to_bits(), reduced.learning_rate(step).to_bits(), "step {step}");
    }
}

#[test]
fn new_schedules_begin_and_end_where_they_say() {
    let line = Schedule::linear(0.3, 7, 0.1);
    assert_eq!([0, 7, 8, u64::MAX].map(|step| line.learning_rate(step)), [0.3, 0.1, 0.1, 0.1]);
    let power = Schedule::polynomial(0.3, 7, 2.5);
    assert_eq!([0, 7, 8, u64::MAX].map(|step| power.learning_rate(step)), [0.3, 0.0, 0.0, 0.0]);
    for step in 0..50 {
        let (a, b) = (Schedule::exponential(0.3, 0.9), Schedule::step(0.3, 1, 0.9));
        assert_eq!(a.learning_rate(step), b.learning_rate(step));
        // If all lengths are equal, each restart is a plain cosine.
        let (a, b) = (Schedule::cosine_warm_restarts(0.3, 10, 1, 0.01), Schedule::cosine(0.3, 10, 0.01));
        assert_eq!(a.learning_rate(step), b.learning_rate(step % 10));
        assert_near(Schedule::polynomial(0.3, 50, 1.0).learning_rate(step), 0.3 * (1.0 - step as f64 / 50.0), NEAR, "");
    }
    // The lengths are whole numbers, so no restart is missed, however late: 3 · (2ⁿ - 1).
    let doubling = Schedule::cosine_warm_restarts(0.3, 3, 2, 0.0);
    for n in 0..62 {
        let restart = 3 * ((1_u64 << n) - 1);
        assert_eq!(doubling.learning_rate(restart), 0.3, "restart {n}");
        if n > 0 {
            assert!(doubling.learning_rate(restart - 1) < 0.3 * 0.5, "before restart {n}");
        }
    }
}

/// At every step, however large, and after a round trip through their text.
#[test]
fn new_learning_rates_are_finite() {
    let largest = f64::from(f32::MAX);
    let schedules = [
        Schedule::linear(largest, u64::MAX, 0.0),
        Schedule::linear(0.0, 1, largest),
        Schedule::exponential(0.1, 1.5),
        Schedule::exponential(0.0, 1e300),
        Schedule::exponential(largest, 0.0),
        Schedule::polynomial(largest, u64::MAX, 1e300),
        Schedule::polynomial(0.1, 1, 0.0),
        Schedule::cosine_warm_restarts(largest, 1, u64::MAX, 0.0),
        Schedule::cosine_warm_restarts(0.1, u64::MAX, u64::MAX, largest),
        Schedule::cosine_warm_restarts(0.1, 1, 2, 0.0),
        Schedule::cosine_warm_restarts(0.1, 1, 1, 0.0),
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
    let mut plateau = ReduceLrOnPlateau::new(largest).warm_up(10, 1e308).patience(0);
    for step in 0..12 {
        plateau.step(f64::NAN);
        let rate = plateau.learning_rate(step);
        assert!((0.0..=largest).contains(&rate), "step {step}: {rate:e}");
    }
}

/// Numbers without a short decimal form survive the round trip to the bit.
#[test]
fn new_texts_are_exact() {
    let rng = &mut rng(5);
    for _ in 0..200 {
        let mut number = || 10f64.powf(rng.random_range(-12.0..3.0));
        let (a, b, c) = (number(), number(), number());
        let (fraction, steps) = (rng.random_range(0.0..1.0), rng.random_range(1..=u64::MAX));
        for schedule in [
            Schedule::linear(a, steps, b),
            Schedule::exponential(a, b),
            Schedule::polynomial(a, steps, b),
            Schedule::cosine_warm_restarts(a, steps, steps / 2 + 1, b),
        ] {
            for schedule in [schedule.clone(), schedule.warm_up(steps, fraction)] {
                assert_eq!(schedule.to_string().parse(), Ok(schedule));
            }
        }
        let plateau = ReduceLrOnPlateau::new(a).factor(fraction).patience(steps).threshold(b).cooldown(steps / 3);
        for plateau in [plateau.clone(), plateau.min_lr(c).eps(a).threshold_abs(c).maximize().warm_up(steps, b)] {
            let mut plateau = plateau;
            for metric in [f64::NAN, c, b, a] {
                plateau.step(metric);
                assert_eq!(plateau.to_string().parse(), Ok(plateau.clone()));
            }
        }
    }
}

#[test]
fn texts_that_are_none_are_refused() {
    for text in [
        "linear(0.1)",
        "linear(0.1, 0, 0.5)",
        "linear(0.1, 5, -0.5)",
        "linear(0.1, 5, 1e39)",
        "exponential(0.1)",
        "exponential(0.1, -1.0)",
        "exponential(0.1, NaN)",
        "polynomial(0.1, 0, 1.0)",
        "polynomial(0.1, 5, inf)",
        "cosine_warm_restarts(0.1, 0, 1, 0.0)",
        "cosine_warm_restarts(0.1, 5, 0, 0.0)",
        "cosine_warm_restarts(0.1, 5, 1.5, 0.0)",
        "cosine_warm_restarts(0.1, 5, 1, -1.0)",
        "cosine_warm_restarts(0.1, 5, 1)",
        "linear(0.1, 5, 0.5) ",
    ] {
        let error = text.parse::<Schedule>().expect_err(text);
        assert_eq!(error.to_string(), format!("no schedule: {text:?}"));
    }
    let good = "reduce_lr_on_plateau(0.1, min, 0.1, 10, 0.0001, rel, 0, 0.0, 1e-8) best(inf, 0, 0)";
    assert!(good.parse::<ReduceLrOnPlateau>().is_ok());
    for (from, to) in [
        ("reduce", "raise"),
        ("(0.1,", "(-0.1,"),
        ("(0.1,", "(1e39,"),
        ("min", "Min"),
        ("min, 0.1", "min, 1.0"),
        ("min, 0.1", "min, NaN"),
        ("10", "-1"),
        ("10", "1.5"),
        ("0.0001", "inf"),
        ("rel", "relative"),
        ("rel, 0", "rel, x"),
        ("0.0, 1e-8", "1e39, 1e-8"),
        ("1e-8", "-1e-8"),
        ("best", "last"),
        ("inf", "NaN"),
        ("0, 0)", "0)"),
        ("0, 0)", "0, 0) "),
        ("0, 0)", "0, -1)"),
        (" best", ""),
        ("reduce", "warm_up(5, 0.1) warm_up(5, 0.1) reduce"),
        ("reduce", "warm_up(0, 0.1) reduce"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        let error = text.parse::<ReduceLrOnPlateau>().expect_err(&text);
        assert_eq!(error.to_string(), format!("no schedule: {text:?}"));
    }
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    macro_rules! refused {
        ($($act:expr, $who:literal, $setting:literal;)*) => {$(
            let message = panic_of(|| $act);
            assert!(message.starts_with(concat!($who, ": ", $setting, ": expected")), "{message}");
        )*};
    }
    let new = || ReduceLrOnPlateau::new(0.1);
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        refused! {
            Schedule::linear(bad, 5, 0.1), "Schedule", "learning rate";
            Schedule::linear(0.1, 5, bad), "Schedule", "end";
            Schedule::exponential(bad, 0.9), "Schedule", "learning rate";
            Schedule::exponential(0.1, bad), "Schedule", "gamma";
            Schedule::polynomial(bad, 5, 1.0), "Schedule", "learning rate";
            Schedule::polynomial(0.1, 5, bad), "Schedule", "power";
            Schedule::cosine_warm_restarts(bad, 5, 1, 0.0), "Schedule", "learning rate";
            Schedule::cosine_warm_restarts(0.1, 5, 1, bad), "Schedule", "minimum";
            ReduceLrOnPlateau::new(bad), "ReduceLrOnPlateau", "learning rate";
            new().factor(bad), "ReduceLrOnPlateau", "factor";
            new().threshold(bad), "ReduceLrOnPlateau", "threshold";
            new().threshold_abs(bad), "ReduceLrOnPlateau", "threshold";
            new().min_lr(bad), "ReduceLrOnPlateau", "min_lr";
            new().eps(bad), "ReduceLrOnPlateau", "eps";
            new().warm_up(5, bad), "ReduceLrOnPlateau", "start";
        }
    }
    refused! {
        Schedule::linear(0.1, 0, 0.1), "Schedule", "steps";
        Schedule::linear(0.1, 5, 1e39), "Schedule", "end";
        Schedule::polynomial(0.1, 0, 1.0), "Schedule", "steps";
        Schedule::cosine_warm_restarts(0.1, 0, 1, 0.0), "Schedule", "steps";
        Schedule::cosine_warm_restarts(0.1, 5, 0, 0.0), "Schedule", "multiplier";
        ReduceLrOnPlateau::new(1e39), "ReduceLrOnPlateau", "learning rate";
        new().factor(1.0), "ReduceLrOnPlateau", "factor";
        new().min_lr(1e39), "ReduceLrOnPlateau", "min_lr";
        new().warm_up(0, 0.1), "ReduceLrOnPlateau", "steps";
    }
    let mut used = new();
    used.step(1.0);
    let message = panic_of(|| used.maximize());
    assert_eq!(message, "ReduceLrOnPlateau: maximize: it is chosen before the first metric");
}
