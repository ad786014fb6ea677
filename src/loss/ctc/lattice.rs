//! The forward and backward sums over all paths of one sequence, in log space, which works for any numbers.

use super::path::Path;
use crate::kernels::Float;
use crate::kernels::softmax::{beside_largest, largest};

/// The sums of one sequence, and the memory for them.
#[derive(Debug, Default)]
pub struct Lattice {
    steps: usize,
    states: usize,
    /// `α_t(s)`, `[T, 2 S + 1]`
    alpha: Vec<f64>,
    /// `β_t(s) + log softmax(z_t)_l'(s)` of the latest backward step, and of the previous one, `[2 S + 1]` each.
    beta: Vec<f64>,
    before: Vec<f64>,
    /// The `normaliser` of each step, `[T]`.
    normalisers: Vec<f64>,
    /// The share of all paths that are at each class, `[V]`.
    shares: Vec<f64>,
    log_p: f64,
}

const NONE: f64 = f64::NEG_INFINITY;

impl Lattice {
    /// Starts a sequence of `steps` steps, with `states` states in `l'`.
    pub fn begin(&mut self, steps: usize, states: usize) {
        (self.steps, self.states, self.log_p) = (steps, states, NONE);
        self.alpha.clear();
        self.alpha.resize(steps * states, NONE);
        self.normalisers.clear();
    }

    /// `α_t`, from `α_{t-1}` and the log-probabilities of the step's classes.
    pub fn forward_step(&mut self, path: &Path, t: usize, normaliser: f64, log_softmax: impl Fn(usize) -> f64) {
        self.normalisers.push(normaliser);
        let length = self.states;
        for s in 0..length {
            let arrived = match t.checked_sub(1) {
                // A path begins with the first blank or the first label.
                None if s < 2 => 0.0,
                None => NONE,
                Some(before) => {
                    let before = &self.alpha[before * length..][..length];
                    let one = if s > 0 { before[s - 1] } else { NONE };
                    let two = if path.skips(s) { before[s - 2] } else { NONE };
                    log_sum(before[s], one, two)
                }
            };
            if arrived > NONE || arrived.is_nan() {
                self.alpha[t * length + s] = arrived + log_softmax(path.classes[s]);
            }
        }
    }

    /// `log p`, over the paths that end with the last label or the last blank; prepares the backward steps.
    pub fn end(&mut self) -> f64 {
        let length = self.states;
        self.log_p = match self.steps.checked_sub(1) {
            // Without steps, there is a path only if there are no labels.
            None if length == 1 => 0.0,
            None => NONE,
            Some(last) => {
                let last = &self.alpha[last * length..][..length];
                log_sum(last[length - 1], if length > 1 { last[length - 2] } else { NONE }, NONE)
            }
        };
        self.beta.clear();
        self.beta.resize(length, NONE);
        self.log_p
    }

    pub fn normaliser(&self, t: usize) -> f64 {
        self.normalisers[t]
    }

    /// `Σ_{s: l'(s) = k} exp(α_t(s) + β_t(s)) / p` for each class k, called from the last step to the first. It keeps
    /// `β_t(s) + log softmax(z_t)_l'(s)` for the step before.
    pub fn backward_step(
        &mut self,
        path: &Path,
        t: usize,
        classes: usize,
        log_softmax: impl Fn(usize) -> f64,
    ) -> &[f64] {
        let length = self.states;
        std::mem::swap(&mut self.beta, &mut self.before);
        self.beta.clear();
        self.shares.clear();
        self.shares.resize(classes, 0.0);
        for s in 0..length {
            let beta = if t + 1 == self.steps {
                if s + 2 >= length { 0.0 } else { NONE }
            } else {
                let next = &self.before;
                let one = if s + 1 < length { next[s + 1] } else { NONE };
                let two = if s + 2 < length && path.skips(s + 2) { next[s + 2] } else { NONE };
                log_sum(next[s], one, two)
            };
            let class = path.classes[s];
            self.shares[class] += (self.alpha[t * length + s] + beta - self.log_p).exp();
            self.beta.push(beta + log_softmax(class));
        }
        &self.shares
    }
}

/// The normaliser of log-probabilities: `log softmax(z)_k = z_k - normaliser`.
pub fn normaliser<F: Float>(z: &[F]) -> f64 {
    let largest = largest(z);
    largest.widen() + beside_largest(largest, z).ln_1p()
}

/// `log(exp a + exp b + exp c)`; NaN if one of them is NaN.
pub fn log_sum(a: f64, b: f64, c: f64) -> f64 {
    let largest = a.max(b).max(c);
    if largest == NONE && !(a.is_nan() || b.is_nan() || c.is_nan()) {
        return NONE;
    }
    largest + ((a - largest).exp() + (b - largest).exp() + (c - largest).exp()).ln()
}
