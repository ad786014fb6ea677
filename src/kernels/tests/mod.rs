mod math;
mod packed;
mod product;

use ndarray::Array2;

use crate::float::Float;

/// Small integers, of which every product and sum is exact whatever the order.
fn integers<F: Float>(rows: usize, columns: usize, seed: usize) -> Array2<F> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        F::of(((i * 7919 + j * 104_729 + seed * 31 + i * j) % 17) as f64 - 8.0)
    })
}

/// The limit that `for_each_isa` sets is one of its thread alone, so nothing may be split.
fn on_one_thread(check: impl FnOnce() + Send) {
    #[cfg(feature = "rayon")]
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(check);
    #[cfg(not(feature = "rayon"))]
    check();
}
