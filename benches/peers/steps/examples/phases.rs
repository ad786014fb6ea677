//! The time of each part of a whole training step: the best of many steps.

use std::time::Instant;

use gradflow::ndarray::{Array2, Array3};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{
    Layer, Sequence, ZerosLike,
    clip::ClipNorm,
    compose::{PreNormBlock, Stacked},
    layers::{Embedding, Linear, Nonlinearity},
    loss::{Loss, MeanSquaredError, SoftmaxCrossEntropy},
    optim::{Adam, AdamW, Optimizer},
    recurrent::Lstm,
};

const STEPS: usize = 60;
const BATCHES: usize = 10;

/// The best times of the parts, in seconds, and of the whole.
struct Phases {
    last: Instant,
    current: Vec<f64>,
    best: Vec<f64>,
}

impl Phases {
    const NAMES: [&str; 4] = ["forward", "loss", "backward", "optimizer"];

    fn new() -> Self {
        let all = Self::NAMES.len() + 1;
        Phases { last: Instant::now(), current: Vec::new(), best: vec![f64::INFINITY; all] }
    }

    fn start(&mut self) {
        self.current.clear();
        self.last = Instant::now();
    }

    fn end_part(&mut self) {
        let now = Instant::now();
        self.current.push((now - self.last).as_secs_f64());
        self.last = now;
    }

    fn end(&mut self) {
        self.current.push(self.current.iter().sum());
        self.best.iter_mut().zip(&self.current).for_each(|(best, &seconds)| *best = best.min(seconds));
    }

    fn print(&self, name: &str) {
        let (&all, parts) = self.best.split_last().expect("the whole");
        let parts = Self::NAMES.iter().zip(parts);
        let parts: Vec<String> =
            parts.map(|(name, part)| format!("{name} {:.2} ms ({:.1} %)", 1e3 * part, 100.0 * part / all)).collect();
        println!("{name}: {:.2} ms: {}", 1e3 * all, parts.join(", "));
    }
}

fn language(vocabulary: usize, steps: usize, batch: usize, hidden: usize, layers: usize) {
    let rng = &mut StdRng::seed_from_u64(0);
    let mut model = (
        Embedding::<f32>::new(vocabulary, hidden, rng),
        Lstm::builder(hidden, hidden).num_layers(layers).build(rng),
        Linear::new(hidden, vocabulary, rng),
    );
    let (mut state, mut cache, mut grad) = (model.zero_state(batch), model.cache(), model.zeros_like());
    let (mut cross_entropy, mut optimizer) = (SoftmaxCrossEntropy::new(), AdamW::new(1e-3));
    let mut ids = || Array2::from_shape_simple_fn((steps, batch), || rng.random_range(0..vocabulary));
    let batches: Vec<[Array2<usize>; 2]> = (0..BATCHES).map(|_| [ids(), ids()]).collect();
    let mut phases = Phases::new();
    for step in 0..STEPS {
        let [x, targets] = &batches[step % BATCHES];
        phases.start();
        let pass = model.pass(x, &mut state, &mut cache);
        phases.end_part();
        let loss = cross_entropy.of(&pass, targets);
        phases.end_part();
        pass.backward_into(loss.gradient(), &mut grad);
        phases.end_part();
        optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0)).expect("a finite gradient");
        phases.end_part();
        phases.end();
    }
    phases.print(&format!("lstm V{vocabulary} T{steps} B{batch} H{hidden} x{layers}"));
}

fn blocks(rows: usize, width: usize, depth: usize) {
    let rng = &mut StdRng::seed_from_u64(0);
    let mut model = Stacked::build(depth, |_| PreNormBlock::<f32>::new(width, 4 * width, Nonlinearity::Gelu, rng));
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    let (mut squared_error, mut optimizer) = (MeanSquaredError::new(), Adam::new(1e-3));
    let mut values = || Array3::from_shape_simple_fn((1, rows, width), || rng.random_range(-1.0..1.0));
    let (x, targets) = (values(), values());
    let mut phases = Phases::new();
    for _ in 0..STEPS {
        let mut state = model.zero_state(rows);
        phases.start();
        let pass = model.pass(Sequence::from(&x).constant(), &mut state, &mut cache);
        phases.end_part();
        let loss = squared_error.of(&pass, &targets);
        phases.end_part();
        pass.backward_into(loss.gradient(), &mut grad);
        phases.end_part();
        optimizer.step(&mut model, &grad);
        phases.end_part();
        phases.end();
    }
    phases.print(&format!("residual N{rows} D{width} x{depth}"));
}

fn main() {
    language(96, 64, 16, 128, 1);
    language(96, 64, 64, 256, 1);
    language(10_000, 35, 20, 200, 2);
    blocks(64, 256, 8);
    blocks(1024, 256, 8);
}
