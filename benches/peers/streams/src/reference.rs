//! A plain implementation of the equations in f64.

use protocol::{Cell, Point, Tensors};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `y` for each `x`, from the zero state, of a cell with a dense head.
///
/// # Panics
/// Panics if the cell is neither LSTM nor GRU.
pub fn outputs(point: &Point, given: &Tensors) -> Vec<f64> {
    let &Point { input, hidden, .. } = point;
    let values = |name: &str| &given.get(name).values[..];
    let [w_ih, w_hh] = ["param.weight_ih_l0", "param.weight_hh_l0"].map(values);
    let [b_ih, b_hh] = ["param.bias_ih_l0", "param.bias_hh_l0"].map(values);
    let [w_out, b_out] = ["param.head.weight", "param.head.bias"].map(values);
    let (mut h, mut c) = (vec![0.0; hidden], vec![0.0; hidden]);
    let step = |x: &[f64]| {
        let from_x = |gate: usize, u: usize| {
            let row = gate * hidden + u;
            dot(&w_ih[row * input..][..input], x) + b_ih[row]
        };
        let from_h = |h: &[f64], gate: usize, u: usize| {
            let row = gate * hidden + u;
            dot(&w_hh[row * hidden..][..hidden], h) + b_hh[row]
        };
        let before = h.clone();
        for u in 0..hidden {
            let sum = |gate| from_x(gate, u) + from_h(&before, gate, u);
            match point.cell {
                Cell::Lstm => {
                    let (i, f, g, o) = (sigmoid(sum(0)), sigmoid(sum(1)), sum(2).tanh(), sigmoid(sum(3)));
                    c[u] = f * c[u] + i * g;
                    h[u] = o * c[u].tanh();
                }
                Cell::Gru => {
                    let (r, z) = (sigmoid(sum(0)), sigmoid(sum(1)));
                    let n = (from_x(2, u) + r * from_h(&before, 2, u)).tanh();
                    h[u] = (1.0 - z) * n + z * before[u];
                }
                Cell::Rnn | Cell::Residual => panic!("no equations of {}", point.cell.name()),
            }
        }
        dot(w_out, &h) + b_out[0]
    };
    values("x").chunks_exact(input).map(step).collect()
}
