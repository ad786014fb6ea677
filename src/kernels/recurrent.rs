//! The product of a recurrent step, `v W` with the same W at every step.
//!
//! W is packed once a pass ([`StepPanels`]) and swept over once a step: a part of a panel stays in a near cache for all
//! rows, whose sums are held in registers, a tile of rows at a time. Meanwhile, of weights that do not fit into the second
//! cache, the next part is fetched into it, a few lines with each term of the sums, so that they cost little more than those
//! that do.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use ndarray::{ArrayView2, ArrayViewMut2, s};
use pulp::{Simd, WithSimd};

use super::Accumulate;
use super::blocked::depths;
use super::buffer::Buffer;
use super::pack::copy_rows;
use super::tile::Strided;
use crate::Float;

/// Weights of up to so many bytes stay in the second cache from step to step; more are fetched ahead.
const CACHED_BYTES: usize = 768 * 1024;

const LINE_BYTES: usize = 64;

/// The columns of a panel, in registers.
const fn panel_registers<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

/// W `[K, M]` of `v W`, packed for the steps of a pass.
///
/// ```text
/// [M / P][K][P]        P columns at a time, in whole registers; what is past M is 0
/// ```
#[derive(Clone, Default)]
pub struct StepPanels<F> {
    panels: Buffer,
    depth: usize,
    columns: usize,
    width: usize,
    element: PhantomData<F>,
}

impl<F: Float> StepPanels<F> {
    /// Packs `operand`, `[K, M]`, in the memory of the one packed before.
    pub(crate) fn pack(&mut self, operand: ArrayView2<'_, F>) {
        (self.depth, self.columns) = operand.dim();
        F::pack_step(PackStep { operand, panels: self });
    }

    /// `c = v W`, or `c += v W`, for `v` `[N, K]` and `c` `[N, M]`, whose rows are contiguous. A row's bits do not depend on
    /// the number of rows.
    pub(crate) fn multiply(&self, v: ArrayView2<'_, F>, mut c: ArrayViewMut2<'_, F>, mode: Accumulate) {
        let (rows, depth) = v.dim();
        assert!(depth == self.depth && c.dim() == (rows, self.columns), "a step of {:?} to {:?}", v.dim(), c.dim());
        assert!(depth <= 1 || v.strides()[1] == 1, "the rows of v are not contiguous");
        assert!(self.columns <= 1 || c.strides()[1] == 1, "the rows of c are not contiguous");
        if depth == 0 {
            if mode == Accumulate::Overwrite {
                c.fill(F::zero());
            }
            return;
        }
        let (row, start) = (c.strides()[0], c.as_mut_ptr());
        F::sweep(Sweep { v, panels: self, c: Target { start, row }, overwrite: mode == Accumulate::Overwrite });
    }
}

/// An operand to pack.
pub struct PackStep<'a, F> {
    operand: ArrayView2<'a, F>,
    panels: &'a mut StepPanels<F>,
}

impl<F: Float> WithSimd for PackStep<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { operand, panels: StepPanels { panels, depth, columns, width, .. } } = self;
        *width = panel_registers::<S>() * F::lanes::<S>();
        let (depth, columns, width) = (*depth, *columns, *width);
        let len = columns.next_multiple_of(width) * depth;
        let values = &mut panels.at_least(len)[..len];
        for (index, first) in (0..columns).step_by(width).enumerate() {
            let panel = &mut values[index * depth * width..][..depth * width];
            let count = width.min(columns - first);
            if count < width {
                panel.fill(F::zero());
            }
            let columns = operand.slice(s![.., first..first + count]);
            let from = Strided { start: columns.as_ptr(), row: columns.strides()[0], column: columns.strides()[1] };
            // SAFETY: some columns of the operand.
            unsafe { copy_rows(simd, from, depth, count, width, panel) };
        }
    }
}

/// The rows of C.
#[derive(Clone, Copy)]
struct Target<F> {
    start: *mut F,
    row: isize,
}

/// A step of checked shapes, with terms.
pub struct Sweep<'a, F> {
    v: ArrayView2<'a, F>,
    panels: &'a StepPanels<F>,
    c: Target<F>,
    overwrite: bool,
}

impl<F: Float> WithSimd for Sweep<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if panel_registers::<S>() == 4 {
            self.over_panels::<S, 4>(simd);
        } else {
            self.over_panels::<S, 2>(simd);
        }
    }
}

/// A part of a panel, for all rows.
#[derive(Clone, Copy)]
struct Block<F> {
    /// Its terms are those from `start` on.
    start: usize,
    depth: usize,
    /// Its columns, `count` of them, are those from `first` on.
    first: usize,
    count: usize,
    weights: *const F,
    overwrite: bool,
}

impl<F: Float> Sweep<'_, F> {
    #[inline(always)]
    fn over_panels<S: Simd, const N: usize>(&self, simd: S) {
        let StepPanels { panels, depth, columns, width, .. } = self.panels;
        let (depth, columns, width) = (*depth, *columns, *width);
        assert_eq!(width, N * F::lanes::<S>(), "packed for another instruction set");
        let values = &panels.elements::<F>()[..columns.next_multiple_of(width) * depth];
        for (panel, first) in values.chunks_exact(depth * width).zip((0..columns).step_by(width)) {
            // Sums of the same parts as in other products: a step alone may be one of those.
            for (start, depth) in depths(depth) {
                let block = Block {
                    start,
                    depth,
                    first,
                    count: width.min(columns - first),
                    weights: panel[start * width..].as_ptr(),
                    overwrite: self.overwrite && start == 0,
                };
                let fetch = size_of_val(values) > CACHED_BYTES;
                if block.count == width {
                    self.over_rows::<S, N, false>(simd, block, fetch);
                } else {
                    self.over_rows::<S, N, true>(simd, block, fetch);
                }
            }
        }
    }

    #[inline(always)]
    fn over_rows<S: Simd, const N: usize, const EDGE: bool>(&self, simd: S, block: Block<F>, fetch: bool) {
        const ROWS: usize = 6; // 24 of 32 registers, or 12 of 16, hold sums.
        let (rows, row_bytes) = (self.v.nrows(), self.panels.width * size_of::<F>());
        let tiles = rows.div_ceil(ROWS);
        let mut fetch = Fetch {
            next: block.weights.wrapping_byte_add(block.depth * row_bytes),
            // For a single tile there is no time to fetch in.
            lines: if fetch && tiles > 1 { row_bytes.div_ceil(LINE_BYTES * tiles) } else { 0 },
        };
        let mut row = 0;
        for tile in 0..tiles {
            let count = (rows - row).div_ceil(tiles - tile);
            match count {
                1 => self.tile::<S, N, 1, EDGE>(simd, row, block, &mut fetch),
                2 => self.tile::<S, N, 2, EDGE>(simd, row, block, &mut fetch),
                3 => self.tile::<S, N, 3, EDGE>(simd, row, block, &mut fetch),
                4 => self.tile::<S, N, 4, EDGE>(simd, row, block, &mut fetch),
                5 => self.tile::<S, N, 5, EDGE>(simd, row, block, &mut fetch),
                _ => self.tile::<S, N, ROWS, EDGE>(simd, row, block, &mut fetch),
            }
            row += count;
        }
    }

    /// The sums of `R` rows and a panel's columns.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
    fn tile<S: Simd, const N: usize, const R: usize, const EDGE: bool>(
        &self,
        simd: S,
        row: usize,
        block: Block<F>,
        fetch: &mut Fetch<F>,
    ) {
        let lanes = F::lanes::<S>();
        let Block { start, depth, first, count, mut weights, overwrite } = block;
        let mut v = [self.v.as_ptr(); R];
        let mut c = [self.c.start; R];
        for i in 0..R {
            v[i] = v[i].wrapping_offset((row + i) as isize * self.v.strides()[0]).wrapping_add(start);
            c[i] = c[i].wrapping_offset((row + i) as isize * self.c.row).wrapping_add(first);
        }
        let mut masks = [F::first(simd, lanes); N];
        for j in 0..N {
            masks[j] = F::first(simd, count.saturating_sub(j * lanes).min(lanes));
        }
        let mut sums = [[F::splat(simd, F::zero()); N]; R];
        for p in 0..depth {
            let mut factors = [F::splat(simd, F::zero()); R];
            for i in 0..R {
                // SAFETY: element (row + i, start + p) of v.
                factors[i] = F::splat(simd, unsafe { *v[i].wrapping_add(p) });
            }
            for j in 0..N {
                // SAFETY: a register of row start + p of the panel, which has N of them.
                let weight = unsafe { F::load(simd, weights.wrapping_add(j * lanes)) };
                for i in 0..R {
                    sums[i][j] = F::fused(simd, factors[i], weight, sums[i][j]);
                }
            }
            weights = weights.wrapping_add(N * lanes);
            fetch.some();
        }
        for i in 0..R {
            for j in 0..N {
                let (to, mut sum) = (c[i].wrapping_add(j * lanes), sums[i][j]);
                // SAFETY: a register of row + i of C, as far as its columns go.
                unsafe {
                    if EDGE {
                        if !overwrite {
                            sum = F::plus(simd, F::load_first(simd, masks[j], to), sum);
                        }
                        F::store_first(simd, masks[j], to, sum);
                    } else {
                        if !overwrite {
                            sum = F::plus(simd, F::load(simd, to), sum);
                        }
                        F::store(simd, to, sum);
                    }
                }
            }
        }
    }
}

/// What the next block will need, fetched into the second cache a few lines at a time.
struct Fetch<F> {
    next: *const F,
    lines: usize,
}

impl<F> Fetch<F> {
    #[inline(always)]
    fn some(&mut self) {
        for _ in 0..self.lines {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint, which reads nothing, whatever the address.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(self.next.cast());
            }
            self.next = self.next.wrapping_byte_add(LINE_BYTES);
        }
    }
}
