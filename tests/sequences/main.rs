//! Sequences: lengths, chunks, streams, an encoder with its decoder, attention.

#[path = "../common/mod.rs"]
mod common;

mod attention;
mod chunks;
mod encoder_decoder;
mod lengths;
mod many_to_one;
mod positions;
mod streaming;
