//! What several tests need.

// Each test uses a part of it.
#![allow(dead_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use gradflow::ndarray::Array3;
use gradflow::{Float, Tensors, TensorsExt};

/// What `act` panics with.
pub fn panic_of<R>(act: impl FnOnce() -> R) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(act)) else { panic!("expected a panic") };
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().expect("a message").to_string(),
    }
}

/// Panics unless `message` contains every part.
#[track_caller]
pub fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in {message:?}");
    }
}

/// Every element's bits.
pub fn bits<F: Float>(tensors: &(impl Tensors<F> + ?Sized)) -> Vec<u64> {
    (0..tensors.count()).flat_map(|i| tensors.values(i).iter().map(|value| value.bits())).collect()
}

/// An input without a pattern, `[T, B, D]`.
pub fn wave<F: Float>(shape: (usize, usize, usize), phase: f64) -> Array3<F> {
    Array3::from_shape_fn(shape, |(t, b, k)| F::of((0.9 * t as f64 + 2.3 * b as f64 + 4.1 * k as f64 + phase).sin()))
}
