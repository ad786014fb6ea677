//! The one trait behind which every cell, layer, block and model stands.

use ndarray::{ArrayRef3, ArrayView2, ArrayView3, Axis};

use super::affine::add;
use super::kit::StandardLayout;
use super::sequence::Sequence;
use crate::base::error::mismatch;
use crate::base::{Size, SizeError, Tensors, TensorsExt, check_shape};
use crate::kernels::Float;

/// What a layer carries from one call to the next: `()` for a feed-forward layer, `h` for RNN and GRU, `h` and `c`
/// for an LSTM. Any clonable [`Tensors`] is one.
pub trait State<F>: Tensors<F> + Clone + Send + Sync {}

impl<F, T: Tensors<F> + Clone + Send + Sync> State<F> for T {}

/// A differentiable map of sequences, `[T, B, I]` to `[T, B, O]`, with its backward pass written by hand.
///
/// - A layer holds its parameters and nothing else, so it can be shared by threads. What is carried between calls is
///   its [`State`](Layer::State); every buffer, and what the backward pass needs, is its [`Cache`](Layer::Cache).
///   The caller makes both once and reuses them: from the second pass of a shape on, nothing is allocated.
/// - A gradient is a value of the layer's own type, to which `backward` *adds* and which `backward_into` *overwrites*.
/// - One step is a sequence with `T = 1`: step code and sequence code are one function.
/// - With [lengths](Sequence::with_lengths), padding is never read, outputs and input gradients are zero there, and
///   each state stops at its sequence's last valid step.
///
/// Training loops use [`pass`](Layer::pass), which leaves the order of calls to the compiler; `forward`, `output` and
/// `backward` are what layers are composed with.
///
/// ```
/// use gradflow::{Activation, Layer, Linear, Sequence, TensorsExt, ZerosLike, ndarray::Array2};
/// use gradflow::rand::{SeedableRng, rngs::StdRng};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let net = (Linear::<f32>::new(3, 8, rng), Activation::tanh(), Linear::new(8, 1, rng));
/// let x = Array2::ones((5, 3));
/// let (mut state, mut cache, mut grad) = (net.zero_state(5), net.cache(), net.zeros_like());
/// let pass = net.pass(Sequence::rows(&x), &mut state, &mut cache);
/// let dy = pass.output().to_owned(); // dL/dy of L = |y|² / 2
/// let dx = pass.backward_into(&dy, &mut grad);
/// assert_eq!(dx.dim(), (1, 5, 3));
/// ```
///
/// # Implementing it
/// See `examples/custom_layer.rs` for a layer from outside this crate, and [`Contract`](crate::contract::Contract) for
/// the test that it should pass.
pub trait Layer: Tensors<<Self as Layer>::Elem> + Clone + Send + Sync {
    /// `f32` or `f64`.
    type Elem: Float;
    /// What is carried from call to call.
    type State: State<Self::Elem>;
    /// Buffers, and what `backward` needs of `forward`.
    type Cache: Default + Send;

    /// The number of output features for inputs of a size.
    ///
    /// # Errors
    /// Where the layer, or one inside it, does not take that size.
    fn output_size(&self, input: Size) -> Result<usize, SizeError>;

    /// The state before the first step, for a batch of `batch` sequences.
    fn zero_state(&self, batch: usize) -> Self::State;

    /// `y`, `[T, B, O]`, borrowed from `cache`; `state` is read, then advanced to each sequence's last valid step.
    ///
    /// # Panics
    /// Where `x` or `state` has a size that the layer does not take, or the batch is empty.
    fn forward<'c>(
        &self,
        x: Sequence<'_, Self::Elem>,
        state: &mut Self::State,
        cache: &'c mut Self::Cache,
    ) -> ArrayView3<'c, Self::Elem>;

    /// `y = skip + layer(x)`, into `y`: a forward pass as the branch of a residual connection, after which
    /// [`output`](Layer::output) is unspecified. `skip` and `y`, `[T, B, O]`, are in standard layout; rows past a length
    /// are left as they are.
    ///
    /// By default what `forward` gives is added. A layer that ends with a product may start its sums from `skip`, and
    /// needs no memory for an output of its own.
    ///
    /// # Panics
    /// As [`forward`](Layer::forward), and where `skip` or `y` has another shape or layout.
    fn forward_with_skip(
        &self,
        x: Sequence<'_, Self::Elem>,
        skip: ArrayView3<'_, Self::Elem>,
        state: &mut Self::State,
        cache: &mut Self::Cache,
        y: &mut ArrayRef3<Self::Elem>,
    ) {
        let output = self.forward(x, state, cache);
        check_shape("forward_with_skip", "skip", output.shape(), skip.shape());
        check_shape("forward_with_skip", "y", output.shape(), y.shape());
        add(&x, skip, StandardLayout::default().view(output), y);
    }

    /// The `y` of the last forward pass, again; after its backward pass, unspecified.
    fn output<'c>(&self, cache: &'c Self::Cache) -> ArrayView3<'c, Self::Elem>;

    /// `dL/dx`, `[T, B, I]`, from `dy` = `dL/dy`; *adds* `dL/dparameter` into `grad`. Where
    /// [no gradient is wanted](Sequence::wants_gradient) for `x`, as for token ids, the work for it may be spared and the
    /// result is unspecified.
    ///
    /// `dstate` comes in as the gradient of the final state and goes out as that of the initial one; `None` means
    /// zero, and not wanted. One backward pass for one forward pass, with the same `x` and the same parameters.
    ///
    /// # Panics
    /// Where no forward pass over this `x` is pending in `cache`, or `dy`, `dstate` or `grad` has another shape.
    fn backward<'c>(
        &self,
        x: Sequence<'_, Self::Elem>,
        dy: &ArrayRef3<Self::Elem>,
        dstate: Option<&mut Self::State>,
        cache: &'c mut Self::Cache,
        grad: &mut Self,
    ) -> ArrayView3<'c, Self::Elem>;

    /// [`backward`](Layer::backward) that *overwrites* `grad`: what it held is not read, and may be NaN.
    ///
    /// ```text
    /// backward          grad = grad + dL/dθ
    /// backward_into     grad = dL/dθ
    /// ```
    ///
    /// This is for the gradient of one pass: there is nothing to be set to zero before, and memory is written once where it
    /// would be written, read and written again, which with few rows and large weights takes most of a training step.
    /// `backward` is for sums: over several batches or chunks, or over several uses of one layer (tied weights).
    ///
    /// ```
    /// use gradflow::{Layer, Linear, TensorsExt, ndarray::{Array3, arr2}};
    ///
    /// let layer = Linear::<f64>::zeros(2, 1).without_bias();
    /// let (x, dy) = (Array3::from_shape_vec((1, 1, 2), vec![3.0, 4.0]).unwrap(), Array3::ones((1, 1, 1)));
    /// let (mut cache, mut grad) = (layer.cache(), layer.clone());
    /// grad.weight.fill(f64::NAN);
    /// layer.pass(&x, &mut (), &mut cache).backward_into(&dy, &mut grad);
    /// assert_eq!(grad.weight, arr2(&[[3.0, 4.0]]));
    /// layer.pass(&x, &mut (), &mut cache).backward(&dy, &mut grad);
    /// assert_eq!(grad.weight, arr2(&[[6.0, 8.0]]));
    /// ```
    ///
    /// # Panics
    /// As [`backward`](Layer::backward).
    fn backward_into<'c>(
        &self,
        x: Sequence<'_, Self::Elem>,
        dy: &ArrayRef3<Self::Elem>,
        dstate: Option<&mut Self::State>,
        cache: &'c mut Self::Cache,
        grad: &mut Self,
    ) -> ArrayView3<'c, Self::Elem> {
        let x = if self.overwrites_gradients() {
            x.overwriting_gradients()
        } else {
            grad.set_zero();
            x.accumulating_gradients()
        };
        self.backward(x, dy, dstate, cache, grad)
    }

    /// Whether [`backward`](Layer::backward) overwrites `grad` where its `x` [says so](Sequence::overwrites_gradients).
    ///
    /// A layer need not: unless it says so here, [`backward_into`](Layer::backward_into) sets `grad` to zero and has
    /// `backward` add. One that does writes every tensor of `grad` without reading it, zeros where there is no gradient. A
    /// layer made of layers does if all of them do; a part that it uses several times gets an `x` that
    /// [accumulates](Sequence::accumulating_gradients) every time but the first.
    fn overwrites_gradients(&self) -> bool {
        false
    }

    /// An empty cache.
    fn cache(&self) -> Self::Cache {
        Self::Cache::default()
    }

    /// A forward pass, held open for its backward pass.
    ///
    /// The [`Pass`] borrows layer, input and cache, so a second forward pass in between, another input or an
    /// optimizer step does not compile.
    ///
    /// # Panics
    /// As [`forward`](Layer::forward).
    fn pass<'a, 'x: 'a>(
        &'a self,
        x: impl Into<Sequence<'x, Self::Elem>>,
        state: &mut Self::State,
        cache: &'a mut Self::Cache,
    ) -> Pass<'a, Self> {
        let x = x.into().reborrow();
        self.forward(x, state, cache);
        Pass { layer: self, x, cache, dstate: None }
    }
}

/// A layer whose output at step `t` needs no input after `t`: it can run on a stream, one step at a time.
pub trait Causal: Layer {
    /// One step, `T = 1`: `[B, O]`. Nothing is kept for a backward pass.
    ///
    /// # Panics
    /// Where `x` has more than one step, and as [`forward`](Layer::forward).
    fn step<'c, 'x>(
        &self,
        x: impl Into<Sequence<'x, Self::Elem>>,
        state: &mut Self::State,
        cache: &'c mut Self::Cache,
    ) -> ArrayView2<'c, Self::Elem> {
        let x = x.into();
        let (steps, batch) = x.dims();
        if steps != 1 {
            mismatch("step", "x", &"one step, [1, B, ..]", &format_args!("[{steps}, {batch}, ..]"))
        }
        self.forward(x.infer(), state, cache).index_axis_move(Axis(0), 0)
    }
}

/// A forward pass that awaits its backward pass: see [`Layer::pass`].
///
/// Weights cannot change in between:
/// ```compile_fail,E0502
/// # use gradflow::{Layer, Linear, TensorsExt, ZerosLike, ndarray::Array3};
/// # let mut layer = Linear::<f32>::zeros(2, 2);
/// # let (x, dy) = (Array3::zeros((1, 1, 2)), Array3::zeros((1, 1, 2)));
/// # let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
/// let pass = layer.pass(&x, &mut (), &mut cache);
/// layer.scale(0.5); // error: `layer` is borrowed by `pass`
/// pass.backward(&dy, &mut grad);
/// ```
#[must_use = "a pass is held open for its backward; use `forward` where none follows"]
pub struct Pass<'a, L: Layer> {
    layer: &'a L,
    x: Sequence<'a, L::Elem>,
    cache: &'a mut L::Cache,
    dstate: Option<&'a mut L::State>,
}

impl<'a, L: Layer> Pass<'a, L> {
    /// The input, with its lengths and mode.
    pub fn input(&self) -> Sequence<'a, L::Elem> {
        self.x
    }

    /// `y`, `[T, B, O]`.
    pub fn output(&self) -> ArrayView3<'_, L::Elem> {
        self.layer.output(self.cache)
    }

    /// Also carries the state's gradient: `dstate` comes in as that of the final state and leaves the backward pass
    /// as that of the initial one.
    pub fn with_state_gradient(self, dstate: &'a mut L::State) -> Self {
        Pass { dstate: Some(dstate), ..self }
    }

    /// Adds the gradients of the parameters to `grad` and returns `dL/dx`.
    ///
    /// # Panics
    /// Where `dy` has another shape than the output, or `grad` than the layer.
    pub fn backward(self, dy: &ArrayRef3<L::Elem>, grad: &mut L) -> ArrayView3<'a, L::Elem> {
        self.layer.backward(self.x, dy, self.dstate, self.cache, grad)
    }

    /// [`backward`](Pass::backward) that overwrites `grad`, which need not be zero before: see [`Layer::backward_into`].
    ///
    /// # Panics
    /// As [`backward`](Pass::backward).
    pub fn backward_into(self, dy: &ArrayRef3<L::Elem>, grad: &mut L) -> ArrayView3<'a, L::Elem> {
        self.layer.backward_into(self.x, dy, self.dstate, self.cache, grad)
    }
}

/// The output, with the lengths of the input: what a [`Loss`](crate::Loss) takes.
impl<'a, L: Layer> From<&'a Pass<'_, L>> for Sequence<'a, L::Elem> {
    fn from(pass: &'a Pass<'_, L>) -> Self {
        pass.x.with(pass.output())
    }
}
