//! A clipped step, in `f32`: clipping and then stepping, against both in one pass.
//!
//! ```text
//! cargo bench --bench optimizers
//! ```
//!
//! The throughput is in parameters: criterion's `Gelem/s` are thousands of millions of parameters a second.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gradflow::ndarray::Array1;
use gradflow::{Adagrad, Adam, AdamW, ClipNorm, Optimizer, RmsProp, Sgd};

/// Parameters that fit into the second cache, into the third, and into neither.
const SIZES: [usize; 3] = [10_000, 1_000_000, 10_000_000];

fn optimizers() -> Vec<(&'static str, Box<dyn Optimizer<f32>>)> {
    vec![
        ("sgd", Box::new(Sgd::new(1e-6))),
        ("sgd+momentum", Box::new(Sgd::new(1e-6).momentum(0.9))),
        ("adam", Box::new(Adam::new(1e-6))),
        ("adamw", Box::new(AdamW::new(1e-6))),
        ("rmsprop", Box::new(RmsProp::new(1e-6))),
        ("adagrad", Box::new(Adagrad::new(1e-6))),
    ]
}

fn clipped_steps(c: &mut Criterion) {
    for size in SIZES {
        let new_grad = Array1::from_shape_fn(size, |k| (0.7 * k as f32).sin());
        // The limit lies below the norm: every step clips.
        let clip = ClipNorm::new(1e-3);
        for (name, mut optimizer) in optimizers() {
            let mut model = Array1::from_shape_fn(size, |k| (0.3 * k as f32).cos());
            let mut group = c.benchmark_group(name);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new("clip, step", size), |bencher| {
                let step = |grad: &mut Array1<f32>| {
                    black_box(clip.clip(grad)).expect("a finite gradient");
                    optimizer.step(&mut model, grad);
                };
                // A gradient that is not clipped yet.
                bencher.iter_batched_ref(|| new_grad.clone(), step, BatchSize::PerIteration);
            });
            group.bench_function(BenchmarkId::new("clipped step", size), |bencher| {
                let step = |grad: &mut Array1<f32>| {
                    black_box(optimizer.step_clipped(&mut model, grad, clip)).expect("a finite gradient");
                };
                bencher.iter_batched_ref(|| new_grad.clone(), step, BatchSize::PerIteration);
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = clipped_steps
}
criterion_main!(benches);
