//! Matrix products.
//!
//! The large ones follow Goto and van de Geijn: a block of B is packed into panels as wide as a tile, a block of A is
//! copied to where one register addresses it, and tiles of C, held in registers, sweep over one panel at a time while it
//! stays in a near cache. Small ones, where packing would cost more than it gains, read their operands in place. The order
//! of the sums depends on the shapes, the strides and the instruction set alone, so equal products have equal bits.
#![allow(unsafe_code)]

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2};

use super::block::{Block, Left, Right};
use super::blocked::{BLOCKS, parts};
use super::buffer::Buffer;
use super::dots::Dots;
use super::float::Float;
use super::outer::{MOST_TERMS, Outer, is_streamed};
use super::pack::{Order, Pack};
use super::tile::{Base, Output, Strided};
use crate::parallel::{for_each_part, product_work};

/// What a product does with the elements that it finds in C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// `C <- A B`; C is not read.
    Overwrite,
    /// `C <- C + A B`.
    Add,
}

impl Accumulate {
    pub(super) fn base<F>(self) -> Base<F> {
        match self {
            Accumulate::Overwrite => Base::Nothing,
            Accumulate::Add => Base::Output,
        }
    }
}

/// Up to so many rows of C, A is read in place, and B too if its rows are contiguous.
pub(super) const IN_PLACE_ROWS: usize = 16;

/// A block of B that is read in place has so many rows if it does not fit into the first cache: each row is a stream
/// from memory of its own.
const IN_PLACE_DEPTH: usize = 16;

/// The elements of B up to which it is read in place in one block.
const IN_PLACE_SIZE: usize = 8192;

/// Up to so many rows of C, it is computed by dot products if the columns of B are contiguous.
const DOT_ROWS: usize = 12;

/// Up to so many columns of C, it is computed by dot products if the rows of A and the columns of B are contiguous.
const DOT_COLUMNS: usize = 4;

/// The greatest depth of dot products with rows that are copied.
const DOT_DEPTH: usize = 16_384;

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
    c: ArrayViewMut2<'_, F>,
    mode: Accumulate,
    order: Summation,
) {
    product_onto(a, b, c, mode.base(), order);
}

/// Each row of C <- `bias` + the row of A B.
pub(crate) fn product_with_bias<F: Float>(
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    bias: &[F],
    mut c: ArrayViewMut2<'_, F>,
    order: Summation,
) {
    assert_eq!(bias.len(), c.ncols(), "the bias of a product");
    if c.ncols() == 1 || a.ncols() == 0 {
        for mut row in c.outer_iter_mut() {
            row.as_slice_mut().expect("contiguous columns").copy_from_slice(bias);
        }
        return product_onto(a, b, c, Base::Output, order);
    }
    product_onto(a, b, c, Base::Row(bias.as_ptr()), order);
}

fn product_onto<F: Float>(
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    mut c: ArrayViewMut2<'_, F>,
    base: Base<F>,
    order: Summation,
) {
    check(a.dim(), b.dim(), &c);
    let ((rows, depth), columns) = (a.dim(), b.ncols());
    if c.is_empty() || depth == 0 {
        return empty_sums(c, base);
    }
    // A column is computed as a row, where that can be stored as one: C^T = B^T A^T.
    if order == Summation::Fastest && columns == 1 && rows > 1 && c.strides()[0] == 1 {
        c.swap_axes(0, 1);
        return product_onto(b.reversed_axes(), a.reversed_axes(), c, base, order);
    }
    Product { rows, depth, columns, a: strided(&a), b: strided(&b), c: output(&mut c, base), order }.compute();
}

fn check<F>(a: (usize, usize), b: (usize, usize), c: &ArrayViewMut2<'_, F>) {
    assert!(a.1 == b.0 && c.dim() == (a.0, b.1), "product of {a:?} and {b:?} into {:?}", c.dim(),);
    assert!(c.is_empty() || c.ncols() == 1 || c.strides()[1] == 1, "the columns of the output are not contiguous");
}

/// A product without terms.
fn empty_sums<F: Float>(mut c: ArrayViewMut2<'_, F>, base: Base<F>) {
    match base {
        Base::Nothing => c.fill(F::zero()),
        Base::Output => {}
        Base::Row(_) => assert!(c.is_empty(), "filled before"),
    }
}

fn strided<F>(view: &ArrayView2<'_, F>) -> Strided<F> {
    Strided { start: view.as_ptr(), row: view.strides()[0], column: view.strides()[1] }
}

fn output<F>(view: &mut ArrayViewMut2<'_, F>, base: Base<F>) -> Output<F> {
    Output { start: view.as_mut_ptr(), row: view.strides()[0], base }
}

/// A product of checked shapes, with terms.
#[derive(Clone, Copy)]
pub(super) struct Product<F> {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) a: Strided<F>,
    pub(super) b: Strided<F>,
    pub(super) c: Output<F>,
    order: Summation,
}

// SAFETY: threads read A and B, which are borrowed for as long, and write parts of C that do not overlap.
unsafe impl<F: Float> Sync for Product<F> {}

/// How a product is computed.
#[derive(Clone, Copy)]
enum Way {
    /// With operands where they are, in blocks of at most this depth.
    InPlace { most_depth: usize },
    /// As a sum of outer products.
    Outer { streamed: bool },
    /// By dot products, of the rows of A as they are or copied.
    Dots { contiguous: bool },
    /// In blocks, turned round.
    Turned,
    /// In blocks.
    Blocks,
}

impl<F: Float> Product<F> {
    fn compute(self) {
        let way = self.way();
        let work = product_work(self.rows.min(self.columns), self.depth * self.rows.max(self.columns));
        if self.columns >= self.rows {
            for_each_part(0..self.columns, work, F::tiling().width, |part| self.columns(part).compute_part(way));
        } else {
            for_each_part(0..self.rows, work, F::tiling().rows, |part| self.rows(part).compute_part(way));
        }
    }

    /// The rows `part` of C.
    fn rows(&self, part: Range<usize>) -> Self {
        let (a, c) = (self.a.from(part.start, 0), self.c.from(part.start, 0));
        Product { rows: part.len(), a, c, ..*self }
    }

    /// The columns `part` of C.
    fn columns(&self, part: Range<usize>) -> Self {
        let (b, c) = (self.b.from(0, part.start), self.c.from(0, part.start));
        Product { columns: part.len(), b, c, ..*self }
    }

    /// The fastest way, in which a part of C is then computed too: it has the same bits in all parts.
    fn way(&self) -> Way {
        let Self { rows, depth, columns, a, b, c, .. } = *self;
        let b_rows_contiguous = columns == 1 || b.column == 1;
        let b_columns_contiguous = depth == 1 || b.row == 1;
        let a_rows_contiguous = depth == 1 || a.column == 1;
        let dots_are_fastest = if a_rows_contiguous {
            rows <= DOT_ROWS || columns <= DOT_COLUMNS
        } else {
            rows <= DOT_ROWS && depth <= DOT_DEPTH
        };
        let fastest = self.order == Summation::Fastest;
        let onto_row = matches!(c.base, Base::Row(_));
        if fastest && b_rows_contiguous && depth <= MOST_TERMS && !onto_row {
            Way::Outer { streamed: is_streamed(rows, columns, &c) }
        } else if fastest && b_rows_contiguous && (rows <= IN_PLACE_ROWS || depth <= MOST_TERMS) {
            Way::InPlace { most_depth: if depth * columns <= IN_PLACE_SIZE { depth } else { IN_PLACE_DEPTH } }
        } else if fastest && b_columns_contiguous && dots_are_fastest {
            Way::Dots { contiguous: a_rows_contiguous }
        } else if b_columns_contiguous && self.is_faster_turned() {
            Way::Turned
        } else {
            Way::Blocks
        }
    }

    fn compute_part(self, way: Way) {
        match way {
            Way::InPlace { most_depth } => self.in_place(most_depth),
            Way::Outer { streamed } => F::multiply_outer(Outer { product: self, streamed }),
            Way::Dots { contiguous } => self.by_dots(contiguous),
            Way::Turned => self.turned(),
            Way::Blocks => self.by_blocks(),
        }
    }

    /// A and B are read where they are, the rows of B being contiguous.
    fn in_place(self, most_depth: usize) {
        let Self { rows, depth, columns, a, b, c, .. } = self;
        let width = F::tiling().width;
        let most_rows = if depth <= MOST_TERMS { 3 } else { IN_PLACE_ROWS };
        for (start, depth) in parts(depth, most_depth) {
            for (row, rows) in parts(rows, most_rows) {
                F::multiply(Block {
                    rows,
                    depth,
                    columns,
                    a: Left::Strided(a.from(row, start)),
                    b: Right { start: b.from(start, 0).start, panel: width, row: b.row },
                    c: c.after(start).from(row, 0),
                });
            }
        }
    }

    /// Each element of C by itself: the columns of B are contiguous, and the rows of A are, or are copied.
    fn by_dots(self, contiguous: bool) {
        let Self { rows, depth, columns, mut a, b, c, .. } = self;
        let mut blocks = Buffer::new();
        if !contiguous {
            blocks = BLOCKS.take();
            let to = blocks.at_least(rows * depth);
            F::pack(Pack { from: a, rows, columns: depth, order: Order::Compact, to: &mut *to });
            a = Strided { start: to.as_ptr(), row: depth as isize, column: 1 };
        }
        F::multiply_by_dots(Dots { rows, depth, columns, a, b_transposed: b.transposed(), c });
        if !contiguous {
            BLOCKS.set(blocks);
        }
    }
}
