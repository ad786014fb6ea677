//! Clipping by norm and by value.

use super::{ClipReport, NonFinite, NonFiniteGradient, check_limit, screen};
use crate::base::tensors::shown;
use crate::base::{Expect, Tensors, TensorsExt, check_number};
use crate::kernels::math::sum;
use crate::kernels::{Float, once, vectorised};

/// Clipping by the norm of all tensors together, or of each: `g ← g · min(1, max / (‖g‖ + eps))`.
///
/// Clipping all tensors together keeps the direction; only the length of the step changes. If a step follows,
/// [`Optimizer::step_clipped`](crate::optim::Optimizer::step_clipped) saves a pass over the gradient.
///
/// ```
/// use gradflow::{clip::{ClipNorm, NonFinite}, ndarray::arr1};
///
/// let mut gradient = arr1(&[3.0, -4.0]);
/// let norm = ClipNorm::new(1.0).eps(0.0).non_finite(NonFinite::Skip).clip(&mut gradient)?;
/// assert_eq!(norm, 5.0);
/// assert_eq!(gradient, arr1(&[0.6000000000000001, -0.8]));
/// # Ok::<(), gradflow::clip::NonFiniteGradient>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct ClipNorm {
    max: f64,
    p: f64,
    eps: f64,
    per_tensor: bool,
    non_finite: NonFinite,
}

impl ClipNorm {
    /// Limits the Euclidean norm to `max`, with PyTorch's eps of 1e-6.
    ///
    /// # Panics
    /// Panics if `max` is negative or NaN.
    #[track_caller]
    pub fn new(max: f64) -> Self {
        check_limit("ClipNorm: max", max);
        ClipNorm { max, p: 2.0, eps: 1e-6, per_tensor: false, non_finite: NonFinite::Error }
    }

    /// Uses the p-norm instead: `(Σ |g|^p)^(1/p)`, or the largest `|g|` for `f64::INFINITY`.
    ///
    /// # Panics
    /// Panics if `p` is not above 0.
    #[track_caller]
    pub fn norm_type(self, p: f64) -> Self {
        assert!(p > 0.0, "ClipNorm: norm_type: expected a number above 0, got {p}");
        ClipNorm { p, ..self }
    }

    /// Added to the norm in the denominator; 0 makes the clipped norm exactly `max`.
    ///
    /// # Panics
    /// Panics if `eps` is negative or not finite.
    #[track_caller]
    pub fn eps(self, eps: f64) -> Self {
        check_number::<f64>("ClipNorm", "eps", Expect::AtLeast0, eps);
        ClipNorm { eps, ..self }
    }

    /// Clips each tensor by its own norm, so that one large gradient does not shrink the others. The direction of the whole
    /// gradient is not kept.
    ///
    /// ```
    /// use gradflow::{clip::ClipNorm, ndarray::arr1};
    ///
    /// let mut gradient = (arr1(&[0.0, 100.0]), arr1(&[0.5]));
    /// let report = ClipNorm::new(1.0).eps(0.0).per_tensor().clip_report(&mut gradient)?;
    /// assert_eq!(gradient, (arr1(&[0.0, 1.0]), arr1(&[0.5])));
    /// assert_eq!((report.scale, report.clipped), (0.01, 1));
    /// # Ok::<(), gradflow::clip::NonFiniteGradient>(())
    /// ```
    pub fn per_tensor(self) -> Self {
        ClipNorm { per_tensor: true, ..self }
    }

    /// What to do about a norm that is not finite.
    pub fn non_finite(self, non_finite: NonFinite) -> Self {
        ClipNorm { non_finite, ..self }
    }

    /// Clips, and returns the norm of all tensors before clipping. To clip several models together, pass `&mut (&mut a, &mut b)`.
    ///
    /// # Errors
    /// Returns an error if the norm is not finite and [`NonFinite::Error`] is chosen; nothing is changed then.
    pub fn clip<F: Float>(&self, grad: &mut dyn Tensors<F>) -> Result<f64, NonFiniteGradient> {
        self.clip_report(grad).map(|report| report.norm)
    }

    /// As [`clip`](ClipNorm::clip), and reports what it found and did.
    ///
    /// # Errors
    /// Returns an error if the norm is not finite and [`NonFinite::Error`] is chosen; nothing is changed then.
    pub fn clip_report<F: Float>(&self, grad: &mut dyn Tensors<F>) -> Result<ClipReport, NonFiniteGradient> {
        clip_norm(*self, grad)
    }

    /// Takes the norm of `grad`, which decides what happens to each tensor.
    pub(crate) fn measure<F: Float>(&self, grad: &dyn Tensors<F>) -> Result<Clipping, NonFiniteGradient> {
        let (report, skip) = screen(grad, self.p, self.non_finite)?;
        let same_for_all = match (skip, self.per_tensor) {
            (true, _) => Some(Change::Zero),
            (false, true) => None,
            (false, false) => Some(self.change(report.norm)),
        };
        Ok(Clipping { rule: *self, same_for_all, report })
    }

    fn change(&self, norm: f64) -> Change {
        let factor = self.max / (norm + self.eps);
        // Written so that NaN does not leave the gradient unchanged.
        if factor >= 1.0 || norm == 0.0 { Change::Keep } else { Change::Scale(factor) }
    }
}

/// What clipping does to a tensor of a gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    Keep,
    Scale(f64),
    Zero,
}

/// A gradient whose norm was taken, and what clipping does to it.
pub(crate) struct Clipping {
    rule: ClipNorm,
    same_for_all: Option<Change>,
    /// Complete once `change` has been called for each tensor.
    pub report: ClipReport,
}

impl Clipping {
    /// What happens to the tensor of these values.
    pub fn change<F: Float>(&mut self, values: &[F]) -> Change {
        let own = || self.rule.change(norm_of(|| std::iter::once(values), self.rule.p));
        let change = self.same_for_all.unwrap_or_else(own);
        if let Change::Scale(factor) = change {
            self.report.scaled(factor);
            self.report.clipped += 1;
        }
        change
    }
}

/// A factor in the element type. A factor below the smallest normal number is applied as two: a single one would lose digits.
#[derive(Clone, Copy)]
pub(crate) struct Factor<F>(F, F);

impl<F: Float> Factor<F> {
    pub fn new(factor: f64) -> Self {
        let (first, second) =
            if factor < F::min_positive_value().widen() { (factor.sqrt(), factor.sqrt()) } else { (factor, 1.0) };
        Factor(F::of(first), F::of(second))
    }

    #[inline(always)]
    pub fn times(self, value: F) -> F {
        value * self.0 * self.1
    }
}

/// [`ClipNorm`] with its defaults: limits the Euclidean norm of `grad` to `max` and returns the norm before clipping.
///
/// ```
/// use gradflow::{clip::clip_grad_norm, ndarray::arr1};
///
/// let mut gradient = arr1(&[3.0, -4.0]);
/// assert_eq!(clip_grad_norm(&mut gradient, 10.0)?, 5.0);
/// assert_eq!(gradient, arr1(&[3.0, -4.0]));
/// # Ok::<(), gradflow::clip::NonFiniteGradient>(())
/// ```
///
/// # Errors
/// Returns an error if the norm is not finite; nothing is changed then.
///
/// # Panics
/// Panics if `max` is negative or NaN.
#[track_caller]
pub fn clip_grad_norm<F: Float>(grad: &mut dyn Tensors<F>, max: f64) -> Result<f64, NonFiniteGradient> {
    ClipNorm::new(max).clip(grad)
}

/// Clamps each element to `[-max, max]`. Does not keep the gradient's direction.
///
/// # Errors
/// Returns an error if an element is not finite; nothing is changed then.
///
/// # Panics
/// Panics if `max` is negative or NaN, or a number above 0 that is 0 in the element type.
#[track_caller]
pub fn clip_grad_value<F: Float>(grad: &mut dyn Tensors<F>, max: f64) -> Result<(), NonFiniteGradient> {
    check_limit("clip_grad_value: max", max);
    if max > 0.0 && max.is_finite() {
        check_number::<F>("clip_grad_value", "max", Expect::Above0, max.min(F::max_value().widen()));
    }
    clip_value(grad, F::of(max))
}

/// The p-norm of all tensors together, `f64::INFINITY` for the largest magnitude. NaN if any element is NaN.
///
/// # Panics
/// Panics if `p` is not above 0.
#[track_caller]
#[must_use]
pub fn grad_norm<F: Float>(grad: &dyn Tensors<F>, p: f64) -> f64 {
    assert!(p > 0.0, "grad_norm: p: expected a number above 0, got {p}");
    norm(grad, p)
}

once! {
    fn clip_norm<'a, F: Float>(clip: ClipNorm, grad: &'a mut dyn Tensors<F>) -> Result<ClipReport, NonFiniteGradient> {
        let mut clipping = clip.measure(grad)?;
        for i in 0..grad.count() {
            match clipping.change(grad.values(i)) {
                Change::Keep => {}
                Change::Scale(factor) => scale(grad.tensor_mut(i), factor),
                Change::Zero => grad.tensor_mut(i).fill(F::zero()),
            }
        }
        Ok(clipping.report)
    }

    fn clip_value<'a, F: Float>(grad: &'a mut dyn Tensors<F>, max: F) -> Result<(), NonFiniteGradient> {
        let norm = norm(grad, f64::INFINITY);
        if !norm.is_finite() {
            return Err(NonFiniteGradient { tensor: first_non_finite(grad, f64::INFINITY), norm });
        }
        for i in 0..grad.count() {
            for value in grad.tensor_mut(i) {
                *value = value.min(max).max(-max);
            }
        }
        Ok(())
    }

    fn norm<'a, F: Float>(grad: &'a dyn Tensors<F>, p: f64) -> f64 {
        norm_of(|| (0..grad.count()).map(|i| grad.values(i)), p)
    }
}

/// The p-norm of several slices together.
pub(super) fn norm_of<'a, F: Float, I: Iterator<Item = &'a [F]>>(values: impl Fn() -> I, p: f64) -> f64 {
    let largest = || values().map(|values| largest_magnitude(values).widen()).fold(0.0, larger);
    if p == f64::INFINITY {
        return largest();
    }
    let powers = |unit: f64| values().map(|values| power_sum(values, p, unit)).sum::<f64>();
    let plain = powers(1.0);
    // Powers may overflow or underflow even if the norm itself does neither; near the smallest numbers they lose digits.
    if plain.is_finite() && plain > f64::MIN_POSITIVE / f64::EPSILON {
        return plain.powf(1.0 / p);
    }
    match largest() {
        largest if largest.is_finite() && largest > 0.0 => powers(largest).powf(1.0 / p) * largest,
        largest => largest,
    }
}

vectorised! {
    fn sum_of_squares<'a, F: Float>(values: &'a [F]) -> f64 {
        sum([values], |[value]| value.widen() * value.widen())
    }
}

vectorised! {
    /// The largest magnitude, or NaN if any value is NaN.
    fn largest_magnitude<'a, F: Float>(values: &'a [F]) -> F {
        // Enough lanes that comparisons do not wait for each other.
        let mut lanes = [F::zero(); 32];
        let mut chunks = values.chunks_exact(lanes.len());
        for chunk in &mut chunks {
            for (largest, &value) in lanes.iter_mut().zip(chunk) {
                *largest = larger(*largest, value.abs());
            }
        }
        let rest = chunks.remainder().iter().map(|value| value.abs());
        rest.chain(lanes).fold(F::zero(), larger)
    }

    fn multiply<'a, F: Float>(factor: Factor<F>, values: &'a mut [F]) {
        values.iter_mut().for_each(|value| *value = factor.times(*value));
    }
}

/// Σ |g / unit|^p.
fn power_sum<F: Float>(values: &[F], p: f64, unit: f64) -> f64 {
    if p == 2.0 && unit == 1.0 {
        return sum_of_squares(values);
    }
    sum([values], |[value]| (value.widen().abs() / unit).powf(p))
}

pub(super) fn scale<F: Float>(values: &mut [F], factor: f64) {
    multiply(Factor::new(factor), values);
}

/// The larger of two magnitudes, or NaN if one is NaN: `max` would drop it.
#[inline(always)]
fn larger<F: num_traits::Float>(a: F, b: F) -> F {
    if a >= b || a.is_nan() { a } else { b }
}

pub(super) fn first_non_finite<F: Float>(grad: &dyn Tensors<F>, p: f64) -> String {
    (0..grad.count())
        .find(|&i| !power_sum(grad.values(i), if p.is_finite() { p } else { 1.0 }, 1.0).is_finite())
        .map_or_else(|| "all tensors together".into(), |i| shown(&grad.name(i)).into())
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
        for unit in [1e200, 1e-200, 1e-160, 1.7e-162] {
            let norm = grad_norm(&arr1(&[3.0 * unit, 4.0 * unit]), 2.0);
            assert!((norm / (5.0 * unit) - 1.0).abs() < 1e-14, "{norm:e}");
        }
    }

    #[test]
    fn the_largest_gradients_come_down_to_the_smallest_limit() {
        let mut g = arr1(&[2e38f32, -2e38]);
        ClipNorm::new(1e-3).clip(&mut g).unwrap();
        assert!((grad_norm(&g, 2.0) / 1e-3 - 1.0).abs() < 1e-6, "{g}");
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
            assert!(std::panic::catch_unwind(|| ClipNorm::new(1.0).norm_type(bad)).is_err());
            assert!(std::panic::catch_unwind(|| clip_grad_value(&mut arr1(&[1.0]), bad)).is_err());
        }
        assert!(std::panic::catch_unwind(|| ClipNorm::new(1.0).norm_type(0.0)).is_err());
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

    #[test]
    fn each_tensor_is_clipped_by_its_own_norm() {
        let before = (arr1(&[3.0, -4.0]), arr1(&[0.3, 0.4]), arr1(&[0.0, 0.0]), arr1(&[10.0, 0.0]));
        let mut g = before.clone();
        let report = ClipNorm::new(1.0).per_tensor().clip_report(&mut g).unwrap();
        let factor = |norm: f64| 1.0 / (norm + 1e-6);
        assert_eq!(g, (&before.0 * factor(5.0), before.1.clone(), before.2.clone(), &before.3 * factor(10.0)));
        assert_eq!((report.clipped, report.scale, report.non_finite), (2, factor(10.0), None));
        assert!((report.norm - 125.25_f64.sqrt()).abs() < 1e-14);

        let mut g = before.clone();
        ClipNorm::new(2.0).eps(0.0).norm_type(f64::INFINITY).per_tensor().clip(&mut g).unwrap();
        assert_eq!(g, (arr1(&[1.5, -2.0]), before.1, before.2, arr1(&[2.0, 0.0])));
    }

    #[test]
    fn reports_say_what_was_done() {
        let before = (arr1(&[3.0, 0.0]), arr1(&[4.0]));
        let mut g = before.clone();
        let untouched = ClipNorm::new(5.1).clip_report(&mut g).unwrap();
        assert_eq!((&g, untouched), (&before, ClipReport::new(5.0, None)));
        let clipped = ClipNorm::new(2.5).eps(0.0).clip_report(&mut g).unwrap();
        assert_eq!(clipped, ClipReport { norm: 5.0, scale: 0.5, clipped: 2, non_finite: None });
        assert_eq!(g, (arr1(&[1.5, 0.0]), arr1(&[2.0])));

        for per_tensor in [false, true] {
            let clip = |non_finite: NonFinite| {
                let mut g = (arr1(&[3.0, 0.0]), arr1(&[f64::NAN]));
                let clip = ClipNorm::new(1.0).eps(0.0).non_finite(non_finite);
                let clip = if per_tensor { clip.per_tensor() } else { clip };
                (clip.clip_report(&mut g), g)
            };
            assert_eq!(clip(NonFinite::Error).0.unwrap_err().tensor, "1");
            let (report, g) = clip(NonFinite::Skip);
            let report = report.unwrap();
            assert_eq!((report.scale, report.clipped, report.non_finite.as_deref()), (0.0, 2, Some("1")));
            assert_eq!(g, (arr1(&[0.0, 0.0]), arr1(&[0.0])));
            let (report, g) = clip(NonFinite::Pass);
            let report = report.unwrap();
            assert!(report.norm.is_nan() && report.scale.is_nan() && g.1[0].is_nan());
            assert_eq!(report.non_finite.as_deref(), Some("1"));
            // If each tensor is clipped on its own, NaN stays in its tensor.
            assert_eq!(g.0[0].is_nan(), !per_tensor);
        }
    }
}
