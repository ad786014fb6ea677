//! The peers that are Rust crates: `rust-peers NAME` answers the driver's requests.

mod burn;
mod candle;
mod layout;
mod rust_lstm;
mod rustyml;

use std::process::ExitCode;

use protocol::Peer;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let peer: Box<dyn Peer> = match name.as_str() {
        "burn" => Box::new(burn::Burn),
        "candle" => Box::new(candle::Candle),
        "rust-lstm" => Box::new(rust_lstm::RustLstm),
        "rustyml" => Box::new(rustyml::RustyMl),
        _ => {
            eprintln!("{name}: not one of burn, candle, rust-lstm, rustyml");
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
