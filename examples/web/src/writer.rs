//! A character model that continues typed text.

use gradflow::io::{LoadOptions, StateDict};
use gradflow::layers::{Embedding, Linear};
use gradflow::ndarray::arr2;
use gradflow::rand::distr::{Distribution, weighted::WeightedIndex};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::recurrent::GruCell;
use gradflow::{Causal, Layer, sequential};

/// The model that `char_lm` saved, in `BF16`: see `shrink.py`.
const MODEL: &[u8] = include_bytes!("../model.safetensors");

sequential! {
    /// Logits of the next character.
    #[derive(Clone, Debug)]
    pub struct CharLm: Layer<f32> {
        /// `[V, E]`
        pub embedding: Embedding<f32>,
        /// E features to H
        pub cell: GruCell<f32>,
        /// `[V, H]`
        pub head: Linear<f32>,
    }
}

/// The model, and its state in a text.
#[derive(Debug)]
pub struct Writer {
    model: CharLm,
    vocabulary: Vec<char>,
    state: <CharLm as Layer>::State,
    cache: <CharLm as Layer>::Cache,
    logits: Vec<f32>,
    rng: StdRng,
}

impl Writer {
    /// At the start of a text.
    ///
    /// # Panics
    /// Panics if the model beside this file is not the one that the crate was written for.
    pub fn new(seed: u64) -> Self {
        let file = StateDict::read_from(MODEL).expect("the model beside this file");
        let vocabulary: Vec<char> = file.metadata()["vocabulary"].chars().collect();
        let rows = |name: &str| file.shape(name).expect("a tensor of the model").to_vec();
        let (embedding, hidden) = (rows("embedding.weight"), rows("cell.weight_hh")[1]);
        let mut model = CharLm {
            embedding: Embedding::zeros(embedding[0], embedding[1]),
            cell: GruCell::zeros(embedding[1], hidden),
            head: Linear::zeros(hidden, embedding[0]),
        };
        file.load_with(&LoadOptions::new().convert(), &mut model).expect("the model beside this file");
        let (state, cache) = (model.zero_state(1), model.cache());
        let logits = vec![0.0; embedding[0]];
        Writer { model, vocabulary, state, cache, logits, rng: StdRng::seed_from_u64(seed) }
    }

    /// Back to the start of a text.
    pub fn restart(&mut self, seed: u64) {
        self.state = self.model.zero_state(1);
        self.logits.fill(0.0);
        self.rng = StdRng::seed_from_u64(seed);
    }

    /// Reads a character. One that the model does not know is `<unknown>`, its last class.
    pub fn read(&mut self, character: char) {
        let id = self.vocabulary.binary_search(&character).unwrap_or(self.vocabulary.len());
        let logits = self.model.step(&arr2(&[[id]]), &mut self.state, &mut self.cache);
        self.logits = logits.row(0).to_vec();
    }

    /// The logits of the next character.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The character of a class; for `<unknown>`, the replacement character.
    pub fn character(&self, class: usize) -> char {
        self.vocabulary.get(class).copied().unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    /// Draws the next character, at a temperature: a lower one prefers likelier characters.
    pub fn draw(&mut self, temperature: f32) -> char {
        let known = &self.logits[..self.vocabulary.len()];
        let largest = known.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights = known.iter().map(|logit| ((logit - largest) / temperature.max(1e-3)).exp());
        let id = WeightedIndex::new(weights).map_or(0, |weights| weights.sample(&mut self.rng));
        self.vocabulary[id]
    }
}
