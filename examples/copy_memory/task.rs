//! Copy memory: symbols that are to be repeated after many blanks.

use gradflow::loss::SoftmaxCrossEntropy;
use gradflow::ndarray::{Array2, Array3, ArrayView3, s};
use gradflow::rand::{Rng, RngExt};

use crate::trial::{Batch, Task};

/// The number of symbols at the start of each sequence that are to be remembered, and the number of their kinds.
pub const REMEMBERED: usize = 10;
pub const KINDS: usize = 8;

/// Class 0 is a blank, 1 to 8 are symbols, 9 is the sign to repeat them.
const CLASSES: usize = KINDS + 2;
const REPEAT: usize = KINDS + 1;

/// Copy memory of `blanks + 20` steps: ten symbols, the blanks, and at each of the last ten steps the sign to repeat a symbol. The
/// target of all other steps is a blank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyMemory {
    /// T
    pub blanks: usize,
}

impl CopyMemory {
    fn steps(self) -> usize {
        self.blanks + 2 * REMEMBERED
    }

    /// The cross-entropy of a model that knows when to answer but not what.
    pub fn without_memory(self) -> f64 {
        REMEMBERED as f64 * (KINDS as f64).ln() / self.steps() as f64
    }
}

impl Task for CopyMemory {
    /// `[T, B]`
    type Targets = Array2<usize>;
    type Loss = SoftmaxCrossEntropy<f32>;

    const INPUTS: usize = CLASSES;

    fn name(&self) -> String {
        format!("copy memory, T = {}", self.blanks)
    }

    fn outputs(&self) -> usize {
        CLASSES
    }

    fn draw(&self, count: usize, rng: &mut impl Rng) -> Batch<Array2<usize>> {
        let steps = self.steps();
        let mut x = Array3::zeros((steps, count, CLASSES));
        let mut targets = Array2::zeros((steps, count));
        for b in 0..count {
            for t in 0..steps {
                let symbol = match t {
                    _ if t < REMEMBERED => rng.random_range(1..=KINDS),
                    _ if t + REMEMBERED >= steps => REPEAT,
                    _ => 0,
                };
                x[[t, b, symbol]] = 1.0;
                if t < REMEMBERED {
                    targets[[steps - REMEMBERED + t, b]] = symbol;
                }
            }
        }
        Batch { x, lengths: vec![steps; count], targets }
    }

    fn loss(&self) -> SoftmaxCrossEntropy<f32> {
        SoftmaxCrossEntropy::new()
    }

    /// A sequence is wrong if one of the ten symbols is.
    fn wrong(&self, y: &ArrayView3<'_, f32>, batch: &Batch<Array2<usize>>, _: f32) -> usize {
        let steps = self.steps();
        let is_right = |t: usize, b: usize| {
            let (logits, class) = (y.slice(s![t, b, ..]), batch.targets[[t, b]]);
            (0..CLASSES).all(|k| k == class || logits[k] < logits[class])
        };
        let right = |b: &usize| (steps - REMEMBERED..steps).all(|t| is_right(t, *b));
        let count = batch.lengths.len();
        count - (0..count).filter(right).count()
    }
}
