//! Weights that are packed once, for all passes until they change.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::{ArrayRef3, ArrayView2, ArrayView3};

use crate::kernels::Packed;
use crate::{Causal, Float, Layer, Mode, Sequence, Size, SizeError, Tensors};

/// The weights of one model, packed as they are asked for.
#[derive(Debug, Default)]
pub(crate) struct PackedWeights<F>(Mutex<Vec<PackedTensor<F>>>);

/// A tensor of the model, and what was packed of it.
#[derive(Debug)]
struct PackedTensor<F> {
    /// Its addresses. Nothing else can lie there while the model is borrowed.
    memory: Range<usize>,
    operands: Vec<(View, Arc<Packed<F>>)>,
}

/// What an operand is of a tensor: address, shape and strides.
type View = (usize, [usize; 2], [isize; 2]);

impl<F: Float> PackedWeights<F> {
    /// `operand`, `[K, M]`, packed now or before, if it is a part of the model: what a layer made itself may be another
    /// matrix at the same place the next time.
    pub fn get(&self, operand: ArrayView2<'_, F>) -> Option<Arc<Packed<F>>> {
        let at = operand.as_ptr().addr();
        let view = (at, operand.dim().into(), [operand.strides()[0], operand.strides()[1]]);
        let mut tensors = self.tensors();
        let after = tensors.partition_point(|tensor| tensor.memory.start <= at);
        let tensor = tensors[..after].last_mut().filter(|tensor| tensor.memory.contains(&at))?;
        let known = tensor.operands.iter().find(|(known, _)| *known == view);
        if let Some((_, packed)) = known {
            return Some(Arc::clone(packed));
        }
        let mut packed = Packed::default();
        packed.pack(operand);
        let packed = Arc::new(packed);
        tensor.operands.push((view, Arc::clone(&packed)));
        Some(packed)
    }

    fn tensors(&self) -> MutexGuard<'_, Vec<PackedTensor<F>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where the tensors lie, if it has not been done since they were last touched.
    fn know(&self, model: &impl Tensors<F>) {
        let mut tensors = self.tensors();
        if tensors.is_empty() {
            let all = (0..model.count()).map(|i| model.tensor(i).1.as_ptr_range());
            let all = all.map(|memory| memory.start.addr()..memory.end.addr());
            tensors.extend(all.map(|memory| PackedTensor { memory, operands: Vec::new() }));
            tensors.sort_by_key(|tensor| tensor.memory.start);
        }
    }
}

/// A model for inference, whose weights are packed once for all passes.
///
/// Products are fastest with weights in an order of their own. A pass over many steps copies them to it and is repaid; for
/// short passes, and for large weights with few rows, the copy costs more than the product. This wrapper keeps the copies
/// from the first [inference](Sequence::infer) on, in one place for all caches and threads. It is the same model in every
/// other respect: training goes through it as if it were not there, and whoever reaches for the weights
/// ([`get_mut`](Self::get_mut), an optimizer, a file that is loaded) has them packed anew by the next inference.
///
/// It costs the memory of the weights a second time. A single step of a single sequence gains nothing: it reads each weight
/// once, wherever that lies. Equal passes have equal bits, as with [chunks](Sequence::chunks), and differ from those of the
/// bare model by rounding.
///
/// ```
/// use gradflow::{Layer, LstmCell, Prepacked, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
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
/// Weights that a layer of your own changes behind a shared reference, in a `Mutex` for instance, would not be noticed.
#[derive(Debug)]
pub struct Prepacked<M: Layer> {
    model: M,
    weights: PackedWeights<M::Elem>,
}

impl<M: Layer> Prepacked<M> {
    /// `model`, of which nothing is packed yet.
    pub fn new(model: M) -> Self {
        Prepacked { model, weights: PackedWeights::default() }
    }

    /// The model.
    pub fn get_ref(&self) -> &M {
        &self.model
    }

    /// The model, to be changed: the next inference packs its weights anew.
    pub fn get_mut(&mut self) -> &mut M {
        self.weights = PackedWeights::default();
        &mut self.model
    }

    /// The model alone.
    pub fn into_inner(self) -> M {
        self.model
    }

    fn input<'s>(&'s self, x: Sequence<'s, M::Elem>) -> Sequence<'s, M::Elem> {
        if x.mode() != Some(Mode::Infer) {
            return x;
        }
        self.weights.know(&self.model);
        x.with_packed(&self.weights)
    }
}

impl<M: Layer> Clone for Prepacked<M> {
    fn clone(&self) -> Self {
        Prepacked::new(self.model.clone())
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

impl<M: Layer> Layer for Prepacked<M> {
    type Elem = M::Elem;
    type State = M::State;
    type Cache = M::Cache;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.model.output_size(input)
    }

    fn zero_state(&self, batch: usize) -> M::State {
        self.model.zero_state(batch)
    }

    fn forward<'c>(
        &self,
        x: Sequence<'_, M::Elem>,
        state: &mut M::State,
        cache: &'c mut M::Cache,
    ) -> ArrayView3<'c, M::Elem> {
        self.model.forward(self.input(x.reborrow()), state, cache)
    }

    fn forward_with_skip(
        &self,
        x: Sequence<'_, M::Elem>,
        skip: ArrayView3<'_, M::Elem>,
        state: &mut M::State,
        cache: &mut M::Cache,
        y: &mut ArrayRef3<M::Elem>,
    ) {
        self.model.forward_with_skip(self.input(x.reborrow()), skip, state, cache, y);
    }

    fn output<'c>(&self, cache: &'c M::Cache) -> ArrayView3<'c, M::Elem> {
        self.model.output(cache)
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, M::Elem>,
        dy: &ArrayRef3<M::Elem>,
        dstate: Option<&mut M::State>,
        cache: &'c mut M::Cache,
        grad: &mut Self,
    ) -> ArrayView3<'c, M::Elem> {
        self.model.backward(x, dy, dstate, cache, grad.get_mut())
    }

    fn overwrites_gradients(&self) -> bool {
        self.model.overwrites_gradients()
    }
}

impl<M: Causal> Causal for Prepacked<M> {}
