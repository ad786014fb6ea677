//! RMSprop.

use super::core::{At, Core, Rule, optimizer};
use crate::base::{Expect, check_number};
use crate::clip::Factor;
use crate::kernels::{Float, vectorised};

const NAME: &str = "RmsProp";

/// RMSprop (Tieleman and Hinton 2012), with the centering and the momentum of Graves 2013, as in PyTorch.
///
/// ```text
/// g ← g + weight_decay · p
/// v ← α v + (1 - α) g²                    d = g / (sqrt(v) + eps)
/// m ← α m + (1 - α) g        centered:    d = g / (sqrt(v - m²) + eps)
/// p ← p - lr · d             momentum:    b ← momentum · b + d,  p ← p - lr · b
/// ```
///
/// If rounding makes `v - m²` negative, it counts as 0; PyTorch gives NaN.
///
/// ```
/// use gradflow::{ndarray::arr1, optim::{Optimizer, RmsProp}};
///
/// let mut optimizer = RmsProp::new(0.1).alpha(0.75).momentum(0.9);
/// let mut parameter = arr1(&[1.0]);
/// optimizer.step(&mut parameter, &arr1(&[2.0])); // v = 1, so by lr · 2
/// assert!((parameter[0] - 0.8f64).abs() < 1e-8);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RmsProp<F> {
    core: Core<F, MeanSquare>,
}

#[derive(Clone, Debug)]
struct MeanSquare {
    alpha: f64,
    eps: f64,
    momentum: f64,
    centered: bool,
}

impl<F: Float> RmsProp<F> {
    /// With PyTorch's defaults: α 0.99, eps 1e-8, not centered, no momentum.
    ///
    /// # Panics
    /// Panics if the learning rate is negative or not finite.
    #[track_caller]
    pub fn new(learning_rate: f64) -> Self {
        let rule = MeanSquare { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false };
        RmsProp { core: Core::new(NAME, learning_rate, 0.0, rule) }
    }

    /// Sets the decay of the mean square.
    ///
    /// # Panics
    /// Panics if it is not in `0..1`, or a step was taken.
    #[track_caller]
    pub fn alpha(self, alpha: f64) -> Self {
        let alpha = check_number::<F>(NAME, "alpha", Expect::Fraction, alpha);
        RmsProp { core: self.core.with(|rule| rule.alpha = alpha) }
    }

    /// Sets eps.
    ///
    /// # Panics
    /// Panics if it is not above 0, in the element type too, or not finite, or a step was taken.
    #[track_caller]
    pub fn eps(self, eps: f64) -> Self {
        let eps = check_number::<F>(NAME, "eps", Expect::Above0, eps);
        RmsProp { core: self.core.with(|rule| rule.eps = eps) }
    }

    /// Sets the momentum; 0 is none.
    ///
    /// # Panics
    /// Panics if it is negative or not finite, or a step was taken.
    #[track_caller]
    pub fn momentum(self, momentum: f64) -> Self {
        let momentum = check_number::<F>(NAME, "momentum", Expect::AtLeast0, momentum);
        RmsProp { core: self.core.with(|rule| rule.momentum = momentum) }
    }

    /// Divides by the gradient's standard deviation, not by its root mean square.
    ///
    /// # Panics
    /// Panics if a step was taken.
    #[track_caller]
    pub fn centered(self) -> Self {
        RmsProp { core: self.core.with(|rule| rule.centered = true) }
    }
}

optimizer! {
    RmsProp,
    /// Adds `weight_decay · p` to each gradient.
    weight_decay
}

/// The settings of one step, in the element type.
#[derive(Clone, Copy)]
struct Step<F> {
    factor: Factor<F>,
    learning_rate: F,
    alpha: F,
    entering: F,
    eps: F,
    momentum: F,
    weight_decay: F,
}

impl<F: Float> Step<F> {
    /// `d` of the form that is not centered.
    #[inline(always)]
    fn plain(self, p: F, g: F, v: &mut F) -> F {
        let g = self.factor.times(g) + self.weight_decay * p;
        *v = self.alpha * *v + self.entering * g * g;
        g / (v.sqrt() + self.eps)
    }

    /// `d` of the centered form.
    #[inline(always)]
    fn centered(self, p: F, g: F, v: &mut F, m: &mut F) -> F {
        let g = self.factor.times(g) + self.weight_decay * p;
        *v = self.alpha * *v + self.entering * g * g;
        *m = self.alpha * *m + self.entering * g;
        let variance = *v - *m * *m;
        // Not `max`, which would drop NaN.
        let variance = if variance < F::zero() { F::zero() } else { variance };
        g / (variance.sqrt() + self.eps)
    }

    #[inline(always)]
    fn descend(self, p: &mut F, d: F) {
        *p -= self.learning_rate * d;
    }

    #[inline(always)]
    fn descend_with_momentum(self, p: &mut F, d: F, b: &mut F) {
        *b = self.momentum * *b + d;
        *p -= self.learning_rate * *b;
    }
}

vectorised! {
    fn plain<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F], v: &'a mut [F]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            step.descend(p, step.plain(*p, g, v));
        }
    }

    fn plain_with_momentum<'a, F: Float>(
        step: Step<F>,
        p: &'a mut [F],
        g: &'a [F],
        v: &'a mut [F],
        b: &'a mut [F],
    ) {
        for (((p, &g), v), b) in p.iter_mut().zip(g).zip(v).zip(b) {
            step.descend_with_momentum(p, step.plain(*p, g, v), b);
        }
    }

    fn centered<'a, F: Float>(step: Step<F>, p: &'a mut [F], g: &'a [F], v: &'a mut [F], m: &'a mut [F]) {
        for (((p, &g), v), m) in p.iter_mut().zip(g).zip(v).zip(m) {
            step.descend(p, step.centered(*p, g, v, m));
        }
    }

    fn centered_with_momentum<'a, F: Float>(
        step: Step<F>,
        p: &'a mut [F],
        g: &'a [F],
        v: &'a mut [F],
        m: &'a mut [F],
        b: &'a mut [F],
    ) {
        for ((((p, &g), v), m), b) in p.iter_mut().zip(g).zip(v).zip(m).zip(b) {
            step.descend_with_momentum(p, step.centered(*p, g, v, m), b);
        }
    }
}

impl<F: Float> Rule<F> for MeanSquare {
    fn settings(&self) -> Vec<(&'static str, f64)> {
        let centered = f64::from(u8::from(self.centered));
        vec![("alpha", self.alpha), ("eps", self.eps), ("momentum", self.momentum), ("centered", centered)]
    }

    fn moments(&self) -> Vec<(&'static str, f64)> {
        let mut moments = vec![("square_avg", 0.0)];
        if self.centered {
            moments.push(("grad_avg", 0.0));
        }
        if self.momentum != 0.0 {
            moments.push(("momentum_buffer", 0.0));
        }
        moments
    }

    fn squares(&self) -> &'static [&'static str] {
        &["square_avg"]
    }

    fn update(&self, at: At, p: &mut [F], g: &[F], moments: &mut [&mut [F]]) {
        let step = Step {
            factor: Factor::new(at.factor),
            learning_rate: F::of(at.learning_rate),
            alpha: F::of(self.alpha),
            entering: F::of(1.0 - self.alpha),
            eps: F::of(self.eps),
            momentum: F::of(self.momentum),
            weight_decay: F::of(at.weight_decay),
        };
        match moments {
            [v] => plain(step, p, g, v),
            [v, m] if self.centered => centered(step, p, g, v, m),
            [v, b] => plain_with_momentum(step, p, g, v, b),
            [v, m, b] => centered_with_momentum(step, p, g, v, m, b),
            _ => unreachable!("one to three moments"),
        }
    }
}
