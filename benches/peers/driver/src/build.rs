//! Building the programs that a run needs.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use crate::folder;

/// `cargo build` of this workspace, in release mode with the versions of its lock file.
pub fn cargo_build() -> Command {
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(folder()).args(["build", "--locked", "--release"]);
    build
}

/// The Rust peers' own target folder: they are built with the processor's instructions, as their documents recommend.
fn rust_peers_target() -> PathBuf {
    folder().join("target/rust-peers")
}

/// Builds the Rust peers of these names, and no other.
///
/// # Errors
/// If the build fails.
pub fn rust_peers(peers: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut build = cargo_build();
    build.args(["--package", "rust-peers", "--no-default-features", "--features", &peers.join(",")]);
    run(build.arg("--target-dir").arg(rust_peers_target()).env("RUSTFLAGS", "-C target-cpu=native"))
}

/// The process of a Rust peer.
pub fn rust_peer(name: &str) -> Command {
    let mut command = Command::new(rust_peers_target().join("release/rust-peers"));
    command.arg(name);
    command
}

/// The target folder of gradflow's side of a run with several threads. Its feature `rayon` splits a batch by its shape alone, so
/// one thread would pay for a split that only helps several; users of one thread leave the feature out.
fn with_threads_target() -> PathBuf {
    folder().join("target/threads")
}

/// Builds a package of this workspace once more, with its feature `rayon`.
///
/// # Errors
/// If the build fails.
pub fn build_with_threads(package: &str) -> Result<(), Box<dyn Error>> {
    let mut build = cargo_build();
    build.args(["--package", package, "--features", "rayon", "--target-dir"]);
    run(build.arg(with_threads_target()))
}

/// The program of a package that [`build_with_threads`] built.
pub fn with_threads(package: &str) -> Command {
    Command::new(with_threads_target().join("release").join(package))
}

/// Runs a command to its end.
///
/// # Errors
/// If it cannot be started, or fails.
pub fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// Names a Python that has the packages of python/requirements.txt, instead of the virtual environment made here.
const PYTHON: &str = "PEERS_PYTHON";

fn virtual_environment() -> PathBuf {
    folder().join(".venv")
}

fn python() -> PathBuf {
    env::var_os(PYTHON).map_or_else(|| virtual_environment().join("bin/python"), PathBuf::from)
}

/// Makes the virtual environment, if it is needed and does not exist.
///
/// # Errors
/// If the packages cannot be installed.
pub fn make_python() -> Result<(), Box<dyn Error>> {
    if env::var_os(PYTHON).is_some() || virtual_environment().join("ready").exists() {
        return Ok(());
    }
    eprintln!("making {} (another Python: {PYTHON})", virtual_environment().display());
    run(Command::new("python3").args(["-m", "venv"]).arg(virtual_environment()))?;
    let requirements = folder().join("python/requirements.txt");
    run(Command::new(python()).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements))?;
    Ok(fs::write(virtual_environment().join("ready"), "")?)
}

/// The process of a peer in Python.
pub fn python_peer(name: &str, threads: usize) -> Command {
    let mut command = Command::new(python());
    command.arg(folder().join("python/worker.py")).args([name, &threads.to_string()]);
    command
}
