//! NAdam.

use super::adam::{Averages, Averaging};
use super::core::{At, Core, Rule, optimizer};
use crate::base::{Expect, check_number};
use crate::kernels::{Float, vectorised};

const NAME: &str = "NAdam";

/// Adam with Nesterov's momentum (Dozat 2016), which rises to β₁ over the first thousands of steps.
///
/// ```text
/// g ← g + weight_decay · p                        decoupled: p ← p - lr · weight_decay · p
/// m ← β₁ m + (1 - β₁) g                           v ← β₂ v + (1 - β₂) g²
/// μₜ = β₁ (1 - 0.96^(t · momentum_decay) / 2)     Πₜ = μ₁ μ₂ ⋯ μₜ
/// d = (1 - μₜ) g / (1 - Πₜ) + μₜ₊₁ m / (1 - Πₜ₊₁)
/// p ← p - lr · d / (sqrt(v / (1 - β₂ᵗ)) + eps)
/// ```
///
/// The product Πₜ has the element type, and is part of the [state](crate::optim::Optimizer::state) under PyTorch's name
/// `mu_product`. (PyTorch keeps it in its default type, `float32`, whatever the type of the parameters.)
///
/// ```
/// use gradflow::{ndarray::arr1, optim::{NAdam, Optimizer}};
///
/// let optimizer = NAdam::new(0.1).betas(0.8, 0.99).momentum_decay(0.0);
/// let mut optimizer = optimizer.weight_decay(0.5).decoupled_weight_decay();
/// let mut parameter = arr1(&[1.0]);
/// optimizer.step(&mut parameter, &arr1(&[2.0])); // μ = 0.4: by lr · (0.6 / 0.6 + 0.4 · 0.2 / 0.84)
/// assert!((parameter[0] - (0.95 - 0.1 - 0.1 * 0.08 / 0.84f64)).abs() < 1e-8);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct NAdam<F> {
    core: Core<F, Nesterov>,
}

#[derive(Clone, Debug)]
struct Nesterov {
    averaging: Averaging,
    momentum_decay: f64,
}

impl Nesterov {
    /// `μₜ`
    fn momentum(&self, step: u64) -> f64 {
        self.averaging.beta1 * (1.0 - 0.5 * 0.96_f64.powf(step as f64 * self.momentum_decay))
    }
}

impl<F: Float> NAdam<F> {
    /// With PyTorch's defaults: betas 0.9 and 0.999, eps 1e-8, a momentum decay of 0.004, no weight decay.
    ///
    /// # Panics
    /// Panics if the learning rate is negative or not finite.
    #[track_caller]
    pub fn new(learning_rate: f64) -> Self {
        let rule = Nesterov { averaging: Averaging::new(false), momentum_decay: 4e-3 };
        NAdam { core: Core::new(NAME, learning_rate, 0.0, rule) }
    }

    /// Sets the decays of the two moments.
    ///
    /// # Panics
    /// Panics if one is not in `0..1`, or a step was taken.
    #[track_caller]
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        let beta1 = check_number::<F>(NAME, "beta1", Expect::Fraction, beta1);
        let beta2 = check_number::<F>(NAME, "beta2", Expect::Fraction, beta2);
        NAdam { core: self.core.with(|rule| (rule.averaging.beta1, rule.averaging.beta2) = (beta1, beta2)) }
    }

    /// Sets eps.
    ///
    /// # Panics
    /// Panics if it is not above 0, in the element type too, or not finite, or a step was taken.
    #[track_caller]
    pub fn eps(self, eps: f64) -> Self {
        let eps = check_number::<F>(NAME, "eps", Expect::Above0, eps);
        NAdam { core: self.core.with(|rule| rule.averaging.eps = eps) }
    }

    /// Sets how fast the momentum rises from about β₁ / 2 to β₁; 0 leaves it at β₁ / 2.
    ///
    /// # Panics
    /// Panics if it is negative or not finite, or a step was taken.
    #[track_caller]
    pub fn momentum_decay(self, momentum_decay: f64) -> Self {
        let momentum_decay = check_number::<f64>(NAME, "momentum_decay", Expect::AtLeast0, momentum_decay);
        NAdam { core: self.core.with(|rule| rule.momentum_decay = momentum_decay) }
    }

    /// Shrinks each parameter by `lr · weight_decay`, as [`AdamW`](super::AdamW) does, instead of adding to the gradient. Without
    /// a [`weight_decay`](NAdam::weight_decay) it has no effect.
    ///
    /// # Panics
    /// Panics if a step was taken.
    #[track_caller]
    pub fn decoupled_weight_decay(self) -> Self {
        NAdam { core: self.core.with(|rule| rule.averaging.decoupled = true) }
    }
}

optimizer! {
    NAdam,
    /// Adds `weight_decay · p` to each gradient, unless it is [decoupled](NAdam::decoupled_weight_decay).
    weight_decay
}

/// The settings of one step, in the element type.
#[derive(Clone, Copy)]
struct Step<F> {
    averages: Averages<F>,
    /// `lr · (1 - μₜ) / (1 - Πₜ)`
    gradient: F,
    /// `lr · μₜ₊₁ / (1 - Πₜ₊₁)`
    momentum: F,
}

vectorised! {
    fn adapt<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F], m: &'a mut [F], v: &'a mut [F]) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = step.averages.enter(*p, g, m, v);
            *p = step.averages.shrink * *p - (step.gradient * g + step.momentum * *m) / step.averages.root(*v);
        }
    }
}

impl<F: Float> Rule<F> for Nesterov {
    fn settings(&self) -> Vec<(&'static str, f64)> {
        let mut settings = self.averaging.settings();
        let decoupled = f64::from(u8::from(self.averaging.decoupled));
        settings.extend([("momentum_decay", self.momentum_decay), ("decoupled_weight_decay", decoupled)]);
        settings
    }

    fn moments(&self) -> Vec<(&'static str, f64)> {
        Averaging::moments()
    }

    fn squares(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn product(&self) -> Option<&'static str> {
        Some("mu_product")
    }

    fn product_factor(&self, step: u64) -> f64 {
        self.momentum(step)
    }

    fn update(&self, at: At, p: &mut [F], g: &[F], moments: &mut [&mut [F]]) {
        let [m, v] = moments else { unreachable!("two moments") };
        let next = self.momentum(at.step + 1);
        let step = Step {
            averages: self.averaging.at(at),
            gradient: F::of(at.learning_rate * (1.0 - self.momentum(at.step)) / (1.0 - at.product)),
            momentum: F::of(at.learning_rate * next / (1.0 - at.product * next)),
        };
        adapt(step, p, g, m, v);
    }
}
