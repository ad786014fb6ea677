//! The peers, and how their processes start.

use std::env;
use std::error::Error;
use std::process::Command;

use driver::Worker;
use driver::build::{build_with_threads, make_python, python_peer, rust_peer, rust_peers, with_threads};

/// All peers, those of PyTorch first.
pub const ALL: [&str; 4] = ["torch", "torch_compile", "candle", "burn"];

pub fn is_torch(peer: &str) -> bool {
    peer.starts_with("torch")
}

/// Builds the Rust peers and gradflow with threads, and makes the virtual environment, if they are needed.
pub fn make_ready(peers: &[&str], threads: &[usize]) -> Result<(), Box<dyn Error>> {
    make_python()?;
    if threads.iter().any(|&threads| threads > 1) {
        build_with_threads("steps")?;
    }
    let rust: Vec<&str> = peers.iter().copied().filter(|peer| !is_torch(peer)).collect();
    if rust.is_empty() { Ok(()) } else { rust_peers(&rust) }
}

/// Starts a side.
pub fn start(name: &str, threads: usize) -> Result<Worker, Box<dyn Error>> {
    let mut command = match name {
        "gradflow" => {
            let own = if threads > 1 { with_threads("steps") } else { Command::new(env::current_exe()?) };
            let mut command = own;
            command.arg("worker");
            command
        }
        name if is_torch(name) => python_peer(name, threads),
        name => rust_peer(name),
    };
    for variable in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
        command.env(variable, threads.to_string());
    }
    Worker::start(name, command)
}
