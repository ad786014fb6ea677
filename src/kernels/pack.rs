//! Operands copied to where the tiles read them in order.
#![allow(unsafe_code)]

use super::tile::Strided;
use crate::float::Float;

/// The elements of the panels of a `[depth, columns]` matrix.
pub(super) fn panels_len(depth: usize, columns: usize, width: usize) -> usize {
    depth * columns.next_multiple_of(width)
}

/// Copies B `[depth, columns]` to panels `[columns / width][depth][width]`. What the last one has too much stays as it
/// was: tiles do not read it.
///
/// # Safety
///
/// B is readable.
#[inline(always)]
pub(super) unsafe fn pack_panels<F: Float>(
    b: Strided<F>,
    depth: usize,
    columns: usize,
    width: usize,
    panels: &mut [F],
) {
    if depth == 0 {
        return;
    }
    for (index, panel) in panels.chunks_exact_mut(depth * width).enumerate() {
        let first = index * width;
        if first >= columns {
            break;
        }
        let (b, columns) = (b.from(0, first), width.min(columns - first));
        // SAFETY: one panel of B.
        unsafe { copy_rows(b, depth, columns, width, panel) };
    }
}

/// Copies a matrix to rows `width` apart.
///
/// # Safety
///
/// The matrix is readable.
#[inline(always)]
pub(super) unsafe fn copy_rows<F: Float>(matrix: Strided<F>, rows: usize, columns: usize, width: usize, to: &mut [F]) {
    // SAFETY: as the caller says.
    unsafe {
        if matrix.column == 1 {
            copy_contiguous_rows(matrix, rows, columns, width, to);
        } else {
            transpose(matrix, rows, columns, width, to);
        }
    }
}

/// Copies a matrix with contiguous rows to rows `width` apart.
///
/// # Safety
///
/// The matrix is readable.
#[inline(always)]
unsafe fn copy_contiguous_rows<F: Float>(matrix: Strided<F>, rows: usize, columns: usize, width: usize, to: &mut [F]) {
    for (i, to) in to.chunks_exact_mut(width).take(rows).enumerate() {
        // SAFETY: row i, of which the elements are contiguous.
        let from = unsafe { std::slice::from_raw_parts(matrix.from(i, 0).start, columns) };
        to[..columns].copy_from_slice(from);
    }
}

/// Copies a matrix to rows `width` apart, in blocks: fast where its columns are contiguous.
///
/// # Safety
///
/// The matrix is readable.
#[inline(always)]
unsafe fn transpose<F: Float>(matrix: Strided<F>, rows: usize, columns: usize, width: usize, to: &mut [F]) {
    /// A cache line or two of a column.
    const ROWS: usize = 16;
    const COLUMNS: usize = 8;

    for (block, to) in to.chunks_mut(ROWS * width).enumerate() {
        let first = block * ROWS;
        if first >= rows {
            break;
        }
        let rows = ROWS.min(rows - first);
        let mut j = 0;
        while j + COLUMNS <= columns {
            for (i, to) in to.chunks_exact_mut(width).take(rows).enumerate() {
                let from = matrix.from(first + i, j);
                let to = &mut to[j..j + COLUMNS];
                for (j, to) in to.iter_mut().enumerate() {
                    // SAFETY: an element of the matrix.
                    *to = unsafe { *from.from(0, j).start };
                }
            }
            j += COLUMNS;
        }
        while j < columns {
            for (i, to) in to.chunks_exact_mut(width).take(rows).enumerate() {
                // SAFETY: an element of the matrix.
                to[j] = unsafe { *matrix.from(first + i, j).start };
            }
            j += 1;
        }
    }
}

/// Copies A `[rows, depth]` to tiles `[depth][r]`, of `r` rows each as `tiles` says: fast where its columns are
/// contiguous.
///
/// # Safety
///
/// A is readable.
#[inline(always)]
pub(super) unsafe fn pack_rows<F: Float>(
    a: Strided<F>,
    depth: usize,
    tiles: impl Iterator<Item = (usize, usize)> + Clone,
    packed: &mut [F],
) {
    /// Few columns at a time, which are far apart, for all tiles.
    const COLUMNS: usize = 8;

    for first in (0..depth).step_by(COLUMNS) {
        let columns = COLUMNS.min(depth - first);
        for (row, rows) in tiles.clone() {
            let tile = &mut packed[row * depth + first * rows..][..columns * rows];
            let a = a.from(row, first);
            // SAFETY: a part of A.
            unsafe {
                match rows {
                    5 => pack_tile::<F, 5>(a, tile),
                    6 => pack_tile::<F, 6>(a, tile),
                    _ => {
                        for (p, to) in tile.chunks_exact_mut(rows).enumerate() {
                            for (i, to) in to.iter_mut().enumerate() {
                                *to = *a.from(i, p).start;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Copies A `[R, columns]` to `[columns][R]`.
///
/// # Safety
///
/// A is readable.
#[inline(always)]
unsafe fn pack_tile<F: Float, const R: usize>(a: Strided<F>, tile: &mut [F]) {
    let (tile, _) = tile.as_chunks_mut::<R>();
    for (p, to) in tile.iter_mut().enumerate() {
        let from = a.from(0, p);
        // SAFETY: column p.
        unsafe {
            if a.row == 1 {
                *to = from.start.cast::<[F; R]>().read();
            } else {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = *from.from(i, 0).start;
                }
            }
        }
    }
}
