//! The peers: how they are made ready, and how their processes start.

use std::env;
use std::error::Error;
use std::process::Command;

use driver::Worker;
use driver::build::{build_with_threads, make_python, python_peer, rust_peer, rust_peers, with_threads};

use crate::args::Isa;

/// The settings that all sides of a run have in common.
#[derive(Clone, Copy)]
pub struct Settings {
    pub threads: usize,
    pub isa: Isa,
}

pub const ALL: [&str; 6] = ["torch", "onnx", "candle", "burn", "rust-lstm", "rustyml"];

fn is_python(peer: &str) -> bool {
    matches!(peer, "torch" | "onnx" | "sgemm" | "sgemm_square")
}

/// Why a peer is left out of a run with these settings.
pub fn cannot_at_all(peer: &str, settings: &Settings) -> Option<&'static str> {
    (settings.isa == Isa::Avx2 && peer != "torch").then_some("cannot be held to AVX2")
}

/// Builds the Rust peers and gradflow with threads, and makes the virtual environment, if they are needed.
pub fn make_ready(peers: &[String], threads: &[usize]) -> Result<(), Box<dyn Error>> {
    make_python()?;
    if threads.iter().any(|&threads| threads > 1) {
        build_with_threads("peers")?;
    }
    let rust: Vec<&str> = peers.iter().map(String::as_str).filter(|peer| !is_python(peer)).collect();
    if rust.is_empty() { Ok(()) } else { rust_peers(&rust) }
}

/// Starts a side.
pub fn start(name: &str, settings: &Settings) -> Result<Worker, Box<dyn Error>> {
    let mut command = command(name, settings)?;
    for variable in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
        command.env(variable, settings.threads.to_string());
    }
    if settings.isa == Isa::Avx2 {
        command.env("GRADFLOW_ISA", "avx2");
        command.env("ATEN_CPU_CAPABILITY", "avx2");
        command.env("ONEDNN_MAX_CPU_ISA", "AVX2");
        command.env("MKL_ENABLE_INSTRUCTIONS", "AVX2");
    }
    Worker::start(name, command)
}

/// The process of a side.
fn command(name: &str, settings: &Settings) -> Result<Command, Box<dyn Error>> {
    let mut command = match name {
        "gradflow" if settings.threads > 1 => with_threads("peers"),
        "gradflow" => Command::new(env::current_exe()?),
        name if is_python(name) => return Ok(python_peer(name, settings.threads)),
        _ => return Ok(rust_peer(name)),
    };
    command.arg("worker");
    Ok(command)
}
