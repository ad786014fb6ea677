//! Products with packed operands, and the quotients of gates against scalar code, on every instruction set.

use ndarray::{Array2, s};

use super::integers;
use crate::kernels::math::share_division;
use crate::kernels::panels::packed::Packed;
use crate::kernels::{Accumulate, Float, for_each_isa};
#[cfg(feature = "rayon")]
use crate::parallel::in_team;

fn packed_products_match_the_scalar_ones<F: Float>() {
    let sizes = [
        (1, 1, 1),
        (1, 32, 128),
        (1, 40, 190),
        (1, 530, 420),
        (2, 7, 65),
        (6, 64, 64),
        (7, 130, 63),
        (13, 257, 17),
        (16, 300, 129),
        (64, 33, 200),
        (250, 530, 70),
    ];
    for_each_isa(|isa| {
        let mut packed = Packed::<F>::default();
        for (rows, depth, columns) in sizes {
            let (v, w, c) =
                (integers::<F>(rows, depth, 1), integers::<F>(depth, columns, 2), integers(rows, columns, 3));
            let product = v.dot(&w);
            // W in the layout of a forward pass, transposed, and in that of a backward pass.
            for operand in [w.view(), w.t().as_standard_layout().into_owned().t()] {
                packed.pack(operand);
                // C is between columns that belong to no product.
                let mut wide = Array2::from_elem((rows, columns + 2), F::nan());
                for (mode, expected) in [(Accumulate::Overwrite, product.clone()), (Accumulate::Add, &product + &c)] {
                    wide.slice_mut(s![.., 1..=columns]).assign(&c);
                    packed.multiply(v.view(), wide.slice_mut(s![.., 1..=columns]), mode);
                    assert_eq!(wide.slice(s![.., 1..=columns]), expected, "{isa:?} {rows} {depth} {columns} {mode:?}");
                    assert!(wide.column(0).iter().chain(wide.column(columns + 1)).all(|x| x.is_nan()));
                }
            }
        }
    });
}

#[test]
fn packed_products_match_the_scalar_ones_f32() {
    packed_products_match_the_scalar_ones::<f32>();
}

#[test]
fn packed_products_match_the_scalar_ones_f64() {
    packed_products_match_the_scalar_ones::<f64>();
}

#[test]
fn an_operand_is_replaced_by_one_of_another_size() {
    let mut packed = Packed::default();
    for (k, n) in [(40, 70), (3, 5), (0, 4), (60, 100)] {
        let (a, b) = (integers::<f64>(9, k, 1), integers::<f64>(k, n, 2));
        packed.pack(b.view());
        let mut c = Array2::from_elem((9, n), f64::NAN);
        packed.multiply(a.view(), c.view_mut(), Accumulate::Overwrite);
        assert_eq!(c, a.dot(&b));
    }
}

#[test]
fn a_row_of_a_packed_product_has_the_same_bits_in_any_company() {
    for_each_isa(|isa| {
        let fractions = |rows, columns, seed| integers::<f32>(rows, columns, seed).mapv(|x| x * 0.1);
        let (v, w) = (fractions(23, 411, 1), fractions(411, 330, 2));
        let mut packed = Packed::default();
        packed.pack(w.view());
        let mut all = Array2::zeros((23, 330));
        packed.multiply(v.view(), all.view_mut(), Accumulate::Overwrite);
        for rows in [1, 2, 5, 7, 16] {
            let mut some = Array2::zeros((rows, 330));
            packed.multiply(v.slice(s![..rows, ..]), some.view_mut(), Accumulate::Overwrite);
            assert_eq!(some, all.slice(s![..rows, ..]), "{isa:?}, {rows} rows");
        }
    });
}

#[test]
fn infinities_and_nan_pass_through_packed_products() {
    for_each_isa(|isa| {
        let (mut v, w) = (integers::<f32>(3, 5, 1), integers::<f32>(5, 70, 2).mapv(|x| x.abs() + 1.0));
        (v[[0, 1]], v[[1, 4]]) = (f32::INFINITY, f32::NAN);
        let mut packed = Packed::default();
        packed.pack(w.view());
        let mut c = Array2::zeros((3, 70));
        packed.multiply(v.view(), c.view_mut(), Accumulate::Overwrite);
        assert!(c.row(0).iter().all(|&x| x == f32::INFINITY), "{isa:?}");
        assert!(c.row(1).iter().all(|x| x.is_nan()), "{isa:?}");
        assert!(c.row(2).iter().all(|x| x.is_finite()), "{isa:?}");
    });
}

/// Splits by rows, with one left over for the last part, and by columns.
#[cfg(feature = "rayon")]
#[test]
fn the_number_of_threads_changes_no_bit_of_a_packed_product() {
    for (rows, columns) in [(613, 100), (7, 6), (40, 1000)] {
        let depth = 8_000_000 / rows / columns;
        let (v, w) = (integers::<f32>(rows, depth, 1), integers::<f32>(depth, columns, 2));
        let mut packed = Packed::default();
        packed.pack(w.view());
        let compute = |threads| {
            let mut c = Array2::zeros((rows, columns));
            in_team(threads, || packed.multiply(v.view(), c.view_mut(), Accumulate::Overwrite));
            c
        };
        let one = compute(1);
        for threads in [2, 3, 8] {
            assert_eq!(compute(threads), one, "{rows} by {columns}, {threads} threads");
        }
    }
}

/// The largest error, in units of the last place, of quotients that share a division.
fn worst_ulp(quotients: impl Fn([(f32, f32); 3]) -> [f32; 3]) -> f64 {
    let mut worst = 0.0_f64;
    // Numbers without a pattern: a Weyl sequence of the golden ratio.
    let unit = |k: u32| f64::from(k.wrapping_mul(2_654_435_769)) / f64::from(u32::MAX);
    for k in (0..3_000_000_u32).step_by(6) {
        let fractions = [0, 2, 4].map(|j| ((2.0 * unit(k + j) - 1.0) as f32, (1.0 + unit(k + j + 1)) as f32));
        for (found, (n, d)) in quotients(fractions).into_iter().zip(fractions) {
            let exact = f64::from(n) / f64::from(d);
            let ulp = 2.0_f64.powi(exact.abs().log2().floor() as i32 - 23);
            worst = worst.max((f64::from(found) - exact).abs() / ulp);
        }
    }
    worst
}

#[test]
fn quotients_with_one_division_are_accurate() {
    let two = worst_ulp(|[a, b, (n, d)]| {
        let [a, b] = share_division([a, b]);
        [a, b, n / d]
    });
    let three = worst_ulp(share_division);
    println!("two: {two:.2} ULP, three: {three:.2} ULP");
    assert!(two <= 3.0 && three <= 4.0, "{two} and {three} ULP");
    assert!(share_division([(1.0, 1.0), (f32::NAN, 1.5)])[1].is_nan());
    assert_eq!(
        share_division([(0.0, 1.0), (-0.0, 2.0), (-1.0, 1.0)]).map(f32::to_bits),
        [0.0, -0.0, -1.0].map(f32::to_bits)
    );
}
