//! Trains the detector on synthetic voices, and saves it.
//!
//! ```text
//! cargo run --release --manifest-path examples/web/Cargo.toml --bin train -- out/voice.safetensors
//! python3 examples/web/shrink.py out/voice.safetensors examples/web/voice/voice.safetensors
//! ```

use std::error::Error;
use std::time::Instant;

use gradflow::io::StateDict;
use gradflow::loss::{BinaryCrossEntropy, Loss};
use gradflow::ndarray::{Array3, Axis};
use gradflow::optim::{AdamW, Optimizer, Schedule};
use gradflow::rand::seq::SliceRandom;
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{Layer, Sequence, ZerosLike, clip::ClipNorm};
use gradflow_voice::bands::{BANDS, Bands, HOP, RATE};
use gradflow_voice::detector::Model;
use gradflow_voice::synth::{Clip, sets};

const SEED: u64 = 0;
const EPOCHS: usize = 30;
const BATCH: usize = 32;
const LEARNING_RATE: f64 = 1e-2;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the file to save to, please")?;
    let start = Instant::now();
    let clips = sets::training(SEED);
    let (x, y) = (features(&clips), targets(&clips));
    println!("{} clips of {} s, after {:.0?}", clips.len(), sets::SECONDS, start.elapsed());

    let rng = &mut StdRng::seed_from_u64(SEED);
    let mut model = Model::new(rng);
    let steps = EPOCHS * clips.len() / BATCH;
    let schedule = Schedule::cosine(LEARNING_RATE, steps as u64, 1e-2 * LEARNING_RATE);
    let (mut optimizer, mut cross_entropy) = (AdamW::new(LEARNING_RATE), BinaryCrossEntropy::new());
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    let mut order: Vec<usize> = (0..clips.len()).collect();
    let mut step = 0;
    for epoch in 1..=EPOCHS {
        order.shuffle(rng);
        let mut losses = 0.0;
        for batch in order.chunks(BATCH) {
            let (x, y) = (x.select(Axis(1), batch), y.select(Axis(1), batch));
            let mut state = model.zero_state(batch.len());
            let pass = model.pass(Sequence::from(&x).constant(), &mut state, &mut cache);
            let loss = cross_entropy.of(&pass, &y);
            losses += loss.value() * batch.len() as f64 / clips.len() as f64;
            pass.backward_into(loss.gradient(), &mut grad);
            optimizer.set_learning_rate(schedule.learning_rate(step));
            optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0))?;
            step += 1;
        }
        println!("epoch {epoch:2}: cross-entropy {losses:.3} nats, after {:.0?}", start.elapsed());
    }
    StateDict::of(&model).save(&path)?;
    println!("{path}: saved");
    Ok(())
}

/// The bands of all frames, `[T, B, BANDS]`.
fn features(clips: &[Clip]) -> Array3<f32> {
    let mut x = Array3::zeros((sets::SECONDS * RATE / HOP, clips.len(), BANDS));
    for (clip, mut x) in clips.iter().zip(x.axis_iter_mut(Axis(1))) {
        let mut bands = Bands::new();
        let frames = clip.samples.iter().filter_map(|&sample| bands.push(sample));
        for (frame, mut x) in frames.zip(x.rows_mut()) {
            x.assign(&gradflow::ndarray::aview1(&frame));
        }
    }
    x
}

/// 1 where there is voice, `[T, B, 1]`.
fn targets(clips: &[Clip]) -> Array3<f32> {
    let steps = sets::SECONDS * RATE / HOP;
    Array3::from_shape_fn((steps, clips.len(), 1), |(t, b, _)| f32::from(u8::from(clips[b].voice[t])))
}
