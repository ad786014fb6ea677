//! The times of single steps, each timed on its own.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use driver::Worker;

/// Steps of a side before the next one's turn.
const TURN: usize = 50_000;

/// Steps of a side before those that count, to warm up caches and clock rate.
const WARM_UP: usize = 10_000;

/// Readings of the clock that measure its cost.
const READINGS: usize = 100_000;

/// Nanoseconds of single steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    pub steps: usize,
    pub mean: f64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub worst: u64,
}

impl Latency {
    /// # Panics
    /// Panics if there are no times.
    fn new(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |share: f64| times[((share * times.len() as f64).ceil() as usize).clamp(1, times.len()) - 1];
        Latency {
            steps: times.len(),
            mean: times.iter().sum::<u64>() as f64 / times.len() as f64,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            worst: at(1.0),
        }
    }
}

/// Times `steps` steps of each worker, in turn; the workers were prepared with one step a run.
///
/// # Errors
/// If a worker fails.
pub fn in_turn(workers: &mut [&mut Worker], steps: usize) -> Result<Vec<Latency>, Box<dyn Error>> {
    let mut times = vec![Vec::with_capacity(steps); workers.len()];
    for worker in workers.iter_mut() {
        worker.each(WARM_UP)?;
    }
    let count = workers.len();
    for (round, start) in (0..steps).step_by(TURN).enumerate() {
        for turn in 0..count {
            let side = (round + turn) % count;
            times[side].extend(workers[side].each(TURN.min(steps - start))?);
        }
    }
    Ok(times.into_iter().map(Latency::new).collect())
}

/// The time that the clock adds to each step.
pub struct Clock {
    /// Two readings, one right after the other.
    pub cost: Latency,
    /// The smallest difference between two such times that are not equal: nanoseconds.
    pub resolution: u64,
}

impl Clock {
    pub fn measured() -> Self {
        let times: Vec<u64> = (0..READINGS).map(|_| elapsed(black_box(Instant::now()))).collect();
        let mut distinct = times.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let resolution = distinct.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(0);
        Clock { cost: Latency::new(times), resolution }
    }
}

fn elapsed(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let latency = Latency::new((1..=1000).rev().collect());
        let expected = Latency { steps: 1000, mean: 500.5, p50: 500, p99: 990, p999: 999, worst: 1000 };
        assert_eq!(latency, expected);
        assert_eq!(Latency::new(vec![7]), Latency { steps: 1, mean: 7.0, p50: 7, p99: 7, p999: 7, worst: 7 });
    }
}
