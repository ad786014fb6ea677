//! The state of a batch as plain tensors, whatever its type: kept, and sequence by sequence.

use std::ops::Range;

use crate::base::TensorsExt;
use crate::kernels::Float;
use crate::layer::State;

/// `value`'s elements in `place`, in the memory there if they fit.
pub(super) fn keep<F: Float, S: State<F>>(place: &mut Option<S>, value: &S) {
    match place {
        Some(kept) if (0..value.count()).all(|i| kept.shape(i) == value.shape(i)) => kept.copy_from(value),
        _ => *place = Some(value.clone()),
    }
}

/// How a tensor of a batch's state lies in memory: blocks of B sequences with `inner` elements each.
#[derive(Clone, Copy)]
pub(super) struct Places {
    batch: usize,
    blocks: usize,
    inner: usize,
}

impl Places {
    /// From the tensor's shape, and its shape for a batch of one.
    pub fn new(all: &[usize], one: &[usize], batch: usize) -> Self {
        let size = one.iter().product::<usize>();
        // Of a batch of one the batch's axis cannot be told; its elements lie one after the other anyway.
        let inner = match all.iter().zip(one).position(|(all, one)| all != one) {
            None => size,
            Some(axis) => one[axis + 1..].iter().product(),
        };
        Places { batch, blocks: size / inner.max(1), inner }
    }

    /// Every sequence with the places of its elements in the batch's tensor, and in that of a batch of one.
    pub fn sequences(self) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
        let Places { batch, blocks, inner } = self;
        (0..blocks * batch).map(move |at| {
            let block = at / batch;
            (at % batch, at * inner..(at + 1) * inner, block * inner..(block + 1) * inner)
        })
    }
}
