//! Trainings that are cut into shards: the same bits on any number of ranks, and the numbers of the whole batch.

use std::process::ExitCode;

use gradflow::author::Gradient;
use gradflow::ndarray::{Array2, s};
use gradflow::prelude::*;
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow_mpi::{Element, Options, RankError, Ranks, Reduction, Wire, run};

use crate::{Test, mpirun};

pub const TESTS: [Test; 9] = [
    ("train_tree_f32", || check_bits("tree f32 13")),
    ("train_tree_f64", || check_bits("tree f64 16")),
    ("train_whole_messages", || assert_eq!(same_bits("whole f64 16"), same_bits("tree f64 16"))),
    ("train_buckets", || {
        for training in ["f32 13", "f64 16", "f64 5"] {
            assert_eq!(same_bits(&format!("buckets {training}")), same_bits(&format!("tree {training}")));
        }
        check_bits("buckets_bf16 f32 13");
        mpirun(3, "train buckets_mpi f64 13").succeeded();
    }),
    ("train_fewer_sequences_than_shards", || check_bits("tree f64 5")),
    ("train_bf16", || check_bits("bf16 f32 13")),
    ("train_all_reduce", all_reduce),
    ("train_one_line", || [1, 2, 4].into_iter().for_each(|count| _ = mpirun(count, "train line f64 13").succeeded())),
    ("train_threads", threads),
];

/// The same bits on 1, 2, 4 and 8 ranks.
fn check_bits(training: &str) {
    same_bits(training);
}

/// The bits of a training, checked to be the same on 1, 2, 4 and 8 ranks.
fn same_bits(training: &str) -> String {
    let results = [1, 2, 4, 8].map(|count| {
        let ended = mpirun(count, &format!("train {training}")).succeeded();
        let [result] = ended.results()[..] else { panic!("{}", ended.all()) };
        result.to_owned()
    });
    assert!(results.iter().all(|result| *result == results[0]), "{training}: {results:#?}");
    results[0].clone()
}

/// Any number of ranks, also if it is no power of two. The bits may differ; the numbers may not (each rank 0 checks that).
fn all_reduce() {
    for count in [1, 2, 3, 4] {
        mpirun(count, "train mpi f64 13").succeeded();
    }
}

/// Threads within a rank: neither their number nor the number of ranks changes a bit.
fn threads() {
    if !cfg!(feature = "rayon") {
        return println!("train_threads: skipped, without the feature rayon there are none");
    }
    let result = |ranks, threads| {
        let ended = mpirun(ranks, &format!("train tree f32 256 {threads}")).succeeded();
        ended.results().concat()
    };
    let first = result(1, 1);
    assert!(!first.is_empty());
    for (ranks, threads) in [(1, 2), (2, 1), (2, 2)] {
        assert_eq!(result(ranks, threads), first, "{ranks} ranks of {threads} threads");
    }
}

const STEPS: usize = 12;
const CHUNK: usize = 4;
const CLASSES: usize = 7;
const EPOCHS: usize = 4;

sequential! {
    /// Dropout between layers and within one, normalisation, and several layers.
    #[derive(Clone, Debug)]
    struct Model<F: Float>: Layer<F> {
        embedding: Embedding<F>,
        dropout: Dropout<F>,
        lstm: Lstm<F>,
        head: Linear<F>,
    }
}

impl<F: Float> Model<F> {
    fn new(hidden: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(0);
        Model {
            embedding: Embedding::new(CLASSES, 6, rng),
            dropout: Dropout::new(0.2, rng),
            lstm: Lstm::builder(6, hidden).num_layers(2).dropout(0.1).recurrent_dropout(0.2).layer_norm().build(rng),
            head: Linear::new(hidden, CLASSES, rng),
        }
    }
}

/// Sequences of all lengths, with the targets.
struct Data {
    ids: Array2<usize>,     // [T, B]
    targets: Array2<usize>, // [T, B]
    lengths: Vec<usize>,
}

impl Data {
    fn new(batch: usize, epoch: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(100 + epoch as u64);
        let ids = Array2::from_shape_simple_fn((STEPS, batch), || rng.random_range(0..CLASSES));
        let targets =
            Array2::from_shape_fn(ids.dim(), |(t, b)| (ids[[t, b]] + ids[[t.saturating_sub(2), b]]) % CLASSES);
        Data { ids, targets, lengths: (0..batch).map(|_| rng.random_range(1..=STEPS)).collect() }
    }

    fn x<F: Float>(&self) -> Sequence<'_, F> {
        Sequence::from(&self.ids).with_lengths(&self.lengths).expect("lengths that fit")
    }

    /// The chunks: their steps, and the step's seed.
    fn chunks(epoch: usize) -> impl Iterator<Item = (std::ops::Range<usize>, u64)> {
        (0..STEPS / CHUNK).map(move |k| (k * CHUNK..(k + 1) * CHUNK, (epoch * STEPS + k) as u64))
    }
}

/// The result of a training.
struct Trained<F: Float> {
    model: Model<F>,
    first: Model<F>,
    losses: Vec<f64>,
}

/// Truncated BPTT with carried states, over shards.
fn sharded<F: Element>(ranks: &Ranks, batch: usize, hidden: usize) -> Result<Trained<F>, RankError> {
    let mut model = Model::new(hidden);
    let (mut optimizer, mut cross_entropy) = (AdamW::new(1e-2), SoftmaxCrossEntropy::new());
    let (mut cache, mut grad, mut first, mut losses) = (model.cache(), model.zeros_like(), None, Vec::new());
    ranks.broadcast_training(&mut model, &mut optimizer)?;
    let mut sum = ranks.tree_sum(&model);
    for epoch in 0..EPOCHS {
        let data = Data::new(batch, epoch);
        let mut states = ranks.zero_states(&model, batch);
        for (steps, seed) in Data::chunks(epoch) {
            let (x, targets) = (data.x().steps(steps.clone()).train(seed), data.targets.slice(s![steps, ..]));
            for shard in ranks.shards(batch) {
                let targets = shard.part(&targets);
                let pass = model.pass(shard.of(x), &mut states[shard.place()], &mut cache);
                let weight = cross_entropy.weight((&pass).into(), &targets);
                let loss = cross_entropy.of(&pass, &targets);
                let nats = loss.value();
                pass.backward_into(loss.gradient(), &mut grad);
                sum.add(&shard, &grad, nats, weight);
            }
            losses.push(sum.mean(&mut grad));
            first.get_or_insert_with(|| grad.clone());
            ranks.agree(optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0)))?;
        }
    }
    ranks.check_equal(&model)?;
    Ok(Trained { model, first: first.expect("a step"), losses })
}

/// The same, layer by layer, with gradients that are sent during the backward pass.
fn by_buckets<F: Element>(ranks: &Ranks, batch: usize, hidden: usize) -> Result<Trained<F>, RankError> {
    let mut model = Model::<F>::new(hidden);
    let (mut optimizer, mut cross_entropy) = (AdamW::new(1e-2), SoftmaxCrossEntropy::new());
    let (mut grad, mut first, mut losses) = (model.zeros_like(), None, Vec::new());
    let Model { embedding, dropout, lstm, head } = &model;
    let mut caches = (embedding.cache(), dropout.cache(), lstm.cache(), head.cache());
    let mut sum = ranks.bucket_sum::<F>(&[embedding, lstm, head]);
    for epoch in 0..EPOCHS {
        let data = Data::new(batch, epoch);
        let mut states = ranks.zero_states(&model.lstm, batch);
        for (steps, seed) in Data::chunks(epoch) {
            let (x, targets) = (data.x().steps(steps.clone()).train(seed), data.targets.slice(s![steps, ..]));
            let Model { embedding, dropout, lstm, head } = &model;
            sum.during(|going| {
                for shard in ranks.shards(batch) {
                    let (x, targets, state) = (shard.of(x), shard.part(&targets), &mut states[shard.place()]);
                    let embedded = embedding.forward(x, &mut (), &mut caches.0).to_owned();
                    let dropped = dropout.forward(x.with(embedded.view()), &mut (), &mut caches.1).to_owned();
                    let y = lstm.forward(x.with(dropped.view()), state, &mut caches.2).to_owned();
                    let logits = head.forward(x.with(y.view()), &mut (), &mut caches.3);
                    let logits = x.with(logits);
                    let weight = cross_entropy.weight(logits, &targets);
                    let loss = cross_entropy.of(logits, &targets);
                    going.shard(&shard, loss.value(), weight);
                    let d = Gradient::overwrite(&mut grad.head);
                    let d = head.backward(x.with(y.view()), loss.gradient(), None, &mut caches.3, d).to_owned();
                    going.add(2, &grad.head);
                    let to = Gradient::overwrite(&mut grad.lstm);
                    let d = lstm.backward(x.with(dropped.view()), &d, None, &mut caches.2, to).to_owned();
                    going.add(1, &grad.lstm);
                    let to = Gradient::overwrite(&mut grad.dropout);
                    let d = dropout.backward(x.with(embedded.view()), &d, None, &mut caches.1, to).to_owned();
                    embedding.backward(x, &d, None, &mut caches.0, Gradient::overwrite(&mut grad.embedding));
                    going.add(0, &grad.embedding);
                }
            });
            losses.push(sum.mean(&mut [&mut grad.embedding, &mut grad.lstm, &mut grad.head]));
            first.get_or_insert_with(|| grad.clone());
            ranks.agree(optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0)))?;
        }
    }
    ranks.check_equal(&model)?;
    Ok(Trained { model, first: first.expect("a step"), losses })
}

/// The same with the shortest loop: one part for each rank.
fn one_line<F: Element>(ranks: &Ranks, batch: usize, hidden: usize) -> Result<Trained<F>, RankError> {
    let mut model = Model::new(hidden);
    let (mut optimizer, mut cross_entropy) = (AdamW::new(1e-2), SoftmaxCrossEntropy::new());
    let (mut cache, mut grad, mut first, mut losses) = (model.cache(), model.zeros_like(), None, Vec::new());
    let shard = ranks.shard(batch);
    for epoch in 0..EPOCHS {
        let data = Data::new(batch, epoch);
        let mut state = model.zero_state(shard.count());
        for (steps, seed) in Data::chunks(epoch) {
            // As on a rank that has only its own part of the data.
            let [ids, targets] =
                [&data.ids, &data.targets].map(|all| shard.part(&all.slice(s![steps.clone(), ..])).to_owned());
            let lengths = &data.lengths[shard.sequences()];
            let whole_ids = shard.part(&data.ids);
            let x = Sequence::from(whole_ids).with_lengths(lengths).expect("lengths that fit").steps(steps);
            assert_eq!(x.dims(), ids.dim());
            let pass = model.pass(shard.own(x.train(seed)), &mut state, &mut cache);
            let weight = cross_entropy.weight((&pass).into(), &targets);
            let loss = cross_entropy.of(&pass, &targets);
            let nats = loss.value();
            pass.backward_into(loss.gradient(), &mut grad);
            losses.push(ranks.weighted_mean(&mut grad, nats, weight));
            first.get_or_insert_with(|| grad.clone());
            ranks.agree(optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0)))?;
        }
    }
    ranks.check_equal(&model)?;
    Ok(Trained { model, first: first.expect("a step"), losses })
}

/// The same without shards, on one rank.
fn whole<F: Float>(batch: usize, hidden: usize) -> Trained<F> {
    let mut model = Model::new(hidden);
    let (mut optimizer, mut cross_entropy) = (AdamW::new(1e-2), SoftmaxCrossEntropy::new());
    let (mut cache, mut grad, mut first, mut losses) = (model.cache(), model.zeros_like(), None, Vec::new());
    for epoch in 0..EPOCHS {
        let (data, mut state) = (Data::new(batch, epoch), model.zero_state(batch));
        for (steps, seed) in Data::chunks(epoch) {
            let (x, targets) = (data.x().steps(steps.clone()).train(seed), data.targets.slice(s![steps, ..]));
            let pass = model.pass(x, &mut state, &mut cache);
            let loss = cross_entropy.of(&pass, &targets);
            losses.push(loss.value());
            pass.backward_into(loss.gradient(), &mut grad);
            first.get_or_insert_with(|| grad.clone());
            optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0)).expect("a finite gradient");
        }
    }
    Trained { model, first: first.expect("a step"), losses }
}

/// The largest difference of two elements, relative to the largest element.
fn difference<F: Float>(a: &Model<F>, b: &Model<F>) -> f64 {
    let (mut largest, mut scale) = (0.0, 0.0);
    for i in 0..a.count() {
        for (a, b) in a.values(i).iter().zip(b.values(i)) {
            largest = f64::max(largest, (a.widen() - b.widen()).abs());
            scale = f64::max(scale, b.widen().abs());
        }
    }
    largest / scale
}

/// Checks the bound that `Wire::Bf16` states for the first gradient, against the exact sums of the same shards.
fn check_bf16(got: &Model<f32>, batch: usize, hidden: usize, shards: usize) {
    let (model, data) = (Model::<f32>::new(hidden), Data::new(batch, 0));
    let mut cross_entropy = SoftmaxCrossEntropy::new();
    let zeros = || (0..model.count()).map(|i| vec![0.0_f64; model.values(i).len()]).collect::<Vec<_>>();
    let (mut exact, mut magnitude, mut total, mut grad) = (zeros(), zeros(), 0.0, model.zeros_like());
    for s in 0..shards {
        let own = s * batch / shards..(s + 1) * batch / shards;
        let x = data.x().steps(0..CHUNK).train(0).sequences(own.clone());
        let targets = data.targets.slice(s![..CHUNK, own.clone()]);
        let (mut state, mut cache) = (model.zero_state(own.len()), model.cache());
        let pass = model.pass(x, &mut state, &mut cache);
        let weight = cross_entropy.weight((&pass).into(), &targets);
        let loss = cross_entropy.of(&pass, &targets);
        pass.backward_into(loss.gradient(), &mut grad);
        total += weight;
        for i in 0..grad.count() {
            for (k, &g) in grad.values(i).iter().enumerate() {
                exact[i][k] += weight * f64::from(g);
                magnitude[i][k] += weight * f64::from(g).abs();
            }
        }
    }
    // The last term is for the rounding of sums in f32.
    let bound = (1.0 + 2_f64.powi(-8)).powi(shards.ilog2() as i32 + 1) - 1.0 + 1e-6;
    let mut largest: f64 = 0.0;
    for i in 0..grad.count() {
        for (k, &g) in got.values(i).iter().enumerate() {
            let (error, limit) = ((f64::from(g) - exact[i][k] / total).abs(), bound * magnitude[i][k] / total);
            assert!(error <= limit + 1e-38, "{} {k}: {error:e} > {limit:e}", grad.name(i));
            largest = largest.max(if limit > 0.0 { error / limit } else { 0.0 });
        }
    }
    println!("bf16: at most {:.0} % of the stated error", 100.0 * largest);
    assert!(largest > 0.01, "something was rounded");
}

pub fn rank(words: &[&str]) -> ExitCode {
    let [mode, element, batch, ..] = words[..] else { panic!("{words:?}") };
    let batch: usize = batch.parse().expect("a number");
    #[allow(unused_mut)]
    let mut hidden = 8;
    #[cfg(feature = "rayon")]
    if let Some(threads) = words.get(3) {
        hidden = 128; // enough to wake the threads
        let threads = threads.parse().expect("a number");
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the first pool");
    }
    let options = match mode {
        "tree" => Options::new().whole_up_to(0),
        "whole" => Options::new().whole_up_to(usize::MAX),
        "bf16" | "buckets_bf16" => Options::new().whole_up_to(0).wire(Wire::Bf16),
        "mpi" | "buckets_mpi" => Options::new().reduction(Reduction::AllReduce),
        "line" | "buckets" => Options::new(),
        _ => panic!("{mode}"),
    };
    run(options, |ranks| {
        if element == "f32" {
            check::<f32>(ranks, mode, batch, hidden, 1e-5, 2e-3)
        } else {
            check::<f64>(ranks, mode, batch, hidden, 1e-13, 1e-9)
        }
    })
}

fn check<F: Element>(
    ranks: &Ranks,
    mode: &str,
    batch: usize,
    hidden: usize,
    near: f64,
    after_all: f64,
) -> Result<(), RankError>
where
    Model<F>: std::any::Any,
{
    let trained = match mode {
        "line" => one_line(ranks, batch, hidden)?,
        "buckets" | "buckets_bf16" | "buckets_mpi" => by_buckets(ranks, batch, hidden)?,
        _ => sharded(ranks, batch, hidden)?,
    };
    if !ranks.is_first() {
        return Ok(());
    }
    let first: &dyn std::any::Any = &trained.first;
    if mode.ends_with("bf16") {
        check_bf16(first.downcast_ref().expect("f32"), batch, hidden, ranks.options().shards_of_a_batch());
    } else if hidden < 100 {
        let whole = whole::<F>(batch, hidden);
        let [first, last] = [difference(&trained.first, &whole.first), difference(&trained.model, &whole.model)];
        println!("first gradient: {first:.0e}, weights after {} steps: {last:.0e}", whole.losses.len());
        assert!(first <= near && last <= after_all, "{first:e} {last:e}");
        for (got, expected) in trained.losses.iter().zip(&whole.losses) {
            assert!((got - expected).abs() <= after_all * expected.abs(), "{got} {expected}");
        }
    }
    let bits =
        |model: &Model<F>| (0..model.count()).flat_map(|i| model.values(i)).map(|v| v.bits()).collect::<Vec<_>>();
    let all =
        [bits(&trained.model), bits(&trained.first), trained.losses.iter().map(|l| l.to_bits()).collect()].concat();
    let hash = all.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &bits| (hash ^ bits).wrapping_mul(0x0100_0000_01b3));
    println!("result: {hash:016x} {:?}", trained.losses);
    Ok(())
}
