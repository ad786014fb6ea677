//! Splits a large batch into shards, on the threads of rayon's current pool.
//!
//! Sequences interact only in the sum of the parameters' gradients. So each shard runs all steps independently, with its own cache,
//! and no thread waits for another at a step. The number of shards depends only on the shapes, and gradients are added up in the
//! order of the shards, so results have the same bits for any number of threads.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, ArrayViewMut3, Axis};

use super::cache::LoopCache;
use super::state::{StateView, StateViewMut};
use crate::base::tensors::misfit;
use crate::base::{Tensors, TensorsExt};
use crate::kernels::Float;
use crate::layer::affine::add_onto;
use crate::layer::kit::reuse;
use crate::layer::{Gradient, Sequence};
use crate::parallel::{COLUMNS, ENTRY, Split, element_work, for_each_part, part_start};

/// The approximate number of sequences in a shard: enough for the products of a step to be fast.
const SEQUENCES: usize = 32;

/// The minimum number of sequences that are split into shards.
const FEWEST_SEQUENCES: usize = 16;

/// The maximum size in bytes of the parameters of a batch in shards: all threads read all of them at once. With larger parameters,
/// each product is split by columns instead.
const MOST_BYTES: usize = 1 << 24;

/// The buffers of a pass's shards; empty until a batch is split. `B` is the type of a cell's own buffers, `G` that of a gradient.
pub(super) struct Shards<F, B, G> {
    count: usize,
    caches: Vec<LoopCache<F, B>>,
    grads: Vec<G>,
    y: Array3<F>,  // [T, B, O]
    dx: Array3<F>, // [T, B, I]
}

impl<F: Float, B, G> Default for Shards<F, B, G> {
    fn default() -> Self {
        let none = || Array3::default((0, 0, 0));
        Shards { count: 1, caches: Vec::new(), grads: Vec::new(), y: none(), dx: none() }
    }
}

impl<F: Float, B: Default + Send, G: Tensors<F> + Clone + Send> Shards<F, B, G> {
    /// Decides how a pass over `x` is split into shards, and returns whether it is. `bytes` is the size of all parameters.
    pub fn plan(&mut self, x: &Sequence<'_, F>, work: u64, bytes: usize) -> bool {
        let (steps, batch) = x.dims();
        let pays = steps > 1 && batch >= FEWEST_SEQUENCES && work >= ENTRY && bytes <= MOST_BYTES;
        self.count = if pays { (batch / SEQUENCES).max(2) } else { 1 };
        self.is_used()
    }

    /// Whether the last pass was split into shards.
    pub fn is_used(&self) -> bool {
        self.count > 1
    }

    /// The output of the last pass.
    pub fn output(&self) -> ArrayView3<'_, F> {
        self.y.view()
    }

    /// Runs `steps` on each shard, with its part of x, its initial state and its cache.
    pub fn forward(
        &mut self,
        x: &Sequence<'_, F>,
        output: usize,
        work: u64,
        mut state: StateViewMut<'_, F>,
        steps: impl Fn(&Sequence<'_, F>, StateView<'_, F>, &mut LoopCache<F, B>) + Sync,
    ) {
        let (time, batch) = x.dims();
        let count = self.count;
        self.caches.resize_with(count.max(self.caches.len()), LoopCache::default);
        reuse(&mut self.y, (time, batch, output));
        let cut = Cut { shards: 0..count, count, batch };
        let (caches, y) = (&mut self.caches[..count], self.y.view_mut());
        let all = ForwardShards { cut, x: x.reborrow(), state: state.view(), caches, y };
        for_each_shard(all, work, |ForwardShards { x, state, caches, y, .. }| {
            steps(&x, state, &mut caches[0]);
            copy_steps(caches[0].output(), y);
        });
        for (shard, cache) in self.caches[..count].iter().enumerate() {
            cache.final_state(&mut state.rows(x.state_rows_of(sequences_of(shard, count, batch))));
        }
    }

    /// Runs `steps` on each shard, with its part of x and dy, the gradient of its final state, its cache and its gradient.
    ///
    /// The first shard adds to `grad` or overwrites it, and the gradients of the other shards are added afterwards. Each shard's
    /// norms go to its cache's recorder.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &mut self,
        x: &Sequence<'_, F>,
        dy: ArrayView3<'_, F>,
        input: usize,
        work: u64,
        mut dstate: Option<StateViewMut<'_, F>>,
        grad: Gradient<'_, G>,
        steps: impl Fn(&Sequence<'_, F>, ArrayView3<'_, F>, Option<StateView<'_, F>>, &mut LoopCache<F, B>, Gradient<'_, G>)
        + Sync,
    ) {
        let (time, batch) = x.dims();
        let count = self.count;
        let (grad, how) = grad.parts();
        if !self.grads.iter().all(|shard| misfit(shard, &*grad).is_none()) {
            self.grads.clear();
        }
        self.grads.resize_with((count - 1).max(self.grads.len()), || grad.clone());
        reuse(&mut self.dx, (time, batch, if x.wants_gradient() { input } else { 0 }));
        let cut = Cut { shards: 0..count, count, batch };
        let (caches, grads, dx) = (&mut self.caches[..count], &mut self.grads[..count - 1], self.dx.view_mut());
        let given = dstate.as_ref().map(StateViewMut::view);
        let all =
            BackwardShards { cut, x: x.reborrow(), dy, dstate: given, caches, first_grad: Some(&mut *grad), grads, dx };
        for_each_shard(all, work, |BackwardShards { x, dy, dstate, caches, first_grad, grads, dx, .. }| {
            let grad = match first_grad {
                Some(grad) => Gradient::new(grad, how),
                None => Gradient::overwrite(&mut grads[0]),
            };
            steps(&x, dy, dstate, &mut caches[0], grad);
            copy_steps(caches[0].dx.view(), dx);
        });
        if let Some(dstate) = &mut dstate {
            for (shard, cache) in self.caches[..count].iter().enumerate() {
                cache.initial_gradient(&mut dstate.rows(x.state_rows_of(sequences_of(shard, count, batch))));
            }
        }
        add_all(grad, &self.grads[..count - 1]);
    }

    /// `dL/dx` of the last backward pass.
    pub fn input_gradient(&self) -> ArrayView3<'_, F> {
        self.dx.view()
    }

    /// The caches of the last pass's shards.
    pub fn caches(&mut self) -> &mut [LoopCache<F, B>] {
        &mut self.caches[..self.count]
    }
}

/// `grad += Σ shards`, in their order.
fn add_all<F: Float, G: Tensors<F>>(grad: &mut G, shards: &[G]) {
    for shard in shards {
        for i in 0..grad.count() {
            let both = (grad.tensor_mut(i), shard.values(i));
            let work = element_work(both.1.len());
            for_each_part(both, work, COLUMNS, |(sums, values)| add_onto(values, sums));
        }
    }
}

/// Shards of a forward pass, with their inputs and outputs.
struct ForwardShards<'x, 's, 'a, F, B> {
    cut: Cut,
    x: Sequence<'x, F>,
    state: StateView<'s, F>,
    caches: &'a mut [LoopCache<F, B>],
    y: ArrayViewMut3<'a, F>,
}

impl<F: Float, B: Send> Split for ForwardShards<'_, '_, '_, F, B> {
    fn count(&self) -> usize {
        self.cut.shards.len()
    }

    fn split(self, at: usize) -> (Self, Self) {
        let ([cut, other_cut], [own, others]) = self.cut.split(at);
        let rows = [&own, &others].map(|range| self.x.state_rows_of(range.clone()));
        let [state, other_state] = rows.map(|rows| self.state.clone().rows(rows));
        let (caches, other_caches) = self.caches.split_at_mut(at);
        let (y, other_y) = self.y.split_at(Axis(1), own.len());
        let (x, other_x) = (self.x.sequences(own), self.x.sequences(others));
        let other = ForwardShards { cut: other_cut, x: other_x, state: other_state, caches: other_caches, y: other_y };
        (ForwardShards { cut, x, state, caches, y }, other)
    }
}

/// Shards of a backward pass, with their inputs and outputs.
struct BackwardShards<'x, 's, 'a, F, B, G> {
    cut: Cut,
    x: Sequence<'x, F>,
    dy: ArrayView3<'a, F>,
    dstate: Option<StateView<'s, F>>,
    caches: &'a mut [LoopCache<F, B>],
    /// The gradient of the batch if the first shard, which writes it, is among these.
    first_grad: Option<&'a mut G>,
    /// The gradients of the other shards.
    grads: &'a mut [G],
    dx: ArrayViewMut3<'a, F>,
}

impl<F: Float, B: Send, G: Send> Split for BackwardShards<'_, '_, '_, F, B, G> {
    fn count(&self) -> usize {
        self.cut.shards.len()
    }

    fn split(self, at: usize) -> (Self, Self) {
        let ([cut, other_cut], [own, others]) = self.cut.split(at);
        let (dy, other_dy) = self.dy.split_at(Axis(1), own.len());
        let narrow =
            |range: &Range<usize>| self.dstate.clone().map(|dstate| dstate.rows(self.x.state_rows_of(range.clone())));
        let (dstate, other_dstate) = (narrow(&own), narrow(&others));
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

/// The sequences of one of `count` shards.
fn sequences_of(shard: usize, count: usize, batch: usize) -> Range<usize> {
    part_start(batch, shard, count)..part_start(batch, shard + 1, count)
}

/// Some of the shards into which a batch is split.
struct Cut {
    shards: Range<usize>,
    count: usize,
    batch: usize,
}

impl Cut {
    /// Splits off the first `at` shards. Also returns the sequences of both parts, counted from the first sequence of `self`.
    fn split(self, at: usize) -> ([Self; 2], [Range<usize>; 2]) {
        let first = |shard: usize| sequences_of(shard, self.count, self.batch).start;
        let Range { start, end } = self.shards;
        let (middle, last) = (first(start + at) - first(start), first(end) - first(start));
        let own = Cut { shards: start..start + at, ..self };
        ([own, Cut { shards: start + at..end, ..self }], [0..middle, middle..last])
    }
}

/// Runs `act` on each shard.
fn for_each_shard<S: Split>(shards: S, work: u64, act: impl Fn(S) + Sync) {
    for_each_part(shards, work, 1, |mut shards| {
        while shards.count() > 1 {
            let (first, others) = shards.split(1);
            act(first);
            shards = others;
        }
        act(shards);
    });
}

/// Copies the rows of a shard, step by step, to their places in the batch.
fn copy_steps<F: Float>(shard: ArrayView3<'_, F>, mut batch: ArrayViewMut3<'_, F>) {
    for (shard, mut batch) in shard.outer_iter().zip(batch.outer_iter_mut()) {
        let rows = batch.as_slice_mut().expect("rows side by side");
        rows.copy_from_slice(shard.to_slice().expect("rows side by side"));
    }
}
