//! A summary of the gradient norms of a training run.

use std::fmt;

/// Buckets per doubling: a quantile is off by at most 2^(1/32), 2.2%.
const PER_OCTAVE: i32 = 16;
/// The buckets reach from 2^-OCTAVES to 2^OCTAVES; values beyond fall into the outermost ones.
const OCTAVES: i32 = 48;
const BUCKETS: usize = (2 * OCTAVES * PER_OCTAVE) as usize;

/// A running summary of gradient norms, from which a limit for clipping can be chosen: count, mean, largest, quantiles.
///
/// Quantiles come from a histogram over the logarithm and are accurate to 2.2% for norms between 1e-14 and 1e14.
/// [`record`](NormSummary::record) allocates nothing.
///
/// ```
/// use gradflow::clip::NormSummary;
///
/// let mut norms = NormSummary::new();
/// for step in 1..=999 {
///     norms.record(f64::from(step) / 100.0); // what `clip_grad_norm` returned
/// }
/// assert!((norms.quantile(0.9).unwrap() / 9.0 - 1.0).abs() < 0.022);
/// assert_eq!(norms.to_string(), "999 norms: mean 5, median 5.08, 90% 8.92, 99% 9.72, largest 9.99");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NormSummary {
    buckets: Vec<u64>,
    count: u64,
    non_finite: u64,
    mean: f64,
    smallest: f64,
    largest: f64,
}

impl NormSummary {
    /// An empty summary.
    pub fn new() -> Self {
        NormSummary {
            buckets: vec![0; BUCKETS],
            count: 0,
            non_finite: 0,
            mean: 0.0,
            smallest: f64::INFINITY,
            largest: 0.0,
        }
    }

    /// Adds a norm. One that is not finite is only counted.
    ///
    /// # Panics
    /// Panics if `norm` is negative.
    #[track_caller]
    pub fn record(&mut self, norm: f64) {
        assert!(norm >= 0.0 || norm.is_nan(), "NormSummary: norm: expected a number, at least 0, got {norm}");
        if !norm.is_finite() {
            self.non_finite += 1;
            return;
        }
        self.count += 1;
        self.mean += (norm - self.mean) / self.count as f64;
        self.smallest = self.smallest.min(norm);
        self.largest = self.largest.max(norm);
        // A float's conversion saturates: log2(0) falls into the first bucket.
        let bucket = ((norm.log2() + f64::from(OCTAVES)) * f64::from(PER_OCTAVE)) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
    }

    /// The number of finite norms.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The number of norms that were infinite or NaN.
    #[must_use]
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }

    /// The mean of the finite norms, if there is one.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The smallest norm, if there is one.
    #[must_use]
    pub fn smallest(&self) -> Option<f64> {
        (self.count > 0).then_some(self.smallest)
    }

    /// The largest finite norm, if there is one.
    #[must_use]
    pub fn largest(&self) -> Option<f64> {
        (self.count > 0).then_some(self.largest)
    }

    /// The `q`-quantile of the finite norms, if there is one: the median for 0.5.
    ///
    /// # Panics
    /// Panics if `q` is not in `0..=1`.
    #[must_use]
    #[track_caller]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        assert!((0.0..=1.0).contains(&q), "NormSummary: quantile: expected a number in 0..=1, got {q}");
        let rank = ((q * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|&count| {
            seen += count;
            seen >= rank
        })?;
        let middle = ((bucket as f64 + 0.5) / f64::from(PER_OCTAVE) - f64::from(OCTAVES)).exp2();
        Some(middle.clamp(self.smallest, self.largest))
    }
}

impl Default for NormSummary {
    fn default() -> Self {
        NormSummary::new()
    }
}

impl fmt::Display for NormSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let non_finite = |f: &mut fmt::Formatter<'_>| match self.non_finite {
            0 => Ok(()),
            count => write!(f, ", {count} not finite"),
        };
        let (Some(mean), Some(median), Some(most), Some(all_but_few), Some(largest)) =
            (self.mean(), self.quantile(0.5), self.quantile(0.9), self.quantile(0.99), self.largest())
        else {
            f.write_str("no norms")?;
            return non_finite(f);
        };
        let [mean, median, most, all_but_few, largest] = [mean, median, most, all_but_few, largest].map(short);
        write!(
            f,
            "{} norms: mean {mean}, median {median}, 90% {most}, 99% {all_but_few}, largest {largest}",
            self.count
        )?;
        non_finite(f)
    }
}

/// Rounded to three digits.
fn short(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_norms_to_two_percent() {
        let rng = &mut StdRng::seed_from_u64(2);
        // Four orders of magnitude with a long tail.
        let mut norms: Vec<f64> = (0..5000).map(|_| (6.0 * rng.random::<f64>().powi(3)).exp() * 1e-3).collect();
        let mut summary = NormSummary::new();
        norms.iter().for_each(|&norm| summary.record(norm));
        norms.sort_by(f64::total_cmp);
        for q in [0.0, 0.001, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let want = norms[((q * 5000.0_f64).ceil() as usize).max(1) - 1];
            let got = summary.quantile(q).unwrap();
            assert!((got / want).log2().abs() <= 1.0 / 32.0 + 1e-12, "{q}: {got} for {want}");
        }
        let mean = norms.iter().sum::<f64>() / 5000.0;
        assert!((summary.mean().unwrap() / mean - 1.0).abs() < 1e-12);
        assert_eq!((summary.smallest(), summary.largest()), (Some(norms[0]), Some(norms[4999])));
    }

    #[test]
    fn zero_tiny_huge_and_non_finite_norms_have_their_place() {
        let mut summary = NormSummary::new();
        assert_eq!((summary.quantile(0.5), summary.mean(), summary.largest()), (None, None, None));
        assert_eq!(summary.to_string(), "no norms");
        for norm in [0.0, 1e-300, 1e300, f64::NAN, f64::INFINITY] {
            summary.record(norm);
        }
        assert_eq!((summary.count(), summary.non_finite()), (3, 2));
        assert_eq!((summary.smallest(), summary.largest()), (Some(0.0), Some(1e300)));
        let (low, high) = (summary.quantile(0.5).unwrap(), summary.quantile(1.0).unwrap());
        assert!(low < 1e-14 && high > 1e14, "{low:e}, {high:e}");
        assert!(summary.to_string().ends_with("2 not finite"), "{summary}");
        let mut one = NormSummary::new();
        one.record(0.123);
        assert_eq!(one.quantile(0.5), Some(0.123), "one norm is every quantile");
        assert!(catch_unwind(|| NormSummary::new().record(-1.0)).is_err());
        for q in [-0.1, 1.1, f64::NAN] {
            assert!(catch_unwind(|| NormSummary::new().quantile(q)).is_err());
        }
    }
}
