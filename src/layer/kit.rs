//! Building blocks of layers besides their equations: buffers that are reused, the mark of a forward pass that awaits its
//! backward, and a check of shapes.

use ndarray::{Array, Array3, ArrayRef3, ArrayView2, ArrayView3, Dimension, IntoDimension};

use super::fingerprint::{CHECKS_ALL, Fingerprint};
use super::sequence::Sequence;
use crate::base::error::mismatch;
use crate::base::{Mode, Tensors};
pub use crate::base::{check_gradient, check_shape};
use crate::kernels::Float;

/// Gives `buffer` the shape `shape`, in the memory it has if that is enough. Its values are then unspecified.
pub fn reuse<F: Float, D: Dimension>(buffer: &mut Array<F, D>, shape: impl IntoDimension<Dim = D>) {
    let shape = shape.into_dimension();
    if buffer.raw_dim() != shape || !buffer.is_standard_layout() {
        let (mut memory, _) = std::mem::take(buffer).into_raw_vec_and_offset();
        memory.resize(shape.size(), F::zero());
        *buffer = Array::from_shape_vec(shape, memory).expect("the memory has the shape's size");
    }
}

/// The mark that a forward pass leaves in a cache and its backward pass takes, so that a stale cache or another input
/// panics instead of giving wrong gradients.
///
/// ```text
/// let mark = pending.begin(self, x);       first of all: what the cache held before awaits no backward pass any more
/// …                                        the forward pass; if it panics, no backward pass is accepted after it
/// mark.set();
///
/// pending.take(NAME, self, x, dy, output)  first of all in the backward pass
/// ```
///
/// | is it that of the forward pass? | release builds | debug builds |
/// | --- | --- | --- |
/// | `T`, `B`, lengths, direction, place in a larger batch, seed, whether it is an inference pass | yes | yes |
/// | the values of `x` | 16 of them, evenly spread | all that are not padding |
/// | the layer's parameters | no | all |
///
/// "Debug builds" are those in which gradflow is compiled with `debug-assertions`, as in Cargo's `dev` and `test` profiles.
/// [`Layer::pass`](crate::Layer::pass) goes further and has the compiler refuse such mistakes.
///
/// # Which parameters
/// A layer made of layers need not pass those of its parts, which have marks themselves: it passes its own, or `&()`.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    last: LastPass,
    same_seed: SameSeed,
}

#[derive(Clone, Copy, Debug, Default)]
enum LastPass {
    #[default]
    None,
    Inference,
    Forward {
        x: u64,
        /// The same for all parameters in release builds.
        parameters: u64,
    },
}

/// A forward pass that has [begun](Pending::begin) and is not finished.
#[derive(Debug)]
#[must_use = "without `set`, no backward pass is accepted"]
pub struct Mark<'p> {
    pending: &'p mut Pending,
    pass: LastPass,
}

impl Mark<'_> {
    /// Marks the forward pass as finished: its backward pass may follow.
    pub fn set(self) {
        self.pending.last = self.pass;
    }
}

/// The number of consecutive training passes with the same seed and different inputs.
#[derive(Clone, Debug, Default)]
struct SameSeed {
    seed: u64,
    fingerprint: u64,
    passes: u32,
}

/// The number of consecutive training steps with the same seed and different inputs that counts as a mistake.
const SAME_SEED: u32 = 100;

impl Pending {
    /// Checks that each training step has its own seed. Layers that drop something at random call this before
    /// [`take`](Pending::take). Repeating a seed for the same input, as in a gradient check, or for a later chunk of a sequence is
    /// no mistake.
    ///
    /// # Panics
    /// Panics at the 100th consecutive backward pass with the same seed and a different input from the one before.
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

    /// Begins a forward pass of `layer` over `x`; in [`Mode::Infer`] no backward pass may follow.
    ///
    /// # Panics
    /// Panics if a parameter of `layer` is not in standard layout.
    #[track_caller]
    pub fn begin<F: Float>(&mut self, layer: &dyn Tensors<F>, x: &Sequence<'_, F>) -> Mark<'_> {
        self.last = LastPass::None;
        check_layout(layer);
        let pass = match x.mode() {
            Some(Mode::Infer) => LastPass::Inference,
            _ => LastPass::Forward { x: x.fingerprint(), parameters: parameters(layer) },
        };
        Mark { pending: self, pass }
    }

    /// Begins the backward pass of `layer`, which is called `name` in messages and has `output` features.
    ///
    /// # Panics
    /// Panics if no forward pass is pending, if it had another `x` or, in debug builds, other parameters, or if `dy` is not
    /// `[T, B, output]`.
    #[track_caller]
    pub fn take<F: Float>(
        &mut self,
        name: &str,
        layer: &dyn Tensors<F>,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        output: usize,
    ) {
        self.take_with_steps(name, layer, x, dy, [x.dims().0, output]);
    }

    /// As [`take`](Pending::take), for a layer whose output has another number of `steps`: see
    /// [`Layer::output_steps`](crate::Layer::output_steps).
    ///
    /// # Panics
    /// Panics as [`take`](Pending::take), with `[steps, B, output]` for `dy`.
    #[track_caller]
    pub fn take_with_steps<F: Float>(
        &mut self,
        name: &str,
        layer: &dyn Tensors<F>,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        [steps, output]: [usize; 2],
    ) {
        let awaited = "a forward pass that awaits its backward";
        match std::mem::take(&mut self.last) {
            LastPass::Forward { x: marked, .. } if marked != x.fingerprint() => {
                mismatch(name, "x", &"the x of the forward pass, in its mode", &"another (stale cache)")
            }
            LastPass::Forward { parameters: marked, .. } if marked != parameters(layer) => {
                mismatch(name, "parameters", &"those of the forward pass", &"others (stale cache)")
            }
            LastPass::Forward { .. } => {}
            LastPass::Inference => mismatch(name, "cache", &awaited, &"an inference pass, which keeps nothing"),
            LastPass::None => mismatch(name, "cache", &awaited, &"a stale cache"),
        }
        check_shape(name, "dy", &[steps, x.dims().1, output], dy.shape());
    }
}

/// Panics if a parameter is not in standard layout, in inference as in training: reading such a parameter panics.
pub(crate) fn check_layout<F: Float>(layer: &dyn Tensors<F>) {
    for i in 0..layer.count() {
        layer.tensor(i);
    }
}

/// A fingerprint of all parameters; in release builds, which do not check them, always the same.
pub(crate) fn parameters<F: Float>(layer: &dyn Tensors<F>) -> u64 {
    let mut all = Fingerprint::default();
    if CHECKS_ALL {
        (0..layer.count()).for_each(|i| all.add_values(layer.tensor(i).1.into()));
    }
    all.bits()
}

/// A copy in standard layout of arrays that are not, so that kernels see contiguous rows.
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

    /// The rows of `values`, in the order of those of `x`; rows that a mask leaves out are zeros, whatever they hold.
    pub(crate) fn unmasked_rows<'a>(&'a mut self, x: &Sequence<'_, F>, values: ArrayView3<'a, F>) -> ArrayView2<'a, F> {
        if !x.has_mask() {
            return self.rows(values);
        }
        reuse(&mut self.0, values.raw_dim());
        self.0.assign(&values);
        x.zero_padding(&mut self.0);
        rows(self.0.view())
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

/// `Debug` for types whose contents mean nothing to a reader, such as caches.
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
