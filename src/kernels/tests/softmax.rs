//! Softmax against its definition in f64, and its backward pass against finite differences, on every instruction set.

use ndarray::Array2;

use crate::kernels::softmax::{all_finite, beside_largest, largest, softmax, softmax_backward, weighted_softmax};
use crate::kernels::{Float, for_each_isa};

/// Widths of whole vectors, of parts of them, and of one element.
const WIDTHS: [usize; 7] = [1, 3, 8, 31, 32, 77, 200];

/// Two rows, the second of which is far from 0, where `exp` alone would overflow.
fn values<F: Float>(columns: usize, seed: f64) -> Array2<F> {
    Array2::from_shape_fn((2, columns), |(i, j)| F::of((seed + j as f64 * 0.9).sin() * 3.0 + i as f64 * 1000.0))
}

fn scalar(scale: f64, z: &[f64]) -> Vec<f64> {
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<_> = z.iter().map(|z| ((z - largest) * scale).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

#[track_caller]
fn assert_near<F: Float>(found: &[F], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len());
    for (&x, &y) in found.iter().zip(expected) {
        assert!((x.widen() - y).abs() <= bound, "{x} for {y}");
    }
}

fn check<F: Float>(bound: f64, gradient_bound: f64) {
    let scale = 0.7;
    for_each_isa(|_| {
        for width in WIDTHS {
            let (z, ds) = (values::<F>(width, 0.0), values::<F>(width, 2.0));
            let (mut s, mut dz) = (z.clone(), ds.clone());
            softmax(F::of(scale), s.view_mut());
            softmax_backward(F::of(scale), s.view(), dz.view_mut());
            for row in 0..2 {
                let z: Vec<_> = z.row(row).iter().map(|z| z.widen()).collect();
                let ds: Vec<_> = ds.row(row).iter().map(|ds| ds.widen()).collect();
                assert_near(s.row(row).as_slice().unwrap(), &scalar(scale, &z), bound);
                let loss = |k: usize, by: f64| {
                    let mut z = z.clone();
                    z[k] += by;
                    scalar(scale, &z).iter().zip(&ds).map(|(s, ds)| s * ds).sum::<f64>()
                };
                let gradient: Vec<_> = (0..width).map(|k| (loss(k, 1e-5) - loss(k, -1e-5)) / 2e-5).collect();
                assert_near(dz.row(row).as_slice().unwrap(), &gradient, gradient_bound);

                let mut weighted: Vec<F> = z.iter().map(|&z| F::of(z)).collect();
                let most = largest(&weighted);
                assert_eq!(most.widen(), z.iter().copied().fold(f64::NEG_INFINITY, f64::max));
                let (id, beside_alone) = (width / 2, beside_largest(most, &weighted));
                let (found, beside, others) = weighted_softmax(F::of(2.5), id, &mut weighted);
                assert_eq!((found, beside), (most, beside_alone));
                let powers: f64 = z.iter().map(|z| (z - most.widen()).exp()).sum();
                assert!(((1.0 + beside) / powers - 1.0).abs() < bound, "{beside} for {powers}");
                let without_id = powers - (z[id] - most.widen()).exp();
                assert!((others - without_id).abs() < bound * powers, "{others} for {without_id}");
                assert_near(&weighted, &scalar(1.0, &z).into_iter().map(|s| 2.5 * s).collect::<Vec<_>>(), 3.0 * bound);
            }
        }
    });
}

#[test]
fn softmax_of_rows_f32() {
    check::<f32>(1e-5, 1e-2);
}

#[test]
fn softmax_of_rows_f64() {
    check::<f64>(1e-12, 1e-6);
}

#[test]
fn a_nan_makes_its_row_nan_alone() {
    for_each_isa(|_| {
        let mut rows = Array2::from_elem((2, 9), 1.0_f32);
        rows[[1, 4]] = f32::NAN;
        softmax(1.0, rows.view_mut());
        assert!(rows.row(0).iter().all(|s| (s - 1.0 / 9.0).abs() < 1e-6));
        assert!(rows.row(1).iter().all(|s| s.is_nan()));
        let mut row = [0.0, f32::NAN, 2.0];
        assert_eq!(largest(&row), 2.0);
        assert!(weighted_softmax(1.0, 0, &mut row).1.is_nan());
        assert!(row.iter().all(|s| s.is_nan()));
    });
}

#[test]
fn what_is_small_beside_the_largest_keeps_its_digits() {
    for_each_isa(|_| {
        for width in [2, 9, 40] {
            for gap in [1.0_f64, 20.0, 40.0, 80.0, 700.0] {
                let mut z = vec![-gap; width];
                z[width / 2] = 0.0;
                let want = (width - 1) as f64 * (-gap).exp();
                assert!((beside_largest(0.0, &z) / want - 1.0).abs() < 1e-14, "{width}, {gap}");
                let single: Vec<_> = z.iter().map(|&z| z as f32).collect();
                let smallest = (-80f64).exp();
                if want > smallest {
                    assert!((beside_largest(0.0, &single) / want - 1.0).abs() < 1e-6, "{width}, {gap}");
                }
                let (_, _, others) = weighted_softmax(1.0, width / 2, &mut z);
                assert!((others / want - 1.0).abs() < 1e-14, "{width}, {gap}");
            }
        }
        assert_eq!(beside_largest(3.0, &[3.0, 3.0, 3.0]), 2.0);
        assert_eq!(beside_largest(3.0, &[3.0, f64::NEG_INFINITY]), 0.0);
    });
}

/// The gradient of a nearly certain choice depends on the small probabilities beside it: there, `ds - s · ds` is a difference of
/// nearly equal numbers.
#[test]
fn the_gradient_of_a_sure_choice_keeps_its_digits() {
    for_each_isa(|_| {
        for width in [2, 9, 40] {
            for gap in [1.0_f64, 5.0, 12.0, 30.0, 60.0] {
                let (top, z) = (width / 2, |k: usize| if k == width / 2 { 0.0 } else { -gap - 0.1 * k as f64 });
                let ds: Vec<_> = (0..width).map(|k| (0.7 * k as f32 + 0.3).sin()).collect();
                let powers: Vec<_> = (0..width).map(|k| z(k).exp()).collect();
                let total: f64 = powers.iter().sum();
                let mean: f64 = powers.iter().zip(&ds).map(|(p, &d)| p / total * f64::from(d - ds[top])).sum();
                let want = |k: usize| powers[k] / total * (f64::from(ds[k] - ds[top]) - mean);
                let mut s = Array2::from_shape_fn((1, width), |(_, k)| z(k) as f32);
                let mut dz = Array2::from_shape_vec((1, width), ds.clone()).unwrap();
                softmax(1.0, s.view_mut());
                softmax_backward(1.0, s.view(), dz.view_mut());
                for (k, &got) in dz.iter().enumerate() {
                    let relative = (f64::from(got) / want(k) - 1.0).abs();
                    assert!(relative < 1e-4, "gap {gap}, {k} of {width}: {got} for {}", want(k));
                }
            }
        }
    });
}

#[test]
fn what_is_not_finite_is_found() {
    for_each_isa(|_| {
        for width in WIDTHS {
            let mut z = vec![f32::MAX; width];
            assert!(all_finite(&z));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for place in [0, width / 2, width - 1] {
                    z[place] = bad;
                    assert!(!all_finite(&z), "{bad} at {place} of {width}");
                    z[place] = -f32::MAX;
                }
            }
        }
    });
}
