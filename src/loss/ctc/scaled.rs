//! The sums over all paths of one sequence, as probabilities that are scaled at each step, without an exponential per state.

use super::path::Path;

/// A state with a smaller share of all paths counts as 0: the range of f64 ends a little below.
const VANISHED: f64 = 1e-300;

/// States that vanished can be ignored if `p` is at least this share of all paths before the first of them vanished.
const SAFE: f64 = 1e-200;

/// The sums of one sequence, and the memory for them.
///
/// ```text
/// C_t a_t(s) = softmax(z_t)_l'(s) Σ_r a_{t-1}(r)                 with C_t such that Σ_s a_t(s) = 1
/// b_t(s) = Σ_r softmax(z_{t+1})_l'(r) b_{t+1}(r) / C_{t+1}       so that Σ_s a_t(s) b_t(s) = a_T(2 S) + a_T(2 S - 1) = E for every t
///
/// log p = log E + Σ_t log C_t
/// ```
#[derive(Debug, Default)]
pub struct Scaled {
    /// `a_t(s)`, `[T, 2 S + 1]`
    a: Vec<f64>,
    /// `1 / C_t`, `[T]`
    scales: Vec<f64>,
    /// `b_t(s) softmax(z_t)_l'(s)` of the latest backward step, and of the previous one, `[2 S + 1]` each.
    b: Vec<f64>,
    next: Vec<f64>,
    /// The share of all paths that are at each class, `[V]`.
    shares: Vec<f64>,
    end: f64,
}

impl Scaled {
    /// `log p`, for the class probabilities of at least one step, `[T, V]`; `None` if too much of `p` may have vanished.
    pub fn forward(&mut self, path: &Path, p: &[f64], classes: usize) -> Option<f64> {
        let (length, steps) = (path.classes.len(), p.len() / classes);
        self.a.clear();
        self.a.resize(steps * length, 0.0);
        self.scales.clear();
        let (mut log_p, mut lost, mut first_loss) = (0.0, false, None); // of all paths so far
        for (t, p) in p.chunks_exact(classes).enumerate() {
            let (before, a) = self.a.split_at_mut(t * length);
            let a = &mut a[..length];
            for (s, state) in a.iter_mut().enumerate() {
                // A path begins with the first blank or the first label.
                let arrived = t.checked_sub(1).map_or(if s < 2 { 1.0 } else { 0.0 }, |last| {
                    let before = &before[last * length..];
                    let one = if s > 0 { before[s - 1] } else { 0.0 };
                    let two = if path.skips(s) { before[s - 2] } else { 0.0 };
                    before[s] + one + two
                });
                *state = p[path.classes[s]] * arrived;
                lost |= arrived > 0.0 && *state < VANISHED;
            }
            let sum: f64 = a.iter().sum();
            let scale = 1.0 / sum;
            for state in a.iter_mut() {
                let share = *state * scale;
                lost |= *state > 0.0 && share < VANISHED;
                // Arithmetic with subnormal numbers is slow.
                *state = if share < VANISHED { 0.0 } else { share };
            }
            self.scales.push(scale);
            if lost && first_loss.is_none() {
                first_loss = Some(log_p);
            }
            log_p += sum.ln();
        }
        let last = &self.a[(steps - 1) * length..];
        self.end = last[length - 1] + if length > 1 { last[length - 2] } else { 0.0 };
        self.b.clear();
        let all = log_p + self.end.ln();
        let is_safe = first_loss.is_none_or(|then| all - then > SAFE.ln());
        (all.is_finite() && is_safe).then_some(all)
    }

    /// `Σ_{s: l'(s) = k} a_t(s) b_t(s) / E` for each class k, called from the last step to the first.
    pub fn backward_step(&mut self, path: &Path, t: usize, p: &[f64]) -> &[f64] {
        let length = path.classes.len();
        std::mem::swap(&mut self.b, &mut self.next);
        self.b.clear();
        self.shares.clear();
        self.shares.resize(p.len(), 0.0);
        let (a, is_last) = (&self.a[t * length..][..length], (t + 1) * length == self.a.len());
        let scale = if is_last { 1.0 } else { self.scales[t + 1] };
        for s in 0..length {
            let b = if is_last {
                if s + 2 >= length { 1.0 } else { 0.0 }
            } else {
                let one = if s + 1 < length { self.next[s + 1] } else { 0.0 };
                let two = if s + 2 < length && path.skips(s + 2) { self.next[s + 2] } else { 0.0 };
                // Only a state that has vanished can exceed this.
                ((self.next[s] + one + two) * scale).min(1.0 / VANISHED)
            };
            self.shares[path.classes[s]] += a[s] * b / self.end;
            self.b.push(b * p[path.classes[s]]);
        }
        &self.shares
    }
}
