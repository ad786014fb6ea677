//! Copies of a batch's state, whole or sequence by sequence, as plain tensors whatever its type.

use std::ops::Range;

use crate::base::error::mismatch;
use crate::base::{Tensors, TensorsExt};
use crate::kernels::Float;

/// Copies `value` to `place`, into the memory there if it fits.
pub(crate) fn keep<F: Float, S: Tensors<F> + Clone>(place: &mut Option<S>, value: &S) {
    match place {
        Some(kept) if (0..value.count()).all(|i| kept.shape(i) == value.shape(i)) => kept.copy_from(value),
        _ => *place = Some(value.clone()),
    }
}

/// The memory layout of a tensor of a batch's state: blocks of B sequences with `inner` elements each.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    batch: usize,
    blocks: usize,
    inner: usize,
}

impl Places {
    /// The layout of a tensor, from its shape and its shape for a batch of one.
    pub fn new(all: &[usize], one: &[usize], batch: usize) -> Self {
        Self::of_all([(all, batch)], one)[0]
    }

    /// The layouts of a tensor in several batches, from its shape in each and in a batch of one.
    pub fn of_all<const N: usize>(batches: [(&[usize], usize); N], one: &[usize]) -> [Self; N] {
        let size = one.iter().product::<usize>();
        // In batches of one, the batch axis cannot be identified; their elements are one after the other anyway.
        let axis = batches.iter().find_map(|(all, _)| all.iter().zip(one).position(|(all, one)| all != one));
        let inner = axis.map_or(size, |axis| one[axis + 1..].iter().product());
        batches.map(|(_, batch)| Places { batch, blocks: size / inner.max(1), inner })
    }

    /// The places of a sequence's elements in the batch's tensor, and in that of a batch of one.
    pub fn row(self, b: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let Places { batch, blocks, inner } = self;
        let at = move |row: usize| row * inner..(row + 1) * inner;
        (0..blocks).map(move |block| (at(block * batch + b), at(block)))
    }
}

/// The places of `sequences` in tensor `i` of a batch's state `all`, and those in the state of a batch of these alone; `None`
/// if the tensor does not depend on the batch. `one` and `two` are states of batches of one and of two.
#[track_caller]
fn places_of<F: Float>(
    [one, two]: [&dyn Tensors<F>; 2],
    all: &dyn Tensors<F>,
    i: usize,
    sequences: &[usize],
) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    let (one, two, all) = (one.shape(i), two.shape(i), all.shape(i));
    let axis = one.iter().zip(two).position(|(one, two)| one != two)?;
    let batch = all[axis];
    if let Some(other) = sequences.iter().find(|&&b| b >= batch) {
        mismatch("Layer::select_state", "sequences", &format_args!("sequences below {batch}"), other)
    }
    let [blocks, inner] = [&one[..axis], &one[axis + 1..]].map(|axes| axes.iter().product::<usize>());
    let at = |row: usize| row * inner..(row + 1) * inner;
    let rows = (0..blocks).flat_map(|block| sequences.iter().enumerate().map(move |(to, &from)| (block, to, from)));
    Some(rows.map(|(block, to, from)| (at(block * batch + from), at(block * sequences.len() + to))).collect())
}

/// Copies the state of `sequences`, in this order, from the state of a batch to that of a batch of these alone.
#[track_caller]
pub(super) fn select<F: Float>(
    sizes: [&dyn Tensors<F>; 2],
    all: &dyn Tensors<F>,
    sequences: &[usize],
    some: &mut dyn Tensors<F>,
) {
    for i in 0..all.count() {
        match places_of(sizes, all, i, sequences) {
            None => some.tensor_mut(i).copy_from_slice(all.values(i)),
            Some(places) => {
                let (from, to) = (all.values(i), some.tensor_mut(i));
                places.into_iter().for_each(|(own, part)| to[part].copy_from_slice(&from[own]));
            }
        }
    }
}

/// Copies the state of a batch of `sequences` alone to their places in the state of a batch.
#[track_caller]
pub(super) fn put<F: Float>(
    sizes: [&dyn Tensors<F>; 2],
    all: &mut dyn Tensors<F>,
    sequences: &[usize],
    some: &dyn Tensors<F>,
) {
    for i in 0..all.count() {
        let Some(places) = places_of(sizes, all, i, sequences) else { continue };
        let (from, to) = (some.values(i), all.tensor_mut(i));
        places.into_iter().for_each(|(own, part)| to[own].copy_from_slice(&from[part]));
    }
}
