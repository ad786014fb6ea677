//! A right operand of products in any form: in its tensor, packed for the pass, or packed once for a whole model.

use std::sync::Arc;

use ndarray::{ArrayView2, ArrayViewMut2};

use super::packed::Packed;
use super::precision::WeightPrecision;
use super::store::{Kept, PackedWeights};
use crate::kernels::float::Float;
use crate::kernels::gemm::operand::Start;
use crate::kernels::gemm::plan::{Summation, compute};

/// W `[K, M]` of products `v W`.
///
/// A layer asks for it once and applies it to its rows, whether the model is prepacked or not and has a bias or not:
///
/// ```text
/// Weight::stored(weight.t(), x.packed_weights(), rows, Summation::Fastest).apply(x_rows, bias, a)       a = x Wᵀ + b
/// Weight::stored(weight.t(), x.packed_weights(), rows, Summation::Fastest).apply(x_rows, Accumulate::Add, a)
/// ```
///
/// Code that multiplies with the same W many times has an [`Operand`].
#[derive(Debug, Clone)]
pub(crate) enum Weight<'a, F> {
    /// In place, with its terms added up in this order.
    InPlace(ArrayView2<'a, F>, Summation),
    /// In panels that are borrowed. Terms are added up in order.
    Packed(&'a Packed<F>),
    /// In panels that are shared among the passes of a model.
    Shared(Arc<Packed<F>>),
}

impl<'a, F: Float> Weight<'a, F> {
    /// `w` as `store` has it packed, if it is a tensor of that model and there are several `rows` to multiply it with, or fewer bits
    /// to read. Otherwise `w` in place: a single row reads each weight once, so packing it saves nothing.
    pub fn stored(w: ArrayView2<'a, F>, store: Option<&PackedWeights<F>>, rows: usize, order: Summation) -> Self {
        let packed =
            store.filter(|store| rows > 1 || store.precision() != WeightPrecision::Full).and_then(|store| store.get(w));
        packed.map_or(Weight::InPlace(w, order), Weight::Shared)
    }

    /// `w` in panels in any case: those of `store`, otherwise packed now, into `own`.
    pub fn packed(w: ArrayView2<'_, F>, store: Option<&PackedWeights<F>>, own: &'a mut Packed<F>) -> Self {
        match store.and_then(|store| store.get(w)) {
            Some(packed) => Weight::Shared(packed),
            None => Weight::Packed(own.pack(w)),
        }
    }

    /// `out = start + v W` for `v` `[N, K]` and `out` `[N, M]`, whose rows are contiguous. `start` is a bias, if there is one,
    /// or says whether the product is added to `out`.
    ///
    /// # Panics
    /// Panics if shapes differ.
    #[inline]
    pub fn apply<'s>(&self, v: ArrayView2<'_, F>, start: impl Into<Start<'s, F>>, out: ArrayViewMut2<'_, F>) {
        match self {
            Weight::InPlace(w, order) => compute(v, *w, out, start.into(), *order),
            Weight::Packed(packed) => packed.multiply(v, out, start),
            Weight::Shared(packed) => packed.multiply(v, out, start),
        }
    }
}

/// W of many products of a pass, packed for it, or once for all passes of a prepacked model.
///
/// It is part of a cache, so that its memory and the packed weights of the model are kept from pass to pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operand<F> {
    own: Packed<F>,
    is_own: bool,
    shared: Option<Kept<F>>,
}

impl<F: Float> Operand<F> {
    /// Prepares a pass: takes `w` as `store` has it packed; otherwise packs it now if the products of the pass `repay` that.
    pub fn prepare(&mut self, w: ArrayView2<'_, F>, store: Option<&PackedWeights<F>>, repay: bool) {
        match store {
            Some(store) => store.keep(w, &mut self.shared),
            None => self.shared = None,
        }
        self.is_own = self.shared.is_none() && repay;
        if self.is_own {
            self.own.pack(w);
        }
    }

    /// `w`, which must be the one that was [prepared](Self::prepare); if it is not packed, its terms are added up as `order` says.
    #[inline]
    pub fn weight<'a>(&'a self, w: ArrayView2<'a, F>, order: Summation) -> Weight<'a, F> {
        match &self.shared {
            Some(shared) => Weight::Packed(&shared.packed),
            None if self.is_own => Weight::Packed(&self.own),
            None => Weight::InPlace(w, order),
        }
    }
}
