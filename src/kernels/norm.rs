//! Layer normalisation of rows (Ba, Kiros and Hinton 2016), forward and backward.
//!
//! ```text
//! n = (x - mean(x)) inverse        inverse = 1 / sqrt(mean((x - mean(x))²) + eps)
//! y = gain ∘ n + bias
//!
//! d = gain ∘ dy                    dx = (d - mean(d) - n mean(d ∘ n)) slope
//! dgain += dy ∘ n                  dbias += dy
//! ```
//!
//! A separate layer keeps x and the statistics and computes n again; a recurrent cell, whose input is a product that nothing else
//! needs, overwrites it with n.
//!
//! # Accuracy
//! The mean is corrected by the mean of the differences from it, and so is the variance (Chan, Golub and LeVeque 1983): n is as
//! accurate for a row far from 0 as for any other. A row whose squares would overflow, or underflow with a tiny eps, is first
//! multiplied by a power of two.
//!
//! # Rows without a variance
//! `slope` is `inverse`, unless the variance is lost in rounding, next to eps or to the mean. Such a row says nothing about its
//! spread, and `1/sqrt(eps)`, 316 by default, would multiply its gradient by a number that depends on eps alone. In a recurrent
//! cell that starts with zeros, this would happen at every step. The `slope` of such a row is therefore at most 1.

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2};

use super::float::Float;
use super::math::{fused, sum, sum_pairs};
use super::once::vectorised;

/// The number of [`Statistics`] that [`normalise`] keeps for a row.
pub(crate) const STATISTICS: usize = 5;

/// The numbers that map a row x to n, and its gradient back: `n = (x scale - mean - shift) inverse`.
#[derive(Clone, Copy)]
struct Statistics<F> {
    /// A power of two, 1 for all rows but those of extreme magnitude.
    scale: F,
    /// The mean of `x scale`, rounded.
    mean: F,
    /// The part of the mean that was lost in rounding.
    shift: F,
    /// 0 if all elements are the same.
    inverse: F,
    slope: F,
}

/// The mean of a row, the part of it lost in rounding, and the sum of the squares of the differences from the sum of both.
struct Moments<F> {
    mean: F,
    shift: F,
    squares: F,
}

impl<F: Float> Moments<F> {
    /// The moments of `x scale`; `share` is 1/(number of elements).
    #[inline(always)]
    fn of(x: &[F], scale: F, share: F) -> Self {
        let moments = Self::about(sum([x], |[x]| x * scale) * share, x, scale, share);
        // The spread is a few units in the last place of the mean, and the rounding error of the mean's sum is more than that.
        if moments.shift * moments.shift > moments.squares * share {
            return Self::about_again(moments.mean + moments.shift, x, scale, share);
        }
        moments
    }

    #[inline(always)]
    fn about(mean: F, x: &[F], scale: F, share: F) -> Self {
        let (differences, squares) = sum_pairs([x], |[x]| {
            let difference = fused!(x, scale, -mean);
            (difference, difference * difference)
        });
        let shift = differences * share;
        Moments { mean, shift, squares: squares - differences * shift }
    }

    #[cold]
    #[inline(never)]
    fn about_again(mean: F, x: &[F], scale: F, share: F) -> Self {
        Self::about(mean, x, scale, share)
    }
}

impl<F: Float> Statistics<F> {
    /// The statistics of a row; `share` is 1/(number of elements).
    #[inline(always)]
    fn of(x: &[F], share: F, eps: F) -> Self {
        let moments = Moments::of(x, F::one(), share);
        let variance = moments.squares * share;
        let squares_fit = (variance + moments.mean * moments.mean).is_finite();
        if squares_fit && variance + eps >= F::min_positive_value() / F::epsilon() {
            Self::of_moments(moments, F::one(), share, eps)
        } else {
            Self::of_extreme(x, share, eps)
        }
    }

    /// The statistics of a row whose squares overflow or underflow, or that is not finite. A power of two brings the larger of its
    /// largest element and `sqrt(eps)` below 1/2.
    #[cold]
    #[inline(never)]
    fn of_extreme(x: &[F], share: F, eps: F) -> Self {
        if !x.iter().all(|x| x.is_finite()) {
            let nan = F::nan();
            return Statistics { scale: nan, mean: nan, shift: nan, inverse: nan, slope: nan };
        }
        let unit = x.iter().fold(eps.sqrt(), |unit, x| unit.max(x.abs()));
        let scale = F::of((-2.0 - unit.widen().log2().floor()).exp2());
        Self::of_moments(Moments::of(x, scale, share), scale, share, eps)
    }

    #[inline(always)]
    fn of_moments(Moments { mean, shift, squares }: Moments<F>, scale: F, share: F, eps: F) -> Self {
        let variance = squares.max(F::zero()) * share;
        let scaled_eps = eps * scale * scale;
        let inverse = F::one() / (variance + scaled_eps).sqrt();
        // At most two units in the last place of the mean. Elements that differ do so by at least half of this.
        let rounding = F::epsilon() * mean;
        let constant = squares < rounding * rounding * F::of(0.0625);
        let lost = variance + scaled_eps == scaled_eps || variance <= rounding * rounding;
        Statistics {
            scale,
            mean,
            shift,
            inverse: if constant { F::zero() } else { inverse },
            // The scaled eps may have become 0.
            slope: if lost { (inverse * scale).min(F::one() / eps.sqrt()).min(F::one()) } else { inverse * scale },
        }
    }

    /// n of an element.
    #[inline(always)]
    fn normal(self, x: F) -> F {
        (fused!(x, self.scale, -self.mean) - self.shift) * self.inverse
    }

    #[inline(always)]
    fn read(row: ArrayView1<'_, F>) -> Self {
        let [scale, mean, shift, inverse, slope] =
            *elements(row).first_chunk::<STATISTICS>().expect("a row of statistics");
        Statistics { scale, mean, shift, inverse, slope }
    }

    #[inline(always)]
    fn write(self, row: ArrayViewMut1<'_, F>) {
        let row = row.into_slice().expect("contiguous rows");
        row.copy_from_slice(&[self.scale, self.mean, self.shift, self.inverse, self.slope]);
    }
}

/// 1/(number of elements).
#[inline(always)]
fn share_of<F: Float>(row: &[F]) -> F {
    F::one() / F::of(row.len() as f64)
}

/// `(mean(d), mean(d ∘ n))` with `d = gain ∘ dy` and `n = normal(x)`.
#[inline(always)]
fn gradient_means<F: Float>(gain: &[F], dy: &[F], x: &[F], normal: impl Fn(F) -> F) -> (F, F) {
    let (d, d_n) = sum_pairs([gain, dy, x], |[gain, dy, x]| {
        let d = gain * dy;
        (d, d * normal(x))
    });
    let count = F::of(gain.len() as f64);
    (d / count, d_n / count)
}

/// dx of an element.
#[inline(always)]
fn gradient<F: Float>(gain: F, dy: F, n: F, (d_mean, d_n_mean): (F, F), slope: F) -> F {
    (gain * dy - d_mean - n * d_n_mean) * slope
}

/// The elements of a row.
#[inline(always)]
fn elements<F>(row: ArrayView1<'_, F>) -> &[F] {
    row.to_slice().expect("contiguous rows")
}

vectorised! {
    /// `y = gain ∘ n(x) + bias` for each row; its statistics go to a row of `statistics`, `[R, STATISTICS]`.
    pub(crate) fn normalise<'a, F: Float>(
        gain: &'a [F],
        bias: &'a [F],
        eps: F,
        x: ArrayView2<'a, F>,
        statistics: ArrayViewMut2<'a, F>,
        y: ArrayViewMut2<'a, F>
    ) {
        let (width, share) = (gain.len(), share_of(gain));
        let (mut y, mut kept, bias) = (y, statistics, &bias[..width]);
        for ((x, y), kept) in x.outer_iter().zip(y.outer_iter_mut()).zip(kept.outer_iter_mut()) {
            let (x, y) = (&elements(x)[..width], &mut y.into_slice().expect("contiguous rows")[..width]);
            let statistics = Statistics::of(x, share, eps);
            for k in 0..width {
                y[k] = fused!(statistics.normal(x[k]), gain[k], bias[k]);
            }
            statistics.write(kept);
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
            let statistics = Statistics::read(statistics);
            let means = gradient_means(gain, dy, x, |x| statistics.normal(x));
            for k in 0..width {
                dx[k] = gradient(gain[k], dy[k], statistics.normal(x[k]), means, statistics.slope);
            }
        }
    }

    /// `dgain += Σ dy ∘ n` and `dbias += Σ dy` over all rows, from the x and the statistics of [`normalise`]. If x and dy have only
    /// some of the columns, so have dgain and dbias.
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
            let statistics = Statistics::read(statistics);
            for k in 0..width {
                dgain[k] += dy[k] * statistics.normal(x[k]);
                dbias[k] += dy[k];
            }
        }
    }

    /// Overwrites a row z with n, and `out += gain ∘ n`; returns `slope`.
    pub(crate) fn normalise_in_place<'a, F: Float>(gain: &'a [F], eps: F, z: &'a mut [F], out: &'a mut [F]) -> F {
        let width = gain.len();
        let (z, out) = (&mut z[..width], &mut out[..width]);
        let statistics = Statistics::of(z, share_of(gain), eps);
        for k in 0..width {
            z[k] = statistics.normal(z[k]);
            out[k] += gain[k] * z[k];
        }
        statistics.slope
    }

    /// Overwrites the n that [`normalise_in_place`] left with dz; `dgain += dout ∘ n`.
    pub(crate) fn normalise_in_place_backward<'a, F: Float>(
        gain: &'a [F],
        slope: F,
        dout: &'a [F],
        dgain: &'a mut [F],
        n: &'a mut [F]
    ) {
        let width = gain.len();
        let (n, dout, dgain) = (&mut n[..width], &dout[..width], &mut dgain[..width]);
        let means = gradient_means(gain, dout, n, |n| n);
        for k in 0..width {
            dgain[k] += dout[k] * n[k];
            n[k] = gradient(gain[k], dout[k], n[k], means, slope);
        }
    }
}
