//! Stochastic gradient descent.

use super::{Optimizer, check_setting, for_each_tensor};
use crate::kernels::vectorised;
use crate::tensors::check_alike;
use crate::{Float, NamedTensors, Tensors};

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
/// use gradflow::{Optimizer, Sgd, ndarray::arr1};
///
/// let mut optimizer = Sgd::new(0.1).momentum(0.9);
/// let mut parameter = arr1(&[1.0]);
/// optimizer.step(&mut parameter, &arr1(&[2.0]));
/// optimizer.step(&mut parameter, &arr1(&[2.0]));
/// assert!((parameter[0] - (1.0 - 0.2 - 0.38f64)).abs() < 1e-15);
/// ```
#[derive(Clone, Debug)]
pub struct Sgd<F> {
    learning_rate: f64,
    momentum: f64,
    dampening: f64,
    nesterov: bool,
    weight_decay: f64,
    velocity: Option<NamedTensors<F>>,
}

impl<F: Float> Sgd<F> {
    /// Plain descent.
    ///
    /// # Panics
    /// Where the learning rate is negative or not finite.
    #[track_caller]
    pub fn new(learning_rate: f64) -> Self {
        Sgd {
            learning_rate: check_setting(NAME, "learning rate", learning_rate),
            momentum: 0.0,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            velocity: None,
        }
    }

    /// With momentum; 0 is none.
    ///
    /// # Panics
    /// Where it is negative or not finite.
    #[track_caller]
    pub fn momentum(self, momentum: f64) -> Self {
        Sgd { momentum: check_setting(NAME, "momentum", momentum), ..self }
    }

    /// With each gradient but the first entering the velocity by `1 - dampening`.
    ///
    /// # Panics
    /// Where it is not finite, or Nesterov's momentum is on.
    #[track_caller]
    pub fn dampening(self, dampening: f64) -> Self {
        assert!(dampening.is_finite(), "{NAME}: dampening: expected a finite number, got {dampening}");
        assert!(!self.nesterov, "{NAME}: dampening: Nesterov's momentum has none");
        Sgd { dampening, ..self }
    }

    /// With Nesterov's momentum.
    ///
    /// # Panics
    /// Where there is no momentum, or dampening.
    #[track_caller]
    pub fn nesterov(self) -> Self {
        let fits = self.momentum > 0.0 && self.dampening == 0.0;
        assert!(fits, "{NAME}: Nesterov's momentum needs a momentum and no dampening");
        Sgd { nesterov: true, ..self }
    }

    /// With `weight_decay · p` added to each gradient.
    ///
    /// # Panics
    /// Where it is negative or not finite.
    #[track_caller]
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        Sgd { weight_decay: check_setting(NAME, "weight decay", weight_decay), ..self }
    }
}

/// The settings of one step, in the element type.
#[derive(Clone, Copy)]
struct Step<F> {
    learning_rate: F,
    momentum: F,
    entering: F,
    nesterov: bool,
    weight_decay: F,
}

vectorised! {
    fn descend<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F]) {
        for (p, &g) in p.iter_mut().zip(g) {
            *p -= step.learning_rate * (g + step.weight_decay * *p);
        }
    }
}

vectorised! {
    fn descend_with_momentum<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F], v: &'a mut [F]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let g = g + step.weight_decay * *p;
            *v = step.momentum * *v + step.entering * g;
            *p -= step.learning_rate * if step.nesterov { g + step.momentum * *v } else { *v };
        }
    }
}

impl<F: Float> Optimizer<F> for Sgd<F> {
    fn step(&mut self, model: &mut dyn Tensors<F>, grad: &dyn Tensors<F>) {
        let first = self.velocity.is_none();
        let step = Step {
            learning_rate: F::of(self.learning_rate),
            momentum: F::of(self.momentum),
            entering: F::of(if first { 1.0 } else { 1.0 - self.dampening }),
            nesterov: self.nesterov,
            weight_decay: F::of(self.weight_decay),
        };
        if self.momentum == 0.0 {
            return for_each_tensor(NAME, model, grad, |_, p, g| descend(step, p, g));
        }
        let velocity = self.velocity.get_or_insert_with(|| NamedTensors::zeros_like(model));
        check_alike(&NAME, velocity, model);
        for_each_tensor(NAME, model, grad, |i, p, g| descend_with_momentum(step, p, g, velocity.tensor_mut(i)));
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = check_setting(NAME, "learning rate", learning_rate);
    }
}
