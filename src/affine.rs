//! `a = x Wᵀ + b` and its gradients on the valid rows of a sequence: what every layer with weights is made of.

use std::ops::Range;

use ndarray::{
    Array1, Array2, Array3, ArrayRef, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut1, ArrayViewMut2, Axis, Dimension,
    s,
};

use crate::cache::reuse;
use crate::error::check_shape;
use crate::kernels::{Accumulate, Packed, Summation, product, product_with_bias, vectorised};
use crate::{Float, Sequence, Tensors};

/// `values`, any number of rows of `width`, as a matrix.
pub(crate) fn matrix_mut<F: Float>(values: &mut [F], width: usize) -> ArrayViewMut2<'_, F> {
    ArrayViewMut2::from_shape((values.len() / width, width), values).expect("whole rows")
}

/// `values`, any number of rows of `width`, as a matrix.
pub(crate) fn matrix<F: Float>(values: &[F], width: usize) -> ArrayView2<'_, F> {
    ArrayView2::from_shape((values.len() / width, width), values).expect("whole rows")
}

/// Where the rows `run` lie in values of `width` each.
pub(crate) fn span(run: &Range<usize>, width: usize) -> Range<usize> {
    run.start * width..run.end * width
}

/// The rows `run` of a buffer `[T, B, G]` or `[B, G]`, side by side.
pub(crate) fn rows_of<'a, F: Float, D: Dimension>(buffer: &'a mut ArrayRef<F, D>, run: &Range<usize>) -> &'a mut [F] {
    let width = buffer.shape()[buffer.ndim() - 1];
    &mut buffer.as_slice_mut().expect("a buffer in standard layout")[span(run, width)]
}

/// The rows `run` of a matrix. (Slicing does the same, but each step of a recurrence would notice what that costs.)
pub(crate) fn view_of_rows<'a, F>(matrix: ArrayView2<'a, F>, run: &Range<usize>) -> ArrayView2<'a, F> {
    matrix.split_at(Axis(0), run.end).0.split_at(Axis(0), run.start).1
}

/// [`view_of_rows`], to be written.
pub(crate) fn view_mut_of_rows<'a, F>(matrix: ArrayViewMut2<'a, F>, run: &Range<usize>) -> ArrayViewMut2<'a, F> {
    matrix.split_at(Axis(0), run.end).0.split_at(Axis(0), run.start).1
}

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
    match (packed(x, &x_rows, weight), bias) {
        (Some(packed), bias) => packed.multiply_in_parts(x_rows, a, bias),
        (None, Some(bias)) => product_with_bias(x_rows, weight.t(), bias, a, Summation::Fastest),
        (None, None) => product(x_rows, weight.t(), a, Accumulate::Overwrite),
    }
}

/// The weights of a [prepacked](crate::Prepacked) model, unless they are read only once, for a single row.
fn packed<F: Float>(
    x: &Sequence<'_, F>,
    x_rows: &ArrayView2<'_, F>,
    weight: &Array2<F>,
) -> Option<std::sync::Arc<Packed<F>>> {
    x.packed_weights().filter(|_| x_rows.nrows() > 1)?.get(weight.t())
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
        match packed(x, &x_rows, weight) {
            Some(packed) => packed.multiply_in_parts(x_rows, a, Accumulate::Add),
            None => product(x_rows, weight.t(), a, Accumulate::Add),
        }
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
        Some(bias) => add_to_rows(x, bias.tensor(0).1, y),
        None => y.copy_from_slice(x),
    }
}

vectorised! {
    /// Each row of y = that of x + `row`.
    fn add_to_rows<'a, F: Float>(x: &'a [F], row: &'a [F], y: &'a mut [F]) {
        for (y, x) in y.chunks_exact_mut(row.len()).zip(x.chunks_exact(row.len())) {
            for ((y, &x), &add) in y.iter_mut().zip(x).zip(row) {
                *y = x + add;
            }
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
        add_values(&x[span.clone()], &y[span], rows_of(z, &run));
    }
}

/// `dW += daᵀ v` on the valid rows.
pub(crate) fn add_weight_gradient<F: Float>(
    x: &Sequence<'_, F>,
    da: ArrayView2<'_, F>,        // [T·B, G]
    v: ArrayView2<'_, F>,         // [T·B, I]
    mut dw: ArrayViewMut2<'_, F>, // [G, I]
) {
    for run in x.runs() {
        product(da.slice(s![run.clone(), ..]).t(), v.slice(s![run, ..]), dw.view_mut(), Accumulate::Add);
    }
}

vectorised! {
    /// Adds each row to `sums`.
    pub(crate) fn add_rows<'a, F: Float>(rows: ArrayView2<'a, F>, sums: &'a mut [F]) {
        for row in rows.outer_iter() {
            let row = row.to_slice().expect("rows side by side");
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
    }
}

/// `db += Σ da` over the valid rows.
pub(crate) fn add_bias_gradient<F: Float>(x: &Sequence<'_, F>, da: ArrayView2<'_, F>, mut db: ArrayViewMut1<'_, F>) {
    let db = db.as_slice_mut().expect("a tensor in standard layout");
    for run in x.runs() {
        add_rows(da.slice(s![run, ..]), db);
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
