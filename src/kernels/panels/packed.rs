//! A right operand packed in panels.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2};

use super::bf16::{self, Bf16};
use super::int8::{Int8, Rows};
#[cfg(test)]
use super::integers::Kernel;
use super::integers::Values;
use super::precision::WeightPrecision;
use super::sweep::{PanelCopy, Sweep, copy_panels, sweep, sweep_bf16};
use crate::kernels::buffer::{Bits, Buffer};
use crate::kernels::float::{Float, Once};
use crate::kernels::gemm::geometry::{PANEL_ROWS, sizes};
use crate::kernels::gemm::operand::{Output, Start, Strided};
use crate::kernels::once::once;
use crate::parallel::{element_work, for_each_part, product_work};

/// W `[K, M]` of products `v W`, in panels of `P` columns.
///
/// ```text
/// [M / P][K][P]        P columns at a time, whole vectors; what is past M is 0
/// ```
///
/// In fewer bits, it has the layouts of [`bf16`] and [`int8`](super::int8).
#[derive(Clone, Default)]
pub(crate) struct Packed<F> {
    panels: Buffer,
    int8: Int8, // in place of the panels
    depth: usize,
    columns: usize,
    width: usize,
    precision: WeightPrecision,
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
        self.pack_in(operand, WeightPrecision::Full)
    }

    /// Packs `operand`, `[K, M]`, in this precision, which may be other than `Full` only for f32.
    pub(crate) fn pack_in(&mut self, operand: ArrayView2<'_, F>, precision: WeightPrecision) -> &Self {
        (self.depth, self.columns) = operand.dim();
        self.precision = precision;
        match precision {
            WeightPrecision::Full => pack(self, operand),
            _ => F::once::<PackReduced>((self, operand)),
        }
        self
    }

    /// `c = start + v W` for `v` `[N, K]` and `c` `[N, M]`, whose rows are contiguous, on all threads. A row's bits do not
    /// depend on the number of rows, and, unless weights are in 8 bits, are those of a product
    /// [in order](crate::kernels::Summation::Sequential) with the weights as they are packed.
    #[inline(always)]
    pub(crate) fn multiply<'a>(
        &self,
        v: ArrayView2<'_, F>,
        mut c: ArrayViewMut2<'_, F>,
        start: impl Into<Start<'a, F>>,
    ) {
        let start = start.into();
        if self.precision != WeightPrecision::Full {
            return F::once::<MultiplyReduced>((self, v, c, start));
        }
        let Some(all) = self.operands(&v, &mut c, start) else { return };
        // SAFETY: both are borrowed here, with the shapes that were asserted, and parts do not overlap.
        self.for_each_part(v.nrows(), |rows, columns| unsafe { all.compute(self, rows, columns) });
    }

    /// v and C, whose shapes and strides are asserted; `None` if there is nothing to multiply and C is finished.
    #[inline(always)]
    fn operands(&self, v: &ArrayView2<'_, F>, c: &mut ArrayViewMut2<'_, F>, start: Start<'_, F>) -> Option<Shared<F>> {
        let ((rows, depth), columns) = (v.dim(), self.columns);
        assert!(depth == self.depth && c.dim() == (rows, columns), "{:?} by {self:?} to {:?}", v.dim(), c.dim());
        assert!(rows == 0 || depth <= 1 || v.strides()[1] == 1, "the rows of v are not contiguous");
        assert!(rows == 0 || columns <= 1 || c.strides()[1] == 1, "the rows of c are not contiguous");
        if let Start::Row(row) = start {
            assert_eq!(row.len(), columns, "the bias of a product");
        }
        if depth == 0 || c.is_empty() {
            start.write(c.view_mut());
            return None;
        }
        Some(Shared(Strided::new(v), Output::new(c, start.base())))
    }

    /// Calls `act` with the rows and columns of each part of C, on all threads.
    #[inline(always)]
    fn for_each_part(&self, rows: usize, act: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let Packed { depth, columns, width, .. } = *self;
        let work = product_work(rows, depth * columns);
        if rows > columns {
            for_each_part(0..rows, work, PANEL_ROWS, |part| act(part, 0..columns));
        } else {
            for_each_part(0..columns, work, width, |part| act(0..rows, part));
        }
    }

    /// The product of the rows and columns in these ranges, with a `W` for each weight; v and C are whole.
    fn part<W: Bits>(&self, v: Strided<F>, c: Output<F>, rows: Range<usize>, columns: Range<usize>) -> Sweep<'_, F, W> {
        let Packed { depth, columns: all_columns, width, .. } = *self;
        let values = &self.panels.elements()[..all_columns.next_multiple_of(width) * depth];
        Sweep { v, values, depth, all_columns, width, rows, columns, c }
    }
}

once! {
    fn pack<'a, F: Float>(packed: &'a mut Packed<F>, operand: ArrayView2<'a, F>) {
        packed.width = sizes::<F>().panel_width;
        let len = packed.depth * packed.columns.next_multiple_of(packed.width);
        let panels = &mut packed.panels.at_least(len)[..len];
        let whole = PanelCopy { operand, width: packed.width, panels };
        for_each_part(whole, element_work(len), 1, |part| copy_panels(part));
    }
}

/// Panics, as only weights in f32 are packed in fewer bits.
fn only_f32() -> ! {
    unreachable!("weights in f64 are packed as they are")
}

/// Packs an operand in fewer bits.
struct PackReduced;

impl Once for PackReduced {
    type Arguments<'a, F: Float> = (&'a mut Packed<F>, ArrayView2<'a, F>);
    type Output<F: Float> = ();

    #[inline(never)]
    fn f32((packed, operand): Self::Arguments<'_, f32>) {
        let values = match packed.precision {
            WeightPrecision::Int8 => Some(Values::Sixteen),
            WeightPrecision::Int8Dynamic => Some(Values::Eight),
            WeightPrecision::Full | WeightPrecision::Bf16 => None,
        };
        if let Some(values) = values {
            packed.int8.pack(operand, values);
            packed.width = packed.int8.width();
            return;
        }
        let sizes = sizes::<f32>();
        packed.width = sizes.panel_width;
        let words = packed.depth * packed.columns.next_multiple_of(packed.width) / 2;
        bf16::pack(operand, sizes, &mut packed.panels.at_least(words)[..words]);
    }

    fn f64(_: Self::Arguments<'_, f64>) {
        only_f32()
    }
}

/// Computes C with weights in fewer bits.
struct MultiplyReduced;

impl Once for MultiplyReduced {
    type Arguments<'a, F: Float> = (&'a Packed<F>, ArrayView2<'a, F>, ArrayViewMut2<'a, F>, Start<'a, F>);
    type Output<F: Float> = ();

    #[inline(never)]
    fn f32((packed, v, mut c, start): Self::Arguments<'_, f32>) {
        let Some(all) = packed.operands(&v, &mut c, start) else { return };
        if packed.precision == WeightPrecision::Bf16 {
            // SAFETY: both are borrowed here, with the shapes that were asserted, and parts do not overlap.
            return packed.for_each_part(v.nrows(), |rows, columns| unsafe { all.compute_bf16(packed, rows, columns) });
        }
        packed.int8.with_rows(v, |quantised| {
            // SAFETY: likewise.
            packed.for_each_part(v.nrows(), |rows, columns| unsafe {
                all.compute_int8(packed, quantised, rows, columns);
            });
        });
    }

    fn f64(_: Self::Arguments<'_, f64>) {
        only_f32()
    }
}

/// v and C, shared by several threads.
struct Shared<F>(Strided<F>, Output<F>);

// SAFETY: threads read v, which stays borrowed meanwhile, and write parts of C that do not overlap.
unsafe impl<F: Float> Sync for Shared<F> {}

impl<F: Float> Shared<F> {
    /// Computes some rows and columns of C.
    ///
    /// # Safety
    ///
    /// v, C and its base are borrowed meanwhile, with the shapes of the product with `packed`, and this part of C by nobody else.
    unsafe fn compute(&self, packed: &Packed<F>, rows: Range<usize>, columns: Range<usize>) {
        // SAFETY: guaranteed by the caller.
        unsafe { sweep(packed.part::<F>(self.0, self.1, rows, columns)) };
    }
}

#[cfg(test)]
impl Packed<f32> {
    /// Packs `operand` in 8 bits for a kernel of this machine, perhaps not the best.
    pub(in crate::kernels) fn pack_for(&mut self, kernel: Kernel, operand: ArrayView2<'_, f32>, values: Values) {
        self.int8.pack_for(kernel, operand, values);
        (self.depth, self.columns) = operand.dim();
        (self.width, self.precision) = (self.int8.width(), WeightPrecision::Int8);
    }
}

impl Shared<f32> {
    /// As [`compute`](Self::compute), with weights in 16 bits.
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn compute_bf16(&self, packed: &Packed<f32>, rows: Range<usize>, columns: Range<usize>) {
        // SAFETY: guaranteed by the caller.
        unsafe { sweep_bf16(packed.part::<Bf16>(self.0, self.1, rows, columns)) };
    }

    /// As [`compute`](Self::compute), with weights in 8 bits and v `quantised`.
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn compute_int8(
        &self,
        packed: &Packed<f32>,
        quantised: &Rows<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe { packed.int8.multiply(quantised, self.1, rows, columns) };
    }
}

/// Calls `act` with two operands to pack, in memory of this thread.
pub(crate) fn with_operands<F: Float>(act: impl FnOnce(&mut [Packed<F>; 2])) {
    thread_local! {
        static PANELS: RefCell<[Buffer; 2]> = const { RefCell::new([Buffer::new(), Buffer::new()]) };
    }
    let mut operands = PANELS.take().map(|panels| Packed { panels, ..Packed::default() });
    act(&mut operands);
    PANELS.set(operands.map(|operand| operand.panels));
}
