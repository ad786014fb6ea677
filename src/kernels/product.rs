//! Matrix products.
//!
//! The large ones follow Goto and van de Geijn: a block of B is packed into panels as wide as a tile, and tiles of C, held
//! in registers, sweep over one panel at a time while it stays in the nearest cache. Small ones, where packing would cost
//! more than it gains, read B in place. The order of the sums depends on the shapes, the strides and the instruction
//! set alone, so equal products have equal bits.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::marker::PhantomData;

use ndarray::{ArrayView2, ArrayViewMut2, s};
use pulp::{Simd, WithSimd};

use super::buffer::Buffer;
use super::pack::{copy, pack_panels, pack_rows, panels_len};
use super::simd::dispatch;
use super::tile::{Output, ROWS, Strided, dots, registers, tile, width};
use crate::float::Float;

/// What a product does with the elements that it finds in C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accumulate {
    /// `C <- A B`; C is not read.
    Overwrite,
    /// `C <- C + A B`.
    Add,
}

/// The depth of a block: a panel of it stays in the nearest cache.
const BLOCK_DEPTH: usize = 256;

/// The rows of a block of A: together with a panel of B it stays in the second cache.
const BLOCK_ROWS: usize = 192;

/// The columns of a block of B.
const BLOCK_COLUMNS: usize = 2048;

/// The most rows for which B is read in place.
const FEW_ROWS: usize = 4;

thread_local! {
    /// Blocks of B and A, of at most `BLOCK_DEPTH * (BLOCK_COLUMNS + BLOCK_ROWS)` elements.
    static BLOCKS: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
}

/// C `[m, n]` <- A `[m, k]` B `[k, n]`, or C + A B.
///
/// A and B may have any strides, as transposed views have; the columns of C are contiguous. Infinities and NaN propagate
/// as in the sum of products.
pub(crate) fn product<F: Float>(
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    mut c: ArrayViewMut2<'_, F>,
    mode: Accumulate,
) {
    check(a.dim(), b.dim(), &c);
    if a.ncols() == 0 {
        if mode == Accumulate::Overwrite {
            c.fill(F::zero());
        }
    } else if !c.is_empty() {
        dispatch(Product { a, b, c, mode });
    }
}

/// A right operand, packed once for many products.
#[derive(Default, Clone)]
pub(crate) struct Packed<F> {
    panels: Buffer,
    depth: usize,
    columns: usize,
    width: usize,
    element: PhantomData<F>,
}

impl<F: Float> Packed<F> {
    /// Packs B `[k, n]`, in the memory of the operand packed before.
    pub(crate) fn pack(&mut self, b: ArrayView2<'_, F>) {
        dispatch(Pack { b, packed: self });
    }

    /// The shape `[k, n]` of the operand.
    pub(crate) fn dim(&self) -> (usize, usize) {
        (self.depth, self.columns)
    }
}

/// [`product`] with a packed right operand.
pub(crate) fn product_packed<F: Float>(
    a: ArrayView2<'_, F>,
    b: &Packed<F>,
    mut c: ArrayViewMut2<'_, F>,
    mode: Accumulate,
) {
    check(a.dim(), b.dim(), &c);
    if a.ncols() == 0 {
        if mode == Accumulate::Overwrite {
            c.fill(F::zero());
        }
    } else if !c.is_empty() {
        dispatch(ProductPacked { a, b, c, mode });
    }
}

fn check<F>(a: (usize, usize), b: (usize, usize), c: &ArrayViewMut2<'_, F>) {
    assert!(
        a.1 == b.0 && c.dim() == (a.0, b.1),
        "product of {a:?} and {b:?} into {:?}",
        c.dim(),
    );
    assert!(
        c.is_empty() || c.ncols() == 1 || c.strides()[1] == 1,
        "the columns of the output are not contiguous"
    );
}

struct Pack<'a, F> {
    b: ArrayView2<'a, F>,
    packed: &'a mut Packed<F>,
}

impl<F: Float> WithSimd for Pack<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { b, packed } = self;
        let width = width::<S, F>();
        (packed.depth, packed.columns) = b.dim();
        packed.width = width;
        if !b.is_empty() {
            let len = panels_len(packed.depth, packed.columns, width);
            pack_panels(b, width, packed.panels.at_least(len));
        }
    }
}

struct ProductPacked<'a, F> {
    a: ArrayView2<'a, F>,
    b: &'a Packed<F>,
    c: ArrayViewMut2<'a, F>,
    mode: Accumulate,
}

impl<F: Float> WithSimd for ProductPacked<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, c, mode } = self;
        let width = width::<S, F>();
        assert_eq!(b.width, width, "packed for another instruction set");
        let (rows, depth) = a.dim();
        let panels = b.panels.elements::<F>();
        debug_assert!(panels.len() >= panels_len(depth, b.columns, width));
        let c = output(c, mode);
        for start in (0..depth).step_by(BLOCK_DEPTH) {
            let block = Block {
                rows,
                depth: BLOCK_DEPTH.min(depth - start),
                columns: b.columns,
                a: Left::Strided(strided(a).from(0, start)),
                b: Right {
                    start: panels[start * width..].as_ptr(),
                    panel: depth * width,
                    row: width as isize,
                },
                c: c.after(start),
            };
            // SAFETY: the shapes were checked, and the panels hold B.
            unsafe { block.multiply(simd) };
        }
    }
}

struct Product<'a, F> {
    a: ArrayView2<'a, F>,
    b: ArrayView2<'a, F>,
    c: ArrayViewMut2<'a, F>,
    mode: Accumulate,
}

impl<F: Float> WithSimd for Product<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (rows, depth) = self.a.dim();
        let columns = self.b.ncols();
        let rows_contiguous = columns == 1 || self.b.strides()[1] == 1;
        let columns_contiguous = depth == 1 || self.b.strides()[0] == 1;
        if rows_contiguous && rows <= FEW_ROWS {
            self.in_place(simd);
        } else if columns_contiguous
            && rows.min(columns) <= FEW_ROWS
            && depth <= BLOCK_DEPTH * BLOCK_ROWS / FEW_ROWS
        {
            self.by_dots(simd);
        } else {
            self.by_blocks(simd);
        }
    }
}

impl<F: Float> Product<'_, F> {
    /// B is read where it is, its rows being contiguous.
    #[inline(always)]
    fn in_place<S: Simd>(self, simd: S) {
        let Self { a, b, c, mode } = self;
        let ((rows, depth), columns) = (a.dim(), b.ncols());
        let block = Block {
            rows,
            depth,
            columns,
            a: Left::Strided(strided(a)),
            b: Right {
                start: b.as_ptr(),
                panel: width::<S, F>(),
                row: b.strides()[0],
            },
            c: output(c, mode),
        };
        // SAFETY: the shapes were checked, and the rows of B are contiguous.
        unsafe { block.multiply(simd) };
    }

    /// Each element of C by itself: the columns of B are contiguous, and the rows of A are or are copied, a few at a time.
    #[inline(always)]
    fn by_dots<S: Simd>(self, simd: S) {
        let Self { a, b, c, mode } = self;
        let ((rows, depth), columns) = (a.dim(), b.ncols());
        let b_transposed = strided(b.t());
        let c = output(c, mode);
        let contiguous = depth == 1 || a.strides()[1] == 1;
        BLOCKS.with_borrow_mut(|blocks| {
            for row in (0..rows).step_by(FEW_ROWS) {
                let rows = FEW_ROWS.min(rows - row);
                let a = if contiguous {
                    strided(a).from(row, 0)
                } else {
                    let few = blocks.at_least(rows * depth);
                    for (to, from) in few
                        .chunks_exact_mut(depth)
                        .zip(a.slice(s![row..row + rows, ..]).rows())
                    {
                        copy(from, to);
                    }
                    Strided {
                        start: few.as_ptr(),
                        row: depth as isize,
                        column: 1,
                    }
                };
                let c = c.from(row, 0);
                // SAFETY: the shapes were checked, and the rows of A and columns of B are contiguous.
                unsafe {
                    match rows {
                        1 => dot_row::<S, F, 1>(simd, depth, columns, a, b_transposed, c),
                        2 => dot_row::<S, F, 2>(simd, depth, columns, a, b_transposed, c),
                        3 => dot_row::<S, F, 3>(simd, depth, columns, a, b_transposed, c),
                        _ => dot_row::<S, F, 4>(simd, depth, columns, a, b_transposed, c),
                    }
                }
            }
        });
    }

    /// Blocks of B, and of A where that pays, are packed.
    #[inline(always)]
    fn by_blocks<S: Simd>(self, simd: S) {
        let Self { a, b, c, mode } = self;
        let ((rows, depth), columns) = (a.dim(), b.ncols());
        let width = width::<S, F>();
        let c = output(c, mode);
        let pack_a = a.strides()[1] != 1 && columns > width / 2;
        let (b_len, a_len) = (
            panels_len(depth.min(BLOCK_DEPTH), columns.min(BLOCK_COLUMNS), width),
            rows.min(BLOCK_ROWS) * depth.min(BLOCK_DEPTH),
        );
        BLOCKS.with_borrow_mut(|blocks| {
            let (b_panels, a_tiles) = blocks.at_least(b_len + a_len).split_at_mut(b_len);
            for column in (0..columns).step_by(BLOCK_COLUMNS) {
                let columns = BLOCK_COLUMNS.min(columns - column);
                for start in (0..depth).step_by(BLOCK_DEPTH) {
                    let depth = BLOCK_DEPTH.min(depth - start);
                    let b = b.slice(s![start..start + depth, column..column + columns]);
                    pack_panels(b, width, b_panels);
                    for row in (0..rows).step_by(BLOCK_ROWS) {
                        let rows = BLOCK_ROWS.min(rows - row);
                        let a = a.slice(s![row..row + rows, start..start + depth]);
                        let block = Block {
                            rows,
                            depth,
                            columns,
                            a: if pack_a {
                                pack_rows(a, tiles(rows), a_tiles);
                                Left::Packed(a_tiles.as_ptr())
                            } else {
                                Left::Strided(strided(a))
                            },
                            b: Right {
                                start: b_panels.as_ptr(),
                                panel: depth * width,
                                row: width as isize,
                            },
                            c: c.after(start).from(row, column),
                        };
                        // SAFETY: the shapes were checked, and the operands were packed as the block says.
                        unsafe { block.multiply(simd) };
                    }
                }
            }
        });
    }
}

/// Few rows of dot products.
///
/// # Safety
///
/// As [`dots`], for any number of columns.
#[inline(always)]
unsafe fn dot_row<S: Simd, F: Float, const R: usize>(
    simd: S,
    depth: usize,
    columns: usize,
    a: Strided<F>,
    b_transposed: Strided<F>,
    c: Output<F>,
) {
    let mut column = 0;
    while column + 4 <= columns {
        // SAFETY: four of the columns.
        unsafe {
            dots::<S, F, R, 4>(
                simd,
                depth,
                a,
                b_transposed.from(column, 0),
                c.from(0, column),
            )
        };
        column += 4;
    }
    while column < columns {
        // SAFETY: one of the columns.
        unsafe {
            dots::<S, F, R, 1>(
                simd,
                depth,
                a,
                b_transposed.from(column, 0),
                c.from(0, column),
            )
        };
        column += 1;
    }
}

/// The first row and the number of rows of each tile of C: as few tiles as can be, of about as many rows each.
fn tiles(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(ROWS);
    let mut row = 0;
    (0..count).map(move |tile| {
        let first = row;
        row += (rows - first).div_ceil(count - tile);
        (first, row - first)
    })
}

/// A block of A.
#[derive(Clone, Copy)]
enum Left<F> {
    /// Where it is.
    Strided(Strided<F>),
    /// In the order of the tiles, as by [`pack_rows`].
    Packed(*const F),
}

/// A block of B in panels: element `(p, j)` is at `start + j / width panel + p row + j % width`.
#[derive(Clone, Copy)]
struct Right<F> {
    start: *const F,
    panel: usize,
    row: isize,
}

/// A product of blocks.
struct Block<F> {
    rows: usize,
    depth: usize,
    columns: usize,
    a: Left<F>,
    b: Right<F>,
    c: Output<F>,
}

impl<F: Float> Block<F> {
    /// # Safety
    ///
    /// A `[rows, depth]` and B `[depth, columns]` are readable as described, and C `[rows, columns]` is writable and
    /// overlaps neither.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, simd: S) {
        // SAFETY: as the caller says.
        unsafe {
            if registers::<S>() == 4 {
                self.sweep_panels::<S, 4>(simd);
            } else {
                self.sweep_panels::<S, 2>(simd);
            }
        }
    }

    /// # Safety
    ///
    /// As [`multiply`](Self::multiply).
    #[inline(always)]
    unsafe fn sweep_panels<S: Simd, const N: usize>(&self, simd: S) {
        let lanes = F::lanes::<S>();
        let mut panel = self.b.start;
        for column in (0..self.columns).step_by(N * lanes) {
            let columns = (N * lanes).min(self.columns - column);
            let c = self.c.from(0, column);
            // SAFETY: one of the panels.
            unsafe {
                match columns.div_ceil(lanes) {
                    _ if columns == N * lanes => {
                        self.sweep_rows::<S, N, false>(simd, columns, panel, c)
                    }
                    1 => self.sweep_rows::<S, 1, true>(simd, columns, panel, c),
                    2 => self.sweep_rows::<S, 2, true>(simd, columns, panel, c),
                    3 => self.sweep_rows::<S, 3, true>(simd, columns, panel, c),
                    _ => self.sweep_rows::<S, 4, true>(simd, columns, panel, c),
                }
            }
            panel = panel.wrapping_add(self.b.panel);
        }
    }

    /// # Safety
    ///
    /// As [`multiply`](Self::multiply), for one panel.
    #[inline(always)]
    unsafe fn sweep_rows<S: Simd, const N: usize, const EDGE: bool>(
        &self,
        simd: S,
        columns: usize,
        panel: *const F,
        c: Output<F>,
    ) {
        for (row, rows) in tiles(self.rows) {
            let a = match self.a {
                Left::Strided(a) => a.from(row, 0),
                Left::Packed(start) => Strided {
                    start: start.wrapping_add(row * self.depth),
                    row: 1,
                    column: rows as isize,
                },
            };
            let c = c.from(row, 0);
            let (depth, b_row) = (self.depth, self.b.row);
            // SAFETY: one of the tiles.
            unsafe {
                match rows {
                    1 => tile::<S, F, 1, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    2 => tile::<S, F, 2, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    3 => tile::<S, F, 3, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    4 => tile::<S, F, 4, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    5 => tile::<S, F, 5, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                    _ => tile::<S, F, 6, N, EDGE>(simd, depth, columns, a, panel, b_row, c),
                }
            }
        }
    }
}

impl<F> Output<F> {
    /// For the block at `depth`: the first may overwrite, the others add to it.
    fn after(self, depth: usize) -> Self {
        Self {
            add: self.add || depth > 0,
            ..self
        }
    }
}

fn strided<F>(view: ArrayView2<'_, F>) -> Strided<F> {
    Strided {
        start: view.as_ptr(),
        row: view.strides()[0],
        column: view.strides()[1],
    }
}

fn output<F>(mut view: ArrayViewMut2<'_, F>, mode: Accumulate) -> Output<F> {
    Output {
        start: view.as_mut_ptr(),
        row: view.strides()[0],
        add: mode == Accumulate::Add,
    }
}
