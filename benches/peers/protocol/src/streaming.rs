//! One sequence, step after step, of one number each.

use std::hint::black_box;

use crate::{Point, Tensor, Tensors, Work};

/// A recurrent model of one input and one output.
pub trait Steps {
    /// Back to the zero state.
    fn reset(&mut self);

    /// The next steps: a `y` for each `x`.
    fn steps(&mut self, x: &[f32], y: &mut [f32]);
}

/// Work whose runs have as many steps as the point. The state is carried from run to run, through the given `x` in a loop.
pub struct Streaming<M> {
    model: M,
    steps: usize,
    x: Vec<f32>,
    y: Vec<f32>,
    next: usize,
}

impl<M: Steps> Streaming<M> {
    /// # Panics
    /// Panics if the steps of a run do not divide those of `x`.
    pub fn new(model: M, point: &Point, given: &Tensors) -> Self {
        let x = given.get("x").f32();
        assert!(x.len().is_multiple_of(point.steps), "{} steps of x, {} in a run", x.len(), point.steps);
        Streaming { model, steps: point.steps, y: vec![0.0; x.len()], x, next: 0 }
    }
}

impl<M: Steps> Work for Streaming<M> {
    fn run(&mut self) {
        let part = self.next..self.next + self.steps;
        self.next = if part.end == self.x.len() { 0 } else { part.end };
        self.model.steps(black_box(&self.x[part.clone()]), &mut self.y[part]);
        black_box(&mut self.y);
    }

    fn outputs(&mut self) -> Tensors {
        self.model.reset();
        self.next = 0;
        self.model.steps(&self.x, &mut self.y);
        let mut outputs = Tensors::default();
        outputs.insert("y", Tensor::new([self.y.len(), 1, 1], self.y.iter().map(|&y| y.into())));
        outputs
    }
}
