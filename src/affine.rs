//! `a = x Wᵀ + b` and its gradients on the valid rows of a sequence: what every layer with weights is made of.

use std::ops::Range;

use ndarray::{Array, Array1, Array2, Array3, ArrayView2, ArrayViewMut1, ArrayViewMut2, Dimension, s};

use crate::cache::reuse;
use crate::kernels::{Accumulate, Summation, product, product_with_bias, vectorised};
use crate::{Float, Sequence, Tensors};

/// `values`, any number of rows of `width`, as a matrix.
pub(crate) fn matrix_mut<F: Float>(values: &mut [F], width: usize) -> ArrayViewMut2<'_, F> {
    ArrayViewMut2::from_shape((values.len() / width, width), values).expect("whole rows")
}

/// Where the rows `run` lie in values of `width` each.
pub(crate) fn span(run: &Range<usize>, width: usize) -> Range<usize> {
    run.start * width..run.end * width
}

/// The rows `run` of a buffer `[T, B, G]` or `[B, G]`, side by side.
pub(crate) fn rows_of<'a, F: Float, D: Dimension>(buffer: &'a mut Array<F, D>, run: &Range<usize>) -> &'a mut [F] {
    let width = buffer.shape()[buffer.ndim() - 1];
    &mut buffer.as_slice_mut().expect("a buffer in standard layout")[span(run, width)]
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
        let x_rows = x_rows.slice(s![run, ..]);
        match bias {
            Some(bias) => product_with_bias(x_rows, weight.t(), bias.tensor(0).1, a, Summation::Fastest),
            None => product(x_rows, weight.t(), a, Accumulate::Overwrite),
        }
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
    if width == 0 {
        return;
    }
    for run in x.runs() {
        let dx = matrix_mut(rows_of(dx, &run), width);
        product(da.slice(s![run, ..]), weight.view(), dx, Accumulate::Overwrite);
    }
    x.zero_padding(dx);
}
