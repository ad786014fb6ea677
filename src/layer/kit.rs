//! What a layer is made of besides its equations: buffers that are reused, the mark of a forward pass that awaits its
//! backward, and a check of shapes.

use ndarray::{Array, Array3, ArrayRef3, ArrayView2, ArrayView3, Dimension, IntoDimension};

use super::sequence::Sequence;
use crate::base::Mode;
use crate::base::error::mismatch;
pub use crate::base::{check_gradient, check_shape};
use crate::kernels::Float;

/// Gives `buffer` the shape `shape`, in the memory it has if that is enough. What it then holds is unspecified.
pub fn reuse<F: Float, D: Dimension>(buffer: &mut Array<F, D>, shape: impl IntoDimension<Dim = D>) {
    let shape = shape.into_dimension();
    if buffer.raw_dim() != shape || !buffer.is_standard_layout() {
        let (mut memory, _) = std::mem::take(buffer).into_raw_vec_and_offset();
        memory.resize(shape.size(), F::zero());
        *buffer = Array::from_shape_vec(shape, memory).expect("the memory has the shape's size");
    }
}

/// The mark that a forward pass leaves in a cache and its backward pass takes: so a stale cache or another input
/// panics instead of giving wrong gradients.
///
/// It keeps `T`, `B`, the mode and a fingerprint of a few dozen values of `x`; [`Layer::pass`](crate::Layer::pass) goes further
/// and has the compiler refuse such mistakes.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    last: LastPass,
    same_seed: SameSeed,
}

#[derive(Clone, Debug, Default)]
enum LastPass {
    #[default]
    None,
    Inference,
    Forward(u64),
}

/// The training passes in a row that had the same seed and each another input.
#[derive(Clone, Debug, Default)]
struct SameSeed {
    seed: u64,
    fingerprint: u64,
    passes: u32,
}

/// So many training steps in a row with the same seed and other inputs are taken for a mistake.
const SAME_SEED: u32 = 100;

impl Pending {
    /// A forward pass over `x` is done; in [`Mode::Infer`] no backward pass may follow.
    pub fn set<F: Float>(&mut self, x: &Sequence<'_, F>) {
        self.last = match x.mode() {
            Some(Mode::Infer) => LastPass::Inference,
            _ => LastPass::Forward(x.fingerprint()),
        };
    }

    /// For layers that drop something at random, before [`take`](Pending::take): each training step should have a seed of its
    /// own. The same seed again for the same input, as in a gradient check, or for a later chunk of a sequence is no mistake.
    ///
    /// # Panics
    /// Panics at the 100th backward pass in a row that has the same seed and another input than the one before.
    #[track_caller]
    pub fn expect_another_seed<F: Float>(&mut self, layer: &str, x: &Sequence<'_, F>) {
        let Some(Mode::Train { seed }) = x.mode() else { return };
        if x.first_step() > 0 || x.first_sequence() > 0 {
            return;
        }
        let (fingerprint, last) = (x.fingerprint(), &self.same_seed);
        let passes = match (last.seed == seed, last.fingerprint == fingerprint) {
            (false, _) => 1,
            (true, true) => last.passes.max(1),
            (true, false) => last.passes + 1,
        };
        if passes >= SAME_SEED {
            let got = format_args!("seed {seed} in {passes} steps in a row, so that the same units are always dropped");
            mismatch(layer, "x", &"another seed in each training step, as in x.train(step)", &got)
        }
        self.same_seed = SameSeed { seed, fingerprint, passes };
    }

    /// Its backward pass begins, for the layer named `layer` with `output` features.
    ///
    /// # Panics
    /// Panics if no forward pass is pending, it had another `x`, or `dy` is not `[T, B, output]`.
    #[track_caller]
    pub fn take<F: Float>(&mut self, layer: &str, x: &Sequence<'_, F>, dy: &ArrayRef3<F>, output: usize) {
        self.take_with_steps(layer, x, dy, x.dims().0, output);
    }

    /// As [`take`](Pending::take), for a layer whose output has `steps` steps: see
    /// [`Layer::output_steps`](crate::Layer::output_steps).
    ///
    /// # Panics
    /// Panics if no forward pass is pending, it had another `x`, or `dy` is not `[steps, B, output]`.
    #[track_caller]
    pub fn take_with_steps<F: Float>(
        &mut self,
        layer: &str,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        steps: usize,
        output: usize,
    ) {
        let batch = x.dims().1;
        let expected = "a forward pass that awaits its backward";
        match std::mem::take(&mut self.last) {
            LastPass::Forward(fingerprint) if fingerprint == x.fingerprint() => {}
            LastPass::Forward(_) => {
                mismatch(layer, "x", &"the x of the forward pass, in its mode", &"another (stale cache)")
            }
            LastPass::Inference => mismatch(layer, "cache", &expected, &"an inference pass, which keeps nothing"),
            LastPass::None => mismatch(layer, "cache", &expected, &"a stale cache"),
        }
        check_shape(layer, "dy", &[steps, batch, output], dy.shape());
    }
}

/// A copy in standard layout of the arrays that are not, so that kernels see rows side by side.
#[derive(Clone, Debug, Default)]
pub struct StandardLayout<F>(Array3<F>);

impl<F: Float> StandardLayout<F> {
    /// `x`, or its copy if it is not in standard layout.
    pub fn view<'a>(&'a mut self, x: ArrayView3<'a, F>) -> ArrayView3<'a, F> {
        if x.is_standard_layout() {
            return x;
        }
        reuse(&mut self.0, x.raw_dim());
        self.0.assign(&x);
        self.0.view()
    }

    /// The `T * B` rows of `x` (`[T, B, D]` as `[T * B, D]`): its own memory if that is in standard layout.
    pub fn rows<'a>(&'a mut self, x: ArrayView3<'a, F>) -> ArrayView2<'a, F> {
        rows(self.view(x))
    }

    /// The same rows as plain values, one after the other.
    pub fn values<'a>(&'a mut self, x: ArrayView3<'a, F>) -> &'a [F] {
        self.rows(x).to_slice().expect("standard layout")
    }
}

/// `[T, B, D]` in standard layout as `[T * B, D]`.
pub(crate) fn rows<F: Float>(x: ArrayView3<'_, F>) -> ArrayView2<'_, F> {
    let (steps, batch, features) = x.dim();
    x.into_shape_with_order((steps * batch, features)).expect("standard layout")
}

/// `Debug` for types whose contents say nothing to a reader: caches.
macro_rules! opaque_debug {
    ($t:ident<$l:ident: $bound:path>) => {
        impl<$l: $bound> std::fmt::Debug for $t<$l> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($t)).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use opaque_debug;
