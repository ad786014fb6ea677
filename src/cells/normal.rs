//! Layer normalisation of the summed inputs of gates (Ba, Kiros and Hinton 2016).
//!
//! ```text
//! n = (z - mean(z)) inverse        inverse = 1 / sqrt(mean((z - mean(z))²) + eps)        out += gain ∘ n
//! d = gain ∘ dout                  dz = (d - mean(d) - n mean(d ∘ n)) slope              dgain += dout ∘ n
//! ```
//!
//! `slope` is `inverse`, except for rows whose variance is lost in rounding: see [`norm`](crate::kernels::norm).

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

use crate::kernels::Float;
use crate::kernels::norm::{normalise_in_place, normalise_in_place_backward};
use crate::layer::kit::reuse;
use crate::layer::rows::rows_of;

/// The maximum number of groups of features that are normalised separately; a width of 0 means no group.
pub(super) const GROUPS: usize = 2;

/// Layer normalisation of rows (Ba, Kiros and Hinton 2016), group by group of their features: `out += gain ∘ n(z)`.
#[derive(Clone, Default)]
pub(super) struct Normal<F> {
    n: Array2<F>,     // [R, N]: z, then n(z), after a backward pass dz
    slope: Array2<F>, // [R, GROUPS]
}

impl<F: Float> Normal<F> {
    /// Makes room for `shape`, `[R, N]`.
    pub fn start(&mut self, shape: (usize, usize)) {
        reuse(&mut self.n, shape);
        reuse(&mut self.slope, (shape.0, GROUPS));
    }

    /// The rows `rows`, to which z is to be written.
    pub fn z(&mut self, rows: &Range<usize>) -> ArrayViewMut2<'_, F> {
        self.n.slice_mut(s![rows.clone(), ..])
    }

    /// `out += gain ∘ n(z)`, group by group.
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
                self.slope[[row, group]] = normalise_in_place(gain, eps, &mut z[columns.clone()], &mut out[columns]);
                first += width;
            }
        }
    }

    /// dz of the rows, in place of n, from the gradient of `out`.
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
                let (gain, slope) = (&gain[columns.clone()], self.slope[[row, group]]);
                let dgain = &mut dgain[columns.clone()];
                normalise_in_place_backward(gain, slope, &dout[columns.clone()], dgain, &mut n[columns]);
                first += width;
            }
        }
    }

    /// dz of the rows, after their backward step.
    pub fn dz(&self, rows: &Range<usize>) -> ArrayView2<'_, F> {
        self.n.slice(s![rows.clone(), ..])
    }
}
