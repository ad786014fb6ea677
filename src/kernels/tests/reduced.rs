//! Products with weights in 16 and 8 bits against scalar code, on every instruction set.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use super::integers;
use crate::kernels::gemm::geometry::depth_blocks;
use crate::kernels::gemm::operand::Start;
use crate::kernels::panels::bf16::round;
use crate::kernels::panels::integers::{Kernel, Values};
use crate::kernels::panels::packed::Packed;
use crate::kernels::{Accumulate, WeightPrecision, for_each_isa};
#[cfg(feature = "rayon")]
use crate::parallel::in_team;

const SIZES: [(usize, usize, usize); 14] = [
    (1, 1, 1),
    (1, 33, 128),
    (1, 40, 190),
    (1, 530, 420),
    (1, 1027, 300),
    (2, 7, 65),
    (3, 2, 16),
    (6, 64, 64),
    (7, 131, 63),
    (13, 257, 17),
    (16, 300, 129),
    (64, 33, 200),
    (130, 1025, 8),
    (250, 531, 70),
];

/// Numbers without a pattern, between -1 and 1.
fn fractions(rows: usize, columns: usize, seed: u32) -> Array2<f32> {
    let mut at = seed;
    Array2::from_shape_simple_fn((rows, columns), || {
        at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(at).mul_add(2.0 / f64::from(u32::MAX), -1.0) as f32
    })
}

fn packed(w: ArrayView2<'_, f32>, precision: WeightPrecision) -> Packed<f32> {
    let mut packed = Packed::default();
    packed.pack_in(w, precision);
    packed
}

fn multiply(packed: &Packed<f32>, v: ArrayView2<'_, f32>, columns: usize) -> Array2<f32> {
    let mut c = Array2::from_elem((v.nrows(), columns), f32::NAN);
    packed.multiply(v, c.view_mut(), Accumulate::Overwrite);
    c
}

fn bits(c: &Array2<f32>) -> Vec<u32> {
    c.iter().map(|x| x.to_bits()).collect()
}

fn bf16(x: f32) -> f32 {
    f32::from_bits(u32::from(round(x)) << 16)
}

#[test]
fn sixteen_bits_are_the_nearest() {
    let largest = f32::from_bits(0x7f7f_0000);
    let mut at = 12345_u32;
    let random = (0..200_000).map(|_| {
        at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        at ^ at >> 15
    });
    // Ties and special values.
    let special =
        [0, 1, 0x8000, 0x1_8000, 0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0x7f7f_ffff, 0x7f7f_8000];
    for x in random.chain(special).flat_map(|bits| [f32::from_bits(bits), -f32::from_bits(bits)]) {
        if x.is_nan() {
            assert!(bf16(x).is_nan());
            continue;
        }
        let found = bf16(x);
        assert_eq!(found.is_finite(), x.is_finite(), "{x:e} is {found:e}");
        let below = f32::from_bits(x.to_bits() & 0xffff_0000); // towards zero
        let above = f32::from_bits((x.to_bits() & 0xffff_0000).wrapping_add(0x1_0000));
        let distance = |y: f32| (f64::from(y) - f64::from(x)).abs();
        let expected = if x == below || !above.is_finite() {
            if x.is_finite() { below } else { x }
        } else if distance(below) == distance(above) {
            if below.to_bits() & 0x1_0000 == 0 { below } else { above }
        } else if distance(below) < distance(above) {
            below
        } else {
            above
        };
        assert_eq!(found.to_bits(), expected.to_bits(), "{x:e}");
    }
    assert_eq!((bf16(f32::MAX), bf16(-f32::MAX)), (largest, -largest));
    assert_eq!((bf16(f32::INFINITY), bf16(f32::NEG_INFINITY)), (f32::INFINITY, f32::NEG_INFINITY));
    // The payload of this NaN is below the upper half.
    assert!(bf16(f32::from_bits(0x7f80_0001)).is_nan());
}

/// They equal products in f32 with rounded weights, to the bit.
#[test]
fn products_in_16_bits_are_those_of_rounded_weights() {
    for_each_isa(|isa| {
        for (rows, depth, columns) in SIZES {
            let (v, w) = (fractions(rows, depth, 1), fractions(depth, columns, 2));
            let rounded = w.mapv(bf16);
            for operand in [w.view(), w.t().as_standard_layout().into_owned().t()] {
                let c = multiply(&packed(operand, WeightPrecision::Bf16), v.view(), columns);
                let expected = multiply(&packed(rounded.view(), WeightPrecision::Full), v.view(), columns);
                assert_eq!(bits(&c), bits(&expected), "{isa:?} {rows} {depth} {columns}");
                let exact = v.mapv(f64::from).dot(&rounded.mapv(f64::from));
                let worst = (c.mapv(f64::from) - exact).fold(0.0, |worst, error| error.abs().max(worst));
                assert!(worst <= 1e-6 * (depth as f64), "{isa:?} {rows} {depth} {columns}: {worst}");
            }
            // Small integers are exact.
            let (v, w) = (integers::<f32>(rows, depth, 1), integers::<f32>(depth, columns, 2));
            assert_eq!(multiply(&packed(w.view(), WeightPrecision::Bf16), v.view(), columns), v.dot(&w), "{isa:?}");
        }
    });
}

/// The values from which the sums of a product start.
#[derive(Clone, Copy)]
enum From {
    Zero,
    C,
    Bias,
}

/// `start + v W` with weights in 8 bits, by its definition.
fn by_definition(values: Values, v: &Array2<f32>, w: &Array2<f32>, start: Option<&Array2<f32>>) -> Array2<f32> {
    let mut c = start.cloned();
    for (first, count) in depth_blocks(w.nrows()) {
        let (v, w) = (v.slice(s![.., first..first + count]), w.slice(s![first..first + count, ..]));
        let largest = |values: ndarray::ArrayView1<'_, f32>| {
            let finite = values.iter().all(|x| x.is_finite());
            if finite { values.fold(0.0_f32, |largest, x| x.abs().max(largest)) } else { f32::NAN }
        };
        let scales: Array1<f32> = w.axis_iter(Axis(1)).map(|column| largest(column) / 127.0).collect();
        // NaN stays NaN.
        let least = |x: f32| if x < 2.0_f32.powi(-112) { 2.0_f32.powi(-112) } else { x };
        let largest_values: Array1<f32> = v.outer_iter().map(|row| least(largest(row))).collect();
        let steps = largest_values.mapv(|x| match values {
            _ if x.is_nan() => f32::NAN,
            Values::Sixteen => 2.0_f32.powi(f64::from(x).log2().floor() as i32 - 14),
            Values::Eight => x / 127.0,
        });
        let sum = Array2::from_shape_fn((v.nrows(), w.ncols()), |(n, m)| {
            let (scale, step) = (scales[m], steps[n]);
            let q = |x: f32| if scale > 0.0 { (f64::from(x) / f64::from(scale)).round_ties_even() } else { 0.0 };
            let p = |x: f32| match values {
                _ if step.is_nan() => 0.0,
                Values::Sixteen => f64::from(x / step).round_ties_even().clamp(-32767.0, 32767.0),
                Values::Eight => f64::from(x * (127.0 / largest_values[n])).round_ties_even().clamp(-127.0, 127.0),
            };
            let terms = v.row(n).into_iter().zip(w.column(m));
            let terms = terms.map(|(&v, &w)| p(v) as i64 * q(w).clamp(-127.0, 127.0) as i64);
            terms.sum::<i64>() as f32 * (scale * step)
        });
        c = Some(c.map_or(sum.clone(), |c| c + &sum));
    }
    c.expect("terms")
}

/// The kernels of this machine, each with both widths of values.
fn kernels() -> Vec<(Kernel, Values)> {
    #[cfg(target_arch = "x86_64")]
    let more = {
        use std::arch::is_x86_feature_detected as has;
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
        vec![
            (has!("avx2") && has!("fma"), Kernel::Avx2),
            (avx512, Kernel::Avx512),
            (avx512 && has!("avx512vnni"), Kernel::Vnni),
        ]
    };
    #[cfg(not(target_arch = "x86_64"))]
    let more = vec![];
    let there = more.into_iter().filter(|(there, _)| *there).map(|(_, kernel)| kernel);
    let kernels = std::iter::once(Kernel::Portable).chain(there);
    kernels.flat_map(|kernel| [Values::Sixteen, Values::Eight].map(|values| (kernel, values))).collect()
}

#[test]
fn products_in_8_bits_are_by_definition_to_the_bit_with_every_kernel() {
    println!("{:?}", kernels());
    for (rows, depth, columns) in SIZES {
        let (v, w) = (fractions(rows, depth, 1) * 3.0, fractions(depth, columns, 2));
        let (c, bias) = (fractions(rows, columns, 3), fractions(1, columns, 4));
        let transposed = w.t().as_standard_layout().into_owned();
        // Each start and each width of values, but not all combinations.
        let pairs = [(From::Zero, Values::Eight), (From::C, Values::Sixteen), (From::Bias, Values::Eight)];
        let few = rows * depth * columns < 100_000;
        let more = [(From::Zero, Values::Sixteen), (From::C, Values::Eight), (From::Bias, Values::Sixteen)];
        for (start, values) in pairs.into_iter().chain(more.into_iter().filter(|_| few)) {
            let expected = match start {
                From::Zero => by_definition(values, &v, &w, None),
                From::C => by_definition(values, &v, &w, Some(&c)),
                From::Bias => by_definition(values, &v, &w, Some(&bias.broadcast(c.dim()).unwrap().to_owned())),
            };
            for (kernel, _) in kernels().into_iter().filter(|(_, these)| *these == values) {
                for operand in [w.view(), transposed.t()] {
                    let (mut packed, mut found) = (Packed::default(), c.clone());
                    packed.pack_for(kernel, operand, values);
                    let start = match start {
                        From::Zero => Accumulate::Overwrite.into(),
                        From::C => Accumulate::Add.into(),
                        From::Bias => Start::Row(bias.as_slice().unwrap()),
                    };
                    packed.multiply(v.view(), found.view_mut(), start);
                    assert_eq!(bits(&found), bits(&expected), "{kernel:?} {rows} {depth} {columns} {values:?}");
                }
            }
        }
    }
}

const EIGHT: [(WeightPrecision, Values); 2] =
    [(WeightPrecision::Int8, Values::Sixteen), (WeightPrecision::Int8Dynamic, Values::Eight)];
const REDUCED: [WeightPrecision; 3] = [WeightPrecision::Bf16, WeightPrecision::Int8, WeightPrecision::Int8Dynamic];

#[test]
fn products_in_8_bits_are_near_those_of_all_bits() {
    for_each_isa(|isa| {
        for ((rows, depth, columns), (precision, values)) in SIZES.into_iter().flat_map(|size| EIGHT.map(|p| (size, p)))
        {
            let (v, w) = (fractions(rows, depth, 1), fractions(depth, columns, 2));
            let c = multiply(&packed(w.view(), precision), v.view(), columns);
            let context = format!("{isa:?} {rows} {depth} {columns} {precision:?}");
            assert_eq!(bits(&c), bits(&by_definition(values, &v, &w, None)), "{context}");
            let exact = v.mapv(f64::from).dot(&w.mapv(f64::from));
            // The error of each factor in 8 bits is at most 1/254; factors are at most 1, and rounding has no direction.
            let factors = if values == Values::Eight { 2.0 } else { 1.02 };
            let bound = |depth: f64| factors / 254.0 * depth.min(4.0 * depth.sqrt());
            let worst = (c.mapv(f64::from) - exact).fold(0.0, |worst, error| error.abs().max(worst));
            assert!(worst <= bound(depth as f64), "{context}: {worst}");
        }
    });
}

#[test]
fn a_row_has_the_same_bits_in_any_company_and_beside_any_columns() {
    for_each_isa(|isa| {
        for precision in REDUCED {
            let (v, w) = (fractions(23, 611, 1), fractions(611, 330, 2));
            let weights = packed(w.view(), precision);
            let all = multiply(&weights, v.view(), 330);
            for rows in [1, 2, 5, 7, 16] {
                let some = multiply(&weights, v.slice(s![..rows, ..]), 330);
                assert_eq!(some, all.slice(s![..rows, ..]), "{isa:?} {precision:?}, {rows} rows");
            }
            // C is between columns that belong to no product.
            let mut wide = Array2::from_elem((23, 332), f32::NAN);
            weights.multiply(v.view(), wide.slice_mut(s![.., 1..=330]), Accumulate::Overwrite);
            assert_eq!(wide.slice(s![.., 1..=330]), all, "{isa:?} {precision:?}");
            assert!(wide.column(0).iter().chain(wide.column(331)).all(|x| x.is_nan()), "{isa:?} {precision:?}");
        }
    });
}

#[test]
fn an_operand_is_replaced_by_one_of_another_size_and_precision() {
    let mut packed = Packed::default();
    for (k, n) in [(40, 70), (3, 5), (0, 4), (700, 100)] {
        for precision in REDUCED.into_iter().chain([WeightPrecision::Full]) {
            let (v, w) = (fractions(9, k, 1), fractions(k, n, 2));
            packed.pack_in(w.view(), precision);
            let mut c = Array2::from_elem((9, n), f32::NAN);
            packed.multiply(v.view(), c.view_mut(), Accumulate::Overwrite);
            let worst = (&c - &v.dot(&w)).fold(0.0, |worst: f32, error| error.abs().max(worst));
            assert!(worst <= 0.3, "{k} {n} {precision:?}: {worst}");
        }
    }
}

#[test]
fn numbers_that_are_not_ordinary() {
    for_each_isa(|isa| {
        for rows in [1, 3] {
            let (mut v, mut w) = (Array2::<f32>::ones((rows, 600)), Array2::<f32>::ones((600, 70)));
            w.column_mut(1).fill(0.0);
            w[[5, 2]] = f32::NAN;
            w[[500, 3]] = f32::INFINITY;
            w[[500, 4]] = f32::NEG_INFINITY;
            w.column_mut(5).fill(f32::MAX / 1e4);
            w.column_mut(6).fill(1e-38);
            w.column_mut(7).fill(1e-44);
            w[[0, 8]] = 3e38; // next to it, the others are too small
            w[[1, 9]] = -1e30;
            let last = rows - 1;
            for precision in REDUCED {
                let context = format!("{isa:?} {rows} {precision:?}");
                let c = multiply(&packed(w.view(), precision), v.view(), 70);
                let near = |found: f32, expected: f32| (found - expected).abs() <= 0.01 * expected.abs();
                for c in c.outer_iter() {
                    assert!(near(c[0], 600.0), "{context}: {}", c[0]);
                    assert_eq!(c[1], 0.0, "{context}");
                    assert!(c[2].is_nan(), "{context}");
                    match precision {
                        WeightPrecision::Bf16 => {
                            assert_eq!((c[3], c[4]), (f32::INFINITY, f32::NEG_INFINITY), "{context}")
                        }
                        _ => assert!(c[3].is_nan() && c[4].is_nan(), "{context}"),
                    }
                    assert!(near(c[5], 600.0 * (f32::MAX / 1e4)), "{context}: {}", c[5]);
                    // Numbers this small may lose digits.
                    assert!((3e-36..9e-36).contains(&c[6]), "{context}: {}", c[6]);
                    assert!((0.0..1e-41).contains(&c[7]), "{context}: {}", c[7]);
                    assert!(near(c[8], 3e38) && near(c[9], -1e30), "{context}: {} {}", c[8], c[9]);
                    assert!(c.iter().skip(10).all(|&x| near(x, 600.0)), "{context}");
                }
                // One row that is not finite does not affect the others.
                for (bad, at) in [(f32::NAN, 0), (f32::INFINITY, 599)] {
                    let before = v[[last, at]];
                    v[[last, at]] = bad;
                    let other = multiply(&packed(w.view(), precision), v.view(), 70);
                    v[[last, at]] = before;
                    assert!(other.row(last).iter().all(|x| !x.is_finite()), "{context}");
                    assert!(
                        precision == WeightPrecision::Bf16 || other.row(last).iter().all(|x| x.is_nan()),
                        "{context}"
                    );
                    assert_eq!(
                        bits(&other.slice(s![..last, ..]).to_owned()),
                        bits(&c.slice(s![..last, ..]).to_owned())
                    );
                }
                // Rows of zeros, of the smallest and of the largest numbers.
                for (value, expected) in [(0.0, 0.0), (1e-44, 0.0), (1e-30, 6e-28), (1e35, 6e37)] {
                    v.row_mut(last).fill(value);
                    let other = multiply(&packed(w.view(), precision), v.view(), 70);
                    let found = other[[last, 0]];
                    assert!((found - expected).abs() <= 0.01 * expected + 1e-41, "{context}: {found} {expected}");
                    v.row_mut(last).fill(1.0);
                }
            }
        }
    });
}

/// Splits by rows, with one left over for the last part, and by columns.
#[cfg(feature = "rayon")]
#[test]
fn the_number_of_threads_changes_no_bit() {
    for (rows, columns) in [(613, 100), (7, 6), (40, 1000), (1, 4000)] {
        let depth = 8_000_000 / rows / columns;
        let (v, w) = (fractions(rows, depth, 1), fractions(depth, columns, 2));
        for precision in REDUCED {
            let weights = packed(w.view(), precision);
            let compute = |threads| in_team(threads, || multiply(&weights, v.view(), columns));
            let one = compute(1);
            for threads in [2, 3, 8] {
                assert_eq!(
                    bits(&compute(threads)),
                    bits(&one),
                    "{rows} by {columns}, {precision:?}, {threads} threads"
                );
            }
        }
    }
}
