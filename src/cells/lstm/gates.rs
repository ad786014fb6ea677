//! What an LSTM's gates do with their summed inputs, element by element, and back.

use crate::kernels::math::{quotients2, quotients3, sigmoid_fraction, tanh, tanh_fraction};
use crate::kernels::{Float, vectorised};

/// Splits a row `[4 H]` into i, f, g, o; of coupled gates, `[3 H]`, f is empty.
#[inline(always)]
fn split<F>(row: &mut [F], hidden: usize) -> [&mut [F]; 4] {
    let coupled = row.len() == 3 * hidden;
    let (i, row) = row.split_at_mut(hidden);
    let (f, row) = row.split_at_mut(if coupled { 0 } else { hidden });
    let (g, o) = row.split_at_mut(hidden);
    [i, f, g, o]
}

/// Rows of a peephole, `[3 H]` or `[2 H]`: i, f, o; all empty without peepholes.
#[inline(always)]
fn split_peephole<F>(peephole: &[F], hidden: usize) -> [&[F]; 3] {
    match peephole.len() {
        0 => [&[], &[], &[]],
        len if len == 2 * hidden => [&peephole[..hidden], &[], &peephole[hidden..]],
        _ => [&peephole[..hidden], &peephole[hidden..2 * hidden], &peephole[2 * hidden..]],
    }
}

/// Calls `row` with what the cell's options are as constants.
macro_rules! with_options {
    ($read:expr, $coupled:expr, $peephole:expr, $row:ident($($argument:expr),*)) => {
        match ($read, $coupled, $peephole) {
            (true, false, false) => $row::<F, true, false, false>($($argument),*),
            (true, false, true) => $row::<F, true, false, true>($($argument),*),
            (true, true, false) => $row::<F, true, true, false>($($argument),*),
            (true, true, true) => $row::<F, true, true, true>($($argument),*),
            (false, false, false) => $row::<F, false, false, false>($($argument),*),
            (false, false, true) => $row::<F, false, false, true>($($argument),*),
            (false, true, false) => $row::<F, false, true, false>($($argument),*),
            (false, true, true) => $row::<F, false, true, true>($($argument),*),
        }
    };
}

vectorised! {
    /// The gates' values in place of their a, c and, where c is read as it is, `m = o ∘ tanh(c)`.
    pub(super) fn activate<'a, F: Float>(
        hidden: usize,
        reads_c: bool,
        gates: &'a mut [F],
        peephole: &'a [F],
        c_before: &'a [F],
        c: &'a mut [F],
        m: &'a mut [F]
    ) {
        // A function of its own: as its arguments the compiler knows that the slices do not overlap.
        #[inline(always)]
        #[allow(clippy::too_many_arguments)]
        fn row<F: Float, const READ: bool, const COUPLED: bool, const PEEPHOLE: bool>(
            i: &mut [F], f: &mut [F], g: &mut [F], o: &mut [F], [p_i, p_f, p_o]: [&[F]; 3], c_before: &[F],
            c: &mut [F], m: &mut [F],
        ) {
            let h = c.len();
            let (i, g, o, c_before, m) = (&mut i[..h], &mut g[..h], &mut o[..h], &c_before[..h], &mut m[..h]);
            let f = if COUPLED { f } else { &mut f[..h] };
            let (p_i, p_o) = if PEEPHOLE { (&p_i[..h], &p_o[..h]) } else { (p_i, p_o) };
            let p_f = if PEEPHOLE && !COUPLED { &p_f[..h] } else { p_f };
            for k in 0..h {
                if PEEPHOLE {
                    i[k] += p_i[k] * c_before[k];
                    if !COUPLED {
                        f[k] += p_f[k] * c_before[k];
                    }
                }
                let (a_i, a_g) = (sigmoid_fraction(i[k]), tanh_fraction(g[k]));
                let forget;
                if COUPLED {
                    [i[k], g[k]] = quotients2([a_i, a_g]);
                    forget = F::one() - i[k];
                } else {
                    [i[k], f[k], g[k]] = quotients3([a_i, sigmoid_fraction(f[k]), a_g]);
                    forget = f[k];
                }
                c[k] = forget * c_before[k] + i[k] * g[k];
            }
            // A loop of its own: one chain from i to m would be too long for the next elements to begin meanwhile.
            for k in 0..h {
                if PEEPHOLE {
                    o[k] += p_o[k] * c[k];
                }
                let tanh_c;
                [o[k], tanh_c] = quotients2([sigmoid_fraction(o[k]), tanh_fraction(c[k])]);
                if READ {
                    m[k] = o[k] * tanh_c;
                }
            }
        }
        let (rows, p) = (c.len() / hidden, split_peephole(peephole, hidden));
        let width = if gates.len() == 3 * c.len() { 3 * hidden } else { 4 * hidden };
        // Iterators of chunks would divide by their length, several times each.
        for r in 0..rows {
            let now = r * hidden..(r + 1) * hidden;
            let [i, f, g, o] = split(&mut gates[r * width..(r + 1) * width], hidden);
            let (c_before, c, m) = (&c_before[now.clone()], &mut c[now.clone()], &mut m[now]);
            with_options!(reads_c, f.is_empty(), !peephole.is_empty(), row(i, f, g, o, p, c_before, c, m));
        }
    }

    /// The gates' da in place of their values and dc before the step in place of dc after it, from dm; where c is not read
    /// as it is, the output gate's da is there already, and dc holds what came through m.
    pub(super) fn activate_backward<'a, F: Float>(
        hidden: usize,
        reads_c: bool,
        gates: &'a mut [F],
        peephole: &'a [F],
        c_before: &'a [F],
        c: &'a [F],
        dm: &'a [F],
        dc: &'a mut [F]
    ) {
        #[inline(always)]
        #[allow(clippy::too_many_arguments)]
        fn row<F: Float, const READ: bool, const COUPLED: bool, const PEEPHOLE: bool>(
            i: &mut [F], f: &mut [F], g: &mut [F], o: &mut [F], [p_i, p_f, p_o]: [&[F]; 3], c_before: &[F],
            c: &[F], dm: &[F], dc: &mut [F],
        ) {
            let (h, one) = (dc.len(), F::one());
            let (i, g, o, c_before) = (&mut i[..h], &mut g[..h], &mut o[..h], &c_before[..h]);
            let (c, dm) = (&c[..h], &dm[..h]);
            let f = if COUPLED { f } else { &mut f[..h] };
            let (p_i, p_o) = if PEEPHOLE { (&p_i[..h], &p_o[..h]) } else { (p_i, p_o) };
            let p_f = if PEEPHOLE && !COUPLED { &p_f[..h] } else { p_f };
            for k in 0..h {
                let mut dc_k = dc[k];
                if READ {
                    let tanh_c = tanh(c[k]);
                    dc_k += dm[k] * o[k] * (one - tanh_c * tanh_c);
                    o[k] = dm[k] * tanh_c * o[k] * (one - o[k]);
                }
                if PEEPHOLE {
                    dc_k += p_o[k] * o[k];
                }
                let (i_k, g_k) = (i[k], g[k]);
                let forget = if COUPLED { one - i_k } else { f[k] };
                let di = if COUPLED { dc_k * (g_k - c_before[k]) } else { dc_k * g_k };
                i[k] = di * i_k * (one - i_k);
                g[k] = dc_k * i_k * (one - g_k * g_k);
                if !COUPLED {
                    f[k] = dc_k * c_before[k] * forget * (one - forget);
                }
                dc[k] = dc_k * forget;
                if PEEPHOLE {
                    dc[k] += p_i[k] * i[k];
                    if !COUPLED {
                        dc[k] += p_f[k] * f[k];
                    }
                }
            }
        }
        let (width, p) = (gates.len() / dc.len() * hidden, split_peephole(peephole, hidden));
        let states = c_before.chunks_exact(hidden).zip(c.chunks_exact(hidden));
        let gradients = dm.chunks_exact(hidden).zip(dc.chunks_exact_mut(hidden));
        for (gates, ((c_before, c), (dm, dc))) in gates.chunks_exact_mut(width).zip(states.zip(gradients)) {
            let [i, f, g, o] = split(gates, hidden);
            with_options!(reads_c, f.is_empty(), !peephole.is_empty(), row(i, f, g, o, p, c_before, c, dm, dc));
        }
    }

    /// `m = o ∘ tanh(u)`, u being what is read of c.
    pub(super) fn read<'a, F: Float>(hidden: usize, gates: &'a mut [F], u: &'a [F], m: &'a mut [F]) {
        let width = gates.len() / m.len() * hidden;
        let rows = u.chunks_exact(hidden).zip(m.chunks_exact_mut(hidden));
        for (gates, (u, m)) in gates.chunks_exact_mut(width).zip(rows) {
            let [.., o] = split(gates, hidden);
            for (m, (&u, &o)) in m.iter_mut().zip(u.iter().zip(&*o)) {
                *m = o * tanh(u);
            }
        }
    }

    /// The output gate's da in place of its value, and du in place of u, from dm.
    pub(super) fn read_backward<'a, F: Float>(hidden: usize, gates: &'a mut [F], dm: &'a [F], u: &'a mut [F]) {
        let (width, one) = (gates.len() / dm.len() * hidden, F::one());
        let rows = dm.chunks_exact(hidden).zip(u.chunks_exact_mut(hidden));
        for (gates, (dm, u)) in gates.chunks_exact_mut(width).zip(rows) {
            let [.., o] = split(gates, hidden);
            for (u, (&dm, o)) in u.iter_mut().zip(dm.iter().zip(o)) {
                let tanh_u = tanh(*u);
                *u = dm * *o * (one - tanh_u * tanh_u);
                *o = dm * tanh_u * *o * (one - *o);
            }
        }
    }

    /// sum += a ∘ b, for rows of the length of `sum`, those of `a` being `stride` apart.
    pub(super) fn add_products<'a, F: Float>(stride: usize, a: &'a [F], b: &'a [F], sum: &'a mut [F]) {
        let width = sum.len();
        for (a, b) in a.chunks(stride).zip(b.chunks_exact(width)) {
            let a = &a[..width];
            for k in 0..width {
                sum[k] += a[k] * b[k];
            }
        }
    }
}

/// dL/dc_t: what came back through c_{t+1}, through m and through the output gate's peephole.
pub(super) fn memory_gradient<'a, F: Float>(
    hidden: usize,
    reads_c: bool,
    gates: &'a [F],
    peephole: &'a [F],
    c: &'a [F],
    dm: &'a [F],
    dc: &'a [F],
) -> impl Iterator<Item = F> + 'a {
    let (width, one) = (gates.len() / c.len() * hidden, F::one());
    let [.., p_o] = split_peephole(peephole, hidden);
    (0..c.len()).map(move |k| {
        let o = gates[k / hidden * width + width - hidden + k % hidden];
        let tanh_c = tanh(c[k]);
        let (direct, da_o) = match reads_c {
            true => (dm[k] * o * (one - tanh_c * tanh_c), dm[k] * tanh_c * o * (one - o)),
            false => (F::zero(), o), // it holds its da by then
        };
        let through_gate = p_o.get(k % hidden).map_or(F::zero(), |&p_o| p_o * da_o);
        dc[k] + direct + through_gate
    })
}
