//! Adam and AdamW.

use super::core::{At, Core, Rule, optimizer};
use crate::base::{Expect, check_number};
use crate::clip::Factor;
use crate::kernels::{Float, vectorised};

/// What Adam and AdamW share.
#[derive(Clone, Debug)]
struct Moments {
    beta1: f64,
    beta2: f64,
    eps: f64,
    /// Whether the weight decay acts on the parameters, not on their gradient.
    decoupled: bool,
}

/// The settings of one step, in the element type.
#[derive(Clone, Copy)]
struct Step<F> {
    factor: Factor<F>,
    /// `g ← g + coupled_decay · p`
    coupled_decay: F,
    /// `p ← shrink · p`
    shrink: F,
    beta1: F,
    beta2: F,
    entering1: F,
    entering2: F,
    /// `lr / (1 - β₁ᵗ)`
    size: F,
    /// `1 / sqrt(1 - β₂ᵗ)`
    correction: F,
    eps: F,
}

vectorised! {
    fn adapt<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F], m: &'a mut [F], v: &'a mut [F]) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = step.factor.times(g) + step.coupled_decay * *p;
            *m = step.beta1 * *m + step.entering1 * g;
            *v = step.beta2 * *v + step.entering2 * g * g;
            *p = step.shrink * *p - step.size * *m / (v.sqrt() * step.correction + step.eps);
        }
    }
}

impl<F: Float> Rule<F> for Moments {
    fn settings(&self) -> Vec<(&'static str, f64)> {
        vec![("beta1", self.beta1), ("beta2", self.beta2), ("eps", self.eps)]
    }

    fn moments(&self) -> Vec<(&'static str, f64)> {
        vec![("exp_avg", 0.0), ("exp_avg_sq", 0.0)]
    }

    fn squares(&self) -> &'static str {
        "exp_avg_sq"
    }

    fn update(&self, at: At, p: &mut [F], g: &[F], moments: &mut [&mut [F]]) {
        let [m, v] = moments else { unreachable!("two moments") };
        let (coupled_decay, shrink) =
            if self.decoupled { (0.0, 1.0 - at.learning_rate * at.weight_decay) } else { (at.weight_decay, 1.0) };
        let step = Step {
            factor: Factor::new(at.factor),
            coupled_decay: F::of(coupled_decay),
            shrink: F::of(shrink),
            beta1: F::of(self.beta1),
            beta2: F::of(self.beta2),
            entering1: F::of(1.0 - self.beta1),
            entering2: F::of(1.0 - self.beta2),
            size: F::of(at.learning_rate / (1.0 - at.power(self.beta1))),
            correction: F::of(1.0 / (1.0 - at.power(self.beta2)).sqrt()),
            eps: F::of(self.eps),
        };
        adapt(step, p, g, m, v);
    }
}

macro_rules! adam {
    (
        $(#[$doc:meta])* $name:ident, decoupled: $decoupled:literal, decay: $decay:literal,
        $(#[$decay_doc:meta])* weight_decay
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[must_use]
        pub struct $name<F> {
            core: Core<F, Moments>,
        }

        impl<F: Float> $name<F> {
            /// With PyTorch's defaults: betas 0.9 and 0.999, eps 1e-8.
            ///
            /// # Panics
            /// Panics if the learning rate is negative or not finite.
            #[track_caller]
            pub fn new(learning_rate: f64) -> Self {
                let rule = Moments { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: $decoupled };
                $name { core: Core::new(stringify!($name), learning_rate, $decay, rule) }
            }

            /// With other decays of the two moments.
            ///
            /// # Panics
            /// Panics if one is not in `0..1`, or a step was taken.
            #[track_caller]
            pub fn betas(self, beta1: f64, beta2: f64) -> Self {
                let beta1 = check_number::<F>(stringify!($name), "beta1", Expect::Fraction, beta1);
                let beta2 = check_number::<F>(stringify!($name), "beta2", Expect::Fraction, beta2);
                $name { core: self.core.with(|rule| (rule.beta1, rule.beta2) = (beta1, beta2)) }
            }

            /// With another eps.
            ///
            /// # Panics
            /// Panics if it is not above 0, in the element type too, or not finite, or a step was taken.
            #[track_caller]
            pub fn eps(self, eps: f64) -> Self {
                let eps = check_number::<F>(stringify!($name), "eps", Expect::Above0, eps);
                $name { core: self.core.with(|rule| rule.eps = eps) }
            }
        }

        optimizer! {
            $name,
            $(#[$decay_doc])*
            weight_decay
        }
    };
}

adam! {
    /// Adam (Kingma and Ba 2015).
    ///
    /// ```text
    /// g ← g + weight_decay · p
    /// m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²
    /// p ← p - lr · m / (1 - β₁ᵗ) / (sqrt(v / (1 - β₂ᵗ)) + eps)
    /// ```
    ///
    /// ```
    /// use gradflow::{ndarray::arr1, optim::{Adam, Optimizer}};
    ///
    /// let mut parameter = arr1(&[1.0]);
    /// Adam::new(0.1).step(&mut parameter, &arr1(&[2.0]));
    /// assert!((parameter[0] - 0.9f64).abs() < 1e-8); // the first step has length lr
    /// ```
    Adam, decoupled: false, decay: 0.0,
    /// With `weight_decay · p` added to each gradient.
    weight_decay
}

adam! {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    ///
    /// ```text
    /// p ← p - lr · weight_decay · p
    /// m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²
    /// p ← p - lr · m / (1 - β₁ᵗ) / (sqrt(v / (1 - β₂ᵗ)) + eps)
    /// ```
    ///
    /// ```
    /// use gradflow::{ndarray::arr1, optim::{AdamW, Optimizer}};
    ///
    /// let mut optimizer = AdamW::new(3e-3).betas(0.9, 0.99).weight_decay(0.1);
    /// let mut parameter = arr1(&[1.0f32]);
    /// optimizer.step(&mut parameter, &arr1(&[2.0]));
    /// assert!(parameter[0] < 0.997);
    /// ```
    AdamW, decoupled: true, decay: 0.01,
    /// With each parameter shrunk by `lr · weight_decay` at every step; 0.01 unless said otherwise.
    weight_decay
}
