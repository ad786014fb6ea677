//! The README's first program: an LSTM reads ten random tokens and says which came first.

use gradflow::ndarray::{Array2, s};
use gradflow::prelude::*;
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};

fn main() -> Result<(), gradflow::clip::NonFiniteGradient> {
    let rng = &mut StdRng::seed_from_u64(0);
    let mut model =
        (Embedding::new(8, 16, rng), Lstm::<f32>::new(16, 32, rng), LastStep::new(), Linear::new(32, 8, rng));
    let (mut cross_entropy, mut optimizer) = (SoftmaxCrossEntropy::new(), AdamW::new(1e-2));
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    for step in 0..=300 {
        let x = Array2::from_shape_simple_fn((10, 32), || rng.random_range(0..8)); // ids, [T, B]
        let first = x.slice(s![..1, ..]);
        let mut state = model.zero_state(32);
        let pass = model.pass(&x, &mut state, &mut cache);
        let loss = cross_entropy.of(&pass, &first);
        if step % 100 == 0 {
            println!("step {step:3}: loss {:.2}", loss.value());
        }
        pass.backward_into(loss.gradient(), &mut grad);
        optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0))?;
    }
    Ok(())
}
