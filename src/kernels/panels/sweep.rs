//! The product of rows with panels, in which W is read once.
//!
//! ```text
//! for each 120 rows:
//!     for each panel of W:                        4 vectors of columns (16 registers: 2)
//!         for each part of it, at most 512 terms: 128 KiB, in the L2 cache for all rows
//!             for each tile of 2 to 6 rows:       up to 24 accumulators of 32 (12 of 16)
//!                 sums = v[rows] · part           each vector of weights that is loaded serves all rows of the tile
//!                 C = start + sums
//! ```
//!
//! Meanwhile the next part is prefetched into the L2 cache, a few lines with each term of the sums, spread evenly over all tiles.
//! When four of eleven tiles prefetched all of it, memory could not keep up with them and was idle for the others: 64 rows through
//! eight residual blocks of 1024 features took 1.2 times as long.
//!
//! A single row is multiplied with four panels at a time: 16 accumulators do not wait for each other (8 with 16 registers), and
//! each vector of weights is an operand of the only product that needs it. Weights of 8 MiB or more are prefetched from memory,
//! 1 KiB ahead in each stream: with that, one row through eight residual blocks of 1024 features takes 0.94 of the time.
//!
//! Sums are added up term by term for every element of the result, whatever the number of rows.
#![allow(unsafe_code)]

use std::ops::Range;

use ndarray::{ArrayView2, Axis, s};
use pulp::{Simd, WithSimd};

use super::bf16::Bf16;
use super::stored::Stored;
use crate::kernels::float::Float;
use crate::kernels::gemm::copy::copy_rows;
use crate::kernels::gemm::geometry::{
    FAR_AHEAD_BYTES, FAR_BYTES, LINE_BYTES, NARROW, PANEL_BLOCK_ROWS, PANEL_FEW_ROWS, PANEL_ROWS, PANEL_UNROLL,
    ROW_PANELS, WIDE, depth_blocks, even_chunks, for_height, geometry,
};
use crate::kernels::gemm::operand::{Output, Strided};
use crate::kernels::gemm::tile::{finish, prefetch_output};
use crate::kernels::once::once;
use crate::kernels::simd::dispatch::{dispatch, out_of_line};
use crate::kernels::simd::vector::{prefetch_l1, prefetch_l2};
use crate::parallel::Split;

/// An operand to pack, or some panels of it.
pub(super) struct PanelCopy<'a, F> {
    pub operand: ArrayView2<'a, F>,
    pub width: usize,
    pub panels: &'a mut [F],
}

impl<F: Float> Split for PanelCopy<'_, F> {
    fn count(&self) -> usize {
        self.operand.ncols().div_ceil(self.width)
    }
    fn split(self, at: usize) -> (Self, Self) {
        let Self { operand, width, panels } = self;
        let (panels, others) = panels.split_at_mut(at * width * operand.nrows());
        let (operand, other) = operand.split_at(Axis(1), operand.ncols().min(at * width));
        (PanelCopy { operand, width, panels }, PanelCopy { operand: other, width, panels: others })
    }
}

once! {
    /// Copies an operand to panels.
    pub(super) fn copy_panels<'a, F: Float>(copy: PanelCopy<'a, F>) {
        dispatch(copy)
    }

}

once! {
    /// Computes C.
    ///
    /// # Safety
    ///
    /// v and the base of C are readable and C is writable, as far as the shapes go, and C does not overlap v or a base other than C
    /// itself; the rows of v are contiguous.
    pub(super) unsafe fn sweep<'a, F: Float>(sweep: Sweep<'a, F, F>) {
        dispatch(sweep)
    }
}

/// Computes C with weights in 16 bits.
///
/// # Safety
///
/// As [`sweep`].
#[inline(never)]
pub(super) unsafe fn sweep_bf16(sweep: Sweep<'_, f32, Bf16>) {
    dispatch(sweep)
}

impl<F: Float> WithSimd for PanelCopy<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { operand, width, panels } = self;
        let (depth, columns) = operand.dim();
        for (index, first) in (0..columns).step_by(width).enumerate() {
            let panel = &mut panels[index * depth * width..][..depth * width];
            let count = width.min(columns - first);
            if count < width {
                panel.fill(F::zero());
            }
            let columns = operand.slice(s![.., first..first + count]);
            // SAFETY: these are some columns of the operand.
            unsafe { copy_rows(simd, Strided::new(&columns), depth, count, width, panel) };
        }
    }
}

/// A product of checked shapes, with at least one term: some rows and columns of C `[N, M]` of v `[N, K]`, with contiguous rows, and
/// panels.
///
/// The caller of [`sweep`], "the sweep's maker" below, vouches for the addresses.
pub(super) struct Sweep<'a, F, W> {
    /// All rows.
    pub v: Strided<F>,
    /// All panels, `W` for each weight.
    pub values: &'a [W],
    /// K
    pub depth: usize,
    /// M
    pub all_columns: usize,
    /// The number of columns of a panel.
    pub width: usize,
    pub rows: Range<usize>,
    /// Whole panels, or all that are left.
    pub columns: Range<usize>,
    /// All rows and columns.
    pub c: Output<F>,
}

impl<F: Float, W: Stored<F>> WithSimd for Sweep<'_, F, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if const { geometry::<S>().panel_vectors == WIDE.panel_vectors } {
            self.compute::<S, { WIDE.panel_vectors }>(simd);
        } else {
            self.compute::<S, { NARROW.panel_vectors }>(simd);
        }
    }
}

/// A part of a panel: `depth` terms from `start` on, and `count` columns from `first` on.
#[derive(Clone, Copy)]
struct Part<W> {
    start: usize,
    depth: usize,
    first: usize,
    count: usize,
    weights: *const W,
}

impl<F: Float, W: Stored<F>> Sweep<'_, F, W> {
    #[inline(always)]
    fn compute<S: Simd, const N: usize>(&self, simd: S) {
        assert_eq!(N * F::lanes::<S>(), self.width, "packed for another instruction set");
        if self.rows.len() == 1 {
            return self.single_row::<S, N>(simd);
        }
        for (first, count) in even_chunks(self.rows.len(), PANEL_BLOCK_ROWS) {
            let first = self.rows.start + first;
            self.over_panels::<S, N>(simd, first..first + count);
        }
    }

    #[inline(always)]
    fn over_panels<S: Simd, const N: usize>(&self, simd: S, rows: Range<usize>) {
        let width = N * F::lanes::<S>();
        // If nothing is prefetched, unrolled loops are faster for any number of rows.
        let few = rows.len() <= PANEL_FEW_ROWS && cfg!(target_arch = "x86_64") || const { geometry::<S>().by_element };
        for first in self.columns.clone().step_by(width) {
            let panel = &self.values[first * self.depth..][..width * self.depth];
            // The parts of the sums are the same as in other products, because a single step may be one of those.
            for (start, depth) in depth_blocks(self.depth) {
                let weights = panel[start * width..].as_ptr();
                let part = Part { start, depth, first, count: width.min(self.all_columns - first), weights };
                match (part.count == width, few) {
                    (true, true) => self.over_rows::<S, N, 1, false>(simd, &rows, part),
                    (true, false) => self.over_rows::<S, N, PANEL_UNROLL, false>(simd, &rows, part),
                    (false, _) => self.over_rows::<S, N, 1, true>(simd, &rows, part),
                }
            }
        }
    }

    #[inline(always)]
    fn over_rows<S: Simd, const N: usize, const T: usize, const EDGE: bool>(
        &self,
        simd: S,
        rows: &Range<usize>,
        part: Part<W>,
    ) {
        let row_bytes = self.width * size_of::<W>();
        let tiles = rows.len().div_ceil(PANEL_ROWS);
        let next = part.weights.wrapping_byte_add(part.depth * row_bytes);
        // A single tile leaves no time for prefetches.
        let lines = if tiles > 1 { row_bytes / LINE_BYTES } else { 0 };
        let mut prefetch = Prefetch { next, lines, tiles, due: 0 };
        for (first, count) in even_chunks(rows.len(), PANEL_ROWS) {
            let row = rows.start + first;
            let (v, c) = (self.v.from(row, part.start), self.c.after(part.start).from(row, part.first));
            let mut tile = TileOperands { part, v, c, prefetch };
            // There are several rows: no tile has a single one, as tiles are of about equal height.
            for_height!(count, 2, PANEL_ROWS, |R| out_of_line(simd, PanelTile::<F, W, N, T, R, EDGE>(&mut tile)));
            prefetch = tile.prefetch;
        }
    }

    /// A single row, several panels at a time.
    #[inline(always)]
    fn single_row<S: Simd, const N: usize>(&self, simd: S) {
        let Range { start: mut first, end } = self.columns;
        let width = N * F::lanes::<S>();
        let far = size_of_val(self.values) >= FAR_BYTES;
        while first < end {
            let row = Row { sweep: self, first };
            // A call takes as long as several terms, and a small layer has few terms. Weights that are far away are large.
            let panels = match ((end - first).div_ceil(width), far) {
                (1, false) => RowTile::<F, W, N, 1, false>(row).with_simd(simd),
                (1, true) => out_of_line(simd, RowTile::<F, W, N, 1, true>(row)),
                (2 | 3, false) => RowTile::<F, W, N, 2, false>(row).with_simd(simd),
                (2 | 3, true) => out_of_line(simd, RowTile::<F, W, N, 2, true>(row)),
                (_, false) => RowTile::<F, W, N, ROW_PANELS, false>(row).with_simd(simd),
                (_, true) => out_of_line(simd, RowTile::<F, W, N, ROW_PANELS, true>(row)),
            };
            first += panels * width;
        }
    }
}

/// The operands of a [`PanelTile`].
struct TileOperands<F, W> {
    part: Part<W>,
    /// From its first row and term on.
    v: Strided<F>,
    /// From its first row and column on.
    c: Output<F>,
    prefetch: Prefetch<W>,
}

/// The sums of `R` rows and a panel's columns, `T` terms between two prefetches.
struct PanelTile<'a, F, W, const N: usize, const T: usize, const R: usize, const EDGE: bool>(
    &'a mut TileOperands<F, W>,
);

impl<F: Float, W: Stored<F>, const N: usize, const T: usize, const R: usize, const EDGE: bool> WithSimd
    for PanelTile<'_, F, W, N, T, R, EDGE>
{
    type Output = ();

    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
    fn with_simd<S: Simd>(self, simd: S) {
        let TileOperands { part: Part { depth, count, mut weights, .. }, v: rows, c, mut prefetch } = *self.0;
        let lanes = F::lanes::<S>();
        let mut v = [rows.start; R];
        for i in 0..R {
            v[i] = rows.from(i, 0).start;
        }
        if T == PANEL_UNROLL {
            // If C has many rows, they are far away, so they are prefetched for the end.
            prefetch_output::<S, F, R, N>(c);
        }
        let mut sums = [[F::splat(simd, F::zero()); N]; R];
        // A term, with its factor for row i.
        macro_rules! add_term {
            (|$i:ident| $factor:expr) => {
                // The vectors of weights, one factor at a time and the sums take 15 of 16 registers.
                // SAFETY: a row of the panel, which has N vectors.
                let w: [_; N] = unsafe { W::load_row(simd, weights) };
                for $i in 0..R {
                    let factor = $factor;
                    for j in 0..N {
                        sums[$i][j] = F::fused(simd, factor, w[j], sums[$i][j]);
                    }
                }
                weights = weights.wrapping_add(N * lanes);
            };
        }
        let mut p = 0_usize;
        if const { geometry::<S>().by_element } {
            let whole = depth - depth % lanes;
            while p < whole {
                let mut factors = [F::splat(simd, F::zero()); R];
                for i in 0..R {
                    // SAFETY: `lanes` elements of row i of v, as p + lanes is at most the depth.
                    factors[i] = unsafe { F::load_factors(simd, v[i].wrapping_add(p)) };
                }
                for k in 0..lanes {
                    add_term!(|i| F::splat_element(simd, factors[i], k));
                }
                p = p.wrapping_add(lanes);
            }
        } else {
            let whole = depth - depth % T;
            while p < whole {
                for k in 0..T {
                    // SAFETY: T elements of row i of v, as p + T is at most the depth.
                    add_term!(|i| F::splat(simd, unsafe { F::read_of::<T>(v[i].wrapping_add(p), k) }));
                }
                p = p.wrapping_add(T);
                prefetch.some(T);
            }
        }
        while p < depth {
            // SAFETY: an element of row i of v.
            add_term!(|i| F::splat(simd, unsafe { F::read_of::<1>(v[i].wrapping_add(p), 0) }));
            p = p.wrapping_add(1);
            prefetch.some(1);
        }
        self.0.prefetch = prefetch;
        // SAFETY: R rows of C, as far as its columns go, guaranteed by the sweep's maker.
        unsafe { finish::<S, F, R, N, EDGE>(simd, count, sums, c) };
    }
}

/// The single row of a sweep, and the panels whose first column is `first`.
struct Row<'a, F, W> {
    sweep: &'a Sweep<'a, F, W>,
    first: usize,
}

/// The sums of a single row with `P` panels, which are perhaps `FAR` away; returns `P`.
struct RowTile<'a, F, W, const N: usize, const P: usize, const FAR: bool>(Row<'a, F, W>);

impl<F: Float, W: Stored<F>, const N: usize, const P: usize, const FAR: bool> WithSimd
    for RowTile<'_, F, W, N, P, FAR>
{
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let Row { sweep, first } = self.0;
        let width = N * F::lanes::<S>();
        let panel = width * sweep.depth;
        let values = &sweep.values[first * sweep.depth..][..P * panel];
        for (start, depth) in depth_blocks(sweep.depth) {
            let v = sweep.v.from(sweep.rows.start, start).start;
            let weights = values[start * width..].as_ptr();
            // SAFETY: `depth` elements of the row, and as many rows of the panels.
            let sums = unsafe { row_sums::<S, F, W, N, P, FAR>(simd, v, weights, panel, depth) };
            let c = sweep.c.after(start);
            for (k, sums) in sums.into_iter().enumerate() {
                let first = first + k * width;
                let (count, c) = (width.min(sweep.all_columns - first), c.from(sweep.rows.start, first));
                // SAFETY: the row of C, as far as its columns go, guaranteed by the sweep's maker.
                unsafe {
                    if count == width {
                        finish::<S, F, 1, N, false>(simd, count, [sums], c);
                    } else {
                        finish::<S, F, 1, N, true>(simd, count, [sums], c);
                    }
                }
            }
        }
        P
    }
}

/// The sums of a row `v` with `P` panels of `N` vectors, from `weights` on, `panel` elements apart, and perhaps `FAR` away.
///
/// # Safety
///
/// `depth` elements of `v` are readable, and as many rows of the panels.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
unsafe fn row_sums<S: Simd, F: Float, W: Stored<F>, const N: usize, const P: usize, const FAR: bool>(
    simd: S,
    v: *const F,
    mut weights: *const W,
    panel: usize,
    depth: usize,
) -> [[F::Vector<S>; N]; P] {
    let lanes = F::lanes::<S>();
    let mut sums = [[F::splat(simd, F::zero()); N]; P];
    macro_rules! add_term {
        ($factor:expr) => {
            let factor = $factor;
            for k in 0..P {
                let from = weights.wrapping_add(k.wrapping_mul(panel));
                for j in (0..N).step_by(size_of::<F>() / size_of::<W>()) {
                    if FAR {
                        prefetch_l1(from.wrapping_add(j * lanes).wrapping_byte_add(FAR_AHEAD_BYTES));
                    }
                }
                // SAFETY: row p of the panel.
                let w: [_; N] = unsafe { W::load_row(simd, from) };
                for j in 0..N {
                    sums[k][j] = F::fused(simd, factor, w[j], sums[k][j]);
                }
            }
            weights = weights.wrapping_add(N * lanes);
        };
    }
    let mut p = 0_usize;
    if const { geometry::<S>().by_element } {
        let whole = depth - depth % lanes;
        while p < whole {
            // SAFETY: guaranteed by the caller, as p + lanes is at most the depth.
            let factors = unsafe { F::load_factors(simd, v.wrapping_add(p)) };
            for i in 0..lanes {
                add_term!(F::splat_element(simd, factors, i));
            }
            p = p.wrapping_add(lanes);
        }
    }
    for p in p..depth {
        // SAFETY: guaranteed by the caller.
        add_term!(F::splat(simd, unsafe { F::read(v.wrapping_add(p)) }));
    }
    sums
}

/// The next part of the weights. Each term of each of the `tiles` prefetches its share of a row's `lines` into the L2 cache.
#[derive(Clone, Copy)]
struct Prefetch<W> {
    next: *const W,
    lines: usize,
    tiles: usize,
    /// The amount that is due, in units of which `tiles` make a line.
    due: usize,
}

impl<W> Prefetch<W> {
    #[inline(always)]
    fn some(&mut self, terms: usize) {
        if cfg!(not(target_arch = "x86_64")) {
            return; // Nothing is prefetched, so nothing is counted.
        }
        self.due = self.due.wrapping_add(terms.wrapping_mul(self.lines));
        while self.due >= self.tiles {
            self.due = self.due.wrapping_sub(self.tiles);
            prefetch_l2(self.next);
            self.next = self.next.wrapping_byte_add(LINE_BYTES);
        }
    }
}
