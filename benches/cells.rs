//! How fast the cells and the pre-norm residual block are, in `f32`: forward, forward and backward, with lengths, and one
//! step.
//!
//! ```text
//! cargo bench
//! ```
//!
//! The throughput is in floating-point operations of the matrix products: criterion's `Gelem/s` are GFLOP/s. What is
//! done element by element takes time too but is not counted.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use gradflow::ndarray::Array3;
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{Causal, GruCell, Layer, LstmCell, Nonlinearity, PreNormBlock, RnnCell, Sequence, Stacked, ZerosLike};

/// T, B, I and H of the cells: one small sequence, a small and a large batch.
const SIZES: [(usize, usize, usize, usize); 3] = [(32, 1, 32, 32), (64, 16, 64, 64), (50, 32, 128, 256)];

/// Rows and width of the residual blocks; inside, they are four times as wide.
const BLOCKS: [(usize, usize); 4] = [(16, 64), (256, 64), (16, 256), (256, 256)];

/// Residual blocks one after another.
const DEPTH: usize = 4;

fn rng() -> StdRng {
    StdRng::seed_from_u64(0)
}

/// The whole sequences, which may have lengths, forward and back; `flops` are those of a layer's forward pass over one row.
fn sequences<L: Layer<Elem = f32>>(
    c: &mut Criterion,
    name: &str,
    size: &str,
    layer: &L,
    dims: (usize, usize, usize),
    lengths: Option<&[usize]>,
    flops: usize,
) {
    let rng = &mut rng();
    let x = Array3::from_shape_simple_fn(dims, || rng.random_range(-1.0..1.0));
    let (x, with) = match lengths {
        None => (Sequence::from(&x), ""),
        Some(lengths) => (Sequence::from(&x).with_lengths(lengths).expect("lengths that fit"), " with lengths"),
    };
    let flops = (x.valid_count() * flops) as u64;
    let (mut state, mut cache, mut grad) = (layer.zero_state(dims.1), layer.cache(), layer.zeros_like());
    let dy = layer.forward(x, &mut state, &mut cache).to_owned();

    let mut group = c.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(flops));
    group.bench_function(BenchmarkId::new(format!("forward{with}"), size), |bencher| {
        bencher.iter(|| {
            black_box(layer.forward(x, &mut state, &mut cache));
        });
    });
    // A backward pass multiplies twice as much: for the weights' gradient and for the input's.
    group.throughput(Throughput::Elements(3 * flops));
    group.bench_function(BenchmarkId::new(format!("forward+backward{with}"), size), |bencher| {
        bencher.iter(|| {
            black_box(layer.pass(x, &mut state, &mut cache).backward_into(&dy, &mut grad));
        });
    });
    group.finish();
}

/// One step after another, as in a stream.
fn steps<L: Causal<Elem = f32>>(
    c: &mut Criterion,
    name: &str,
    size: &str,
    layer: &L,
    (batch, input): (usize, usize),
    flops: usize,
) {
    let rng = &mut rng();
    let x = Array3::from_shape_simple_fn((1, batch, input), || rng.random_range(-1.0..1.0));
    let (mut state, mut cache) = (layer.zero_state(batch), layer.cache());
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements((batch * flops) as u64));
    group.bench_function(BenchmarkId::new("step", size), |bencher| {
        bencher.iter(|| {
            black_box(layer.step(&x, &mut state, &mut cache));
        });
    });
    group.finish();
}

fn cell<L: Causal<Elem = f32>>(c: &mut Criterion, name: &str, gates: usize, new: impl Fn(usize, usize) -> L) {
    for (length, batch, input, hidden) in SIZES {
        let layer = new(input, hidden);
        let flops = 2 * gates * hidden * (input + hidden);
        let size = format!("T{length} B{batch} I{input} H{hidden}");
        let dims = (length, batch, input);
        sequences(c, name, &size, &layer, dims, None, flops);
        if batch > 1 {
            let rng = &mut rng();
            let lengths: Vec<usize> = (0..batch).map(|_| rng.random_range(length / 2..=length)).collect();
            sequences(c, name, &size, &layer, dims, Some(&lengths), flops);
        }
        steps(c, name, &format!("B{batch} I{input} H{hidden}"), &layer, (batch, input), flops);
    }
}

fn cells(c: &mut Criterion) {
    cell(c, "rnn", 1, |input, hidden| RnnCell::new(input, hidden, &mut rng()));
    cell(c, "gru", 3, |input, hidden| GruCell::new(input, hidden, &mut rng()));
    cell(c, "lstm", 4, |input, hidden| LstmCell::new(input, hidden, &mut rng()));
}

fn residual(c: &mut Criterion) {
    for (rows, width) in BLOCKS {
        let rng = &mut rng();
        let net = Stacked::build(DEPTH, |_| PreNormBlock::pre_norm(width, 4 * width, Nonlinearity::Gelu, rng));
        let size = format!("N{rows} D{width} x{DEPTH}");
        sequences(c, "pre-norm", &size, &net, (1, rows, width), None, DEPTH * 2 * 2 * width * 4 * width);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = cells, residual
}
criterion_main!(benches);
