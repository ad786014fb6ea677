//! An LSTM that reads the letters and gives phonemes and blanks, trained by CTC.

use gradflow::loss::ctc::{BeamSearch, greedy};
use gradflow::metrics::EditDistance;
use gradflow::ndarray::Array3;
use gradflow::rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use gradflow::{
    Layer, Sequence, ZerosLike,
    clip::ClipNorm,
    compose::BoxLayer,
    layers::{Embedding, Linear},
    loss::{Ctc, Loss},
    optim::{Adam, Optimizer, Schedule},
    recurrent::{BiLstm, Lstm},
};

use crate::common::Failure;
use crate::words::{LETTERS, STEPS, Word, Words, batch};

/// Features of a letter.
const EMBEDDED: usize = 32;

/// Words of an update.
const BATCH: usize = 64;

/// The number of words that go through a model together if none is trained.
const CHUNK: usize = 250;

/// The number of prefixes that the beam search keeps, and of classes with which it extends them at each step.
const BEAM: usize = 8;

/// `[T, B, V]`, and the length of each word.
type Logits = (Array3<f32>, Vec<usize>);

type Net = (Embedding<f32>, BoxLayer<f32, gradflow::compose::WholeSequence>, Linear<f32>);

/// Which way the LSTM reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// From both ends.
    Both,
    /// From the first letter to the last: the output at a letter does not depend on later letters.
    Forwards,
}

/// The model to train, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub reading: Reading,
    /// Units of a direction.
    pub hidden: usize,
    pub epochs: usize,
    pub learning_rate: f64,
}

/// The error rates over words: edits for each phoneme, and words with a mistake.
#[derive(Clone, Copy, Debug)]
pub struct Errors {
    pub phonemes: f64,
    pub words: f64,
}

impl Errors {
    /// The errors of the phonemes `said` for each of `words`.
    pub fn of(words: &[Word], said: impl Iterator<Item = Vec<usize>>) -> Errors {
        let mut distance = EditDistance::new();
        words.iter().zip(said).for_each(|(word, said)| distance.add(&said, &word.phonemes));
        Errors { phonemes: distance.value(), words: 1.0 - distance.exact() }
    }
}

/// How a training went.
pub struct Outcome {
    /// Phoneme errors on the validation words before the first epoch and after each.
    pub curve: Vec<f64>,
    /// On the test words, by the likeliest class at each step.
    pub test: Errors,
    /// On the test words, by the beam search.
    pub beam: Errors,
    /// The phonemes said for each test word, by the beam search.
    pub said: Vec<Vec<usize>>,
    pub parameters: usize,
}

impl Plan {
    fn build(&self, classes: usize, rng: &mut StdRng) -> Net {
        let embedding = Embedding::new(STEPS * LETTERS, EMBEDDED, rng);
        match self.reading {
            Reading::Both => {
                let lstm: BiLstm<f32> = Lstm::builder(EMBEDDED, self.hidden).num_layers(1).bidirectional().build(rng);
                (embedding, BoxLayer::whole(lstm), Linear::new(2 * self.hidden, classes, rng))
            }
            Reading::Forwards => {
                let lstm = Lstm::builder(EMBEDDED, self.hidden).build(rng);
                (embedding, BoxLayer::whole(lstm), Linear::new(self.hidden, classes, rng))
            }
        }
    }

    /// Trains on all words of `words.train`, and tests.
    ///
    /// # Errors
    /// If a gradient is not finite.
    pub fn train(&self, words: &Words, seed: u64) -> Result<Outcome, Failure> {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut net = self.build(words.classes(), rng);
        let (mut cache, mut grad, mut ctc) = (net.cache(), net.zeros_like(), Ctc::<f32>::new());
        let updates = self.epochs * words.train.len().div_ceil(BATCH);
        let schedule = Schedule::one_cycle(self.learning_rate, updates as u64);
        let mut optimizer = Adam::new(self.learning_rate);
        let mut order: Vec<&Word> = words.train.iter().collect();
        let (mut curve, mut step) = (vec![self.evaluate(&net, &words.validation).0.phonemes], 0);
        for _ in 0..self.epochs {
            order.shuffle(rng);
            for part in order.chunks(BATCH) {
                let (ids, lengths) = batch(part);
                let targets: Vec<_> = part.iter().map(|word| word.phonemes.clone()).collect();
                let x = Sequence::from(&ids).with_lengths(&lengths).expect("one length for each word");
                let mut state = net.zero_state(part.len());
                let pass = net.pass(x.train((seed << 32) + step), &mut state, &mut cache);
                let loss = ctc.of(&pass, &targets);
                pass.backward_into(loss.gradient(), &mut grad);
                optimizer.set_learning_rate(schedule.learning_rate(step));
                optimizer.step_clipped(&mut net, &grad, ClipNorm::new(1.0))?;
                step += 1;
            }
            curve.push(self.evaluate(&net, &words.validation).0.phonemes);
        }
        let (test, logits) = self.evaluate(&net, &words.test);
        let search = BeamSearch::new(BEAM).best_classes(BEAM);
        let said: Vec<Vec<usize>> = logits
            .iter()
            .flat_map(|(y, lengths)| {
                let y = Sequence::from(y).with_lengths(lengths).expect("one length for each word");
                search.decode(y).into_iter().map(|best| best.into_iter().next().expect("one").labels)
            })
            .collect();
        let beam = Errors::of(&words.test, said.iter().cloned());
        Ok(Outcome { curve, test, beam, said, parameters: gradflow::TensorsExt::element_count(&net) })
    }

    /// The errors by the likeliest class at each step, and the logits of each chunk with its lengths.
    fn evaluate(&self, net: &Net, words: &[Word]) -> (Errors, Vec<Logits>) {
        let (mut cache, mut said, mut logits) = (net.cache(), Vec::new(), Vec::new());
        for part in words.chunks(CHUNK) {
            let (ids, lengths) = batch(&part.iter().collect::<Vec<_>>());
            let x = Sequence::from(&ids).with_lengths(&lengths).expect("one length for each word").infer();
            let y = net.forward(x, &mut net.zero_state(part.len()), &mut cache).to_owned();
            said.extend(greedy(x.with(y.view()), 0));
            logits.push((y, lengths));
        }
        (Errors::of(words, said.into_iter()), logits)
    }
}
