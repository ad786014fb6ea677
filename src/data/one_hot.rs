//! One-hot vectors.

use ndarray::Array3;

use crate::base::error::mismatch;
use crate::kernels::Float;
use crate::layer::Sequence;

const NAME: &str = "one_hot";

/// Ids as vectors of zeros with a one at the id: `[T, B]` to `[T, B, V]`. Past a sequence's length, all values are zero.
///
/// A model that begins with an [`Embedding`](crate::layers::Embedding) takes the ids themselves.
///
/// ```
/// use gradflow::{data::one_hot, ndarray::{arr2, arr3}};
///
/// let x = one_hot::<f32>(&arr2(&[[2u8, 0]]), 3);
/// assert_eq!(x, arr3(&[[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]));
/// ```
///
/// # Panics
/// Panics if an id of a valid position is not below `classes`.
#[track_caller]
pub fn one_hot<'x, F: Float>(ids: impl Into<Sequence<'x, F>>, classes: usize) -> Array3<F> {
    let sequence = ids.into();
    let ids = sequence.tokens(NAME);
    let (steps, batch) = ids.dim();
    let mut vectors = Array3::zeros((steps, batch, classes));
    for t in 0..steps {
        for b in (0..batch).filter(|&b| sequence.valid(t, b)) {
            let id = ids.get(t, b);
            if id >= classes {
                let got = format_args!("{} at step {t} of sequence {b}", ids.shown(t, b));
                mismatch(NAME, "ids", &format_args!("ids below {classes}"), &got)
            }
            vectors[[t, b, id]] = F::one();
        }
    }
    vectors
}
