//! Trainings that are interrupted by Ctrl-C, or killed, and continue.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use gradflow::io::Checkpoint;
use gradflow::rand::RngExt;

use super::resume::{EPOCHS, Folder, train};
use crate::common::rng;

#[test]
#[ignore = "not a test: the process that the tests below start and interrupt"]
fn trains_slowly() {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    let Some(path) = std::env::var_os("GRADFLOW_TRAINS_SLOWLY") else { return };
    ctrlc::set_handler(|| INTERRUPTED.store(true, Relaxed)).unwrap();
    println!("\nready");
    train(Path::new(&path), |_| {
        thread::sleep(Duration::from_millis(2));
        !INTERRUPTED.load(Relaxed)
    });
}

/// Interrupts `train` again and again, each time after up to 30 ms, until all epochs are saved; returns how often.
fn interrupt(path: &Path, signal: &str) -> usize {
    let rng = &mut rng(u64::from(std::process::id()));
    for count in 0..200 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["fit::signals::trains_slowly", "--exact", "--ignored", "--nocapture"])
            .env("GRADFLOW_TRAINS_SLOWLY", path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| line.unwrap() == "ready"));
        thread::sleep(Duration::from_millis(rng.random_range(0..30)));
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
        assert!(kill.is_ok());
        lines.for_each(drop); // to its end
        assert!(child.wait().unwrap().success() || signal == "-KILL");
        let epochs = |checkpoint: Checkpoint| checkpoint.metadata("fit.history").unwrap().lines().count();
        if path.exists() && epochs(Checkpoint::open(path).unwrap()) == EPOCHS {
            return count + 1;
        }
    }
    panic!("200 times and not at its end");
}

#[test]
fn ctrl_c_loses_no_step_and_a_kill_no_epoch() {
    let folder = Folder::new("signals");
    let whole = folder.0.join("whole");
    train(&whole, |_| true);
    let saved = Checkpoint::open(&whole).unwrap();
    for signal in ["-INT", "-KILL"] {
        let path = folder.0.join(signal);
        let count = interrupt(&path, signal);
        println!("{signal}: {count} times");
        assert_eq!(Checkpoint::open(&path).unwrap(), saved, "{signal}");
    }
}
