//! A clipped step, in `f32`: clipping and then stepping, against both in one pass.
//!
//! ```text
//! cargo bench --bench optimizers
//! ```
//!
//! The throughput is in parameters: divan's `Gitem/s` are thousands of millions of parameters a second.

use std::fmt;
use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use gradflow::ndarray::Array1;
use gradflow::{
    clip::ClipNorm,
    optim::{Adagrad, Adam, AdamW, NAdam, Optimizer, RmsProp, Sgd},
};

fn main() {
    divan::main();
}

/// An optimizer's name and how to make one.
struct Named(&'static str, fn() -> Box<dyn Optimizer<f32>>);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const OPTIMIZERS: [Named; 8] = [
    Named("sgd", || Box::new(Sgd::new(1e-6))),
    Named("sgd+momentum", || Box::new(Sgd::new(1e-6).momentum(0.9))),
    Named("adam", || Box::new(Adam::new(1e-6))),
    Named("adamw", || Box::new(AdamW::new(1e-6))),
    Named("adamw+amsgrad", || Box::new(AdamW::new(1e-6).amsgrad())),
    Named("nadam", || Box::new(NAdam::new(1e-6))),
    Named("rmsprop", || Box::new(RmsProp::new(1e-6))),
    Named("adagrad", || Box::new(Adagrad::new(1e-6))),
];

/// Parameters that fit into the L2 cache, into the L3 cache, and into neither.
const SIZES: [usize; 3] = [10_000, 1_000_000, 10_000_000];

/// Measures `step(model, gradient)` with a gradient that is not clipped yet.
fn measure(bencher: Bencher<'_, '_>, size: usize, mut step: impl FnMut(&mut Array1<f32>, &mut Array1<f32>)) {
    let mut model = Array1::from_shape_fn(size, |k| (0.3 * k as f32).cos());
    let grad = Array1::from_shape_fn(size, |k| (0.7 * k as f32).sin());
    let bencher = bencher.counter(ItemsCount::new(size)).with_inputs(|| grad.clone());
    bencher.bench_local_refs(|grad| step(&mut model, grad));
}

/// The limit lies below the norm: every step clips.
fn clip() -> ClipNorm {
    ClipNorm::new(1e-3)
}

// One gradient a sample: it is in the cache, as after a backward pass.
#[divan::bench(consts = SIZES, args = OPTIMIZERS, sample_size = 1, min_time = 0.5, max_time = 2, skip_ext_time)]
fn clip_then_step<const SIZE: usize>(bencher: Bencher<'_, '_>, Named(_, new): &Named) {
    let (clip, mut optimizer) = (clip(), new());
    measure(bencher, SIZE, |model, grad| {
        black_box(clip.clip(grad)).expect("a finite gradient");
        optimizer.step(model, grad);
    });
}

#[divan::bench(consts = SIZES, args = OPTIMIZERS, sample_size = 1, min_time = 0.5, max_time = 2, skip_ext_time)]
fn clipped_step<const SIZE: usize>(bencher: Bencher<'_, '_>, Named(_, new): &Named) {
    let (clip, mut optimizer) = (clip(), new());
    measure(bencher, SIZE, |model, grad| {
        black_box(optimizer.step_clipped(model, grad, clip)).expect("a finite gradient");
    });
}
