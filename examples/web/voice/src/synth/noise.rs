//! Noise: sounds without voice.

use std::f64::consts::TAU;

use gradflow::rand::{Rng, RngExt};

use super::voice::Resonator;
use super::{normal, scale_to_power};
use crate::bands::RATE;

/// A kind of noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Noise {
    /// Noise of the same power at all frequencies.
    White,
    /// Noise of the same power in all octaves.
    Pink,
    /// The mains and its harmonics, with a little white noise.
    Hum,
    /// Short knocks, with a little white noise.
    Clicks,
    /// Chords of steady tones, as of an organ.
    Chords,
}

impl Noise {
    /// All kinds.
    pub const ALL: [Noise; 5] = [Noise::White, Noise::Pink, Noise::Hum, Noise::Clicks, Noise::Chords];

    /// Samples of this noise, of power 1.
    pub fn sound(self, samples: usize, rng: &mut impl Rng) -> Vec<f64> {
        let mut sound = match self {
            Noise::White => white(samples, 1.0, rng),
            Noise::Pink => pink(samples, rng),
            Noise::Hum => hum(samples, rng),
            Noise::Clicks => clicks(samples, rng),
            Noise::Chords => chords(samples, rng),
        };
        scale_to_power(&mut sound, |_| true);
        sound
    }
}

fn white(samples: usize, amplitude: f64, rng: &mut impl Rng) -> Vec<f64> {
    (0..samples).map(|_| amplitude * normal(rng)).collect()
}

/// White noises of the same power through low-pass filters an octave apart.
fn pink(samples: usize, rng: &mut impl Rng) -> Vec<f64> {
    let mut filters: Vec<(f64, f64)> =
        (0..9).map(|octave| (TAU * 15.0 * f64::from(1 << octave) / RATE as f64, 0.0)).collect();
    let mut sample = || {
        let outputs = filters.iter_mut().map(|(share, output)| {
            *output += share.min(1.0) * (normal(rng) / share.sqrt() - *output);
            *output
        });
        outputs.sum()
    };
    (0..samples).map(|_| sample()).collect()
}

fn hum(samples: usize, rng: &mut impl Rng) -> Vec<f64> {
    let mains = if rng.random() { 50.0 } else { 60.0 };
    let mut sound = white(samples, rng.random_range(0.01..0.1), rng);
    for harmonic in 1..=20 {
        let amplitude = rng.random_range(0.0..1.0) / f64::from(harmonic);
        add_tone(&mut sound, mains * f64::from(harmonic), amplitude, rng);
    }
    sound
}

fn clicks(samples: usize, rng: &mut impl Rng) -> Vec<f64> {
    let mut sound = white(samples, rng.random_range(0.001..0.02), rng);
    let rate = rng.random_range(1.0..8.0) / RATE as f64;
    let mut start = 0;
    while start < samples {
        start += (-rng.random_range(1e-6f64..1.0).ln() / rate) as usize;
        let mut knock = Resonator::new(rng.random_range(200.0..6000.0), rng.random_range(50.0..1000.0));
        let mut struck = rng.random_range(0.2..1.0);
        for sample in sound.iter_mut().skip(start).take(RATE / 10) {
            *sample += knock.pass(struck);
            struck = 0.0;
        }
    }
    sound
}

fn chords(samples: usize, rng: &mut impl Rng) -> Vec<f64> {
    let mut sound = white(samples, rng.random_range(0.001..0.02), rng);
    let mut start = 0;
    while start < samples {
        let end = (start + (rng.random_range(0.3..1.5) * RATE as f64) as usize).min(samples);
        let mut chord = vec![0.0; end - start];
        for _ in 0..rng.random_range(2..=4) {
            // Semitones from 82 Hz, the lowest string of a guitar, to three octaves above.
            let note = 82.4 * 2f64.powf(f64::from(rng.random_range(0..36)) / 12.0);
            for partial in 1..=8 {
                let amplitude = rng.random_range(0.2..1.0) / f64::from(partial);
                add_tone(&mut chord, note * f64::from(partial), amplitude, rng);
            }
        }
        let edge = (RATE / 100).min(chord.len()) as f64;
        for (n, tone) in chord.iter().enumerate() {
            let inside = (n.min(chord.len() - n) as f64 / edge).min(1.0);
            sound[start + n] += inside * tone;
        }
        start = end;
    }
    sound
}

fn add_tone(sound: &mut [f64], frequency: f64, amplitude: f64, rng: &mut impl Rng) {
    let phase = rng.random_range(0.0..TAU);
    for (n, sample) in sound.iter_mut().enumerate() {
        *sample += amplitude * (TAU * frequency * n as f64 / RATE as f64 + phase).sin();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bands::{BANDS, Bands};
    use gradflow::rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn octaves_of_pink_noise_have_the_same_power() {
        let rng = &mut StdRng::seed_from_u64(0);
        let sound = Noise::Pink.sound(20 * RATE, rng);
        let mut bands = Bands::new();
        let mut means = [0.0; BANDS];
        for frame in sound.iter().filter_map(|&sample| bands.push(sample as f32)) {
            for (mean, feature) in means.iter_mut().zip(frame) {
                *mean += feature / 2000.0;
            }
        }
        // From 1 kHz on, the width of a band is proportional to its frequency, so each has the same share of an octave's power.
        let (low, high) = (means[8], means[18]);
        assert!((low - high).abs() < 0.25, "{low} and {high}, of which 0.25 is a factor of 2.7");
    }
}
