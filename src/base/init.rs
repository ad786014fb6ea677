//! Initial weights.

use ndarray::{ArrayRef2, Axis};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use super::error::mismatch;
use super::number::{Expect, check_number};
use crate::kernels::Float;
use crate::kernels::math::sum;

/// How a weight or bias is initialized.
///
/// A weight is `[out, in]`: its fan-in is the number of columns, its fan-out the number of rows. In a cell, each
/// gate's block of rows is drawn separately. An `f64` converts to [`Init::Constant`].
///
/// ```
/// use gradflow::{layers::Init, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell: LstmCell<f32> = LstmCell::builder(10, 20).weight_ih(Init::KaimingNormal { gain: 1.0 }).forget_bias(2.0).build(rng);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// The same value for every element.
    Constant(f64),
    /// Uniform in `[-bound, bound)`.
    Uniform {
        /// The largest magnitude.
        bound: f64,
    },
    /// Normal with mean 0.
    Normal {
        /// Its standard deviation.
        std: f64,
    },
    /// Uniform in `±gain · sqrt(6 / (fan_in + fan_out))`: Glorot and Bengio 2010, for tanh and sigmoid.
    XavierUniform {
        /// 1 keeps the variance of a linear layer.
        gain: f64,
    },
    /// Normal with standard deviation `gain · sqrt(2 / (fan_in + fan_out))`: Glorot and Bengio 2010.
    XavierNormal {
        /// 1 keeps the variance of a linear layer.
        gain: f64,
    },
    /// Uniform in `±gain · sqrt(3 / fan_in)`: He et al. 2015, for relu with gain `sqrt(2)`.
    KaimingUniform {
        /// `sqrt(2)` keeps the variance of a relu layer.
        gain: f64,
    },
    /// Normal with standard deviation `gain / sqrt(fan_in)`: He et al. 2015, for relu with gain `sqrt(2)`.
    KaimingNormal {
        /// `sqrt(2)` keeps the variance of a relu layer.
        gain: f64,
    },
    /// `gain` times a random matrix with orthonormal rows, or columns if there are fewer: Saxe et al. 2014. It is drawn
    /// without bias: it is the Q of a Gaussian matrix's QR decomposition whose R has a positive diagonal.
    Orthogonal {
        /// The factor by which the matrix scales a vector's length; for recurrent weights, the gradient's growth per step.
        gain: f64,
    },
    /// `log(u)`, u uniform in `[1, t_max - 1)`: Tallec and Ollivier 2018, for the bias of a gate that keeps the state.
    /// Through a sigmoid, `log(u)` keeps a state for about u steps, so the units of a cell start with memories from one
    /// step to `t_max`.
    Chrono {
        /// The length of the longest dependency, in steps.
        t_max: f64,
    },
}

impl From<f64> for Init {
    fn from(value: f64) -> Self {
        Init::Constant(value)
    }
}

impl Init {
    /// Returns `self`; panics unless its numbers make sense for elements of type `F`. The message begins with `who` and `what`.
    #[track_caller]
    pub(crate) fn checked<F: Float>(self, who: &str, what: &str) -> Self {
        let check = |number: &str, expect: Expect, value: f64| {
            check_number::<F>(who, &format!("{what}: {number}"), expect, value);
        };
        match self {
            Init::Constant(value) => check("Constant", Expect::Finite, value),
            Init::Uniform { bound } => check("Uniform: bound", Expect::AtLeast0, bound),
            Init::Normal { std } => {
                check("Normal: std", Expect::AtLeast0, std);
                check("Normal: a draw of 64 std", Expect::AtLeast0, 64.0 * std);
            }
            Init::XavierUniform { gain } => check("XavierUniform: gain", Expect::AtLeast0, gain),
            Init::XavierNormal { gain } => check("XavierNormal: gain", Expect::AtLeast0, 64.0 * gain),
            Init::KaimingUniform { gain } => check("KaimingUniform: gain", Expect::AtLeast0, 2.0 * gain),
            Init::KaimingNormal { gain } => check("KaimingNormal: gain", Expect::AtLeast0, 64.0 * gain),
            Init::Orthogonal { gain } => check("Orthogonal: gain", Expect::Finite, gain),
            Init::Chrono { t_max } => {
                let expected = "a finite number, at least 2";
                if !(t_max >= 2.0 && t_max.is_finite()) {
                    mismatch(who, &format!("{what}: Chrono: t_max"), &expected, &format_args!("{t_max:?}"))
                }
            }
        }
        self
    }

    /// Fills `weight`, `[out, in]`.
    ///
    /// # Panics
    /// Panics if a number is not finite in the element type, if a bound, standard deviation or gain is negative (except the
    /// gain of [`Init::Orthogonal`]), or if the `t_max` of [`Init::Chrono`] is below 2.
    #[track_caller]
    pub fn fill<F: Float>(self, weight: &mut ArrayRef2<F>, rng: &mut (impl Rng + ?Sized)) {
        self.checked::<F>("Init", "fill");
        let (fan_out, fan_in) = (weight.nrows() as f64, weight.ncols() as f64);
        match self {
            Init::Constant(value) => weight.fill(F::of(value)),
            Init::Uniform { bound } => uniform(weight, bound, rng),
            Init::Normal { std } => normal(weight, std, rng),
            Init::XavierUniform { gain } => uniform(weight, gain * (6.0 / (fan_in + fan_out)).sqrt(), rng),
            Init::XavierNormal { gain } => normal(weight, gain * (2.0 / (fan_in + fan_out)).sqrt(), rng),
            Init::KaimingUniform { gain } => uniform(weight, gain * (3.0 / fan_in).sqrt(), rng),
            Init::KaimingNormal { gain } => normal(weight, gain / fan_in.sqrt(), rng),
            Init::Orthogonal { gain } => orthogonal(weight, gain, rng),
            Init::Chrono { t_max } => chrono(weight, t_max, rng),
        }
    }
}

fn uniform<F: Float>(weight: &mut ArrayRef2<F>, bound: f64, rng: &mut (impl Rng + ?Sized)) {
    weight.map_inplace(|value| *value = F::of(bound * (2.0 * rng.random::<f64>() - 1.0)));
}

fn normal<F: Float>(weight: &mut ArrayRef2<F>, std: f64, rng: &mut (impl Rng + ?Sized)) {
    weight.map_inplace(|value| *value = F::of(std * rng.sample::<f64, _>(StandardNormal)));
}

fn chrono<F: Float>(weight: &mut ArrayRef2<F>, t_max: f64, rng: &mut (impl Rng + ?Sized)) {
    weight.map_inplace(|value| *value = F::of((1.0 + (t_max - 2.0) * rng.random::<f64>()).ln()));
}

/// Gram-Schmidt over Gaussian vectors, each projected twice: one projection leaves an error that grows with the number of
/// vectors, two make the vectors orthogonal to working precision.
fn orthogonal<F: Float>(weight: &mut ArrayRef2<F>, gain: f64, rng: &mut (impl Rng + ?Sized)) {
    let (rows, columns) = weight.dim();
    let (count, size) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let mut vector: Vec<f64> = (0..size).map(|_| rng.sample(StandardNormal)).collect();
        let drawn = norm(&vector);
        for _ in 0..2 {
            for unit in &basis {
                let along = dot(unit, &vector);
                vector.iter_mut().zip(unit).for_each(|(value, &unit)| *value -= along * unit);
            }
        }
        let length = norm(&vector);
        // A draw that is almost linearly dependent on the others (never seen so far) would leave only rounding noise.
        if length > 1e-8 * drawn {
            vector.iter_mut().for_each(|value| *value /= length);
            basis.push(vector);
        }
    }
    let axis = if rows <= columns { Axis(0) } else { Axis(1) };
    for (mut line, vector) in weight.axis_iter_mut(axis).zip(&basis) {
        line.iter_mut().zip(vector).for_each(|(value, &unit)| *value = F::of(gain * unit));
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum([a, b], |[a, b]| a * b)
}

fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn draw(init: Init, shape: (usize, usize)) -> Array2<f64> {
        let mut weight = Array2::zeros(shape);
        init.fill(&mut weight, &mut StdRng::seed_from_u64(1));
        weight
    }

    #[test]
    fn orthogonal_has_orthonormal_rows_or_columns() {
        for shape in [(1, 1), (5, 5), (3, 7), (7, 3), (64, 64), (130, 70)] {
            let q = draw(Init::Orthogonal { gain: 1.5 }, shape);
            let gram = if shape.0 <= shape.1 { q.dot(&q.t()) } else { q.t().dot(&q) };
            let error =
                (gram / 2.25 - Array2::<f64>::eye(shape.0.min(shape.1))).fold(0.0, |worst: f64, e| worst.max(e.abs()));
            assert!(error < 1e-14, "{shape:?}: {error:e}");
        }
    }

    #[test]
    fn spreads_are_as_the_papers_say() {
        let (fan_out, fan_in) = (300.0, 200.0_f64);
        let std = |init| {
            let weight = draw(init, (300, 200));
            let mean = weight.mean().expect("not empty");
            assert!(mean.abs() < 1e-2, "{init:?}: mean {mean}");
            weight.std(0.0)
        };
        let gain = 2.0_f64.sqrt();
        for (init, want) in [
            (Init::Uniform { bound: 0.3 }, 0.3 / 3.0_f64.sqrt()),
            (Init::Normal { std: 0.2 }, 0.2),
            (Init::XavierUniform { gain }, gain * (2.0 / (fan_in + fan_out)).sqrt()),
            (Init::XavierNormal { gain }, gain * (2.0 / (fan_in + fan_out)).sqrt()),
            (Init::KaimingUniform { gain }, gain / fan_in.sqrt()),
            (Init::KaimingNormal { gain }, gain / fan_in.sqrt()),
        ] {
            let got = std(init);
            assert!((got / want - 1.0).abs() < 0.02, "{init:?}: {got} for {want}");
        }
        assert_eq!(draw(0.25.into(), (2, 2)), Array2::from_elem((2, 2), 0.25));
    }

    #[test]
    fn chrono_is_the_logarithm_of_a_uniform_number() {
        let u = draw(Init::Chrono { t_max: 101.0 }, (300, 200)).exp();
        assert!(u.iter().all(|&u| (1.0..100.0 + 1e-9).contains(&u)));
        // Uniform in [1, 100]: mean 50.5, standard deviation 99 / sqrt(12).
        assert!((u.mean().expect("not empty") / 50.5 - 1.0).abs() < 0.01);
        assert!((u.std(0.0) / (99.0 / 12.0_f64.sqrt()) - 1.0).abs() < 0.01);
        assert_eq!(draw(Init::Chrono { t_max: 2.0 }, (2, 2)), Array2::<f64>::zeros((2, 2)));
        for t_max in [1.9, -5.0, f64::NAN, f64::INFINITY] {
            assert!(std::panic::catch_unwind(|| draw(Init::Chrono { t_max }, (2, 2))).is_err(), "{t_max}");
        }
    }
}
