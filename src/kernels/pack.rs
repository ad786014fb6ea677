//! Operands copied to where the tiles read them in order.

use ndarray::{ArrayView1, ArrayView2, Axis};

use crate::float::Float;

/// The elements of the panels of a `[depth, columns]` matrix.
pub(super) fn panels_len(depth: usize, columns: usize, width: usize) -> usize {
    depth * columns.next_multiple_of(width)
}

/// Copies B `[depth, columns]` to panels `[columns / width][depth][width]`, the last one filled up with zeros.
#[inline(always)]
pub(super) fn pack_panels<F: Float>(b: ArrayView2<'_, F>, width: usize, panels: &mut [F]) {
    let depth = b.nrows();
    for (block, panel) in b
        .axis_chunks_iter(Axis(1), width)
        .zip(panels.chunks_exact_mut(depth * width))
    {
        let columns = block.ncols();
        if columns < width {
            panel.fill(F::zero());
        }
        if block.strides()[1] == 1 {
            for (to, from) in panel.chunks_exact_mut(width).zip(block.rows()) {
                copy(from, &mut to[..columns]);
            }
        } else {
            for (j, column) in block.columns().into_iter().enumerate() {
                for (to, &from) in panel[j..].iter_mut().step_by(width).zip(column) {
                    *to = from;
                }
            }
        }
    }
}

/// Copies A `[rows, depth]` to tiles `[depth][r]`, of `r` rows each as `tiles` says.
#[inline(always)]
pub(super) fn pack_rows<F: Float>(
    a: ArrayView2<'_, F>,
    tiles: impl Iterator<Item = (usize, usize)>,
    packed: &mut [F],
) {
    let depth = a.ncols();
    for (row, rows) in tiles {
        let tile = &mut packed[row * depth..][..rows * depth];
        for i in 0..rows {
            for (to, &from) in tile[i..].iter_mut().step_by(rows).zip(a.row(row + i)) {
                *to = from;
            }
        }
    }
}

/// Copies a vector.
#[inline(always)]
pub(super) fn copy<F: Float>(from: ArrayView1<'_, F>, to: &mut [F]) {
    match from.as_slice() {
        Some(from) => to.copy_from_slice(from),
        None => to.iter_mut().zip(from).for_each(|(to, &from)| *to = from),
    }
}
