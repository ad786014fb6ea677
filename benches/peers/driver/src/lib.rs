//! The common parts of the programs that measure: workers, their tensors, their turns, and the machine.

pub mod agree;
pub mod build;
pub mod flags;
pub mod given;
pub mod machine;
pub mod turns;
mod worker;

use std::path::{Path, PathBuf};
use std::{fs, io, process};

pub use worker::Worker;

/// The folder of these benchmarks; everything they write is inside.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member's folder")
}

/// The folder of temporary files: deleted at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    /// # Errors
    /// If the folder cannot be created.
    pub fn new() -> io::Result<Self> {
        let path = folder().join(".work").join(process::id().to_string());
        fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `3.14`, `0.0314`, `314`: three digits.
pub fn digits(value: f64) -> String {
    let before_point = value.abs().log10().floor();
    let decimals = if before_point.is_finite() { (2.0 - before_point).clamp(0.0, 9.0) } else { 2.0 };
    format!("{value:.0$}", decimals as usize)
}
