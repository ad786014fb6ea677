//! One model, trained by several threads: each computes the gradient of a part of the batch.
//!
//! ```text
//! cargo run --release --example data_parallel
//! ```
//!
//! A layer holds nothing but its parameters, so threads share the model. Each part of the batch, a shard, has its own state, cache
//! and gradient; the shards' gradients are summed in a fixed order, and one step follows. The batch is cut into four shards
//! whatever the number of threads, so the sums are the same to the bit.
//!
//! Claim: training with 1, 2 and 4 threads ends with the same weights, bit by bit; the first gradient differs from one without
//! shards by rounding alone; and the loss falls.

#[path = "common/mod.rs"]
mod common;

use std::ops::Range;
use std::process::ExitCode;
use std::sync::RwLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, scope};
use std::time::Instant;

use gradflow::ndarray::{Array2, s};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    clip::{ClipNorm, grad_norm},
    layers::{Embedding, Linear},
    loss::{Loss, SoftmaxCrossEntropy},
    optim::{Adam, Optimizer},
    recurrent::LstmCell,
    sequential,
};

use common::{Claims, Failure, Settings};

/// A frozen snapshot of this crate's own text.
const TEXT: &str = include_str!("data/text.txt");

/// Parts of a batch.
const SHARDS: usize = 4;

/// Sequences in a batch, B, and steps that a gradient goes back, T.
const BATCH: usize = 32;
const STEPS: usize = 32;

const LEARNING_RATE: f64 = 5e-3;
const CLIP: f64 = 1.0;

sequential! {
    /// Logits of the next character.
    #[derive(Clone, Debug)]
    struct CharLm: Layer<f32> {
        embedding: Embedding<f32>,
        lstm: LstmCell<f32>,
        head: Linear<f32>,
    }
}

/// The state that the threads share: they read it while they compute, and it is changed while they wait.
struct Shared {
    model: CharLm,
    /// `[T, B]`
    ids: Array2<usize>,
    /// `[T, B]`: the characters that follow.
    targets: Array2<usize>,
}

/// A part of the batch, with everything that a pass over it changes.
struct Shard {
    sequences: Range<usize>,
    state: <CharLm as Layer>::State,
    cache: <CharLm as Layer>::Cache,
    grad: CharLm,
    cross_entropy: SoftmaxCrossEntropy<f32>,
    /// The sum of the losses.
    nats: f64,
}

impl Shard {
    fn new(model: &CharLm, sequences: Range<usize>) -> Self {
        Shard {
            state: model.zero_state(sequences.len()),
            cache: model.cache(),
            grad: model.zeros_like(),
            cross_entropy: SoftmaxCrossEntropy::new().sum(),
            nats: 0.0,
            sequences,
        }
    }

    /// Loss and gradient of these sequences: sums, which add up to those of the batch.
    fn compute(&mut self, Shared { model, ids, targets }: &Shared) {
        let x = Sequence::from(ids).sequences(self.sequences.clone());
        let pass = model.pass(x, &mut self.state, &mut self.cache);
        let targets = targets.slice(s![.., self.sequences.clone()]);
        let loss = self.cross_entropy.of(&pass, &targets);
        self.nats = loss.value();
        pass.backward_into(loss.gradient(), &mut self.grad);
    }
}

/// A thread that computes the shards it is sent, and sends them back.
struct Worker {
    to: Sender<Shard>,
    from: Receiver<Shard>,
}

impl Worker {
    /// It ends when all senders are dropped.
    fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, shared: &'scope RwLock<Shared>) -> Self {
        let ((to, jobs), (done, from)) = (channel::<Shard>(), channel());
        scope.spawn(move || {
            for mut shard in jobs {
                shard.compute(&shared.read().expect("a shared model"));
                if done.send(shard).is_err() {
                    break;
                }
            }
        });
        Worker { to, from }
    }
}

/// The result of a training.
struct Trained {
    model: CharLm,
    /// The mean loss of every update, in nats.
    losses: Vec<f64>,
    /// The gradient of the first update.
    first: CharLm,
    seconds: f64,
}

/// Trains on `threads` threads, with the batch in `shards` parts.
fn train(threads: usize, shards: usize, hidden: usize, updates: usize, seed: u64) -> Result<Trained, Failure> {
    let text: Vec<usize> = TEXT.bytes().map(usize::from).collect();
    let rng = &mut StdRng::seed_from_u64(seed);
    let model = CharLm {
        embedding: Embedding::new(256, 32, rng),
        lstm: LstmCell::new(32, hidden, rng),
        head: Linear::new(hidden, 256, rng),
    };
    let mut shards: Vec<_> =
        (0..shards).map(|k| Shard::new(&model, k * BATCH / shards..(k + 1) * BATCH / shards)).collect();
    let (mut total, mut optimizer) = (model.zeros_like(), Adam::new(LEARNING_RATE));
    let shared =
        RwLock::new(Shared { model, ids: Array2::zeros((STEPS, BATCH)), targets: Array2::zeros((STEPS, BATCH)) });
    let (mut losses, mut first, clock) = (Vec::new(), None, Instant::now());
    scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| Worker::spawn(scope, &shared)).collect();
        for update in 0..updates {
            {
                // Each sequence reads its piece of the text over and over: the shards' states are carried.
                let Shared { ids, targets, .. } = &mut *shared.write().expect("no thread panicked");
                let piece = text.len() / BATCH;
                let at = |t: usize, b: usize| b * piece + (update * STEPS + t) % (piece - 1);
                ids.indexed_iter_mut().for_each(|((t, b), id)| *id = text[at(t, b)]);
                targets.indexed_iter_mut().for_each(|((t, b), id)| *id = text[at(t, b) + 1]);
            }
            // The shards go to the threads in turn and come back in the same order, whichever is ready first.
            let count = shards.len();
            for (k, shard) in shards.drain(..).enumerate() {
                workers[k % threads].to.send(shard).expect("a thread that waits for work");
            }
            shards.extend((0..count).map(|k| workers[k % threads].from.recv().expect("no thread panicked")));

            total.set_zero();
            shards.iter().for_each(|shard| total.add_assign(&shard.grad));
            total.scale(1.0 / (STEPS * BATCH) as f32); // of the mean loss
            losses.push(shards.iter().map(|shard| shard.nats).sum::<f64>() / (STEPS * BATCH) as f64);
            first.get_or_insert_with(|| total.clone());
            let model = &mut shared.write().expect("no thread panicked").model;
            optimizer.step_clipped(model, &total, ClipNorm::new(CLIP))?;
        }
        Ok::<_, Failure>(())
    })?;
    let seconds = clock.elapsed().as_secs_f64();
    let Shared { model, .. } = shared.into_inner().expect("no thread panicked");
    Ok(Trained { model, losses, first: first.expect("an update"), seconds })
}

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse("Trains one model on several threads, to the same bits.", &[])?;
    let (hidden, updates) = if settings.quick { (32, 100) } else { (128, 600) };
    let train = |threads, shards| train(threads, shards, hidden, updates, settings.seed);
    let [one, two, four] = [train(1, SHARDS)?, train(2, SHARDS)?, train(4, SHARDS)?];
    let whole = train(1, 1)?;

    println!("mean loss in nats per character:");
    println!("{:>8}  {:>8}  {:>8}", "update", "4 shards", "1 shard");
    let shown = (0..5).map(|k| k * (updates - 1) / 4);
    shown.for_each(|k| println!("{:>8}  {:>8.4}  {:>8.4}", k + 1, one.losses[k], whole.losses[k]));
    println!(
        "\n1 thread: {:.1} s; 2 threads: {:.1} s, {:.2} times as fast",
        one.seconds,
        two.seconds,
        one.seconds / two.seconds
    );

    let mut claims = Claims::new(&settings);
    for (threads, trained) in [(2, &two), (4, &four)] {
        let equal = (0..one.model.count()).filter(|&i| bits(&one.model, i).eq(bits(&trained.model, i))).count();
        let (what, count) = (format!("weights after {threads} threads and after 1"), one.model.count());
        let expected = format!("the same bits in {count} of {count} tensors");
        claims.check(what, "", expected, format!("{equal} of {count}"), equal == count);
    }
    // The largest difference of two elements, relative to the gradient's norm.
    let mut difference = whole.first.clone();
    difference.scale(-1.0);
    difference.add_assign(&one.first);
    let relative = grad_norm(&difference, f64::INFINITY) / grad_norm(&whole.first, 2.0);
    let what = format!("first gradient, {SHARDS} shards against 1: largest difference / norm");
    claims.check(what, "", "at most 1e-6, rounding", format!("{relative:.0e}"), relative <= 1e-6);
    let (start, end, end_whole) = (one.losses[0], recent(&one.losses), recent(&whole.losses));
    let (share, limit) = if settings.quick { ("0.6", 0.6) } else { ("0.4", 0.4) };
    let expected = format!("below {share} of {start:.2}, the first");
    claims.check(
        "mean loss of the last tenth, 4 shards (nats)",
        "",
        expected,
        format!("{end:.3}"),
        end < limit * start,
    );
    claims.note("  1 shard", "", "", format!("{end_whole:.3}"));
    claims.finish()
}

/// The mean over the last tenth.
fn recent(losses: &[f64]) -> f64 {
    let last = &losses[losses.len() * 9 / 10..];
    last.iter().sum::<f64>() / last.len() as f64
}

/// The bits of a tensor's values.
fn bits(model: &CharLm, i: usize) -> impl Iterator<Item = u32> {
    model.values(i).iter().map(|value| value.to_bits())
}
