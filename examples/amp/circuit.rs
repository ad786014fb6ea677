//! The circuit: a diode clipper, the core of many distortion pedals.
//!
//! ```text
//!          R
//! u ----/\/\/\----+--------+--------+---- v
//!                 |        |        |
//!                C =      ▽ D1     △ D2
//!                 |        |        |
//! ground ---------+--------+--------+----
//!
//! C dv/dt = (u - v)/R - 2 I sinh(v / V)
//! ```
//!
//! Equation and components: Yeh, Abel and Smith 2007, "Simulation of the diode limiter in guitar distortion circuits by
//! numerical solution of ordinary differential equations" (DAFx-07).

/// Samples a second.
pub const SAMPLE_RATE: usize = 48_000;

/// Ω
const R: f64 = 2_200.0;
/// F
const C: f64 = 10e-9;
/// The diodes' saturation current in A.
const I: f64 = 2.52e-9;
/// The diodes' thermal voltage, times their ideality, in V.
const V: f64 = 45.3e-3;

/// The voltage v over the diodes for the voltage u at the input, both `SAMPLE_RATE` times a second, by the trapezoidal rule with
/// `oversampling` steps a sample. Between two samples u is a straight line. v is not filtered before it is sampled.
pub fn clip(input: &[f32], oversampling: usize) -> Vec<f32> {
    let step = 1.0 / (SAMPLE_RATE * oversampling) as f64;
    let slope = |u: f64, v: f64| ((u - v) / R - 2.0 * I * (v / V).sinh()) / C;
    let (mut u, mut v) = (0.0, 0.0);
    let sample = |&next: &f32| {
        let rise = (f64::from(next) - u) / oversampling as f64;
        for _ in 0..oversampling {
            let known = v + step / 2.0 * slope(u, v);
            u += rise;
            v = solve(v, |v| {
                let error = v - known - step / 2.0 * slope(u, v);
                (error, 1.0 + step / 2.0 * (1.0 / R + 2.0 * I / V * (v / V).cosh()) / C)
            });
        }
        v as f32
    };
    input.iter().map(sample).collect()
}

/// The zero of a function that is given with its derivative, by Newton's method from `v`. Steps are limited to what the diodes'
/// exponential function can bear.
fn solve(mut v: f64, function: impl Fn(f64) -> (f64, f64)) -> f64 {
    for _ in 0..100 {
        let (error, derivative) = function(v);
        let change = (error / derivative).clamp(-V, V);
        v -= change;
        if change.abs() < 1e-10 {
            return v;
        }
    }
    panic!("Newton's method does not converge at {v} V")
}
