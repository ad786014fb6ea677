//! Sequences: lengths, chunks, streams, convolutions, an encoder with its decoder, attention.

#[path = "../common/mod.rs"]
mod common;

mod attention;
mod chunks;
mod convolution;
mod encoder_decoder;
mod lengths;
mod many_to_one;
mod positions;
mod streaming;
