//! The product of h with recurrent weights, which may be split into heads.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::operand::StepProduct;
use crate::base::error::mismatch;
use crate::kernels::{Accumulate, Float, product};
use crate::recurrence::Unrolled;

/// The heads of recurrent weights: in each gate, the units of a head read only the features of that head.
///
/// ```text
/// W_g = diag(W_g1, …, W_gn)        gate g's matrix, [H, K]
/// [W_g1; …; W_gn]                  as it is stored, [H, K / n]
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heads {
    count: usize,
    units: usize, // of a head
}

/// A block of stored weights.
struct Block {
    rows: Range<usize>,
    /// The features that it reads, of the K.
    features: Range<usize>,
    /// Whether it belongs to the first gate.
    is_first: bool,
}

impl Heads {
    /// `count` heads of `hidden` units in all; panics if the units cannot be split evenly.
    #[track_caller]
    pub fn new(cell: &str, count: usize, hidden: usize) -> Self {
        // In a step of a few units, the divisions would take noticeable time.
        if count == 1 {
            return Heads { count, units: hidden };
        }
        if !hidden.is_multiple_of(count) {
            mismatch(cell, "hidden_size", &format!("a multiple of the {count} heads"), &hidden);
        }
        Heads { count, units: hidden / count }
    }

    /// The number of features K that stored weights of `columns` columns read.
    pub fn features(self, columns: usize) -> usize {
        self.count * columns
    }

    /// The blocks of weights that are stored as `[N, K / heads]`, gate by gate. A single head has one block for all gates.
    fn blocks(self, (rows, columns): (usize, usize)) -> impl Iterator<Item = Block> {
        let height = if self.count == 1 { rows } else { self.units };
        (0..rows / height).map(move |b| {
            let from = b % self.count * columns;
            Block { rows: b * height..(b + 1) * height, features: from..from + columns, is_first: b < self.count }
        })
    }
}

/// `W h` at every step, for W that is stored as `[N, K / heads]`.
#[derive(Clone, Default)]
pub(super) struct HeadProduct<F> {
    heads: Heads,
    products: Vec<StepProduct<F>>, // of each block
}

impl<F: Float> HeadProduct<F> {
    /// Prepares for `v Wᵀ`.
    pub fn start(&mut self, weight: ArrayView2<'_, F>, heads: Heads, pass: &Unrolled<'_, F>) {
        self.heads = heads;
        if heads.count == 1 {
            self.products.resize_with(1, StepProduct::default);
            return self.products[0].start(weight.t(), pass);
        }
        self.products.resize_with(heads.blocks(weight.dim()).count(), StepProduct::default);
        for (product, Block { rows, .. }) in self.products.iter_mut().zip(heads.blocks(weight.dim())) {
            product.start(weight.slice(s![rows, ..]).t(), pass);
        }
    }

    /// Prepares for `d W`.
    pub fn start_backward(&mut self, weight: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        if let [product] = &mut self.products[..] {
            return product.start_backward(weight, pass);
        }
        for (product, Block { rows, .. }) in self.products.iter_mut().zip(self.heads.blocks(weight.dim())) {
            product.start_backward(weight.slice(s![rows, ..]), pass);
        }
    }

    /// `out = v Wᵀ`, or `out += v Wᵀ`, for `v` `[R, K]` and `out` `[R, N]`; W is the same as in `start`.
    #[inline(always)]
    pub fn multiply(
        &self,
        v: ArrayView2<'_, F>,
        weight: ArrayView2<'_, F>,
        mut out: ArrayViewMut2<'_, F>,
        how: Accumulate,
    ) {
        // Slicing would take noticeable time at every step.
        if let [product] = &self.products[..] {
            return product.multiply(v, weight.t(), out, how);
        }
        for (product, Block { rows, features, .. }) in self.products.iter().zip(self.heads.blocks(weight.dim())) {
            let (w, out) = (weight.slice(s![rows.clone(), ..]), out.slice_mut(s![.., rows]));
            product.multiply(v.slice(s![.., features]), w.t(), out, how);
        }
    }

    /// `out = d W`, or `out += d W`, for `d` `[R, N]` and `out` `[R, K]`; W is the same as in `start_backward`.
    pub fn multiply_back(
        &self,
        d: ArrayView2<'_, F>,
        weight: ArrayView2<'_, F>,
        mut out: ArrayViewMut2<'_, F>,
        how: Accumulate,
    ) {
        if let [product] = &self.products[..] {
            return product.multiply(d, weight, out, how);
        }
        for (product, block) in self.products.iter().zip(self.heads.blocks(weight.dim())) {
            let Block { rows, features, is_first } = block;
            let (d, w) = (d.slice(s![.., rows.clone()]), weight.slice(s![rows, ..]));
            let how = if is_first { how } else { Accumulate::Add };
            product.multiply(d, w, out.slice_mut(s![.., features]), how);
        }
    }

    /// `dW = dᵀ v`, or `dW += dᵀ v`, for all rows `d` `[R, N]` and `v` `[R, K]`.
    pub fn weight_gradient(
        &self,
        d: ArrayView2<'_, F>,
        v: ArrayView2<'_, F>,
        mut dw: ArrayViewMut2<'_, F>,
        how: Accumulate,
    ) {
        for Block { rows, features, .. } in self.heads.blocks(dw.dim()) {
            let (d, v) = (d.slice(s![.., rows.clone()]), v.slice(s![.., features]));
            product(d.t(), v, dw.slice_mut(s![rows, ..]), how);
        }
    }
}
