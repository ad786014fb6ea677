//! Which positions of the memory each query sees.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, ArrayViewMut2};

use crate::base::error::mismatch;
use crate::kernels::Float;
use crate::kernels::softmax::softmax;
use crate::layer::Sequence;

const NAME: &str = "Attention";

/// A mask of an attention's weights, `[Tq, B, Tm]`, or `[Tq, 1, Tm]` for all sequences: see
/// [`attend_masked`](super::Attention::attend_masked).
///
/// A query that sees nothing has weights of zero, and a context of zero.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum AttentionMask<'a, F> {
    /// `true`: the query sees the position. (PyTorch's boolean `attn_mask` has the same meaning in `scaled_dot_product_attention`,
    /// and the opposite one in `MultiheadAttention`.)
    Allowed(ArrayView3<'a, bool>),
    /// Numbers that are added to the scores, after they are scaled and before the softmax. With -∞, the query does not see the
    /// position.
    Added(ArrayView3<'a, F>),
}

impl<'a, F: Float> From<&'a Array3<bool>> for AttentionMask<'a, F> {
    fn from(allowed: &'a Array3<bool>) -> Self {
        AttentionMask::Allowed(allowed.view())
    }
}

impl<'a, F: Float> From<&'a Array3<F>> for AttentionMask<'a, F> {
    fn from(added: &'a Array3<F>) -> Self {
        AttentionMask::Added(added.view())
    }
}

impl<'a, F: Float> AttentionMask<'a, F> {
    /// Panics unless the mask fits queries and memory.
    #[track_caller]
    pub(super) fn check(&self, (steps, batch): (usize, usize), memory_steps: usize) {
        let got = match self {
            AttentionMask::Allowed(allowed) => allowed.dim(),
            AttentionMask::Added(added) => added.dim(),
        };
        if got.0 != steps || got.2 != memory_steps || (got.1 != batch && got.1 != 1) {
            let shape = [steps, batch, memory_steps];
            let expected = format_args!("[Tq, B, Tm] = {shape:?}, or B = 1");
            mismatch(NAME, "mask", &expected, &format_args!("{got:?}"))
        }
    }

    /// `scale e` with the mask, for a query and a position.
    fn apply(&self, score: F, [t, b, s]: [usize; 3]) -> F {
        match self {
            AttentionMask::Allowed(allowed) => {
                let b = b.min(allowed.dim().1 - 1);
                if allowed[[t, b, s]] { score } else { F::neg_infinity() }
            }
            AttentionMask::Added(added) => score + added[[t, b.min(added.dim().1 - 1), s]],
        }
    }

    /// The same mask, borrowed for a shorter time.
    pub(super) fn reborrow<'s>(self) -> AttentionMask<'s, F>
    where
        'a: 's,
    {
        match self {
            AttentionMask::Allowed(allowed) => AttentionMask::Allowed(allowed.reborrow()),
            AttentionMask::Added(added) => AttentionMask::Added(added.reborrow()),
        }
    }
}

/// The steps of sequence `b`'s queries that see the same positions, and the range of these positions. Each piece of the queries
/// sees the piece of the memory with the same number; if either has no resets, all queries see all positions.
pub(super) fn fields<'x, F: Float>(
    query: &Sequence<'x, F>,
    memory: &Sequence<'x, F>,
    b: usize,
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<'x, F> {
    let (queries, memory) = (query.numbered_pieces(b), *memory);
    let is_cut = memory.has_resets() && query.has_resets();
    let all = 0..memory.length(b);
    queries.filter_map(move |(number, steps)| {
        let seen = match is_cut {
            false => Some(all.clone()),
            true => memory.numbered_pieces(b).find(|(other, _)| *other == number).map(|(_, steps)| steps),
        };
        Some((steps, seen?))
    })
}

/// Turns `scores`, `[steps, seen]`, into `α`: `softmax(scale e)` over the positions that each query sees. `step` and `position` are
/// the first ones, of sequence `b`.
pub(super) fn weigh<F: Float>(
    scale: F,
    memory: &Sequence<'_, F>,
    mask: Option<AttentionMask<'_, F>>,
    [step, b, position]: [usize; 3],
    mut scores: ArrayViewMut2<'_, F>,
) {
    if mask.is_none() && !memory.has_mask() {
        return softmax(scale, scores);
    }
    for (t, mut row) in scores.outer_iter_mut().enumerate() {
        for (s, e) in row.iter_mut().enumerate() {
            *e = match mask {
                _ if !memory.valid(position + s, b) => F::neg_infinity(),
                Some(mask) => mask.apply(scale * *e, [step + t, b, position + s]),
                None => scale * *e,
            };
        }
        if row.iter().all(|&e| e == F::neg_infinity()) {
            row.fill(F::zero());
        } else {
            softmax(F::one(), row.insert_axis(ndarray::Axis(0)));
        }
    }
}
