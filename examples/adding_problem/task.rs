//! The two forms of the adding problem.

use gradflow::loss::MeanSquaredError;
use gradflow::ndarray::{Array3, ArrayView3};
use gradflow::rand::{Rng, RngExt};

use crate::trial::{Batch, Task};

/// An output is right if its error is below this.
pub const TOLERANCE: f32 = 0.04;

/// Which numbers are marked, and what the target is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// Hochreiter and Schmidhuber 1997: T to 1.1 T pairs, numbers in [-1, 1]; one of the first ten is marked and one of
    /// the first T/2 - 1 others. The first and the last pair are marked with -1. The target is 0.5 + (X1 + X2) / 4.
    Original,
    /// The later form (Le et al. 2015 and others): T pairs, numbers in [0, 1]; one is marked in each half. The target is
    /// their sum.
    Halves,
}

/// The task: two numbers of a long sequence are to be added at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adding {
    pub form: Form,
    /// T
    pub steps: usize,
}

/// The target at a step that is not the last: ignored.
const NONE: f32 = f32::NAN;

impl Task for Adding {
    /// `[T, B, 1]`
    type Targets = Array3<f32>;
    type Loss = MeanSquaredError<f32>;

    const INPUTS: usize = 2;

    fn name(&self) -> String {
        let form = match self.form {
            Form::Original => "1997 form",
            Form::Halves => "a mark in each half",
        };
        format!("{form}, T = {}", self.steps)
    }

    fn outputs(&self) -> usize {
        1
    }

    fn draw(&self, count: usize, rng: &mut impl Rng) -> Batch<Array3<f32>> {
        let steps = self.steps;
        let longest = if self.form == Form::Original { steps + steps / 10 } else { steps };
        let mut lengths: Vec<usize> = (0..count).map(|_| rng.random_range(steps..=longest)).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));

        let mut x = Array3::zeros((lengths[0], count, 2));
        let mut targets = Array3::from_elem((lengths[0], count, 1), NONE);
        for (b, &length) in lengths.iter().enumerate() {
            let low = if self.form == Form::Original { -1.0 } else { 0.0 };
            for t in 0..length {
                x[[t, b, 0]] = rng.random_range(low..1.0);
            }
            let [first, second] = self.marks(rng);
            let target = match self.form {
                Form::Original => {
                    x[[0, b, 1]] = -1.0;
                    x[[length - 1, b, 1]] = -1.0;
                    if first == 0 {
                        x[[0, b, 0]] = 0.0;
                    }
                    0.5 + (x[[first, b, 0]] + x[[second, b, 0]]) / 4.0
                }
                Form::Halves => (x[[first, b, 0]] + x[[second, b, 0]]) / 2.0,
            };
            x[[first, b, 1]] = 1.0;
            x[[second, b, 1]] = 1.0;
            targets[[length - 1, b, 0]] = target;
        }
        Batch { x, lengths, targets }
    }

    fn loss(&self) -> MeanSquaredError<f32> {
        MeanSquaredError::new().ignore(NONE.into())
    }

    fn wrong(&self, y: &ArrayView3<'_, f32>, batch: &Batch<Array3<f32>>, share: f32) -> usize {
        let right = |(b, &length): (usize, &usize)| {
            let at = [length - 1, b, 0];
            (y[at] - batch.targets[at]).abs() < share * TOLERANCE
        };
        batch.lengths.len() - batch.lengths.iter().enumerate().filter(|&sequence| right(sequence)).count()
    }
}

impl Adding {
    /// The steps of the two marks.
    fn marks(&self, rng: &mut impl Rng) -> [usize; 2] {
        match self.form {
            Form::Original => {
                let first = rng.random_range(0..10);
                let second = rng.random_range(0..self.steps / 2 - 1);
                // The second step is drawn from the others.
                [first, second + usize::from(second >= first)]
            }
            Form::Halves => [rng.random_range(0..self.steps / 2), rng.random_range(self.steps / 2..self.steps)],
        }
    }
}
