//! A text as a schedule.

use gradflow::optim::{ReduceLrOnPlateau, Schedule};

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<Schedule>() {
        Ok(schedule) => check(&schedule),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(plateau) = text.parse() {
        check_plateau(plateau);
    }
}

/// Its text parses to the same value, whatever metrics it gets, and it never raises the learning rate.
fn check_plateau(mut plateau: ReduceLrOnPlateau) {
    for metric in [f64::NAN, 1.0, 0.5, 0.5, 2.0, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0] {
        let text = plateau.to_string();
        assert_eq!(text.parse().as_ref(), Ok(&plateau), "{text}");
        let before = plateau.learning_rate(u64::MAX);
        let reduced = plateau.step(metric);
        let after = plateau.learning_rate(u64::MAX);
        assert!(if reduced { after < before } else { after == before }, "{text}: from {before} to {after} by {metric}");
        assert!(after >= 0.0 && plateau.learning_rate(0) >= 0.0, "{text}");
    }
}

/// Its text parses to the same schedule, and it gives a learning rate at every step.
pub fn check(schedule: &Schedule) {
    let text = schedule.to_string();
    assert_eq!(text.parse().as_ref(), Ok(schedule), "{text}");
    for step in [0, 1, 2, 99, 1000, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let rate = schedule.learning_rate(step);
        assert!(rate >= 0.0 || rate.is_nan(), "{text}: {rate} at step {step}");
    }
}
