//! Layer normalisation against its definition in f64, and its backward pass against finite differences, on every instruction set.

use ndarray::{Array1, Array2, Axis};

use crate::kernels::norm::{
    add_parameter_gradients, normalise, normalise_backward, normalise_in_place, normalise_in_place_backward,
};
use crate::kernels::{Float, for_each_isa};

const EPS: f64 = 1e-3;

/// Widths of whole vectors, of parts of them, and of one element.
const WIDTHS: [usize; 7] = [1, 2, 7, 8, 33, 64, 101];

fn values<F: Float>(rows: usize, columns: usize, seed: f64) -> Array2<F> {
    Array2::from_shape_fn((rows, columns), |(i, j)| F::of((seed + i as f64 * 1.7 + j as f64 * 0.9).sin() * 2.0 + 0.3))
}

/// `gain ∘ n(x) + bias` of a row, and n, by the definition.
fn scalar(x: &[f64], gain: &[f64], bias: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let n: Vec<_> = x.iter().map(|x| (x - mean) / (variance + EPS).sqrt()).collect();
    (n.iter().zip(gain).zip(bias).map(|((n, gain), bias)| n * gain + bias).collect(), n)
}

/// The gradient of `Σ dy ∘ y` by x, by central differences.
fn scalar_gradient(x: &[f64], gain: &[f64], dy: &[f64]) -> Vec<f64> {
    let zero = vec![0.0; x.len()];
    let loss = |x: &[f64]| scalar(x, gain, &zero).0.iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>();
    let step = 1e-5;
    let moved = |k: usize, by: f64| {
        let mut x = x.to_vec();
        x[k] += by;
        loss(&x)
    };
    (0..x.len()).map(|k| (moved(k, step) - moved(k, -step)) / (2.0 * step)).collect()
}

#[track_caller]
fn assert_near<F: Float>(found: &[F], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len());
    for (&x, &y) in found.iter().zip(expected) {
        assert!((x.widen() - y).abs() <= bound * (1.0 + y.abs()), "{x} for {y}");
    }
}

fn widened<F: Float>(x: &[F]) -> Vec<f64> {
    x.iter().map(|x| x.widen()).collect()
}

/// Both kinds of functions, of rows and in place, on the same numbers.
fn check<F: Float>(bound: f64, gradient_bound: f64) {
    for_each_isa(|_| {
        for width in WIDTHS {
            let (x, dy) = (values::<F>(3, width, 0.0), values::<F>(3, width, 5.0));
            let (gain, bias) = (values::<F>(1, width, 2.0), values::<F>(1, width, 3.0));
            let (gain, bias) = (gain.as_slice().unwrap(), bias.as_slice().unwrap());
            let (mut statistics, mut y, mut dx) = (Array2::zeros((3, 2)), x.clone(), x.clone());
            normalise(gain, bias, F::of(EPS), x.view(), statistics.view_mut(), y.view_mut());
            normalise_backward(gain, statistics.view(), x.view(), dy.view(), dx.view_mut());
            let (mut dgain, mut dbias) = (Array1::from_elem(width, F::one()), Array1::from_elem(width, F::one()));
            let gradients = (dgain.as_slice_mut().unwrap(), dbias.as_slice_mut().unwrap());
            add_parameter_gradients(statistics.view(), x.view(), dy.view(), gradients.0, gradients.1);
            let (mut dgain_scalar, mut dgain_in_place) = (vec![1.0; width], vec![F::one(); width]);
            for row in 0..3 {
                let (x, dy) = (x.row(row), dy.row(row));
                let (x, dy) = (x.as_slice().unwrap(), dy.as_slice().unwrap());
                let (expected, n) = scalar(&widened(x), &widened(gain), &widened(bias));
                assert_near(y.row(row).as_slice().unwrap(), &expected, bound);
                let expected_dx = scalar_gradient(&widened(x), &widened(gain), &widened(dy));
                assert_near(dx.row(row).as_slice().unwrap(), &expected_dx, gradient_bound);
                dgain_scalar.iter_mut().zip(dy).zip(&n).for_each(|((sum, dy), n)| *sum += dy.widen() * n);

                // In place, added to the bias.
                let (mut z, mut out) = (x.to_vec(), bias.to_vec());
                let inverse = normalise_in_place(gain, F::of(EPS), &mut z, &mut out);
                assert_near(&z, &n, bound);
                assert_near(&out, &expected, bound);
                assert_near(&[inverse], &[statistics[[row, 1]].widen()], bound);
                normalise_in_place_backward(gain, inverse, dy, &mut dgain_in_place, &mut z);
                assert_near(&z, &expected_dx, gradient_bound);
            }
            assert_near(dgain.as_slice().unwrap(), &dgain_scalar, 4.0 * bound);
            assert_near(&dgain_in_place, &dgain_scalar, 4.0 * bound);
            let dbias_scalar = dy.mapv(|dy| dy.widen()).sum_axis(Axis(0)).mapv(|sum| sum + 1.0);
            assert_near(dbias.as_slice().unwrap(), dbias_scalar.as_slice().unwrap(), bound);
        }
    });
}

#[test]
fn rows_are_normalised_f32() {
    check::<f32>(2e-5, 2e-3);
}

#[test]
fn rows_are_normalised_f64() {
    check::<f64>(1e-13, 1e-7);
}

#[test]
fn a_constant_row_is_finite() {
    for_each_isa(|_| {
        let (mut z, mut out) = ([3.0_f32; 5], [0.0; 5]);
        let inverse = normalise_in_place(&[1.0; 5], 1e-5, &mut z, &mut out);
        assert!(inverse.is_finite());
        assert_eq!((z, out), ([0.0; 5], [0.0; 5]));
    });
}
