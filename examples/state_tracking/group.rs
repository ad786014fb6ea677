//! Groups, whose products are to be tracked.

use gradflow::ndarray::Array2;
use gradflow::rand::{Rng, RngExt};

/// A group, by its elements' products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Group {
    /// 0 and 1: whether the number of ones so far is odd.
    Parity,
    /// The permutations of three things, whose product depends on the order.
    S3,
}

/// The permutations of three things, the identity first.
const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

impl Group {
    pub fn name(self) -> &'static str {
        match self {
            Group::Parity => "parity",
            Group::S3 => "S3",
        }
    }

    /// The number of elements.
    pub fn order(self) -> usize {
        match self {
            Group::Parity => 2,
            Group::S3 => PERMUTATIONS.len(),
        }
    }

    /// `a`, then `b`.
    fn product(self, a: usize, b: usize) -> usize {
        match self {
            Group::Parity => a ^ b,
            Group::S3 => {
                let both = PERMUTATIONS[a].map(|k| PERMUTATIONS[b][k]);
                PERMUTATIONS.iter().position(|&p| p == both).expect("a permutation")
            }
        }
    }

    /// Random elements, `[T, B]`, and at each step the product of all up to it.
    pub fn draw(self, steps: usize, count: usize, rng: &mut impl Rng) -> [Array2<usize>; 2] {
        let elements = Array2::from_shape_simple_fn((steps, count), || rng.random_range(0..self.order()));
        let mut products = elements.clone();
        for t in 1..steps {
            for b in 0..count {
                products[[t, b]] = self.product(products[[t - 1, b]], elements[[t, b]]);
            }
        }
        [elements, products]
    }
}
