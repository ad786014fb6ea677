//! Gradient descent, with and without clipping.

use gradflow::ndarray::array;
use gradflow::{
    clip::{clip_grad_norm, grad_norm},
    optim::{Optimizer, Sgd},
};

use crate::common::Failure;
use crate::one_unit::OneUnit;
use crate::{B, W};

/// Updates of every path.
const UPDATES: usize = 500;

/// A descent from one start.
pub struct Path {
    pub points: Vec<(f64, f64)>, // (w, b) before each update and after the last
    pub norms: Vec<f64>,         // of the gradient, before it was clipped
    pub error: f64,              // at the end
}

impl Path {
    /// Descends from a start, (w, b).
    ///
    /// # Errors
    /// If a gradient that is to be clipped is not finite.
    pub fn descend(start: (f64, f64), learning_rate: f64, clip: Option<f64>) -> Result<Self, Failure> {
        let (mut unit, mut optimizer) = (OneUnit::new(), Sgd::new(learning_rate));
        let mut parameters = array![start.0, start.1];
        let (mut points, mut norms) = (vec![start], Vec::new());
        for _ in 0..UPDATES {
            let mut gradient = unit.gradient(parameters[0], parameters[1]);
            norms.push(match clip {
                Some(limit) => clip_grad_norm(&mut gradient, limit)?,
                None => grad_norm(&gradient, 2.0),
            });
            optimizer.step(&mut parameters, &gradient);
            points.push((parameters[0], parameters[1]));
        }
        Ok(Path { error: unit.error(parameters[0], parameters[1]), points, norms })
    }

    /// The largest norm of the gradients before they were clipped.
    pub fn largest_norm(&self) -> f64 {
        self.norms.iter().copied().fold(0.0, larger)
    }

    /// Whether it was outside the picture at any time.
    pub fn left(&self) -> bool {
        self.points.iter().any(|(w, b)| !W.contains(w) || !B.contains(b))
    }

    /// Its end, as text.
    pub fn end(&self) -> String {
        let (w, b) = self.points[self.points.len() - 1];
        format!("({w:.2}, {b:.2}), error {:.1e}", self.error)
    }
}

/// The larger of two numbers, or NaN if one of them is.
pub fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
