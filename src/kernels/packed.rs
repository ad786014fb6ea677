//! Products with a right operand that is packed once for many products: `v W` of every step of a recurrence, of a part of
//! the steps at a time, or of a model whose weights stay as they are.
//!
//! W is swept over once a product: a part of a panel stays in a near cache for all rows, whose sums are held in registers, a
//! tile of rows at a time. Meanwhile the next part is fetched into the second cache, a few lines with each term of the sums,
//! so that weights that do not fit into it cost little more than those that do.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use pulp::{Simd, WithSimd};

use super::blocked::{depths, parts};
use super::buffer::Buffer;
use super::float::Float;
use super::pack::copy_rows;
use super::product::Accumulate;
use super::tile::{Base, LINE_BYTES, Output, Strided, fetch_output, finish, prefetch};
use crate::parallel::{ELEMENT, Split, for_each_part, product_work};

/// The rows of a tile: 24 of 32 registers, or 12 of 16, hold sums.
const TILE_ROWS: usize = 6;

/// The terms between two looks at what is to be fetched: to look takes the places of sums.
const TERMS: usize = 4;

/// Up to so many rows have too much to fetch for that: after each term, so that lines do not come in bursts.
const FEW_ROWS: usize = 4 * TILE_ROWS;

/// With more rows, so many at a time go over all panels: they stay in the second cache with a part of a panel.
const BLOCK_ROWS: usize = 20 * TILE_ROWS;

/// So many panels at a time for a single row: their sums do not wait for each other, and weights come as several streams.
const ROW_PANELS: usize = 4;

/// Weights of so many bytes come from memory, from where a single row has them fetched so far ahead in each stream.
const FAR_BYTES: usize = 8 << 20;
const AHEAD_BYTES: usize = 1024;

/// The columns of a panel, in registers.
const fn panel_registers<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

/// The columns of a panel.
pub(super) fn panel_width<S: Simd, F: Float>() -> usize {
    panel_registers::<S>() * F::lanes::<S>()
}

/// W `[K, M]` of products `v W`.
///
/// ```text
/// [M / P][K][P]        P columns at a time, in whole registers; what is past M is 0
/// ```
#[derive(Clone, Default)]
pub struct Packed<F> {
    panels: Buffer,
    depth: usize,
    columns: usize,
    width: usize,
    element: PhantomData<F>,
}

/// What the sums of a product start from.
pub(crate) enum Start<'a, F> {
    /// Nothing, or the elements of C.
    From(Accumulate),
    /// The same row for each row of C.
    Row(&'a [F]),
}

impl<F> From<Accumulate> for Start<'_, F> {
    fn from(mode: Accumulate) -> Self {
        Start::From(mode)
    }
}

/// A bias, where there is one.
impl<'a, F> From<Option<&'a [F]>> for Start<'a, F> {
    fn from(bias: Option<&'a [F]>) -> Self {
        bias.map_or(Start::From(Accumulate::Overwrite), Start::Row)
    }
}

impl<F> std::fmt::Debug for Packed<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed([{}, {}])", self.depth, self.columns)
    }
}

impl<F: Float> Packed<F> {
    /// M.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Packs `operand`, `[K, M]`, in the memory of the one packed before, on all threads.
    pub(crate) fn pack(&mut self, operand: ArrayView2<'_, F>) -> &Self {
        (self.depth, self.columns) = operand.dim();
        self.width = F::tiling().panel;
        let len = self.depth * self.columns.next_multiple_of(self.width);
        let panels = &mut self.panels.at_least(len)[..len];
        let whole = PackOperand { operand, width: self.width, panels };
        for_each_part(whole, len * ELEMENT, 1, F::pack_operand);
        self
    }

    /// `c = start + v W` for `v` `[N, K]` and `c` `[N, M]`, whose rows are contiguous, on all threads. A row's bits do not
    /// depend on the number of rows, and are those of a product [in order](super::Summation::Sequential).
    #[inline(always)]
    pub(crate) fn multiply<'a>(&self, v: ArrayView2<'_, F>, c: ArrayViewMut2<'_, F>, start: impl Into<Start<'a, F>>) {
        let Some(all) = self.sweep(v, c, start.into()) else { return };
        let (rows, columns) = (v.nrows(), self.columns);
        let work = product_work(rows, self.depth * columns);
        if rows > columns {
            for_each_part(0..rows, work, TILE_ROWS, |rows| F::multiply_packed(Sweep { rows, ..all.clone() }));
        } else {
            for_each_part(0..columns, work, self.width, |columns| F::multiply_packed(Sweep { columns, ..all.clone() }));
        }
    }

    /// The product, if there are terms to add up.
    #[inline(always)]
    fn sweep<'a>(
        &'a self,
        v: ArrayView2<'a, F>,
        mut c: ArrayViewMut2<'a, F>,
        start: Start<'_, F>,
    ) -> Option<Sweep<'a, F>> {
        let (rows, depth) = v.dim();
        assert!(depth == self.depth && c.dim() == (rows, self.columns), "{:?} by {self:?} to {:?}", v.dim(), c.dim());
        assert!(rows == 0 || depth <= 1 || v.strides()[1] == 1, "the rows of v are not contiguous");
        assert!(rows == 0 || self.columns <= 1 || c.strides()[1] == 1, "the rows of c are not contiguous");
        let base = match start {
            Start::From(mode) => mode.base(),
            Start::Row(row) => {
                assert!(row.len() == self.columns && depth > 0, "the bias of a product");
                Base::Row(row.as_ptr())
            }
        };
        if depth == 0 && matches!(base, Base::Nothing) {
            c.fill(F::zero());
        }
        let output = Output { start: c.as_mut_ptr(), row: c.strides()[0], base };
        (depth > 0).then_some(Sweep { v, panels: self, rows: 0..rows, columns: 0..self.columns, c: output })
    }
}

thread_local! {
    static PANELS: RefCell<[Buffer; 2]> = const { RefCell::new([Buffer::new(), Buffer::new()]) };
    static ELEMENTS: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
}

/// Two operands to pack, while `act` runs, in memory of this thread.
pub(crate) fn with_operands<F: Float>(act: impl FnOnce(&mut [Packed<F>; 2])) {
    let mut operands = PANELS.take().map(|panels| Packed { panels, ..Packed::default() });
    act(&mut operands);
    PANELS.set(operands.map(|operand| operand.panels));
}

/// `len` elements of unspecified values, while `act` runs, in memory of this thread.
pub(crate) fn with_elements<F: Float>(len: usize, act: impl FnOnce(&mut [F])) {
    let mut elements = ELEMENTS.take();
    act(&mut elements.at_least(len)[..len]);
    ELEMENTS.set(elements);
}

/// An operand to pack, or some panels of it.
pub struct PackOperand<'a, F> {
    operand: ArrayView2<'a, F>,
    width: usize,
    panels: &'a mut [F],
}

impl<F: Float> Split for PackOperand<'_, F> {
    fn count(&self) -> usize {
        self.operand.ncols().div_ceil(self.width)
    }
    fn split(self, at: usize) -> (Self, Self) {
        let Self { operand, width, panels } = self;
        let (panels, others) = panels.split_at_mut(at * width * operand.nrows());
        let (operand, other) = operand.split_at(Axis(1), operand.ncols().min(at * width));
        (PackOperand { operand, width, panels }, PackOperand { operand: other, width, panels: others })
    }
}

impl<F: Float> WithSimd for PackOperand<'_, F> {
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
            let from = Strided { start: columns.as_ptr(), row: columns.strides()[0], column: columns.strides()[1] };
            // SAFETY: some columns of the operand.
            unsafe { copy_rows(simd, from, depth, count, width, panel) };
        }
    }
}

/// A product of checked shapes, with terms.
#[derive(Clone)]
pub struct Sweep<'a, F> {
    v: ArrayView2<'a, F>,
    panels: &'a Packed<F>,
    rows: Range<usize>,
    /// Whole panels, or all that are left.
    columns: Range<usize>,
    /// All rows and columns.
    c: Output<F>,
}

// SAFETY: threads read V and W, which are borrowed for as long, and write parts of C that do not overlap.
unsafe impl<F: Float> Sync for Sweep<'_, F> {}

impl<F: Float> WithSimd for Sweep<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if panel_registers::<S>() == 4 {
            self.compute::<S, 4>(simd);
        } else {
            self.compute::<S, 2>(simd);
        }
    }
}

/// A part of a panel, for some rows.
#[derive(Clone, Copy)]
struct Block<F> {
    /// Its terms are those from `start` on.
    start: usize,
    depth: usize,
    /// Its columns, `count` of them, are those from `first` on.
    first: usize,
    count: usize,
    weights: *const F,
}

impl<F: Float> Sweep<'_, F> {
    #[inline(always)]
    fn compute<S: Simd, const N: usize>(&self, simd: S) {
        let Packed { panels, depth, columns, .. } = self.panels;
        let width = N * F::lanes::<S>();
        assert_eq!(width, self.panels.width, "packed for another instruction set");
        let values = &panels.elements::<F>()[..columns.next_multiple_of(width) * depth];
        if self.rows.len() == 1 {
            return self.single_row::<S, N>(simd, values);
        }
        for (first, count) in parts(self.rows.len(), BLOCK_ROWS) {
            let first = self.rows.start + first;
            self.over_panels::<S, N>(simd, first..first + count, values);
        }
    }

    #[inline(always)]
    fn over_panels<S: Simd, const N: usize>(&self, simd: S, rows: Range<usize>, values: &[F]) {
        let Packed { depth, columns, .. } = *self.panels;
        let width = N * F::lanes::<S>();
        for first in self.columns.clone().step_by(width) {
            let panel = &values[first * depth..][..width * depth];
            // Sums of the same parts as in other products: a step alone may be one of those.
            for (start, depth) in depths(depth) {
                let weights = panel[start * width..].as_ptr();
                let block = Block { start, depth, first, count: width.min(columns - first), weights };
                let (rows, few) = (rows.clone(), rows.len() <= FEW_ROWS);
                match (block.count == width, few) {
                    (true, true) => self.over_rows::<S, N, 1, false>(simd, rows, block),
                    (true, false) => self.over_rows::<S, N, TERMS, false>(simd, rows, block),
                    (false, _) => self.over_rows::<S, N, 1, true>(simd, rows, block),
                }
            }
        }
    }

    /// Row `row` of v.
    #[inline(always)]
    fn row(&self, row: usize) -> *const F {
        self.v.as_ptr().wrapping_offset(row as isize * self.v.strides()[0])
    }

    /// A single row, several panels at a time.
    #[inline(always)]
    fn single_row<S: Simd, const N: usize>(&self, simd: S, values: &[F]) {
        let Range { start: mut first, end } = self.columns;
        let width = N * F::lanes::<S>();
        while first < end {
            let panels = match (end - first).div_ceil(width) {
                1 => self.row_of_panels::<S, N, 1>(simd, values, first),
                2 | 3 => self.row_of_panels::<S, N, 2>(simd, values, first),
                _ => self.row_of_panels::<S, N, ROW_PANELS>(simd, values, first),
            };
            first += panels * width;
        }
    }

    /// The sums of the single row with `P` panels, those from column `first` on; gives `P`.
    #[inline(always)]
    fn row_of_panels<S: Simd, const N: usize, const P: usize>(&self, simd: S, values: &[F], first: usize) -> usize {
        let Packed { depth, columns, .. } = *self.panels;
        let width = N * F::lanes::<S>();
        let panel = width * depth;
        let far = size_of_val(values) >= FAR_BYTES;
        let values = &values[first * depth..][..P * panel];
        for (start, depth) in depths(depth) {
            let v = self.row(self.rows.start).wrapping_add(start);
            let weights = values[start * width..].as_ptr();
            // SAFETY: `depth` elements of the row, and as many rows of the panels.
            let sums = unsafe {
                match far {
                    true => row_sums::<S, F, N, P, true>(simd, v, weights, panel, depth),
                    false => row_sums::<S, F, N, P, false>(simd, v, weights, panel, depth),
                }
            };
            for (k, sums) in sums.into_iter().enumerate() {
                let first = first + k * width;
                let (count, c) = (width.min(columns - first), self.c.after(start).from(self.rows.start, first));
                // SAFETY: the row of C, as far as its columns go, as the sweep's maker says.
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

    #[inline(always)]
    fn over_rows<S: Simd, const N: usize, const T: usize, const EDGE: bool>(
        &self,
        simd: S,
        rows: Range<usize>,
        block: Block<F>,
    ) {
        let row_bytes = self.panels.width * size_of::<F>();
        let tiles = rows.len().div_ceil(TILE_ROWS);
        let next = block.weights.wrapping_byte_add(block.depth * row_bytes);
        // For a single tile there is no time to fetch in.
        let lines = if tiles > 1 { row_bytes / LINE_BYTES } else { 0 };
        let mut fetch = Fetch { next, lines, tiles, due: 0 };
        for (first, count) in parts(rows.len(), TILE_ROWS) {
            let row = rows.start + first;
            match count {
                2 => self.tile::<S, N, T, 2, EDGE>(simd, row, block, &mut fetch),
                3 => self.tile::<S, N, T, 3, EDGE>(simd, row, block, &mut fetch),
                4 => self.tile::<S, N, T, 4, EDGE>(simd, row, block, &mut fetch),
                5 => self.tile::<S, N, T, 5, EDGE>(simd, row, block, &mut fetch),
                TILE_ROWS => self.tile::<S, N, T, TILE_ROWS, EDGE>(simd, row, block, &mut fetch),
                _ => unreachable!("tiles of {count} rows"), // 1 of several: as parts are of about equal size, never.
            }
        }
    }

    /// The sums of `R` rows and a panel's columns, `T` terms between two looks at what is to be fetched.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
    fn tile<S: Simd, const N: usize, const T: usize, const R: usize, const EDGE: bool>(
        &self,
        simd: S,
        row: usize,
        block: Block<F>,
        fetch: &mut Fetch<F>,
    ) {
        let lanes = F::lanes::<S>();
        let Block { start, depth, first, count, mut weights } = block;
        let c = self.c.after(start).from(row, first);
        let mut v = [self.v.as_ptr(); R];
        for i in 0..R {
            v[i] = self.row(row + i).wrapping_add(start);
        }
        if T == TERMS {
            // Many rows of C are far away.
            fetch_output::<S, F, R, N>(c);
        }
        let mut sums = [[F::splat(simd, F::zero()); N]; R];
        macro_rules! add_term {
            ($p:expr) => {
                // The registers of weights and one factor at a time: with the sums, 15 of 16 registers.
                let mut w = [F::splat(simd, F::zero()); N];
                for j in 0..N {
                    // SAFETY: a register of row start + p of the panel, which has N of them.
                    w[j] = unsafe { F::load(simd, weights.wrapping_add(j * lanes)) };
                }
                for i in 0..R {
                    // SAFETY: element (row + i, start + p) of v.
                    let factor = F::splat(simd, unsafe { *v[i].wrapping_add($p) });
                    for j in 0..N {
                        sums[i][j] = F::fused(simd, factor, w[j], sums[i][j]);
                    }
                }
                weights = weights.wrapping_add(N * lanes);
            };
        }
        let whole = depth - depth % T;
        for first in (0..whole).step_by(T) {
            for p in first..first + T {
                add_term!(p);
            }
            fetch.some(T);
        }
        for p in whole..depth {
            add_term!(p);
            fetch.some(1);
        }
        // SAFETY: rows `row` on of C, as far as its columns go, as the sweep's maker says.
        unsafe { finish::<S, F, R, N, EDGE>(simd, count, sums, c) };
    }
}

/// The sums of a row `v` with `P` panels of `N` registers, from `weights` on, `panel` elements apart, and perhaps `FAR` away.
///
/// # Safety
///
/// `depth` elements of `v` are readable, and as many rows of the panels.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The same index runs through registers of several arrays.
unsafe fn row_sums<S: Simd, F: Float, const N: usize, const P: usize, const FAR: bool>(
    simd: S,
    v: *const F,
    mut weights: *const F,
    panel: usize,
    depth: usize,
) -> [[F::Vector<S>; N]; P] {
    let lanes = F::lanes::<S>();
    let mut sums = [[F::splat(simd, F::zero()); N]; P];
    for p in 0..depth {
        // SAFETY: as the caller says.
        let factor = F::splat(simd, unsafe { *v.wrapping_add(p) });
        for k in 0..P {
            for j in 0..N {
                let from = weights.wrapping_add(k * panel + j * lanes);
                if FAR {
                    prefetch::<_, false>(from.wrapping_byte_add(AHEAD_BYTES));
                }
                // SAFETY: register j of row p of the panel.
                sums[k][j] = F::fused(simd, factor, unsafe { F::load(simd, from) }, sums[k][j]);
            }
        }
        weights = weights.wrapping_add(N * lanes);
    }
    sums
}

/// The next part of the weights, of which each term of each of the `tiles` fetches into the second cache its share of a row's
/// `lines`.
struct Fetch<F> {
    next: *const F,
    lines: usize,
    tiles: usize,
    /// What is due, in parts of a line of which `tiles` are one.
    due: usize,
}

impl<F> Fetch<F> {
    #[inline(always)]
    fn some(&mut self, terms: usize) {
        self.due += terms * self.lines;
        while self.due >= self.tiles {
            self.due -= self.tiles;
            prefetch::<_, true>(self.next);
            self.next = self.next.wrapping_byte_add(LINE_BYTES);
        }
    }
}
