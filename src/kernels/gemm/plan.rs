//! The choice of the strategy that computes a product, and the split of C among threads.
//!
//! | B | shape | strategy |
//! | --- | --- | --- |
//! | contiguous rows | at most 4 terms | outer products |
//! | contiguous rows | at most 16 rows of C, or 4 terms | both operands in place |
//! | contiguous columns | at most 12 rows, or 4 columns, of C | dot products |
//! | contiguous columns | 8 to 160 rows, at least 128 terms, more columns than rows | blocks, transposed: `C^T = B^T A^T` |
//! | any | any other | blocks |
//!
//! In the first three, the order of the sums depends on the number of rows, so a product [in order](Summation::Sequential) does
//! not use them. Threads compute their part of C with the strategy of the whole, so its bits do not depend on the parts.
#![allow(unsafe_code)]

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2};

use super::dots::by_dots;
use super::geometry::{BLOCK_IN_PLACE_ROWS, sizes};
use super::goto::{by_blocks, by_transposed_blocks};
use super::in_place::{in_place, most_depth};
use super::operand::{Accumulate, Base, Output, Product, Start, Strided};
use super::outer::{MOST_TERMS, by_outer_products, is_streamed};
use crate::kernels::float::Float;
use crate::parallel::{for_each_part, product_work};

/// The maximum rows of C for dot products, if the columns of B are contiguous.
const DOT_ROWS: usize = 12;

/// The maximum columns of C for dot products, if the rows of A and the columns of B are contiguous.
const DOT_COLUMNS: usize = 4;

/// The maximum depth of dot products whose rows are copied.
const DOT_DEPTH: usize = 16_384;

/// The rows of C, and the minimum number of terms, for which a product whose B has contiguous columns is computed transposed:
/// transposing B pays off only for more rows.
const TRANSPOSED_ROWS: std::ops::RangeInclusive<usize> = 8..=160;
const TRANSPOSED_DEPTH: usize = 128;

/// The order in which a product adds up its terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summation {
    /// In the order that is fastest for the shapes: a row's bits depend on the number of rows.
    Fastest,
    /// One term after the other, in lanes along the columns: a row's bits do not depend on the number of rows.
    Sequential,
}

/// How a product is computed.
#[derive(Clone, Copy)]
enum Strategy {
    /// With operands in place, in blocks of at most this depth.
    InPlace { most_depth: usize },
    /// As a sum of outer products.
    Outer { streamed: bool },
    /// By dot products, of the rows of A as they are or copied.
    Dots { a_rows_contiguous: bool },
    /// In blocks, transposed.
    TransposedBlocks,
    /// In blocks.
    Blocks,
}

/// The fastest strategy.
fn plan<F: Float>(product: &Product<F>, order: Summation) -> Strategy {
    let Product { rows, depth, columns, a, b, c } = *product;
    let b_rows_contiguous = columns == 1 || b.column == 1;
    let b_columns_contiguous = depth == 1 || b.row == 1;
    let a_rows_contiguous = depth == 1 || a.column == 1;
    let dots_are_fastest = if a_rows_contiguous {
        rows <= DOT_ROWS || columns <= DOT_COLUMNS
    } else {
        rows <= DOT_ROWS && depth <= DOT_DEPTH
    };
    let transposed_is_faster = TRANSPOSED_ROWS.contains(&rows) && depth >= TRANSPOSED_DEPTH && columns > rows;
    let fastest = order == Summation::Fastest;
    let onto_row = matches!(c.base, Base::Row(_));
    if fastest && b_rows_contiguous && depth <= MOST_TERMS && !onto_row {
        Strategy::Outer { streamed: is_streamed(rows, columns, &c) }
    } else if fastest && b_rows_contiguous && (rows <= BLOCK_IN_PLACE_ROWS || depth <= MOST_TERMS) {
        Strategy::InPlace { most_depth: most_depth(depth, columns) }
    } else if fastest && b_columns_contiguous && dots_are_fastest {
        Strategy::Dots { a_rows_contiguous }
    } else if b_columns_contiguous && transposed_is_faster {
        Strategy::TransposedBlocks
    } else {
        Strategy::Blocks
    }
}

/// Computes C, or a part of it.
///
/// # Safety
///
/// As [`Product`] says; the strategy was planned for this product, or for one of which it is a part.
unsafe fn run<F: Float>(product: Product<F>, strategy: Strategy) {
    // SAFETY: guaranteed by the caller; a strategy is planned only if the rows or columns that it needs contiguous are so.
    unsafe {
        match strategy {
            Strategy::InPlace { most_depth } => in_place(product, most_depth),
            Strategy::Outer { streamed } => by_outer_products(product, streamed),
            Strategy::Dots { a_rows_contiguous } => by_dots(product, a_rows_contiguous),
            Strategy::TransposedBlocks => by_transposed_blocks(product),
            Strategy::Blocks => by_blocks(product),
        }
    }
}

/// C <- start + A B, on all threads.
pub(crate) fn compute<F: Float>(
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    mut c: ArrayViewMut2<'_, F>,
    mut start: Start<'_, F>,
    order: Summation,
) {
    let ((rows, depth), columns) = (a.dim(), b.ncols());
    assert!(
        depth == b.nrows() && c.dim() == (rows, columns),
        "product of {:?} and {:?} into {:?}",
        a.dim(),
        b.dim(),
        c.dim()
    );
    assert!(c.is_empty() || columns == 1 || c.strides()[1] == 1, "the columns of the output are not contiguous");
    if let Start::Row(row) = start {
        assert_eq!(row.len(), columns, "the bias of a product");
    }
    if c.is_empty() || depth == 0 {
        return start.write(c);
    }
    if columns == 1 && matches!(start, Start::Row(_)) {
        start.write(c.view_mut());
        start = Start::From(Accumulate::Add);
    }
    // A column is computed as a row, if it can be stored as one: C^T = B^T A^T.
    if order == Summation::Fastest && columns == 1 && rows > 1 && c.strides()[0] == 1 {
        c.swap_axes(0, 1);
        return compute(b.reversed_axes(), a.reversed_axes(), c, start, order);
    }
    let c = Output::new(&mut c, start.base());
    let all = Shared(Product { rows, depth, columns, a: Strided::new(&a), b: Strided::new(&b), c });
    let strategy = plan(&all.0, order);
    let work = product_work(rows.min(columns), depth * rows.max(columns));
    if columns >= rows {
        // SAFETY: these are parts of the matrices borrowed here, whose shapes fit, and the parts of C do not overlap.
        let run = |part| unsafe { run(all.columns(part), strategy) };
        for_each_part(0..columns, work, sizes::<F>().tile_width, run);
    } else {
        // SAFETY: likewise.
        let run = |part| unsafe { run(all.rows(part), strategy) };
        for_each_part(0..rows, work, sizes::<F>().tile_rows, run);
    }
}

/// A product shared by several threads.
struct Shared<F>(Product<F>);

// SAFETY: threads read A and B, which stay borrowed meanwhile, and write parts of C that do not overlap.
unsafe impl<F: Float> Sync for Shared<F> {}

impl<F: Float> Shared<F> {
    /// The rows `part` of C.
    fn rows(&self, part: Range<usize>) -> Product<F> {
        let (a, c) = (self.0.a.from(part.start, 0), self.0.c.from(part.start, 0));
        Product { rows: part.len(), a, c, ..self.0 }
    }

    /// The columns `part` of C.
    fn columns(&self, part: Range<usize>) -> Product<F> {
        let (b, c) = (self.0.b.from(0, part.start), self.0.c.from(0, part.start));
        Product { columns: part.len(), b, c, ..self.0 }
    }
}
