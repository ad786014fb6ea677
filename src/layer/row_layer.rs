//! Layers that map each row separately: the walk over valid rows, written once for all of them.

use std::ops::Range;

use ndarray::{Array3, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut2, s};

use super::affine::add;
use super::gradient::{self, Gradient};
use super::graph::{Graph, Signal, Unsupported};
use super::kit::{Pending, StandardLayout, reuse};
use super::layer_stage::LayerStage;
use super::rows::{matrix, matrix_mut, rows_of, span};
use super::sequence::Sequence;
use super::stage::Stages;
use super::traits::Layer;
use crate::base::{Size, SizeError, Tensors, check_gradient, check_shape};
use crate::kernels::{Accumulate, Float};

/// A layer in which each output row is a function of the input row at the same step of the same sequence.
///
/// An implementation has only the arithmetic; this crate handles lengths, chunks, memory layouts, stale caches and the cache
/// itself, with one line: [`row_layer!`](crate::row_layer).
///
/// ```
/// use gradflow::ndarray::{ArrayViewMut2, Zip};
/// use gradflow::{Float, parameters, row_layer, author::{Gradient, RowGradients, RowLayer, Rows}, check::Contract};
/// use std::marker::PhantomData;
///
/// /// y = x² / 2
/// #[derive(Clone)]
/// struct HalfSquare<F> { elem: PhantomData<F> }
/// parameters! { impl<F: Float> Tensors<F> for HalfSquare<F> { ; skip elem } }
///
/// impl<F: Float> RowLayer for HalfSquare<F> {
///     type Elem = F;
///     type Kept = ();
///     const NAME: &'static str = "HalfSquare";
///
///     fn forward_rows(&self, rows: Rows<'_, F>, mut y: ArrayViewMut2<'_, F>, _: &mut ()) {
///         Zip::from(&mut y).and(&rows.x).for_each(|y, &x| *y = x * x * F::of(0.5));
///     }
///     fn backward_rows(&self, rows: Rows<'_, F>, d: RowGradients<'_, F>, _: &mut (), _: Gradient<'_, Self>) {
///         if let Some(mut dx) = d.dx {
///             Zip::from(&mut dx).and(&rows.x).and(&d.dy).for_each(|dx, &x, &dy| *dx = x * dy);
///         }
///     }
/// }
/// row_layer! { impl<F: Float> Layer for HalfSquare<F> }
///
/// Contract::new("HalfSquare", &HalfSquare::<f64> { elem: PhantomData }, 3).check_causal();
/// ```
pub trait RowLayer: Tensors<<Self as RowLayer>::Elem> + Clone + Send + Sync + 'static {
    /// `f32` or `f64`.
    type Elem: Float;
    /// The data that the backward pass needs from the forward pass besides `x`; `()` if there is none.
    type Kept: Default + Send + 'static;
    /// The layer's name in panics.
    const NAME: &'static str;

    /// I, the number of input features; `None` if any number will do.
    fn takes(&self) -> Option<usize> {
        None
    }

    /// O, the number of output features, for `input` of them.
    fn gives(&self, input: usize) -> usize {
        input
    }

    /// Called before the first rows of a forward pass: checks parameters and makes room in `kept` for `T * B` rows.
    #[track_caller]
    fn begin(&self, _x: &Sequence<'_, Self::Elem>, _kept: &mut Self::Kept) {}

    /// Computes `y`, `[N, O]`, from the rows `x`, `[N, I]`.
    #[track_caller]
    fn forward_rows(&self, rows: Rows<'_, Self::Elem>, y: ArrayViewMut2<'_, Self::Elem>, kept: &mut Self::Kept);

    /// Whether training drops something at random, so that each step should have its own seed.
    #[doc(hidden)]
    fn drops(&self) -> bool {
        false
    }

    /// Adds the layer to those of a [`Stream`](crate::stream::Stream); `false` if it has no kernels for that.
    #[doc(hidden)]
    fn row_stages(&self, _stages: &mut Stages<Self::Elem>) -> bool {
        false
    }

    /// [`Layer::add_to_graph`] of the layer: `y` from `x`, both with the same lengths. The default returns an error.
    ///
    /// # Errors
    /// Returns an error if ONNX's operators cannot express the layer.
    fn add_rows_to_graph(&self, graph: &mut Graph<Self::Elem>, _x: Signal) -> Result<Signal, Unsupported> {
        Err(graph.refuse(format!("{} does not say what it is in ONNX's operators", Self::NAME)))
    }

    /// Whether the layer writes `y = skip + layer(x)` at once and does not need `y` again.
    #[doc(hidden)]
    const WRITES_ONTO: bool = false;

    /// `y = skip + layer(x)`, if the layer [can](RowLayer::WRITES_ONTO).
    #[doc(hidden)]
    #[track_caller]
    fn forward_rows_onto(
        &self,
        _rows: Rows<'_, Self::Elem>,
        _skip: ArrayView2<'_, Self::Elem>,
        _y: ArrayViewMut2<'_, Self::Elem>,
    ) {
        unreachable!("{} does not write onto a skip connection", Self::NAME)
    }

    /// Computes `d.dx`, if it is wanted, from `d.dy`; `dL/dparameter` is added to `grad` or overwrites it, as `grad` says.
    #[track_caller]
    fn backward_rows(
        &self,
        rows: Rows<'_, Self::Elem>,
        d: RowGradients<'_, Self::Elem>,
        kept: &mut Self::Kept,
        grad: Gradient<'_, Self>,
    );

    /// Calls [`forward`]. Layers of this crate override it with `compiled_walk!`, which calls a `forward` that is compiled once.
    #[doc(hidden)]
    #[track_caller]
    fn walk(&self, x: &Sequence<'_, Self::Elem>, cache: &mut RowCache<Self>) {
        forward(self, x, cache);
    }

    /// Calls [`backward`]. Layers of this crate override it with `compiled_walk!`, which calls a `backward` that is compiled once.
    #[doc(hidden)]
    #[track_caller]
    fn walk_back(
        &self,
        x: &Sequence<'_, Self::Elem>,
        dy: &ArrayRef3<Self::Elem>,
        cache: &mut RowCache<Self>,
        grad: Gradient<'_, Self>,
    ) {
        backward(self, x, dy, cache, grad);
    }
}

/// Some consecutive valid rows of a pass.
#[derive(Clone, Debug)]
pub struct Rows<'a, F> {
    /// `[N, I]`
    pub x: ArrayView2<'a, F>,
    /// Their indices among the `T * B` rows of the pass: row `t * B + b` is step `t` of sequence `b`.
    pub places: Range<usize>,
    /// The pass.
    pub pass: Sequence<'a, F>,
}

/// The gradients with respect to the output and the input of some rows.
#[derive(Debug)]
pub struct RowGradients<'a, F> {
    /// `dL/dy`, `[N, O]`
    pub dy: ArrayView2<'a, F>,
    /// `dL/dx`, `[N, I]`, to be written, if it is wanted. If `I = O`, it holds `y` at first.
    pub dx: Option<ArrayViewMut2<'a, F>>,
}

/// The cache of a [`RowLayer`].
pub struct RowCache<L: RowLayer> {
    pending: Pending,
    x_copy: StandardLayout<L::Elem>,
    dy_copy: StandardLayout<L::Elem>,
    y: Array3<L::Elem>,  // [T, B, O] and, after a backward pass, dx if I = O
    dx: Array3<L::Elem>, // [T, B, I] if I and O differ
    dx_is_in_y: bool,
    kept: L::Kept,
}
super::kit::opaque_debug! { RowCache<L: RowLayer> }

impl<L: RowLayer> Default for RowCache<L> {
    fn default() -> Self {
        let none = || Array3::default((0, 0, 0));
        RowCache {
            pending: Pending::default(),
            x_copy: StandardLayout::default(),
            dy_copy: StandardLayout::default(),
            y: none(),
            dx: none(),
            dx_is_in_y: false,
            kept: L::Kept::default(),
        }
    }
}

impl<L: RowLayer> RowCache<L> {
    /// `[T, B, O]`, after a forward pass.
    pub fn output(&self) -> ArrayView3<'_, L::Elem> {
        self.y.view()
    }

    /// `[T, B, I]`, after a backward pass; `[T, B, 0]` if it was not wanted.
    pub fn input_gradient(&self) -> ArrayView3<'_, L::Elem> {
        if self.dx_is_in_y { self.y.view() } else { self.dx.view() }
    }
}

/// [`Layer::output_size`](super::Layer::output_size) of a row layer.
///
/// # Errors
/// Returns an error if the layer does not take that size.
pub fn output_size<L: RowLayer>(layer: &L, input: Size) -> Result<usize, SizeError> {
    match (layer.takes(), input) {
        (Some(takes), input) if input != Size::Features(takes) => Err(SizeError::features(L::NAME, takes, input)),
        (_, input) => Ok(layer.gives(input.features(L::NAME)?)),
    }
}

/// [`Causal::stages`](super::Causal::stages) of a row layer.
pub fn stages<L: RowLayer + Layer<Elem = <L as RowLayer>::Elem>>(
    layer: &L,
    stages: &mut Stages<<L as RowLayer>::Elem>,
) {
    if !layer.row_stages(stages) {
        stages.push(LayerStage::boxed(layer, stages.features()));
    }
}

/// Computes `y`, which is left in the cache.
#[track_caller]
pub fn forward<L: RowLayer>(layer: &L, x: &Sequence<'_, L::Elem>, cache: &mut RowCache<L>) {
    let RowCache { pending, x_copy, y, kept, .. } = cache;
    let mark = pending.begin(layer, x);
    let features = x.features(L::NAME, layer.takes());
    let (output, (steps, batch)) = (layer.gives(features.dim().2), x.dims());
    layer.begin(x, kept);
    reuse(y, (steps, batch, output));
    let x_rows = x_copy.rows(features);
    for run in x.runs() {
        let rows = Rows { x: x_rows.slice(s![run.clone(), ..]), places: run.clone(), pass: x.reborrow() };
        layer.forward_rows(rows, matrix_mut(rows_of(y, &run), output), kept);
    }
    x.zero_padding(y);
    mark.set();
}

/// `y = skip + layer(x)`, on the valid rows.
#[track_caller]
pub fn forward_onto<L: RowLayer>(
    layer: &L,
    x: &Sequence<'_, L::Elem>,
    skip: ArrayView3<'_, L::Elem>,
    cache: &mut RowCache<L>,
    y: &mut ArrayRef3<L::Elem>,
) {
    if !L::WRITES_ONTO {
        layer.walk(x, cache);
        check_shape(L::NAME, "y", cache.y.shape(), y.shape());
        check_shape(L::NAME, "skip", y.shape(), skip.shape());
        return add(x, skip, cache.y.view(), y);
    }
    let RowCache { pending, x_copy, kept, .. } = cache;
    let mark = pending.begin(layer, x);
    let features = x.features(L::NAME, layer.takes());
    let (output, (steps, batch)) = (layer.gives(features.dim().2), x.dims());
    check_shape(L::NAME, "y", &[steps, batch, output], y.shape());
    check_shape(L::NAME, "skip", y.shape(), skip.shape());
    layer.begin(x, kept);
    let (x_rows, skip) = (x_copy.rows(features), skip.to_slice().expect("a skip in standard layout"));
    for run in x.runs() {
        let rows = Rows { x: x_rows.slice(s![run.clone(), ..]), places: run.clone(), pass: x.reborrow() };
        let skip = matrix(&skip[span(&run, output)], output);
        layer.forward_rows_onto(rows, skip, matrix_mut(rows_of(y, &run), output));
    }
    mark.set();
}

/// Computes `dx`, which is left in the cache.
#[track_caller]
pub fn backward<L: RowLayer>(
    layer: &L,
    x: &Sequence<'_, L::Elem>,
    dy: &ArrayRef3<L::Elem>,
    cache: &mut RowCache<L>,
    grad: Gradient<'_, L>,
) {
    let features = x.features(L::NAME, layer.takes());
    let ((steps, batch), input, wanted) = (x.dims(), features.dim().2, x.wants_gradient());
    let output = layer.gives(input);
    let RowCache { pending, x_copy, dy_copy, y, dx, dx_is_in_y, kept } = cache;
    if layer.drops() {
        pending.expect_another_seed(L::NAME, x);
    }
    pending.take(L::NAME, layer, x, dy, output);
    let (grad, mut how) = grad.parts();
    check_gradient(L::NAME, layer, &*grad);
    *dx_is_in_y = wanted && input == output;
    let dx = if *dx_is_in_y { y } else { dx };
    reuse(dx, (steps, batch, if wanted { input } else { 0 }));
    let (x_rows, dy_rows) = (x_copy.rows(features), dy_copy.rows(dy.view()));
    for run in x.runs() {
        let rows = Rows { x: x_rows.slice(s![run.clone(), ..]), places: run.clone(), pass: x.reborrow() };
        let dx = wanted.then(|| matrix_mut(rows_of(dx, &run), input));
        let d = RowGradients { dy: dy_rows.slice(s![run, ..]), dx };
        layer.backward_rows(rows, d, kept, Gradient::new(&mut *grad, how));
        how = Accumulate::Add;
    }
    gradient::start(grad, how); // if no row is valid
    x.zero_padding(dx);
}

/// Implements [`Layer`](crate::Layer) and [`Causal`](crate::Causal) for a [`RowLayer`](crate::author::RowLayer).
#[macro_export]
macro_rules! row_layer {
    (impl<$f:ident: $bound:path> Layer for $t:ty) => {
        impl<$f: $bound> $crate::layer::Layer for $t {
            type Elem = $f;
            type State = ();
            type Cache = $crate::layer::RowCache<Self>;

            fn output_size(&self, input: $crate::base::Size) -> Result<usize, $crate::base::SizeError> {
                $crate::layer::row_layer::output_size(self, input)
            }

            fn zero_state(&self, _batch: usize) {}

            fn add_to_graph(
                &self,
                graph: &mut $crate::layer::Graph<$f>,
                x: $crate::layer::Signal,
            ) -> Result<$crate::layer::Signal, $crate::layer::Unsupported> {
                $crate::layer::RowLayer::add_rows_to_graph(self, graph, x)
            }

            fn forward_pass<'c>(
                &self,
                x: &$crate::layer::Sequence<'_, $f>,
                _: &mut (),
                cache: &'c mut Self::Cache,
            ) -> $crate::ndarray::ArrayView3<'c, $f> {
                $crate::layer::RowLayer::walk(self, x, cache);
                cache.output()
            }

            fn forward_onto(
                &self,
                x: &$crate::layer::Sequence<'_, $f>,
                skip: $crate::ndarray::ArrayView3<'_, $f>,
                _: &mut (),
                cache: &mut Self::Cache,
                y: &mut $crate::ndarray::ArrayRef3<$f>,
                _: $crate::layer::Internal,
            ) {
                $crate::layer::row_layer::forward_onto(self, x, skip, cache, y);
            }

            fn output<'c>(&self, cache: &'c Self::Cache) -> $crate::ndarray::ArrayView3<'c, $f> {
                cache.output()
            }

            fn backward_pass<'c>(
                &self,
                x: &$crate::layer::Sequence<'_, $f>,
                dy: &$crate::ndarray::ArrayRef3<$f>,
                _: Option<&mut ()>,
                cache: &'c mut Self::Cache,
                grad: $crate::layer::Gradient<'_, Self>,
            ) -> $crate::ndarray::ArrayView3<'c, $f> {
                $crate::layer::RowLayer::walk_back(self, x, dy, cache, grad);
                cache.input_gradient()
            }
        }

        impl<$f: $bound> $crate::layer::Causal for $t {
            fn stages(&self, stages: &mut $crate::layer::Stages<$f>) {
                $crate::layer::row_layer::stages(self, stages);
            }
        }
    };
}

/// The methods of [`RowLayer`] that compile a layer's walk once for each element type, in this crate.
macro_rules! compiled_walk {
    ($layer:ident) => {
        #[track_caller]
        fn walk(&self, x: &$crate::layer::Sequence<'_, F>, cache: &mut $crate::layer::RowCache<Self>) {
            $crate::kernels::once! {
                #[track_caller]
                fn walk<'a, F: Float>(
                    layer: &'a $layer<F>,
                    x: &'a $crate::layer::Sequence<'a, F>,
                    cache: &'a mut $crate::layer::RowCache<$layer<F>>,
                ) {
                    $crate::layer::row_layer::forward(layer, x, cache);
                }
            }
            walk(self, &x.reborrow(), cache);
        }

        #[track_caller]
        fn walk_back(
            &self,
            x: &$crate::layer::Sequence<'_, F>,
            dy: &ndarray::ArrayRef3<F>,
            cache: &mut $crate::layer::RowCache<Self>,
            grad: $crate::layer::Gradient<'_, Self>,
        ) {
            $crate::kernels::once! {
                #[track_caller]
                fn walk_back<'a, F: Float>(
                    layer: &'a $layer<F>,
                    x: &'a $crate::layer::Sequence<'a, F>,
                    dy: &'a ndarray::ArrayRef3<F>,
                    cache: &'a mut $crate::layer::RowCache<$layer<F>>,
                    grad: $crate::layer::Gradient<'a, $layer<F>>,
                ) {
                    $crate::layer::row_layer::backward(layer, x, dy, cache, grad);
                }
            }
            walk_back(self, &x.reborrow(), dy, cache, grad);
        }
    };
}
pub(crate) use compiled_walk;
