//! How a model is trained and judged.

use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    clip::{ClipNorm, NonFiniteGradient},
    optim::{Adam, Optimizer, Schedule},
};

use crate::data::{Batch, Part};
use crate::model::{Cache, Shape, Translator};
use crate::words::{DIGITS, digits};

/// Numbers of an update.
pub const BATCH: usize = 64;

/// The largest norm of a gradient.
const CLIP: f64 = 1.0;

/// The number of validations in a training.
const LOOKS: usize = 10;

/// Numbers of a validation, and of the test.
const VALIDATED: usize = 500;
const TESTED: usize = 3000;

/// A model, and how it learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    pub shape: Shape,
    /// The highest; it falls to 0.
    pub learning_rate: f64,
}

/// The use of random numbers: each role of a seed has its own stream.
#[derive(Clone, Copy)]
enum Role {
    Weights,
    Training,
    Validation,
    Test,
}

fn stream(seed: u64, role: Role) -> StdRng {
    StdRng::seed_from_u64(4 * seed + role as u64)
}

/// The outcome of a training.
#[derive(Clone)]
pub struct Outcome {
    pub model: Translator,
    /// Numbers seen, and the share of validation numbers written without a mistake.
    pub curve: Vec<(usize, f64)>,
    /// The test's numbers for each number of digits: how many, and how many were written without a mistake.
    pub by_digits: [(usize, usize); DIGITS + 1],
}

impl Outcome {
    /// The share of the test's numbers with a number of digits in `range` that were written without a mistake; NaN if there are
    /// none.
    pub fn accuracy(&self, range: std::ops::RangeInclusive<usize>) -> f64 {
        let (count, right) = self.by_digits[range].iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        right as f64 / count as f64
    }

    /// The share of all the test's numbers that were written without a mistake.
    pub fn total(&self) -> f64 {
        self.accuracy(1..=DIGITS)
    }

    /// The share at the last validation.
    pub fn validated(&self) -> f64 {
        self.curve.last().map_or(0.0, |&(_, share)| share)
    }
}

/// Trains a model, then tests it. If a gradient was not finite, the model is tested as it was before.
pub fn train(setting: Setting, updates: usize, seed: u64) -> Outcome {
    let (mut curve, looks) = (Vec::new(), &mut stream(seed, Role::Validation));
    let look = |update: usize, model: &Translator| {
        if update.is_multiple_of((updates / LOOKS).max(1)) {
            let of = judge(model, &Part::Validation.numbers(VALIDATED, looks));
            curve.push((update * BATCH, of.iter().map(|of| of.1).sum::<usize>() as f64 / VALIDATED as f64));
        }
    };
    let (model, _) = learn(setting, updates, seed, look);
    let test = Part::Test.numbers(TESTED, &mut stream(seed, Role::Test));
    Outcome { by_digits: judge(&model, &test), model, curve }
}

/// Trains a model, and calls `look` with it after every update. If a gradient is not finite, gives that error and the model as it
/// was before.
pub fn learn(
    setting: Setting,
    updates: usize,
    seed: u64,
    mut look: impl FnMut(usize, &Translator),
) -> (Translator, Result<(), NonFiniteGradient>) {
    let Setting { shape, learning_rate } = setting;
    let mut model = Translator::new(shape, &mut stream(seed, Role::Weights));
    let numbers = &mut stream(seed, Role::Training);
    let (mut grad, mut cache, mut optimizer) = (model.zeros_like(), Cache::default(), Adam::new(learning_rate));
    let warm_up = (updates as u64 / 20).max(1);
    let falling = Schedule::cosine(learning_rate, (updates as u64 - warm_up).max(1), 0.0);
    let schedule = falling.warm_up(warm_up, 0.1);
    for update in 0..updates {
        let batch = Batch::new(&Part::Training.numbers(BATCH, numbers));
        model.learn(&batch, &mut cache, &mut grad);
        optimizer.set_learning_rate(schedule.learning_rate(update as u64));
        if let Err(error) = optimizer.step_clipped(&mut model, &grad, ClipNorm::new(CLIP)) {
            return (model, Err(error));
        }
        look(update + 1, &model);
    }
    (model, Ok(()))
}

/// For each number of digits, how many of the numbers have it, and how many of these are written without a mistake.
fn judge(model: &Translator, numbers: &[u64]) -> [(usize, usize); DIGITS + 1] {
    let mut of = [(0, 0); DIGITS + 1];
    for (&number, answer) in numbers.iter().zip(model.translate(&Batch::new(numbers).source)) {
        let digits = digits(number);
        let of = &mut of[digits.len()];
        of.0 += 1;
        of.1 += usize::from(answer.digits == digits);
    }
    of
}
