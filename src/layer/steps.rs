//! The number of steps of a layer's output.

/// The number of steps of a layer's output, as a function of that of its input.
///
/// ```
/// use gradflow::author::Steps;
///
/// assert_eq!(Steps::Every(2).of(5), 3); // steps 0, 2 and 4
/// assert_eq!(Steps::Every(2).then(Steps::Every(3)), Steps::Every(6));
/// assert_eq!(Steps::Every(2).then(Steps::Count(4)), Steps::Count(4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// The steps of the input, with its lengths.
    Same,
    /// This many, whatever the input has: the output has its own time axis, without lengths.
    Count(usize),
    /// One for every n steps, from the first on: `⌈T / n⌉`, and likewise for each length.
    Every(usize),
}

impl Steps {
    /// The number of steps for an input of `steps`.
    pub fn of(self, steps: usize) -> usize {
        match self {
            Steps::Same => steps,
            Steps::Count(count) => count,
            Steps::Every(stride) => steps.div_ceil(stride),
        }
    }

    /// The steps of this layer followed by `next`.
    pub fn then(self, next: Steps) -> Steps {
        match (self, next) {
            (steps, Steps::Same) => steps,
            (_, Steps::Count(count)) => Steps::Count(count),
            (Steps::Same, Steps::Every(stride)) => Steps::Every(stride),
            (Steps::Count(count), Steps::Every(stride)) => Steps::Count(count.div_ceil(stride)),
            (Steps::Every(first), Steps::Every(second)) => Steps::Every(first.saturating_mul(second)),
        }
    }
}
