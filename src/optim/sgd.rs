//! Stochastic gradient descent.

use super::core::{At, Core, Rule, optimizer};
use crate::base::{Expect, check_number};
use crate::clip::Factor;
use crate::kernels::{Float, vectorised};

const NAME: &str = "Sgd";

/// Stochastic gradient descent, with PyTorch's momentum.
///
/// ```text
/// g ← g + weight_decay · p
/// v ← momentum · v + (1 - dampening) · g        v ← g at the first step
/// p ← p - lr · v                                Nesterov: p ← p - lr · (g + momentum · v)
/// ```
///
/// ```
/// use gradflow::{ndarray::arr1, optim::{Optimizer, Sgd}};
///
/// let mut optimizer = Sgd::new(0.1).momentum(0.9);
/// let mut parameter = arr1(&[1.0]);
/// optimizer.step(&mut parameter, &arr1(&[2.0]));
/// optimizer.step(&mut parameter, &arr1(&[2.0]));
/// assert!((parameter[0] - (1.0 - 0.2 - 0.38f64)).abs() < 1e-15);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Sgd<F> {
    core: Core<F, Descent>,
}

#[derive(Clone, Debug)]
struct Descent {
    momentum: f64,
    dampening: f64,
    nesterov: bool,
}

impl<F: Float> Sgd<F> {
    /// Plain gradient descent.
    ///
    /// # Panics
    /// Panics if the learning rate is negative or not finite.
    #[track_caller]
    pub fn new(learning_rate: f64) -> Self {
        let rule = Descent { momentum: 0.0, dampening: 0.0, nesterov: false };
        Sgd { core: Core::new(NAME, learning_rate, 0.0, rule) }
    }

    /// Sets the momentum; 0 is none.
    ///
    /// # Panics
    /// Panics if it is negative or not finite, or a step was taken.
    #[track_caller]
    pub fn momentum(self, momentum: f64) -> Self {
        let momentum = check_number::<F>(NAME, "momentum", Expect::AtLeast0, momentum);
        Sgd { core: self.core.with(|rule| rule.momentum = momentum) }
    }

    /// Adds each gradient but the first to the velocity with a factor of `1 - dampening`.
    ///
    /// # Panics
    /// Panics if it is not finite, Nesterov's momentum is on, or a step was taken.
    #[track_caller]
    pub fn dampening(self, dampening: f64) -> Self {
        let dampening = check_number::<F>(NAME, "dampening", Expect::Finite, dampening);
        assert!(!self.core.rule.nesterov, "{NAME}: dampening: Nesterov's momentum has none");
        Sgd { core: self.core.with(|rule| rule.dampening = dampening) }
    }

    /// Uses Nesterov's momentum.
    ///
    /// # Panics
    /// Panics if there is no momentum, if there is dampening, or if a step was taken.
    #[track_caller]
    pub fn nesterov(self) -> Self {
        let Descent { momentum, dampening, .. } = self.core.rule;
        assert!(momentum > 0.0 && dampening == 0.0, "{NAME}: Nesterov's momentum needs a momentum and no dampening");
        Sgd { core: self.core.with(|rule| rule.nesterov = true) }
    }
}

optimizer! {
    Sgd,
    /// Adds `weight_decay · p` to each gradient.
    weight_decay
}

/// The settings of one step, in the element type.
#[derive(Clone, Copy)]
struct Step<F> {
    factor: Factor<F>,
    learning_rate: F,
    momentum: F,
    entering: F,
    nesterov: bool,
    weight_decay: F,
}

vectorised! {
    fn descend<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F]) {
        for (p, &g) in p.iter_mut().zip(g) {
            *p -= step.learning_rate * (step.factor.times(g) + step.weight_decay * *p);
        }
    }
}

vectorised! {
    fn descend_with_momentum<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F], v: &'a mut [F]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let g = step.factor.times(g) + step.weight_decay * *p;
            *v = step.momentum * *v + step.entering * g;
            *p -= step.learning_rate * if step.nesterov { g + step.momentum * *v } else { *v };
        }
    }
}

impl<F: Float> Rule<F> for Descent {
    fn settings(&self) -> Vec<(&'static str, f64)> {
        let nesterov = f64::from(u8::from(self.nesterov));
        vec![("momentum", self.momentum), ("dampening", self.dampening), ("nesterov", nesterov)]
    }

    fn moments(&self) -> Vec<(&'static str, f64)> {
        if self.momentum == 0.0 { vec![] } else { vec![("momentum_buffer", 0.0)] }
    }

    fn update(&self, at: At, p: &mut [F], g: &[F], moments: &mut [&mut [F]]) {
        let step = Step {
            factor: Factor::new(at.factor),
            learning_rate: F::of(at.learning_rate),
            momentum: F::of(self.momentum),
            entering: F::of(if at.step == 1 { 1.0 } else { 1.0 - self.dampening }),
            nesterov: self.nesterov,
            weight_decay: F::of(at.weight_decay),
        };
        match moments {
            [v] => descend_with_momentum(step, p, g, v),
            _ => descend(step, p, g),
        }
    }
}
