//! Baselines for the forecasts.

use std::ops::RangeInclusive;

use gradflow::ndarray::{Array1, Array2};

use crate::series::{Forecasts, Series};

/// The length of the solar cycle, in years.
const CYCLE: usize = 11;

/// Forecasts every year as the one a cycle before it.
pub fn seasonal_naive(series: &Series, origins: RangeInclusive<usize>) -> Forecasts {
    Forecasts::new(series, origins, |origin, row| {
        row.iter_mut().zip(origin + 1 - CYCLE..).for_each(|(value, before)| *value = series.values()[before]);
    })
}

/// A linear autoregressive model, `x_t = c + Σ_k a_k x_{t-k}`, fitted by least squares.
pub struct Autoregressive {
    /// `c`, then `a_1` and so on.
    coefficients: Array1<f64>,
}

impl Autoregressive {
    pub fn fit(values: &[f64], order: usize) -> Self {
        let rows: Vec<_> = values.windows(order + 1).collect();
        let x =
            Array2::from_shape_fn((rows.len(), order + 1), |(row, k)| if k == 0 { 1.0 } else { rows[row][order - k] });
        let y: Array1<f64> = rows.iter().map(|row| row[order]).collect();
        Autoregressive { coefficients: solve(x.t().dot(&x), x.t().dot(&y)) }
    }

    pub fn order(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// Forecasts later years from the forecasts of the earlier ones.
    pub fn forecasts(&self, series: &Series, origins: RangeInclusive<usize>) -> Forecasts {
        let order = self.order();
        Forecasts::new(series, origins, |origin, row| {
            let mut known = series.values()[origin + 1 - order..=origin].to_vec();
            for value in row {
                let past = known.iter().rev().zip(self.coefficients.iter().skip(1));
                *value = self.coefficients[0] + past.map(|(x, a)| a * x).sum::<f64>();
                known.push(*value);
            }
        })
    }
}

/// The `x` of `A x = b` for a symmetric, positive definite `A`, by its Cholesky factor: `A = L Lᵀ`.
fn solve(mut a: Array2<f64>, mut b: Array1<f64>) -> Array1<f64> {
    let n = b.len();
    for j in 0..n {
        for i in j..n {
            let known: f64 = (0..j).map(|k| a[[i, k]] * a[[j, k]]).sum();
            let rest = a[[i, j]] - known;
            a[[i, j]] = if i == j { rest.sqrt() } else { rest / a[[j, j]] };
        }
    }
    for i in 0..n {
        let known: f64 = (0..i).map(|k| a[[i, k]] * b[k]).sum();
        b[i] = (b[i] - known) / a[[i, i]];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| a[[k, i]] * b[k]).sum();
        b[i] = (b[i] - known) / a[[i, i]];
    }
    b
}
