//! Zoneout: random units of a state keep their values for a step.

use rand::Rng;

use crate::base::random::{Mask, chosen};
use crate::base::{Mode, RandomDrop};
use crate::kernels::{Float, vectorised};
use crate::layer::Sequence;

/// Zoneout (Krueger et al. 2017): in training, each unit of the state keeps its value for a step with a given probability; in
/// evaluation, the state is its expected value.
///
/// ```text
/// train(seed):      h_t = m ∘ h_{t-1} + (1 - m) ∘ h̃_t        m = 1 with probability p, else 0
/// eval(), infer():  h_t = p h_{t-1} + (1 - p) h̃_t             h̃_t: what the cell computes
/// ```
///
/// The same holds for the memory. Like [dropout](crate::layers::Dropout)'s, the mask is a hash of the seed, the cell's id, `t`, `b`
/// and the unit, and a pass must have a mode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zoneout {
    pub(crate) h: RandomDrop,
    pub(crate) c: RandomDrop,
}

impl Zoneout {
    /// Zoneout with probability `h` for units of h and `c` for units of the memory; the id of its masks is drawn from `rng`.
    ///
    /// # Panics
    /// Panics if a probability is not in `0..1`.
    #[track_caller]
    pub fn new(h: f64, c: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        Zoneout { h: RandomDrop::new("zoneout", h, rng), c: RandomDrop::new("zoneout", c, rng) }
    }
}

/// The zoneout of h or of the memory in one pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassZoneout {
    mix: Mix,
    /// The index of the pass's first step in the whole sequence.
    start: usize,
    /// The index of the pass's first sequence in the whole batch.
    first: usize,
}

/// How a state is mixed from the previous state and the candidate.
#[derive(Clone, Copy, Debug)]
enum Mix {
    /// The candidate alone.
    Candidate,
    /// In training: the units of the mask come from the previous state.
    Units(Mask),
    /// In evaluation: this share of the previous state, the rest of the candidate.
    Share(f64),
}

impl PassZoneout {
    /// For a pass over `x`, with the probability of `drop`.
    #[track_caller]
    pub fn new<F: Float>(cell: &str, drop: RandomDrop, x: &Sequence<'_, F>) -> Self {
        let mix = match (x.mode(), drop.mask(cell, x.mode())) {
            (_, Some(mask)) => Mix::Units(mask),
            (Some(Mode::Eval | Mode::Infer), None) if drop.p > 0.0 => Mix::Share(drop.p),
            _ => Mix::Candidate,
        };
        PassZoneout { mix, start: x.first_step(), first: x.first_sequence() }
    }

    /// The mask of one sequence at time `t`.
    fn mask_at(self, mask: Mask, t: usize, b: usize) -> Mask {
        mask.part(self.start + t).part(self.first + b)
    }

    /// Mixes the state of one sequence at time `t` from the previous state and the candidate.
    pub fn forward<F: Float>(self, t: usize, b: usize, before: &[F], candidate: &[F], after: &mut [F]) {
        match self.mix {
            Mix::Candidate => after.copy_from_slice(candidate),
            Mix::Units(mask) => choose(self.mask_at(mask, t, b), before, candidate, after),
            Mix::Share(share) => mix(F::of(share), before, candidate, after),
        }
    }

    /// Turns the gradient `d` of a state into that of its candidate; the gradient that bypasses the cell to the previous state goes
    /// to `before`.
    pub fn backward<F: Float>(self, t: usize, b: usize, d: &mut [F], before: &mut [F]) {
        match self.mix {
            Mix::Candidate => before.fill(F::zero()),
            Mix::Units(mask) => choose_backward(self.mask_at(mask, t, b), d, before),
            Mix::Share(share) => mix_backward(F::of(share), d, before),
        }
    }
}

vectorised! {
    fn choose<'a, F: Float>(mask: Mask, before: &'a [F], candidate: &'a [F], after: &'a mut [F]) {
        for (k, (after, (&before, &candidate))) in after.iter_mut().zip(before.iter().zip(candidate)).enumerate() {
            *after = if chosen(mask, k) { before } else { candidate };
        }
    }

    fn choose_backward<'a, F: Float>(mask: Mask, d: &'a mut [F], before: &'a mut [F]) {
        for (k, (d, before)) in d.iter_mut().zip(before).enumerate() {
            (*d, *before) = if chosen(mask, k) { (F::zero(), *d) } else { (*d, F::zero()) };
        }
    }

    fn mix<'a, F: Float>(share: F, before: &'a [F], candidate: &'a [F], after: &'a mut [F]) {
        for (after, (&before, &candidate)) in after.iter_mut().zip(before.iter().zip(candidate)) {
            *after = candidate + share * (before - candidate);
        }
    }

    fn mix_backward<'a, F: Float>(share: F, d: &'a mut [F], before: &'a mut [F]) {
        for (d, before) in d.iter_mut().zip(before) {
            *before = share * *d;
            *d -= *before;
        }
    }
}
