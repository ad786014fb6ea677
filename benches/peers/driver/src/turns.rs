//! Sides that are timed in turn: A B C, B C A, …

use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

use crate::Worker;

/// If one measurement is longer than this, in seconds, there are only [`FEW_ROUNDS`] of it.
const LONG: f64 = 0.5;
const FEW_ROUNDS: usize = 5;

/// A side that is slower than this takes part in [`SLOW_ROUNDS`] rounds.
const SLOW: f64 = 2.0;
const SLOW_ROUNDS: usize = 2;

pub struct Timed {
    pub name: String,
    pub version: String,
    /// The median of one run.
    pub seconds: f64,
    /// The shortest of one run.
    pub best: f64,
    pub rounds: usize,
}

/// A side, and the size of one measurement of it.
pub struct Side<'a> {
    worker: &'a mut Worker,
    iterations: u64,
    rounds: usize,
    seconds: Vec<f64>,
}

impl<'a> Side<'a> {
    /// Warms up, and finds out how often to run for a measurement of `target` seconds.
    ///
    /// # Errors
    /// If the worker fails.
    pub fn calibrate(worker: &'a mut Worker, target: f64, rounds: usize) -> Result<Self, Box<dyn Error>> {
        let (mut iterations, mut seconds) = (1, worker.run(1)?);
        while seconds < target / 2.0 {
            iterations *= 2;
            seconds = worker.run(iterations)?;
        }
        let one = seconds / iterations as f64;
        let iterations = (target / one).ceil().max(1.0) as u64;
        let rounds = match one * iterations as f64 {
            long if long > SLOW => SLOW_ROUNDS.min(rounds),
            long if long > LONG => FEW_ROUNDS.min(rounds),
            _ => rounds,
        };
        Ok(Side { worker, iterations, rounds, seconds: Vec::new() })
    }

    fn measure(&mut self, pause: Duration) -> Result<(), Box<dyn Error>> {
        sleep(pause);
        self.seconds.push(self.worker.run(self.iterations)? / self.iterations as f64);
        Ok(())
    }

    fn timed(mut self) -> Timed {
        self.seconds.sort_by(f64::total_cmp);
        Timed {
            name: self.worker.name.clone(),
            version: self.worker.version.clone(),
            seconds: median(&self.seconds),
            best: self.seconds[0],
            rounds: self.rounds,
        }
    }
}

/// The median of sorted values.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Times every side in turn, for as many rounds as the first has; `pause` comes before each measurement.
///
/// # Errors
/// If a worker fails.
pub fn in_turn(mut sides: Vec<Side<'_>>, pause: Duration) -> Result<Vec<Timed>, Box<dyn Error>> {
    let (count, rounds) = (sides.len(), sides.first().map_or(0, |side| side.rounds));
    for round in 0..rounds {
        for turn in 0..count {
            let side = &mut sides[(round + turn) % count];
            if round < side.rounds {
                side.measure(pause)?;
            }
        }
    }
    Ok(sides.into_iter().map(Side::timed).collect())
}
