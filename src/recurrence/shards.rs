//! A large batch in shards, on the threads of rayon's current pool.
//!
//! Sequences have nothing to do with each other but the sum of the parameters' gradients. So each shard goes through all
//! steps by itself, with a cache of its own, and no thread waits for another at a step. How many shards there are depends
//! on the shapes alone, and gradients are added up in the order of the shards: the number of threads changes no bit.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, ArrayViewMut3, Axis};

use super::cell::{Cell, StateParts};
use super::time_loop::{CellCache, backward_alone, forward_alone, work};
use crate::base::TensorsExt;
use crate::base::tensors::misfit;
use crate::kernels::Float;
use crate::layer::affine::add_onto;
use crate::layer::kit::reuse;
use crate::layer::{Gradient, Sequence};
use crate::parallel::{COLUMNS, ELEMENT, ENTRY, Split, for_each_part};

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
        x: &Sequence<'_, C::Elem>,
        state: StateParts<'_, C::Elem>,
    ) -> ArrayView3<'_, C::Elem> {
        let (steps, batch) = x.dims();
        let count = self.count;
        self.caches.resize_with(count.max(self.caches.len()), CellCache::default);
        reuse(&mut self.y, (steps, batch, cell.sizes().output));
        let cut = Cut { shards: 0..count, count, batch };
        let all =
            ForwardShards { cut, x: x.reborrow(), state, caches: &mut self.caches[..count], y: self.y.view_mut() };
        for_each_shard(all, work(cell, x), |ForwardShards { x, state, caches, y, .. }| {
            copy_steps(forward_alone(cell, &x, state, &mut caches[0]), y);
        });
        self.y.view()
    }

    /// The first shard adds to `grad`, or overwrites it, and the others are added; each shard's norms go to its cache's
    /// recorder.
    pub fn backward(
        &mut self,
        cell: &C,
        x: &Sequence<'_, C::Elem>,
        dy: ArrayView3<'_, C::Elem>,
        dstate: Option<StateParts<'_, C::Elem>>,
        grad: Gradient<'_, C>,
    ) {
        let (steps, batch) = x.dims();
        let count = self.count;
        let (grad, how) = grad.parts();
        if !self.grads.iter().all(|shard| misfit(shard, &*grad).is_none()) {
            self.grads.clear();
        }
        self.grads.resize_with((count - 1).max(self.grads.len()), || grad.clone());
        let input = if x.wants_gradient() { cell.sizes().input } else { 0 };
        reuse(&mut self.dx, (steps, batch, input));
        let cut = Cut { shards: 0..count, count, batch };
        let (caches, grads, dx) = (&mut self.caches[..count], &mut self.grads[..count - 1], self.dx.view_mut());
        let all = BackwardShards { cut, x: x.reborrow(), dy, dstate, caches, first_grad: Some(&mut *grad), grads, dx };
        for_each_shard(
            all,
            work(cell, x),
            |BackwardShards { x, dy, dstate, caches, first_grad, grads, dx, .. }| {
                let grad = match first_grad {
                    Some(grad) => Gradient::new(grad, how),
                    None => Gradient::overwrite(&mut grads[0]),
                };
                copy_steps(backward_alone(cell, &x, dy, dstate, &mut caches[0], grad), dx);
            },
        );
        add_all(grad, &self.grads[..count - 1]);
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
            for_each_part(both, work, COLUMNS, |(sums, values)| add_onto(values, sums));
        }
    }
}

/// Shards of a forward pass, each with what it reads and writes.
struct ForwardShards<'x, 's, 'a, C: Cell> {
    cut: Cut,
    x: Sequence<'x, C::Elem>,
    state: StateParts<'s, C::Elem>,
    caches: &'a mut [CellCache<C>],
    y: ArrayViewMut3<'a, C::Elem>,
}

impl<C: Cell> Split for ForwardShards<'_, '_, '_, C> {
    fn count(&self) -> usize {
        self.cut.shards.len()
    }

    fn split(self, at: usize) -> (Self, Self) {
        let ([cut, other_cut], [own, others]) = self.cut.split(at);
        let [state, other_state] = split(self.state, own.len());
        let (caches, other_caches) = self.caches.split_at_mut(at);
        let (y, other_y) = self.y.split_at(Axis(1), own.len());
        (
            ForwardShards { cut, x: self.x.sequences(own), state, caches, y },
            ForwardShards {
                cut: other_cut,
                x: self.x.sequences(others),
                state: other_state,
                caches: other_caches,
                y: other_y,
            },
        )
    }
}

/// Shards of a backward pass, each with what it reads and writes.
struct BackwardShards<'x, 's, 'a, C: Cell> {
    cut: Cut,
    x: Sequence<'x, C::Elem>,
    dy: ArrayView3<'a, C::Elem>,
    dstate: Option<StateParts<'s, C::Elem>>,
    caches: &'a mut [CellCache<C>],
    /// The gradient of the batch, if the first shard is among these: that is where it adds.
    first_grad: Option<&'a mut C>,
    /// Those of the other shards.
    grads: &'a mut [C],
    dx: ArrayViewMut3<'a, C::Elem>,
}

impl<C: Cell> Split for BackwardShards<'_, '_, '_, C> {
    fn count(&self) -> usize {
        self.cut.shards.len()
    }

    fn split(self, at: usize) -> (Self, Self) {
        let ([cut, other_cut], [own, others]) = self.cut.split(at);
        let (dy, other_dy) = self.dy.split_at(Axis(1), own.len());
        let (dstate, other_dstate) = self.dstate.map(|dstate| split(dstate, own.len()).into()).unzip();
        let (caches, other_caches) = self.caches.split_at_mut(at);
        let (grads, other_grads) = self.grads.split_at_mut(at - usize::from(self.first_grad.is_some()));
        let (dx, other_dx) = self.dx.split_at(Axis(1), own.len());
        let other = BackwardShards {
            cut: other_cut,
            x: self.x.sequences(others),
            dy: other_dy,
            dstate: other_dstate,
            caches: other_caches,
            first_grad: None,
            grads: other_grads,
            dx: other_dx,
        };
        let x = self.x.sequences(own);
        (BackwardShards { cut, x: x.reborrow(), dy, dstate, caches, first_grad: self.first_grad, grads, dx }, other)
    }
}

/// Some of the shards into which a batch is cut.
struct Cut {
    shards: Range<usize>,
    count: usize,
    batch: usize,
}

impl Cut {
    /// The first `at` shards and the others, and the sequences of each, counted from the first of these.
    fn split(self, at: usize) -> ([Self; 2], [Range<usize>; 2]) {
        let first = |shard: usize| shard * self.batch / self.count;
        let Range { start, end } = self.shards;
        let (middle, last) = (first(start + at) - first(start), first(end) - first(start));
        let own = Cut { shards: start..start + at, ..self };
        ([own, Cut { shards: start + at..end, ..self }], [0..middle, middle..last])
    }
}

/// Runs `act` on each shard.
fn for_each_shard<S: Split>(shards: S, work: usize, act: impl Fn(S) + Sync) {
    for_each_part(shards, work, 1, |mut shards| {
        while shards.count() > 1 {
            let (first, others) = shards.split(1);
            act(first);
            shards = others;
        }
        act(shards);
    });
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
