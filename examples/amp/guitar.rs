//! A guitar: plucked strings (Karplus and Strong 1983), alone and as chords.

use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};

use super::circuit::SAMPLE_RATE;

/// The open strings, as semitones above E2.
const STRINGS: [u32; 6] = [0, 5, 10, 15, 19, 24];

/// Hz
const E2: f64 = 82.41;

/// `seconds` of notes and chords, loud and soft, between -1 and 1.
pub fn play(seconds: f64, seed: u64) -> Vec<f32> {
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut audio = vec![0.0; (seconds * SAMPLE_RATE as f64) as usize];
    let mut at = 0;
    while at < audio.len() {
        let length = (rng.random_range(0.1..0.7) * SAMPLE_RATE as f64) as usize;
        let end = (at + length).min(audio.len());
        let loudness = 10f64.powf(rng.random_range(-1.2..0.0));
        let fret = rng.random_range(0..12);
        let (first, count) =
            if rng.random_bool(0.5) { (rng.random_range(0..6), 1) } else { (rng.random_range(0..3), 3) };
        for (k, string) in STRINGS[first..first + count].iter().enumerate() {
            let frequency = E2 * 2f64.powf(f64::from(string + fret) / 12.0);
            // The pick takes some milliseconds for all strings.
            let start = (at + 200 * k).min(end);
            pluck(frequency, loudness / count as f64, rng, &mut audio[start..end]);
        }
        at = end;
    }
    audio.iter().map(|sample| *sample as f32).collect()
}

/// Adds a string to `out`: noise that circulates in a delay line, through a low-pass filter that damps the high frequencies first.
fn pluck(frequency: f64, loudness: f64, rng: &mut StdRng, out: &mut [f64]) {
    // The low pass delays by half a sample, and the all-pass below by the rest of the period.
    let period = SAMPLE_RATE as f64 / frequency - 0.5;
    let whole = (period - 0.5).floor();
    let delay = period - whole; // from 0.5 up to 1.5
    let coefficient = (1.0 - delay) / (1.0 + delay);
    let mut line: Vec<f64> = (0..whole as usize).map(|_| rng.random_range(-1.0..1.0)).collect();
    // Pickups give little above 5 kHz: each round removes 5 % there, and 20 % at 10 kHz.
    for _ in 0..12 {
        let mut before = *line.last().expect("a period of some samples");
        for value in &mut line {
            (before, *value) = (*value, (*value + before) / 2.0);
        }
    }
    let peak = line.iter().fold(0.0, |peak: f64, value| peak.max(value.abs()));
    line.iter_mut().for_each(|value| *value *= loudness / peak);
    // The string sounds for about a second, a high one for less.
    let decay = 0.001f64.powf(1.0 / (frequency * (1.5 - 0.001 * frequency)));
    let (mut last, mut all_pass) = (0.0, [0.0; 2]);
    let fade = out.len().saturating_sub(200);
    for (n, sample) in out.iter_mut().enumerate() {
        let k = n % line.len();
        let mean = decay * (line[k] + last) / 2.0;
        last = line[k];
        // The next note stops the string.
        *sample += if n < fade { last } else { last * (1.0 - (n - fade) as f64 / 200.0) };
        let tuned = coefficient * (mean - all_pass[1]) + all_pass[0];
        all_pass = [mean, tuned];
        line[k] = tuned;
    }
}
