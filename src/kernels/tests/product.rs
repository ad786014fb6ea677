use ndarray::{Array2, ArrayView2, s};

use super::{integers, product_in_order};
use crate::kernels::gemm::outer::MOST_TERMS;
use crate::kernels::panels::packed::Packed;
use crate::kernels::{Accumulate, Float, Summation, for_each_isa, product};
#[cfg(feature = "rayon")]
use crate::parallel::in_team;

const SIZES: [usize; 18] = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 97, 130];

/// C + A B by the definition.
fn product_scalar<F: Float>(a: &Array2<F>, b: &Array2<F>, c: &Array2<F>) -> Array2<F> {
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

/// The same matrix in different memory layouts.
struct Layouts<F> {
    rows: Array2<F>,
    columns: Array2<F>,
    gaps: Array2<F>,
    backwards: Array2<F>,
}

impl<F: Float> Layouts<F> {
    fn new(matrix: &Array2<F>) -> Self {
        let (rows, columns) = matrix.dim();
        let mut gaps = Array2::from_elem((2 * rows, 2 * columns + 1), F::nan());
        gaps.slice_mut(s![..;2, 1..;2]).assign(matrix);
        Self {
            rows: matrix.clone(),
            columns: matrix.t().as_standard_layout().into_owned(),
            gaps,
            backwards: matrix.slice(s![..;-1, ..;-1]).as_standard_layout().into_owned(),
        }
    }

    fn views(&self) -> [ArrayView2<'_, F>; 4] {
        [self.rows.view(), self.columns.t(), self.gaps.slice(s![..;2, 1..;2]), self.backwards.slice(s![..;-1, ..;-1])]
    }
}

fn assert_same<F: Float>(found: ArrayView2<'_, F>, expected: &Array2<F>, context: &str) {
    for ((index, x), y) in found.indexed_iter().zip(expected) {
        assert!(x == y || x.is_nan() && y.is_nan(), "{context}: {x} for {y} at {index:?}");
    }
}

/// C, computed within a matrix of NaN whose other elements must stay untouched.
fn within_nan<F: Float>(before: &Array2<F>, compute: impl FnOnce(ndarray::ArrayViewMut2<'_, F>)) -> Array2<F> {
    let (rows, columns) = before.dim();
    let inner = s![1..rows + 1, 2..columns + 2];
    let mut outer = Array2::from_elem((rows + 2, columns + 3), F::nan());
    outer.slice_mut(inner).assign(before);
    compute(outer.slice_mut(inner));
    let computed = outer.slice(inner).to_owned();
    outer.slice_mut(inner).fill(F::nan());
    assert!(outer.iter().all(|x| x.is_nan()), "written outside");
    computed
}

/// Checks both kinds of products, in both modes, with operands in all layouts.
fn check<F: Float>(a: &Array2<F>, b: &Array2<F>) {
    let c_shape = (a.nrows(), b.ncols());
    let before = integers(c_shape.0, c_shape.1, 3);
    // Overwriting does not read C, so NaN in it does not matter.
    let cases = [
        (Accumulate::Overwrite, Array2::from_elem(c_shape, F::nan()), Array2::zeros(c_shape)),
        (Accumulate::Add, before.clone(), before),
    ];
    let (a_layouts, b_layouts) = (Layouts::new(a), Layouts::new(b));
    for (mode, before, base) in cases {
        let expected = product_scalar(a, b, &base);
        for (y, b) in b_layouts.views().into_iter().enumerate() {
            let mut packed = Packed::default();
            packed.pack(b);
            for (x, a) in a_layouts.views().into_iter().enumerate() {
                let context = format!("{:?} by {:?}, layouts {x} {y}, {mode:?}", a.dim(), b.dim());
                let c = within_nan(&before, |c| product(a, b, c, mode));
                assert_same(c.view(), &expected, &context);
                if x == 0 {
                    let c = within_nan(&before, |c| packed.multiply(a, c, mode));
                    assert_same(c.view(), &expected, &format!("{context}, packed"));
                }
                let mut c = before.clone();
                product(a, b, c.view_mut(), mode);
                assert_same(c.view(), &expected, &context);
            }
        }
    }
}

fn check_all<F: Float>() {
    for_each_isa(|_| {
        for (x, &m) in SIZES.iter().enumerate() {
            for (y, &n) in SIZES.iter().enumerate() {
                let k = SIZES[(3 * x + 5 * y) % SIZES.len()];
                check::<F>(&integers(m, k, 1), &integers(k, n, 2));
            }
        }
        // Several blocks of depth, rows and columns.
        for (m, k, n) in [(20, 530, 70), (100, 520, 40), (400, 20, 66), (14, 12, 2065), (40, 300, 230), (9, 140, 460)] {
            check::<F>(&integers(m, k, 1), &integers(k, n, 2));
        }
    });
}

#[test]
fn products_f32() {
    check_all::<f32>();
}

/// Checks more rows than are kept for several blocks of B.
fn check_kept<F: Float>(rows: usize) {
    let (a, b) = (integers::<F>(rows, 515, 1), integers::<F>(515, 1100, 2));
    let before = integers::<F>(rows, 1100, 3);
    let expected = a.dot(&b) + &before; // exact
    let a_by_columns = a.t().to_owned();
    for_each_isa(|isa| {
        for (layout, a) in [a.view(), a_by_columns.t()].into_iter().enumerate() {
            let c = within_nan(&before, |c| product(a, b.view(), c, Accumulate::Add));
            assert_same(c.view(), &expected, &format!("{isa:?}, layout {layout}"));
        }
    });
}

#[test]
fn many_rows_and_columns() {
    check_kept::<f32>(1800);
    check_kept::<f64>(900);
}

#[test]
fn products_f64() {
    check_all::<f64>();
}

/// Checks products large enough for non-temporal stores, also if their alignment forbids these.
fn check_outer<F: Float>(rows: usize, columns: usize) {
    let before = Array2::from_elem((rows, columns), F::nan());
    for_each_isa(|_| {
        for depth in [1, MOST_TERMS] {
            let (a, b) = (integers::<F>(depth, rows, 1), integers::<F>(depth, columns, 2));
            let expected = product_scalar(&a.t().to_owned(), &b, &Array2::zeros((rows, columns)));
            let mut c = before.clone();
            product(a.t(), b.view(), c.view_mut(), Accumulate::Overwrite);
            assert_same(c.view(), &expected, &format!("{depth} terms"));
            if depth > 1 {
                let c = within_nan(&before, |c| product(a.t(), b.view(), c, Accumulate::Overwrite));
                assert_same(c.view(), &expected, &format!("{depth} terms, within another matrix"));
            }
        }
    });
}

#[test]
fn outer_products_past_the_caches() {
    check_outer::<f32>(4100, 1028);
    check_outer::<f64>(2050, 1030);
}

fn check_not_finite<F: Float>() {
    for_each_isa(|_| {
        for (m, k, n) in [(1, 1, 1), (3, 9, 2), (2, 300, 70), (7, 33, 65), (20, 40, 90)] {
            let (mut a, mut b) = (integers::<F>(m, k, 1), integers::<F>(k, n, 2));
            b[[k / 3, n / 2]] = F::nan();
            check(&a, &b);
            a[[m / 2, k / 2]] = F::infinity();
            b[[k / 3, n / 2]] = F::neg_infinity();
            check(&a, &b);
        }
    });
}

#[test]
fn infinities_and_nan_propagate() {
    check_not_finite::<f32>();
    check_not_finite::<f64>();
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "starts a thread")]
fn equal_products_have_equal_bits() {
    let a = Array2::from_shape_fn((50, 300), |(i, j)| ((i * 31 + j * 17) as f32).sin());
    let b = Array2::from_shape_fn((300, 90), |(i, j)| ((i * 13 + j * 7) as f32).cos());
    let compute = move || {
        let mut c = Array2::zeros((50, 90));
        product(a.view(), b.view(), c.view_mut(), Accumulate::Overwrite);
        c
    };
    let first = compute();
    assert_eq!(first, std::thread::spawn(compute).join().unwrap());
}

/// Numbers whose sums are rounded.
fn fractions<F: Float>(rows: usize, columns: usize) -> Array2<F> {
    Array2::from_shape_fn((rows, columns), |(i, j)| F::of((i as f64 * 31.7 + j as f64 * 17.3).sin()))
}

/// The values of a row do not depend on the number of rows, also with a bias, packed or not.
fn check_rows_in_order<F: Float>() {
    for_each_isa(|_| {
        for (k, n) in [(40, 300), (300, 230), (1100, 190)] {
            let (x, w, bias) = (fractions::<F>(200, k), fractions::<F>(n, k), fractions::<F>(1, n));
            let bias = bias.as_slice().unwrap();
            let mut packed = Packed::default();
            packed.pack(w.t());
            let mut all = Array2::zeros((200, n));
            product_in_order(x.view(), w.t(), all.view_mut(), Some(bias), Summation::Sequential);
            for rows in [1, 2, 7, 8, 9, 16, 17, 29, 64, 161] {
                let (x, all) = (x.slice(s![..rows, ..]), all.slice(s![..rows, ..]));
                let mut c = Array2::from_elem((rows, n), F::nan());
                product_in_order(x, w.t(), c.view_mut(), Some(bias), Summation::Sequential);
                assert_eq!(c, all, "{rows} rows by {k}");
                c.rows_mut().into_iter().for_each(|mut row| row.as_slice_mut().unwrap().copy_from_slice(bias));
                product_in_order(x, w.t(), c.view_mut(), Accumulate::Add, Summation::Sequential);
                assert_eq!(c, all, "{rows} rows by {k}, added");
                c.rows_mut().into_iter().for_each(|mut row| row.as_slice_mut().unwrap().copy_from_slice(bias));
                packed.multiply(x, c.view_mut(), Accumulate::Add);
                assert_eq!(c, all, "{rows} rows by {k}, packed");
            }
        }
    });
}

#[test]
fn rows_in_order_do_not_depend_on_their_number() {
    check_rows_in_order::<f32>();
    check_rows_in_order::<f64>();
}

/// Products large enough to be split, with every strategy.
#[cfg(feature = "rayon")]
#[test]
fn the_number_of_threads_changes_no_bit() {
    let shapes = [
        (1, 3000, 5000),
        (9000, 3, 1000),
        (9000, 5, 1000),
        (3, 9000, 1000),
        (100, 700, 900),
        (300, 700, 500),
        (900, 300, 200),
    ];
    for (m, k, n) in shapes {
        let (a, b) = (fractions::<f32>(m, k), fractions::<f32>(k, n));
        let (a_turned, b_turned) = (a.t().as_standard_layout().into_owned(), b.t().as_standard_layout().into_owned());
        for (a, b) in [(a.view(), b.view()), (a.view(), b_turned.t()), (a_turned.t(), b.view())] {
            let compute = |threads| {
                let mut c = Array2::zeros((m, n));
                in_team(threads, || product(a, b, c.view_mut(), Accumulate::Overwrite));
                c
            };
            let one = compute(1);
            for threads in [2, 3, 8] {
                assert_eq!(compute(threads), one, "{m} by {k} by {n}, {threads} threads");
            }
        }
    }
}

#[test]
#[should_panic(expected = "product of (2, 3) and (4, 5) into (2, 5)")]
fn shapes_are_checked() {
    let (a, b) = (Array2::<f32>::zeros((2, 3)), Array2::zeros((4, 5)));
    product(a.view(), b.view(), Array2::zeros((2, 5)).view_mut(), Accumulate::Add);
}

#[test]
#[should_panic(expected = "not contiguous")]
fn the_output_is_checked() {
    let (a, b) = (Array2::<f32>::zeros((2, 3)), Array2::zeros((3, 5)));
    let mut c = Array2::zeros((5, 2));
    product(a.view(), b.view(), c.view_mut().reversed_axes(), Accumulate::Add);
}
