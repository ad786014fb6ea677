//! Gradient norms over a distance, of several seeds.

use std::fmt;

use crate::common::Claims;
use crate::common::picture::Line;

/// The norms that one kind of network has at the distances 0, 1, 2 … from the loss.
pub struct Flow {
    /// The name of the network.
    pub name: String,
    /// For each seed, by the distance.
    pub norms: Vec<Vec<f64>>,
}

/// The slope of ln(norm), over the seeds.
#[derive(Clone, Copy)]
pub struct Slope {
    /// Per step or layer.
    pub mean: f64,
    /// The standard deviation; 0 for a single seed.
    pub deviation: f64,
}

impl fmt::Display for Slope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.3} ± {:.3}", self.mean, self.deviation)
    }
}

impl Flow {
    /// The same norms with another name.
    pub fn named(self, name: &str) -> Self {
        Flow { name: name.into(), ..self }
    }

    /// The slope of ln(norm) from the distance `from` on.
    pub fn slope(&self, from: usize) -> Slope {
        let slopes: Vec<f64> = self.norms.iter().map(|norms| slope(norms, from)).collect();
        let count = slopes.len() as f64;
        let mean = slopes.iter().sum::<f64>() / count;
        let squares: f64 = slopes.iter().map(|slope| (slope - mean).powi(2)).sum();
        Slope { mean, deviation: (squares / (count - 1.0).max(1.0)).sqrt() }
    }

    /// Adds the claim that the slope from the distance `from` on is what theory says: from `low` to `high`.
    pub fn judge(
        &self,
        what: &str,
        published: &str,
        from: usize,
        (low, high): (f64, f64),
        tolerance: f64,
        claims: &mut Claims,
    ) {
        let slope = self.slope(from);
        let range = if low == high { format!("{low:+.3}") } else { format!("{low:+.3} to {high:+.3}") };
        let tolerance_text = if tolerance < 1e-3 { format!("{tolerance:e}") } else { tolerance.to_string() };
        claims.check(
            what,
            published,
            format!("{range}, ± {tolerance_text}"),
            format!("{slope}, {:.1e} at the end", self.farthest()),
            (low - tolerance..=high + tolerance).contains(&slope.mean),
        );
    }

    /// The norm at the farthest distance, as a geometric mean over the seeds: one exact 0 makes it 0.
    pub fn farthest(&self) -> f64 {
        let last = self.norms[0].len() - 1;
        self.mean(last)
    }

    fn mean(&self, distance: usize) -> f64 {
        let logs: f64 = self.norms.iter().map(|norms| norms[distance].ln()).sum();
        (logs / self.norms.len() as f64).exp()
    }

    /// The geometric mean as a line, with a band from the lowest seed to the highest; of every `sparse`-th distance.
    pub fn line(&self, style: usize, sparse: usize) -> Line {
        let distances = (0..self.norms[0].len()).filter(|distance| distance % sparse == 0);
        let points = distances.clone().map(|distance| (distance as f64, self.mean(distance)));
        let band = distances.step_by(2).map(|distance| {
            let norms = self.norms.iter().map(|norms| norms[distance]);
            (distance as f64, norms.clone().fold(f64::INFINITY, f64::min), norms.fold(0.0, f64::max))
        });
        Line::new(&self.name, style, points.collect()).band(band.collect())
    }
}

/// The least-squares slope of ln(norm) over the distance. An exact 0 has no logarithm and is left out; if fewer than two norms
/// remain, the slope is NaN.
pub fn slope(norms: &[f64], from: usize) -> f64 {
    let points = norms.iter().enumerate().skip(from).filter(|&(_, &norm)| norm != 0.0);
    let points: Vec<(f64, f64)> = points.map(|(distance, norm)| (distance as f64, norm.ln())).collect();
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), point| {
        (above + (point.0 - x) * (point.1 - y), below + (point.0 - x).powi(2))
    });
    above / below
}
