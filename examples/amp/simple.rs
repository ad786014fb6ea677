//! Models that a network must beat: a linear one with a memory, and a curve without one.

/// A linear filter, y_n = Σ_k h_k x_{n-k}.
pub struct Filter(Vec<f64>);

impl Filter {
    /// The filter of `taps` coefficients with the least squared error, from the normal equations.
    pub fn fit(x: &[f32], y: &[f32], taps: usize) -> Self {
        let correlation = |a: &[f32], b: &[f32], lag: usize| -> f64 {
            a[lag..].iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let own: Vec<f64> = (0..taps).map(|lag| correlation(x, x, lag)).collect();
        let mut with: Vec<f64> = (0..taps).map(|lag| correlation(y, x, lag)).collect();
        // Cholesky: A = L Lᵀ, A_ij = own_|i-j|. The diagonal is a little larger, for frequencies that the guitar does not have.
        let mut l = vec![vec![0.0; taps]; taps];
        for i in 0..taps {
            for j in 0..=i {
                let sum: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
                let ridge = if i == j { 1e-9 * own[0] } else { 0.0 };
                let rest = own[i - j] + ridge - sum;
                l[i][j] = if i == j { rest.sqrt() } else { rest / l[j][j] };
            }
        }
        for i in 0..taps {
            with[i] = (with[i] - (0..i).map(|k| l[i][k] * with[k]).sum::<f64>()) / l[i][i];
        }
        for i in (0..taps).rev() {
            with[i] = (with[i] - (i + 1..taps).map(|k| l[k][i] * with[k]).sum::<f64>()) / l[i][i];
        }
        Filter(with)
    }

    pub fn run(&self, x: &[f32]) -> Vec<f32> {
        let sample =
            |n: usize| self.0.iter().take(n + 1).enumerate().map(|(k, h)| h * f64::from(x[n - k])).sum::<f64>();
        (0..x.len()).map(|n| sample(n) as f32).collect()
    }
}

/// A curve from input to output: the mean of the outputs around each of several points, joined by straight lines.
pub struct Curve(Vec<f64>);

impl Curve {
    pub fn fit(x: &[f32], y: &[f32], points: usize) -> Self {
        let (mut sums, mut counts) = (vec![0.0; points], vec![0.0; points]);
        for (x, y) in x.iter().zip(y) {
            let (at, share) = place(*x, points);
            for (at, share) in [(at, 1.0 - share), (at + 1, share)] {
                sums[at] += share * f64::from(*y);
                counts[at] += share;
            }
        }
        Curve(sums.iter().zip(&counts).map(|(sum, count)| if *count > 0.0 { sum / count } else { 0.0 }).collect())
    }

    pub fn run(&self, x: &[f32]) -> Vec<f32> {
        let sample = |x: &f32| {
            let (at, share) = place(*x, self.0.len());
            ((1.0 - share) * self.0[at] + share * self.0[at + 1]) as f32
        };
        x.iter().map(sample).collect()
    }
}

/// The point below `x` of a curve from -1 to 1, and the fraction of the way from it to the next one.
fn place(x: f32, points: usize) -> (usize, f64) {
    let at = (f64::from(x).clamp(-1.0, 1.0) + 1.0) / 2.0 * (points - 1) as f64;
    let below = (at as usize).min(points - 2);
    (below, at - below as f64)
}
