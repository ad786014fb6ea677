//! The share of positions that are right.

use ndarray::ArrayRef2;

use super::argmax::is_above;
use super::positions::{Counted, mean, of_classes, sums};
use crate::base::error::mismatch;
use crate::kernels::Float;
use crate::layer::{Id, Sequence};

const NAME: &str = "Accuracy";

/// The share of positions at which the class has the largest logit, or one of the k largest.
///
/// ```text
/// accuracy = Σ w_tb [target_tb among the k largest of z_tb] / Σ w_tb
/// ```
///
/// | | shape |
/// | --- | --- |
/// | logits `z` | `[T, B, V]` |
/// | targets | ids `[T, B]` of any integer type |
/// | weights `w` | `[T, B]`, 1 if none are given |
///
/// Of equal logits the first is the larger one, as for [`argmax`](super::argmax()).
///
/// ```
/// use gradflow::{Sequence, metrics::Accuracy, ndarray::{arr2, arr3}};
///
/// let z = arr3(&[[[5.0, 1.0, 3.0]], [[5.0, 1.0, 3.0]], [[1.0, 0.0, 0.0]]]); // [T, B, V]
/// let targets = arr2(&[[2], [0], [-100]]);
/// let (mut best, mut best_two) = (Accuracy::new().ignore(-100), Accuracy::top(2).ignore(-100));
/// best.add(&z, &targets);
/// best_two.add(&z, &targets);
/// assert_eq!((best.value(), best_two.value()), (0.5, 1.0));
/// let mut first = Accuracy::new();
/// first.add(Sequence::from(&z).with_lengths(&[1])?, &targets);
/// assert_eq!(first.value(), 0.0);
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Accuracy {
    top: usize,
    ignored: Option<i128>,
    right: f64,
    total: f64,
}
sums! { Accuracy { right, total } }
of_classes! { Accuracy }

impl Accuracy {
    /// A position is right if its class has the largest logit.
    pub fn new() -> Self {
        Self::top(1)
    }

    /// A position is right if its class has one of the `k` largest logits.
    ///
    /// # Panics
    /// Panics if `k` is 0.
    #[track_caller]
    pub fn top(k: usize) -> Self {
        if k == 0 {
            mismatch(NAME, "k", &"at least 1", &k)
        }
        Accuracy { top: k, ignored: None, right: 0.0, total: 0.0 }
    }

    #[track_caller]
    fn count<F: Float, I: Id>(&mut self, y: Sequence<'_, F>, targets: &ArrayRef2<I>, weights: Option<&ArrayRef2<f64>>) {
        let Accuracy { top, right, total, ignored } = self;
        Counted { ignored: *ignored, weights }.classes(NAME, &y, targets, |z, id, weight| {
            let own = z[id];
            let before = |(k, &z): (usize, &F)| is_above(z, own) || (k < id && !is_above(own, z));
            if z.iter().enumerate().filter(|&other| before(other)).count() < *top {
                *right += weight;
            }
            *total += weight;
        });
    }

    /// The share of right positions, from 0 to 1; NaN if none was counted.
    #[must_use]
    pub fn value(&self) -> f64 {
        mean(self.right, self.total)
    }

    /// The weight of the positions that were counted: their number if no weights were given.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.total
    }
}

impl Default for Accuracy {
    fn default() -> Self {
        Accuracy::new()
    }
}
