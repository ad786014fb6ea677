//! The weights of an attention, and their gradient.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::kernels::math::{exp, sum};
use crate::kernels::{Float, vectorised};

vectorised! {
    /// Each row `e` becomes `softmax(scale e)`. A NaN makes its row NaN.
    pub(super) fn softmax<'a, F: Float>(scale: F, scores: ArrayViewMut2<'a, F>) {
        let mut scores = scores;
        for row in scores.outer_iter_mut() {
            let e = row.into_slice().expect("scores side by side");
            let largest = e.iter().fold(F::neg_infinity(), |largest, &e| if e > largest { e } else { largest });
            for e in e.iter_mut() {
                *e = exp((*e - largest) * scale);
            }
            let total = sum([e], |[e]| e);
            for e in e.iter_mut() {
                *e /= total;
            }
        }
    }
}

vectorised! {
    /// Each row `dα` becomes `de = scale α ∘ (dα - α · dα)`.
    pub(super) fn softmax_backward<'a, F: Float>(scale: F, weights: ArrayView2<'a, F>, dscores: ArrayViewMut2<'a, F>) {
        let mut dscores = dscores;
        for (weights, dscores) in weights.outer_iter().zip(dscores.outer_iter_mut()) {
            let weights = weights.to_slice().expect("weights side by side");
            let d = dscores.into_slice().expect("scores side by side");
            let mean = sum([weights, d], |[weight, d]| weight * d);
            for (d, &weight) in d.iter_mut().zip(weights) {
                *d = scale * weight * (*d - mean);
            }
        }
    }
}
