//! Programs that are built by the way.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use crate::folder;

/// `cargo build` of this workspace, in release mode with the versions of its lock file.
pub fn cargo_build() -> Command {
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(folder()).args(["build", "--locked", "--release"]);
    build
}

/// In a target folder of their own: with the processor's instructions, as their documents recommend.
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

/// Runs a command to its end.
///
/// # Errors
/// If it cannot be started, or fails.
pub fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
