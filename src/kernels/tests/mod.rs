mod math;
mod norm;
mod panels;
mod product;
mod softmax;
mod weight;

use ndarray::Array2;

use super::Float;

/// Small integers, of which every product and sum is exact whatever the order.
fn integers<F: Float>(rows: usize, columns: usize, seed: usize) -> Array2<F> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        F::of(((i * 7919 + j * 104_729 + seed * 31 + i * j) % 17) as f64 - 8.0)
    })
}
