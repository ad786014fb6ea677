//! Loss and gradient of CTC, in `f32`: log-softmax, the sums over all paths, forward and backward.
//!
//! ```text
//! cargo bench --bench losses
//! python tests/training/data/ctc.py time      # PyTorch's times of the same shapes
//! ```

use divan::Bencher;
use gradflow::loss::{Ctc, Loss};
use gradflow::ndarray::Array3;

fn main() {
    divan::main();
}

/// T, B, V and the number of labels S.
const SHAPES: [[usize; 4]; 4] = [[50, 16, 40, 12], [200, 16, 40, 60], [200, 64, 40, 60], [500, 16, 100, 120]];

#[divan::bench(args = SHAPES, min_time = 0.5, max_time = 3)]
fn ctc(bencher: Bencher<'_, '_>, [steps, batch, classes, count]: [usize; 4]) {
    let logits = Array3::from_shape_fn((steps, batch, classes), |(t, b, k)| ((t * 7 + b * 3 + k) as f32 * 0.37).sin());
    let targets: Vec<_> = (0..batch).map(|b| (0..count).map(|s| 1 + (b + 5 * s) % (classes - 1)).collect()).collect();
    let mut ctc = Ctc::<f32>::new();
    bencher.bench_local(|| ctc.of(&logits, &targets).value());
}
