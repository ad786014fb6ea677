//! The functions that JavaScript calls. The samples stay at the address of [`voice_block`] for as long as the module lives.

use std::cell::RefCell;

use crate::detector::{Detector, Model};

/// Samples that an audio thread hands over at a time.
pub const BLOCK: usize = 128;

thread_local! {
    static BLOCK_SAMPLES: RefCell<[f32; BLOCK]> = const { RefCell::new([0.0; BLOCK]) };
    static DETECTOR: RefCell<Option<Detector>> = const { RefCell::new(None) };
}

/// Makes a new detector, which has heard nothing. Everything is allocated here.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn voice_start() {
    DETECTOR.set(Some(Detector::new(&Model::trained())));
}

/// The address at which to put [`BLOCK`] samples.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn voice_block() -> *mut f32 {
    BLOCK_SAMPLES.with_borrow_mut(|block| block.as_mut_ptr())
}

/// Hears the block, and gives the probability of voice: 0 before the start.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn voice_hear() -> f32 {
    BLOCK_SAMPLES.with_borrow(|block| {
        DETECTOR.with_borrow_mut(|detector| detector.as_mut().map_or(0.0, |detector| detector.hear(block)))
    })
}
