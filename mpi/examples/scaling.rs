//! Measures what `measure.py` puts into tables: steps of three models, messages, and buckets that are sent during the backward pass.
//!
//! For each measurement, rank 0 prints a line of `row:` and numbers. Times are those of its best step, in seconds.

use std::process::ExitCode;
use std::time::Instant;

use gradflow::author::Gradient;
use gradflow::compose::{PreNormBlock, Stacked};
use gradflow::layers::Nonlinearity;
use gradflow::ndarray::{Array1, Array2, Array3, ArrayView3};
use gradflow::prelude::*;
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow_mpi::{Options, Ranks, Reduction, Shard, Wire, run};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (what, rest) = words.split_first().expect("steps, messages or buckets");
    let options = Options::new().shards(2);
    match *what {
        "steps" => {
            let [model, way, count] = rest[..] else { panic!("steps MODEL WAY COUNT") };
            let options = match way {
                "bf16" => options.wire(Wire::Bf16),
                "mpi" => options.reduction(Reduction::AllReduce),
                _ => options,
            };
            run(options, |ranks| steps(ranks, model, way, count.parse().expect("a number")))
        }
        "messages" => run(options, messages),
        "buckets" => run(options, |ranks| buckets(ranks, rest[0].parse().expect("a number"))),
        _ => panic!("steps, messages or buckets"),
    }
}

/// The times of the fastest step: of the whole, and of two parts of it.
#[derive(Clone, Copy)]
struct Best([f64; 3]);

impl Best {
    fn new() -> Self {
        Best([f64::INFINITY; 3])
    }

    /// Takes the times of a whole step and of two parts of it.
    fn add(&mut self, times: [f64; 3]) {
        if times[0] < self.0[0] {
            self.0 = times;
        }
    }
}

fn steps(ranks: &Ranks, model: &str, way: &str, count: usize) -> Result<(), String> {
    let rng = &mut StdRng::seed_from_u64(0);
    match model {
        "lstm512" => {
            let x = Array3::from_shape_simple_fn((50, 64, 512), || rng.random_range(-1.0..1.0));
            let (model, targets) = (Lstm::<f32>::new(512, 512, rng), Array3::zeros((50, 64, 512)));
            let (x, mut loss) = (Sequence::from(&x).constant(), MeanSquaredError::new());
            let value =
                |model: &Lstm<f32>, x: Sequence<'_, f32>, targets: ArrayView3<'_, f32>, grad: &mut _, cache: &mut _| {
                    let mut state = model.zero_state(x.dims().1);
                    let pass = model.pass(x, &mut state, cache);
                    let found = loss.of(&pass, &targets);
                    let value = found.value();
                    pass.backward_into(found.gradient(), grad);
                    value
                };
            measure(ranks, "lstm512", way, count, model, x, targets, value);
        }
        "residual" => {
            let x = Array3::from_shape_simple_fn((50, 64, 512), || rng.random_range(-1.0..1.0));
            let block = |_| PreNormBlock::<f32>::new(512, 1024, Nonlinearity::Relu, rng);
            let (model, targets) = (Stacked::build(8, block), Array3::zeros((50, 64, 512)));
            let (x, mut loss) = (Sequence::from(&x).constant(), MeanSquaredError::new());
            let value = |model: &Stacked<PreNormBlock<f32>>,
                         x: Sequence<'_, f32>,
                         targets: ArrayView3<'_, f32>,
                         grad: &mut _,
                         cache: &mut _| {
                let mut state = model.zero_state(x.dims().1);
                let pass = model.pass(x, &mut state, cache);
                let found = loss.of(&pass, &targets);
                let value = found.value();
                pass.backward_into(found.gradient(), grad);
                value
            };
            measure(ranks, "residual", way, count, model, x, targets, value);
        }
        "char_lm" | "char_lm32" => {
            let batch = if model == "char_lm" { 8 } else { 32 };
            let ids = Array2::from_shape_simple_fn((64, batch), || rng.random_range(0..98));
            let targets = Array3::from_shape_fn((64, batch, 1), |(t, b, _)| ids[[t, b]]);
            let model = (Embedding::new(98, 48, rng), Lstm::<f32>::new(48, 256, rng), Linear::new(256, 98, rng));
            let (x, mut loss) = (Sequence::from(&ids), SoftmaxCrossEntropy::new());
            let value = |model: &(Embedding<f32>, Lstm<f32>, Linear<f32>),
                         x: Sequence<'_, f32>,
                         targets: ArrayView3<'_, usize>,
                         grad: &mut _,
                         cache: &mut _| {
                let mut state = model.zero_state(x.dims().1);
                let pass = model.pass(x, &mut state, cache);
                let found = loss.of(&pass, &targets.index_axis(gradflow::ndarray::Axis(2), 0));
                let value = found.value();
                pass.backward_into(found.gradient(), grad);
                value
            };
            measure(ranks, if batch == 8 { "char_lm" } else { "char_lm32" }, way, count, model, x, targets, value);
        }
        _ => return Err(format!("no model is called {model}")),
    }
    Ok(())
}

/// Steps of two shards on one or two ranks; `way` is `plain` for the loop without shards on one rank.
#[allow(clippy::too_many_arguments)]
fn measure<L: Layer<Elem = f32>, T>(
    ranks: &Ranks,
    name: &str,
    way: &str,
    count: usize,
    mut model: L,
    x: Sequence<'_, f32>,
    targets: Array3<T>,
    mut value: impl FnMut(&L, Sequence<'_, f32>, ArrayView3<'_, T>, &mut L, &mut L::Cache) -> f64,
) {
    let (mut cache, mut grad, batch) = (model.cache(), model.zeros_like(), x.dims().1);
    let mut sum = ranks.tree_sum(&model);
    let mut optimizer = Sgd::new(1e-4);
    let mut best = Best::new();
    for step in 0..count + 2 {
        // All ranks begin together.
        ranks.sum_numbers(&mut [0.0]);
        let begin = Instant::now();
        let (mut waited, mut sent) = (0.0, 0.0);
        if way == "plain" {
            value(&model, x, targets.view(), &mut grad, &mut cache);
        } else {
            for shard in ranks.shards(batch) {
                let loss = value(&model, shard.of(x), shard.part(&targets), &mut grad, &mut cache);
                sum.add(&shard, &grad, loss, shard.count() as f64);
            }
            let computed = Instant::now();
            ranks.sum_numbers(&mut [0.0]);
            waited = computed.elapsed().as_secs_f64();
            let together = Instant::now();
            sum.mean(&mut grad);
            sent = together.elapsed().as_secs_f64();
        }
        optimizer.step(&mut model, &grad);
        let whole = begin.elapsed().as_secs_f64();
        if step >= 2 {
            best.add([whole, waited, sent]);
        }
    }
    let bytes = 4 * model.element_count();
    report(ranks, &format!("{name} {way} {bytes}"), best);
}

fn report(ranks: &Ranks, name: &str, Best([whole, waited, sent]): Best) {
    if ranks.is_first() {
        println!("row: {} {name} {whole:.9} {waited:.9} {sent:.9}", ranks.count());
    }
}

/// The time of the mean of a gradient, for gradients of several sizes.
fn messages(ranks: &Ranks) -> Result<(), String> {
    for log in 2..=25 {
        let bytes = 1_usize << log;
        let mut values = Array1::from_elem(bytes / 4, 1.0_f32);
        let mut sum = ranks.tree_sum(&values);
        let mut best = f64::INFINITY;
        for _ in 0..if log < 18 { 200 } else { 20 } {
            for shard in ranks.shards(2) {
                sum.add(&shard, &values, 0.0, 1.0);
            }
            ranks.sum_numbers(&mut [0.0]);
            let begin = Instant::now();
            sum.mean(&mut values);
            best = best.min(begin.elapsed().as_secs_f64());
        }
        report(ranks, &format!("message tree {bytes}"), Best([best, 0.0, best]));
    }
    Ok(())
}

/// Called with each complete gradient: the shard, the number of the block, and the gradient.
type Complete<'c> = Box<dyn FnMut(&Shard, usize, &PreNormBlock<f32>) + 'c>;

/// Gradients of eight residual blocks: not sent, summed after the backward pass, and block by block while it runs.
fn buckets(ranks: &Ranks, count: usize) -> Result<(), String> {
    const WAYS: [&str; 3] = ["none", "after", "during"];
    let rng = &mut StdRng::seed_from_u64(0);
    let x = Array3::from_shape_simple_fn((50, 64, 512), || rng.random_range(-1.0_f32..1.0));
    let blocks: Vec<_> = (0..8).map(|_| PreNormBlock::<f32>::new(512, 1024, Nonlinearity::Relu, rng)).collect();
    let mut grads: Vec<_> = blocks.iter().map(|block| block.zeros_like()).collect();
    let mut caches: Vec<_> = blocks.iter().map(|block| block.cache()).collect();
    let mut whole = ranks.tree_sum(&blocks);
    let parts: Vec<&dyn Tensors<f32>> = blocks.iter().map(|block| block as _).collect();
    let mut parts = ranks.bucket_sum(&parts);
    let mut best = WAYS.map(|_| Best::new());
    for step in 0..WAYS.len() * (count + 1) {
        let way = WAYS[step % WAYS.len()];
        ranks.sum_numbers(&mut [0.0]);
        let begin = Instant::now();
        let mut passes = |mut complete: Complete<'_>| {
            for shard in ranks.shards(64) {
                let x = shard.of(&x);
                let mut outputs: Vec<Array3<f32>> = Vec::new();
                for (k, (block, cache)) in blocks.iter().zip(&mut caches).enumerate() {
                    let mut state = block.zero_state(shard.count());
                    let input = k.checked_sub(1).map_or(x.reborrow(), |before| Sequence::from(&outputs[before]));
                    let y = block.forward(input, &mut state, cache).to_owned();
                    outputs.push(y);
                }
                let mut d = outputs[7].clone();
                for k in (0..8_usize).rev() {
                    let input = k.checked_sub(1).map_or(x.reborrow(), |before| Sequence::from(&outputs[before]));
                    let to = Gradient::overwrite(&mut grads[k]);
                    d = blocks[k].backward(input, &d, None, &mut caches[k], to).to_owned();
                    complete(&shard, k, &grads[k]);
                }
            }
        };
        match way {
            "during" => {
                parts.during(|going| {
                    passes(Box::new(|shard, k, grad| {
                        if k == 7 {
                            going.shard(shard, 0.0, 1.0);
                        }
                        going.add(k, grad);
                    }));
                });
                let mut grads: Vec<&mut dyn Tensors<f32>> = grads.iter_mut().map(|grad| grad as _).collect();
                parts.mean(&mut grads);
            }
            _ => {
                passes(Box::new(|_, _, _| {}));
                if way == "after" {
                    for shard in ranks.shards(64) {
                        whole.add(&shard, &grads, 0.0, 1.0);
                    }
                    whole.mean(&mut grads);
                }
            }
        }
        ranks.sum_numbers(&mut [0.0]);
        let time = begin.elapsed().as_secs_f64();
        if step >= WAYS.len() {
            best[step % WAYS.len()].add([time, 0.0, 0.0]);
        }
    }
    for (way, best) in WAYS.into_iter().zip(best) {
        report(ranks, &format!("buckets {way} {}", 4 * blocks.element_count()), best);
    }
    Ok(())
}
