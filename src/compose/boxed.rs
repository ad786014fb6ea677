//! A layer chosen at run time.

use std::any::Any;
use std::fmt;

use ndarray::{ArrayRef3, ArrayView3};

use crate::base::error::mismatch;
use crate::base::{Size, SizeError, Tensors};
use crate::kernels::Float;
use crate::layer::{Causal, Gradient, Internal, Layer, Sequence, State, Summary};

const NAME: &str = "BoxLayer";

/// Any [`Causal`] layer behind one type: for stacks that are chosen at run time.
///
/// ```
/// use gradflow::{
///     Layer, compose::{BoxLayer, Stacked}, layers::{Activation, Linear}, rand::{SeedableRng, rngs::StdRng},
///     recurrent::GruCell,
/// };
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let mut layers = vec![BoxLayer::new(Linear::<f32>::new(3, 8, rng)), BoxLayer::new(Activation::tanh())];
/// if std::env::args().any(|flag| flag == "--recurrent") {
///     layers.push(BoxLayer::new(GruCell::new(8, 8, rng)));
/// }
/// assert_eq!(Stacked::new(layers).output_size(3.into()), Ok(8));
/// ```
pub struct BoxLayer<F: Float>(Box<dyn AnyLayer<F>>);

/// The state of a [`BoxLayer`].
pub struct BoxState<F>(Box<dyn AnyState<F>>);

/// The cache of a [`BoxLayer`].
#[derive(Debug, Default)]
pub struct BoxCache(Option<Box<dyn Any + Send>>);

impl<F: Float> BoxLayer<F> {
    /// `layer`, its type forgotten.
    pub fn new<L>(layer: L) -> Self
    where
        L: Causal<Elem = F> + 'static,
        L::State: 'static,
        L::Cache: 'static,
    {
        BoxLayer(Box::new(layer))
    }

    /// The layer inside, if it is an `L`.
    pub fn downcast_mut<L: 'static>(&mut self) -> Option<&mut L> {
        self.0.as_any_mut().downcast_mut()
    }
}

impl<F: Float> Clone for BoxLayer<F> {
    fn clone(&self) -> Self {
        self.0.boxed()
    }
}

impl<F: Float> fmt::Debug for BoxLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}({})", self.0.type_name())
    }
}

/// Layers of one type with the same parameters.
impl<F: Float> PartialEq for BoxLayer<F> {
    fn eq(&self, other: &Self) -> bool {
        self.0.type_name() == other.0.type_name() && same_tensors(self, other)
    }
}

impl<F: Float> PartialEq for BoxState<F> {
    fn eq(&self, other: &Self) -> bool {
        same_tensors(self, other)
    }
}

fn same_tensors<F: Float, T: Tensors<F>>(a: &T, b: &T) -> bool {
    a.count() == b.count() && (0..a.count()).all(|i| a.name(i) == b.name(i) && a.tensor(i) == b.tensor(i))
}

impl<F: Float> fmt::Debug for BoxState<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<_> = (0..self.count()).map(|i| self.tensor(i).0).collect();
        f.debug_tuple("BoxState").field(&shapes).finish()
    }
}

impl<F: Float> Clone for BoxState<F> {
    fn clone(&self) -> Self {
        self.0.boxed()
    }
}

/// What [`Layer`] asks, without its associated types.
trait AnyLayer<F: Float>: Tensors<F> + Send + Sync {
    fn boxed(&self) -> BoxLayer<F>;
    fn type_name(&self) -> &'static str;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn any_output_size(&self, input: Size) -> Result<usize, SizeError>;
    fn any_describe(&self, name: &str, summary: &mut Summary);
    fn any_zero_state(&self, batch: usize) -> BoxState<F>;
    fn any_forward<'c>(
        &self,
        x: &Sequence<'_, F>,
        state: &mut BoxState<F>,
        cache: &'c mut BoxCache,
    ) -> ArrayView3<'c, F>;
    fn any_forward_onto(
        &self,
        x: &Sequence<'_, F>,
        skip: ArrayView3<'_, F>,
        state: &mut BoxState<F>,
        cache: &mut BoxCache,
        y: &mut ArrayRef3<F>,
        internal: Internal,
    );
    fn any_output<'c>(&self, cache: &'c BoxCache) -> ArrayView3<'c, F>;
    fn any_backward<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut BoxState<F>>,
        cache: &'c mut BoxCache,
        grad: Gradient<'_, BoxLayer<F>>,
    ) -> ArrayView3<'c, F>;
}

/// What [`State`] asks, without its type.
trait AnyState<F>: Tensors<F> + Send + Sync {
    fn boxed(&self) -> BoxState<F>;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<F, S: State<F> + 'static> AnyState<F> for S {
    fn boxed(&self) -> BoxState<F> {
        BoxState(Box::new(self.clone()))
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// The value behind an erased argument, which must be of the layer's own type.
#[track_caller]
fn own<'a, T: Any>(argument: &str, value: Option<&'a mut dyn Any>) -> &'a mut T {
    match value.and_then(|value| value.downcast_mut()) {
        Some(own) => own,
        None => mismatch(NAME, argument, &std::any::type_name::<T>(), &"that of another layer (stale cache)"),
    }
}

impl<F, L> AnyLayer<F> for L
where
    F: Float,
    L: Layer<Elem = F> + Causal + 'static,
    L::State: 'static,
    L::Cache: 'static,
{
    fn boxed(&self) -> BoxLayer<F> {
        BoxLayer(Box::new(self.clone()))
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<L>()
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn any_output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.output_size(input)
    }

    fn any_describe(&self, name: &str, summary: &mut Summary) {
        self.describe(name, summary);
    }

    fn any_zero_state(&self, batch: usize) -> BoxState<F> {
        BoxState(Box::new(self.zero_state(batch)))
    }

    fn any_forward<'c>(
        &self,
        x: &Sequence<'_, F>,
        state: &mut BoxState<F>,
        cache: &'c mut BoxCache,
    ) -> ArrayView3<'c, F> {
        let cache = cache.0.get_or_insert_with(|| Box::new(L::Cache::default()));
        self.forward_pass(x, own("state", Some(state.0.as_any_mut())), own("cache", Some(&mut **cache)))
    }

    fn any_forward_onto(
        &self,
        x: &Sequence<'_, F>,
        skip: ArrayView3<'_, F>,
        state: &mut BoxState<F>,
        cache: &mut BoxCache,
        y: &mut ArrayRef3<F>,
        internal: Internal,
    ) {
        let cache = cache.0.get_or_insert_with(|| Box::new(L::Cache::default()));
        let (state, cache) = (own("state", Some(state.0.as_any_mut())), own("cache", Some(&mut **cache)));
        self.forward_onto(x, skip, state, cache, y, internal);
    }

    fn any_output<'c>(&self, cache: &'c BoxCache) -> ArrayView3<'c, F> {
        match cache.0.as_ref().and_then(|cache| cache.downcast_ref()) {
            Some(cache) => self.output(cache),
            None => mismatch(NAME, "cache", &"that of a forward pass", &"a stale cache"),
        }
    }

    fn any_backward<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut BoxState<F>>,
        cache: &'c mut BoxCache,
        grad: Gradient<'_, BoxLayer<F>>,
    ) -> ArrayView3<'c, F> {
        let dstate = dstate.map(|dstate| own("dstate", Some(dstate.0.as_any_mut())));
        let cache = own("cache", cache.0.as_deref_mut().map(|cache| cache as &mut dyn Any));
        let (grad, how) = grad.parts();
        self.backward_pass(x, dy, dstate, cache, Gradient::new(own("grad", Some(grad.0.as_any_mut())), how))
    }
}

macro_rules! delegate_tensors {
    ($t:ident<$f:ident $(: $bound:ident)?>) => {
        impl<$f $(: $bound)?> Tensors<$f> for $t<$f> {
            fn count(&self) -> usize {
                self.0.count()
            }
            fn name(&self, i: usize) -> String {
                self.0.name(i)
            }
            fn tensor(&self, i: usize) -> (&[usize], &[$f]) {
                self.0.tensor(i)
            }
            fn tensor_mut(&mut self, i: usize) -> &mut [$f] {
                self.0.tensor_mut(i)
            }
        }
    };
}
delegate_tensors!(BoxLayer<F: Float>);
delegate_tensors!(BoxState<F>);

impl<F: Float> Layer for BoxLayer<F> {
    type Elem = F;
    type State = BoxState<F>;
    type Cache = BoxCache;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.0.any_output_size(input)
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        self.0.any_describe(name, summary);
    }

    fn zero_state(&self, batch: usize) -> BoxState<F> {
        self.0.any_zero_state(batch)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        state: &mut BoxState<F>,
        cache: &'c mut BoxCache,
    ) -> ArrayView3<'c, F> {
        self.0.any_forward(x, state, cache)
    }

    fn forward_onto(
        &self,
        x: &Sequence<'_, F>,
        skip: ArrayView3<'_, F>,
        state: &mut BoxState<F>,
        cache: &mut BoxCache,
        y: &mut ArrayRef3<F>,
        internal: Internal,
    ) {
        self.0.any_forward_onto(x, skip, state, cache, y, internal);
    }

    fn output<'c>(&self, cache: &'c BoxCache) -> ArrayView3<'c, F> {
        self.0.any_output(cache)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut BoxState<F>>,
        cache: &'c mut BoxCache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, F> {
        self.0.any_backward(x, dy, dstate, cache, grad)
    }
}

impl<F: Float> Causal for BoxLayer<F> {}
