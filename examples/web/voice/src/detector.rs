//! The model, and the stream of sound that it listens to.

use gradflow::io::{LoadOptions, StateDict};
use gradflow::layers::Linear;
use gradflow::rand::Rng;
use gradflow::recurrent::GruCell;
use gradflow::sequential;
use gradflow::stream::Stream;

use crate::bands::{BANDS, Bands};

/// Units of the GRU.
pub const UNITS: usize = 24;

/// The weights that `src/bin/train.rs` saved, in `BF16`: see `shrink.py`.
const WEIGHTS: &[u8] = include_bytes!("../voice.safetensors");

sequential! {
    /// The logit of "this is voice", from the energies of bands.
    #[derive(Clone, Debug)]
    pub struct Model: Layer<f32> {
        /// [`BANDS`] features to [`UNITS`]
        pub cell: GruCell<f32>,
        /// `[1, UNITS]`
        pub head: Linear<f32>,
    }
}

impl Model {
    /// An untrained model.
    pub fn new(rng: &mut impl Rng) -> Self {
        Model { cell: GruCell::new(BANDS, UNITS, rng), head: Linear::new(UNITS, 1, rng) }
    }

    /// The trained model.
    ///
    /// # Panics
    /// Panics if the weights beside this crate are those of another model.
    pub fn trained() -> Self {
        let mut model = Model { cell: GruCell::zeros(BANDS, UNITS), head: Linear::zeros(UNITS, 1) };
        let file = StateDict::read_from(WEIGHTS).expect("the weights beside this crate");
        file.load_with(&LoadOptions::new().convert(), &mut model).expect("the weights beside this crate");
        model
    }
}

/// Detects voice in a stream of sound. Once made, it allocates nothing, so it can run on an audio thread.
#[derive(Debug)]
pub struct Detector {
    bands: Bands,
    stream: Stream<Model>,
    probability: f32,
}

impl Detector {
    /// A detector that has heard nothing.
    pub fn new(model: &Model) -> Self {
        let stream = Stream::new(model, BANDS).expect("a model of the bands");
        Detector { bands: Bands::new(), stream, probability: 0.0 }
    }

    /// Hears samples at [`RATE`](crate::bands::RATE), any number of them, and gives the probability that the last of them are voice.
    pub fn hear(&mut self, samples: &[f32]) -> f32 {
        for &sample in samples {
            if let Some(frame) = self.bands.push(sample) {
                let logit = self.stream.push(&frame)[0];
                self.probability = 1.0 / (1.0 + (-logit).exp());
                // A NaN would stay in the state.
                if self.probability.is_nan() {
                    self.stream.reset();
                    self.probability = 0.0;
                }
            }
        }
        self.probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bands::HOP;
    use crate::synth::Clip;

    /// The probability after each frame, heard in blocks.
    fn heard(samples: &[f32], block: usize) -> Vec<f32> {
        let mut detector = Detector::new(&Model::trained());
        let mut frames = Vec::new();
        for (n, block_samples) in samples.chunks(block).enumerate() {
            let probability = detector.hear(block_samples);
            let ended = (n * block + block_samples.len()) / HOP;
            frames.resize(ended, probability);
        }
        frames
    }

    #[test]
    fn voice_is_told_from_noise_as_loud() {
        let clip = Clip::trial();
        let mean = |voice: bool| {
            let frames = heard(&clip.samples, HOP).into_iter().zip(&clip.voice);
            let (sum, count) =
                frames.filter(|&(_, &is)| is == voice).fold((0.0, 0), |(sum, n), (p, _)| (sum + p, n + 1));
            sum / count as f32
        };
        let (voice, noise) = (mean(true), mean(false));
        assert!(voice > 0.75 && noise < 0.25, "voice {voice}, noise {noise}");
    }

    #[test]
    fn blocks_of_any_size_give_the_same_bits() {
        let samples = &Clip::trial().samples[..HOP * 40];
        let frames = heard(samples, HOP);
        assert_eq!(heard(samples, 32), frames);
        assert_eq!(heard(samples, 1), frames);
    }

    #[test]
    fn listening_allocates_nothing() {
        let clip = Clip::trial();
        let mut detector = Detector::new(&Model::trained());
        let counted = allocation_counter::measure(|| {
            clip.samples.chunks(128).for_each(|block| {
                detector.hear(block);
            });
        });
        assert_eq!(counted.count_total, 0);
    }

    #[test]
    fn a_sample_that_is_no_number_is_forgotten() {
        let clip = Clip::trial();
        let mut detector = Detector::new(&Model::trained());
        detector.hear(&[f32::NAN]);
        assert_eq!(detector.hear(&clip.samples[..HOP]), 0.0);
        assert!(detector.hear(&clip.samples[clip.samples.len() / 2..]) > 0.0);
    }
}
