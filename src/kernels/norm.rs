//! Layer normalisation of rows (Ba, Kiros and Hinton 2016), forward and backward.
//!
//! ```text
//! n = (x - mean(x)) inverse        inverse = 1 / sqrt(mean((x - mean(x))²) + eps)
//! y = gain ∘ n + bias
//!
//! d = gain ∘ dy                    dx = (d - mean(d) - n mean(d ∘ n)) inverse
//! dgain += dy ∘ n                  dbias += dy
//! ```
//!
//! A layer of its own keeps x and the statistics and computes n again; a recurrent cell, whose input is a product that nothing else
//! needs, writes n in place of it.

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2};

use super::float::Float;
use super::math::sum;
use super::once::vectorised;

/// The mean of a row, and `1 / sqrt(variance + eps)`.
#[inline(always)]
fn statistics<F: Float>(x: &[F], eps: F) -> (F, F) {
    let count = F::of(x.len() as f64);
    let mean = sum([x], |[x]| x) / count;
    let variance = sum([x], |[x]| (x - mean) * (x - mean)) / count;
    (mean, F::one() / (variance + eps).sqrt())
}

/// `(mean(d), mean(d ∘ n))` with `d = gain ∘ dy` and `n = normal(x)`.
#[inline(always)]
fn gradient_means<F: Float>(gain: &[F], dy: &[F], x: &[F], normal: impl Fn(F) -> F) -> (F, F) {
    let count = F::of(gain.len() as f64);
    let d = sum([gain, dy], |[gain, dy]| gain * dy) / count;
    let d_n = sum([gain, dy, x], |[gain, dy, x]| gain * dy * normal(x)) / count;
    (d, d_n)
}

/// dx of an element.
#[inline(always)]
fn gradient<F: Float>(gain: F, dy: F, n: F, (d_mean, d_n_mean): (F, F), inverse: F) -> F {
    (gain * dy - d_mean - n * d_n_mean) * inverse
}

/// The elements of a row.
#[inline(always)]
fn elements<F>(row: ArrayView1<'_, F>) -> &[F] {
    row.to_slice().expect("contiguous rows")
}

vectorised! {
    /// `y = gain ∘ n(x) + bias` for each row; its mean and `inverse` go to a row of `statistics`, `[R, 2]`.
    pub(crate) fn normalise<'a, F: Float>(
        gain: &'a [F],
        bias: &'a [F],
        eps: F,
        x: ArrayView2<'a, F>,
        statistics: ArrayViewMut2<'a, F>,
        y: ArrayViewMut2<'a, F>
    ) {
        let width = gain.len();
        let (mut y, mut kept, bias) = (y, statistics, &bias[..width]);
        for ((x, y), mut kept) in x.outer_iter().zip(y.outer_iter_mut()).zip(kept.outer_iter_mut()) {
            let (x, y) = (&elements(x)[..width], &mut y.into_slice().expect("contiguous rows")[..width]);
            let (mean, inverse) = self::statistics(x, eps);
            for k in 0..width {
                y[k] = (x[k] - mean) * inverse * gain[k] + bias[k];
            }
            (kept[0], kept[1]) = (mean, inverse);
        }
    }

    /// dx of each row, from the x and the statistics of [`normalise`].
    pub(crate) fn normalise_backward<'a, F: Float>(
        gain: &'a [F],
        statistics: ArrayView2<'a, F>,
        x: ArrayView2<'a, F>,
        dy: ArrayView2<'a, F>,
        dx: ArrayViewMut2<'a, F>
    ) {
        let (mut dx, width) = (dx, gain.len());
        let rows = x.outer_iter().zip(dy.outer_iter()).zip(dx.outer_iter_mut());
        for (((x, dy), dx), statistics) in rows.zip(statistics.outer_iter()) {
            let (x, dy) = (&elements(x)[..width], &elements(dy)[..width]);
            let dx = &mut dx.into_slice().expect("contiguous rows")[..width];
            let (mean, inverse) = (statistics[0], statistics[1]);
            let normal = |x: F| (x - mean) * inverse;
            let means = gradient_means(gain, dy, x, normal);
            for k in 0..width {
                dx[k] = gradient(gain[k], dy[k], normal(x[k]), means, inverse);
            }
        }
    }

    /// `dgain += Σ dy ∘ n` and `dbias += Σ dy` over all rows, from the x and the statistics of [`normalise`]. Of some columns, if
    /// x and dy are those.
    pub(crate) fn add_parameter_gradients<'a, F: Float>(
        statistics: ArrayView2<'a, F>,
        x: ArrayView2<'a, F>,
        dy: ArrayView2<'a, F>,
        dgain: &'a mut [F],
        dbias: &'a mut [F]
    ) {
        let width = dgain.len();
        let dbias = &mut dbias[..width];
        for ((x, dy), statistics) in x.outer_iter().zip(dy.outer_iter()).zip(statistics.outer_iter()) {
            let (x, dy) = (&elements(x)[..width], &elements(dy)[..width]);
            let (mean, inverse) = (statistics[0], statistics[1]);
            for k in 0..width {
                dgain[k] += dy[k] * ((x[k] - mean) * inverse);
                dbias[k] += dy[k];
            }
        }
    }

    /// n in place of a row z, and `out += gain ∘ n`; gives `inverse`.
    pub(crate) fn normalise_in_place<'a, F: Float>(gain: &'a [F], eps: F, z: &'a mut [F], out: &'a mut [F]) -> F {
        let width = gain.len();
        let (z, out) = (&mut z[..width], &mut out[..width]);
        let (mean, inverse) = statistics(z, eps);
        for k in 0..width {
            z[k] = (z[k] - mean) * inverse;
            out[k] += gain[k] * z[k];
        }
        inverse
    }

    /// dz in place of the n that [`normalise_in_place`] left; `dgain += dout ∘ n`.
    pub(crate) fn normalise_in_place_backward<'a, F: Float>(
        gain: &'a [F],
        inverse: F,
        dout: &'a [F],
        dgain: &'a mut [F],
        n: &'a mut [F]
    ) {
        let width = gain.len();
        let (n, dout, dgain) = (&mut n[..width], &dout[..width], &mut dgain[..width]);
        let means = gradient_means(gain, dout, n, |n| n);
        for k in 0..width {
            dgain[k] += dout[k] * n[k];
            n[k] = gradient(gain[k], dout[k], n[k], means, inverse);
        }
    }
}
