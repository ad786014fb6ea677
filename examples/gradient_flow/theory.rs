//! The average behaviour of wide random networks (Poole et al. 2016; Schoenholz et al. 2017; for recurrent ones Chen, Pennington
//! and Schoenholz 2018).
//!
//! In a wide layer the pre-activations are normal with a variance q, and a gradient's squared norm changes by
//! χ = g² E[f'(a)²] from layer to layer, g² being the number of inputs times the variance of a weight. With weights that
//! are the same at every step, as in a recurrent network, this holds as well.

/// E[f(z)] of a standard normal z, by the trapezoidal rule: for smooth f exact to more digits than are shown.
fn expectation(f: impl Fn(f64) -> f64) -> f64 {
    let (ends, pieces) = (10.0, 2000);
    let step = 2.0 * ends / f64::from(pieces);
    let density = |z: f64| (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    (0..=pieces).map(|k| -ends + f64::from(k) * step).map(|z| f(z) * density(z) * step).sum()
}

/// E[tanh(a)²] for a of variance q.
fn tanh_square(q: f64) -> f64 {
    expectation(|z| (q.sqrt() * z).tanh().powi(2))
}

/// E[tanh'(a)²] for a of variance q.
fn tanh_slope_square(q: f64) -> f64 {
    expectation(|z| (q.sqrt() * z).cosh().powi(-4))
}

/// The slope of ln(gradient norm) per step of `h_t = tanh(W h_{t-1} + u_t)`, with W of gain `g` and u of standard
/// deviation `input`, after the states have settled. Without input the state stays 0, where tanh' is 1.
pub fn tanh_rnn(g: f64, input: f64) -> f64 {
    let mut q = input * input;
    for _ in 0..500 {
        q = g * g * tanh_square(q) + input * input;
    }
    0.5 * (g * g * tanh_slope_square(q)).ln()
}

/// The gradient norms of a net of `depth` tanh layers of gain `g` over standard normal inputs, by the distance from a
/// gradient of norm 1 at its output.
pub fn tanh_net(g: f64, depth: usize) -> Vec<f64> {
    let (mut signal, mut chis) = (1.0, Vec::new());
    for _ in 0..depth {
        let q = g * g * signal;
        chis.push(g * g * tanh_slope_square(q));
        signal = tanh_square(q);
    }
    let through = chis.iter().rev().scan(1.0, |norm, chi: &f64| {
        *norm *= chi.sqrt();
        Some(*norm)
    });
    std::iter::once(1.0).chain(through).collect()
}

/// σ
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
