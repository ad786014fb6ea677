//! Measures what `measure.py` puts together: steps of three models, messages, and buckets that go out during the backward pass.
//!
//! Rank 0 prints a line of `row:` and numbers for each measurement; times are those of its best step, in seconds.

use std::process::ExitCode;
use std::time::Instant;

use gradflow::author::Gradient;
use gradflow::compose::{PreNormBlock, Stacked};
use gradflow::layers::Nonlinearity;
use gradflow::ndarray::{Array1, Array2, Array3, ArrayView3};
use gradflow::prelude::*;
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow_mpi::{Options, Ranks, Reduction, Wire, run};
use mpi::collective::SystemOperation;
use mpi::request::scope;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

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

/// The best times of what was measured, and the sum of all others.
#[derive(Clone, Copy)]
struct Best([f64; 3]);

impl Best {
    fn new() -> Self {
        Best([f64::INFINITY; 3])
    }

    /// Of the whole and of two parts of it.
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
        // All begin together.
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

/// Gradients of eight residual blocks: in one tree sum after the backward pass; and block by block, after it and while it runs, by MPI's
/// non-blocking all-reduce.
fn buckets(ranks: &Ranks, count: usize) -> Result<(), String> {
    let world = SimpleCommunicator::world();
    let rng = &mut StdRng::seed_from_u64(0);
    let x = Array3::from_shape_simple_fn((50, 64 / ranks.count(), 512), || rng.random_range(-1.0_f32..1.0));
    let blocks: Vec<_> = (0..8).map(|_| PreNormBlock::<f32>::new(512, 1024, Nonlinearity::Relu, rng)).collect();
    let mut grads: Vec<_> = blocks.iter().map(|block| block.zeros_like()).collect();
    let mut caches: Vec<_> = blocks.iter().map(|block| block.cache()).collect();
    let bytes = 4 * blocks.iter().map(|block| block.element_count()).sum::<usize>();
    let mut memory: Vec<_> = blocks
        .iter()
        .map(|block| (vec![0.0_f32; block.element_count()], vec![0.0_f32; block.element_count()]))
        .collect();
    let mut best = [Best::new(); 4];
    for step in 0..4 * (count + 1) {
        let way = step % 4; // no messages; by MPI after the backward pass, and while it runs; by the tree
        ranks.sum_numbers(&mut [0.0]);
        let begin = Instant::now();
        let mut inputs = vec![x.clone()];
        for (block, cache) in blocks.iter().zip(&mut caches) {
            let mut state = block.zero_state(x.dim().1);
            let y = block.forward(inputs.last().expect("x"), &mut state, cache).to_owned();
            inputs.push(y);
        }
        let mut d = inputs.pop().expect("an output");
        let mut waiting = 0.0;
        scope(|scope| {
            let mut pending: Vec<_> = Vec::new();
            let mut places = memory.iter_mut().rev();
            for k in (0..blocks.len()).rev() {
                d = blocks[k]
                    .backward(&inputs[k], &d, None, &mut caches[k], Gradient::overwrite(&mut grads[k]))
                    .to_owned();
                let (own, all) = places.next().expect("memory");
                let mut place = &mut own[..];
                for i in 0..grads[k].count() {
                    let values = grads[k].values(i);
                    let (here, rest) = place.split_at_mut(values.len());
                    here.copy_from_slice(values);
                    place = rest;
                }
                match way {
                    1 => pending.push(Ok((&*own, all))),
                    2 => {
                        pending.push(Err(Some(world.immediate_all_reduce_into(
                            scope,
                            &own[..],
                            &mut all[..],
                            SystemOperation::sum(),
                        ))));
                        // MPI moves messages while it is called.
                        for request in pending.iter_mut().flat_map(|p| p.as_mut().err()) {
                            *request = request.take().and_then(|request| request.test().err());
                        }
                    }
                    _ => {}
                }
            }
            let computed = Instant::now();
            for bucket in pending {
                match bucket {
                    Ok((own, all)) => {
                        _ = world
                            .immediate_all_reduce_into(scope, &own[..], &mut all[..], SystemOperation::sum())
                            .wait()
                    }
                    Err(request) => _ = request.map(|request| request.wait()),
                }
            }
            if way == 3 {
                ranks.sum(&mut grads);
            }
            waiting = computed.elapsed().as_secs_f64();
        });
        let whole = begin.elapsed().as_secs_f64();
        if step >= 4 {
            best[way].add([whole, waiting, 0.0]);
        }
    }
    for (name, best) in ["none", "after", "during", "tree"].into_iter().zip(best) {
        report(ranks, &format!("buckets {name} {bytes}"), best);
    }
    Ok(())
}
