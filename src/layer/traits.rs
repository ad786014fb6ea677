//! The trait that every cell, layer, block and model implements.

use std::fmt;

use ndarray::{ArrayRef3, ArrayView3};

use super::affine::add;
use super::batch_state::{put, select};
use super::gradient::Gradient;
use super::graph::{Graph, Signal, Unsupported};
use super::kit::StandardLayout;
use super::sequence::Sequence;
use super::steps::Steps;
use super::summary::Summary;
use crate::base::tensors::check_alike;
use crate::base::{Size, SizeError, Tensors, check_shape};
use crate::kernels::Float;

/// The data that a layer carries from one call to the next: `()` for a feed-forward layer, `h` for RNN and GRU, `h` and `c`
/// for an LSTM. Any clonable [`Tensors`] is a state.
pub trait State<F>: Tensors<F> + Clone + Send + Sync {}

impl<F, T: Tensors<F> + Clone + Send + Sync> State<F> for T {}

/// A differentiable map of sequences, `[T, B, I]` to `[T, B, O]`, with its backward pass written by hand.
///
/// - A layer holds its parameters and nothing else, so it can be shared by threads. The data carried between calls is
///   its [`State`](Layer::State); all buffers, and the data that the backward pass needs, are its [`Cache`](Layer::Cache).
///   The caller makes both once and reuses them: from the second pass of a shape on, nothing is allocated.
/// - A gradient is a value of the layer's own type, which a backward pass adds to or overwrites: see [`Gradient`].
/// - One step is a sequence with `T = 1`: step code and sequence code are one function.
/// - With [lengths](Sequence::with_lengths), padding is never read, outputs and input gradients are zero there, and
///   each state stops at its sequence's last valid step.
/// - A layer may [change the number of steps](Layer::output_steps): its output then has its own time axis.
///
/// Training loops use [`pass`](Layer::pass), which lets the compiler check the order of calls.
///
/// ```
/// use gradflow::{Layer, Sequence, ZerosLike, layers::{Activation, Linear}, ndarray::Array2};
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
/// The example [`custom_layer`](https://docs.rs/crate/gradflow/latest/source/examples/custom_layer.rs) is a layer
/// from outside this crate; [`Contract`](crate::check::Contract) is the test that it should pass.
pub trait Layer: Tensors<<Self as Layer>::Elem> + Clone + Send + Sync + 'static {
    /// `f32` or `f64`.
    type Elem: Float;
    /// The data carried from call to call.
    type State: State<Self::Elem> + 'static;
    /// Buffers, and the data that `backward` needs from `forward`.
    type Cache: Default + Send + 'static;

    /// The number of output features for inputs of a size.
    ///
    /// # Errors
    /// Returns an error if the layer, or one inside it, does not take that size.
    fn output_size(&self, input: Size) -> Result<usize, SizeError>;

    /// The number of steps of the output, T', for a layer that changes it. With [`Steps::Same`], the default, the output has the
    /// steps and the lengths of the input.
    ///
    /// [`LastStep`](crate::layers::LastStep), [`Pool`](crate::layers::Pool) and [`Repeat`](crate::layers::Repeat) give a number of
    /// steps that does not depend on the input's, [`Steps::Count`]: the output has no lengths, and all of it is valid. A
    /// [`StridedConv1d`](crate::layers::StridedConv1d) gives one of every few steps, [`Steps::Every`]: its output has lengths, too.
    /// So do models with one of them inside.
    fn output_steps(&self) -> Steps {
        Steps::Same
    }

    /// The output `y` over `x` with its lengths: those of `x`, unless the layer [changes the number of
    /// steps](Layer::output_steps). The next layer, or a loss, takes this.
    ///
    /// ```
    /// use gradflow::{Layer, Sequence, layers::LastStep, ndarray::Array3};
    ///
    /// let (layer, x) = (LastStep::<f32>::new(), Array3::ones((5, 2, 3)));
    /// let x = Sequence::from(&x).with_lengths(&[5, 3])?;
    /// let mut cache = layer.cache();
    /// let y = layer.forward(x, &mut (), &mut cache);
    /// let y = layer.output_sequence(&x, y);
    /// assert_eq!((y.dims(), y.has_lengths()), ((1, 2), false));
    /// # Ok::<(), gradflow::author::LengthsError>(())
    /// ```
    ///
    /// # Panics
    /// Panics if `y` is not an output over `x`.
    #[track_caller]
    fn output_sequence<'s, 'x: 's>(
        &self,
        x: &Sequence<'x, Self::Elem>,
        y: ArrayView3<'s, Self::Elem>,
    ) -> Sequence<'s, Self::Elem> {
        x.with_output(self.output_steps(), y)
    }

    /// The state before the first step, for a batch of `batch` sequences.
    fn zero_state(&self, batch: usize) -> Self::State;

    /// The state of some of the sequences of a batch, in the given order: for a smaller last batch, for streams that go on while
    /// others have ended, and for the beams of a search, in which a sequence may occur several times.
    ///
    /// ```
    /// use gradflow::{Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::Lstm};
    ///
    /// let lstm = Lstm::<f32>::builder(3, 4).num_layers(2).build(&mut StdRng::seed_from_u64(0));
    /// let (x, mut state) = (Array3::from_shape_fn((1, 5, 3), |(_, b, _)| b as f32), lstm.zero_state(5));
    /// lstm.forward(&x, &mut state, &mut lstm.cache());
    /// let mut some = lstm.select_state(&state, &[4, 1]); // sequence 4, then sequence 1
    /// assert_eq!((some.h.dim(), some.h[[1, 0, 2]]), ((2, 2, 4), state.h[[1, 4, 2]]));
    ///
    /// // One step of these two alone; the others stay where they are.
    /// lstm.forward(&Array3::ones((1, 2, 3)), &mut some, &mut lstm.cache());
    /// lstm.put_state(&mut state, &[4, 1], &some);
    /// assert_eq!(state.h[[1, 4, 2]], some.h[[1, 0, 2]]);
    /// ```
    ///
    /// # Panics
    /// Panics if there is no such sequence.
    #[track_caller]
    fn select_state(&self, state: &Self::State, sequences: &[usize]) -> Self::State {
        let mut some = self.zero_state(sequences.len());
        select([&self.zero_state(1), &self.zero_state(2)], state, sequences, &mut some);
        some
    }

    /// Puts the state of some of the sequences, as [`select_state`](Layer::select_state) returns it, back in its place.
    ///
    /// # Panics
    /// Panics if there is no such sequence, or `some` is not the state of that many.
    #[track_caller]
    fn put_state(&self, state: &mut Self::State, sequences: &[usize], some: &Self::State) {
        check_alike(&"Layer::put_state: state", &self.zero_state(sequences.len()), some);
        put([&self.zero_state(1), &self.zero_state(2)], state, sequences, some);
    }

    /// `y`, `[T, B, O]`, borrowed from `cache`; `state` is read, then advanced to each sequence's last valid step.
    ///
    /// Layers implement this method; callers use [`forward`](Layer::forward).
    ///
    /// # Panics
    /// Panics if `x` or `state` has a size that the layer does not take, the batch is empty, or a parameter is an array that is not
    /// row-major.
    #[track_caller]
    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, Self::Elem>,
        state: &mut Self::State,
        cache: &'c mut Self::Cache,
    ) -> ArrayView3<'c, Self::Elem>;

    /// The `y` of the last forward pass; unspecified after its backward pass.
    fn output<'c>(&self, cache: &'c Self::Cache) -> ArrayView3<'c, Self::Elem>;

    /// `dL/dx`, `[T, B, I]`, from `dy` = `dL/dy`; `dL/dparameter` is added to `grad` or overwrites it, as `grad` says.
    ///
    /// Layers implement this method; callers use [`backward`](Layer::backward).
    ///
    /// If `x` needs no gradient (see [`Sequence::wants_gradient`]), a layer may skip computing it; the returned view is then
    /// unspecified. `dstate` comes in as the gradient of the final state and goes out as that of the initial one; `None`
    /// means that the former is zero and the latter not wanted. One backward pass follows one forward pass, with the same `x` and
    /// the same parameters; [`Pending`](crate::author::Pending) says what is checked in release builds and in debug builds. A pass
    /// that panicked does not count: after it, the cache awaits a forward pass.
    ///
    /// # Panics
    /// Panics if no forward pass over this `x` is pending in `cache`, or `dy`, `dstate` or `grad` has another shape; in debug
    /// builds, also if a parameter differs from that of the forward pass.
    #[track_caller]
    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, Self::Elem>,
        dy: &ArrayRef3<Self::Elem>,
        dstate: Option<&mut Self::State>,
        cache: &'c mut Self::Cache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, Self::Elem>;

    /// [`forward_pass`](Layer::forward_pass) for an input in any of its forms: an array `[T, B, D]`, token ids `[T, B]`, or
    /// a [`Sequence`] with lengths and a mode.
    ///
    /// # Panics
    /// Panics as [`forward_pass`](Layer::forward_pass).
    #[track_caller]
    fn forward<'c, 'x>(
        &self,
        x: impl Into<Sequence<'x, Self::Elem>>,
        state: &mut Self::State,
        cache: &'c mut Self::Cache,
    ) -> ArrayView3<'c, Self::Elem> {
        self.forward_pass(&x.into(), state, cache)
    }

    /// [`backward_pass`](Layer::backward_pass) for an input in any of its forms. With `&mut grad`, gradients are added; with
    /// [`Gradient::overwrite`], they overwrite what `grad` holds.
    ///
    /// ```
    /// use gradflow::{Layer, TensorsExt, author::Gradient, layers::Linear, ndarray::{Array3, arr2}};
    ///
    /// let layer = Linear::<f64>::builder(2, 1).bias(false).zeros();
    /// let (x, dy) = (Array3::from_shape_vec((1, 1, 2), vec![3.0, 4.0]).unwrap(), Array3::ones((1, 1, 1)));
    /// let (mut cache, mut grad) = (layer.cache(), layer.clone());
    /// grad.weight.fill(f64::NAN);
    /// layer.forward(&x, &mut (), &mut cache);
    /// layer.backward(&x, &dy, None, &mut cache, Gradient::overwrite(&mut grad));
    /// assert_eq!(grad.weight, arr2(&[[3.0, 4.0]]));
    /// layer.forward(&x, &mut (), &mut cache);
    /// layer.backward(&x, &dy, None, &mut cache, &mut grad);
    /// assert_eq!(grad.weight, arr2(&[[6.0, 8.0]]));
    /// ```
    ///
    /// # Panics
    /// Panics as [`backward_pass`](Layer::backward_pass).
    #[track_caller]
    fn backward<'c, 'x, 'g>(
        &self,
        x: impl Into<Sequence<'x, Self::Elem>>,
        dy: &ArrayRef3<Self::Elem>,
        dstate: Option<&mut Self::State>,
        cache: &'c mut Self::Cache,
        grad: impl Into<Gradient<'g, Self>>,
    ) -> ArrayView3<'c, Self::Elem>
    where
        Self: 'g,
    {
        self.backward_pass(&x.into(), dy, dstate, cache, grad.into())
    }

    /// `y = skip + layer(x)`, into `y`: a forward pass as the branch of a residual connection, after which
    /// [`output`](Layer::output) is unspecified. `skip` and `y`, `[T, B, O]`, are in standard layout; rows past a length
    /// are left as they are.
    ///
    /// A layer that ends with a product starts its accumulators from `skip`, and needs no memory for its own output.
    #[doc(hidden)]
    #[track_caller]
    fn forward_onto(
        &self,
        x: &Sequence<'_, Self::Elem>,
        skip: ArrayView3<'_, Self::Elem>,
        state: &mut Self::State,
        cache: &mut Self::Cache,
        y: &mut ArrayRef3<Self::Elem>,
        _: Internal,
    ) {
        let output = self.forward_pass(x, state, cache);
        check_shape("Residual", "branch", y.shape(), output.shape());
        let pass = self.output_sequence(x, output.view());
        add(&pass, skip, StandardLayout::default().view(output.view()), y);
    }

    /// Returns an error of the layer `outer` unless this layer, inside it, keeps the number of steps.
    #[doc(hidden)]
    fn expect_same_steps(&self, outer: &str) -> Result<(), SizeError> {
        match self.output_steps() {
            Steps::Same => Ok(()),
            Steps::Count(steps) => Err(SizeError::new(
                outer,
                format!("takes a branch that keeps the number of steps, got one that gives {steps}"),
            )),
            Steps::Every(stride) => Err(SizeError::new(
                outer,
                format!("takes a branch that keeps the number of steps, got one that gives one of every {stride}"),
            )),
        }
    }

    /// Panics unless this layer, and each layer inside it, takes the size of `x`; the message names the layer by its place.
    /// For layers made of layers, so that a misfit is found before anything is computed.
    ///
    /// # Panics
    /// Panics if [`output_size`](Layer::output_size) returns an error.
    #[track_caller]
    fn expect_size(&self, x: &Sequence<'_, Self::Elem>) {
        if let Err(error) = self.output_size(x.size()) {
            panic!("x: {error}")
        }
    }

    /// The layers of the model as a table: a line for each with its name, type, parameters and shapes.
    ///
    /// ```
    /// use gradflow::{Layer, layers::{Activation, Linear}};
    ///
    /// let model = (Linear::<f32>::zeros(3, 8), Activation::tanh(), Linear::zeros(8, 1));
    /// let table = model.summary().to_string();
    /// assert!(table.contains("weight [8, 3], bias [8]"));
    /// assert!(table.ends_with("41")); // parameters in all
    /// ```
    fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        self.describe("", &mut summary);
        summary
    }

    /// The lines of a [`summary`](Layer::summary) for this layer, called `name`.
    #[doc(hidden)]
    fn describe(&self, name: &str, summary: &mut Summary) {
        summary.add(name, std::any::type_name::<Self>(), self);
    }

    /// Adds the layer's operators to a graph: they compute `y` from `x` as in inference. It takes its state's tensors from the
    /// graph and gives them back. The module `onnx`, which comes with the feature of that name and has an example, writes the
    /// graph as an ONNX file. The default returns an error.
    ///
    /// # Errors
    /// Returns an error if ONNX's operators cannot express the layer, or one inside it.
    fn add_to_graph(&self, graph: &mut Graph<Self::Elem>, _x: Signal) -> Result<Signal, Unsupported> {
        let layer = super::summary::short(std::any::type_name::<Self>());
        Err(graph.refuse(format!("{layer} does not say what it is in ONNX's operators")))
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
    /// Panics as [`forward_pass`](Layer::forward_pass).
    #[track_caller]
    fn pass<'a, 'x: 'a>(
        &'a self,
        x: impl Into<Sequence<'x, Self::Elem>>,
        state: &mut Self::State,
        cache: &'a mut Self::Cache,
    ) -> Pass<'a, Self> {
        let x = x.into().reborrow();
        self.forward_pass(&x, state, cache);
        Pass { layer: self, x, cache, dstate: None }
    }
}

/// Restricts a method of [`Layer`] to this crate.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Internal;

/// A forward pass that awaits its backward pass: see [`Layer::pass`].
///
/// Weights cannot change in between:
/// ```compile_fail,E0502
/// # use gradflow::{Layer, TensorsExt, ZerosLike, layers::Linear, ndarray::Array3};
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

impl<L: Layer> fmt::Debug for Pass<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("x", &self.x).finish_non_exhaustive()
    }
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
    /// Panics if `dy` has another shape than the output, or `grad` than the layer.
    #[track_caller]
    pub fn backward(self, dy: &ArrayRef3<L::Elem>, grad: &mut L) -> ArrayView3<'a, L::Elem> {
        self.layer.backward_pass(&self.x, dy, self.dstate, self.cache, Gradient::add(grad))
    }

    /// Overwrites `grad`, which need not be zero before, with the gradients of the parameters and returns `dL/dx`: see
    /// [`Gradient`].
    ///
    /// # Panics
    /// Panics as [`backward`](Pass::backward).
    #[track_caller]
    pub fn backward_into(self, dy: &ArrayRef3<L::Elem>, grad: &mut L) -> ArrayView3<'a, L::Elem> {
        self.layer.backward_pass(&self.x, dy, self.dstate, self.cache, Gradient::overwrite(grad))
    }
}

/// The output with [its lengths](Layer::output_sequence), as a [`Loss`](crate::loss::Loss) takes it.
impl<'a, L: Layer> From<&'a Pass<'_, L>> for Sequence<'a, L::Elem> {
    fn from(pass: &'a Pass<'_, L>) -> Self {
        pass.layer.output_sequence(&pass.x.reborrow(), pass.output())
    }
}

/// Prints layers as their [`Summary`].
macro_rules! display_summary {
    ($($t:ident<$l:ident: $bound:path>),+ $(,)?) => {$(
        impl<$l: $bound> std::fmt::Display for $t<$l> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::layer::Layer::summary(self).fmt(f)
            }
        }
    )+};
}
pub(crate) use display_summary;
