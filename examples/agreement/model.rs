//! The language models: how they are trained, and how often they choose the right verb.

use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    Layer, ZerosLike,
    clip::{ClipNorm, NonFiniteGradient},
    compose::BoxLayer,
    layers::{Embedding, Linear},
    loss::{Loss, SoftmaxCrossEntropy},
    optim::{Adam, Optimizer},
    sequential,
};

use crate::common::Cell;
use crate::grammar::{Language, Sentence, WORDS, batch};

/// Features of a word.
const FEATURES: usize = 16;

/// The largest norm of a gradient.
const CLIP: f64 = 1.0;

/// Sentences that are judged together.
const CHUNK: usize = 100;

sequential! {
    /// `[T, B]` words to `[T, B, V]` logits of the next ones.
    #[derive(Clone, Debug)]
    pub struct LanguageModel: Layer<f32> {
        pub embedding: Embedding<f32>,
        pub cell: BoxLayer<f32>,
        pub head: Linear<f32>,
    }
}

/// How a model is made and trained.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub cell: Cell,
    pub hidden: usize,
    pub learning_rate: f64,
}

/// What all trainings have in common.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub updates: usize,
    /// Sentences of an update.
    pub batch: usize,
    /// The language that they learn.
    pub language: Language,
}

/// The use of random numbers: each role of a seed has its own stream.
#[derive(Clone, Copy)]
pub enum Role {
    Weights,
    Training,
    Validation,
    Test,
}

/// The random numbers of a seed for a role.
pub fn stream(seed: u64, role: Role) -> StdRng {
    StdRng::seed_from_u64(4 * seed + role as u64)
}

impl Recipe {
    /// The model before it is trained.
    pub fn build(&self, seed: u64) -> LanguageModel {
        let rng = &mut stream(seed, Role::Weights);
        LanguageModel {
            embedding: Embedding::new(WORDS, FEATURES, rng),
            cell: self.cell.build(FEATURES, self.hidden, rng),
            head: Linear::new(self.hidden, WORDS, rng),
        }
    }

    /// Trains a model on sentences that are drawn as they are needed.
    ///
    /// # Errors
    /// If a gradient is not finite.
    pub fn train(&self, plan: &Plan, seed: u64) -> Result<LanguageModel, NonFiniteGradient> {
        let (mut model, rng) = (self.build(seed), &mut stream(seed, Role::Training));
        let (mut cache, mut grad) = (model.cache(), model.zeros_like());
        let (mut cross_entropy, mut optimizer) = (SoftmaxCrossEntropy::new(), Adam::new(self.learning_rate));
        for _ in 0..plan.updates {
            let sentences: Vec<Sentence> =
                (0..plan.batch).map(|_| Sentence::draw(plan.language.gap(rng), rng)).collect();
            let batch = batch(&sentences);
            let mut state = model.zero_state(plan.batch);
            let pass = model.pass(&batch, &mut state, &mut cache);
            let loss = cross_entropy.of(&pass, &batch.targets);
            pass.backward_into(loss.gradient(), &mut grad);
            optimizer.step_clipped(&mut model, &grad, ClipNorm::new(CLIP))?;
        }
        Ok(model)
    }
}

impl LanguageModel {
    /// The share of the sentences in which the verb is more probable than the same verb in the wrong number.
    pub fn accuracy(&self, sentences: &[Sentence]) -> f64 {
        let mut cache = self.cache();
        let right = sentences.chunks(CHUNK).map(|sentences| {
            let batch = batch(sentences);
            let logits = self.forward(batch.sequence().infer(), &mut self.zero_state(sentences.len()), &mut cache);
            let right = |(b, sentence): (usize, &Sentence)| {
                let [right, wrong] = sentence.forms().map(|form| logits[[sentence.verb - 1, b, form]]);
                right > wrong
            };
            sentences.iter().enumerate().filter(|&sentence| right(sentence)).count()
        });
        right.sum::<usize>() as f64 / sentences.len() as f64
    }
}
