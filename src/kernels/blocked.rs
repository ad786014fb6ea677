//! Large products, after Goto and van de Geijn: blocks of both operands are copied to where tiles read them in order.
#![allow(unsafe_code)]

use std::cell::RefCell;

use super::block::{Block, Left, Right, tiles};
use super::buffer::Buffer;
use super::dispatch::vectorised;
use super::float::Float;
use super::pack::{Order, Pack, panels_len};
use super::product::{IN_PLACE_ROWS, Product};
use super::tile::{Base, Output, Strided};

/// The greatest depth of a block: a tile's rows of A, so long, stay in the first cache.
pub(crate) const BLOCK_DEPTH: usize = 512;

/// The bytes of a column of a block of A, which is in the second cache too, having been copied.
pub(super) const BLOCK_ROW_BYTES: usize = 224 * 4;

/// The bytes of a block of B, which stays in the second cache.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// Up to so many columns of C, A is read in place if its rows are contiguous.
const IN_PLACE_COLUMNS: usize = 96;

/// Up to so many rows of C, and from so many terms in a sum, a product whose B has contiguous columns is turned round:
/// to copy B as it lies takes less time than to transpose it, which only many rows repay.
const TURNED_ROWS: usize = 160;
const TURNED_DEPTH: usize = 128;

/// So many blocks of A at a time are kept for all blocks of B: more would be far away when they are needed again, and with
/// fewer, B is copied more often.
const KEPT_BLOCKS: usize = 8;

thread_local! {
    /// Blocks of B and A, or at most `DOT_ROWS * DOT_DEPTH` elements of A.
    pub(super) static BLOCKS: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
}

/// The first and the number of each part of `count`: as few parts of at most `most` as can be, of about equal size.
pub(crate) fn parts(count: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    tiles(count, most)
}

/// The blocks of a depth: they are the same for all products, whose sums are rounded to an element of C after each.
pub(super) fn depths(depth: usize) -> impl Iterator<Item = (usize, usize)> {
    parts(depth, BLOCK_DEPTH)
}

/// The most rows of a block of A.
pub(crate) const fn block_rows<F>() -> usize {
    BLOCK_ROW_BYTES / size_of::<F>()
}

/// The depth of the first of the [blocks](depths), which is the greatest.
fn block_depth(depth: usize) -> usize {
    depths(depth).next().map_or(0, |(_, depth)| depth)
}

/// A block of A `[rows, depth]` that is about to be multiplied with so many columns of B.
pub(super) struct Operand<F> {
    pub(super) at: Strided<F>,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
}

impl<F: Float> Operand<F> {
    fn is_read_in_place(&self) -> bool {
        self.rows <= IN_PLACE_ROWS || self.at.column == 1 && self.columns <= IN_PLACE_COLUMNS
    }

    fn order(&self) -> Order {
        if self.at.column == 1 { Order::Rows } else { Order::Tiles }
    }

    /// The elements that a row of the copy takes.
    fn row_len(&self) -> usize {
        match self.order() {
            Order::Rows => Left::<F>::ROW,
            _ => self.depth,
        }
    }

    /// Copies it to where it is read fastest, unless that is where it is.
    pub(super) fn copy(&self, to: &mut [F]) {
        let Self { at: from, rows, depth: columns, .. } = *self;
        if !self.is_read_in_place() {
            F::pack(Pack { from, rows, columns, order: self.order(), to });
        }
    }

    /// Where it is read, once it was copied to `copy`.
    pub(super) fn left(&self, copy: &[F]) -> Left<F> {
        match self.order() {
            _ if self.is_read_in_place() => Left::Strided(self.at),
            Order::Rows => Left::Rows(copy.as_ptr()),
            _ => Left::Tiles(copy.as_ptr()),
        }
    }
}

vectorised! {
    /// y = base + x, row by row.
    fn add_rows_onto<'a, F: Float>(base: Base<F>, width: usize, x: &'a [F], y: Output<F>) {
        for (i, x) in x.chunks_exact(width).enumerate() {
            // SAFETY: row i of the output, and a row that is its base; nothing else refers to them.
            let (y, row) = unsafe {
                let y = std::slice::from_raw_parts_mut(y.from(i, 0).start, width);
                let row = if let Base::Row(row) = base { std::slice::from_raw_parts(row, width) } else { &[] };
                (y, row)
            };
            match base {
                Base::Nothing => y.copy_from_slice(x),
                Base::Output => y.iter_mut().zip(x).for_each(|(y, &x)| *y += x),
                Base::Row(_) => y.iter_mut().zip(x.iter().zip(row)).for_each(|(y, (&x, &base))| *y = base + x),
            }
        }
    }
}

impl<F: Float> Product<F> {
    pub(super) fn is_faster_turned(&self) -> bool {
        (IN_PLACE_ROWS / 2..=TURNED_ROWS).contains(&self.rows) && self.depth >= TURNED_DEPTH && self.columns > self.rows
    }

    /// `C^T = B^T A^T`, block by block, in the same order of sums. The columns of B are contiguous.
    pub(super) fn turned(self) {
        let Self { rows, depth, columns, a, b, c, .. } = self;
        let (a, b) = (a.transposed(), b.transposed()); // A^T [depth, rows], B^T [columns, depth]
        let width = F::tiling().width;
        let most_columns = block_rows::<F>() / 4; // They are used once: with fewer, the copies take less memory.
        let block_columns = columns.min(most_columns);
        let panels_len = panels_len(block_depth(depth), rows, width);
        let (copy_len, product_len) = (block_columns * Left::<F>::ROW, block_columns * rows);
        let mut blocks = BLOCKS.take();
        let (panels, rest) = blocks.at_least(panels_len + copy_len + 2 * product_len).split_at_mut(panels_len);
        let (copy, rest) = rest.split_at_mut(copy_len);
        let (product, turned) = rest.split_at_mut(product_len);
        for (start, depth) in depths(depth) {
            F::pack(Pack {
                from: a.from(start, 0),
                rows: depth,
                columns: rows,
                order: Order::Panels,
                to: &mut *panels,
            });
            for (column, columns) in parts(columns, most_columns) {
                let left = Operand { at: b.from(column, start), rows: columns, depth, columns: rows };
                left.copy(&mut *copy);
                let left = left.left(copy);
                let right = Right { start: panels.as_ptr(), panel: depth * width, row: width as isize };
                let output = Output { start: product.as_mut_ptr(), row: rows as isize, base: Base::Nothing };
                F::multiply(Block { rows: columns, depth, columns: rows, a: left, b: right, c: output });
                let from = Strided { start: product.as_ptr(), row: 1, column: rows as isize };
                F::pack(Pack { from, rows, columns, order: Order::Compact, to: &mut *turned });
                let c = c.after(start).from(0, column);
                add_rows_onto(c.base, columns, &turned[..rows * columns], c);
            }
        }
        BLOCKS.set(blocks);
    }

    /// Blocks of A and B are packed.
    pub(super) fn by_blocks(self) {
        let Self { rows, depth, columns, a, b, c, .. } = self;
        let width = F::tiling().width;
        let deepest = Operand { at: a, rows, depth: block_depth(depth), columns };
        // For a few rows, a panel is used once: it does not leave the near cache.
        let fitting = BLOCK_BYTES / size_of::<F>() / deepest.depth / width * width;
        let most_columns = if rows <= IN_PLACE_ROWS { width } else { fitting };
        let most_rows = block_rows::<F>();
        // Where B has several blocks, the blocks of A are copied for the first of them and kept for the others.
        let is_kept = columns > most_columns;
        let kept_rows = if is_kept { KEPT_BLOCKS * most_rows } else { most_rows };
        let copied_rows = if deepest.is_read_in_place() { 0 } else { rows.min(kept_rows) };
        let row_len = deepest.row_len();
        let b_len = panels_len(deepest.depth, columns.min(most_columns), width);
        let mut blocks = BLOCKS.take();
        let (b_panels, a_copy) = blocks.at_least(b_len + copied_rows * row_len).split_at_mut(b_len);
        for (first, rows) in parts(rows, if is_kept { kept_rows } else { rows }) {
            for (start, depth) in depths(depth) {
                for column in (0..columns).step_by(most_columns) {
                    let block_columns = most_columns.min(columns - column);
                    let (from, order) = (b.from(start, column), Order::Panels);
                    F::pack(Pack { from, rows: depth, columns: block_columns, order, to: &mut *b_panels });
                    let b = Right { start: b_panels.as_ptr(), panel: depth * width, row: width as isize };
                    for (row, rows) in parts(rows, most_rows) {
                        let operand = Operand { at: a.from(first + row, start), rows, depth, columns };
                        let copy = &mut a_copy[if is_kept { row * row_len } else { 0 }..];
                        if column == 0 {
                            operand.copy(&mut *copy);
                        }
                        let (a, c) = (operand.left(copy), c.after(start).from(first + row, column));
                        F::multiply(Block { rows, depth, columns: block_columns, a, b, c });
                    }
                }
            }
        }
        BLOCKS.set(blocks);
    }
}
