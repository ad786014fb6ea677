//! Adagrad.

use super::core::{At, Core, Rule, optimizer};
use crate::base::{Expect, check_number};
use crate::clip::Factor;
use crate::kernels::{Float, vectorised};

const NAME: &str = "Adagrad";

/// Adagrad (Duchi, Hazan and Singer 2011): each element's step shrinks with the sum of its squared gradients, so that rare
/// features, such as a rare token's embedding, keep a large step.
///
/// ```text
/// g ← g + weight_decay · p
/// s ← s + g²                                             s = initial_accumulator_value before the first step
/// p ← p - lr / (1 + (t - 1) lr_decay) · g / (sqrt(s) + eps)
/// ```
///
/// ```
/// use gradflow::{ndarray::arr1, optim::{Adagrad, Optimizer}};
///
/// let mut optimizer = Adagrad::new(0.1);
/// let mut parameter = arr1(&[1.0]);
/// optimizer.step(&mut parameter, &arr1(&[2.0])); // by lr
/// optimizer.step(&mut parameter, &arr1(&[2.0])); // by lr / sqrt(2)
/// assert!((parameter[0] - (0.9 - 0.1 / 2f64.sqrt())).abs() < 1e-10);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Adagrad<F> {
    core: Core<F, Sum>,
}

#[derive(Clone, Debug)]
struct Sum {
    lr_decay: f64,
    initial: f64,
    eps: f64,
}

impl<F: Float> Adagrad<F> {
    /// With PyTorch's defaults: no decay of the learning rate, sums that start at 0, eps 1e-10.
    ///
    /// # Panics
    /// Panics if the learning rate is negative or not finite.
    #[track_caller]
    pub fn new(learning_rate: f64) -> Self {
        Adagrad { core: Core::new(NAME, learning_rate, 0.0, Sum { lr_decay: 0.0, initial: 0.0, eps: 1e-10 }) }
    }

    /// Makes the learning rate fall as `1 / (1 + (t - 1) lr_decay)`.
    ///
    /// # Panics
    /// Panics if it is negative or not finite, or a step was taken.
    #[track_caller]
    pub fn lr_decay(self, lr_decay: f64) -> Self {
        let lr_decay = check_number::<F>(NAME, "lr_decay", Expect::AtLeast0, lr_decay);
        Adagrad { core: self.core.with(|rule| rule.lr_decay = lr_decay) }
    }

    /// Sets the initial value of the sums of squares.
    ///
    /// # Panics
    /// Panics if it is negative or not finite, or a step was taken.
    #[track_caller]
    pub fn initial_accumulator_value(self, value: f64) -> Self {
        let initial = check_number::<F>(NAME, "initial_accumulator_value", Expect::AtLeast0, value);
        Adagrad { core: self.core.with(|rule| rule.initial = initial) }
    }

    /// Sets eps.
    ///
    /// # Panics
    /// Panics if it is not above 0, in the element type too, or not finite, or a step was taken.
    #[track_caller]
    pub fn eps(self, eps: f64) -> Self {
        let eps = check_number::<F>(NAME, "eps", Expect::Above0, eps);
        Adagrad { core: self.core.with(|rule| rule.eps = eps) }
    }
}

optimizer! {
    Adagrad,
    /// Adds `weight_decay · p` to each gradient.
    weight_decay
}

/// The settings of one step, in the element type.
#[derive(Clone, Copy)]
struct Step<F> {
    factor: Factor<F>,
    size: F,
    weight_decay: F,
    eps: F,
}

vectorised! {
    fn adapt<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F], s: &'a mut [F]) {
        for ((p, &g), s) in p.iter_mut().zip(g).zip(s) {
            let g = step.factor.times(g) + step.weight_decay * *p;
            *s += g * g;
            *p -= step.size * g / (s.sqrt() + step.eps);
        }
    }
}

impl<F: Float> Rule<F> for Sum {
    fn settings(&self) -> Vec<(&'static str, f64)> {
        vec![("lr_decay", self.lr_decay), ("initial_accumulator_value", self.initial), ("eps", self.eps)]
    }

    fn moments(&self) -> Vec<(&'static str, f64)> {
        vec![("sum", self.initial)]
    }

    fn squares(&self) -> &'static [&'static str] {
        &["sum"]
    }

    fn update(&self, at: At, p: &mut [F], g: &[F], moments: &mut [&mut [F]]) {
        let [s] = moments else { unreachable!("one moment") };
        let step = Step {
            factor: Factor::new(at.factor),
            size: F::of(at.learning_rate / (1.0 + (at.step - 1) as f64 * self.lr_decay)),
            weight_decay: F::of(at.weight_decay),
            eps: F::of(self.eps),
        };
        adapt(step, p, g, s);
    }
}
