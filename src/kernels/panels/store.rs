//! Weights that are packed once, for all passes of a model until they change.
//!
//! They are found by where they lie in memory, among the model's own tensors only: a matrix that a layer makes in passing is never
//! kept. A cache remembers what it was given and for which weights, so that the next pass neither locks nor counts.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ndarray::ArrayView2;

use super::packed::Packed;
use super::precision::WeightPrecision;
use crate::kernels::float::Float;

/// The weights of one model, packed as they are asked for.
#[derive(Debug)]
pub(crate) struct PackedWeights<F> {
    /// Which weights these are: of no other model, nor of this one after a change.
    id: u64,
    precision: WeightPrecision,
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
        PackedWeights::new(WeightPrecision::Full)
    }
}

impl<F> PackedWeights<F> {
    /// None yet, to be packed in so many bits: fewer than all only in f32.
    pub fn new(precision: WeightPrecision) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        PackedWeights { id: NEXT.fetch_add(1, Ordering::Relaxed), precision, tensors: OnceLock::new() }
    }

    /// In how many bits they are packed.
    pub fn precision(&self) -> WeightPrecision {
        self.precision
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
        packed.pack_in(operand, self.precision);
        let packed = Arc::new(packed);
        operands.push((view, Arc::clone(&packed)));
        Some(packed)
    }

    /// Leaves in `kept` what [`get`](Self::get) gives. Mostly it is there already, and nothing is locked.
    pub fn keep(&self, operand: ArrayView2<'_, F>, kept: &mut Option<Kept<F>>) {
        let view = view_of(&operand);
        if kept.as_ref().is_none_or(|kept| (kept.weights, kept.view) != (self.id, view)) {
            *kept = self.get(operand).map(|packed| Kept { weights: self.id, view, packed });
        }
    }

    /// Notes where the model's tensors lie, if it has not been done since they last changed.
    pub fn locate<'m>(&self, tensors: impl Iterator<Item = &'m [F]>) {
        self.tensors.get_or_init(|| {
            let mut tensors: Vec<_> = tensors
                .map(|values| values.as_ptr_range())
                .map(|memory| memory.start.addr()..memory.end.addr())
                .map(|memory| PackedTensor { memory, operands: Mutex::default() })
                .collect();
            tensors.sort_by_key(|tensor| tensor.memory.start);
            tensors
        });
    }
}
