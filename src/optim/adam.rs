//! Adam and AdamW.

use super::{Optimizer, check_fraction, check_setting, for_each_tensor};
use crate::kernels::vectorised;
use crate::tensors::check_alike;
use crate::{Float, NamedTensors, Tensors};

/// What Adam and AdamW share: settings, step count and moments.
#[derive(Clone, Debug)]
struct Moments<F> {
    name: &'static str,
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    steps: u64,
    averages: Option<[NamedTensors<F>; 2]>,
}

/// The settings of one step, in the element type.
#[derive(Clone, Copy)]
struct Step<F> {
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
            let g = g + step.coupled_decay * *p;
            *m = step.beta1 * *m + step.entering1 * g;
            *v = step.beta2 * *v + step.entering2 * g * g;
            *p = step.shrink * *p - step.size * *m / (v.sqrt() * step.correction + step.eps);
        }
    }
}

impl<F: Float> Moments<F> {
    #[track_caller]
    fn new(name: &'static str, learning_rate: f64) -> Self {
        Moments {
            name,
            learning_rate: check_setting(name, "learning rate", learning_rate),
            betas: (0.9, 0.999),
            eps: 1e-8,
            steps: 0,
            averages: None,
        }
    }

    #[track_caller]
    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = check_setting(self.name, "learning rate", learning_rate);
    }

    #[track_caller]
    fn betas(self, beta1: f64, beta2: f64) -> Self {
        let betas = (check_fraction(self.name, "beta1", beta1), check_fraction(self.name, "beta2", beta2));
        Moments { betas, ..self }
    }

    #[track_caller]
    fn eps(self, eps: f64) -> Self {
        Moments { eps: check_setting(self.name, "eps", eps), ..self }
    }

    fn step(&mut self, model: &mut dyn Tensors<F>, grad: &dyn Tensors<F>, coupled_decay: f64, shrink: f64) {
        let zeros = || NamedTensors::zeros_like(&*model);
        let [m, v] = self.averages.get_or_insert_with(|| [zeros(), zeros()]);
        check_alike(&self.name, m, model);
        self.steps += 1;
        let (beta1, beta2) = self.betas;
        let power = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let step = Step {
            coupled_decay: F::of(coupled_decay),
            shrink: F::of(shrink),
            beta1: F::of(beta1),
            beta2: F::of(beta2),
            entering1: F::of(1.0 - beta1),
            entering2: F::of(1.0 - beta2),
            size: F::of(self.learning_rate / (1.0 - beta1.powi(power))),
            correction: F::of(1.0 / (1.0 - beta2.powi(power)).sqrt()),
            eps: F::of(self.eps),
        };
        for_each_tensor(self.name, model, grad, |i, p, g| adapt(step, p, g, m.tensor_mut(i), v.tensor_mut(i)));
    }
}

macro_rules! adam {
    ($(#[$doc:meta])* $name:ident, decay: $decay:literal, $(#[$decay_doc:meta])* step: $step:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name<F> {
            moments: Moments<F>,
            weight_decay: f64,
        }

        impl<F: Float> $name<F> {
            /// With PyTorch's defaults: betas 0.9 and 0.999, eps 1e-8.
            ///
            /// # Panics
            /// Where the learning rate is negative or not finite.
            #[track_caller]
            pub fn new(learning_rate: f64) -> Self {
                $name { moments: Moments::new(stringify!($name), learning_rate), weight_decay: $decay }
            }

            /// With other decays of the two moments.
            ///
            /// # Panics
            /// Where one is not in `0..1`.
            #[track_caller]
            pub fn betas(self, beta1: f64, beta2: f64) -> Self {
                $name { moments: self.moments.betas(beta1, beta2), ..self }
            }

            /// With another eps.
            ///
            /// # Panics
            /// Where it is negative or not finite.
            #[track_caller]
            pub fn eps(self, eps: f64) -> Self {
                $name { moments: self.moments.eps(eps), ..self }
            }

            $(#[$decay_doc])*
            ///
            /// # Panics
            /// Where it is negative or not finite.
            #[track_caller]
            pub fn weight_decay(self, weight_decay: f64) -> Self {
                $name { weight_decay: check_setting(stringify!($name), "weight decay", weight_decay), ..self }
            }
        }

        impl<F: Float> Optimizer<F> for $name<F> {
            fn step(&mut self, model: &mut dyn Tensors<F>, grad: &dyn Tensors<F>) {
                let (coupled_decay, shrink) = $step(self.learning_rate(), self.weight_decay);
                self.moments.step(model, grad, coupled_decay, shrink);
            }

            fn learning_rate(&self) -> f64 {
                self.moments.learning_rate
            }

            fn set_learning_rate(&mut self, learning_rate: f64) {
                self.moments.set_learning_rate(learning_rate);
            }
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
    /// use gradflow::{Adam, Optimizer, ndarray::arr1};
    ///
    /// let mut parameter = arr1(&[1.0]);
    /// Adam::new(0.1).step(&mut parameter, &arr1(&[2.0]));
    /// assert!((parameter[0] - 0.9f64).abs() < 1e-8); // the first step has length lr
    /// ```
    Adam, decay: 0.0,
    /// With `weight_decay · p` added to each gradient.
    step: |_, weight_decay| (weight_decay, 1.0)
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
    /// use gradflow::{AdamW, Optimizer, ndarray::arr1};
    ///
    /// let mut optimizer = AdamW::new(3e-3).betas(0.9, 0.99).weight_decay(0.1);
    /// let mut parameter = arr1(&[1.0f32]);
    /// optimizer.step(&mut parameter, &arr1(&[2.0]));
    /// assert!(parameter[0] < 0.997);
    /// ```
    AdamW, decay: 0.01,
    /// With each parameter shrunk by `lr · weight_decay` at every step; 0.01 unless said otherwise.
    step: |learning_rate: f64, weight_decay: f64| (0.0, 1.0 - learning_rate * weight_decay)
}
