//! Whole training steps.

use std::hint::black_box;

use crate::{Point, Tensor, Tensors, Work};

/// A model with its optimizer and the batches of a point.
pub trait Trainer {
    /// Back to the given parameters, a fresh optimizer and the zero state.
    fn restart(&mut self);

    /// One step on a batch, given by an index below [`Point::BATCHES`]. Gives the loss before the step.
    fn step(&mut self, batch: usize) -> f64;

    /// All parameters, `param.{name}`.
    fn parameters(&mut self) -> Tensors;
}

/// Work whose runs are one training step each. Training continues from run to run, through the batches in a loop.
pub struct Training<T> {
    trainer: T,
    next: usize,
}

impl<T: Trainer> Training<T> {
    pub fn new(trainer: T) -> Self {
        let mut training = Training { trainer, next: 0 };
        training.restart();
        training
    }

    fn restart(&mut self) {
        self.trainer.restart();
        self.next = 0;
    }

    fn step(&mut self) -> f64 {
        let batch = self.next;
        self.next = (batch + 1) % Point::BATCHES;
        self.trainer.step(batch)
    }
}

impl<T: Trainer> Work for Training<T> {
    fn run(&mut self) {
        black_box(self.step());
    }

    /// The parameters after one step on each batch, from the start, and the losses before each.
    fn outputs(&mut self) -> Tensors {
        self.restart();
        let losses: Vec<f64> = (0..Point::BATCHES).map(|_| self.step()).collect();
        let mut outputs = self.trainer.parameters();
        outputs.insert("loss", Tensor::new([losses.len()], losses));
        outputs
    }
}
