//! Voice detection on a stream of sound: a small GRU over the energies of bands, a hundred times a second.
//!
//! The page's audio thread calls the functions in [`exports`]. The detector was trained on synthetic voices alone, those of
//! [`synth`]: `src/bin/train.rs` trains it, `src/bin/judge.rs` counts its errors, and `src/bin/clip.rs` writes a sound to try it on.

pub mod bands;
pub mod detector;
#[allow(unsafe_code)]
pub mod exports;
pub mod judgement;
pub mod synth;
