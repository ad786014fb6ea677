//! The fuzz targets. The fuzzer runs them with inputs that it makes up; `tests/fuzz` runs them without nightly, with the inputs in
//! `fuzz/seeds` and `fuzz/regressions`.
//!
//! A target panics if something is wrong, and only then.

// Each binary uses only a part of this module.
#![allow(dead_code)]

#[cfg(feature = "safetensors")]
pub mod checkpoint;
pub mod choices;
pub mod convert;
#[cfg(feature = "keras")]
pub mod keras;
pub mod layout;
pub mod losses;
pub mod models;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod optimizer_state;
#[cfg(feature = "plugin-formats")]
pub mod plugins;
#[cfg(feature = "pytorch")]
pub mod pytorch;
pub mod schedule;
#[cfg(feature = "safetensors")]
pub mod state_dict;

use std::panic;
use std::sync::Once;

/// Runs a target under libFuzzer. Its own panic hook would end the process at every panic, but some panics are expected and caught.
pub fn fuzz(target: fn(&[u8]), data: &[u8]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| panic::set_hook(Box::new(|_| {})));
    if let Err(found) = panic::catch_unwind(|| target(data)) {
        let text = found.downcast_ref::<String>().map(String::as_str).or(found.downcast_ref::<&str>().copied());
        eprintln!("found: {}", text.unwrap_or("a panic without a text"));
        std::process::abort();
    }
}

/// Runs `act`; returns the message if it panics.
pub fn panic_of<R>(act: impl FnOnce() -> R) -> Result<R, String> {
    panic::catch_unwind(panic::AssertUnwindSafe(act)).map_err(|found| match found.downcast::<String>() {
        Ok(text) => *text,
        Err(found) => found.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).to_owned()),
    })
}
