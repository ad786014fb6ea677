//! Adam and AdamW.

use super::core::{At, Core, Rule, optimizer};
use crate::base::{Expect, check_number};
use crate::clip::Factor;
use crate::kernels::{Float, vectorised};

/// The settings that Adam, AdamW and NAdam share.
#[derive(Clone, Debug)]
pub(super) struct Averaging {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Whether the weight decay acts on the parameters, not on their gradient.
    pub decoupled: bool,
}

impl Averaging {
    /// PyTorch's defaults.
    pub fn new(decoupled: bool) -> Self {
        Averaging { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled }
    }

    pub fn settings(&self) -> Vec<(&'static str, f64)> {
        let Averaging { beta1, beta2, eps, decoupled: _ } = *self;
        vec![("beta1", beta1), ("beta2", beta2), ("eps", eps)]
    }

    pub fn moments() -> Vec<(&'static str, f64)> {
        vec![("exp_avg", 0.0), ("exp_avg_sq", 0.0)]
    }

    /// The settings of one step.
    pub fn at<F: Float>(&self, at: At) -> Averages<F> {
        let Averaging { beta1, beta2, eps, decoupled } = *self;
        let (coupled_decay, shrink) =
            if decoupled { (0.0, 1.0 - at.learning_rate * at.weight_decay) } else { (at.weight_decay, 1.0) };
        Averages {
            factor: Factor::new(at.factor),
            coupled_decay: F::of(coupled_decay),
            shrink: F::of(shrink),
            beta1: F::of(beta1),
            beta2: F::of(beta2),
            entering1: F::of(1.0 - beta1),
            entering2: F::of(1.0 - beta2),
            correction: F::of(1.0 / (1.0 - at.power(beta2)).sqrt()),
            eps: F::of(eps),
        }
    }
}

/// The settings of one step that Adam, AdamW and NAdam share, in the element type.
#[derive(Clone, Copy)]
pub(super) struct Averages<F> {
    factor: Factor<F>,
    /// `g ← g + coupled_decay · p`
    coupled_decay: F,
    /// `p ← shrink · p`
    pub shrink: F,
    beta1: F,
    beta2: F,
    entering1: F,
    entering2: F,
    /// `1 / sqrt(1 - β₂ᵗ)`
    correction: F,
    eps: F,
}

impl<F: Float> Averages<F> {
    /// Updates the averages with the gradient, which includes its decay here, and returns it.
    #[inline(always)]
    pub fn enter(self, p: F, g: F, m: &mut F, v: &mut F) -> F {
        let g = self.factor.times(g) + self.coupled_decay * p;
        *m = self.beta1 * *m + self.entering1 * g;
        *v = self.beta2 * *v + self.entering2 * g * g;
        g
    }

    /// `sqrt(v / (1 - β₂ᵗ)) + eps`
    #[inline(always)]
    pub fn root(self, v: F) -> F {
        v.sqrt() * self.correction + self.eps
    }
}

/// The arithmetic of Adam and AdamW.
#[derive(Clone, Debug)]
struct Moments {
    averaging: Averaging,
    amsgrad: bool,
}

/// The settings of one step, in the element type.
#[derive(Clone, Copy)]
struct Step<F> {
    averages: Averages<F>,
    /// `lr / (1 - β₁ᵗ)`
    size: F,
}

impl<F: Float> Step<F> {
    #[inline(always)]
    fn descend(self, p: &mut F, m: F, v: F) {
        *p = self.averages.shrink * *p - self.size * m / self.averages.root(v);
    }
}

vectorised! {
    fn adapt<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F], m: &'a mut [F], v: &'a mut [F]) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            step.averages.enter(*p, g, m, v);
            step.descend(p, *m, *v);
        }
    }

    fn adapt_by_maximum<'a, F: Float>(
        step: Step<F>,
        p: &'a mut [F],
        g: &'a [F],
        m: &'a mut [F],
        v: &'a mut [F],
        max: &'a mut [F],
    ) {
        for ((((p, &g), m), v), max) in p.iter_mut().zip(g).zip(m).zip(v).zip(max) {
            step.averages.enter(*p, g, m, v);
            // Not `max`, which would drop NaN.
            *max = if *v > *max || v.is_nan() { *v } else { *max };
            step.descend(p, *m, *max);
        }
    }
}

impl<F: Float> Rule<F> for Moments {
    fn settings(&self) -> Vec<(&'static str, f64)> {
        let mut settings = self.averaging.settings();
        settings.push(("amsgrad", f64::from(u8::from(self.amsgrad))));
        settings
    }

    fn added_settings(&self) -> &'static [(&'static str, f64)] {
        &[("amsgrad", 0.0)]
    }

    fn moments(&self) -> Vec<(&'static str, f64)> {
        let mut moments = Averaging::moments();
        if self.amsgrad {
            moments.push(("max_exp_avg_sq", 0.0));
        }
        moments
    }

    fn squares(&self) -> &'static [&'static str] {
        &["exp_avg_sq", "max_exp_avg_sq"]
    }

    fn update(&self, at: At, p: &mut [F], g: &[F], moments: &mut [&mut [F]]) {
        let size = F::of(at.learning_rate / (1.0 - at.power(self.averaging.beta1)));
        let step = Step { averages: self.averaging.at(at), size };
        match moments {
            [m, v] => adapt(step, p, g, m, v),
            [m, v, max] => adapt_by_maximum(step, p, g, m, v, max),
            _ => unreachable!("two or three moments"),
        }
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
                let rule = Moments { averaging: Averaging::new($decoupled), amsgrad: false };
                $name { core: Core::new(stringify!($name), learning_rate, $decay, rule) }
            }

            /// Sets the decays of the two moments.
            ///
            /// # Panics
            /// Panics if one is not in `0..1`, or a step was taken.
            #[track_caller]
            pub fn betas(self, beta1: f64, beta2: f64) -> Self {
                let beta1 = check_number::<F>(stringify!($name), "beta1", Expect::Fraction, beta1);
                let beta2 = check_number::<F>(stringify!($name), "beta2", Expect::Fraction, beta2);
                $name { core: self.core.with(|rule| (rule.averaging.beta1, rule.averaging.beta2) = (beta1, beta2)) }
            }

            /// Sets eps.
            ///
            /// # Panics
            /// Panics if it is not above 0, in the element type too, or not finite, or a step was taken.
            #[track_caller]
            pub fn eps(self, eps: f64) -> Self {
                let eps = check_number::<F>(stringify!($name), "eps", Expect::Above0, eps);
                $name { core: self.core.with(|rule| rule.averaging.eps = eps) }
            }

            /// AMSGrad (Reddi, Kale and Kumar 2018): divides by the largest mean square so far instead of the current one, so
            /// that the step of an element does not grow again when its large gradients have left the mean. As with PyTorch's
            /// `amsgrad=True`, the maximum is taken of the uncorrected `v`, and the correction is applied to the maximum.
            ///
            /// ```text
            /// v̂ ← max(v̂, v)        p ← p - lr · m / (1 - β₁ᵗ) / (sqrt(v̂ / (1 - β₂ᵗ)) + eps)
            /// ```
            ///
            /// ```
            #[doc = concat!("use gradflow::{ndarray::arr1, optim::{", stringify!($name), ", Optimizer}};")]
            ///
            #[doc = concat!("let optimizer = || ", stringify!($name), "::new(0.1).betas(0.9, 0.5);")]
            /// let (mut a, mut b) = (arr1(&[0.0]), arr1(&[0.0]));
            /// let (mut plain, mut amsgrad) = (optimizer(), optimizer().amsgrad());
            /// for gradient in [1.0, 0.1, 0.1] {
            ///     plain.step(&mut a, &arr1(&[gradient]));
            ///     amsgrad.step(&mut b, &arr1(&[gradient])); // the maximum is that of the 1
            /// }
            /// assert!(a[0] < b[0] && b[0] < 0.0);
            /// ```
            ///
            /// # Panics
            /// Panics if a step was taken.
            #[track_caller]
            pub fn amsgrad(self) -> Self {
                $name { core: self.core.with(|rule| rule.amsgrad = true) }
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
    /// Adds `weight_decay · p` to each gradient.
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
    /// Shrinks each parameter by `lr · weight_decay` at every step; 0.01 by default.
    weight_decay
}
