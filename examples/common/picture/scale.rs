//! The scale of an axis: maps numbers to places.

use std::ops::Range;

/// One axis: a range of numbers, linear or logarithmic.
#[derive(Clone, Debug)]
pub struct Scale {
    range: Range<f64>, // of log10 if logarithmic
    log: bool,
}

impl Scale {
    /// A scale for a range of numbers; on a logarithmic axis both ends are above 0.
    pub fn new(range: Range<f64>, log: bool) -> Self {
        let range = if log { range.start.log10()..range.end.log10() } else { range };
        Scale { range: if range.start < range.end { range } else { range.start - 0.5..range.start + 0.5 }, log }
    }

    /// A scale around `values`: on a logarithmic axis whole powers of ten around those above 0, otherwise with a small margin.
    pub fn around(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let values = values.filter(|value| value.is_finite() && (!log || *value > 0.0));
        let values = values.map(|value| if log { value.log10() } else { value });
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let range = match (low <= high, log) {
            (false, _) => 0.0..1.0,
            (true, true) => low.floor()..high.ceil().max(low.floor() + 1.0),
            (true, false) => {
                let air = if low < high { 0.05 * (high - low) } else { 0.5 };
                // A range that starts near 0 starts there.
                let start = if low >= 0.0 && low <= 0.5 * high { 0.0 } else { low - air };
                start..high + air
            }
        };
        Scale { range, log }
    }

    /// A scale from the lowest to the highest of `values`, without a margin.
    pub fn exactly(values: impl Iterator<Item = f64> + Clone, log: bool) -> Self {
        let values = values.filter(|value| value.is_finite() && (!log || *value > 0.0));
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        if low <= high { Scale::new(low..high, log) } else { Scale { range: 0.0..1.0, log } }
    }

    /// Whether it is logarithmic.
    pub fn is_log(&self) -> bool {
        self.log
    }

    /// The place of a number: 0 at the low end and 1 at the high one, not finite if it has no place.
    pub fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        (value - self.range.start) / (self.range.end - self.range.start)
    }

    /// At most about `most` places with their labels.
    pub fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        let Range { start, end } = self.range;
        let slack = 1e-9 * (end - start);
        if !self.log {
            let step = step((end - start) / most as f64);
            let digits = (-step.log10().floor()).max(0.0) as usize;
            let (first, last) = (((start - slack) / step).ceil() as i64, ((end + slack) / step).floor() as i64);
            // Adding 0 turns -0 into 0.
            return (first..=last)
                .map(|k| k as f64 * step + 0.0)
                .map(|value| (self.place(value), format!("{value:.digits$}")))
                .collect();
        }
        let (first, last) = ((start - slack).ceil() as i32, (end + slack).floor() as i32);
        let values: Vec<f64> = if end - start > 1.5 {
            let stride = ((end - start) / most as f64).ceil().max(1.0) as i32;
            (first..=last).filter(|power| power.rem_euclid(stride) == 0).map(|power| 10f64.powi(power)).collect()
        } else {
            let within = |value: &f64| (start - slack..=end + slack).contains(&value.log10());
            let powers = (first - 1..=last).map(|power| 10f64.powi(power));
            powers.flat_map(|power| [power, 2.0 * power, 5.0 * power]).filter(within).collect()
        };
        let plain = values.iter().all(|&value| (0.9e-3..1.1e5).contains(&value));
        values.into_iter().map(|value| (self.place(value), label(value, plain))).collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|k| k * power)
        .into_iter()
        .find(|&step| step >= least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

fn label(value: f64, plain: bool) -> String {
    if !plain && value != 1.0 {
        return format!("{value:.0e}");
    }
    let digits = (-value.log10() - 1e-9).ceil().max(0.0) as usize;
    format!("{value:.digits$}")
}
