//! Progress of a job, and Ctrl-C.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, INTERRUPTED};

/// A progress bar on stderr; if that is not a terminal, about twenty plain lines.
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

    /// For a job of which `done` steps are already done.
    pub fn resumed(self, done: usize) -> Self {
        Progress { bar: self.bar.with_position(done as u64), ..self }
    }

    /// Counts a step as done; `message` describes the current state.
    pub fn step(&self, message: String) {
        self.bar.inc(1);
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(1).max(1));
        if !self.plain {
            self.bar.set_message(message);
        } else if done * 20 / total > (done - 1) * 20 / total {
            eprintln!("{done:>6}/{total}  {message}");
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Ctrl-C, as a flag that is checked between two steps instead of ending the program anywhere.
///
/// A second Ctrl-C, or one after this value is dropped, ends the program at once.
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    heeded: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens from now on. A program does this once.
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

    /// Whether Ctrl-C was pressed.
    pub fn came(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.heeded.store(false, Ordering::SeqCst);
    }
}
