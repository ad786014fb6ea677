//! Adaptive gradient clipping.

use super::norm::{norm_of, scale};
use super::{ClipReport, NonFinite, NonFiniteGradient, screen};
use crate::base::tensors::check_alike;
use crate::base::{Expect, Tensors, TensorsExt, check_number};
use crate::kernels::{Float, once};

const NAME: &str = "ClipAdaptive";

/// Adaptive gradient clipping (Brock et al. 2021): a unit's gradient is limited to a fraction of the unit's own weights.
///
/// ```text
/// G_i ← G_i · min(1, λ · max(‖W_i‖, eps) / ‖G_i‖)
/// ```
///
/// A unit `i` computes one output: a row of a matrix `[out, in]`, a gate's row in a cell, a token's row in an embedding. A tensor
/// with at most one axis longer than 1 (a bias, a gain, the matrix of a single output) is one unit as a whole. A tensor with more
/// than two axes has a unit for each index of the first, as in the paper's own code.
///
/// The limit does not depend on how large gradients are, only on how large a step may be relative to the weights. The paper does
/// not clip the model's last layer: clip only the others, as `&mut (&mut grad.0, &mut grad.1)`.
///
/// ```
/// use gradflow::{clip::ClipAdaptive, ndarray::arr2};
///
/// let weight = arr2(&[[3.0, 4.0], [0.0, 0.0]]);
/// let mut gradient = arr2(&[[0.0, 0.2], [0.0, 0.2]]);
/// let report = ClipAdaptive::new(0.1).clip(&weight, &mut gradient)?;
/// assert_eq!(gradient, arr2(&[[0.0, 0.2], [0.0, 1e-4]])); // within 0.1 · 5; held to 0.1 · 1e-3
/// assert_eq!(report.clipped, 1);
/// # Ok::<(), gradflow::clip::NonFiniteGradient>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct ClipAdaptive {
    lambda: f64,
    eps: f64,
    non_finite: NonFinite,
}

impl ClipAdaptive {
    /// Clips with the factor λ (0.01 to 0.16 in the paper) and the paper's eps of 1e-3.
    ///
    /// # Panics
    /// Panics if λ is not above 0 or not finite.
    #[track_caller]
    pub fn new(lambda: f64) -> Self {
        check_number::<f64>(NAME, "lambda", Expect::Above0, lambda);
        ClipAdaptive { lambda, eps: 1e-3, non_finite: NonFinite::Error }
    }

    /// The smallest norm assumed for a unit's weights, so that units that start at zero can move.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    pub fn eps(self, eps: f64) -> Self {
        check_number::<f64>(NAME, "eps", Expect::AtLeast0, eps);
        ClipAdaptive { eps, ..self }
    }

    /// What to do about a gradient that is not finite. [`NonFinite::Pass`] spreads NaN within its unit.
    pub fn non_finite(self, non_finite: NonFinite) -> Self {
        ClipAdaptive { non_finite, ..self }
    }

    /// Clips the gradient of `model`, and reports what it found and did.
    ///
    /// # Errors
    /// Returns an error if the gradient is not finite and [`NonFinite::Error`] is chosen; nothing is changed then.
    ///
    /// # Panics
    /// Panics if `grad` has other tensors than `model`.
    #[track_caller]
    pub fn clip<F: Float>(
        &self,
        model: &dyn Tensors<F>,
        grad: &mut dyn Tensors<F>,
    ) -> Result<ClipReport, NonFiniteGradient> {
        check_alike(&NAME, model, grad);
        clip(*self, model, grad)
    }
}

once! {
    fn clip<'a, F: Float>(
        rule: ClipAdaptive,
        model: &'a dyn Tensors<F>,
        grad: &'a mut dyn Tensors<F>,
    ) -> Result<ClipReport, NonFiniteGradient> {
        let (mut report, skip) = screen(grad, 2.0, rule.non_finite)?;
        if skip {
            grad.set_zero();
            return Ok(report);
        }
        for i in 0..model.count() {
            let (shape, weights) = model.tensor(i);
            let Some(size) = unit_size(shape) else { continue };
            let mut clipped = false;
            for (weights, gradient) in weights.chunks_exact(size).zip(grad.tensor_mut(i).chunks_exact_mut(size)) {
                let (own, norm) = (euclidean(weights), euclidean(gradient));
                // Not `max`, which would drop NaN; NaN must not leave the gradient unchanged either.
                let largest = rule.lambda * if own < rule.eps { rule.eps } else { own };
                let within = norm <= largest;
                if !within {
                    scale(gradient, largest / norm);
                    report.scaled(largest / norm);
                    clipped = true;
                }
            }
            report.clipped += usize::from(clipped);
        }
        Ok(report)
    }
}

fn euclidean<F: Float>(values: &[F]) -> f64 {
    norm_of(|| std::iter::once(values), 2.0)
}

/// The number of elements of a unit, in a tensor that has any.
fn unit_size(shape: &[usize]) -> Option<usize> {
    let elements: usize = shape.iter().product();
    let axes = shape.iter().filter(|&&length| length > 1).count();
    let units = if axes <= 1 { 1 } else { shape[0] };
    (elements > 0).then(|| elements / units)
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use ndarray::{Array1, Array2, Array3, arr1, arr2};

    use super::*;

    #[test]
    fn each_row_is_held_to_a_fraction_of_its_weights() {
        let weight = Array2::from_shape_fn((5, 3), |(i, j)| (1.0 + i as f64) * (0.3 + j as f64).sin());
        let gradient = Array2::from_shape_fn((5, 3), |(i, j)| (7.0 * i as f64 + j as f64).cos());
        let mut clipped = gradient.clone();
        let report = ClipAdaptive::new(0.25).clip(&weight, &mut clipped).unwrap();
        let norm = |row: ndarray::ArrayView1<'_, f64>| row.dot(&row).sqrt();
        let mut scales = Vec::new();
        for i in 0..5 {
            let scale = (0.25 * norm(weight.row(i)) / norm(gradient.row(i))).min(1.0);
            for j in 0..3 {
                assert!((clipped[[i, j]] - scale * gradient[[i, j]]).abs() < 1e-15, "{i}, {j}");
            }
            scales.push(scale);
        }
        assert!(scales.contains(&1.0) && scales.iter().any(|&scale| scale < 1.0), "{scales:?}");
        assert_eq!(report.clipped, 1);
        assert!((report.scale - scales.iter().copied().fold(1.0, f64::min)).abs() < 1e-15);
        assert!((report.norm - gradient.iter().map(|g| g * g).sum::<f64>().sqrt()).abs() < 1e-14);
    }

    /// As in `unitwise_norm` of the paper's code: a squeezed vector is one unit.
    #[test]
    fn vectors_and_single_rows_and_columns_are_one_unit() {
        assert_eq!(unit_size(&[7]), Some(7));
        assert_eq!(unit_size(&[7, 1]), Some(7));
        assert_eq!(unit_size(&[1, 7]), Some(7));
        assert_eq!(unit_size(&[1]), Some(1));
        assert_eq!(unit_size(&[]), Some(1));
        assert_eq!(unit_size(&[7, 2]), Some(2));
        assert_eq!(unit_size(&[7, 2, 3]), Some(6));
        assert_eq!(unit_size(&[0, 2]), None);

        let mut gradient = (arr1(&[3.0, 4.0]), arr2(&[[3.0], [4.0]]), Array3::<f64>::zeros((0, 2, 2)));
        let model = (arr1(&[0.0, 2.0]), arr2(&[[0.0], [2.0]]), Array3::zeros((0, 2, 2)));
        let report = ClipAdaptive::new(0.5).clip(&model, &mut gradient).unwrap();
        assert!((&gradient.0 - &arr1(&[0.6, 0.8])).iter().all(|error| error.abs() < 1e-15), "{gradient:?}");
        assert!((&gradient.1 - &arr2(&[[0.6], [0.8]])).iter().all(|error| error.abs() < 1e-15), "{gradient:?}");
        assert_eq!(report.clipped, 2);
    }

    #[test]
    fn what_is_not_finite_is_an_error_or_passed_or_skipped() {
        let model = (arr1(&[1.0]), arr2(&[[1.0, 1.0], [1.0, 1.0]]));
        for bad in [f64::NAN, f64::INFINITY] {
            let before = (arr1(&[0.5]), arr2(&[[bad, 0.5], [0.0, 0.001]]));
            let mut gradient = before.clone();
            let error = ClipAdaptive::new(0.1).clip(&model, &mut gradient).unwrap_err();
            assert_eq!(error.tensor, "1");
            assert_eq!(format!("{gradient:?}"), format!("{before:?}"));
            let report = ClipAdaptive::new(0.1).non_finite(NonFinite::Pass).clip(&model, &mut gradient).unwrap();
            assert!(gradient.1[[0, 0]].is_nan() && gradient.1[[1, 1]] == 0.001);
            assert_eq!(report.non_finite.as_deref(), Some("1"));
            let mut gradient = before;
            let report = ClipAdaptive::new(0.1).non_finite(NonFinite::Skip).clip(&model, &mut gradient).unwrap();
            assert_eq!(gradient, (arr1(&[0.0]), Array2::zeros((2, 2))));
            assert_eq!((report.scale, report.clipped), (0.0, 2));
        }
    }

    #[test]
    fn weights_that_are_nan_are_not_hidden() {
        let mut gradient = arr2(&[[1.0, 1.0], [1.0, 1.0]]);
        ClipAdaptive::new(0.1).clip(&arr2(&[[f64::NAN, 1.0], [1.0, 1.0]]), &mut gradient).unwrap();
        assert!(gradient[[0, 0]].is_nan() && gradient[[0, 1]].is_nan());
        assert!((gradient[[1, 0]] - 0.1).abs() < 1e-15);
    }

    #[test]
    fn limits_and_gradients_that_make_no_sense_are_refused() {
        for bad in [0.0, -1.0, f64::NAN] {
            assert!(catch_unwind(|| ClipAdaptive::new(bad)).is_err(), "lambda {bad}");
        }
        for bad in [-1.0, f64::NAN] {
            assert!(catch_unwind(|| ClipAdaptive::new(0.1).eps(bad)).is_err(), "eps {bad}");
        }
        let clip = || ClipAdaptive::new(0.1).clip(&Array1::<f64>::zeros(2), &mut Array1::zeros(3));
        assert!(catch_unwind(clip).is_err());
    }
}
