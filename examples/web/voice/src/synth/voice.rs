//! A synthetic voice, by a source-filter model: a pulse from the glottis goes through a resonator for each formant.
//!
//! Frequencies of formants are those of Peterson and Barney 1952, "Control methods used in a study of the vowels", table II;
//! resonators, the pulse's filter, bandwidths and the upper formants are those of Klatt 1980, "Software for a cascade/parallel formant
//! synthesizer".

use std::f64::consts::{PI, TAU};

use gradflow::rand::{Rng, RngExt};

use super::{normal, scale_to_power};
use crate::bands::RATE;

/// F1, F2 and F3 of ten vowels in Hz, means of 33 men and of 28 women.
const VOWELS: [[[f64; 3]; 10]; 2] = [
    [
        [270.0, 2290.0, 3010.0],
        [390.0, 1990.0, 2550.0],
        [530.0, 1840.0, 2480.0],
        [660.0, 1720.0, 2410.0],
        [730.0, 1090.0, 2440.0],
        [570.0, 840.0, 2410.0],
        [440.0, 1020.0, 2240.0],
        [300.0, 870.0, 2240.0],
        [640.0, 1190.0, 2390.0],
        [490.0, 1350.0, 1690.0],
    ],
    [
        [310.0, 2790.0, 3310.0],
        [430.0, 2480.0, 3070.0],
        [610.0, 2330.0, 2990.0],
        [860.0, 2050.0, 2850.0],
        [850.0, 1220.0, 2810.0],
        [590.0, 920.0, 2710.0],
        [470.0, 1160.0, 2680.0],
        [370.0, 950.0, 2670.0],
        [760.0, 1400.0, 2780.0],
        [500.0, 1640.0, 1960.0],
    ],
];

/// The fourth and the fifth formant in Hz.
const UPPER: [f64; 2] = [3300.0, 3750.0];

/// Bandwidths of the five formants in Hz.
const BANDWIDTHS: [f64; 5] = [50.0, 70.0, 110.0, 250.0, 200.0];

/// A speaker.
struct Speaker {
    vowels: &'static [[f64; 3]; 10],
    /// The factor of the formants over those in the tables.
    tract: f64,
    /// Hz
    pitch: f64,
    /// The amount of breath that is added to the pulses.
    breath: f64,
}

impl Speaker {
    fn new(rng: &mut impl Rng) -> Self {
        let (vowels, pitches) = if rng.random() { (&VOWELS[0], 80.0..180.0) } else { (&VOWELS[1], 150.0..300.0) };
        Speaker {
            vowels,
            tract: rng.random_range(0.9..1.1),
            pitch: rng.random_range(pitches),
            breath: rng.random_range(0.0..0.1),
        }
    }

    fn formants(&self, rng: &mut impl Rng) -> [f64; 5] {
        let [f1, f2, f3] = self.vowels[rng.random_range(0..self.vowels.len())];
        // A fourth formant above a high third one.
        [f1, f2, f3, UPPER[0].max(f3 + 300.0), UPPER[1].max(f3 + 800.0)].map(|formant| formant * self.tract)
    }

    /// A vowel that becomes another one, `samples` long, as the pitch goes from the first to the second.
    fn vowel(&self, samples: usize, pitches: (f64, f64), rng: &mut impl Rng) -> Vec<f64> {
        let (from, to) = (self.formants(rng), self.formants(rng));
        let mut glottis = Resonator::new(0.0, 100.0);
        let mut tract = BANDWIDTHS.map(|bandwidth| Resonator::new(500.0, bandwidth));
        let (mut phase, mut before) = (0.0, 0.0);
        let mut sound = Vec::with_capacity(samples);
        for n in 0..samples {
            let share = n as f64 / samples as f64;
            if n % (RATE / 200) == 0 {
                for (k, resonator) in tract.iter_mut().enumerate() {
                    resonator.tune(from[k] + share * (to[k] - from[k]), BANDWIDTHS[k]);
                }
            }
            phase += (pitches.0 + share * (pitches.1 - pitches.0)) / RATE as f64;
            let mut pulse = 0.0;
            if phase >= 1.0 {
                // Pulses come a little early or late, as in a real voice.
                phase -= 1.0 + 0.01 * normal(rng);
                pulse = 1.0;
            }
            let source = glottis.pass(pulse) + self.breath * 0.01 * normal(rng);
            let lips = tract.iter_mut().fold(source, |sound, resonator| resonator.pass(sound));
            // The sound that leaves the lips is the change of the flow through them.
            sound.push(lips - before);
            before = lips;
        }
        sound
    }
}

/// `samples` of a voice with pauses, and at each sample, whether there is voice. The power of the voice is 1.
pub fn talk(samples: usize, rng: &mut impl Rng) -> (Vec<f64>, Vec<bool>) {
    let speaker = Speaker::new(rng);
    let (mut sound, mut voice) = (Vec::new(), Vec::new());
    while sound.len() < samples {
        // From 0.3 to 3 seconds; shorter pauses are likelier.
        let pause = 0.3 * 10f64.powf(rng.random_range(0.0..1.0));
        sound.resize(sound.len() + (pause * RATE as f64) as usize, 0.0);
        voice.resize(sound.len(), false);
        let mut pitch = speaker.pitch * rng.random_range(1.0..1.2);
        for _ in 0..rng.random_range(1..=6) {
            let next = (pitch * rng.random_range(0.8..1.15)).clamp(80.0, 300.0);
            sound.extend(syllable(&speaker, (pitch, next), rng));
            pitch = next;
        }
        voice.resize(sound.len(), true);
    }
    sound.truncate(samples);
    voice.truncate(samples);
    scale_to_power(&mut sound, |n| voice[n]);
    (sound, voice)
}

/// A vowel, often after a fricative, and the moment after it.
fn syllable(speaker: &Speaker, pitches: (f64, f64), rng: &mut impl Rng) -> Vec<f64> {
    let mut sound = Vec::new();
    if rng.random_bool(0.6) {
        sound.extend(shaped(fricative(duration(0.05..0.15, rng), rng), rng.random_range(0.05..0.4)));
    }
    let vowel = speaker.vowel(duration(0.08..0.3, rng), pitches, rng);
    sound.extend(shaped(vowel, rng.random_range(0.5..1.0)));
    sound.resize(sound.len() + duration(0.0..0.06, rng), 0.0);
    sound
}

/// Noise through a resonance, as between teeth.
fn fricative(samples: usize, rng: &mut impl Rng) -> Vec<f64> {
    let mut teeth = Resonator::new(rng.random_range(2000.0..6500.0), rng.random_range(500.0..1500.0));
    (0..samples).map(|_| teeth.pass(normal(rng))).collect()
}

/// Scales a sound to an amplitude, and gives it a soft start and end of at most 20 ms.
fn shaped(mut sound: Vec<f64>, amplitude: f64) -> Vec<f64> {
    scale_to_power(&mut sound, |_| true);
    let (samples, edge) = (sound.len(), (sound.len() / 2).min(RATE / 50));
    for (n, sample) in sound.iter_mut().enumerate() {
        let inside = n.min(samples - 1 - n).min(edge) as f64 / edge as f64;
        *sample *= amplitude * (0.5 - 0.5 * (PI * inside).cos());
    }
    sound
}

/// A number of samples, from a range of seconds.
fn duration(seconds: std::ops::Range<f64>, rng: &mut impl Rng) -> usize {
    (rng.random_range(seconds) * RATE as f64) as usize
}

/// A resonance at a frequency, with a bandwidth: y\[n\] = a x\[n\] + b y\[n-1\] + c y\[n-2\] (Klatt 1980).
pub struct Resonator {
    coefficients: [f64; 3],
    last: [f64; 2],
}

impl Resonator {
    /// At rest. Frequencies are in Hz.
    pub fn new(frequency: f64, bandwidth: f64) -> Self {
        let mut resonator = Resonator { coefficients: [0.0; 3], last: [0.0; 2] };
        resonator.tune(frequency, bandwidth);
        resonator
    }

    fn tune(&mut self, frequency: f64, bandwidth: f64) {
        let radius = (-PI * bandwidth / RATE as f64).exp();
        let (b, c) = (2.0 * radius * (TAU * frequency / RATE as f64).cos(), -radius * radius);
        self.coefficients = [1.0 - b - c, b, c];
    }

    /// The next sample.
    pub fn pass(&mut self, sample: f64) -> f64 {
        let [a, b, c] = self.coefficients;
        let next = a * sample + b * self.last[0] + c * self.last[1];
        self.last = [next, self.last[0]];
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resonator_is_loudest_at_its_frequency() {
        let power = |frequency: f64| {
            let mut resonator = Resonator::new(1000.0, 70.0);
            let tone = (0..RATE).map(|n| (TAU * frequency * n as f64 / RATE as f64).sin());
            tone.map(|sample| resonator.pass(sample).powi(2)).skip(RATE / 2).sum::<f64>()
        };
        let half = power(1035.0) / power(1000.0);
        assert!((0.45..0.55).contains(&half), "half the power at half the bandwidth, not {half}");
        assert!(power(1500.0) < 0.02 * power(1000.0));
    }
}
