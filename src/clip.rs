//! Gradient clipping: what keeps one huge step from turning the weights into NaN (Pascanu, Mikolov and Bengio 2013).

use std::fmt;

use crate::{Float, Tensors, TensorsExt};

/// A gradient whose norm is infinite or NaN: nothing was changed.
#[derive(Clone, Debug, PartialEq)]
pub struct NonFiniteGradient {
    /// The first tensor with an element, or a norm, that is not finite.
    pub tensor: String,
    /// The norm of all tensors together.
    pub norm: f64,
}

impl fmt::Display for NonFiniteGradient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gradient is not finite (norm {}), first in {}", self.norm, self.tensor)
    }
}

impl std::error::Error for NonFiniteGradient {}

/// What clipping does about a gradient whose norm is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NonFinite {
    /// An error; the gradient stays as it is.
    #[default]
    Error,
    /// Goes on, as PyTorch does by default: an infinite norm scales by 0, and NaN spreads to every element.
    Pass,
    /// Sets the gradient to zero, so that a plain step changes nothing; the norm that is returned tells.
    Skip,
}

/// Clipping by the norm of all tensors together: `g ← g · min(1, max / (‖g‖ + eps))`.
///
/// The direction is kept; only the length of the step changes.
///
/// ```
/// use gradflow::{ClipNorm, NonFinite, ndarray::arr1};
///
/// let mut gradient = arr1(&[3.0, -4.0]);
/// let norm = ClipNorm::new(1.0).eps(0.0).non_finite(NonFinite::Skip).clip(&mut gradient)?;
/// assert_eq!(norm, 5.0);
/// assert_eq!(gradient, arr1(&[0.6000000000000001, -0.8]));
/// # Ok::<(), gradflow::NonFiniteGradient>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipNorm {
    max: f64,
    p: f64,
    eps: f64,
    non_finite: NonFinite,
}

impl ClipNorm {
    /// The Euclidean norm held to `max`, with PyTorch's eps of 1e-6.
    ///
    /// # Panics
    /// Where `max` is negative or NaN.
    #[track_caller]
    pub fn new(max: f64) -> Self {
        check_limit("ClipNorm: max", max);
        ClipNorm { max, p: 2.0, eps: 1e-6, non_finite: NonFinite::Error }
    }

    /// The p-norm instead: `(Σ |g|^p)^(1/p)`, or the largest `|g|` for `f64::INFINITY`.
    ///
    /// # Panics
    /// Where `p` is not above 0.
    #[track_caller]
    pub fn p(self, p: f64) -> Self {
        assert!(p > 0.0, "ClipNorm: p: expected a number above 0, got {p}");
        ClipNorm { p, ..self }
    }

    /// What is added to the norm under the fraction; 0 makes the clipped norm exactly `max`.
    ///
    /// # Panics
    /// Where `eps` is negative or NaN.
    #[track_caller]
    pub fn eps(self, eps: f64) -> Self {
        check_limit("ClipNorm: eps", eps);
        ClipNorm { eps, ..self }
    }

    /// What to do about a norm that is not finite.
    pub fn non_finite(self, non_finite: NonFinite) -> Self {
        ClipNorm { non_finite, ..self }
    }

    /// Clips, and returns the norm before clipping. Several models together: `&mut (&mut a, &mut b)`.
    ///
    /// # Errors
    /// Where the norm is not finite and [`NonFinite::Error`] is chosen; nothing is changed then.
    pub fn clip<F: Float>(&self, grad: &mut (impl Tensors<F> + ?Sized)) -> Result<f64, NonFiniteGradient> {
        let norm = grad_norm(grad, self.p);
        if !norm.is_finite() {
            match self.non_finite {
                NonFinite::Error => return Err(NonFiniteGradient { tensor: first_non_finite(grad, self.p), norm }),
                NonFinite::Skip => {
                    grad.set_zero();
                    return Ok(norm);
                }
                NonFinite::Pass => {}
            }
        }
        let factor = self.max / (norm + self.eps);
        // Written so that NaN is not taken for a reason to leave the gradient as it is.
        if !(factor >= 1.0 || norm == 0.0) {
            grad.scale(F::of(factor));
        }
        Ok(norm)
    }
}

/// [`ClipNorm`] with its defaults: the Euclidean norm of `grad` held to `max`; returns the norm before clipping.
///
/// ```
/// use gradflow::{clip_grad_norm, ndarray::arr1};
///
/// let mut gradient = arr1(&[3.0, -4.0]);
/// assert_eq!(clip_grad_norm(&mut gradient, 10.0)?, 5.0);
/// assert_eq!(gradient, arr1(&[3.0, -4.0]));
/// # Ok::<(), gradflow::NonFiniteGradient>(())
/// ```
///
/// # Errors
/// Where the norm is not finite; nothing is changed then.
///
/// # Panics
/// Where `max` is negative or NaN.
#[track_caller]
pub fn clip_grad_norm<F: Float>(grad: &mut (impl Tensors<F> + ?Sized), max: f64) -> Result<f64, NonFiniteGradient> {
    ClipNorm::new(max).clip(grad)
}

/// Each element held to `[-max, max]`. Does not keep the gradient's direction.
///
/// # Errors
/// Where an element is not finite; nothing is changed then.
///
/// # Panics
/// Where `max` is negative or NaN.
#[track_caller]
pub fn clip_grad_value<F: Float>(grad: &mut (impl Tensors<F> + ?Sized), max: f64) -> Result<(), NonFiniteGradient> {
    check_limit("clip_grad_value: max", max);
    let norm = grad_norm(grad, f64::INFINITY);
    if !norm.is_finite() {
        return Err(NonFiniteGradient { tensor: first_non_finite(grad, f64::INFINITY), norm });
    }
    let max = F::of(max);
    for i in 0..grad.count() {
        for value in grad.tensor_mut(i) {
            *value = value.min(max).max(-max);
        }
    }
    Ok(())
}

/// The p-norm of all tensors together, `f64::INFINITY` for the largest magnitude. NaN where any element is NaN.
///
/// # Panics
/// Where `p` is not above 0.
#[track_caller]
pub fn grad_norm<F: Float>(grad: &(impl Tensors<F> + ?Sized), p: f64) -> f64 {
    assert!(p > 0.0, "grad_norm: p: expected a number above 0, got {p}");
    let values = || (0..grad.count()).map(|i| grad.values(i));
    if p == f64::INFINITY {
        return values().fold(0.0, |largest, tensor| larger(largest, largest_magnitude(tensor)));
    }
    let norm = |unit: f64| values().map(|tensor| power_sum(tensor, p, unit)).sum::<f64>().powf(1.0 / p) * unit;
    let plain = norm(1.0);
    if plain.is_normal() {
        return plain;
    }
    // Squares may overflow or vanish where the norm itself does neither.
    match grad_norm(grad, f64::INFINITY) {
        largest if largest.is_finite() && largest > 0.0 => norm(largest),
        largest => largest,
    }
}

/// Σ |g / unit|^p.
fn power_sum<F: Float>(values: &[F], p: f64, unit: f64) -> f64 {
    const LANES: usize = 8;
    if p != 2.0 || unit != 1.0 {
        return values.iter().map(|value| (value.widen().abs() / unit).powf(p)).sum();
    }
    let chunks = values.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|value| value.widen() * value.widen()).sum();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value.widen() * value.widen();
        }
    }
    sums.iter().sum::<f64>() + rest
}

fn largest_magnitude<F: Float>(values: &[F]) -> f64 {
    values.iter().fold(0.0, |largest, value| larger(largest, value.widen().abs()))
}

/// The larger of two magnitudes, or NaN where there is one: `f64::max` would drop it.
fn larger(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

fn first_non_finite<F: Float>(grad: &(impl Tensors<F> + ?Sized), p: f64) -> String {
    (0..grad.count())
        .find(|&i| !power_sum(grad.values(i), if p.is_finite() { p } else { 1.0 }, 1.0).is_finite())
        .map_or_else(|| "all tensors together".into(), |i| grad.name(i))
}

#[track_caller]
fn check_limit(what: &str, limit: f64) {
    assert!(limit >= 0.0, "{what}: expected a number, at least 0, got {limit}");
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, arr1};

    use super::*;

    #[test]
    fn norms_of_every_p() {
        let g = arr1(&[3.0, -4.0, 0.0]);
        for (p, want) in [(1.0, 7.0), (2.0, 5.0), (3.0, 91f64.cbrt()), (f64::INFINITY, 4.0)] {
            assert!((grad_norm(&g, p) - want).abs() < 1e-14, "p = {p}");
        }
        assert_eq!(grad_norm(&Array1::<f64>::zeros(3), 2.0), 0.0);
        assert_eq!(grad_norm::<f32>(&(), 2.0) + grad_norm::<f32>(&(), f64::INFINITY), 0.0, "an empty model");
    }

    #[test]
    fn finite_gradients_have_finite_norms() {
        for unit in [1e200, 1e-200] {
            let norm = grad_norm(&arr1(&[3.0 * unit, 4.0 * unit]), 2.0);
            assert!((norm / (5.0 * unit) - 1.0).abs() < 1e-14, "{norm:e}");
        }
    }

    #[test]
    fn nan_is_never_dropped() {
        for at in 0..3 {
            let mut g = arr1(&[1.0, 2.0, 3.0]);
            g[at] = f64::NAN;
            assert!(grad_norm(&g, 2.0).is_nan() && grad_norm(&g, f64::INFINITY).is_nan());
        }
    }

    #[test]
    fn non_finite_is_an_error_that_changes_nothing() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let before = (arr1(&[1.0]), arr1(&[2.0, bad]));
            let mut g = before.clone();
            let error = clip_grad_norm(&mut g, 1.0).unwrap_err();
            assert_eq!(error.tensor, "1");
            assert!(clip_grad_value(&mut g, 1.0).is_err());
            assert_eq!(format!("{g:?}"), format!("{before:?}"));

            assert!(!ClipNorm::new(1.0).non_finite(NonFinite::Skip).clip(&mut g).unwrap().is_finite());
            assert_eq!(g, (arr1(&[0.0]), arr1(&[0.0, 0.0])));

            let mut g = before.clone();
            assert!(!ClipNorm::new(1.0).non_finite(NonFinite::Pass).clip(&mut g).unwrap().is_finite());
            assert!(g.1[1].is_nan(), "{g:?}");
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for bad in [-1.0, f64::NAN] {
            assert!(std::panic::catch_unwind(|| ClipNorm::new(bad)).is_err());
            assert!(std::panic::catch_unwind(|| ClipNorm::new(1.0).eps(bad)).is_err());
            assert!(std::panic::catch_unwind(|| ClipNorm::new(1.0).p(bad)).is_err());
            assert!(std::panic::catch_unwind(|| clip_grad_value(&mut arr1(&[1.0]), bad)).is_err());
        }
        assert!(std::panic::catch_unwind(|| ClipNorm::new(1.0).p(0.0)).is_err());
    }

    #[test]
    fn several_models_are_clipped_by_one_norm() {
        let (mut a, mut b) = (arr1(&[3.0]), arr1(&[0.0, 4.0]));
        assert_eq!(ClipNorm::new(2.5).eps(0.0).clip(&mut (&mut a, &mut b)), Ok(5.0));
        assert_eq!((a, b), (arr1(&[1.5]), arr1(&[0.0, 2.0])));
    }

    #[test]
    fn values_are_clipped_each_on_its_own() {
        let mut g = (arr1(&[1.0f32, -3.0]), arr1(&[0.5, 9.0]));
        clip_grad_value(&mut g, 2.0).unwrap();
        assert_eq!(g, (arr1(&[1.0, -2.0]), arr1(&[0.5, 2.0])));
    }
}
