//! The points that are measured.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The layer that is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    Lstm,
    Gru,
    /// With tanh.
    Rnn,
    /// A stack of pre-norm blocks, `x + fc2(gelu(fc1(layer_norm(x))))`.
    Residual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Forward, and backward with `dx` and the gradients of all parameters.
    Train,
    /// Forward alone.
    Infer,
    /// A whole training step: batch, forward, loss, backward, clipping, optimizer.
    Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    F32,
    F64,
}

impl Cell {
    pub const ALL: [Cell; 4] = [Cell::Lstm, Cell::Gru, Cell::Rnn, Cell::Residual];

    pub fn name(self) -> &'static str {
        match self {
            Cell::Lstm => "lstm",
            Cell::Gru => "gru",
            Cell::Rnn => "rnn",
            Cell::Residual => "residual",
        }
    }

    /// The number of gates: 1 for a plain cell; `None` for layers that are not recurrent.
    pub fn gates(self) -> Option<usize> {
        match self {
            Cell::Lstm => Some(4),
            Cell::Gru => Some(3),
            Cell::Rnn => Some(1),
            Cell::Residual => None,
        }
    }
}

impl Mode {
    /// The modes of single layers.
    pub const ALL: [Mode; 2] = [Mode::Train, Mode::Infer];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Train => "train",
            Mode::Infer => "infer",
            Mode::Step => "step",
        }
    }
}

impl Dtype {
    pub const ALL: [Dtype; 2] = [Dtype::F32, Dtype::F64];

    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
        }
    }
}

/// One measurement: a cell at a size, in a mode and a precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point {
    pub cell: Cell,
    pub mode: Mode,
    pub dtype: Dtype,
    /// T; 1 for residual blocks.
    pub steps: usize,
    /// B; the rows of residual blocks.
    pub batch: usize,
    /// I; the width of residual blocks.
    pub input: usize,
    /// H; the width of residual blocks.
    pub hidden: usize,
    /// The number of blocks or recurrent layers.
    pub depth: usize,
    /// V of a language model, which is an embedding, recurrent layers and a linear layer; 0 for layers alone.
    pub vocabulary: usize,
}

impl Point {
    /// The factor by which a residual block is wider inside than outside.
    pub const EXPANSION: usize = 4;

    /// The number of batches of whole training steps, which are used in turn.
    pub const BATCHES: usize = 10;
    /// The learning rate of whole training steps, for which Adam has PyTorch's defaults.
    pub const LEARNING_RATE: f64 = 1e-3;
    /// The norm to which a language model's gradient is clipped.
    pub const CLIP_NORM: f64 = 1.0;

    /// Names and shapes of the parameters: PyTorch's.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let &Point { input, hidden, depth, vocabulary, .. } = self;
        if let Some(gates) = self.cell.gates() {
            let rows = gates * hidden;
            let layer = |k| {
                let list = [
                    ("weight_ih", vec![rows, if k == 0 { input } else { hidden }]),
                    ("weight_hh", vec![rows, hidden]),
                    ("bias_ih", vec![rows]),
                    ("bias_hh", vec![rows]),
                ];
                list.map(|(name, shape)| (format!("{name}_l{k}"), shape))
            };
            let layers = (0..depth).flat_map(layer);
            if vocabulary == 0 {
                return layers.collect();
            }
            let embedding = ("0.weight".into(), vec![vocabulary, input]);
            let layers = layers.map(|(name, shape)| (format!("1.{name}"), shape));
            let head = [("2.weight".into(), vec![vocabulary, hidden]), ("2.bias".into(), vec![vocabulary])];
            return [embedding].into_iter().chain(layers).chain(head).collect();
        }
        let inner = Self::EXPANSION * hidden;
        let block = [
            ("norm.weight", vec![hidden]),
            ("norm.bias", vec![hidden]),
            ("fc1.weight", vec![inner, hidden]),
            ("fc1.bias", vec![inner]),
            ("fc2.weight", vec![hidden, inner]),
            ("fc2.bias", vec![hidden]),
        ];
        let blocks = (0..depth).flat_map(|k| block.clone().map(|(name, shape)| (format!("{k}.{name}"), shape)));
        blocks.collect()
    }

    /// Floating-point operations of the matrix products; backward, twice those of forward.
    pub fn flops(&self) -> f64 {
        let &Point { steps, batch, input, hidden, depth, vocabulary, .. } = self;
        let row = match self.cell.gates() {
            Some(gates) => gates * hidden * (input + hidden + (depth - 1) * 2 * hidden) + hidden * vocabulary,
            None => depth * 2 * hidden * Self::EXPANSION * hidden,
        };
        let forward = (2 * steps * batch * row) as f64;
        if self.mode == Mode::Infer { forward } else { 3.0 * forward }
    }

    /// The sizes alone: `T50 B64 I512 H512`, `N64 D256 x8`, `V10000 T35 B20 H200 x2`.
    pub fn size(&self) -> String {
        let Point { steps, batch, input, hidden, depth, vocabulary, .. } = self;
        match self.cell {
            Cell::Residual => format!("N{batch} D{hidden} x{depth}"),
            _ if *vocabulary > 0 => format!("V{vocabulary} T{steps} B{batch} H{hidden} x{depth}"),
            _ => format!("T{steps} B{batch} I{input} H{hidden}"),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.cell.name(), self.mode.name(), self.dtype.name(), self.size())
    }
}
