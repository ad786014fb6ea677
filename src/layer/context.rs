//! What a pass over a sequence is, besides the values that it is given.

use crate::base::Mode;
use crate::kernels::PackedWeights;

/// What every part of a model must know of the pass that it takes part in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a, F> {
    pub mode: Option<Mode>,
    /// The step of the whole sequence that is the first one here.
    pub first_step: usize,
    /// The sequence of the whole batch that is the first one here.
    pub first_sequence: usize,
    /// Whether recurrences go from the last step to the first.
    pub reversed: bool,
    /// Whether the values need no gradient.
    pub constant: bool,
    /// The packed weights of a [prepacked](crate::wrap::Prepacked) model.
    pub packed: Option<&'a PackedWeights<F>>,
}

// Derived, it would ask F to be so too.
impl<F> Default for Context<'_, F> {
    fn default() -> Self {
        Context { mode: None, first_step: 0, first_sequence: 0, reversed: false, constant: false, packed: None }
    }
}
