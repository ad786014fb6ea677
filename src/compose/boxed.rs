//! A layer chosen at run time.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;

use ndarray::{ArrayRef3, ArrayView3};

use crate::base::error::mismatch;
use crate::base::{Size, SizeError, Tensors};
use crate::kernels::{Accumulate, Float};
use crate::layer::{
    Causal, Gradient, Graph, Internal, Layer, Sequence, Signal, Stages, State, Steps, Summary, Unsupported,
};

const NAME: &str = "BoxLayer";

/// Any layer behind one type: for stacks that are chosen at run time.
///
/// A box around a [`Causal`] layer is made by [`BoxLayer::new`] and is causal itself. A box around a layer that needs the whole
/// sequence, such as a bidirectional model or [`LastStep`](crate::layers::LastStep), is made by [`BoxLayer::whole`] and has another
/// type, without [`step`](Causal::step), which therefore cannot be called by mistake.
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
///
/// A classifier of sequences, with or without a second direction:
///
/// ```
/// use gradflow::{
///     Layer, author::Steps, compose::{BoxLayer, Stacked}, layers::{LastStep, Linear}, rand::{SeedableRng, rngs::StdRng},
///     recurrent::{BiGru, Gru},
/// };
///
/// let (both, rng) = (true, &mut StdRng::seed_from_u64(0));
/// let mut layers = if both {
///     vec![BoxLayer::whole(BiGru::<f32>::new(3, 8, rng)), BoxLayer::whole(LastStep::both_directions())]
/// } else {
///     vec![BoxLayer::whole(Gru::<f32>::new(3, 16, rng)), BoxLayer::whole(LastStep::new())]
/// };
/// layers.push(BoxLayer::whole(Linear::new(16, 2, rng)));
/// let model = Stacked::new(layers);
/// assert_eq!((model.output_size(3.into()), model.output_steps()), (Ok(2), Steps::Count(1)));
/// ```
pub struct BoxLayer<F: Float, Kind = Streaming> {
    layer: Box<dyn AnyLayer<F>>,
    add_stages: Option<AddStages<F>>, // of a causal layer
    kind: PhantomData<fn() -> Kind>,
}

/// [`Causal::stages`] of a layer whose type is erased.
type AddStages<F> = fn(&dyn Any, &mut Stages<F>);

/// The kind of a [`BoxLayer`] whose layer is [`Causal`].
#[derive(Clone, Copy, Debug)]
pub enum Streaming {}

/// The kind of a [`BoxLayer`] whose layer may need the whole sequence.
#[derive(Clone, Copy, Debug)]
pub enum WholeSequence {}

/// The state of a [`BoxLayer`].
pub struct BoxState<F>(Box<dyn AnyState<F>>);

/// The cache of a [`BoxLayer`].
#[derive(Debug, Default)]
pub struct BoxCache(Option<Box<dyn Any + Send>>);

impl<F: Float> BoxLayer<F> {
    /// A box around `layer`, whose type is erased.
    pub fn new<L>(layer: L) -> Self
    where
        L: Causal<Elem = F>,
    {
        let add_stages: AddStages<F> =
            |layer, stages| layer.downcast_ref::<L>().expect("the layer that was boxed").stages(stages);
        BoxLayer { layer: Box::new(layer), add_stages: Some(add_stages), kind: PhantomData }
    }
}

impl<F: Float> BoxLayer<F, WholeSequence> {
    /// A box around `layer`, which may need the whole sequence and whose type is erased.
    pub fn whole<L>(layer: L) -> Self
    where
        L: Layer<Elem = F>,
    {
        BoxLayer { layer: Box::new(layer), add_stages: None, kind: PhantomData }
    }
}

impl<F: Float, Kind> BoxLayer<F, Kind> {
    /// The layer inside, if it is an `L`.
    pub fn downcast_mut<L: 'static>(&mut self) -> Option<&mut L> {
        self.layer.as_any_mut().downcast_mut()
    }
}

impl<F: Float, Kind> Clone for BoxLayer<F, Kind> {
    fn clone(&self) -> Self {
        BoxLayer { layer: self.layer.boxed(), add_stages: self.add_stages, kind: PhantomData }
    }
}

impl<F: Float, Kind> fmt::Debug for BoxLayer<F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}({})", self.layer.type_name())
    }
}

/// Displays the layer's [`Summary`].
impl<F: Float, Kind: 'static> fmt::Display for BoxLayer<F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}

/// Equal if both layers have the same type and the same parameters.
impl<F: Float, Kind> PartialEq for BoxLayer<F, Kind> {
    fn eq(&self, other: &Self) -> bool {
        self.layer.type_name() == other.layer.type_name() && same_tensors(&*self.layer, &*other.layer)
    }
}

impl<F: Float> PartialEq for BoxState<F> {
    fn eq(&self, other: &Self) -> bool {
        same_tensors(self, other)
    }
}

fn same_tensors<F: Float, T: Tensors<F> + ?Sized>(a: &T, b: &T) -> bool {
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

/// The methods of [`Layer`], without its associated types.
trait AnyLayer<F: Float>: Tensors<F> + Send + Sync {
    fn boxed(&self) -> Box<dyn AnyLayer<F>>;
    fn type_name(&self) -> &'static str;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn any_output_size(&self, input: Size) -> Result<usize, SizeError>;
    fn any_output_steps(&self) -> Steps;
    fn any_describe(&self, name: &str, summary: &mut Summary);
    fn any_add_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported>;
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
        grad: (&mut dyn AnyLayer<F>, Accumulate),
    ) -> ArrayView3<'c, F>;
}

/// The methods of [`State`], without its type.
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
    L: Layer<Elem = F>,
{
    fn boxed(&self) -> Box<dyn AnyLayer<F>> {
        Box::new(self.clone())
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<L>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn any_output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.output_size(input)
    }

    fn any_output_steps(&self) -> Steps {
        self.output_steps()
    }

    fn any_describe(&self, name: &str, summary: &mut Summary) {
        self.describe(name, summary);
    }

    fn any_add_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        self.add_to_graph(graph, x)
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

    #[track_caller]
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
        (grad, how): (&mut dyn AnyLayer<F>, Accumulate),
    ) -> ArrayView3<'c, F> {
        let dstate = dstate.map(|dstate| own("dstate", Some(dstate.0.as_any_mut())));
        let cache = own("cache", cache.0.as_deref_mut().map(|cache| cache as &mut dyn Any));
        self.backward_pass(x, dy, dstate, cache, Gradient::new(own("grad", Some(grad.as_any_mut())), how))
    }
}

macro_rules! delegate_tensors {
    ([$($generics:tt)*] $t:ty: $field:tt) => {
        impl<$($generics)*> Tensors<F> for $t {
            fn count(&self) -> usize {
                self.$field.count()
            }
            fn name(&self, i: usize) -> String {
                self.$field.name(i)
            }
            fn tensor(&self, i: usize) -> (&[usize], &[F]) {
                self.$field.tensor(i)
            }
            fn tensor_mut(&mut self, i: usize) -> &mut [F] {
                self.$field.tensor_mut(i)
            }
        }
    };
}
delegate_tensors!([F: Float, Kind] BoxLayer<F, Kind>: layer);
delegate_tensors!([F] BoxState<F>: 0);

impl<F: Float, Kind: 'static> Layer for BoxLayer<F, Kind> {
    type Elem = F;
    type State = BoxState<F>;
    type Cache = BoxCache;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.layer.any_output_size(input)
    }

    fn output_steps(&self) -> Steps {
        self.layer.any_output_steps()
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        self.layer.any_describe(name, summary);
    }

    fn add_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        self.layer.any_add_to_graph(graph, x)
    }

    fn zero_state(&self, batch: usize) -> BoxState<F> {
        self.layer.any_zero_state(batch)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        state: &mut BoxState<F>,
        cache: &'c mut BoxCache,
    ) -> ArrayView3<'c, F> {
        self.layer.any_forward(x, state, cache)
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
        self.layer.any_forward_onto(x, skip, state, cache, y, internal);
    }

    fn output<'c>(&self, cache: &'c BoxCache) -> ArrayView3<'c, F> {
        self.layer.any_output(cache)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut BoxState<F>>,
        cache: &'c mut BoxCache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, F> {
        let (grad, how) = grad.parts();
        self.layer.any_backward(x, dy, dstate, cache, (&mut *grad.layer, how))
    }
}

impl<F: Float> Causal for BoxLayer<F> {
    fn stages(&self, stages: &mut Stages<F>) {
        let add = self.add_stages.expect("a causal layer");
        add(self.layer.as_any(), stages);
    }
}
