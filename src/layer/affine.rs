//! `a = x Wᵀ + b` and its gradients on the valid rows of a sequence: the basis of every layer with weights.

use super::gradient::start;
use super::rows::{matrix, matrix_mut, row_of, row_of_mut, rows_of, span, values_of, values_of_mut};
use super::sequence::Sequence;
use crate::base::Tensors;
use crate::kernels::{Accumulate, Float, Summation, Weight, product, vectorised};
use crate::parallel::{COLUMNS, element_work, for_each_part};

use ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut2, s};

/// `a = x Wᵀ + b`, on the valid rows.
pub(crate) fn affine_on_runs<F: Float>(
    x: &Sequence<'_, F>,
    x_rows: ArrayView2<'_, F>, // [T·B, I]
    weight: &Array2<F>,        // [G, I]
    bias: Option<&Array1<F>>,  // [G]
    a: &mut Array3<F>,         // [T, B, G]
) {
    for run in x.runs() {
        let a = matrix_mut(rows_of(a, &run), weight.nrows());
        affine(x, x_rows.slice(s![run, ..]), weight, bias, a);
    }
}

/// `a = x Wᵀ + b`, for some rows of a pass.
pub(crate) fn affine<F: Float>(
    pass: &Sequence<'_, F>,
    x: ArrayView2<'_, F>,     // [N, I]
    weight: &Array2<F>,       // [G, I]
    bias: Option<&Array1<F>>, // [G]
    a: ArrayViewMut2<'_, F>,  // [N, G]
) {
    let weight = Weight::stored(weight.t(), pass.packed_weights(), x.nrows(), Summation::Fastest);
    weight.apply(x, bias.map(|bias| bias.tensor(0).1), a);
}

/// `a = skip + x Wᵀ + b`, for some rows of a pass.
pub(crate) fn affine_onto<F: Float>(
    pass: &Sequence<'_, F>,
    skip: ArrayView2<'_, F>,     // [N, G]
    x: ArrayView2<'_, F>,        // [N, I]
    weight: &Array2<F>,          // [G, I]
    bias: Option<&Array1<F>>,    // [G]
    mut a: ArrayViewMut2<'_, F>, // [N, G]
) {
    add_bias_to(values_of(skip), bias, values_of_mut(a.view_mut()));
    let weight = Weight::stored(weight.t(), pass.packed_weights(), x.nrows(), Summation::Fastest);
    weight.apply(x, Accumulate::Add, a);
}

/// Each row of y = the bias, or 0.
pub(crate) fn start_rows<F: Float>(bias: Option<&[F]>, y: &mut [F]) {
    match bias {
        Some(bias) => y.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias)),
        None => y.fill(F::zero()),
    }
}

/// Each row of y = that of x + the bias.
pub(crate) fn add_bias_to<F: Float>(x: &[F], bias: Option<&Array1<F>>, y: &mut [F]) {
    match bias {
        Some(bias) => {
            let bias = bias.tensor(0).1;
            let rows = (matrix(x, bias.len()), matrix_mut(y, bias.len()));
            for_each_part(rows, element_work(x.len()), 1, |(x, y)| add_to_rows(x, bias, y));
        }
        None => y.copy_from_slice(x),
    }
}

vectorised! {
    /// Each row of y = that of x + `row`.
    fn add_to_rows<'a, F: Float>(x: ArrayView2<'a, F>, row: &'a [F], y: ArrayViewMut2<'a, F>) {
        let mut y = y;
        for (y, x) in y.outer_iter_mut().zip(x.outer_iter()) {
            for ((y, &x), &add) in row_of_mut(y).iter_mut().zip(row_of(x)).zip(row) {
                *y = x + add;
            }
        }
    }
}

vectorised! {
    /// sum += values
    pub(crate) fn add_onto<'a, F: Float>(values: &'a [F], sum: &'a mut [F]) {
        for (sum, &value) in sum.iter_mut().zip(values) {
            *sum += value;
        }
    }
}

vectorised! {
    /// z = x + y
    pub(crate) fn add_values<'a, F: Float>(x: &'a [F], y: &'a [F], z: &'a mut [F]) {
        for ((z, &x), &y) in z.iter_mut().zip(x).zip(y) {
            *z = x + y;
        }
    }
}

/// `z = x + y`, on the valid rows; all in standard layout.
pub(crate) fn add<F: Float>(
    sequence: &Sequence<'_, F>,
    x: ArrayView3<'_, F>,
    y: ArrayView3<'_, F>,
    z: &mut ArrayRef3<F>,
) {
    let width = z.dim().2;
    let (x, y) = (x.to_slice().expect("standard layout"), y.to_slice().expect("standard layout"));
    for run in sequence.runs() {
        let span = span(&run, width);
        let work = element_work(span.len());
        for_each_part(((&x[span.clone()], &y[span]), rows_of(z, &run)), work, COLUMNS, |((x, y), z)| {
            add_values(x, y, z)
        });
    }
}

/// `dW += daᵀ v` on the valid rows, or `dW = daᵀ v`.
pub(crate) fn weight_gradient<F: Float>(
    x: &Sequence<'_, F>,
    da: ArrayView2<'_, F>, // [T·B, G]
    v: ArrayView2<'_, F>,  // [T·B, I]
    dw: &mut Array2<F>,    // [G, I]
    mut how: Accumulate,
) {
    for run in x.runs() {
        product(da.slice(s![run.clone(), ..]).t(), v.slice(s![run, ..]), dw.view_mut(), how);
        how = Accumulate::Add;
    }
    start(dw, how); // if no row is valid
}

vectorised! {
    /// Adds each row to `sums`.
    fn add_rows_alone<'a, F: Float>(rows: ArrayView2<'a, F>, sums: &'a mut [F]) {
        for row in rows.outer_iter() {
            for (sum, &value) in sums.iter_mut().zip(row_of(row)) {
                *sum += value;
            }
        }
    }
}

/// Adds each row to `sums`; on all threads, each with some of the columns.
pub(crate) fn add_rows<F: Float>(rows: ArrayView2<'_, F>, sums: &mut [F]) {
    for_each_part((rows.reversed_axes(), sums), element_work(rows.len()), COLUMNS, |(columns, sums)| {
        add_rows_alone(columns.reversed_axes(), sums);
    });
}

/// `db += Σ da` over the valid rows, or `db = Σ da`.
pub(crate) fn bias_gradient<F: Float>(x: &Sequence<'_, F>, da: ArrayView2<'_, F>, db: &mut Array1<F>, how: Accumulate) {
    start(db, how);
    for run in x.runs() {
        add_rows(da.slice(s![run, ..]), db.tensor_mut(0));
    }
}

/// `dx = da W` on the valid rows, zero on the others; nothing if `dx` is empty.
pub(crate) fn input_gradient<F: Float>(
    x: &Sequence<'_, F>,
    da: ArrayView2<'_, F>,
    weight: &Array2<F>,
    dx: &mut ArrayRef3<F>,
) {
    if dx.is_empty() {
        return;
    }
    for run in x.runs() {
        let dx = matrix_mut(rows_of(dx, &run), weight.ncols());
        product(da.slice(s![run, ..]), weight.view(), dx, Accumulate::Overwrite);
    }
    x.zero_padding(dx);
}
