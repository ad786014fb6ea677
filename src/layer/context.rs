//! The properties of a pass over a sequence, besides its values.

use crate::base::Mode;
use crate::kernels::PackedWeights;

/// The properties of a pass that every part of a model must know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a, F> {
    pub mode: Option<Mode>,
    /// The index of the first step here in the whole sequence.
    pub first_step: usize,
    /// The index of the first sequence here in the whole batch.
    pub first_sequence: usize,
    /// Whether recurrences go from the last step to the first.
    pub reversed: bool,
    /// Whether the values need no gradient.
    pub constant: bool,
    /// The packed weights of a [prepacked](crate::wrap::Prepacked) model.
    pub packed: Option<&'a PackedWeights<F>>,
}

// A derived implementation would require `F: Default`.
impl<F> Default for Context<'_, F> {
    fn default() -> Self {
        Context { mode: None, first_step: 0, first_sequence: 0, reversed: false, constant: false, packed: None }
    }
}
