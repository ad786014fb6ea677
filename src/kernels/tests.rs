use ndarray::{Array2, ArrayView2, s};

use super::simd::for_each_isa;
use super::{Accumulate, Packed, product, product_packed};
use crate::float::Float;

const SIZES: &[usize] = &[
    0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 97, 130,
];

/// Small integers, of which every product and sum is exact whatever the order.
fn integers<F: Float>(rows: usize, columns: usize, seed: usize) -> Array2<F> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        F::of(((i * 7919 + j * 104_729 + seed * 31 + i * j) % 17) as f64 - 8.0)
    })
}

/// C + A B by the definition.
fn product_scalar<F: Float>(
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    c: &Array2<F>,
) -> Array2<F> {
    let mut c = c.clone();
    for i in 0..a.nrows() {
        for p in 0..a.ncols() {
            for j in 0..b.ncols() {
                c[[i, j]] += a[[i, p]] * b[[p, j]];
            }
        }
    }
    c
}

/// All ways to lay the operands out, all entry points, both modes.
fn check_products<F: Float>(m: usize, k: usize, n: usize) {
    let (a, b) = (integers::<F>(m, k, 1), integers::<F>(k, n, 2));
    let before = integers::<F>(m, n, 3);
    let overwritten = product_scalar(a.view(), b.view(), &Array2::zeros((m, n)));
    let added = product_scalar(a.view(), b.view(), &before);

    let layouts = |matrix: &Array2<F>| {
        let (rows, columns) = matrix.dim();
        let transposed = matrix.t().as_standard_layout().reversed_axes().to_owned();
        let mut wide = Array2::from_elem((2 * rows, 2 * columns + 3), F::nan());
        wide.slice_mut(s![..rows;1, 1..2 * columns + 1;2])
            .assign(matrix);
        let mut backwards = matrix.clone();
        backwards.invert_axis(ndarray::Axis(0));
        backwards.invert_axis(ndarray::Axis(1));
        let backwards = backwards.as_standard_layout().into_owned();
        (matrix.clone(), transposed, wide, backwards)
    };
    let (a0, a1, a2, a3) = layouts(&a);
    let (b0, b1, b2, b3) = layouts(&b);
    let a_views = [
        a0.view(),
        a1.view(),
        a2.slice(s![..m, 1..2 * k + 1;2]),
        a3.slice(s![..;-1, ..;-1]),
    ];
    let b_views = [
        b0.view(),
        b1.view(),
        b2.slice(s![..k, 1..2 * n + 1;2]),
        b3.slice(s![..;-1, ..;-1]),
    ];
    for (x, &a) in a_views.iter().enumerate() {
        for (y, &b) in b_views.iter().enumerate() {
            // In a larger matrix, of which the rest must stay untouched; NaN must not be read when overwriting.
            let mut outer = Array2::from_elem((m + 2, n + 3), F::nan());
            product(
                a,
                b,
                outer.slice_mut(s![1..m + 1, 2..n + 2]),
                Accumulate::Overwrite,
            );
            assert_eq!(
                outer.slice(s![1..m + 1, 2..n + 2]),
                overwritten,
                "{m} {k} {n} layouts {x} {y}"
            );
            let nans = outer.iter().filter(|x| x.is_nan()).count();
            assert_eq!(
                nans,
                (m + 2) * (n + 3) - m * n,
                "written outside: {m} {k} {n} layouts {x} {y}"
            );

            let mut c = before.clone();
            product(a, b, c.view_mut(), Accumulate::Add);
            assert_eq!(c, added, "{m} {k} {n} layouts {x} {y}");

            let mut packed = Packed::default();
            packed.pack(b);
            let mut outer = Array2::from_elem((m + 2, n + 3), F::nan());
            product_packed(
                a,
                &packed,
                outer.slice_mut(s![1..m + 1, 2..n + 2]),
                Accumulate::Overwrite,
            );
            assert_eq!(
                outer.slice(s![1..m + 1, 2..n + 2]),
                overwritten,
                "{m} {k} {n} layouts {x} {y}"
            );
            let nans = outer.iter().filter(|x| x.is_nan()).count();
            assert_eq!(
                nans,
                (m + 2) * (n + 3) - m * n,
                "written outside: {m} {k} {n} layouts {x} {y}"
            );
            let mut c = before.clone();
            product_packed(a, &packed, c.view_mut(), Accumulate::Add);
            assert_eq!(c, added, "{m} {k} {n} layouts {x} {y}");
        }
    }
}

fn check_all_products<F: Float>() {
    for_each_isa(|_| {
        for (x, &m) in SIZES.iter().enumerate() {
            for (y, &n) in SIZES.iter().enumerate() {
                let k = SIZES[(3 * x + 5 * y) % SIZES.len()];
                check_products::<F>(m, k, n);
            }
        }
    });
}

#[test]
fn products_f32() {
    check_all_products::<f32>();
}

#[test]
fn products_f64() {
    check_all_products::<f64>();
}

super::vectorised! {
    /// y <- f(x)
    fn map<'a, F: Float>(which: usize, x: &'a [F], y: &'a mut [F]) {
        match which {
            0 => for (y, &x) in y.iter_mut().zip(x) {
                *y = super::exp(x);
            },
            1 => for (y, &x) in y.iter_mut().zip(x) {
                *y = super::tanh(x);
            },
            _ => for (y, &x) in y.iter_mut().zip(x) {
                *y = super::sigmoid(x);
            },
        }
    }
}

/// The distance between two values, in units in the last place of the correct one.
fn ulps(x: f32, correct: f64) -> f64 {
    if x.is_nan() || correct.is_nan() {
        return if x.is_nan() && correct.is_nan() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    if (correct as f32).is_infinite() || x.is_infinite() {
        return if x == correct as f32 {
            0.0
        } else {
            f64::INFINITY
        };
    }
    let exponent = (correct.abs().to_bits() >> 52) as i32 - 1023;
    (f64::from(x) - correct).abs() / 2.0_f64.powi(exponent.max(-126) - 23)
}

fn f32_errors(bits: impl Iterator<Item = u32>) -> [(f64, f32); 3] {
    let reference: [fn(f64) -> f64; 3] = [f64::exp, f64::tanh, |x| 1.0 / (1.0 + (-x).exp())];
    let mut worst = [(0.0, 0.0); 3];
    let mut bits = bits.peekable();
    while bits.peek().is_some() {
        let x: Vec<f32> = bits.by_ref().take(1000).map(f32::from_bits).collect();
        let mut y = vec![0.0; x.len()];
        for which in 0..3 {
            map(which, &x, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let error = ulps(y, reference[which](f64::from(x)));
                if error > worst[which].0 {
                    worst[which] = (error, x);
                }
            }
        }
    }
    worst
}

#[test]
fn functions_f32() {
    for_each_isa(|isa| {
        let worst = f32_errors((0..=u32::MAX).step_by(4099));
        println!("{isa:?}: {worst:?}");
        assert!(
            worst[0].0 <= 1.0 && worst[1].0 <= 2.5 && worst[2].0 <= 2.5,
            "{worst:?}"
        );
    });
}
