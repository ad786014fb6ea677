//! Connectionist temporal classification: labels that are not aligned in time.

mod decode;
mod lattice;
mod path;
mod scaled;

pub use decode::{BeamSearch, Decoded, greedy};

use std::fmt;
use std::sync::Mutex;

use ndarray::{Array3, ArrayRef3, ArrayViewMut2};

use self::lattice::{Lattice, normaliser};
use self::path::Path;
use self::scaled::Scaled;
use super::reduction::Reduction;
use super::traits::{Loss, Memory};
use super::weights::{Parts, Weights, weight_at};
use crate::base::check_shape;
use crate::base::error::mismatch;
use crate::kernels::softmax::softmax;
use crate::kernels::{Float, once};
use crate::layer::{Id, Sequence};

const NAME: &str = "Ctc";

/// The CTC loss (Graves, Fernández, Gomez and Schmidhuber 2006): `-ln p(labels | logits)` of label sequences that are shorter
/// than the output, where `p` sums over all alignments.
///
/// A path gives each step a class: a label, or the blank. Merging runs of the same class and removing blanks gives the path's
/// labels. The path's probability is `Π_t softmax(z_t)_path(t)`. With the labels l of length S and
/// `l' = blank l_1 blank l_2 … blank` of length 2S + 1, in log space:
///
/// ```text
/// α_t(s) = log softmax(z_t)_l'(s) + log Σ_r exp α_{t-1}(r)        r = s, s - 1 and, if l'(s) is neither blank nor l'(s - 2), s - 2
/// β_t(s) = log Σ_r exp(β_{t+1}(r) + log softmax(z_{t+1})_l'(r))   r = s, s + 1 and, if l'(s + 2) is neither blank nor l'(s), s + 2
/// L = -log p          p = Σ_s exp(α_t(s) + β_t(s)), for every t
///
/// dL/dz_tk = softmax(z_t)_k - Σ_{s: l'(s) = k} exp(α_t(s) + β_t(s)) / p
/// ```
///
/// The sums are computed as probabilities that are scaled at each step, which is fast, or in log space if scaling would lose
/// accuracy.
///
/// The default is PyTorch's mean: each loss is divided by its number of labels (at least 1), and averaged over the batch,
/// weighted if the sequences have [weights](super::Weights). The output's lengths are those of its input; steps past them do not
/// count.
///
/// Labels that do not fit, such as more labels than steps, or repeated ones without a step for the blank between them, have no
/// path: the loss is infinite and its gradient NaN, unless [`zero_infinity`](Ctc::zero_infinity) leaves such sequences out. An
/// empty label sequence is a target like any other: its path has only blanks.
///
/// | | shape |
/// | --- | --- |
/// | logits `z`, gradient | `[T, B, V]`, the blank among the V classes |
/// | targets: labels | B of any length, each below V and not the blank |
///
/// ```
/// use gradflow::{loss::{Ctc, Loss}, ndarray::Array3};
///
/// let mut ctc = Ctc::new(); // class 0 is the blank
/// let loss = ctc.of(&Array3::<f64>::zeros((3, 1, 3)), &[vec![1, 2]]);
/// // Of 27 paths of three steps, five read 1 2.
/// assert!((loss.value() - 27f64.ln() / 2.0 + 5f64.ln() / 2.0).abs() < 1e-15);
/// ```
pub struct Ctc<F, I = usize> {
    options: Options,
    labels: std::marker::PhantomData<I>,
    memory: Memory<F>,
    /// Working memory, kept for the next evaluation.
    sums: Mutex<Sums>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Options {
    blank: usize,
    zero_infinity: bool,
    reduction: Reduction,
}

impl<F, I: Id> Ctc<F, I> {
    /// The mean, with class 0 as the blank.
    #[must_use]
    pub fn new() -> Self {
        Ctc {
            options: Options::default(),
            labels: Default::default(),
            memory: Memory::default(),
            sums: Mutex::default(),
        }
    }

    /// Makes another class the blank.
    #[must_use]
    pub fn blank(mut self, blank: usize) -> Self {
        self.options.blank = blank;
        self
    }

    /// Sequences whose labels do not fit count as a loss of 0, with a gradient of 0. They still count in the mean, as in PyTorch.
    #[must_use]
    pub fn zero_infinity(mut self) -> Self {
        self.options.zero_infinity = true;
        self
    }

    /// The sum over the batch instead of the mean.
    #[must_use]
    pub fn sum(mut self) -> Self {
        self.options.reduction = Reduction::Sum;
        self
    }
}

impl<F, I: Id> Default for Ctc<F, I> {
    fn default() -> Self {
        Ctc::new()
    }
}

/// The clone starts with empty working memory.
impl<F, I> Clone for Ctc<F, I> {
    fn clone(&self) -> Self {
        let Ctc { options, labels, memory, sums: _ } = self;
        Ctc { options: *options, labels: *labels, memory: memory.clone(), sums: Mutex::default() }
    }
}

impl<F, I> PartialEq for Ctc<F, I> {
    fn eq(&self, other: &Self) -> bool {
        self.options == other.options
    }
}

impl<F, I> fmt::Debug for Ctc<F, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { blank, zero_infinity, reduction } = &self.options;
        let mut debug = f.debug_struct(NAME);
        debug.field("blank", blank).field("zero_infinity", zero_infinity).field("reduction", reduction).finish()
    }
}

impl<F: Float, I: Id> Loss<F> for Ctc<F, I> {
    type Targets = [Vec<I>];

    /// As [`Loss::evaluate`].
    ///
    /// # Panics
    /// Panics if there is not one target for each sequence, the batch is empty, or a label is the blank or not below V.
    #[track_caller]
    fn evaluate(&self, y: Sequence<'_, F>, targets: &[Vec<I>], dy: Option<&mut ArrayRef3<F>>) -> f64 {
        self.evaluate_any(y, targets, None, dy)
    }

    fn evaluate_weighted(
        &self,
        y: Sequence<'_, F>,
        targets: &[Vec<I>],
        weights: Weights<'_, F>,
        dy: Option<&mut ArrayRef3<F>>,
    ) -> f64 {
        self.evaluate_any(y, targets, Some(weights.reborrow()), dy)
    }

    fn weight(&self, y: Sequence<'_, F>, _: &[Vec<I>]) -> f64 {
        self.options.reduction.weighs(y.dims().1 as f64)
    }

    fn total_weight(&self, y: Sequence<'_, F>, _: &[Vec<I>], weights: Weights<'_, F>) -> f64 {
        weights.check_shape(NAME, Parts::Sequences, [0, y.dims().1, 0]);
        self.options.reduction.weighs(total(y.dims().1, Some(weights)))
    }

    fn memory(&mut self) -> &mut Array3<F> {
        &mut self.memory.0
    }
}

impl<F: Float, I: Id> Ctc<F, I> {
    #[track_caller]
    fn evaluate_any(
        &self,
        y: Sequence<'_, F>,
        targets: &[Vec<I>],
        weights: Option<Weights<'_, F>>,
        dy: Option<&mut ArrayRef3<F>>,
    ) -> f64 {
        let labels = Labels { count: targets.len(), of: &|b| targets[b].len(), label: &|b, s| targets[b][s].index() };
        // If another thread is using the memory, this one allocates its own.
        match self.sums.try_lock() {
            Ok(mut sums) => evaluate(self.options, y.reborrow(), labels, weights.map(Weights::reborrow), &mut sums, dy),
            Err(_) => {
                evaluate(self.options, y.reborrow(), labels, weights.map(Weights::reborrow), &mut Sums::default(), dy)
            }
        }
    }
}

/// The number of sequences, or the sum of their weights.
#[track_caller]
fn total<F: Float>(batch: usize, weights: Option<Weights<'_, F>>) -> f64 {
    let mut total = 0.0;
    for b in 0..batch {
        total += weight_at(weights, NAME, [0, b, 0]);
    }
    total
}

/// The labels of a batch, of any type.
#[derive(Clone, Copy)]
struct Labels<'a> {
    count: usize,
    of: &'a dyn Fn(usize) -> usize,
    label: &'a dyn Fn(usize, usize) -> usize,
}

/// Both methods of summing over the paths of one sequence, and their inputs.
#[derive(Debug, Default)]
struct Sums {
    /// The T valid steps.
    valid: Vec<usize>,
    path: Path,
    /// `softmax(z_t)`, `[T, V]`
    p: Vec<f64>,
    scaled: Scaled,
    lattice: Lattice,
}

once! {
    #[track_caller]
    fn evaluate<'a, F: Float>(
        options: Options,
        sequence: Sequence<'a, F>,
        labels: Labels<'a>,
        weights: Option<Weights<'a, F>>,
        sums: &'a mut Sums,
        dlogits: Option<&'a mut ArrayRef3<F>>,
    ) -> f64 {
        let logits = sequence.features(NAME, None); // [T, B, V]
        let (steps, batch, classes) = logits.dim();
        check_shape(NAME, "targets (their number)", &[batch], &[labels.count]);
        if let Some(weights) = weights {
            weights.check_shape(NAME, Parts::Sequences, [steps, batch, classes]);
        }
        if options.blank >= classes {
            mismatch(NAME, "blank", &format_args!("a class below {classes}"), &options.blank)
        }
        for b in 0..batch {
            for s in 0..(labels.of)(b) {
                let label = (labels.label)(b, s);
                if label >= classes || label == options.blank {
                    let expected = format_args!("labels below {classes} that are not the blank, {}", options.blank);
                    mismatch(NAME, "targets", &expected, &format_args!("{label} as label {s} of sequence {b}"))
                }
            }
        }
        let logits = logits.as_standard_layout(); // a copy only if they are not
        let rows = logits.as_slice().expect("standard layout");
        let row = |t: usize, b: usize| &rows[(t * batch + b) * classes..][..classes];
        let mut gradient = dlogits.map(|dlogits| dlogits.as_slice_mut().expect("a gradient in standard layout"));
        let total_weight = total(batch, weights);
        let mut total = 0.0;
        for b in 0..batch {
            let count = (labels.of)(b);
            let weight = weight_at(weights, NAME, [0, b, 0]);
            if weight == 0.0 {
                if let Some(gradient) = &mut gradient {
                    (0..steps).for_each(|t| gradient[(t * batch + b) * classes..][..classes].fill(F::zero()));
                }
                continue;
            }
            let Sums { valid, path, p, scaled, lattice } = &mut *sums;
            valid.clear();
            valid.extend(sequence.valid_steps(b));
            let length = valid.len();
            path.set(options.blank, (0..count).map(|s| (labels.label)(b, s)));
            p.clear();
            valid.iter().for_each(|&t| p.extend(row(t, b).iter().map(|z| z.widen())));
            softmax(1.0, ArrayViewMut2::from_shape((length, classes), p).expect("a row for each step"));
            let quick = if length > 0 { scaled.forward(path, p, classes) } else { None };
            let log_p = quick.unwrap_or_else(|| {
                lattice.begin(length, path.classes.len());
                for (step, &t) in valid.iter().enumerate() {
                    let z = row(t, b);
                    let normaliser = normaliser(z);
                    lattice.forward_step(path, step, normaliser, |k| z[k].widen() - normaliser);
                }
                lattice.end()
            });
            let is_left_out = options.zero_infinity && log_p == f64::NEG_INFINITY;
            let weight = match options.reduction {
                Reduction::Mean => weight / (count.max(1) as f64 * total_weight),
                Reduction::Sum => weight,
            };
            total += if is_left_out { 0.0 } else { -log_p * weight };
            let Some(gradient) = &mut gradient else { continue };
            for t in (0..steps).filter(|&t| is_left_out || !sequence.valid(t, b)) {
                gradient[(t * batch + b) * classes..][..classes].fill(F::zero());
            }
            for (step, &t) in valid.iter().enumerate().rev().filter(|_| !is_left_out) {
                let d = &mut gradient[(t * batch + b) * classes..][..classes];
                if log_p == f64::NEG_INFINITY {
                    d.fill(F::nan());
                    continue;
                }
                let p = &p[step * classes..][..classes];
                let shares = if quick.is_some() {
                    scaled.backward_step(path, step, p)
                } else {
                    let (z, normaliser) = (row(t, b), lattice.normaliser(step));
                    lattice.backward_step(path, step, classes, |k| z[k].widen() - normaliser)
                };
                for ((d, &p), &share) in d.iter_mut().zip(p).zip(shares) {
                    *d = F::of(weight * (p - share));
                }
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Both methods give the same sums; the scaled one returns `None` if it cannot.
    #[test]
    fn scaled_sums_are_those_in_log_space() {
        let (mut path, mut scaled, mut lattice) = (Path::default(), Scaled::default(), Lattice::default());
        let (mut quick, mut lost) = (0, 0);
        for k in 0..600_usize {
            let (steps, classes, count) = (1 + k % 23, 2 + k % 5, k % 7);
            // With the last spread, all but one class of a step may be subnormal.
            let spread = [0.1, 3.0, 30.0, 300.0, 356.0][k % 5];
            let z = Array2::from_shape_fn((steps, classes), |(t, c)| {
                let wave = ((13 * t + 7 * c + k) as f64).sin();
                spread * if spread > 350.0 { wave.signum() + 1e-3 * wave } else { wave }
            });
            path.set(0, (0..count).map(|s| 1 + (s * s + k) % (classes - 1)));
            lattice.begin(steps, path.classes.len());
            let mut p = z.clone();
            softmax(1.0, p.view_mut());
            let log_p = |t: usize, c: usize| z[[t, c]] - z.row(t).fold(0.0, |sum, z| sum + z.exp()).ln();
            for t in 0..steps {
                lattice.forward_step(&path, t, 0.0, |c| log_p(t, c));
            }
            let want = lattice.end();
            let Some(got) = scaled.forward(&path, p.as_slice().unwrap(), classes) else {
                // There is no path, or its share is too small to ignore the states that vanished.
                assert!(want < -400.0, "{k}: {want}");
                lost += 1;
                continue;
            };
            quick += 1;
            assert!((got - want).abs() <= 1e-12 * want.abs().max(1.0), "{k}: {got} for {want}");
            for t in (0..steps).rev() {
                let want = lattice.backward_step(&path, t, classes, |c| log_p(t, c)).to_vec();
                let got = scaled.backward_step(&path, t, p.row(t).to_slice().unwrap());
                for (got, want) in got.iter().zip(want) {
                    assert!((got - want).abs() < 1e-11, "{k}, step {t}: {got} for {want}");
                }
            }
        }
        println!("{quick} by scaled sums, {lost} in log space only");
        assert!(quick > 200 && lost > 100, "{quick}, {lost}");
    }
}
