//! Layer normalisation of the summed inputs of gates (Ba, Kiros and Hinton 2016).
//!
//! ```text
//! n = (z - mean(z)) inverse        inverse = 1 / sqrt(mean((z - mean(z))²) + eps)        out += gain ∘ n
//! d = gain ∘ dout                  dz = (d - mean(d) - n mean(d ∘ n)) inverse            dgain += dout ∘ n
//! ```

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

use crate::kernels::math::sum;
use crate::kernels::{Float, vectorised};
use crate::layer::kit::reuse;
use crate::layer::rows::rows_of;

vectorised! {
    /// n in place of z, of mean 0 and variance 1, and `out += gain ∘ n`; gives 1 / sqrt(variance + eps).
    fn normalise_in_place<'a, F: Float>(gain: &'a [F], eps: F, z: &'a mut [F], out: &'a mut [F]) -> F {
        let width = gain.len();
        let (z, out, count) = (&mut z[..width], &mut out[..width], F::of(width as f64));
        let mean = sum([z], |[z]| z) / count;
        let variance = sum([z], |[z]| (z - mean) * (z - mean)) / count;
        let inverse = F::one() / (variance + eps).sqrt();
        for k in 0..width {
            z[k] = (z[k] - mean) * inverse;
            out[k] += gain[k] * z[k];
        }
        inverse
    }

    /// dz in place of n: `dz = (d - mean(d) - n mean(d ∘ n)) inverse` with `d = gain ∘ dout`; adds to `dgain`.
    fn normalise_in_place_backward<'a, F: Float>(
        gain: &'a [F],
        inverse: F,
        dout: &'a [F],
        dgain: &'a mut [F],
        n: &'a mut [F]
    ) {
        let width = gain.len();
        let (n, dout, dgain, count) = (&mut n[..width], &dout[..width], &mut dgain[..width], F::of(width as f64));
        let d_mean = sum([gain, dout], |[gain, dout]| gain * dout) / count;
        let d_n_mean = sum([gain, dout, n], |[gain, dout, n]| gain * dout * n) / count;
        for k in 0..width {
            dgain[k] += dout[k] * n[k];
            n[k] = (gain[k] * dout[k] - d_mean - n[k] * d_n_mean) * inverse;
        }
    }
}

/// The most groups of features that are normalised each on its own; a width of 0 is none.
pub(super) const GROUPS: usize = 2;

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

    /// `out += gain ∘ n(z)`, group by group; gain and eps in one argument.
    pub fn add(
        &mut self,
        rows: &Range<usize>,
        groups: [usize; GROUPS],
        (gain, eps): (&[F], f64),
        mut out: ArrayViewMut2<'_, F>,
    ) {
        let eps = F::of(eps);
        for (row, mut out) in rows.clone().zip(out.outer_iter_mut()) {
            let (z, out) = (rows_of(&mut self.n, &(row..row + 1)), out.as_slice_mut().expect("contiguous rows"));
            let mut first = 0;
            for (group, width) in groups.into_iter().enumerate().filter(|&(_, width)| width > 0) {
                let columns = first..first + width;
                let gain = &gain[columns.clone()];
                self.inverse[[row, group]] = normalise_in_place(gain, eps, &mut z[columns.clone()], &mut out[columns]);
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
