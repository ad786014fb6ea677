//! Code that the examples share: failures, flags, threads, progress, claims and pictures.

// Each example compiles this module for itself and uses its own part of it.
#![allow(dead_code, unused_imports)]

mod cells;
mod claims;
mod files;
mod flags;
mod jobs;
pub mod picture;
mod progress;

use std::io;
use std::process::ExitCode;

use gradflow::clip::NonFiniteGradient;

pub use cells::{Cell, Start};
pub use claims::Claims;
pub use files::{Output, read_text};
pub use flags::{Flag, Settings, parsed, positive, whole};
pub use jobs::in_parallel;
pub use progress::{Interrupt, Progress};

/// Why an example ends early: one line for the reader, and an exit status.
#[derive(Debug)]
pub enum Failure {
    /// An invalid flag: status 2.
    Usage(String),
    /// A file that cannot be read or written, a training that diverged, a claim that did not hold: status 1.
    Run(String),
    /// Ctrl-C: status 130, as shells have it.
    Interrupted(String),
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Failure::Usage(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Run(error.to_string())
    }
}

impl From<NonFiniteGradient> for Failure {
    fn from(error: NonFiniteGradient) -> Self {
        Failure::Run(format!("training diverged: {error}"))
    }
}

/// The exit status after Ctrl-C: 128 plus the signal's number.
pub const INTERRUPTED: u8 = 130;

/// The end of `main`: a failure as one line on stderr, and the exit status.
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    let (status, message) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (2, format!("{message} (--help lists all flags)")),
        Err(Failure::Run(message)) => (1, message),
        Err(Failure::Interrupted(message)) => {
            eprintln!("{message}");
            return ExitCode::from(INTERRUPTED);
        }
    };
    eprintln!("error: {message}");
    ExitCode::from(status)
}
