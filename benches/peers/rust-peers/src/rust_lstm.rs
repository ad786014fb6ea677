//! rust-lstm: its `LSTMNetwork` of one layer, always in f64.

use std::hint::black_box;

use ndarray_0_15::Array2;
use protocol::{Cell, Mode, Peer, Point, Tensor, Tensors, Work};
use rust_lstm::layers::lstm_cell::{LSTMCell, LSTMCellGradients};
use rust_lstm::models::lstm_network::LSTMNetwork;

use crate::layout::{joined, transposed};
use crate::version::locked;

pub struct RustLstm;

impl Peer for RustLstm {
    fn version(&self) -> String {
        format!("rust-lstm {} (f64)", locked("rust-lstm"))
    }

    fn prepare(&self, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String> {
        match point.cell {
            _ if point.mode == Mode::Step => Err("single layers alone".into()),
            Cell::Lstm => Ok(Box::new(Run::new(point, given))),
            Cell::Gru => Err("its GRU resets before the product".into()),
            Cell::Rnn | Cell::Residual => Err("no such layer".into()),
        }
    }
}

/// `[D, B]` a step: its layout.
type Steps = Vec<Array2<f64>>;

struct Run {
    mode: Mode,
    network: LSTMNetwork,
    x: Steps,
    dy: Steps,
}

fn matrix(tensor: &Tensor) -> Array2<f64> {
    let rows = tensor.shape[0];
    Array2::from_shape_vec((rows, tensor.values.len() / rows), tensor.values.clone()).expect("rows of one length")
}

fn steps(tensor: &Tensor) -> Steps {
    let &[steps, batch, features] = tensor.shape.as_slice() else { panic!("[T, B, D]") };
    let step = |t: usize| {
        let size = batch * features;
        let rows = Tensor::new([batch, features], tensor.values[t * size..(t + 1) * size].iter().copied());
        matrix(&transposed(&rows))
    };
    (0..steps).map(step).collect()
}

fn tensor<'a>(steps: impl IntoIterator<Item = &'a Array2<f64>>) -> Tensor {
    let step = |step: &Array2<f64>| {
        let Tensor { shape, values } = transposed(&Tensor::new(step.shape(), step.iter().copied()));
        Tensor::new([1, shape[0], shape[1]], values)
    };
    joined(&steps.into_iter().map(step).collect::<Vec<_>>())
}

impl Run {
    fn new(point: &Point, given: &Tensors) -> Self {
        let parameter = |name: &str| matrix(given.get(&format!("param.{name}_l0")));
        let mut cell = LSTMCell::new(point.input, point.hidden);
        (cell.w_ih, cell.w_hh) = (parameter("weight_ih"), parameter("weight_hh"));
        (cell.b_ih, cell.b_hh) = (parameter("bias_ih"), parameter("bias_hh"));
        let mut network = LSTMNetwork::from_cells(vec![cell], point.input, point.hidden, 1);
        let mut dy = Vec::new();
        if point.mode == Mode::Train {
            dy = steps(given.get("dy"));
        } else {
            network.eval();
        }
        Run { mode: point.mode, network, x: steps(given.get("x")), dy }
    }

    fn train(&mut self) -> (Steps, Vec<LSTMCellGradients>, Steps) {
        let (states, caches) = self.network.forward_sequence_with_cache(&self.x);
        let (gradients, dx) = self.network.backward_sequence(&self.dy, &caches);
        (states.into_iter().map(|(h, _)| h).collect(), gradients, dx)
    }
}

impl Work for Run {
    fn run(&mut self) {
        if self.mode == Mode::Train {
            drop(black_box(self.train()));
        } else {
            drop(black_box(self.network.forward_sequence(&self.x)));
        }
    }

    fn outputs(&mut self) -> Tensors {
        let mut outputs = Tensors::default();
        if self.mode == Mode::Infer {
            outputs.insert("y", tensor(&self.network.forward_sequence(&self.x)));
            return outputs;
        }
        let (y, gradients, dx) = self.train();
        outputs.insert("y", tensor(&y));
        outputs.insert("dx", tensor(&dx));
        let LSTMCellGradients { w_ih, w_hh, b_ih, b_hh } = &gradients[0];
        for (name, gradient) in [("weight_ih", w_ih), ("weight_hh", w_hh)] {
            outputs.insert(format!("grad.{name}_l0"), Tensor::new(gradient.shape(), gradient.iter().copied()));
        }
        for (name, gradient) in [("bias_ih", b_ih), ("bias_hh", b_hh)] {
            outputs.insert(format!("grad.{name}_l0"), Tensor::new([gradient.len()], gradient.iter().copied()));
        }
        outputs
    }
}
