//! Weights that are packed once, for all passes of a model until they change.
//!
//! They are found by their addresses, among the model's own tensors only: a temporary matrix of a layer is never kept. A cache
//! remembers the packed operand and the weights it belongs to, so that the next pass takes no lock and counts no reference.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ndarray::ArrayView2;

use super::packed::Packed;
use super::precision::WeightPrecision;
use crate::kernels::float::Float;
use crate::kernels::once::once;

/// The weights of one model, packed on demand.
#[derive(Debug)]
pub(crate) struct PackedWeights<F> {
    /// Identifies these weights: no other model has this id, nor does this one after a change.
    id: u64,
    precision: WeightPrecision,
    /// In the order of their addresses, known from the first pass on.
    tensors: OnceLock<Vec<PackedTensor<F>>>,
}

/// A tensor of the model, and the operands that were packed from it.
#[derive(Debug)]
struct PackedTensor<F> {
    /// Its addresses. Nothing else can be there while the model is borrowed.
    memory: Range<usize>,
    operands: Mutex<Vec<(View, Arc<Packed<F>>)>>,
}

/// The view of a tensor that an operand is: address, shape and strides.
type View = (usize, [usize; 2], [isize; 2]);

fn view_of<F>(operand: &ArrayView2<'_, F>) -> View {
    (operand.as_ptr().addr(), operand.dim().into(), [operand.strides()[0], operand.strides()[1]])
}

/// A packed operand that a cache keeps from pass to pass, with the weights and the view that identify it.
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
    /// No weights yet, to be packed in this precision, which may be other than `Full` only for f32.
    pub fn new(precision: WeightPrecision) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        PackedWeights { id: NEXT.fetch_add(1, Ordering::Relaxed), precision, tensors: OnceLock::new() }
    }

    /// The precision in which they are packed.
    pub fn precision(&self) -> WeightPrecision {
        self.precision
    }
}

impl<F: Float> PackedWeights<F> {
    /// `operand`, `[K, M]`, packed now or before, if it is a part of the model: a layer's temporary matrix may be another
    /// one at the same address the next time.
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

    /// Stores the result of [`get`](Self::get) in `kept`. Usually it is there already, and nothing is locked.
    pub fn keep(&self, operand: ArrayView2<'_, F>, kept: &mut Option<Kept<F>>) {
        let view = view_of(&operand);
        if kept.as_ref().is_none_or(|kept| (kept.weights, kept.view) != (self.id, view)) {
            *kept = self.get(operand).map(|packed| Kept { weights: self.id, view, packed });
        }
    }

    /// Records the addresses of the model's tensors, unless this has been done since they last changed.
    pub fn locate<'m>(&self, tensors: impl Iterator<Item = &'m [F]>) {
        self.tensors.get_or_init(|| by_address(&mut tensors.map(|values| values.as_ptr_range())));
    }
}

once! {
    /// Tensors of which nothing is packed, in the order of their addresses.
    fn by_address<'a, F: Float>(tensors: &'a mut dyn Iterator<Item = Range<*const F>>) -> Vec<PackedTensor<F>> {
        let tensors = tensors.map(|memory| memory.start.addr()..memory.end.addr());
        let mut tensors: Vec<_> = tensors.map(|memory| PackedTensor { memory, operands: Mutex::default() }).collect();
        tensors.sort_by_key(|tensor| tensor.memory.start);
        tensors
    }
}
