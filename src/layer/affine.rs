//! `a = x Wᵀ + b` and its gradients on the valid rows of a sequence: what every layer with weights is made of.

use std::ops::Range;

use super::kit::reuse;
use super::rows::{matrix, matrix_mut, row_of, row_of_mut, rows_of, span};
use super::sequence::Sequence;
use crate::base::{Tensors, TensorsExt, check_shape};
use crate::kernels::{Accumulate, Float, Summation, Weight, product, vectorised};
use crate::parallel::{COLUMNS, ELEMENT, for_each_part};

use ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut2, s};

/// `a = x Wᵀ + b`, on the valid rows.
pub(crate) fn affine<F: Float>(
    x: &Sequence<'_, F>,
    x_rows: ArrayView2<'_, F>, // [T·B, I]
    weight: &Array2<F>,        // [G, I]
    bias: Option<&Array1<F>>,  // [G]
    a: &mut Array3<F>,         // [T, B, G]
) {
    for run in x.runs() {
        let a = matrix_mut(rows_of(a, &run), weight.nrows());
        affine_rows(x, x_rows, run, weight, bias, a);
    }
}

/// `a = x Wᵀ + b`, for the rows `run` of x.
pub(crate) fn affine_rows<F: Float>(
    x: &Sequence<'_, F>,
    x_rows: ArrayView2<'_, F>, // [T·B, I]
    run: Range<usize>,
    weight: &Array2<F>,       // [G, I]
    bias: Option<&Array1<F>>, // [G]
    a: ArrayViewMut2<'_, F>,  // [run, G]
) {
    let (x_rows, bias) = (x_rows.slice(s![run, ..]), bias.map(|bias| bias.tensor(0).1));
    stored(x, x_rows.nrows(), weight).apply(x_rows, bias, a);
}

/// The weights, as a [prepacked](crate::Prepacked) model has them or where they lie.
fn stored<'a, F: Float>(x: &Sequence<'_, F>, rows: usize, weight: &'a Array2<F>) -> Weight<'a, F> {
    Weight::stored(weight.t(), x.packed_weights(), rows, Summation::Fastest)
}

/// `a = skip + x Wᵀ + b`, on the valid rows.
pub(crate) fn affine_with_skip<F: Float>(
    x: &Sequence<'_, F>,
    skip: ArrayView3<'_, F>,   // [T, B, G]
    x_rows: ArrayView2<'_, F>, // [T·B, I]
    weight: &Array2<F>,        // [G, I]
    bias: Option<&Array1<F>>,  // [G]
    a: &mut ArrayRef3<F>,      // [T, B, G]
) {
    let (skip, width) = (skip.to_slice().expect("a skip in standard layout"), weight.nrows());
    for run in x.runs() {
        let (skip, a) = (&skip[span(&run, width)], rows_of(a, &run));
        add_bias_to(skip, bias, a);
        let (x_rows, a) = (x_rows.slice(s![run, ..]), matrix_mut(a, width));
        stored(x, x_rows.nrows(), weight).apply(x_rows, Accumulate::Add, a);
    }
}

/// Each row of y = the bias, or 0.
pub(crate) fn start_rows<F: Float>(bias: Option<&[F]>, y: &mut [F]) {
    match bias {
        Some(bias) => y.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias)),
        None => y.fill(F::zero()),
    }
}

/// Panics unless `skip` and `y` are `[T, B, features]`.
#[track_caller]
pub(crate) fn check_skip<F: Float>(
    name: &str,
    x: &Sequence<'_, F>,
    features: usize,
    skip: ArrayView3<'_, F>,
    y: &ArrayRef3<F>,
) {
    let (steps, batch) = x.dims();
    check_shape(name, "skip", y.shape(), skip.shape());
    check_shape(name, "y", &[steps, batch, features], y.shape());
}

/// Each row of y = that of x, and the bias.
pub(crate) fn add_bias_to<F: Float>(x: &[F], bias: Option<&Array1<F>>, y: &mut [F]) {
    match bias {
        Some(bias) => {
            let bias = bias.tensor(0).1;
            let rows = (matrix(x, bias.len()), matrix_mut(y, bias.len()));
            for_each_part(rows, x.len() * ELEMENT, 1, |(x, y)| add_to_rows(x, bias, y));
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
        let work = span.len() * ELEMENT;
        for_each_part(((&x[span.clone()], &y[span]), rows_of(z, &run)), work, COLUMNS, |((x, y), z)| {
            add_values(x, y, z)
        });
    }
}

/// Zero, where the gradient is to be overwritten and is then added to.
pub(crate) fn start_gradient<F: Float>(x: &Sequence<'_, F>, gradient: &mut impl Tensors<F>) {
    if x.overwrites_gradients() {
        gradient.set_zero();
    }
}

/// `dW += daᵀ v` on the valid rows, or `dW = daᵀ v` where the gradient is to be overwritten.
pub(crate) fn weight_gradient<F: Float>(
    x: &Sequence<'_, F>,
    da: ArrayView2<'_, F>,        // [T·B, G]
    v: ArrayView2<'_, F>,         // [T·B, I]
    mut dw: ArrayViewMut2<'_, F>, // [G, I]
) {
    let mut mode = Accumulate::overwriting(x.overwrites_gradients());
    for run in x.runs() {
        product(da.slice(s![run.clone(), ..]).t(), v.slice(s![run, ..]), dw.view_mut(), mode);
        mode = Accumulate::Add;
    }
    if mode == Accumulate::Overwrite {
        dw.fill(F::zero()); // no row is valid
    }
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
    for_each_part((rows.reversed_axes(), sums), rows.len() * ELEMENT, COLUMNS, |(columns, sums)| {
        add_rows_alone(columns.reversed_axes(), sums);
    });
}

/// `db += Σ da` over the valid rows, or `db = Σ da` where the gradient is to be overwritten.
pub(crate) fn bias_gradient<F: Float>(x: &Sequence<'_, F>, da: ArrayView2<'_, F>, db: &mut Array1<F>) {
    start_gradient(x, db);
    for run in x.runs() {
        add_rows(da.slice(s![run, ..]), db.tensor_mut(0));
    }
}

/// `dx = da W` on the valid rows, zero on the others; empty where it is not wanted.
pub(crate) fn input_gradient<F: Float>(
    x: &Sequence<'_, F>,
    da: ArrayView2<'_, F>,
    weight: &Array2<F>,
    dx: &mut Array3<F>,
) {
    let (steps, batch) = x.dims();
    let width = if x.wants_gradient() { weight.ncols() } else { 0 };
    reuse(dx, (steps, batch, width));
    input_gradient_into(x, da, weight, dx);
}

/// [`input_gradient`] into a `dx` of its shape.
pub(crate) fn input_gradient_into<F: Float>(
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
