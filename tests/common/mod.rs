//! Helpers that several tests need.

// Each binary uses only a part of this module.
#![allow(dead_code, unused_macros)]

pub mod failing;
#[macro_use]
mod variants;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::PathBuf;
use std::sync::Once;

use approx::relative_eq;
use gradflow::ndarray::{Array3, ArrayRef3};
use gradflow::rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use gradflow::{Float, Sequence, Tensors, TensorsExt, loss::Loss};

/// A temporary path that no other process uses.
pub fn temporary(name: &str) -> PathBuf {
    // WASI has no process ids and no standard folder for temporary files.
    if cfg!(target_os = "wasi") {
        return format!("/tmp/gradflow-{name}").into();
    }
    std::env::temp_dir().join(format!("gradflow-{}-{name}", std::process::id()))
}

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// Whether `act` panics. Prints nothing, since there may be thousands of panics.
pub fn panics(act: &mut dyn FnMut()) -> bool {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                print(panic);
            }
        }));
    });
    QUIET.set(true);
    let panicked = catch_unwind(AssertUnwindSafe(act)).is_err();
    QUIET.set(false);
    panicked
}

/// Runs `act`, which must panic, and returns the message.
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

/// How far apart two numbers may be: at most `epsilon`, or `max_relative` times the larger one.
#[derive(Clone, Copy, Debug)]
pub struct Within {
    pub epsilon: f64,
    pub max_relative: f64,
}

impl Within {
    pub const fn absolute(epsilon: f64) -> Within {
        Within { epsilon, max_relative: 0.0 }
    }

    pub const fn relative(max_relative: f64) -> Within {
        Within { epsilon: 0.0, max_relative }
    }

    /// The absolute difference for numbers below 1, the relative one for larger numbers.
    pub const fn either(tolerance: f64) -> Within {
        Within { epsilon: tolerance, max_relative: tolerance }
    }
}

/// `approx::assert_relative_eq!` for one number, with a message that says what was compared.
#[track_caller]
pub fn assert_near(got: f64, want: f64, within: Within, what: &str) {
    let Within { epsilon, max_relative } = within;
    assert!(relative_eq!(got, want, epsilon = epsilon, max_relative = max_relative), "{what}: {got:e} for {want:e}");
}

/// [`assert_near`] for each element.
#[track_caller]
pub fn assert_all_near<F: Float>(got: &[F], want: &[F], within: Within, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let Within { epsilon, max_relative } = within;
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        let (got, want) = (got.widen(), want.widen());
        let near = relative_eq!(got, want, epsilon = epsilon, max_relative = max_relative);
        assert!(near, "{what}: element {k}: {got:e} for {want:e}");
    }
}

/// The number of allocations during `act`, on this thread.
pub fn allocations(act: impl FnOnce()) -> u64 {
    allocation_counter::measure(act).count_total
}

/// The bits of every element.
pub fn bits<F: Float>(tensors: &(impl Tensors<F> + ?Sized)) -> Vec<u64> {
    (0..tensors.count()).flat_map(|i| tensors.values(i).iter().map(|value| value.bits())).collect()
}

/// An input without a pattern, `[T, B, D]`.
pub fn wave<F: Float>(shape: (usize, usize, usize), phase: f64) -> Array3<F> {
    Array3::from_shape_fn(shape, |(t, b, k)| F::of((0.9 * t as f64 + 2.3 * b as f64 + 4.1 * k as f64 + phase).sin()))
}

/// Adds a random number to every parameter: peepholes that are 0 and gains that are 1 would hide mistakes.
pub fn lively<F: Float, T: Tensors<F>>(mut layer: T, rng: &mut impl Rng) -> T {
    for i in 0..layer.count() {
        for value in layer.tensor_mut(i) {
            *value += F::of(rng.random_range(-0.3..0.3));
        }
    }
    layer
}

/// The loss of `y`, with its gradient in `dy`. Checks that the loss without a gradient is the same.
#[track_caller]
pub fn evaluate<F: Float, L: Loss<F> + Clone>(
    loss: &L,
    y: &ArrayRef3<F>,
    targets: &L::Targets,
    lengths: Option<&[usize]>,
    dy: &mut Array3<F>,
) -> f64 {
    let mut y = Sequence::from(y.view());
    if let Some(lengths) = lengths {
        y = y.with_lengths(lengths).unwrap_or_else(|error| panic!("lengths: {error}"));
    }
    let mut loss = loss.clone();
    let evaluated = loss.of(y, targets);
    let value = evaluated.value();
    *dy = evaluated.gradient().to_owned();
    assert_eq!(loss.value(y, targets).to_bits(), value.to_bits(), "the value without a gradient");
    value
}
