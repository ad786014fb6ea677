//! What the examples share: how they fail, read flags, show progress and write files.

// Each example compiles this module for itself and uses its own part of it.
#![allow(dead_code)]

use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gradflow::NonFiniteGradient;
use indicatif::{ProgressBar, ProgressStyle};

/// Why an example ends early: one line for the reader, and an exit status.
#[derive(Debug)]
pub enum Failure {
    /// A flag that is not understood: status 2.
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

/// The exit status after Ctrl-C: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

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

/// The value of `--flag`: a whole number in `range`.
pub fn whole<N>(parser: &mut lexopt::Parser, flag: &str, range: RangeInclusive<N>) -> Result<N, Failure>
where
    N: FromStr + PartialOrd + Display,
{
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    parsed(parser, flag, &expected, |n| range.contains(n))
}

/// The value of `--flag`: a finite number above 0.
pub fn positive(parser: &mut lexopt::Parser, flag: &str) -> Result<f64, Failure> {
    parsed(parser, flag, "a number above 0", |x: &f64| *x > 0.0 && x.is_finite())
}

/// The value of `--flag`: what `expected` says and `fits` lets through.
pub fn parsed<T: FromStr>(
    parser: &mut lexopt::Parser,
    flag: &str,
    expected: &str,
    fits: impl Fn(&T) -> bool,
) -> Result<T, Failure> {
    let value = parser.value()?;
    let parsed = value.to_str().and_then(|value| value.parse().ok()).filter(fits);
    parsed.ok_or_else(|| Failure::Usage(format!("--{flag}: expected {expected}, got {value:?}")))
}

/// The text of a file, which must be UTF-8.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::Run(format!("{}: {error}", path.display())))?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) => Err(Failure::Run(format!("{}: not text: it holds NUL characters", path.display()))),
        Err(_) => Err(Failure::Run(format!("{}: not UTF-8 text", path.display()))),
    }
}

/// A file that is opened before the work and written after it, so that a folder that cannot be written to is found
/// out in time; what it held before stays until then.
pub struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Creates the file, and the folder where it is missing.
    pub fn create(folder: &Path, name: &str) -> Result<Self, Failure> {
        let path = folder.join(name);
        let file = std::fs::create_dir_all(folder)
            .and_then(|()| File::options().write(true).create(true).truncate(false).open(&path));
        match file {
            Ok(file) => Ok(Output { path, file }),
            Err(error) => Err(Failure::Run(format!("{}: {error}", path.display()))),
        }
    }

    /// Writes the contents and says where they went.
    pub fn write(mut self, contents: &str) -> Result<PathBuf, Failure> {
        match self.file.set_len(0).and_then(|()| self.file.write_all(contents.as_bytes())) {
            Ok(()) => Ok(self.path),
            Err(error) => Err(Failure::Run(format!("{}: {error}", self.path.display()))),
        }
    }
}

/// A progress bar on stderr; where that is no terminal, some twenty plain lines.
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    /// For `total` steps.
    pub fn new(total: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:16} {pos}/{len}  {eta} left  {wide_msg}");
        let bar = ProgressBar::new(total as u64).with_style(style.expect("a valid template"));
        Progress { bar, plain: !io::stderr().is_terminal() }
    }

    /// For a work of which `done` steps were done before.
    pub fn resumed(self, done: usize) -> Self {
        Progress { bar: self.bar.with_position(done as u64), ..self }
    }

    /// One step is done; `message` tells how things stand.
    pub fn step(&self, message: String) {
        self.bar.inc(1);
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(1).max(1));
        if !self.plain {
            self.bar.set_message(message);
        } else if done * 20 / total > (done - 1) * 20 / total {
            eprintln!("{done:>6}/{total}  {message}");
        }
    }

    /// The bar goes away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Ctrl-C, asked about between two steps instead of ending the program where it happens to be.
///
/// The second time, and once this value is gone, it ends the program at once.
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    heeded: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens from now on. A program does so once.
    pub fn listen() -> Result<Self, Failure> {
        let (asked, heeded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let interrupt = Interrupt { asked: asked.clone(), heeded: heeded.clone() };
        let handler = move || {
            if !heeded.load(Ordering::SeqCst) || asked.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED.into());
            }
        };
        let listening = ctrlc::set_handler(handler);
        listening.map(|()| interrupt).map_err(|error| Failure::Run(format!("Ctrl-C cannot be heeded: {error}")))
    }

    /// Whether it came.
    pub fn came(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.heeded.store(false, Ordering::SeqCst);
    }
}
