//! One training: on short sequences, judged on long ones.

use std::ops::Range;

use gradflow::ndarray::{Array2, ArrayView3, s};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    Layer, Sequence, TensorsExt, ZerosLike,
    clip::ClipNorm,
    compose::BoxLayer,
    layers::{Embedding, Linear},
    loss::{Loss, SoftmaxCrossEntropy},
    optim::{Adam, Optimizer},
    recurrent::{Gru, Lstm, MinGru, MinLstm, Rnn, Slstm},
};

use crate::common::Failure;
use crate::group::Group;

/// The steps of a training sequence. The product is a target at each of them.
pub const TRAINED: usize = 40;

/// The steps of a test sequence.
pub const TESTED: usize = 2048;

/// Sequences of an update, and of the test.
const BATCH: usize = 64;

/// The test counts its steps in this many parts.
pub const PARTS: usize = 32;

/// The number of updates whose mean loss decides whether a training has ended.
const CHECK_EVERY: usize = 50;

/// The mean loss, in nats, below which it has.
const ENOUGH: f64 = 1e-3;

/// A recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Rnn,
    Lstm,
    Gru,
    Slstm,
    MinGru,
    MinLstm,
}

impl Kind {
    pub const ALL: [Kind; 6] = [Kind::Rnn, Kind::Lstm, Kind::Gru, Kind::Slstm, Kind::MinGru, Kind::MinLstm];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Rnn => "RNN",
            Kind::Lstm => "LSTM",
            Kind::Gru => "GRU",
            Kind::Slstm => "sLSTM",
            Kind::MinGru => "minGRU",
            Kind::MinLstm => "minLSTM",
        }
    }

    /// Whether its recurrence has a product of h, so that the effect of a step can depend on the state.
    pub fn has_product(self) -> bool {
        !matches!(self, Kind::MinGru | Kind::MinLstm)
    }

    /// One layer, or two of a cell without a product.
    fn build(self, hidden: usize, rng: &mut StdRng) -> BoxLayer<f32> {
        match self {
            Kind::Rnn => BoxLayer::new(Rnn::new(hidden, hidden, rng)),
            Kind::Lstm => BoxLayer::new(Lstm::new(hidden, hidden, rng)),
            Kind::Gru => BoxLayer::new(Gru::new(hidden, hidden, rng)),
            Kind::Slstm => BoxLayer::new(Slstm::builder(hidden, hidden).heads(HEADS).build(rng)),
            Kind::MinGru => BoxLayer::new(MinGru::builder(hidden, hidden).num_layers(2).build(rng)),
            Kind::MinLstm => BoxLayer::new(MinLstm::builder(hidden, hidden).num_layers(2).build(rng)),
        }
    }
}

/// The heads of the sLSTM.
pub const HEADS: usize = 2;

/// The model to train, and how long at most.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub group: Group,
    pub kind: Kind,
    pub hidden: usize,
    pub learning_rate: f64,
    pub updates: usize,
}

/// How a training went.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub updates: usize,
    pub parameters: usize,
    /// The scaled accuracy in each part of the test sequences: 0 is guessing, 1 is no mistake.
    pub parts: Vec<f64>,
    /// At the steps of a training sequence.
    pub short: f64,
    /// At all steps of a test sequence past those of a training sequence.
    pub long: f64,
}

type Net = (Embedding<f32>, BoxLayer<f32>, Linear<f32>);

/// The scaled accuracy in some steps.
fn scaled_accuracy(logits: ArrayView3<'_, f32>, products: &Array2<usize>, steps: Range<usize>) -> f64 {
    let order = logits.dim().2 as f64;
    let (mut right, mut all) = (0, 0);
    for t in steps {
        for (b, &product) in products.row(t).iter().enumerate() {
            let row = logits.slice(s![t, b, ..]);
            let is_largest = (0..row.len()).all(|k| k == product || row[k] < row[product]);
            right += usize::from(is_largest);
            all += 1;
        }
    }
    let chance = 1.0 / order;
    (f64::from(right as u32) / f64::from(all) - chance) / (1.0 - chance)
}

impl Plan {
    /// Trains until the loss is low, then tests.
    pub fn run(&self, seed: u64) -> Result<Outcome, Failure> {
        let &Plan { group, kind, hidden, learning_rate, updates } = self;
        let rng = &mut StdRng::seed_from_u64(seed);
        let order = group.order();
        let mut net: Net =
            (Embedding::new(order, hidden, rng), kind.build(hidden, rng), Linear::new(hidden, order, rng));
        let (mut cache, mut grad) = (net.cache(), net.zeros_like());
        let (mut loss, mut optimizer, clip) =
            (SoftmaxCrossEntropy::new(), Adam::new(learning_rate), ClipNorm::new(1.0));
        let (mut sum, mut update) = (0.0, 0);
        while update < updates {
            let [elements, products] = group.draw(TRAINED, BATCH, rng);
            let mut state = net.zero_state(BATCH);
            let pass = net.pass(&elements, &mut state, &mut cache);
            let evaluated = loss.of(&pass, &products);
            sum += evaluated.value();
            pass.backward_into(evaluated.gradient(), &mut grad);
            clip.clip(&mut grad)?;
            optimizer.step(&mut net, &grad);
            update += 1;
            if update % CHECK_EVERY == 0 {
                if sum < ENOUGH * CHECK_EVERY as f64 {
                    break;
                }
                sum = 0.0;
            }
        }
        let [elements, products] = group.draw(TESTED, BATCH, &mut StdRng::seed_from_u64(seed ^ TEST_SEED));
        let logits = net.forward(Sequence::from(&elements).infer(), &mut net.zero_state(BATCH), &mut cache);
        let part = TESTED / PARTS;
        let parts = (0..PARTS).map(|k| scaled_accuracy(logits, &products, k * part..(k + 1) * part)).collect();
        Ok(Outcome {
            updates: update,
            parameters: net.element_count(),
            parts,
            short: scaled_accuracy(logits, &products, 0..TRAINED),
            long: scaled_accuracy(logits, &products, TRAINED..TESTED),
        })
    }
}

/// Separates the test sequences from those of all trainings.
const TEST_SEED: u64 = 1 << 40;
