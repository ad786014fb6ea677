//! The part of the gates' sums that comes from h: a product at every step.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

use super::heads::{HeadProduct, Heads};
use super::normal::Normal;
use super::weights::Weights;
use crate::base::RandomDrop;
use crate::base::random::drop_row;
use crate::kernels::{Accumulate, Float, vectorised};
use crate::layer::kit::reuse;
use crate::layer::rows::rows_of;
use crate::recurrence::Unrolled;

/// The part of the sums that comes from h, step by step: `a += W (m ∘ h)`, or `a += gain ∘ n(W (m ∘ h))` with layer normalisation;
/// m is the mask of recurrent dropout, the same at every step (Gal and Ghahramani 2016), or 1.
#[derive(Clone, Default)]
pub(super) struct FromHidden<F> {
    product: HeadProduct<F>,
    dropped: bool,
    mask: Array2<F>,   // [B, K], with dropout
    masked: Array2<F>, // [R, K], with dropout: m ∘ h
    normal: Normal<F>, // [R, N], with normalisation
}

vectorised! {
    /// y = a ∘ x.
    fn hadamard<'a, F: Float>(a: &'a [F], x: &'a [F], y: &'a mut [F]) {
        for (y, (&a, &x)) in y.iter_mut().zip(a.iter().zip(x)) {
            *y = a * x;
        }
    }

    /// y = a ∘ y.
    fn scale<'a, F: Float>(a: &'a [F], y: &'a mut [F]) {
        for (y, &a) in y.iter_mut().zip(a) {
            *y *= a;
        }
    }
}

impl<F: Float> FromHidden<F> {
    /// Prepares for the first step.
    pub fn start(
        &mut self,
        Weights { weight, gain, .. }: Weights<'_, F>,
        heads: Heads,
        name: &str,
        drop: Option<RandomDrop>,
        pass: &Unrolled<'_, F>,
    ) {
        let (sums, features) = (weight.nrows(), heads.features(weight.ncols()));
        self.product.start(weight, heads, pass);
        let mask = drop.and_then(|drop| drop.mask(name, pass.mode()));
        self.dropped = mask.is_some();
        if let Some(mask) = mask {
            reuse(&mut self.masked, (pass.rows() + 1, features));
            reuse(&mut self.mask, (pass.batch(), features));
            let ones = rows_of(&mut self.masked, &(pass.rows()..pass.rows() + 1));
            ones.fill(F::one());
            for j in 0..pass.batch() {
                drop_row(mask.part(pass.sequence(j)), ones, rows_of(&mut self.mask, &(j..j + 1)));
            }
        }
        if gain.is_some() {
            self.normal.start((pass.rows(), sums));
        }
    }

    /// One step, which adds to `out`.
    pub fn add(
        &mut self,
        Weights { weight, gain, eps, groups }: Weights<'_, F>,
        rows: &Range<usize>,
        h: ArrayView2<'_, F>,
        out: ArrayViewMut2<'_, F>,
    ) {
        let h = match self.dropped {
            false => h,
            true => {
                let masked = rows_of(&mut self.masked, rows);
                let mask = &rows_of(&mut self.mask, &(0..rows.len()))[..];
                hadamard(mask, h.to_slice().expect("rows side by side"), masked);
                self.masked.slice(s![rows.clone(), ..])
            }
        };
        let Some(gain) = gain else {
            return self.product.multiply(h, weight, out, Accumulate::Add);
        };
        self.product.multiply(h, weight, self.normal.z(rows), Accumulate::Overwrite);
        self.normal.add(rows, groups, (gain, eps), out);
    }

    /// Prepares for the backward pass.
    pub fn start_backward(&mut self, weight: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        self.product.start_backward(weight, pass);
    }

    /// One step backward: overwrites `dh` or adds to it, from `dout`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &mut self,
        Weights { weight, gain, groups, .. }: Weights<'_, F>,
        rows: &Range<usize>,
        dout: ArrayView2<'_, F>,
        dgain: Option<&mut [F]>,
        mut dh: ArrayViewMut2<'_, F>,
        mode: Accumulate,
        scratch: &mut Array2<F>,
    ) {
        let dz = match gain.zip(dgain) {
            None => dout,
            Some((gain, dgain)) => {
                self.normal.backward(rows, groups, gain, dout, dgain);
                self.normal.dz(rows)
            }
        };
        if !self.dropped {
            return self.product.multiply_back(dz, weight, dh, mode);
        }
        let first = 0..rows.len();
        let mask = &rows_of(&mut self.mask, &first)[..];
        match mode {
            Accumulate::Overwrite => {
                self.product.multiply_back(dz, weight, dh.view_mut(), Accumulate::Overwrite);
                scale(mask, dh.into_slice().expect("rows side by side"));
            }
            Accumulate::Add => {
                reuse(scratch, dh.dim());
                self.product.multiply_back(dz, weight, scratch.view_mut(), Accumulate::Overwrite);
                scale(mask, rows_of(scratch, &first));
                dh += &*scratch;
            }
        }
    }

    /// `dW += dzᵀ (m ∘ h)` over all rows, or `dW = dzᵀ (m ∘ h)`.
    pub fn weight_gradient(
        &self,
        normalised: bool,
        dout: ArrayView2<'_, F>,
        h: ArrayView2<'_, F>,
        dw: ArrayViewMut2<'_, F>,
        how: Accumulate,
    ) {
        let rows = 0..h.nrows();
        let dz = if normalised { self.normal.dz(&rows) } else { dout };
        let h = if self.dropped { self.masked.slice(s![rows, ..]) } else { h };
        self.product.weight_gradient(dz, h, dw, how);
    }
}
