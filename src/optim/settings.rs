//! Checks of settings.

/// Panics unless `value` is finite and at least 0.
#[track_caller]
pub(super) fn check_setting(who: &str, setting: &str, value: f64) -> f64 {
    assert!(value >= 0.0 && value.is_finite(), "{who}: {setting}: expected a finite number, at least 0, got {value}");
    value
}

/// Panics unless `value` is in `[0, 1)`.
#[track_caller]
pub(super) fn check_fraction(who: &str, setting: &str, value: f64) -> f64 {
    assert!((0.0..1.0).contains(&value), "{who}: {setting}: expected a number in 0..1, got {value}");
    value
}
