//! The recurrent layers that are compared.

use std::fmt;

use gradflow::ndarray::Array2;
use gradflow::rand::Rng;
use gradflow::{
    compose::{BoxLayer, Stacked, TemporalBlock},
    layers::Init,
    recurrent::{GruCell, LstmCell, RnnCell, SlstmCell},
};

/// The initialisation of the recurrent weights of a tanh RNN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Every parameter uniform in ±1/√H, as in PyTorch.
    Uniform,
    /// A random orthogonal matrix.
    Orthogonal,
    /// The identity, with input weights near 0 (Le et al. 2015).
    Identity,
}

/// A layer with a memory, and its initialisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// An LSTM with these initial biases of two gates.
    Lstm { forget: f64, input: f64 },
    /// A GRU with this initial bias of the gate that keeps the state.
    Gru { update: f64 },
    /// An LSTM with initial memories of one step to `t_max` steps (Tallec and Ollivier 2018).
    Chrono { t_max: f64 },
    /// An sLSTM with this initial forget bias.
    Slstm { forget: f64 },
    /// An RNN with tanh.
    Rnn(Start),
    /// No recurrence: residual blocks of convolutions with `taps` taps, the dilation doubled from block to block.
    Temporal { blocks: usize, taps: usize },
}

impl Cell {
    /// The layer, drawn from `rng`.
    pub fn build(self, inputs: usize, hidden: usize, rng: &mut impl Rng) -> BoxLayer<f32> {
        match self {
            Cell::Lstm { forget, input } => {
                BoxLayer::new(LstmCell::builder(inputs, hidden).forget_bias(forget).input_bias(input).build(rng))
            }
            Cell::Gru { update } => BoxLayer::new(GruCell::builder(inputs, hidden).update_bias(update).build(rng)),
            Cell::Chrono { t_max } => BoxLayer::new(LstmCell::builder(inputs, hidden).chrono(t_max).build(rng)),
            Cell::Slstm { forget } => BoxLayer::new(SlstmCell::builder(inputs, hidden).forget_bias(forget).build(rng)),
            Cell::Temporal { blocks, taps } => {
                let first = TemporalBlock::weight_norm(inputs, hidden, taps, 1, 0.0, rng);
                let block = |k: usize| TemporalBlock::weight_norm(hidden, hidden, taps, 2 << k, 0.0, rng);
                BoxLayer::new((first, Stacked::build(blocks - 1, block)))
            }
            Cell::Rnn(Start::Uniform) => BoxLayer::new(RnnCell::builder(inputs, hidden).pytorch().build(rng)),
            Cell::Rnn(Start::Orthogonal) => BoxLayer::new(RnnCell::new(inputs, hidden, rng)),
            Cell::Rnn(Start::Identity) => {
                let mut cell = RnnCell::builder(inputs, hidden).weight_ih(Init::Normal { std: 0.001 }).build(rng);
                cell.weight_hh = Array2::eye(hidden);
                BoxLayer::new(cell)
            }
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Lstm { forget, input } => write!(f, "biases: forget {forget}, input {input}"),
            Cell::Gru { update } => write!(f, "bias: update {update}"),
            Cell::Chrono { t_max } => write!(f, "chrono {t_max}"),
            Cell::Slstm { forget } => write!(f, "bias: forget {forget}"),
            Cell::Temporal { blocks, taps } => write!(f, "{blocks} blocks, {taps} taps"),
            Cell::Rnn(start) => f.write_str(&format!("{start:?}").to_lowercase()),
        }
    }
}
