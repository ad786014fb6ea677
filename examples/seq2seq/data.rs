//! Pairs of words and digits.

use std::collections::HashSet;

use gradflow::Sequence;
use gradflow::ndarray::Array2;
use gradflow::rand::{Rng, RngExt};

use crate::words::{DIGITS, END, digits, words};

/// What a number is for: by a hash that has nothing to do with its digits, eight in ten are learned from.
#[derive(Clone, Copy, PartialEq)]
pub enum Part {
    Training,
    /// For the choice of settings, and for curves.
    Validation,
    /// For trained models.
    Test,
}

impl Part {
    fn of(number: u64) -> Self {
        match (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 & 0xffff {
            0..0x199a => Part::Test,
            0x199a..0x3333 => Part::Validation,
            _ => Part::Training,
        }
    }

    /// A number of this part; from one digit to [`DIGITS`], all counts are equally likely.
    fn draw(self, rng: &mut impl Rng) -> u64 {
        loop {
            let end = 10u64.pow(rng.random_range(1..=DIGITS as u32));
            let number = rng.random_range(if end == 10 { 0 } else { end / 10 }..end);
            if Part::of(number) == self {
                return number;
            }
        }
    }

    /// So many of them, each another one.
    pub fn numbers(self, count: usize, rng: &mut impl Rng) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut known = HashSet::new();
        while numbers.len() < count {
            let number = self.draw(rng);
            if known.insert(number) {
                numbers.push(number);
            }
        }
        numbers
    }
}

/// Numbers side by side: their words, and their digits as the decoder reads and writes them.
pub struct Batch {
    source: Array2<usize>, // [S, B]
    source_lengths: Vec<usize>,
    given: Array2<usize>, // [T, B]: END, then the digits
    /// `[T, B]`: the digits, then END.
    pub target: Array2<usize>,
    /// With END.
    pub target_lengths: Vec<usize>,
}

impl Batch {
    /// Of numbers, in their order.
    pub fn new(numbers: &[u64]) -> Self {
        let answers: Vec<Vec<usize>> = numbers.iter().map(|&number| digits(number)).collect();
        let lengths: Vec<usize> = answers.iter().map(|answer| answer.len() + 1).collect();
        let shape = (lengths.iter().copied().max().unwrap_or(1), numbers.len());
        let at = |k: usize, b: usize| answers[b].get(k).copied().unwrap_or(END);
        let batch = Self::of_words(&numbers.iter().map(|&number| words(number)).collect::<Vec<_>>());
        Batch {
            given: Array2::from_shape_fn(shape, |(t, b)| t.checked_sub(1).map_or(END, |before| at(before, b))),
            target: Array2::from_shape_fn(shape, |(t, b)| at(t, b)),
            target_lengths: lengths,
            ..batch
        }
    }

    /// Of phrases whose numbers are not known.
    pub fn of_words(phrases: &[Vec<usize>]) -> Self {
        let lengths: Vec<usize> = phrases.iter().map(Vec::len).collect();
        let shape = (lengths.iter().copied().max().unwrap_or(1), phrases.len());
        Batch {
            source: Array2::from_shape_fn(shape, |(s, b)| phrases[b].get(s).copied().unwrap_or(0)),
            source_lengths: lengths,
            given: Array2::default((0, 0)),
            target: Array2::default((0, 0)),
            target_lengths: Vec::new(),
        }
    }

    /// B
    pub fn count(&self) -> usize {
        self.source.ncols()
    }

    /// The words.
    pub fn source(&self) -> Sequence<'_, f32> {
        Sequence::from(&self.source).with_lengths(&self.source_lengths).expect("a length for every phrase")
    }

    /// What the decoder reads while it is trained.
    pub fn given(&self) -> Sequence<'_, f32> {
        Sequence::from(&self.given).with_lengths(&self.target_lengths).expect("a length for every number")
    }
}
