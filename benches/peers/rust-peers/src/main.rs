//! The peers that are Rust crates: `rust-peers NAME` answers the driver's requests.

#[cfg(feature = "burn")]
mod burn;
#[cfg(feature = "burn")]
mod burn_steps;
#[cfg(feature = "candle")]
mod candle;
#[cfg(feature = "candle")]
mod candle_steps;
#[allow(dead_code)] // each peer needs a part of it
mod layout;
#[cfg(feature = "nexus-inference")]
mod nexus;
#[cfg(feature = "rust-lstm")]
mod rust_lstm;
#[cfg(feature = "rustyml")]
mod rustyml;
mod version;

use std::process::ExitCode;

use protocol::Peer;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let peer: Box<dyn Peer> = match name.as_str() {
        #[cfg(feature = "burn")]
        "burn" => Box::new(burn::Burn),
        #[cfg(feature = "candle")]
        "candle" => Box::new(candle::Candle),
        #[cfg(feature = "nexus-inference")]
        "nexus-inference" => Box::new(nexus::Nexus),
        #[cfg(feature = "rust-lstm")]
        "rust-lstm" => Box::new(rust_lstm::RustLstm),
        #[cfg(feature = "rustyml")]
        "rustyml" => Box::new(rustyml::RustyMl),
        _ => {
            eprintln!(
                "{name:?}: not one of the peers that were built: burn, candle, nexus-inference, rust-lstm, rustyml"
            );
            return ExitCode::FAILURE;
        }
    };
    match protocol::serve(peer.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
