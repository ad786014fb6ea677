//! Sounds for training and judging: synthetic voices in synthetic noise.

mod noise;
pub mod sets;
mod voice;

pub use noise::Noise;

use std::f64::consts::TAU;

use gradflow::rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::bands::{HOP, RATE, WINDOW};

/// A voice in noise.
#[derive(Clone, Debug)]
pub struct Clip {
    /// At [`RATE`].
    pub samples: Vec<f32>,
    /// Whether there is voice in the middle of each frame.
    pub voice: Vec<bool>,
}

impl Clip {
    /// A clip of this many seconds. From a random moment on, the noise is the second one. `snr` is the power of the voice, while
    /// there is one, over that of the noise, in dB. The loudness is drawn.
    pub fn new(seconds: usize, noises: [Noise; 2], snr: f64, rng: &mut impl Rng) -> Self {
        let (sound, voice) = talk_in(noises, seconds, snr, rng);
        Clip::of(&sound, &voice, rng.random_range(-40.0..-15.0))
    }

    /// A second of each kind of noise, and then five seconds of a voice of the same loudness, in noise.
    pub fn trial() -> Self {
        let rng = &mut StdRng::seed_from_u64(0);
        let mut sound: Vec<f64> = Noise::ALL.into_iter().flat_map(|noise| noise.sound(RATE, rng)).collect();
        let mut voice = vec![false; sound.len()];
        let (talk, talks) = talk_in([Noise::Pink; 2], 5, 15.0, rng);
        sound.extend(talk);
        voice.extend(talks);
        Clip::of(&sound, &voice, -25.0)
    }

    /// Sound of power 1, at a loudness in dB; the largest amplitude has 0.
    fn of(sound: &[f64], voice: &[bool], loudness: f64) -> Self {
        let samples = sound.iter().map(|sample| (decibels(loudness) * sample).clamp(-1.0, 1.0) as f32).collect();
        let middles = (1..=voice.len() / HOP).map(|frame| (frame * HOP).saturating_sub(WINDOW / 2));
        Clip { samples, voice: middles.map(|middle| voice[middle]).collect() }
    }
}

/// A voice in noise, and at each sample, whether there is voice.
fn talk_in(noises: [Noise; 2], seconds: usize, snr: f64, rng: &mut impl Rng) -> (Vec<f64>, Vec<bool>) {
    let (mut sound, voice) = voice::talk(seconds * RATE, rng);
    let change = rng.random_range(0..=sound.len());
    let mut noise = noises[0].sound(change, rng);
    noise.extend(noises[1].sound(sound.len() - change, rng));
    for (sample, noise) in sound.iter_mut().zip(noise) {
        *sample += decibels(-snr) * noise;
    }
    (sound, voice)
}

/// The amplitude of a level.
fn decibels(level: f64) -> f64 {
    10f64.powf(level / 20.0)
}

/// A standard normal number (Box and Muller 1958).
fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * rng.random_range(f64::MIN_POSITIVE..1.0).ln()).sqrt();
    radius * (TAU * rng.random_range(0.0..1.0)).cos()
}

/// Scales a sound so that the mean square of the samples that count is 1, if there are any and it is not 0.
fn scale_to_power(sound: &mut [f64], counts: impl Fn(usize) -> bool) {
    let counted = || sound.iter().enumerate().filter(|&(n, _)| counts(n)).map(|(_, sample)| sample * sample);
    let (power, count) = (counted().sum::<f64>(), counted().count());
    if power > 0.0 {
        let amplitude = (count as f64 / power).sqrt();
        sound.iter_mut().for_each(|sample| *sample *= amplitude);
    }
}
