//! How a net is trained and judged.

use gradflow::ndarray::{ArrayView2, Axis};
use gradflow::rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use gradflow::{
    Layer, Sequence, ZerosLike,
    clip::ClipNorm,
    loss::{Loss, SoftmaxCrossEntropy},
    metrics::Accuracy,
    optim::{Optimizer, Sgd},
};

use crate::digits::Digits;
use crate::net::{Block, Net};

/// Images of an update.
const BATCH: usize = 64;

/// The momentum of gradient descent.
const MOMENTUM: f64 = 0.9;

/// The largest norm of a gradient.
const CLIP: f64 = 1.0;

/// A net, and how it learns.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub block: Block,
    pub depth: usize,
    pub learning_rate: f64,
}

/// The outcome of a training.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The mean loss of each epoch's batches, in nats, while the net is trained on them.
    pub curve: Vec<f64>,
    /// The loss of all training images at the end; infinite if a gradient was not finite.
    pub loss: f64,
    /// The share of the test images that are classified correctly.
    pub accuracy: f64,
}

/// Trains a net for a number of epochs: its weights, and the order of the images, are drawn from the seed.
pub fn train(digits: &Digits, setting: Setting, epochs: usize, seed: u64) -> Outcome {
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut net = Net::new(setting.block, setting.depth, rng);
    let (images, labels) = digits.training();
    let mut order: Vec<usize> = (0..images.nrows()).collect();
    let (mut cache, mut grad) = (net.cache(), net.zeros_like());
    let mut optimizer = Sgd::new(setting.learning_rate).momentum(MOMENTUM);
    let (mut cross_entropy, mut curve) = (SoftmaxCrossEntropy::new(), Vec::new());
    for _ in 0..epochs {
        order.shuffle(rng);
        let batches = order.chunks_exact(BATCH);
        let (count, mut sum) = (batches.len(), 0.0);
        for batch in batches {
            let (x, ids) = (images.select(Axis(0), batch), labels.select(Axis(1), batch));
            let mut state = net.zero_state(BATCH);
            let pass = net.pass(Sequence::rows(&x).constant(), &mut state, &mut cache);
            let loss = cross_entropy.of(&pass, &ids);
            sum += loss.value();
            pass.backward_into(loss.gradient(), &mut grad);
            if optimizer.step_clipped(&mut net, &grad, ClipNorm::new(CLIP)).is_err() {
                return Outcome { curve, loss: f64::INFINITY, accuracy: 0.0 };
            }
        }
        curve.push(sum / count as f64);
    }
    Outcome { curve, loss: judge(&net, digits.training()).0, accuracy: judge(&net, digits.test()).1 }
}

/// The mean loss of images, and the share that is classified correctly.
fn judge(net: &Net, (images, labels): (ArrayView2<'_, f32>, ArrayView2<'_, usize>)) -> (f64, f64) {
    let (mut cache, mut state) = (net.cache(), net.zero_state(images.nrows()));
    let logits = net.forward(Sequence::rows(&images).infer(), &mut state, &mut cache);
    let loss = SoftmaxCrossEntropy::new().value(logits.view(), &labels);
    let mut accuracy = Accuracy::new();
    accuracy.add(logits, &labels);
    (loss, accuracy.value())
}
