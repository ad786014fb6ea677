//! Matrix products.
//!
//! The large ones follow Goto and van de Geijn: a block of B is packed into panels as wide as a tile, and tiles of C,
//! held in registers, sweep over one panel at a time while it stays in a near cache. Small ones, where packing
//! would cost more than it gains, read B in place. The order of the sums depends on the shapes, the strides and the
//! instruction set alone, so equal products have equal bits.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::marker::PhantomData;

use ndarray::{ArrayView2, ArrayViewMut2};
use pulp::{Simd, WithSimd};

use super::block::{Block, Left, Right, multiply_by_dots, tiles};
use super::buffer::Buffer;
use super::pack::{copy_rows, pack_panels, pack_rows, panels_len};
use super::tile::{Output, Strided, width};
use crate::float::Float;

/// What a product does with the elements that it finds in C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accumulate {
    /// `C <- A B`; C is not read.
    Overwrite,
    /// `C <- C + A B`.
    Add,
}

/// The depth of a block. A panel so deep streams from the second cache, which costs less than more passes over C.
const BLOCK_DEPTH: usize = 512;

/// The rows of a block of A: together with a panel of B it stays in the second cache.
const BLOCK_ROWS: usize = 96;

/// The columns of a block of B.
const BLOCK_COLUMNS: usize = 2048;

/// Up to so many rows of C, B is read in place if its rows are contiguous.
const IN_PLACE_ROWS: usize = 16;

/// Up to so many rows of C, it is computed by dot products if the columns of B are contiguous.
const DOT_ROWS: usize = 12;

/// Up to so many columns of C, it is computed by dot products if the rows of A and the columns of B are contiguous.
const DOT_COLUMNS: usize = 4;

/// The greatest depth of dot products with rows that are copied.
const DOT_DEPTH: usize = 16_384;

thread_local! {
    /// Blocks of B and A, of at most `BLOCK_DEPTH * (BLOCK_COLUMNS + BLOCK_ROWS)` elements, or `DOT_ROWS * DOT_DEPTH`.
    static BLOCKS: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
}

/// In which order a product adds up its terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summation {
    /// In the order that is fastest for the shapes: a row's bits depend on how many rows there are.
    Fastest,
    /// One term after the other, in lanes along the columns: a row's bits do not depend on the number of rows.
    Sequential,
}

/// C `[m, n]` <- A `[m, k]` B `[k, n]`, or C + A B.
///
/// A and B may have any strides, as transposed views have; the columns of C are contiguous. Infinities and NaN
/// propagate as in the sum of products.
pub(crate) fn product<F: Float>(a: ArrayView2<'_, F>, b: ArrayView2<'_, F>, c: ArrayViewMut2<'_, F>, mode: Accumulate) {
    product_in_order(a, b, c, mode, Summation::Fastest);
}

/// [`product`], its terms added up as `order` says.
pub(crate) fn product_in_order<F: Float>(
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    mut c: ArrayViewMut2<'_, F>,
    mode: Accumulate,
    order: Summation,
) {
    check(a.dim(), b.dim(), &c);
    let ((rows, depth), columns) = (a.dim(), b.ncols());
    if c.is_empty() || depth == 0 {
        return empty_sums(c, mode);
    }
    // A column is computed as a row, where that can be stored as one: C^T = B^T A^T.
    if order == Summation::Fastest && columns == 1 && rows > 1 && c.strides()[0] == 1 {
        c.swap_axes(0, 1);
        return product(b.reversed_axes(), a.reversed_axes(), c, mode);
    }
    F::multiply(Product { rows, depth, columns, a: strided(&a), b: strided(&b), c: output(&mut c, mode), order });
}

/// A right operand, packed once for many products.
#[derive(Default, Clone)]
pub struct Packed<F> {
    panels: Buffer,
    depth: usize,
    columns: usize,
    width: usize,
    element: PhantomData<F>,
}

impl<F: Float> Packed<F> {
    /// Packs B `[k, n]`, in the memory of the operand packed before.
    pub(crate) fn pack(&mut self, b: ArrayView2<'_, F>) {
        (self.depth, self.columns) = b.dim();
        F::pack(Pack { b, packed: self });
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
    if c.is_empty() || b.depth == 0 {
        return empty_sums(c, mode);
    }
    F::multiply_packed(ProductPacked { rows: a.nrows(), a: strided(&a), b, c: output(&mut c, mode) });
}

fn check<F>(a: (usize, usize), b: (usize, usize), c: &ArrayViewMut2<'_, F>) {
    assert!(a.1 == b.0 && c.dim() == (a.0, b.1), "product of {a:?} and {b:?} into {:?}", c.dim(),);
    assert!(c.is_empty() || c.ncols() == 1 || c.strides()[1] == 1, "the columns of the output are not contiguous");
}

/// A product without terms.
fn empty_sums<F: Float>(mut c: ArrayViewMut2<'_, F>, mode: Accumulate) {
    if mode == Accumulate::Overwrite {
        c.fill(F::zero());
    }
}

fn strided<F>(view: &ArrayView2<'_, F>) -> Strided<F> {
    Strided { start: view.as_ptr(), row: view.strides()[0], column: view.strides()[1] }
}

fn output<F>(view: &mut ArrayViewMut2<'_, F>, mode: Accumulate) -> Output<F> {
    Output { start: view.as_mut_ptr(), row: view.strides()[0], add: mode == Accumulate::Add }
}

/// An operand to pack.
pub struct Pack<'a, F> {
    b: ArrayView2<'a, F>,
    packed: &'a mut Packed<F>,
}

impl<F: Float> WithSimd for Pack<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Packed { panels, depth, columns, width: packed_width, .. } = self.packed;
        *packed_width = width::<S, F>();
        let panels = panels.at_least(panels_len(*depth, *columns, *packed_width));
        // SAFETY: B is a view of this shape.
        unsafe { pack_panels(strided(&self.b), *depth, *columns, *packed_width, panels) };
    }
}

/// A product of checked shapes, with terms.
pub struct ProductPacked<'a, F> {
    rows: usize,
    a: Strided<F>,
    b: &'a Packed<F>,
    c: Output<F>,
}

impl<F: Float> WithSimd for ProductPacked<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, a, b, c } = self;
        let width = width::<S, F>();
        assert_eq!(b.width, width, "packed for another instruction set");
        let panels = b.panels.elements::<F>();
        for start in (0..b.depth).step_by(BLOCK_DEPTH) {
            let block = Block {
                rows,
                depth: BLOCK_DEPTH.min(b.depth - start),
                columns: b.columns,
                a: Left::Strided(a.from(0, start)),
                b: Right { start: panels[start * width..].as_ptr(), panel: b.depth * width, row: width as isize },
                c: c.after(start),
            };
            // SAFETY: the shapes were checked, and the panels hold B.
            unsafe { block.multiply(simd) };
        }
    }
}

/// A product of checked shapes, with terms.
pub struct Product<F> {
    rows: usize,
    depth: usize,
    columns: usize,
    a: Strided<F>,
    b: Strided<F>,
    c: Output<F>,
    order: Summation,
}

impl<F: Float> WithSimd for Product<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, depth, columns, a, b, .. } = self;
        let b_rows_contiguous = columns == 1 || b.column == 1;
        let b_columns_contiguous = depth == 1 || b.row == 1;
        let a_rows_contiguous = depth == 1 || a.column == 1;
        let dots_are_fastest = if a_rows_contiguous {
            rows <= DOT_ROWS || columns <= DOT_COLUMNS
        } else {
            rows <= DOT_ROWS && depth <= DOT_DEPTH
        };
        let fastest = self.order == Summation::Fastest;
        if fastest && b_rows_contiguous && rows <= IN_PLACE_ROWS {
            self.in_place(simd);
        } else if fastest && b_columns_contiguous && dots_are_fastest {
            self.by_dots(simd, a_rows_contiguous);
        } else {
            self.by_blocks(simd);
        }
    }
}

impl<F: Float> Product<F> {
    /// B is read where it is, its rows being contiguous.
    #[inline(always)]
    fn in_place<S: Simd>(self, simd: S) {
        let block = Block {
            rows: self.rows,
            depth: self.depth,
            columns: self.columns,
            a: Left::Strided(self.a),
            b: Right { start: self.b.start, panel: width::<S, F>(), row: self.b.row },
            c: self.c,
        };
        // SAFETY: the shapes were checked, and the rows of B are contiguous.
        unsafe { block.multiply(simd) };
    }

    /// Each element of C by itself: the columns of B are contiguous, and the rows of A are, or are copied.
    #[inline(always)]
    fn by_dots<S: Simd>(self, simd: S, contiguous: bool) {
        let Self { rows, depth, columns, mut a, b, c, .. } = self;
        let mut blocks = Buffer::new();
        if !contiguous {
            blocks = BLOCKS.take();
            let copied = blocks.at_least(rows * depth);
            // SAFETY: the shapes were checked.
            unsafe { copy_rows(a, rows, depth, depth, copied) };
            a = Strided { start: copied.as_ptr(), row: depth as isize, column: 1 };
        }
        // SAFETY: the shapes were checked, and the rows of A and columns of B are contiguous.
        unsafe { multiply_by_dots(simd, (rows, depth, columns), a, b.transposed(), c) };
        if !contiguous {
            BLOCKS.set(blocks);
        }
    }

    /// Blocks of B are packed, and those of A if its rows are not contiguous.
    #[inline(always)]
    fn by_blocks<S: Simd>(self, simd: S) {
        let Self { rows, depth, columns, a, b, c, .. } = self;
        let width = width::<S, F>();
        // A panel alone does not repay packing A.
        let pack_a = a.column != 1 && columns > width;
        // For a few rows, a panel is used once: it does not leave the near cache.
        let block_columns = if rows <= IN_PLACE_ROWS { width } else { BLOCK_COLUMNS };
        let (b_len, a_len) = (
            panels_len(depth.min(BLOCK_DEPTH), columns.min(block_columns), width),
            rows.min(BLOCK_ROWS) * depth.min(BLOCK_DEPTH),
        );
        // Taken, not borrowed by a closure: the compiler would not inline that into the vectorised function.
        let mut blocks = BLOCKS.take();
        let (b_panels, a_tiles) = blocks.at_least(b_len + a_len).split_at_mut(b_len);
        for column in (0..columns).step_by(block_columns) {
            let columns = block_columns.min(columns - column);
            for start in (0..depth).step_by(BLOCK_DEPTH) {
                let depth = BLOCK_DEPTH.min(depth - start);
                // SAFETY: a block of B.
                unsafe { pack_panels(b.from(start, column), depth, columns, width, b_panels) };
                for row in (0..rows).step_by(BLOCK_ROWS) {
                    let rows = BLOCK_ROWS.min(rows - row);
                    let a = a.from(row, start);
                    let block = Block {
                        rows,
                        depth,
                        columns,
                        a: if pack_a {
                            // SAFETY: a block of A.
                            unsafe { pack_rows(a, depth, tiles(rows), a_tiles) };
                            Left::Packed(a_tiles.as_ptr())
                        } else {
                            Left::Strided(a)
                        },
                        b: Right { start: b_panels.as_ptr(), panel: depth * width, row: width as isize },
                        c: c.after(start).from(row, column),
                    };
                    // SAFETY: the shapes were checked, and the operands are packed as the block says.
                    unsafe { block.multiply(simd) };
                }
            }
        }
        BLOCKS.set(blocks);
    }
}
