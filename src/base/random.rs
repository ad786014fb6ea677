//! Random masks for dropout: a mask is a hash, so it needs no state.

use rand::{Rng, RngExt};

use super::error::mismatch;
use super::mode::Mode;
use crate::kernels::{Float, vectorised};

/// A probability of being dropped, and an id that makes its masks differ from those of others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomDrop {
    pub p: f64,
    id: u64,
}

impl RandomDrop {
    #[track_caller]
    pub fn new(layer: &str, p: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        if !(0.0..1.0).contains(&p) {
            mismatch(layer, "p", &"a probability in 0..1", &p)
        }
        RandomDrop { p, id: rng.random() }
    }

    /// The mask of a pass in `mode`; `None` if nothing is dropped.
    #[track_caller]
    pub fn mask(&self, layer: &str, mode: Option<Mode>) -> Option<Mask> {
        match mode {
            Some(Mode::Train { seed }) => (self.p > 0.0).then(|| Mask {
                key: mix(mix(seed) ^ self.id),
                threshold: (self.p * 2f64.powi(64)) as u64,
                scale: 1.0 / (1.0 - self.p),
            }),
            Some(Mode::Eval | Mode::Infer) => None,
            None => mismatch(layer, "x", &"a mode: say x.train(seed), x.eval() or x.infer()", &"none"),
        }
    }
}

/// The mask of one pass: elements that are kept are multiplied by `scale`, the others by 0.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    key: u64,
    threshold: u64,
    scale: f64,
}

impl Mask {
    /// The mask of part `i`.
    pub fn part(self, i: usize) -> Mask {
        Mask { key: mix(self.key.wrapping_add(i as u64)), ..self }
    }

    /// The factor for the whole, if it is kept or dropped at once.
    pub fn factor(self) -> f64 {
        if mix(self.key) >= self.threshold { self.scale } else { 0.0 }
    }
}

/// Whether the mask drops element `k`.
#[inline(always)]
pub(crate) fn chosen(mask: Mask, k: usize) -> bool {
    mix(mask.key.wrapping_add(GOLDEN.wrapping_mul(k as u64))) < mask.threshold
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A step of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of `key`.
#[inline(always)]
fn mix(key: u64) -> u64 {
    let z = key.wrapping_add(GOLDEN);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

vectorised! {
    /// y = m ∘ x, for one row. It multiplies instead of selecting, so NaN is not dropped.
    pub(crate) fn drop_row<'a, F: Float>(mask: Mask, x: &'a [F], y: &'a mut [F]) {
        let (zero, scale) = (F::zero(), F::of(mask.scale));
        let mut key = mask.key;
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * if mix(key) >= mask.threshold { scale } else { zero };
            key = key.wrapping_add(GOLDEN);
        }
    }
}
