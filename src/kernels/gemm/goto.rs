//! Large products, after Goto and van de Geijn (2008): blocks of both operands are copied in the order in which tiles read them.
//!
//! ```text
//! for each 1792 rows of A and C (if B has several blocks, or else all):
//!     for each block of at most 512 terms:
//!         for each block of B, at most 1 MiB:                    to panels, in the L2 cache
//!             copy it
//!             for each block of A, at most 224 rows (f64: 112):
//!                 copy it, for the first block of B only
//!                 C += block of A · block of B                   see `block`
//! ```
//!
//! Compared with the paper, the operands exchange their roles: B is in the L2 cache, and A streams. Blocks of A are kept for
//! several blocks of B. When they were copied again for each, training eight residual blocks of 1024 rows and features took 2 %
//! longer.
//!
//! If B's columns are contiguous and C has few rows, `C^T = B^T A^T` is computed instead, block by block: this copies B in memory
//! order, while transposing it would take longer than the product.
#![allow(unsafe_code)]

use std::cell::RefCell;

use super::block::{Block, Left, Right, multiply_blocks};
use super::copy::{Copied, Order, copy, panels_len};
use super::geometry::{
    BLOCK_BYTES, BLOCK_IN_PLACE_COLUMNS, BLOCK_IN_PLACE_ROWS, COPY_ROW, KEPT_BLOCKS, block_rows, depth_blocks,
    even_chunks, sizes,
};
use super::operand::{Base, Output, Product, Strided};
use crate::kernels::buffer::{Buffer, with_scratch};
use crate::kernels::float::Float;
use crate::kernels::once::vectorised;

thread_local! {
    /// Copies of blocks.
    static BLOCKS: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
}

/// The depth of the first of the [blocks](depth_blocks), which is the deepest.
fn block_depth(depth: usize) -> usize {
    depth_blocks(depth).next().map_or(0, |(_, depth)| depth)
}

/// A block of A `[rows, depth]` that will be multiplied with `columns` columns of B.
struct LeftBlock<F> {
    at: Strided<F>,
    rows: usize,
    depth: usize,
    columns: usize,
}

impl<F: Float> LeftBlock<F> {
    /// Whether copying it would take longer than it saves.
    fn is_read_in_place(&self) -> bool {
        self.rows <= BLOCK_IN_PLACE_ROWS || self.at.column == 1 && self.columns <= BLOCK_IN_PLACE_COLUMNS
    }

    fn order(&self) -> Order {
        if self.at.column == 1 { Order::Rows } else { Order::Tiles }
    }

    /// The number of elements in a row of the copy.
    fn row_len(&self) -> usize {
        match self.order() {
            Order::Rows => COPY_ROW,
            _ => self.depth,
        }
    }

    /// Copies it to the layout that is read fastest, unless it is read in place.
    ///
    /// # Safety
    ///
    /// The block is readable.
    unsafe fn copy_to(&self, to: &mut [F]) {
        let Self { at: from, rows, depth: columns, .. } = *self;
        if !self.is_read_in_place() {
            // SAFETY: guaranteed by the caller.
            unsafe { copy(Copied { from, rows, columns, order: self.order(), to }) };
        }
    }

    /// The block as tiles read it, after it was copied to `copy`.
    fn left(&self, copy: &[F]) -> Left<F> {
        match self.order() {
            _ if self.is_read_in_place() => Left::InPlace(self.at),
            Order::Rows => Left::Rows(copy.as_ptr()),
            _ => Left::Tiles(copy.as_ptr()),
        }
    }
}

/// Computes C from copies of blocks of A and B.
///
/// # Safety
///
/// As [`Product`] says.
pub(super) unsafe fn by_blocks<F: Float>(product: Product<F>) {
    let Product { rows, depth, columns, a, b, c } = product;
    let width = sizes::<F>().tile_width;
    let deepest = LeftBlock { at: a, rows, depth: block_depth(depth), columns };
    // With few rows, a panel is used only once and does not leave the L1 cache.
    let fitting = BLOCK_BYTES / size_of::<F>() / deepest.depth / width * width;
    let most_columns = if rows <= BLOCK_IN_PLACE_ROWS { width } else { fitting };
    let most_rows = block_rows::<F>();
    let b_is_several = columns > most_columns;
    let copied_rows = if b_is_several { KEPT_BLOCKS * most_rows } else { most_rows };
    let row_len = deepest.row_len();
    let a_len = if deepest.is_read_in_place() { 0 } else { rows.min(copied_rows) * row_len };
    let b_len = panels_len(deepest.depth, columns.min(most_columns), width);
    with_scratch(&BLOCKS, b_len + a_len, |blocks| {
        let (b_panels, a_copies) = blocks.split_at_mut(b_len);
        for (first, rows) in even_chunks(rows, if b_is_several { copied_rows } else { rows }) {
            for (start, depth) in depth_blocks(depth) {
                for column in (0..columns).step_by(most_columns) {
                    let block_columns = most_columns.min(columns - column);
                    let (from, order) = (b.from(start, column), Order::Panels);
                    // SAFETY: a block of B.
                    unsafe { copy(Copied { from, rows: depth, columns: block_columns, order, to: &mut *b_panels }) };
                    let b = Right { start: b_panels.as_ptr(), panel: depth * width, row: width as isize };
                    for (row, rows) in even_chunks(rows, most_rows) {
                        let block = LeftBlock { at: a.from(first + row, start), rows, depth, columns };
                        let a_copy = &mut a_copies[if b_is_several { row * row_len } else { 0 }..];
                        if column == 0 {
                            // SAFETY: a block of A.
                            unsafe { block.copy_to(&mut *a_copy) };
                        }
                        let (a, c) = (block.left(a_copy), c.after(start).from(first + row, column));
                        // SAFETY: this is a block of C, with the copies of the blocks whose product it is.
                        unsafe { multiply_blocks(Block { rows, depth, columns: block_columns, a, b, c }) };
                    }
                }
            }
        }
    });
}

/// Computes `C^T = B^T A^T`, block by block, in the same order of sums. The columns of B are contiguous.
///
/// # Safety
///
/// As [`Product`] says.
pub(super) unsafe fn by_transposed_blocks<F: Float>(product: Product<F>) {
    let Product { rows, depth, columns, a, b, c } = product;
    let (a, b) = (a.transposed(), b.transposed()); // A^T [depth, rows], B^T [columns, depth]
    let width = sizes::<F>().tile_width;
    let most_columns = block_rows::<F>() / 4; // They are used once: with fewer, the copies take less memory.
    let block_columns = columns.min(most_columns);
    let panels_len = panels_len(block_depth(depth), rows, width);
    let (copy_len, result_len) = (block_columns * COPY_ROW, block_columns * rows);
    with_scratch(&BLOCKS, panels_len + copy_len + 2 * result_len, |blocks| {
        let (panels, blocks) = blocks.split_at_mut(panels_len);
        let (b_copy, blocks) = blocks.split_at_mut(copy_len);
        let (transposed, result) = blocks.split_at_mut(result_len);
        for (start, depth) in depth_blocks(depth) {
            let (from, order) = (a.from(start, 0), Order::Panels);
            // SAFETY: some columns of A.
            unsafe { copy(Copied { from, rows: depth, columns: rows, order, to: &mut *panels }) };
            for (column, columns) in even_chunks(columns, most_columns) {
                let block = LeftBlock { at: b.from(column, start), rows: columns, depth, columns: rows };
                // SAFETY: a block of B.
                unsafe { block.copy_to(&mut *b_copy) };
                let right = Right { start: panels.as_ptr(), panel: depth * width, row: width as isize };
                let output = Output { start: transposed.as_mut_ptr(), row: rows as isize, base: Base::Nothing };
                let left = block.left(b_copy);
                // SAFETY: these are the copies of both, with enough elements for the result.
                unsafe { multiply_blocks(Block { rows: columns, depth, columns: rows, a: left, b: right, c: output }) };
                let from = Strided { start: transposed.as_ptr(), row: 1, column: rows as isize };
                // SAFETY: this is the result, to which no reference refers meanwhile.
                unsafe { copy(Copied { from, rows, columns, order: Order::Compact, to: &mut *result }) };
                let c = c.after(start).from(0, column);
                // SAFETY: a block of C.
                unsafe { add_rows_onto(c.base, columns, &result[..rows * columns], c) };
            }
        }
    });
}

vectorised! {
    /// y = base + x, row by row.
    ///
    /// # Safety
    ///
    /// As many rows of `width` elements as x has are writable at `y`, the base is readable, and no reference refers to either.
    unsafe fn add_rows_onto<'a, F: Float>(base: Base<F>, width: usize, x: &'a [F], y: Output<F>) {
        for (i, x) in x.chunks_exact(width).enumerate() {
            // SAFETY: this is row i of the output, and a row that is its base; nothing else refers to them.
            let (y, row) = unsafe {
                let y = std::slice::from_raw_parts_mut(y.from(i, 0).start, width);
                let row = if let Base::Row(row) = base { std::slice::from_raw_parts(row, width) } else { &[] };
                (y, row)
            };
            match base {
                Base::Nothing => y.copy_from_slice(x),
                Base::Output => {
                    for k in 0..width {
                        y[k] += x[k];
                    }
                }
                Base::Row(_) => {
                    for k in 0..width {
                        y[k] = row[k] + x[k];
                    }
                }
            }
        }
    }
}
