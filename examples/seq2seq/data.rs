//! Pairs of words and digits.

use std::collections::HashSet;

use gradflow::data::{self, Samples};
use gradflow::ndarray::Array2;
use gradflow::rand::{Rng, RngExt};

use crate::words::{DIGITS, END, digits, words};

/// The use of a number. By a hash that has nothing to do with its digits, eight in ten are for training.
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

    /// `count` different numbers of this part.
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

/// A batch of numbers: their words, and their digits as the decoder reads and writes them.
pub struct Batch {
    /// The words, `[S, B]`.
    pub source: data::Batch<f32, ()>,
    /// The decoder's inputs in training, END and then the digits, and as targets the digits and then END, `[T, B]`.
    pub answers: data::Batch<f32, Array2<usize>>,
}

impl Batch {
    /// A batch of numbers, in their order.
    pub fn new(numbers: &[u64]) -> Self {
        let digits: Vec<Vec<usize>> = numbers.iter().map(|&number| digits(number)).collect();
        let given = digits.iter().map(|digits| [&[END], &digits[..]].concat());
        let written = digits.iter().map(|digits| [&digits[..], &[END]].concat());
        let answers = Samples::ids(given).with_tags(written).all();
        Batch { answers, source: source(numbers.iter().map(|&number| words(number))) }
    }
}

/// A batch of phrases.
pub fn source(phrases: impl IntoIterator<Item = Vec<usize>>) -> data::Batch<f32, ()> {
    Samples::ids(phrases).all()
}
