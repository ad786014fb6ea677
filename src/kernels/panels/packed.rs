//! A right operand in panels.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2};

use super::sweep::{PanelCopy, Sweep, copy_panels, sweep};
use crate::kernels::buffer::Buffer;
use crate::kernels::float::Float;
use crate::kernels::gemm::geometry::{PANEL_ROWS, sizes};
use crate::kernels::gemm::operand::{Output, Start, Strided};
use crate::kernels::once::once;
use crate::parallel::{element_work, for_each_part, product_work};

/// W `[K, M]` of products `v W`, in panels of `P` columns.
///
/// ```text
/// [M / P][K][P]        P columns at a time, whole vectors; what is past M is 0
/// ```
#[derive(Clone, Default)]
pub(crate) struct Packed<F> {
    panels: Buffer,
    depth: usize,
    columns: usize,
    width: usize,
    element: PhantomData<F>,
}

impl<F> std::fmt::Debug for Packed<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed([{}, {}])", self.depth, self.columns)
    }
}

impl<F: Float> Packed<F> {
    /// Packs `operand`, `[K, M]`, in the memory of the one packed before, on all threads.
    pub(crate) fn pack(&mut self, operand: ArrayView2<'_, F>) -> &Self {
        pack(self, operand);
        self
    }

    /// `c = start + v W` for `v` `[N, K]` and `c` `[N, M]`, whose rows are contiguous, on all threads. A row's bits do not
    /// depend on the number of rows, and are those of a product [in order](crate::kernels::Summation::Sequential).
    #[inline(always)]
    pub(crate) fn multiply<'a>(
        &self,
        v: ArrayView2<'_, F>,
        mut c: ArrayViewMut2<'_, F>,
        start: impl Into<Start<'a, F>>,
    ) {
        let (start, (rows, depth), columns) = (start.into(), v.dim(), self.columns);
        assert!(depth == self.depth && c.dim() == (rows, columns), "{:?} by {self:?} to {:?}", v.dim(), c.dim());
        assert!(rows == 0 || depth <= 1 || v.strides()[1] == 1, "the rows of v are not contiguous");
        assert!(rows == 0 || columns <= 1 || c.strides()[1] == 1, "the rows of c are not contiguous");
        if let Start::Row(row) = start {
            assert_eq!(row.len(), columns, "the bias of a product");
        }
        if depth == 0 || c.is_empty() {
            return start.write(c);
        }
        let all = Shared(Strided::new(&v), Output::new(&mut c, start.base()));
        let work = product_work(rows, depth * columns);
        if rows > columns {
            // SAFETY: both are borrowed here, shapes and strides are what was asserted, and parts do not overlap.
            let compute = |part| unsafe { all.compute(self, part, 0..columns) };
            for_each_part(0..rows, work, PANEL_ROWS, compute);
        } else {
            // SAFETY: likewise.
            let compute = |part| unsafe { all.compute(self, 0..rows, part) };
            for_each_part(0..columns, work, self.width, compute);
        }
    }

    /// The product of the rows and columns in these ranges, both of the whole.
    fn part(&self, v: Strided<F>, c: Output<F>, rows: Range<usize>, columns: Range<usize>) -> Sweep<'_, F> {
        let Packed { depth, columns: all_columns, width, .. } = *self;
        let values = &self.panels.elements()[..all_columns.next_multiple_of(width) * depth];
        Sweep { v, values, depth, all_columns, width, rows, columns, c }
    }
}

once! {
    fn pack<'a, F: Float>(packed: &'a mut Packed<F>, operand: ArrayView2<'a, F>) {
        (packed.depth, packed.columns) = operand.dim();
        packed.width = sizes::<F>().panel_width;
        let len = packed.depth * packed.columns.next_multiple_of(packed.width);
        let panels = &mut packed.panels.at_least(len)[..len];
        let whole = PanelCopy { operand, width: packed.width, panels };
        for_each_part(whole, element_work(len), 1, |part| copy_panels(part));
    }
}

/// v and C, for several threads.
struct Shared<F>(Strided<F>, Output<F>);

// SAFETY: threads read v, which is borrowed for as long, and write parts of C that do not overlap.
unsafe impl<F: Float> Sync for Shared<F> {}

impl<F: Float> Shared<F> {
    /// Computes some rows and columns of C.
    ///
    /// # Safety
    ///
    /// v, the base of C and C are borrowed meanwhile, with the shapes of the product with `packed`, and as much of C by nobody else.
    unsafe fn compute(&self, packed: &Packed<F>, rows: Range<usize>, columns: Range<usize>) {
        // SAFETY: as the caller says.
        unsafe { sweep(packed.part(self.0, self.1, rows, columns)) };
    }
}

/// Two operands to pack, while `act` runs, in memory of this thread.
pub(crate) fn with_operands<F: Float>(act: impl FnOnce(&mut [Packed<F>; 2])) {
    thread_local! {
        static PANELS: RefCell<[Buffer; 2]> = const { RefCell::new([Buffer::new(), Buffer::new()]) };
    }
    let mut operands = PANELS.take().map(|panels| Packed { panels, ..Packed::default() });
    act(&mut operands);
    PANELS.set(operands.map(|operand| operand.panels));
}
