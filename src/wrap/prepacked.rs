//! A model whose weights are packed once for all passes until they change.

use ndarray::{ArrayRef3, ArrayView3};

use super::forwarding::forwarding_layer;
use crate::base::{Mode, Tensors};
use crate::kernels::{PackedWeights, WeightPrecision};
use crate::layer::{Gradient, Layer, Sequence};

/// A model for inference, whose weights are packed once for all passes.
///
/// Products are fastest with packed weights, which are stored in a special order. In a pass over many steps, packing them first
/// pays off; for short passes, and for large weights with few rows, the copy costs more than the product. This wrapper keeps the
/// packed weights from the first [inference](Sequence::infer) on, in one place for all caches and threads. It is the same model in
/// every other respect: training is not affected, and any mutable access to the weights ([`get_mut`](Self::get_mut), an optimizer,
/// a file that is loaded) makes the next inference pack them anew.
///
/// It takes the memory of the weights a second time. Equal passes give equal bits, as with [chunks](Sequence::chunks), and differ
/// from those of the bare model by rounding.
///
/// ```
/// use gradflow::{Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell, wrap::Prepacked};
///
/// let model = Prepacked::new(LstmCell::<f32>::new(3, 4, &mut StdRng::seed_from_u64(0)));
/// let (mut state, mut cache) = (model.zero_state(2), model.cache());
/// for _ in 0..3 {
///     let x = Array3::ones((1, 2, 3));
///     let y = model.forward(gradflow::Sequence::from(&x).infer(), &mut state, &mut cache);
///     assert_eq!(y.dim(), (1, 2, 4));
/// }
/// let cell: LstmCell<f32> = model.into_inner();
/// ```
///
/// # Fewer bits
/// [`with_precision`](Self::with_precision) keeps weights in 16 or 8 bits. This helps if they are read from memory, as in a single
/// step of one sequence through a large layer: the pass then spends its time on reading them.
///
/// ```
/// use gradflow::{Causal, Layer, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell};
/// use gradflow::wrap::{Prepacked, WeightPrecision};
///
/// let cell = LstmCell::<f32>::new(3, 4, &mut StdRng::seed_from_u64(0));
/// let exact = Prepacked::new(cell.clone());
/// let model = Prepacked::with_precision(cell, WeightPrecision::Bf16);
/// let x = Array3::ones((1, 1, 3));
/// let y = model.step(&x, &mut model.zero_state(1), &mut model.cache()).to_owned();
/// let near = exact.step(&x, &mut exact.zero_state(1), &mut exact.cache()).to_owned();
/// assert!((y - near).iter().all(|error| error.abs() < 0.01));
/// ```
///
/// It changes only what inference computes:
///
/// | | |
/// | --- | --- |
/// | which weights | those of products with a matrix: in cells and their projections, [`Linear`](crate::layers::Linear), [`FeedForward`](crate::layers::FeedForward), convolutions unless depthwise, and layers made of these |
/// | which not | biases, peepholes, gains, [`Embedding`](crate::layers::Embedding)s, and weights that a layer computes anew in each pass, as [`WeightNorm`](crate::wrap::WeightNorm) and your own layers do |
/// | training, evaluation | use the original weights, which stay in the model and in its files |
/// | a [`Stream`](crate::stream::Stream) of it | uses the original weights, since its kernels have their own copies |
/// | a `Prepacked` layer inside | has its own precision |
/// | memory | the original weights and the packed ones |
/// | bits | as above: equal passes give equal bits, and a sequence has the same bits alone, in a batch and in [chunks](Sequence::chunks), on any number of threads |
///
/// If your own layer changes weights behind a shared reference, for instance in a `Mutex`, the change is not noticed.
#[derive(Debug)]
pub struct Prepacked<M: Layer> {
    model: M,
    weights: PackedWeights<M::Elem>,
}

impl<M: Layer> Prepacked<M> {
    /// Wraps `model`, without packing anything yet.
    pub fn new(model: M) -> Self {
        Prepacked { model, weights: PackedWeights::default() }
    }

    /// The precision of the packed weights.
    pub fn precision(&self) -> WeightPrecision {
        self.weights.precision()
    }

    /// A reference to the model.
    pub fn get_ref(&self) -> &M {
        &self.model
    }

    /// A mutable reference to the model: the next inference packs its weights anew.
    pub fn get_mut(&mut self) -> &mut M {
        self.weights = PackedWeights::new(self.precision());
        &mut self.model
    }

    /// Returns the model inside.
    pub fn into_inner(self) -> M {
        self.model
    }

    /// The input of the model: in inference, with its packed weights.
    fn given<'s>(&'s self, x: Sequence<'s, M::Elem>) -> Sequence<'s, M::Elem> {
        if x.mode() != Some(Mode::Infer) {
            return x;
        }
        self.weights.locate((0..self.model.count()).map(|i| self.model.tensor(i).1));
        x.with_packed(&self.weights)
    }

    fn run_backward<'c>(
        &self,
        x: &Sequence<'_, M::Elem>,
        dy: &ArrayRef3<M::Elem>,
        dstate: Option<&mut M::State>,
        cache: &'c mut M::Cache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, M::Elem> {
        let (grad, how) = grad.parts();
        self.model.backward_pass(x, dy, dstate, cache, Gradient::new(grad.get_mut(), how))
    }
}

impl<M: Layer<Elem = f32>> Prepacked<M> {
    /// Wraps `model`, to pack its weights with a [precision](WeightPrecision), without packing anything yet.
    ///
    /// The model must be in f32; one in f64, which is for tests, does not compile:
    ///
    /// ```compile_fail
    /// # use gradflow::{layers::Linear, wrap::{Prepacked, WeightPrecision}};
    /// Prepacked::with_precision(Linear::<f64>::zeros(3, 4), WeightPrecision::Int8);
    /// ```
    pub fn with_precision(model: M, precision: WeightPrecision) -> Self {
        Prepacked { model, weights: PackedWeights::new(precision) }
    }
}

impl<M: Layer> Clone for Prepacked<M> {
    fn clone(&self) -> Self {
        Prepacked { model: self.model.clone(), weights: PackedWeights::new(self.precision()) }
    }
}

/// Equal if the models are.
impl<M: Layer + PartialEq> PartialEq for Prepacked<M> {
    fn eq(&self, other: &Self) -> bool {
        self.model == other.model
    }
}

impl<M: Layer> Tensors<M::Elem> for Prepacked<M> {
    fn count(&self) -> usize {
        self.model.count()
    }
    fn name(&self, i: usize) -> String {
        self.model.name(i)
    }
    fn tensor(&self, i: usize) -> (&[usize], &[M::Elem]) {
        self.model.tensor(i)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [M::Elem] {
        self.get_mut().tensor_mut(i)
    }
}

forwarding_layer! { Prepacked<M> as model }
