//! The recurrence, as a cell of this crate and as the paper has it.

use gradflow::ndarray::{Array1, Array2, Array3, array};
use gradflow::{Layer, Sequence, ZerosLike, recurrent::RnnCell};

/// Steps of the recurrence.
const STEPS: usize = 50;

/// What σ(x_50) should be.
const TARGET: f64 = 0.7;

/// x_0
const INITIAL: f64 = 0.5;

/// The recurrence as a cell, with the buffers that its passes need.
pub struct OneUnit {
    cell: RnnCell<f64>,
    grad: RnnCell<f64>,
    cache: <RnnCell<f64> as Layer>::Cache,
    x: Array3<f64>,  // [STEPS, 1, 1]: there is no input
    dy: Array3<f64>, // [STEPS, 1, 1]
}

impl OneUnit {
    /// All parameters are 0.
    pub fn new() -> Self {
        let cell = RnnCell::zeros(1, 1);
        let zeros = Array3::zeros((STEPS, 1, 1));
        OneUnit { grad: cell.zeros_like(), cache: cell.cache(), cell, x: zeros.clone(), dy: zeros }
    }

    fn set(&mut self, w: f64, b: f64) {
        self.cell.weight_hh[[0, 0]] = w / 4.0;
        self.cell.bias_ih.as_mut().expect("a bias")[0] = w / 4.0 + b / 2.0;
    }

    /// h_1 … h_50
    pub fn states(&mut self, w: f64, b: f64) -> Vec<f64> {
        self.set(w, b);
        let mut state = Array2::from_elem((1, 1), (INITIAL / 2.0).tanh());
        self.cell.forward(Sequence::from(&self.x).infer(), &mut state, &mut self.cache).iter().copied().collect()
    }

    /// (σ(x_50) - 0.7)²
    pub fn error(&mut self, w: f64, b: f64) -> f64 {
        let last = self.states(w, b)[STEPS - 1];
        ((1.0 + last) / 2.0 - TARGET).powi(2)
    }

    /// The error's gradient: [dE/dw, dE/db].
    pub fn gradient(&mut self, w: f64, b: f64) -> Array1<f64> {
        self.set(w, b);
        let mut state = Array2::from_elem((1, 1), (INITIAL / 2.0).tanh());
        let pass = self.cell.pass(Sequence::from(&self.x).constant(), &mut state, &mut self.cache);
        // dE/dh = 2 (σ(x) - 0.7) / 2
        self.dy[[STEPS - 1, 0, 0]] = (1.0 + pass.output()[[STEPS - 1, 0, 0]]) / 2.0 - TARGET;
        pass.backward_into(&self.dy, &mut self.grad);
        let (weight, bias) = (self.grad.weight_hh[[0, 0]], self.grad.bias_ih.as_ref().expect("a bias")[0]);
        array![weight / 4.0 + bias / 4.0, bias / 2.0]
    }
}

/// σ
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The recurrence as the paper has it: σ(x_1) … σ(x_50), and the gradient of the error, carried forward.
pub fn direct(w: f64, b: f64) -> (Vec<f64>, [f64; 2]) {
    let (mut x, mut dw, mut db) = (INITIAL, 0.0, 0.0);
    let mut values = Vec::with_capacity(STEPS);
    for _ in 0..STEPS {
        let s = sigmoid(x);
        let slope = w * s * (1.0 - s);
        (x, dw, db) = (w * s + b, s + slope * dw, 1.0 + slope * db);
        values.push(sigmoid(x));
    }
    let s = values[STEPS - 1];
    let outer = 2.0 * (s - TARGET) * s * (1.0 - s);
    (values, [outer * dw, outer * db])
}
