//! Weights that are packed once, for all passes until they change.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ndarray::{ArrayRef3, ArrayView2, ArrayView3};

use crate::kernels::Packed;
use crate::{Causal, Float, Layer, Mode, Sequence, Size, SizeError, Tensors};

/// The weights of one model, packed as they are asked for.
#[derive(Debug)]
pub(crate) struct PackedWeights<F> {
    /// Which weights these are: of no other model, nor of this one after a change.
    id: u64,
    /// In the order of their addresses, known from the first pass on.
    tensors: OnceLock<Vec<PackedTensor<F>>>,
}

/// A tensor of the model, and what was packed of it.
#[derive(Debug)]
struct PackedTensor<F> {
    /// Its addresses. Nothing else can lie there while the model is borrowed.
    memory: Range<usize>,
    operands: Mutex<Vec<(View, Arc<Packed<F>>)>>,
}

/// What an operand is of a tensor: address, shape and strides.
type View = (usize, [usize; 2], [isize; 2]);

fn view_of<F>(operand: &ArrayView2<'_, F>) -> View {
    (operand.as_ptr().addr(), operand.dim().into(), [operand.strides()[0], operand.strides()[1]])
}

/// A packed operand that a cache keeps from pass to pass, and which it is.
#[derive(Clone, Debug)]
pub(crate) struct Kept<F> {
    weights: u64,
    view: View,
    pub packed: Arc<Packed<F>>,
}

impl<F> Default for PackedWeights<F> {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        PackedWeights { id: NEXT.fetch_add(1, Ordering::Relaxed), tensors: OnceLock::new() }
    }
}

impl<F: Float> PackedWeights<F> {
    /// `operand`, `[K, M]`, packed now or before, if it is a part of the model: what a layer made itself may be another
    /// matrix at the same place the next time.
    pub fn get(&self, operand: ArrayView2<'_, F>) -> Option<Arc<Packed<F>>> {
        let view @ (at, ..) = view_of(&operand);
        let tensors = self.tensors.get()?;
        let after = tensors.partition_point(|tensor| tensor.memory.start <= at);
        let tensor = tensors[..after].last().filter(|tensor| tensor.memory.contains(&at))?;
        let mut operands = tensor.operands.lock().unwrap_or_else(PoisonError::into_inner);
        let known = operands.iter().find(|(known, _)| *known == view);
        if let Some((_, packed)) = known {
            return Some(Arc::clone(packed));
        }
        let mut packed = Packed::default();
        packed.pack(operand);
        let packed = Arc::new(packed);
        operands.push((view, Arc::clone(&packed)));
        Some(packed)
    }

    /// Leaves in `kept` what [`get`](Self::get) gives; mostly it is there, and nobody needs to be asked.
    pub fn keep(&self, operand: ArrayView2<'_, F>, kept: &mut Option<Kept<F>>) {
        let view = view_of(&operand);
        if kept.as_ref().is_none_or(|kept| (kept.weights, kept.view) != (self.id, view)) {
            *kept = self.get(operand).map(|packed| Kept { weights: self.id, view, packed });
        }
    }

    /// Notes where the tensors lie, if it has not been done since they were last touched.
    fn know(&self, model: &impl Tensors<F>) {
        self.tensors.get_or_init(|| {
            let all = (0..model.count()).map(|i| model.tensor(i).1.as_ptr_range());
            let all = all.map(|memory| memory.start.addr()..memory.end.addr());
            let mut tensors: Vec<_> = all.map(|memory| PackedTensor { memory, operands: Mutex::default() }).collect();
            tensors.sort_by_key(|tensor| tensor.memory.start);
            tensors
        });
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
/// It costs the memory of the weights a second time. Equal passes have equal bits, as with [chunks](Sequence::chunks), and
/// differ from those of the bare model by rounding.
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
