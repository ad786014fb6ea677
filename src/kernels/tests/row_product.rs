//! The product of one row, as a stream does it, against plain loops.

use pulp::{Simd, WithSimd};

use crate::kernels::row_product::{Aligned, LANES, RowWeights};
use crate::kernels::simd::dispatch::Vectors;
use crate::kernels::{Float, for_each_isa};

struct Multiply<'a, F>(&'a RowWeights<F>, &'a [F], &'a mut [F], bool);

impl<F: Float> WithSimd for Multiply<'_, F> {
    type Output = ();

    fn with_simd<S: Simd>(self, simd: S) {
        self.0.multiply(simd, self.1, self.2, self.3);
    }
}

fn check<F: Float>(depth: usize, columns: usize) {
    // Small integers, whose sums are exact.
    let of = |k: usize| F::of((k * 7919 % 17) as f64 - 8.0);
    let (bias, weight) = (|m: usize| of(m + 3), |k: usize, m: usize| of(k * 31 + m * 5 + k * m));
    let v: Vec<F> = (0..depth).map(|k| of(k * k + 1)).collect();
    let expected: Vec<F> = (0..columns).map(|m| (0..depth).fold(bias(m), |sum, k| sum + v[k] * weight(k, m))).collect();
    for_each_isa(|isa| {
        let vectors = Vectors::best();
        let weights = RowWeights::new(vectors, [depth, columns], &bias, &weight);
        assert_eq!(weights.columns(), columns);
        for backward in [false, true] {
            let mut y = Aligned::zeros(columns);
            y.values_mut().fill(F::nan());
            vectors.run(Multiply(&weights, &v, y.values_mut(), backward));
            assert_eq!(y.values(), expected, "{isa:?}, [{depth}, {columns}], backward {backward}");
        }
    });
}

#[test]
fn is_the_product() {
    for depth in (0..10).chain([17, 64, 70]) {
        for columns in (0..12).chain([16, 25]).map(|vectors| vectors * LANES) {
            check::<f32>(depth, columns);
            check::<f64>(depth, columns);
        }
    }
}

/// The order of the tiles changes no bit, nor do the elements of other columns.
#[test]
fn bits_do_not_depend_on_the_direction() {
    let of = |k: usize| ((k as f32 + 0.5) * 12.9898).sin();
    let v: Vec<f32> = (0..33).map(of).collect();
    for_each_isa(|isa| {
        let vectors = Vectors::best();
        let weights = RowWeights::new(vectors, [33, 19 * LANES], &of, &|k, m| of(k * 1000 + m));
        let [forward, backward] = [false, true].map(|backward| {
            let mut y = Aligned::zeros(19 * LANES);
            vectors.run(Multiply(&weights, &v, y.values_mut(), backward));
            y.values().to_vec()
        });
        assert_eq!(forward, backward, "{isa:?}");
    });
}
