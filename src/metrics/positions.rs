//! The positions of a batch that count, with their weights.

use ndarray::{ArrayRef2, ArrayView1, s};

use crate::base::check_shape;
use crate::base::error::mismatch;
use crate::kernels::Float;
use crate::layer::{Id, Ids, Sequence};

/// Which positions count, and how much.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a> {
    /// Positions with this target do not count.
    pub ignored: Option<i128>,
    /// `[T, B]`; 1 each if there are none.
    pub weights: Option<&'a ArrayRef2<f64>>,
}

impl Counted<'_> {
    /// Calls `act` with every position within the lengths of `sequence`, and its weight.
    #[track_caller]
    pub fn positions<F: Float>(
        &self,
        metric: &str,
        sequence: &Sequence<'_, F>,
        mut act: impl FnMut(usize, usize, f64),
    ) {
        let (steps, batch) = sequence.dims();
        if let Some(weights) = self.weights {
            check_shape(metric, "weights", &[steps, batch], weights.shape());
        }
        for t in 0..steps {
            for b in (0..batch).filter(|&b| sequence.valid(t, b)) {
                act(t, b, self.weights.map_or(1.0, |weights| weights[[t, b]]));
            }
        }
    }

    /// Calls `act` with the logits, the class and the weight of every position that counts.
    #[track_caller]
    pub fn classes<F: Float, I: Id>(
        &self,
        metric: &str,
        y: &Sequence<'_, F>,
        targets: &ArrayRef2<I>,
        mut act: impl FnMut(ArrayView1<'_, F>, usize, f64),
    ) {
        let logits = y.features(metric, None); // [T, B, V]
        let classes = logits.dim().2;
        self.targets(metric, y, targets, |t, b, id, weight| {
            check_class(metric, id, classes, I::view(targets.view()), t, b);
            act(logits.slice(s![t, b, ..]), id, weight);
        });
    }

    /// Calls `act` with the class and the weight of every position that counts.
    #[track_caller]
    pub fn targets<F: Float, I: Id>(
        &self,
        metric: &str,
        y: &Sequence<'_, F>,
        targets: &ArrayRef2<I>,
        mut act: impl FnMut(usize, usize, usize, f64),
    ) {
        let (steps, batch) = y.dims();
        check_shape(metric, "targets", &[steps, batch], targets.shape());
        self.positions(metric, y, |t, b, weight| {
            let target = targets[[t, b]];
            if self.ignored != Some(target.wide()) {
                act(t, b, target.index(), weight);
            }
        });
    }
}

/// Panics unless the id at step `t` of sequence `b` is a class.
#[track_caller]
pub(super) fn check_class(metric: &str, id: usize, classes: usize, ids: Ids<'_>, t: usize, b: usize) {
    if id >= classes {
        let got = format_args!("{} at step {t} of sequence {b}", ids.shown(t, b));
        mismatch(metric, "targets", &format_args!("ids below {classes}"), &got)
    }
}

/// A quotient of sums; NaN if nothing was counted.
pub(super) fn mean(sum: f64, total: f64) -> f64 {
    if total == 0.0 { f64::NAN } else { sum / total }
}

/// The methods that every metric of logits or values has, and its sums as tensors of one element.
macro_rules! sums {
    ($metric:ident { $($sum:ident),+ }) => {
        impl $metric {
            /// Adds the sums of another metric: from another thread, or from another part of the data.
            pub fn merge(&mut self, other: &Self) {
                $(self.$sum += other.$sum;)+
            }

            /// Sets the sums to zero.
            pub fn reset(&mut self) {
                $(self.$sum = 0.0;)+
            }
        }

        /// The sums, as tensors of one element, so that they can be saved or added up across machines.
        impl $crate::base::Tensors<f64> for $metric {
            fn count(&self) -> usize {
                [$(&self.$sum),+].len()
            }
            fn name(&self, i: usize) -> String {
                [$(stringify!($sum)),+][i].into()
            }
            fn tensor(&self, i: usize) -> (&[usize], &[f64]) {
                (&[], std::slice::from_ref([$(&self.$sum),+][i]))
            }
            fn tensor_mut(&mut self, i: usize) -> &mut [f64] {
                let sums = [$(&mut self.$sum),+];
                let count = sums.len();
                let sum = sums.into_iter().nth(i).unwrap_or_else(|| panic!("tensor {i} of {count}"));
                std::slice::from_mut(sum)
            }
        }
    };
}
pub(super) use sums;

/// The methods that every metric of logits and class ids has: it has a field `ignored` and a method `count`.
macro_rules! of_classes {
    ($metric:ident) => {
        impl $metric {
            /// Positions with this target do not count.
            pub fn ignore(self, id: impl Id) -> Self {
                $metric { ignored: Some(id.wide()), ..self }
            }

            /// Counts the positions of a batch.
            ///
            /// # Panics
            /// Panics if the shapes differ, or a target that counts is not a class.
            #[track_caller]
            pub fn add<'y, F: Float, I: Id>(&mut self, y: impl Into<Sequence<'y, F>>, targets: &ArrayRef2<I>) {
                self.count(y.into(), targets, None);
            }

            /// Counts the positions of a batch, each with its weight.
            ///
            /// # Panics
            /// Panics as [`add`](Self::add) does, or if there is not one weight for each position.
            #[track_caller]
            pub fn add_weighted<'y, F: Float, I: Id>(
                &mut self,
                y: impl Into<Sequence<'y, F>>,
                targets: &ArrayRef2<I>,
                weights: &ArrayRef2<f64>,
            ) {
                self.count(y.into(), targets, Some(weights));
            }
        }
    };
}
pub(super) use of_classes;
