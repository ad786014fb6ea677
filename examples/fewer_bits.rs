//! The errors of weights in fewer bits: outputs over a thousand steps, compared with those of weights in f32.
//!
//! ```text
//! cargo run --release --example fewer_bits
//! ```
//!
//! In a recurrence, errors could accumulate from step to step. So each cell, untrained, reads sequences of random numbers from a
//! zero state, once with its weights in f32 and once in each `WeightPrecision`.
//!
//! Claim: with bfloat16, the mean error of an output is below 0.002, and in 8 bits below 0.008; the errors of the last hundred
//! steps are less than 1.5 times those of the second hundred; and the fewer the bits, the larger the errors.

#[path = "common/mod.rs"]
mod common;

use std::process::ExitCode;

use gradflow::ndarray::{Array3, s};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{
    Layer, Sequence,
    recurrent::{GruCell, LstmCell, MguCell, MinGruCell, RnnCell},
    wrap::{Prepacked, WeightPrecision},
};

use common::{Claims, Failure, Settings};

/// Sequences of the batch.
const BATCH: usize = 4;

/// Each precision with the largest mean error allowed.
const PRECISIONS: [(WeightPrecision, f64); 3] =
    [(WeightPrecision::Bf16, 0.002), (WeightPrecision::Int8, 0.008), (WeightPrecision::Int8Dynamic, 0.008)];

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse("What weights in fewer bits cost: outputs over a thousand steps.", &[])?;
    let (input, hidden) = if settings.quick { (16, 32) } else { (64, 256) };
    let steps = 1000;
    let rng = &mut StdRng::seed_from_u64(settings.seed);
    let x = Array3::from_shape_simple_fn((steps, BATCH, input), || rng.random_range(-1.0..1.0));
    println!(
        "{hidden} units, {input} inputs, {steps} steps of {BATCH} sequences; errors of outputs, which are between -1 and 1"
    );
    let mut claims = Claims::new(&settings);
    compare("RNN", RnnCell::new(input, hidden, rng), &x, &mut claims);
    compare("LSTM", LstmCell::new(input, hidden, rng), &x, &mut claims);
    compare("GRU", GruCell::new(input, hidden, rng), &x, &mut claims);
    compare("MGU", MguCell::new(input, hidden, rng), &x, &mut claims);
    compare("minGRU", MinGruCell::new(input, hidden, rng), &x, &mut claims);
    claims.finish()
}

/// The outputs of a model for inference.
fn outputs<L: Layer<Elem = f32>>(model: &Prepacked<L>, x: &Array3<f32>) -> Array3<f32> {
    model.forward(Sequence::from(x).infer(), &mut model.zero_state(BATCH), &mut model.cache()).to_owned()
}

fn compare<L: Layer<Elem = f32>>(name: &str, cell: L, x: &Array3<f32>, claims: &mut Claims) {
    let exact = outputs(&Prepacked::new(cell.clone()), x);
    let mut means = Vec::new();
    for (precision, most) in PRECISIONS {
        let y = outputs(&Prepacked::with_precision(cell.clone(), precision), x);
        let errors = (&y - &exact).mapv(|error| f64::from(error.abs()));
        let largest = errors.iter().copied().fold(0.0, f64::max);
        let mean = errors.mean().expect("errors");
        let part = |steps: std::ops::Range<usize>| errors.slice(s![steps, .., ..]).mean().expect("errors");
        let growth = part(x.dim().0 - 100..x.dim().0) / part(100..200);
        let expected = format!("mean below {most}, growth below 1.5");
        let here = format!("mean {mean:.6}, largest {largest:.5}, growth {growth:.2}");
        claims.check(format!("{name}, {precision:?}"), "", expected, here, mean < most && growth < 1.5);
        means.push(mean);
    }
    let here = format!("{:.2} and {:.2} times", means[1] / means[0], means[2] / means[1]);
    let holds = means.is_sorted() && means[0] > 0.0;
    claims.check(format!("{name}: mean errors, Int8 to Bf16, Int8Dynamic to Int8"), "", "1 or more", here, holds);
}
