//! Which peers there are, how they are made ready, and how their processes start.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use crate::args::Isa;
use crate::folder;
use crate::worker::Settings;

pub const ALL: [&str; 6] = ["torch", "onnx", "candle", "burn", "rust-lstm", "rustyml"];

/// Names a Python that has what python/requirements.txt lists, in place of the virtual environment made here.
const PYTHON: &str = "PEERS_PYTHON";

fn is_python(peer: &str) -> bool {
    matches!(peer, "torch" | "onnx" | "sgemm" | "sgemm_square")
}

/// Why a peer takes no part in a run with these settings.
pub fn cannot_at_all(peer: &str, settings: &Settings) -> Option<&'static str> {
    (settings.isa == Isa::Avx2 && peer != "torch").then_some("cannot be held to AVX2")
}

/// Builds the Rust peers and gradflow with threads, and makes the virtual environment, where they are wanted and not there.
pub fn make_ready(peers: &[String], threads: &[usize]) -> Result<(), Box<dyn Error>> {
    make_python()?;
    if threads.iter().any(|&threads| threads > 1) {
        build_with_threads()?;
    }
    let rust: Vec<&str> = peers.iter().map(String::as_str).filter(|peer| !is_python(peer)).collect();
    if rust.is_empty() { Ok(()) } else { build_rust_peers(&rust) }
}

fn virtual_environment() -> PathBuf {
    folder().join(".venv")
}

fn python() -> PathBuf {
    env::var_os(PYTHON).map_or_else(|| virtual_environment().join("bin/python"), PathBuf::from)
}

fn make_python() -> Result<(), Box<dyn Error>> {
    if env::var_os(PYTHON).is_some() || virtual_environment().join("ready").exists() {
        return Ok(());
    }
    eprintln!("making {} (another Python: {PYTHON})", virtual_environment().display());
    run(Command::new("python3").args(["-m", "venv"]).arg(virtual_environment()))?;
    let requirements = folder().join("python/requirements.txt");
    run(Command::new(python()).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements))?;
    Ok(fs::write(virtual_environment().join("ready"), "")?)
}

/// gradflow's side of a run with several threads. Its feature `rayon` splits a batch by its shape alone, so that one thread
/// would pay for what only several gain from; a user of one thread leaves it out.
fn with_threads_target() -> PathBuf {
    folder().join("target/threads")
}

fn build_with_threads() -> Result<(), Box<dyn Error>> {
    let mut build = cargo_build();
    run(build.args(["--package", "peers", "--features", "rayon", "--target-dir"]).arg(with_threads_target()))
}

fn cargo_build() -> Command {
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(folder()).args(["build", "--locked", "--release"]);
    build
}

/// In a target folder of their own: with the processor's instructions, as their documents recommend.
fn rust_peers_target() -> PathBuf {
    folder().join("target/rust-peers")
}

fn build_rust_peers(peers: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut build = cargo_build();
    build.args(["--package", "rust-peers", "--no-default-features", "--features", &peers.join(",")]);
    run(build.arg("--target-dir").arg(rust_peers_target()).env("RUSTFLAGS", "-C target-cpu=native"))
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// The process of a side.
pub fn command(name: &str, settings: &Settings) -> Result<Command, Box<dyn Error>> {
    let mut command = match name {
        "gradflow" if settings.threads > 1 => Command::new(with_threads_target().join("release/peers")),
        "gradflow" => Command::new(env::current_exe()?),
        name if is_python(name) => Command::new(python()),
        _ => Command::new(rust_peers_target().join("release/rust-peers")),
    };
    match name {
        "gradflow" => command.arg("worker"),
        name if is_python(name) => {
            command.arg(folder().join("python/worker.py")).args([name, &settings.threads.to_string()])
        }
        name => command.arg(name),
    };
    Ok(command)
}
