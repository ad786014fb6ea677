mod math;
mod norm;
mod panels;
mod product;
mod reduced;
mod row_product;
mod softmax;
mod weight;

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::gemm::operand::Start;
use super::{Float, Summation, Weight};

/// Small integers, whose products and sums are exact in any order.
fn integers<F: Float>(rows: usize, columns: usize, seed: usize) -> Array2<F> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let [i, j, seed] = [i, j, seed].map(|number| number as u64); // too large for a `usize` of 32 bits
        F::of(((i * 7919 + j * 104_729 + seed * 31 + i * j) % 17) as f64 - 8.0)
    })
}

/// C <- `start` + A B, with B in place and its terms added up in this order.
fn product_in_order<'a, F: Float>(
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    c: ArrayViewMut2<'_, F>,
    start: impl Into<Start<'a, F>>,
    order: Summation,
) {
    Weight::InPlace(b, order).apply(a, start, c);
}
