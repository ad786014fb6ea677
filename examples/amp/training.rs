//! A recurrent network that learns the circuit.

use gradflow::loss::{Loss, MeanSquaredError};
use gradflow::ndarray::{Array3, s};
use gradflow::optim::{AdamW, Optimizer, Schedule};
use gradflow::wrap::TruncatedBptt;
use gradflow::{Causal, Layer, Sequence, ZerosLike, clip::ClipNorm};

use super::common::Failure;

/// Sequences of a batch.
const BATCH: usize = 32;

/// Steps between two updates, and steps through which a gradient goes back.
const SEGMENT: usize = 400;
const CHUNK: usize = 100;

/// The length of a training, and its learning rate.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub epochs: usize,
    pub learning_rate: f64,
}

/// Trains `model` on audio that is cut into [`BATCH`] pieces. In each epoch, every piece is read once from start to end, with the
/// state carried on and the gradient truncated.
pub fn train<L: Causal<Elem = f32>>(model: L, x: &[f32], y: &[f32], recipe: Recipe) -> Result<L, Failure> {
    let mut model = TruncatedBptt::new(model, CHUNK);
    let (x, y) = (pieces(x), pieces(y));
    let segments = x.dim().0 / SEGMENT;
    let schedule =
        Schedule::cosine(recipe.learning_rate, (recipe.epochs * segments) as u64, 1e-2 * recipe.learning_rate);
    let (mut optimizer, mut squared_error) =
        (AdamW::new(recipe.learning_rate).weight_decay(0.0), MeanSquaredError::new());
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    for epoch in 0..recipe.epochs {
        let mut state = model.zero_state(BATCH);
        for segment in 0..segments {
            let steps = s![segment * SEGMENT..(segment + 1) * SEGMENT, .., ..];
            let (x, y) = (x.slice(steps), y.slice(steps));
            let pass = model.pass(Sequence::from(&x).constant(), &mut state, &mut cache);
            let loss = squared_error.of(&pass, &y);
            pass.backward_into(loss.gradient(), &mut grad);
            optimizer.set_learning_rate(schedule.learning_rate((epoch * segments + segment) as u64));
            optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0))?;
        }
    }
    Ok(model.layer)
}

/// The audio cut into consecutive pieces, `[T, B, 1]`.
fn pieces(audio: &[f32]) -> Array3<f32> {
    let steps = audio.len() / BATCH;
    Array3::from_shape_fn((steps, BATCH, 1), |(t, b, _)| audio[b * steps + t])
}
