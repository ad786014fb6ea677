//! Operands copied to where the tiles read them in order.
#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};

use super::block::{Left, tiles};
use super::float::Float;
use super::tile::{Strided, most_rows, width};
use super::transpose::transpose;

/// The elements of the panels of a `[depth, columns]` matrix.
pub(super) fn panels_len(depth: usize, columns: usize, width: usize) -> usize {
    depth * columns.next_multiple_of(width)
}

/// In which order an operand is copied.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// B `[depth, columns]` to panels `[columns / width][depth][width]`. What the last one has too much stays as it was:
    /// tiles do not read it.
    Panels,
    /// A `[rows, depth]` to rows [`Left::ROW`] apart.
    Rows,
    /// A `[rows, depth]` to tiles `[depth][r]`, of `r` rows each.
    Tiles,
    /// A `[rows, depth]` to rows side by side.
    Compact,
}

/// A matrix to copy.
pub struct Pack<'a, F> {
    /// Readable.
    pub(super) from: Strided<F>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) order: Order,
    pub(super) to: &'a mut [F],
}

impl<F: Float> WithSimd for Pack<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { from, rows, columns, order, to } = self;
        // SAFETY: the matrix is readable.
        unsafe {
            match order {
                Order::Panels => pack_panels(simd, from, rows, columns, to),
                Order::Rows => copy_rows(simd, from, rows, columns, Left::<F>::ROW, to),
                Order::Compact => copy_rows(simd, from, rows, columns, columns, to),
                Order::Tiles => pack_tiles(from, columns, tiles(rows, most_rows::<S>()), to),
            }
        }
    }
}

/// # Safety
///
/// B is readable.
#[inline(always)]
unsafe fn pack_panels<S: Simd, F: Float>(simd: S, b: Strided<F>, depth: usize, columns: usize, panels: &mut [F]) {
    /// So many rows at a time, which are far apart.
    const ROWS: usize = 8;

    let width = width::<S, F>();
    let panels = &mut panels[..panels_len(depth, columns, width)];
    if depth == 0 {
        return;
    }
    let whole = if b.column == 1 { columns / width } else { 0 };
    let (wide, rest) = panels.split_at_mut(whole * depth * width);
    for first in (0..if whole > 0 { depth } else { 0 }).step_by(ROWS) {
        for (index, panel) in wide.chunks_exact_mut(depth * width).enumerate() {
            for (p, to) in panel.chunks_exact_mut(width).enumerate().skip(first).take(ROWS) {
                let from = b.from(p, index * width).start;
                // SAFETY: `width` elements of row p, and a row of the panel.
                unsafe {
                    for lane in (0..width).step_by(F::lanes::<S>()) {
                        F::store(simd, to[lane..].as_mut_ptr(), F::load(simd, from.wrapping_add(lane)));
                    }
                }
            }
        }
    }
    for (index, panel) in rest.chunks_exact_mut(depth * width).enumerate() {
        let first = (whole + index) * width;
        // SAFETY: one panel of B.
        unsafe { copy_rows(simd, b.from(0, first), depth, width.min(columns - first), width, panel) };
    }
}

/// Copies a matrix to rows `width` apart.
///
/// # Safety
///
/// The matrix is readable.
#[inline(always)]
pub(super) unsafe fn copy_rows<S: Simd, F: Float>(
    simd: S,
    from: Strided<F>,
    rows: usize,
    columns: usize,
    width: usize,
    to: &mut [F],
) {
    if from.column != 1 {
        // SAFETY: as the caller says.
        return unsafe { transpose(simd, from, rows, columns, width, to) };
    }
    let lanes = F::lanes::<S>();
    let whole = columns - columns % lanes;
    let edge = F::first(simd, columns - whole);
    for (i, to) in to.chunks_mut(width).take(rows).enumerate() {
        let (from, to) = (from.from(i, 0).start, &mut to[..columns]);
        for j in (0..whole).step_by(lanes) {
            // SAFETY: a register of row i, of which the elements are contiguous.
            unsafe { F::store(simd, to[j..].as_mut_ptr(), F::load(simd, from.wrapping_add(j))) };
        }
        if whole < columns {
            let last = to[whole..].as_mut_ptr();
            // SAFETY: the rest of row i.
            unsafe { F::store_first(simd, edge, last, F::load_first(simd, edge, from.wrapping_add(whole))) };
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
unsafe fn pack_tiles<F: Float>(
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
            macro_rules! of {
                ($($rows:literal)+) => {
                    match rows {
                        // SAFETY: a part of A.
                        $($rows => unsafe { pack_tile::<F, $rows>(a, tile) },)+
                        _ => unreachable!("tiles of {rows} rows"),
                    }
                };
            }
            of!(4 5 6 7 8 9 10 11 12 13 14);
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
