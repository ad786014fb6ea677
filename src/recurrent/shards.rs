//! A large batch in shards, on the threads of rayon's current pool.
//!
//! Sequences have nothing to do with each other but the sum of the parameters' gradients. So each shard goes through all
//! steps by itself, with a cache of its own, and no thread waits for another at a step. How many shards there are depends
//! on the shapes alone, and gradients are added up in the order of the shards: the number of threads changes no bit.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, ArrayViewMut3, Axis, s};

use super::cell::{Cell, StateParts};
use super::part::add;
use super::time_loop::{CellCache, backward_alone, forward_alone, work};
use crate::cache::reuse;
use crate::parallel::{COLUMNS, ELEMENT, ENTRY, for_each_part};
use crate::tensors::misfit;
use crate::{Float, Sequence, TensorsExt};

/// Sequences to a shard, about: enough for the products of a step to be fast.
const SEQUENCES: usize = 32;

/// The fewest sequences that are split.
const FEWEST_SEQUENCES: usize = 16;

/// The bytes of parameters up to which all threads can go through them at once. Of larger ones, each takes some columns of
/// each product.
const MOST_BYTES: usize = 1 << 24;

/// What the shards of a pass need; empty while nothing is split.
pub(super) struct Shards<C: Cell> {
    count: usize,
    caches: Vec<CellCache<C>>,
    grads: Vec<C>,
    y: Array3<C::Elem>,  // [T, B, O]
    dx: Array3<C::Elem>, // [T, B, I]
}

impl<C: Cell> Default for Shards<C> {
    fn default() -> Self {
        let none = || Array3::default((0, 0, 0));
        Shards { count: 1, caches: Vec::new(), grads: Vec::new(), y: none(), dx: none() }
    }
}

impl<C: Cell> Shards<C> {
    /// Decides how a pass over `x` is split, and says whether it is.
    pub fn plan(&mut self, cell: &C, x: &Sequence<'_, C::Elem>) -> bool {
        let (steps, batch) = x.dims();
        let can_be = steps > 1 && batch >= FEWEST_SEQUENCES && work(cell, x) >= ENTRY;
        let worth = can_be && cell.element_count() * size_of::<C::Elem>() <= MOST_BYTES;
        self.count = if worth { (batch / SEQUENCES).max(2) } else { 1 };
        self.is_used()
    }

    /// Whether the last pass was split.
    pub fn is_used(&self) -> bool {
        self.count > 1
    }

    /// The output of the last pass.
    pub fn output(&self) -> ArrayView3<'_, C::Elem> {
        self.y.view()
    }

    pub fn forward(
        &mut self,
        cell: &C,
        x: Sequence<'_, C::Elem>,
        state: StateParts<'_, C::Elem>,
    ) -> ArrayView3<'_, C::Elem> {
        let (steps, batch) = x.dims();
        let all = 0..self.count;
        self.caches.resize_with(self.count.max(self.caches.len()), CellCache::default);
        reuse(&mut self.y, (steps, batch, cell.sizes().output));
        let job = Job { cell, batch, count: self.count };
        job.forward(all.clone(), x, state, &mut self.caches[all], self.y.view_mut());
        self.y.view()
    }

    /// The first shard adds to `grad`, or overwrites it, and the others are added; each shard's norms go to its cache's
    /// recorder.
    pub fn backward(
        &mut self,
        cell: &C,
        x: Sequence<'_, C::Elem>,
        dy: ArrayView3<'_, C::Elem>,
        dstate: Option<StateParts<'_, C::Elem>>,
        grad: &mut C,
    ) {
        let (steps, batch) = x.dims();
        let all = 0..self.count;
        if !self.grads.iter().all(|shard| misfit(shard, grad).is_none()) {
            self.grads.clear();
        }
        self.grads.resize_with(self.count.max(self.grads.len()), || grad.clone());
        let input = if x.wants_gradient() { cell.sizes().input } else { 0 };
        reuse(&mut self.dx, (steps, batch, input));
        let job = Job { cell, batch, count: self.count };
        // The first shard's gradient is that of the batch.
        std::mem::swap(grad, &mut self.grads[0]);
        let own = (&mut self.caches[all.clone()], &mut self.grads[all.clone()]);
        job.backward(all.clone(), x, dy, dstate, own, self.dx.view_mut());
        std::mem::swap(grad, &mut self.grads[0]);
        add_all(grad, &self.grads[1..self.count]);
    }

    /// What the last backward pass left.
    pub fn input_gradient(&self) -> ArrayView3<'_, C::Elem> {
        self.dx.view()
    }

    /// The caches of the last pass's shards.
    pub fn caches(&mut self) -> &mut [CellCache<C>] {
        &mut self.caches[..self.count]
    }
}

/// `grad += Σ shards`, in their order.
fn add_all<C: Cell>(grad: &mut C, shards: &[C]) {
    for shard in shards {
        for i in 0..grad.count() {
            let both = (grad.tensor_mut(i), shard.values(i));
            let work = both.1.len() * ELEMENT;
            for_each_part(both, work, COLUMNS, |(sums, values)| add(values, sums));
        }
    }
}

/// A pass that is split: by halves, until a shard is left.
struct Job<'a, C> {
    cell: &'a C,
    batch: usize,
    count: usize,
}

impl<C: Cell> Clone for Job<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C: Cell> Copy for Job<'_, C> {}

impl<C: Cell> Job<'_, C> {
    /// The middle of some shards, and how many sequences come before it.
    fn middle(self, shards: &Range<usize>) -> (usize, usize) {
        let middle = shards.start + shards.len() / 2;
        let first = |shard: usize| shard * self.batch / self.count;
        (middle, first(middle) - first(shards.start))
    }

    fn forward(
        self,
        shards: Range<usize>,
        x: Sequence<'_, C::Elem>,
        state: StateParts<'_, C::Elem>,
        caches: &mut [CellCache<C>],
        y: ArrayViewMut3<'_, C::Elem>,
    ) {
        if shards.len() == 1 {
            return copy_steps(forward_alone(self.cell, x, state, &mut caches[0]), y);
        }
        let ((middle, at), batch) = (self.middle(&shards), x.dims().1);
        let [state, other_state] = split(state, at);
        let (caches, other_caches) = caches.split_at_mut(shards.len() / 2);
        let (y, other_y) = y.split_at(Axis(1), at);
        rayon::join(
            || self.forward(shards.start..middle, x.sequences(0..at), state, caches, y),
            || self.forward(middle..shards.end, x.sequences(at..batch), other_state, other_caches, other_y),
        );
    }

    fn backward(
        self,
        shards: Range<usize>,
        x: Sequence<'_, C::Elem>,
        dy: ArrayView3<'_, C::Elem>,
        dstate: Option<StateParts<'_, C::Elem>>,
        (caches, grads): (&mut [CellCache<C>], &mut [C]),
        dx: ArrayViewMut3<'_, C::Elem>,
    ) {
        if shards.len() == 1 {
            let x = if shards.start == 0 { x } else { x.overwriting_gradients() };
            return copy_steps(backward_alone(self.cell, x, dy, dstate, &mut caches[0], &mut grads[0]), dx);
        }
        let ((middle, at), batch) = (self.middle(&shards), x.dims().1);
        let (dstate, other_dstate) = dstate.map(|dstate| split(dstate, at)).map(|[a, b]| (a, b)).unzip();
        let half = shards.len() / 2;
        let ((caches, other_caches), (grads, other_grads)) = (caches.split_at_mut(half), grads.split_at_mut(half));
        let (dx, other_dx) = dx.split_at(Axis(1), at);
        let (own, other) = ((caches, grads), (other_caches, other_grads));
        let (shard, other_shard) = (x.sequences(0..at), x.sequences(at..batch));
        let (dy, other_dy) = (dy.slice(s![.., ..at, ..]), dy.slice(s![.., at.., ..]));
        rayon::join(
            || self.backward(shards.start..middle, shard, dy, dstate, own, dx),
            || self.backward(middle..shards.end, other_shard, other_dy, other_dstate, other, other_dx),
        );
    }
}

/// The rows of a shard, step by step, to where they lie among those of the batch.
fn copy_steps<F: Float>(shard: ArrayView3<'_, F>, mut batch: ArrayViewMut3<'_, F>) {
    for (shard, mut batch) in shard.outer_iter().zip(batch.outer_iter_mut()) {
        let rows = batch.as_slice_mut().expect("rows side by side");
        rows.copy_from_slice(shard.to_slice().expect("rows side by side"));
    }
}

/// The states of the first `at` sequences, and of the others.
fn split<F: Float>(StateParts { h, c }: StateParts<'_, F>, at: usize) -> [StateParts<'_, F>; 2] {
    let ((h, other_h), (c, other_c)) = (h.split_at(Axis(0), at), c.split_at(Axis(0), at));
    [StateParts { h, c }, StateParts { h: other_h, c: other_c }]
}
