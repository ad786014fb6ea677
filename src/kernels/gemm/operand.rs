//! Matrices as the kernels see them: addresses and strides.

use ndarray::{ArrayView2, ArrayViewMut2};

/// Whether a product overwrites the elements of C or adds to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// `C <- A B`; C is not read.
    Overwrite,
    /// `C <- C + A B`.
    Add,
}

/// The values from which the sums of a product start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a, F> {
    /// Zero, or the elements of C.
    From(Accumulate),
    /// The same row for each row of C: a bias.
    Row(&'a [F]),
}

impl<F> From<Accumulate> for Start<'_, F> {
    fn from(mode: Accumulate) -> Self {
        Start::From(mode)
    }
}

/// The bias if there is one, otherwise zero.
impl<'a, F> From<Option<&'a [F]>> for Start<'a, F> {
    fn from(bias: Option<&'a [F]>) -> Self {
        bias.map_or(Start::From(Accumulate::Overwrite), Start::Row)
    }
}

impl<F> Start<'_, F> {
    /// The same start, as the kernels see it.
    pub(crate) fn base(&self) -> Base<F> {
        match self {
            Start::From(Accumulate::Overwrite) => Base::Nothing,
            Start::From(Accumulate::Add) => Base::Output,
            Start::Row(row) => Base::Row(row.as_ptr()),
        }
    }
}

impl<F: Copy + num_traits::Zero> Start<'_, F> {
    /// Writes a product without terms.
    pub(crate) fn write(&self, mut c: ArrayViewMut2<'_, F>) {
        match self {
            Start::From(Accumulate::Overwrite) => c.fill(F::zero()),
            Start::From(Accumulate::Add) => {}
            Start::Row(row) => {
                for mut c in c.outer_iter_mut() {
                    c.iter_mut().zip(*row).for_each(|(c, &start)| *c = start);
                }
            }
        }
    }
}

/// A matrix in memory: element `(i, j)` is at `start + i row + j column`.
#[derive(Clone, Copy)]
pub(crate) struct Strided<F> {
    pub start: *const F,
    pub row: isize,
    pub column: isize,
}

impl<F> Strided<F> {
    pub(crate) fn new(view: &ArrayView2<'_, F>) -> Self {
        Strided { start: view.as_ptr(), row: view.strides()[0], column: view.strides()[1] }
    }

    /// The matrix from element `(i, j)` on; offsets past the end are never read.
    #[inline(always)]
    pub(crate) fn from(self, i: usize, j: usize) -> Self {
        let offset = (i as isize).wrapping_mul(self.row).wrapping_add((j as isize).wrapping_mul(self.column));
        Self { start: self.start.wrapping_offset(offset), ..self }
    }

    #[inline(always)]
    pub(crate) fn transposed(self) -> Self {
        Self { start: self.start, row: self.column, column: self.row }
    }
}

/// A matrix in memory whose columns are contiguous: element `(i, j)` is at `start + i row + j`.
#[derive(Clone, Copy)]
pub(crate) struct Output<F> {
    pub start: *mut F,
    pub row: isize,
    pub base: Base<F>,
}

/// The values to which a product is added.
#[derive(Clone, Copy)]
pub(crate) enum Base<F> {
    /// Nothing: C is overwritten unread.
    Nothing,
    /// The elements of C.
    Output,
    /// The same row for each row of C.
    Row(*const F),
}

impl<F> Output<F> {
    pub(crate) fn new(view: &mut ArrayViewMut2<'_, F>, base: Base<F>) -> Self {
        Output { start: view.as_mut_ptr(), row: view.strides()[0], base }
    }

    /// The matrix from element `(i, j)` on.
    #[inline(always)]
    pub(crate) fn from(self, i: usize, j: usize) -> Self {
        let offset = (i as isize).wrapping_mul(self.row).wrapping_add(j as isize);
        let base = match self.base {
            Base::Row(row) => Base::Row(row.wrapping_add(j)),
            base => base,
        };
        Self { start: self.start.wrapping_offset(offset), base, ..self }
    }

    /// The address of element `(i, j)`.
    #[inline(always)]
    pub(crate) fn at(&self, i: usize, j: usize) -> *mut F {
        self.start.wrapping_offset((i as isize).wrapping_mul(self.row).wrapping_add(j as isize))
    }

    /// The matrix for the terms of a product from `depth` on: the first terms may overwrite it, the others add to it.
    #[inline(always)]
    pub(crate) fn after(self, depth: usize) -> Self {
        Self { base: if depth > 0 { Base::Output } else { self.base }, ..self }
    }
}

/// A product of checked shapes, with at least one term: C `[rows, columns]` of A `[rows, depth]` and B `[depth, columns]`.
///
/// Functions that compute it are unsafe: A, B and the base of C must be readable and C writable as far as the shapes go, and C
/// must not overlap A, B or a base other than C itself.
#[derive(Clone, Copy)]
pub(crate) struct Product<F> {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    pub a: Strided<F>,
    pub b: Strided<F>,
    pub c: Output<F>,
}
