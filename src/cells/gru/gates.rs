//! What a GRU's gates do with their summed inputs, element by element, and back.

use crate::kernels::math::{quotients2, sigmoid, sigmoid_fraction, tanh};
use crate::kernels::{Float, vectorised};

/// Splits a row `[3 H]` into its gates.
#[inline(always)]
fn split<F>(row: &mut [F], hidden: usize) -> [&mut [F]; 3] {
    let (r, row) = row.split_at_mut(hidden);
    let (z, n) = row.split_at_mut(hidden);
    [r, z, n]
}

vectorised! {
    /// With the reset after the product: the gates' values in place of their a, and h.
    pub(super) fn activate<'a, F: Float>(hidden: usize, gates: &'a mut [F], s: &'a [F], h_before: &'a [F], h: &'a mut [F]) {
        // A function of its own: as its arguments the compiler knows that the slices do not overlap.
        #[inline(always)]
        fn row<F: Float>(r: &mut [F], z: &mut [F], n: &mut [F], s: &[F], h_before: &[F], h: &mut [F]) {
            let hidden = h.len();
            assert!([r.len(), z.len(), n.len(), s.len(), h_before.len()] == [hidden; 5]);
            for k in 0..hidden {
                [r[k], z[k]] = quotients2([sigmoid_fraction(r[k]), sigmoid_fraction(z[k])]);
            }
            // A loop of its own: one chain from r to h would be too long for the next elements to begin meanwhile.
            for k in 0..hidden {
                n[k] = tanh(n[k] + r[k] * s[k]);
                h[k] = n[k] + z[k] * (h_before[k] - n[k]);
            }
        }
        // Iterators of chunks would divide by their length, several times each.
        for row_index in 0..h.len() / hidden {
            let now = row_index * hidden..(row_index + 1) * hidden;
            let [r, z, n] = split(&mut gates[3 * now.start..3 * now.end], hidden);
            row(r, z, n, &s[now.clone()], &h_before[now.clone()], &mut h[now]);
        }
    }

    /// The gates' da in place of their values, ds in place of s, and z ∘ dh, the direct part of dh_{t-1}, in place of
    /// dh.
    pub(super) fn activate_backward<'a, F: Float>(
        hidden: usize,
        gates: &'a mut [F],
        s: &'a mut [F],
        h_before: &'a [F],
        dh: &'a mut [F]
    ) {
        #[inline(always)]
        fn row<F: Float>(r: &mut [F], z: &mut [F], n: &mut [F], s: &mut [F], h_before: &[F], dh: &mut [F]) {
            let (hidden, one) = (dh.len(), F::one());
            assert!([r.len(), z.len(), n.len(), s.len(), h_before.len()] == [hidden; 5]);
            for k in 0..hidden {
                let da_n = dh[k] * (one - z[k]) * (one - n[k] * n[k]);
                let da_z = dh[k] * (h_before[k] - n[k]) * z[k] * (one - z[k]);
                dh[k] *= z[k];
                (z[k], n[k]) = (da_z, da_n);
                (r[k], s[k]) = (da_n * s[k] * r[k] * (one - r[k]), da_n * r[k]);
            }
        }
        let rows = s.chunks_exact_mut(hidden).zip(h_before.chunks_exact(hidden)).zip(dh.chunks_exact_mut(hidden));
        for (gates, ((s, h_before), dh)) in gates.chunks_exact_mut(3 * hidden).zip(rows) {
            let [r, z, n] = split(gates, hidden);
            row(r, z, n, s, h_before, dh);
        }
    }

    /// With the reset before the product: r and z in place of their a, and r ∘ h_{t-1}.
    pub(super) fn reset<'a, F: Float>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], reset: &'a mut [F]) {
        let rows = h_before.chunks_exact(hidden).zip(reset.chunks_exact_mut(hidden));
        for (gates, (h_before, reset)) in gates.chunks_exact_mut(3 * hidden).zip(rows) {
            let [r, z, _] = split(gates, hidden);
            z.iter_mut().for_each(|z| *z = sigmoid(*z));
            for ((reset, r), &h_before) in reset.iter_mut().zip(r).zip(h_before) {
                *r = sigmoid(*r);
                *reset = *r * h_before;
            }
        }
    }

    /// And then n in place of its a, and h.
    pub(super) fn update<'a, F: Float>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], h: &'a mut [F]) {
        let rows = h_before.chunks_exact(hidden).zip(h.chunks_exact_mut(hidden));
        for (gates, (h_before, h)) in gates.chunks_exact_mut(3 * hidden).zip(rows) {
            let [_, z, n] = split(gates, hidden);
            for (((h, n), &z), &h_before) in h.iter_mut().zip(n).zip(&*z).zip(h_before) {
                *n = tanh(*n);
                *h = *n + z * (h_before - *n);
            }
        }
    }

    /// The da of z and n in place of their values, and z ∘ dh in place of dh.
    pub(super) fn update_backward<'a, F: Float>(hidden: usize, gates: &'a mut [F], h_before: &'a [F], dh: &'a mut [F]) {
        let one = F::one();
        let rows = h_before.chunks_exact(hidden).zip(dh.chunks_exact_mut(hidden));
        for (gates, (h_before, dh)) in gates.chunks_exact_mut(3 * hidden).zip(rows) {
            let [_, z, n] = split(gates, hidden);
            for (((dh, n), z), &h_before) in dh.iter_mut().zip(n).zip(z).zip(h_before) {
                let da_n = *dh * (one - *z) * (one - *n * *n);
                let da_z = *dh * (h_before - *n) * *z * (one - *z);
                *dh *= *z;
                (*z, *n) = (da_z, da_n);
            }
        }
    }

    /// The da of r in place of its value, and `dh += r ∘ d(r ∘ h)`.
    pub(super) fn reset_backward<'a, F: Float>(
        hidden: usize,
        gates: &'a mut [F],
        h_before: &'a [F],
        d_reset: &'a [F],
        dh: &'a mut [F]
    ) {
        let one = F::one();
        let rows = h_before.chunks_exact(hidden).zip(d_reset.chunks_exact(hidden)).zip(dh.chunks_exact_mut(hidden));
        for (gates, ((h_before, d_reset), dh)) in gates.chunks_exact_mut(3 * hidden).zip(rows) {
            let [r, ..] = split(gates, hidden);
            for (((dh, r), &d_reset), &h_before) in dh.iter_mut().zip(r).zip(d_reset).zip(h_before) {
                *dh += d_reset * *r;
                *r = d_reset * h_before * *r * (one - *r);
            }
        }
    }
}
