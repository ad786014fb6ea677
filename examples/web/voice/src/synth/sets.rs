//! The clips for training, and those that no training saw.

use gradflow::rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{Clip, Noise};

/// Seconds of a clip.
pub const SECONDS: usize = 5;

/// Clips of a training.
const TRAINING: usize = 640;

/// Clips to judge on, for each seed and kind of noise.
const JUDGED: usize = 20;

/// Added to a seed to judge on: no training has such a seed.
const HELD_OUT: u64 = 1 << 32;

/// The clips of a training with this seed. The noise changes in half of them, and in a quarter there is less of it than in the
/// clips to judge on, as in a quiet room.
pub fn training(seed: u64) -> Vec<Clip> {
    let rng = &mut StdRng::seed_from_u64(seed);
    let clip = |_| {
        let first = any(rng);
        let noises = [first, if rng.random() { first } else { any(rng) }];
        let snr = if rng.random_bool(0.25) { rng.random_range(20.0..40.0) } else { noisy(rng) };
        Clip::new(SECONDS, noises, snr, rng)
    };
    (0..TRAINING).map(clip).collect()
}

/// Clips to judge on at 0 to 20 dB, with one kind of noise or, for `None`, with any two.
pub fn held_out(noise: Option<Noise>, seed: u64) -> Vec<Clip> {
    let kind = noise.map_or(Noise::ALL.len(), |noise| noise as usize);
    let rng = &mut StdRng::seed_from_u64(HELD_OUT + (Noise::ALL.len() as u64 + 1) * seed + kind as u64);
    let clip = |_| {
        let noises = [(); 2].map(|()| noise.unwrap_or_else(|| any(rng)));
        Clip::new(SECONDS, noises, noisy(rng), rng)
    };
    (0..JUDGED).map(clip).collect()
}

fn any(rng: &mut impl Rng) -> Noise {
    Noise::ALL[rng.random_range(0..Noise::ALL.len())]
}

/// dB
fn noisy(rng: &mut impl Rng) -> f64 {
    rng.random_range(0.0..20.0)
}
