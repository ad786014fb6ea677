//! Layer normalisation against its definition in f64, and its backward pass against finite differences, on every instruction set.

use ndarray::{Array1, Array2, Axis, aview_mut1, aview1};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::kernels::norm::{
    STATISTICS, add_parameter_gradients, normalise, normalise_backward, normalise_in_place, normalise_in_place_backward,
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

/// The gradient of `Σ dy ∘ y` with respect to x, by central differences.
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

/// Checks both kinds of functions, of rows and in place, on the same numbers.
fn check<F: Float>(bound: f64, gradient_bound: f64) {
    for_each_isa(|_| {
        for width in WIDTHS {
            let (x, dy) = (values::<F>(3, width, 0.0), values::<F>(3, width, 5.0));
            let (gain, bias) = (values::<F>(1, width, 2.0), values::<F>(1, width, 3.0));
            let (gain, bias) = (gain.as_slice().unwrap(), bias.as_slice().unwrap());
            let (mut statistics, mut y, mut dx) = (Array2::zeros((3, STATISTICS)), x.clone(), x.clone());
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
                let slope = normalise_in_place(gain, F::of(EPS), &mut z, &mut out);
                assert_near(&z, &n, bound);
                assert_near(&out, &expected, bound);
                assert_eq!(slope, statistics[[row, STATISTICS - 1]]);
                normalise_in_place_backward(gain, slope, dy, &mut dgain_in_place, &mut z);
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

/// n, y, dx and the gradient of the gain of one row, by both kinds of functions, which must give the same.
struct Normalised<F> {
    n: Vec<F>,
    y: Vec<F>,
    dx: Vec<F>,
}

fn normalised<F: Float>(x: &[F], gain: &[F], eps: F, dy: &[F]) -> Normalised<F> {
    let (width, bias) = (x.len(), vec![F::zero(); x.len()]);
    fn row<F>(values: &[F]) -> ndarray::ArrayView2<'_, F> {
        aview1(values).insert_axis(Axis(0))
    }
    fn row_mut<F>(values: &mut [F]) -> ndarray::ArrayViewMut2<'_, F> {
        aview_mut1(values).insert_axis(Axis(0))
    }
    let (mut statistics, mut y, mut dx) = (vec![F::zero(); STATISTICS], x.to_vec(), x.to_vec());
    normalise(gain, &bias, eps, row(x), row_mut(&mut statistics), row_mut(&mut y));
    normalise_backward(gain, row(&statistics), row(x), row(dy), row_mut(&mut dx));
    let (mut dgain, mut dbias) = (vec![F::zero(); width], vec![F::zero(); width]);
    let ones = vec![F::one(); width];
    add_parameter_gradients(row(&statistics), row(x), row(&ones), &mut dgain, &mut dbias);
    let (mut n, mut out, mut dgain_in_place) = (x.to_vec(), bias, vec![F::zero(); width]);
    let slope = normalise_in_place(gain, eps, &mut n, &mut out);
    let same = |a: &[F], b: &[F]| a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
    assert!(same(&dgain, &n), "n by x and its statistics, and in place: {dgain:?}, {n:?}");
    let mut dz = n.clone();
    normalise_in_place_backward(gain, slope, dy, &mut dgain_in_place, &mut dz);
    assert!(same(&dz, &dx), "dx by x and its statistics, and in place: {dx:?}, {dz:?}");
    Normalised { n, y, dx }
}

/// n and dx by the definition in f64, and the variance.
fn exact(x: &[f64], gain: &[f64], eps: f64, dy: &[f64]) -> (Vec<f64>, Vec<f64>, f64) {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let mean = mean + x.iter().map(|x| x - mean).sum::<f64>() / count;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let inverse = 1.0 / (variance + eps).sqrt();
    let n: Vec<_> = x.iter().map(|x| (x - mean) * inverse).collect();
    let d: Vec<_> = gain.iter().zip(dy).map(|(gain, dy)| gain * dy).collect();
    let (d_mean, d_n_mean) = (d.iter().sum::<f64>() / count, d.iter().zip(&n).map(|(d, n)| d * n).sum::<f64>() / count);
    let dx = d.iter().zip(&n).map(|(d, n)| (d - d_mean - n * d_n_mean) * inverse).collect();
    (n, dx, variance)
}

/// The accuracy that the documentation of `LayerNorm` states, against f64.
#[test]
fn rows_of_all_magnitudes_are_accurate() {
    const BOUND: f64 = 5e-7;
    const BOUND_DX: f64 = 1e-6;
    for_each_isa(|isa| {
        let rng = &mut StdRng::seed_from_u64(18);
        let (mut worst, mut worst_slope, mut lost_rows) = (0.0_f64, 0.0_f64, 0);
        for round in 0..6000 {
            let width = [2, 3, 7, 16, 33, 64, 200, 1024, 4096][round % 9];
            let eps = [1e-5, 1e-3, 1.0, 1e-12, 1e-20, 1e-35, 1e-44][round % 7] as f32;
            let spread = 10f64.powf(rng.random_range(-42.0..38.5));
            // No mean, one near the spread, and ones that may be far beyond it.
            let mean = [
                0.0,
                spread,
                spread * 10f64.powf(rng.random_range(0.0..6.5)),
                10f64.powf(rng.random_range(-42.0..38.5)),
            ];
            let mean = mean[round % 4].min(3e38);
            let x: Vec<f32> = (0..width)
                .map(|_| {
                    let u: f64 = rng.random_range(-1.0..1.0);
                    (mean + spread * if round % 3 == 0 { u.powi(15) } else { u }).clamp(-3.4e38, 3.4e38) as f32
                })
                .collect();
            let mut values = |low: f64| -> Vec<f32> { (0..width).map(|_| rng.random_range(low..2.0) as f32).collect() };
            let (gain, dy) = (values(0.5), values(-2.0));
            let got = normalised(&x, &gain, eps, &dy);
            let (gain, dy, eps) = (widened(&gain), widened(&dy), f64::from(eps));
            let (n, dx, variance) = exact(&widened(&x), &gain, eps, &dy);
            for ((&got, &y), (&want, gain)) in got.n.iter().zip(&got.y).zip(n.iter().zip(&gain)) {
                let error = (f64::from(got) - want).abs() / (1.0 + want.abs());
                let error = error.max((f64::from(y) - want * gain).abs() / (1.0 + (want * gain).abs()));
                assert!(error <= BOUND, "{isa:?}, round {round}, eps {eps}: {got} for {want}");
                worst = worst.max(error);
            }
            // If the variance is far below rounding, the slope is at most 1; if it is far above, it is the formula's.
            let magnitude = x.iter().map(|&x| f64::from(x)).sum::<f64>().abs() / width as f64;
            let noise = (f64::from(f32::EPSILON) * magnitude).powi(2).max(eps * f64::from(f32::EPSILON) / 2.0);
            let inverse = 1.0 / (variance + eps).sqrt();
            let held = inverse.min(1.0);
            let slopes: &[f64] = match variance / noise {
                ratio if ratio < 0.25 => &[held],
                ratio if ratio > 4.0 => &[inverse],
                _ => &[held, inverse],
            };
            lost_rows += usize::from(slopes == [held]);
            let largest = gain.iter().zip(&dy).map(|(gain, dy)| (gain * dy).abs()).fold(0.0, f64::max);
            let error = |slope: f64| {
                let errors = got.dx.iter().zip(&dx).map(|(&got, want)| {
                    // The format itself rounds to subnormal numbers.
                    ((f64::from(got) - want / inverse * slope).abs() - 1e-45).max(0.0) / (largest * slope)
                });
                errors.fold(0.0, f64::max)
            };
            let error = slopes.iter().map(|&slope| error(slope)).fold(f64::INFINITY, f64::min);
            assert!(error <= BOUND_DX, "{isa:?}, round {round}, eps {eps}: dx off by {error}");
            worst_slope = worst_slope.max(error);
        }
        assert!(lost_rows > 500, "{lost_rows}");
        println!("{isa:?}: n and y off by {worst:.1e}, dx by {worst_slope:.1e}");
    });
}

/// The same rows times a power of two, with eps times its square, up to the largest numbers; this scaling is exact.
#[test]
fn rows_of_all_magnitudes_are_accurate_in_f64() {
    for_each_isa(|_| {
        for width in [2, 7, 33, 200] {
            let row = |seed: f64| values::<f64>(1, width, seed).into_raw_vec_and_offset().0;
            let (x, gain, dy) = (row(0.0), row(2.0), row(5.0));
            let (n, dx, _) = exact(&x, &gain, 0.0, &dy);
            for power in [-900, -600, -300, 0, 300, 600, 1000, 1022] {
                let unit = f64::from(power).exp2();
                let scaled: Vec<_> = x.iter().map(|x| x * unit).collect();
                let got = normalised(&scaled, &gain, 1e-300_f64.min(unit * unit * 1e-20).max(5e-324), &dy);
                if power >= -300 {
                    assert_near(&got.n, &n, 2e-15);
                    let dx: Vec<_> = dx.iter().map(|dx| dx / unit).collect();
                    let relative: Vec<_> = got.dx.iter().zip(&dx).map(|(got, want)| got - want).collect();
                    assert!(relative.iter().all(|error| error.abs() <= 1e-14 / unit + 5e-324), "{width}, {power}");
                }
            }
            // Far from 0: the offset is exact, so that n is that of small integers.
            let integers: Vec<_> = (0..width).map(|k| (k * 7 % 5) as f64).collect();
            let far: Vec<_> = integers.iter().map(|x| x + 2f64.powi(50)).collect();
            let (n, ..) = exact(&integers, &gain, 1e-5, &dy);
            assert_near(&normalised(&far, &gain, 1e-5, &dy).n, &n, 1e-14);
        }
    });
}

#[test]
fn a_row_far_from_zero_keeps_its_digits() {
    // PyTorch's kernels give -1.2377 for the first element.
    let x: Vec<f32> = (0..16).map(|k| 1e4 + k as f32 * 1e-3).collect();
    let ones = vec![1.0_f32; 16];
    for_each_isa(|_| {
        let got = normalised(&x, &ones, 1e-5, &ones);
        assert!((got.y[0] + 1.3313).abs() < 1e-4, "{:?}", got.y);
        assert!(got.y.iter().sum::<f32>().abs() < 1e-5, "{:?}", got.y);
    });
}

fn check_constant<F: Float>() {
    for_each_isa(|_| {
        for width in [1, 5, 16, 33, 1000] {
            let dy: Vec<_> = (0..width).map(|k| F::of((k as f64).sin())).collect();
            let (gain, largest) = (vec![F::one(); width], F::max_value().widen());
            for value in [0.0, 0.1, -3.0, 12345.678, -1e10, 1e-30, 1e30, largest, -largest / 3.0] {
                for eps in [1e-5, 1e-30, 10.0] {
                    let x = vec![F::of(value); width];
                    let got = normalised(&x, &gain, F::of(eps), &dy);
                    if value.abs() > 1e-10 {
                        assert!(got.n.iter().all(|&n| n == F::zero()), "{value}, eps {eps}: {:?}", got.n);
                    } else {
                        assert!(got.n.iter().all(|&n| n.abs() < F::of(1e-6)), "{value}, eps {eps}: {:?}", got.n);
                    }
                    // As with the mean alone, or with 1/sqrt(eps) if that is smaller.
                    let mean = dy.iter().map(|dy| dy.widen()).sum::<f64>() / width as f64;
                    let slope = (1.0 / eps.sqrt()).min(1.0);
                    let want: Vec<_> = dy.iter().map(|dy| (dy.widen() - mean) * slope).collect();
                    assert_near(&got.dx, &want, 1e-6);
                }
            }
        }
    });
}

#[test]
fn a_constant_row_becomes_zero_and_its_gradient_does_not_grow() {
    check_constant::<f32>();
    check_constant::<f64>();
}

#[test]
fn what_is_not_finite_makes_its_row_nan() {
    for_each_isa(|_| {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 8, 33] {
                let mut x: Vec<f32> = (0..34).map(|k| k as f32).collect();
                x[place] = bad;
                let got = normalised(&x, &[1.0; 34], 1e-5, &[1.0; 34]);
                assert!(got.n.iter().chain(&got.y).chain(&got.dx).all(|value| value.is_nan()), "{bad} at {place}");
            }
        }
    });
}
