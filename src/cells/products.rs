//! The summed inputs of a cell's gates: what comes from x, for all steps at once, and what comes from h, step by step.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, s};

use super::values;
use crate::base::random::drop_row;
use crate::base::{Mode, RandomDrop, Tensors};
use crate::kernels::norm::{normalise_in_place, normalise_in_place_backward};
use crate::kernels::{Accumulate, Float, Operand, Summation, product, vectorised};
use crate::layer::affine::{add_rows, add_values, start_rows};
use crate::layer::kit::reuse;
use crate::layer::rows::rows_of;
use crate::recurrence::{AllSteps, Unrolled};

/// Passes give the same bits in chunks of any size, save for single steps of a stream or of one sequence alone: there a
/// product with the weights where they lie is several times as fast as one that packs them.
fn order_of<F: Float>(pass: &Unrolled<'_, F>) -> Summation {
    let stream = pass.batch() == 1 || pass.mode() == Some(Mode::Infer);
    if pass.steps() == 1 && stream { Summation::Fastest } else { Summation::Sequential }
}

/// `W v` with the same W at every step: packed once a pass, where there are steps enough to repay it.
#[derive(Clone, Default)]
pub(super) struct StepProduct<F> {
    operand: Operand<F>,
    order: Option<Summation>,
}

impl<F: Float> StepProduct<F> {
    /// For `v W`, W being `operand`.
    pub fn start(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        self.prepare(operand, pass, order_of(pass));
    }

    /// For the way back: nothing there has to have the same bits in chunks.
    pub fn start_backward(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        self.prepare(operand, pass, Summation::Fastest);
    }

    fn prepare(&mut self, operand: ArrayView2<'_, F>, pass: &Unrolled<'_, F>, order: Summation) {
        self.order = Some(order);
        self.operand.prepare(operand, pass.packed_weights(), pass.steps() > 1);
    }

    /// `c = v · operand`, or `c += v · operand`; the operand as at the start.
    #[inline(always)]
    pub fn multiply(
        &self,
        v: ArrayView2<'_, F>,
        operand: ArrayView2<'_, F>,
        c: ArrayViewMut2<'_, F>,
        mode: Accumulate,
    ) {
        self.operand.weight(operand, self.order.expect("started")).apply(v, mode, c);
    }
}

/// A small number that keeps the normalisation of a constant row finite, as [`LayerNorm`](crate::LayerNorm)'s.
const EPS: f64 = 1e-5;

/// The most groups of features that are normalised each on its own; a width of 0 is none.
const GROUPS: usize = 2;

/// Layer normalisation of rows (Ba, Kiros and Hinton 2016), group by group of their features: `out += gain ∘ n(z)`.
#[derive(Clone, Default)]
pub(super) struct Normal<F> {
    n: Array2<F>,       // [R, N]: z, then n(z), after a backward pass dz
    inverse: Array2<F>, // [R, GROUPS]
}

impl<F: Float> Normal<F> {
    /// Room for `shape`, `[R, N]`.
    pub fn start(&mut self, shape: (usize, usize)) {
        reuse(&mut self.n, shape);
        reuse(&mut self.inverse, (shape.0, GROUPS));
    }

    /// The rows `rows`, in which z is to be written.
    pub fn z(&mut self, rows: &Range<usize>) -> ArrayViewMut2<'_, F> {
        self.n.slice_mut(s![rows.clone(), ..])
    }

    /// `out += gain ∘ n(z)`, group by group.
    pub fn add(&mut self, rows: &Range<usize>, groups: [usize; GROUPS], gain: &[F], mut out: ArrayViewMut2<'_, F>) {
        for (row, mut out) in rows.clone().zip(out.outer_iter_mut()) {
            let (z, out) = (rows_of(&mut self.n, &(row..row + 1)), out.as_slice_mut().expect("contiguous rows"));
            let mut first = 0;
            for (group, width) in groups.into_iter().enumerate().filter(|&(_, width)| width > 0) {
                let columns = first..first + width;
                let gain = &gain[columns.clone()];
                self.inverse[[row, group]] =
                    normalise_in_place(gain, F::of(EPS), &mut z[columns.clone()], &mut out[columns]);
                first += width;
            }
        }
    }

    /// dz of the rows, in place of n, from that of `out`.
    pub fn backward(
        &mut self,
        rows: &Range<usize>,
        groups: [usize; GROUPS],
        gain: &[F],
        dout: ArrayView2<'_, F>,
        dgain: &mut [F],
    ) {
        for (row, dout) in rows.clone().zip(dout.outer_iter()) {
            let (n, dout) = (rows_of(&mut self.n, &(row..row + 1)), dout.to_slice().expect("contiguous rows"));
            let mut first = 0;
            for (group, width) in groups.into_iter().enumerate().filter(|&(_, width)| width > 0) {
                let columns = first..first + width;
                let (gain, inverse) = (&gain[columns.clone()], self.inverse[[row, group]]);
                let dgain = &mut dgain[columns.clone()];
                normalise_in_place_backward(gain, inverse, &dout[columns.clone()], dgain, &mut n[columns]);
                first += width;
            }
        }
    }

    /// dz of the rows, after their backward step.
    pub fn dz(&self, rows: &Range<usize>) -> ArrayView2<'_, F> {
        self.n.slice(s![rows.clone(), ..])
    }
}

/// What comes from x, for all steps: `a = W x + b`, or `a = gain ∘ n(W x) + b` with layer normalisation.
#[derive(Clone, Default)]
pub(super) struct InputPart<F> {
    operand: Operand<F>, // W, packed where it is multiplied with a part of the rows at a time
    normal: Normal<F>,
}

/// Weight and gain of a part, and the groups that are normalised each on its own.
pub(super) struct Weights<'a, F> {
    pub weight: ArrayView2<'a, F>, // [N, K]
    pub gain: Option<&'a [F]>,     // [N], with layer normalisation
    pub groups: [usize; GROUPS],   // the widths of what is normalised together, of sum N
}

impl<F: Float> InputPart<F> {
    /// Before a pass.
    pub fn start(&mut self, Weights { weight, .. }: &Weights<'_, F>, pass: &Unrolled<'_, F>) {
        self.operand.prepare(weight.t(), pass.packed_weights(), pass.in_parts());
    }

    /// `a`, `[R, N]`, of all rows.
    pub fn project(
        &mut self,
        Weights { weight, gain, groups }: Weights<'_, F>,
        bias: Option<&[F]>,
        pass: &Unrolled<'_, F>,
        x: ArrayView2<'_, F>,
        a: &mut Array2<F>,
    ) {
        reuse(a, (x.nrows(), weight.nrows()));
        let product = self.operand.weight(weight.t(), order_of(pass));
        let Some(gain) = gain else { return product.apply(x, bias, a.view_mut()) };
        let rows = 0..x.nrows();
        self.normal.start(a.dim());
        product.apply(x, None, self.normal.z(&rows));
        start_rows(bias, rows_of(a, &rows));
        self.normal.add(&rows, groups, gain, a.view_mut());
    }

    /// The gradients, from `da`, `[R, N]`.
    pub fn finish(
        &mut self,
        Weights { weight, gain, groups }: Weights<'_, F>,
        AllSteps { x, dx, overwrites, .. }: AllSteps<'_, F>,
        da: ArrayView2<'_, F>,
        dw: ArrayViewMut2<'_, F>,
        dgain: Option<&mut [F]>,
    ) {
        let rows = 0..x.nrows();
        let dz = match gain.zip(dgain) {
            None => da,
            Some((gain, dgain)) => {
                self.normal.backward(&rows, groups, gain, da, dgain);
                self.normal.dz(&rows)
            }
        };
        product(dz.t(), x, dw, Accumulate::overwriting(overwrites));
        if let Some(dx) = dx {
            product(dz, weight, dx, Accumulate::Overwrite);
        }
    }
}

/// What comes from h, step by step: `a += W (m ∘ h)`, or `a += gain ∘ n(W (m ∘ h))` with layer normalisation; m is the
/// mask of recurrent dropout, the same at every step (Gal and Ghahramani 2016), or 1.
#[derive(Clone, Default)]
pub(super) struct HiddenPart<F> {
    product: StepProduct<F>,
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

impl<F: Float> HiddenPart<F> {
    /// Before the first step.
    pub fn start(&mut self, weights: Weights<'_, F>, name: &str, drop: Option<RandomDrop>, pass: &Unrolled<'_, F>) {
        let Weights { weight, gain, .. } = weights;
        let (gates, features) = weight.dim();
        self.product.start(weight.t(), pass);
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
            self.normal.start((pass.rows(), gates));
        }
    }

    /// One step: adds to `out`.
    pub fn add(
        &mut self,
        Weights { weight, gain, groups }: Weights<'_, F>,
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
            return self.product.multiply(h, weight.t(), out, Accumulate::Add);
        };
        self.product.multiply(h, weight.t(), self.normal.z(rows), Accumulate::Overwrite);
        self.normal.add(rows, groups, gain, out);
    }

    /// Before the last step is done backwards.
    pub fn start_backward(&mut self, weight: ArrayView2<'_, F>, pass: &Unrolled<'_, F>) {
        self.product.start_backward(weight, pass);
    }

    /// One step back: `dh`, or what is added to it, from `dout`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &mut self,
        Weights { weight, gain, groups }: Weights<'_, F>,
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
            return self.product.multiply(dz, weight, dh, mode);
        }
        let first = 0..rows.len();
        let mask = &rows_of(&mut self.mask, &first)[..];
        match mode {
            Accumulate::Overwrite => {
                self.product.multiply(dz, weight, dh.view_mut(), Accumulate::Overwrite);
                scale(mask, dh.into_slice().expect("rows side by side"));
            }
            Accumulate::Add => {
                reuse(scratch, dh.dim());
                self.product.multiply(dz, weight, scratch.view_mut(), Accumulate::Overwrite);
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
        overwrites: bool,
    ) {
        let rows = 0..h.nrows();
        let dz = if normalised { self.normal.dz(&rows) } else { dout };
        let h = if self.dropped { self.masked.slice(s![rows, ..]) } else { h };
        product(dz.t(), h, dw, Accumulate::overwriting(overwrites));
    }
}

/// The two biases in one, where there are any: what all rows start from. Of the second the first `columns` alone.
pub(super) fn add_biases<'a, F: Float>(
    [first, second]: [&'a Option<Array1<F>>; 2],
    columns: usize,
    sum: &'a mut Array1<F>,
) -> Option<&'a [F]> {
    let Some(second) = values(second) else { return values(first) };
    reuse(sum, second.len());
    let (both, rest) = sum.tensor_mut(0).split_at_mut(columns);
    match values(first) {
        Some(first) => {
            add_values(&first[..columns], &second[..columns], both);
            rest.copy_from_slice(&first[columns..]);
        }
        None => {
            both.copy_from_slice(&second[..columns]);
            rest.fill(F::zero());
        }
    }
    sum.as_slice()
}

/// `db += Σ da`, for both biases.
pub(super) fn add_bias_gradients<F: Float>(da: ArrayView2<'_, F>, biases: [&mut Option<Array1<F>>; 2]) {
    for bias in biases.into_iter().flatten() {
        add_rows(da, bias.tensor_mut(0));
    }
}
