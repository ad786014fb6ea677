//! The two forms of the temporal order problem.

use gradflow::loss::SoftmaxCrossEntropy;
use gradflow::ndarray::{Array2, Array3, ArrayView3, s};
use gradflow::rand::{Rng, RngExt};

use crate::trial::{Batch, Task};

/// An answer is right if the error of every output is below this.
pub const TOLERANCE: f32 = 0.3;

/// The range of the lengths of sequences, both ends included.
const LENGTHS: (usize, usize) = (100, 110);

/// The inputs of the symbols: the first and the last of every sequence, the two that matter, and four that do not.
const START: usize = 0;
const END: usize = 1;
const MATTER: usize = 2;
const DISTRACT: usize = 4;
const SYMBOLS: usize = 8;

/// The target at a step that is not the last: ignored.
const NONE: usize = usize::MAX;

/// Two or three symbols, each an X or a Y, stand far apart among others; at the end of the sequence, the model says which they
/// were, in their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TemporalOrder {
    /// Experiment 6a: four classes.
    Two,
    /// Experiment 6b: eight classes.
    Three,
}

impl TemporalOrder {
    /// The positions of the symbols that matter: somewhere in each of these ranges, both ends included.
    fn places(self) -> &'static [(usize, usize)] {
        match self {
            TemporalOrder::Two => &[(10, 20), (50, 60)],
            TemporalOrder::Three => &[(10, 20), (33, 43), (66, 76)],
        }
    }
}

impl Task for TemporalOrder {
    /// `[T, B]`: the symbols that matter as binary digits, X for 0 and Y for 1.
    type Targets = Array2<usize>;
    type Loss = SoftmaxCrossEntropy<f32>;

    const INPUTS: usize = SYMBOLS;

    fn name(&self) -> String {
        match self {
            TemporalOrder::Two => "6a, two symbols".into(),
            TemporalOrder::Three => "6b, three symbols".into(),
        }
    }

    fn outputs(&self) -> usize {
        1 << self.places().len()
    }

    fn draw(&self, count: usize, rng: &mut impl Rng) -> Batch<Array2<usize>> {
        let mut lengths: Vec<usize> = (0..count).map(|_| rng.random_range(LENGTHS.0..=LENGTHS.1)).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));

        let mut x = Array3::zeros((lengths[0], count, SYMBOLS));
        let mut targets = Array2::from_elem((lengths[0], count), NONE);
        for (b, &length) in lengths.iter().enumerate() {
            let mut symbols: Vec<usize> = (0..length).map(|_| rng.random_range(DISTRACT..SYMBOLS)).collect();
            symbols[0] = START;
            symbols[length - 1] = END;
            let mut class = 0;
            for &(first, last) in self.places() {
                let digit = rng.random_range(0..2);
                symbols[rng.random_range(first..=last)] = MATTER + digit;
                class = 2 * class + digit;
            }
            for (t, symbol) in symbols.into_iter().enumerate() {
                x[[t, b, symbol]] = 1.0;
            }
            targets[[length - 1, b]] = class;
        }
        Batch { x, lengths, targets }
    }

    fn loss(&self) -> SoftmaxCrossEntropy<f32> {
        SoftmaxCrossEntropy::new().ignore(NONE)
    }

    fn wrong(&self, y: &ArrayView3<'_, f32>, batch: &Batch<Array2<usize>>, share: f32) -> usize {
        let right = |(b, &length): (usize, &usize)| {
            let class = batch.targets[[length - 1, b]];
            let logits = y.slice(s![length - 1, b, ..]);
            let total: f32 = logits.iter().map(|z| (z - logits[class]).exp()).sum();
            // Of probabilities, that of the class itself is the farthest off.
            1.0 - 1.0 / total < share * TOLERANCE
        };
        batch.lengths.len() - batch.lengths.iter().enumerate().filter(|&sequence| right(sequence)).count()
    }
}
