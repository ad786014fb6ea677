//! Inputs of the contract's passes.

use ndarray::{Array2, Array3, ArrayRef2, Axis, s};

use super::values::batch_first;
use crate::kernels::Float;
use crate::layer::Sequence;

/// The input of a layer under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Features `[T, B, D]`, with this D.
    Features(usize),
    /// Token ids `[T, B]`, below this number, which is at least 2.
    Tokens(usize),
}

impl From<usize> for Input {
    fn from(features: usize) -> Self {
        Input::Features(features)
    }
}

/// An input that owns its values.
#[derive(Clone)]
pub(super) struct Batch<F> {
    features: Array3<F>,
    tokens: Option<(Array2<usize>, usize)>,
    /// Whether it has junk past the lengths.
    pub junk: bool,
}

impl<F: Float> Batch<F> {
    pub fn draw(input: Input, steps: usize, batch: usize) -> Self {
        let value = |t: usize, b: usize, d: usize| (1.1 * t as f64 + 2.7 * b as f64 + 4.3 * d as f64 + 0.3).sin();
        let (features, tokens) = match input {
            Input::Features(features) => (features, None),
            Input::Tokens(below) => {
                (0, Some((Array2::from_shape_fn((steps, batch), |(t, b)| (3 * t + 5 * b + 1) % below), below)))
            }
        };
        let features = Array3::from_shape_fn((steps, batch, features), |(t, b, d)| F::of(value(t, b, d)));
        Batch { features, tokens, junk: false }
    }

    pub fn sequence(&self) -> Sequence<'_, F> {
        match &self.tokens {
            Some((ids, _)) => ids.into(),
            None => (&self.features).into(),
        }
    }

    pub fn changed(mut self) -> Self {
        self.features.mapv_inplace(|value| value * F::of(-0.9));
        if let Some((ids, below)) = &mut self.tokens {
            let below = *below;
            ids.mapv_inplace(|id| (id + 1) % below);
        }
        self
    }

    /// The number of values or ids.
    pub fn len(&self) -> usize {
        self.tokens.as_ref().map_or(self.features.len(), |(ids, _)| ids.len())
    }

    /// Changes the value, or id, at index `k`.
    pub fn changed_at(mut self, k: usize) -> Self {
        if let Some((ids, below)) = &mut self.tokens {
            let id = &mut ids.as_slice_mut().expect("standard layout")[k];
            *id = (*id + 1) % *below;
        } else {
            self.features.as_slice_mut().expect("standard layout")[k] += F::of(0.5);
        }
        self
    }

    /// Puts NaN, or ids out of range, past the lengths.
    pub fn with_padding(&self, lengths: &[usize]) -> Self {
        self.with_junk(&Array2::from_shape_fn(self.sequence().dims(), |(t, b)| t < lengths[b]))
    }

    /// Puts NaN, or ids out of range, at the positions that are not valid.
    pub fn with_junk(&self, valid: &ArrayRef2<bool>) -> Self {
        let mut junk = self.clone();
        junk.junk = true;
        for ((t, b), _) in valid.indexed_iter().filter(|&(_, &valid)| !valid) {
            match &mut junk.tokens {
                Some((ids, _)) => ids[[t, b]] = usize::MAX,
                None => junk.features.slice_mut(s![t, b, ..]).fill(F::of(f64::NAN)),
            }
        }
        junk
    }

    /// Some steps of a sequence.
    pub fn select(&self, steps: &[usize], b: usize) -> Self {
        let one = self.part(0..self.sequence().dims().0, b..b + 1);
        let tokens = one.tokens.map(|(ids, below)| (ids.select(Axis(0), steps), below));
        let steps = if tokens.is_some() { &[] } else { steps };
        Batch { features: one.features.select(Axis(0), steps), tokens, junk: self.junk }
    }

    pub fn in_other_order(&self) -> Self {
        let turn = |ids: &Array2<usize>| ids.t().as_standard_layout().into_owned().reversed_axes();
        let tokens = self.tokens.as_ref().map(|(ids, below)| (turn(ids), *below));
        Batch { features: batch_first(&self.features), tokens, junk: self.junk }
    }

    /// The features of a step of the first sequence.
    pub fn cut_step(&self, t: usize) -> Vec<F> {
        self.features.slice(s![t, 0, ..]).to_vec()
    }

    pub fn cut(&self, b: usize, length: usize) -> Self {
        self.part(0..length, b..b + 1)
    }

    pub fn split(&self, at: usize) -> (Self, Self) {
        let (steps, batch) = self.sequence().dims();
        (self.part(0..at, 0..batch), self.part(at..steps, 0..batch))
    }

    fn part(&self, steps: std::ops::Range<usize>, sequences: std::ops::Range<usize>) -> Self {
        let part = |ids: &Array2<usize>| ids.slice(s![steps.clone(), sequences.clone()]).to_owned();
        let tokens = self.tokens.as_ref().map(|(ids, below)| (part(ids), *below));
        let steps = if self.tokens.is_some() { 0..0 } else { steps };
        let sequences = if self.tokens.is_some() { 0..0 } else { sequences };
        Batch { features: self.features.slice(s![steps, sequences, ..]).to_owned(), tokens, junk: self.junk }
    }
}
