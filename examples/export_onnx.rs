//! A model trained here, written as an ONNX file, and read back.
//!
//! ```text
//! cargo run --release --features onnx --example export_onnx -- model.onnx
//! ```
//!
//! An LSTM learns to give the mean of a sequence of numbers, of any length; training takes a second. The inputs of the file are
//! `x`, `[T, B, 1]`, and `lengths`, `[B]`; its output is `y`, `[1, B, 1]`.

use std::path::PathBuf;

use gradflow::ndarray::{Array3, s};
use gradflow::onnx::{ExportOptions, export_to_file, load_into};
use gradflow::prelude::*;
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};

const STEPS: usize = 12;
const BATCH: usize = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).map_or_else(|| std::env::temp_dir().join("model.onnx"), PathBuf::from);
    let rng = &mut StdRng::seed_from_u64(0);
    let mut model = (Lstm::<f32>::new(1, 16, rng), LastStep::new(), Linear::new(16, 1, rng));
    let (mut squares, mut optimizer) = (MeanSquaredError::new(), AdamW::new(1e-2));
    let (mut cache, mut grad, mut loss_value) = (model.cache(), model.zeros_like(), f64::INFINITY);
    for _ in 0..400 {
        let x = Array3::from_shape_simple_fn((STEPS, BATCH, 1), || rng.random_range(-1.0..1.0));
        let lengths: Vec<_> = (0..BATCH).map(|_| rng.random_range(1..=STEPS)).collect();
        let mean = Array3::from_shape_fn((1, BATCH, 1), |(_, b, _)| x.slice(s![..lengths[b], b, 0]).mean().unwrap());
        let x = Sequence::from(&x).with_lengths(&lengths)?;
        let mut state = model.zero_state(BATCH);
        let pass = model.pass(x, &mut state, &mut cache);
        let loss = squares.of(&pass, &mean);
        loss_value = loss.value();
        pass.backward_into(loss.gradient(), &mut grad);
        optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0))?;
    }
    println!("mean squared error {loss_value:.5}");
    assert!(loss_value < 0.05, "the model has not learned the mean");

    export_to_file(&path, &model, 1, &ExportOptions::new().lengths(true))?;
    let mut copy = (Lstm::<f32>::new(1, 16, rng), LastStep::new(), Linear::new(16, 1, rng));
    load_into(&mut copy, &path)?;
    assert_eq!(copy, model, "what is read is what was written");
    println!("{} has {} bytes; in Python:", path.display(), std::fs::metadata(&path)?.len());
    println!(
        "onnxruntime.InferenceSession({:?}).run(None, {{\"x\": x, \"lengths\": lengths}})",
        path.display().to_string()
    );
    Ok(())
}
