//! How far a work is, and Ctrl-C.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, INTERRUPTED};

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
