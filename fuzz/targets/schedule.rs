//! A text as a schedule.

use gradflow::optim::Schedule;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<Schedule>() {
        Ok(schedule) => check(&schedule),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// It is read back from its own text, and gives a learning rate at every step.
pub fn check(schedule: &Schedule) {
    let text = schedule.to_string();
    assert_eq!(text.parse().as_ref(), Ok(schedule), "{text}");
    for step in [0, 1, 2, 99, 1000, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let rate = schedule.learning_rate(step);
        assert!(rate >= 0.0 || rate.is_nan(), "{text}: {rate} at step {step}");
    }
}
