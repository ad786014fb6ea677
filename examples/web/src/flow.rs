//! Gradient norms back through time, of cells at initialisation.

use gradflow::author::RecordsState;
use gradflow::layers::Init;
use gradflow::ndarray::{Array2, Array3, s};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::recurrent::{GruCell, LstmCell, RnnCell};
use gradflow::wrap::{GradientProbe, LayerFlow, Probed};
use gradflow::{Layer, Sequence, ZerosLike, clip::grad_norm};

/// Features of the input.
const INPUT: usize = 16;

/// Units of the cell.
const HIDDEN: usize = 64;

/// Sequences of the batch.
const BATCH: usize = 4;

/// Gated cells' weights are uniform in ± this: so small that the gates are set by their biases.
const SMALL: f64 = 0.02;

/// A cell and its initialisation.
#[derive(Clone, Copy, Debug)]
pub enum Cell {
    /// A tanh RNN: recurrent weights orthogonal times `gain`, and input of standard deviation `input` before the tanh.
    Rnn {
        /// The factor by which each step multiplies the state, before the tanh.
        gain: f64,
        /// How far into its saturation the input drives the tanh.
        input: f64,
    },
    /// An LSTM by its forget bias.
    Lstm {
        /// The memory keeps σ of it a step.
        forget: f64,
    },
    /// A GRU by its update bias.
    Gru {
        /// The state keeps σ of it a step.
        update: f64,
    },
}

/// `‖dL/dh‖`, or for an LSTM `‖dL/dc‖`, at the distances 0 to `steps - 1` from the loss; the gradient enters with norm 1.
pub fn norms(cell: Cell, steps: usize, seed: u64) -> Vec<f64> {
    let rng = &mut StdRng::seed_from_u64(seed);
    let flow = match cell {
        Cell::Rnn { gain, input } => {
            let weight_ih = Init::Normal { std: input / (INPUT as f64).sqrt() };
            let weight_hh = Init::Orthogonal { gain };
            pass(RnnCell::builder(INPUT, HIDDEN).weight_ih(weight_ih).weight_hh(weight_hh).build(rng), steps, rng)
        }
        Cell::Lstm { forget } => {
            let weight = Init::Uniform { bound: SMALL };
            let cell = LstmCell::builder(INPUT, HIDDEN).weight_ih(weight).weight_hh(weight).forget_bias(forget);
            pass(cell.build(rng), steps, rng)
        }
        Cell::Gru { update } => {
            let weight = Init::Uniform { bound: SMALL };
            let cell = GruCell::builder(INPUT, HIDDEN).weight_ih(weight).weight_hh(weight).update_bias(update);
            pass(cell.build(rng), steps, rng)
        }
    };
    let norms = if flow.memory.is_empty() { flow.hidden } else { flow.memory };
    norms.into_iter().rev().collect()
}

/// A forward and a backward pass over `steps` steps, after as many steps in which the state settles.
fn pass<L: Layer<Elem = f32>>(cell: L, steps: usize, rng: &mut StdRng) -> LayerFlow
where
    L::Cache: RecordsState,
{
    let probe = GradientProbe::new();
    let model = Probed::recurrent("cell", cell, &probe);
    let (mut state, mut cache, mut grad) = (model.zero_state(BATCH), model.cache(), model.zeros_like());
    let before = normal((steps, BATCH, INPUT), rng);
    let features = model.forward(Sequence::from(&before).infer(), &mut state, &mut cache).dim().2;
    let x = normal((steps, BATCH, INPUT), rng);
    let last = normal((1, BATCH, features), rng);
    let mut dy = Array3::zeros((steps, BATCH, features));
    dy.slice_mut(s![steps - 1.., .., ..]).assign(&(&last / grad_norm(&last, 2.0) as f32));
    probe.record(true);
    model.pass(&x, &mut state, &mut cache).backward(&dy, &mut grad);
    probe.flow().layers.remove(0)
}

/// Standard normal numbers.
fn normal((steps, batch, features): (usize, usize, usize), rng: &mut StdRng) -> Array3<f32> {
    let mut rows = Array2::zeros((steps * batch, features));
    Init::Normal { std: 1.0 }.fill(&mut rows, rng);
    rows.into_shape_with_order((steps, batch, features)).expect("as many numbers")
}
