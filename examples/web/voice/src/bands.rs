//! The input of the detector: the energies of bands, a hundred times a second.

use std::f64::consts::TAU;

/// Samples a second.
pub const RATE: usize = 16_000;

/// Samples from frame to frame: 10 ms.
pub const HOP: usize = 160;

/// The newest samples, from which a frame is computed: 32 ms.
pub const WINDOW: usize = 512;

/// Bands, as wide as each other on the mel scale.
pub const BANDS: usize = 20;

/// The lowest and the highest frequency, in Hz.
const RANGE: (f64, f64) = (80.0, 7600.0);

/// Added to every energy: less than the rounding of 16 bits.
const FLOOR: f32 = 1e-9;

/// Turns samples into frames. Once made, it allocates nothing.
#[derive(Clone, Debug)]
pub struct Bands {
    /// The last samples, in a ring.
    recent: Vec<f32>, // [WINDOW]
    /// Where the next sample goes.
    next: usize,
    window: Vec<f32>, // [WINDOW]
    /// Where each frequency of the spectrum lies between the middles of bands: from 0, below the first, to `BANDS + 1`.
    places: Vec<f32>, // [WINDOW / 2]
    fourier: Fourier,
}

impl Default for Bands {
    fn default() -> Self {
        Self::new()
    }
}

impl Bands {
    /// In the state after silence.
    pub fn new() -> Self {
        let hann = |n| (0.5 - 0.5 * (TAU * n as f64 / WINDOW as f64).cos()) as f32;
        let (low, high) = (mel(RANGE.0), mel(RANGE.1));
        let place = |k| {
            let frequency = (k * RATE) as f64 / WINDOW as f64;
            ((mel(frequency) - low) / (high - low) * (BANDS + 1) as f64) as f32
        };
        Bands {
            recent: vec![0.0; WINDOW],
            next: 0,
            window: (0..WINDOW).map(hann).collect(),
            places: (0..WINDOW / 2).map(place).collect(),
            fourier: Fourier::new(),
        }
    }

    /// Takes a sample. Every [`HOP`] samples it gives a frame: the logarithms of the bands' energies, scaled to numbers around 0.
    pub fn push(&mut self, sample: f32) -> Option<[f32; BANDS]> {
        self.recent[self.next % WINDOW] = sample;
        self.next += 1;
        let due = self.next.is_multiple_of(HOP);
        self.next %= WINDOW * HOP;
        due.then(|| self.frame())
    }

    fn frame(&mut self) -> [f32; BANDS] {
        for (n, weight) in self.window.iter().enumerate() {
            self.fourier.values[n] = [weight * self.recent[(self.next + n) % WINDOW], 0.0];
        }
        self.fourier.transform();
        let mut energies = [0.0; BANDS];
        for (&[re, im], &place) in self.fourier.values.iter().zip(&self.places) {
            if !(0.0..(BANDS + 1) as f32).contains(&place) {
                continue;
            }
            // The triangle of a band falls while that of the next one rises. Band b has its middle at the place b + 1.
            let (power, above, share) = (re * re + im * im, place as usize, place.fract());
            if above < BANDS {
                energies[above] += share * power;
            }
            if above > 0 {
                energies[above - 1] += (1.0 - share) * power;
            }
        }
        // The squares of a Hann window have the sum 3/8 of its length.
        energies.map(|energy| ((energy / (0.375 * WINDOW as f32) + FLOOR).ln() + 8.0) / 4.0)
    }
}

/// The mel scale: steps of it sound as large as each other (O'Shaughnessy 1987, "Speech communication: human and machine").
fn mel(frequency: f64) -> f64 {
    2595.0 * (1.0 + frequency / 700.0).log10()
}

/// The discrete Fourier transform of [`WINDOW`] numbers, in place (Cooley and Tukey 1965).
#[derive(Clone, Debug)]
struct Fourier {
    /// Real and imaginary parts.
    values: Vec<[f32; 2]>, // [WINDOW]
    /// Cosines and sines of -2πk / `WINDOW`.
    roots: Vec<[f32; 2]>, // [WINDOW / 2]
}

impl Fourier {
    fn new() -> Self {
        let root = |k| {
            let angle = -TAU * k as f64 / WINDOW as f64;
            [angle.cos() as f32, angle.sin() as f32]
        };
        Fourier { values: vec![[0.0; 2]; WINDOW], roots: (0..WINDOW / 2).map(root).collect() }
    }

    fn transform(&mut self) {
        for n in 0..WINDOW {
            let reversed = n.reverse_bits() >> (usize::BITS - WINDOW.ilog2());
            if n < reversed {
                self.values.swap(n, reversed);
            }
        }
        let mut half = 1;
        while half < WINDOW {
            for part in self.values.chunks_exact_mut(2 * half) {
                let (evens, odds) = part.split_at_mut(half);
                let roots = self.roots.iter().step_by(WINDOW / 2 / half);
                for ((even, odd), &[c, s]) in evens.iter_mut().zip(odds).zip(roots) {
                    let turned = [odd[0] * c - odd[1] * s, odd[0] * s + odd[1] * c];
                    *odd = [even[0] - turned[0], even[1] - turned[1]];
                    *even = [even[0] + turned[0], even[1] + turned[1]];
                }
            }
            half *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};

    fn noise(samples: usize) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(0);
        (0..samples).map(|_| rng.random_range(-0.5..0.5)).collect()
    }

    /// The frame of the last [`WINDOW`] samples, from its definition, in f64.
    fn expected(samples: &[f32]) -> [f64; BANDS] {
        let start = samples.len() - WINDOW;
        let power = |k: usize| {
            let (mut re, mut im) = (0.0, 0.0);
            for (n, &sample) in samples[start..].iter().enumerate() {
                let hann = (std::f64::consts::PI * n as f64 / WINDOW as f64).sin().powi(2);
                let angle = TAU * (k * n) as f64 / WINDOW as f64;
                re += hann * f64::from(sample) * angle.cos();
                im -= hann * f64::from(sample) * angle.sin();
            }
            re * re + im * im
        };
        let step = (mel(RANGE.1) - mel(RANGE.0)) / (BANDS + 1) as f64;
        std::array::from_fn(|band| {
            let middle = mel(RANGE.0) + (band + 1) as f64 * step;
            let share = |k: usize| (1.0 - ((mel((k * RATE) as f64 / WINDOW as f64) - middle) / step).abs()).max(0.0);
            let energy: f64 = (0..WINDOW / 2).map(|k| share(k) * power(k)).sum();
            ((energy / (0.375 * WINDOW as f64) + f64::from(FLOOR)).ln() + 8.0) / 4.0
        })
    }

    #[test]
    fn bands_are_those_of_a_plain_transform_in_f64() {
        let samples = noise(WINDOW);
        let expected = expected(&samples);
        // Also after many rounds of the ring.
        for before in [HOP, 3 * WINDOW * HOP + HOP] {
            let mut bands = Bands::new();
            for _ in 0..before - WINDOW % HOP {
                bands.push(0.25);
            }
            let last = samples.iter().map(|&sample| bands.push(sample)).last().flatten().expect("a frame is due");
            for (band, (here, expected)) in last.into_iter().zip(expected).enumerate() {
                assert!((f64::from(here) - expected).abs() < 1e-5, "band {band}: {here}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_tone_is_in_the_band_of_its_frequency() {
        let mut bands = Bands::new();
        let tone = (0..WINDOW * 2).map(|n| (TAU * 1000.0 * n as f64 / RATE as f64).sin() as f32);
        let frame = tone.filter_map(|sample| bands.push(sample)).last().expect("frames");
        let loudest = (0..BANDS).max_by(|&a, &b| frame[a].total_cmp(&frame[b])).expect("bands");
        let place = (mel(1000.0) - mel(RANGE.0)) / (mel(RANGE.1) - mel(RANGE.0)) * (BANDS + 1) as f64;
        assert_eq!(loudest, place.round() as usize - 1);
    }
}
