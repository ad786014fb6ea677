//! One point, every side in turn: A B C, B C A, … medians.

use std::error::Error;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use protocol::Point;

use crate::args::Args;
use crate::worker::Worker;
use crate::{agree, given};

/// Before a measurement; with several threads longer, for those that spin after their work before they sleep: ONNX Runtime's some 27 ms.
const PAUSE: Duration = Duration::from_millis(1);
const LONG_PAUSE: Duration = Duration::from_millis(50);

/// Where one measurement is longer, in seconds, there are only [`FEW_ROUNDS`] of it.
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
    pub rounds: usize,
}

/// A side that was not timed.
pub struct Refusal {
    pub name: String,
    pub reason: String,
    /// It gave something else, rather than nothing.
    pub disagrees: bool,
}

pub struct Measurement {
    pub point: Point,
    /// The median of one run, in seconds.
    pub ours: f64,
    pub peers: Vec<Timed>,
    /// Large products, measured in the same rounds.
    pub rates: Vec<Timed>,
}

/// A side with what one measurement of it is.
struct Side<'a> {
    worker: &'a mut Worker,
    is_rate: bool,
    iterations: u64,
    rounds: usize,
    seconds: Vec<f64>,
}

impl<'a> Side<'a> {
    /// Warms up, and finds out how often to run for a measurement of the wished length.
    fn calibrate(worker: &'a mut Worker, is_rate: bool, args: &Args) -> Result<Self, Box<dyn Error>> {
        let (mut iterations, mut seconds) = (1, worker.run(1)?);
        while seconds < args.target / 2.0 {
            iterations *= 2;
            seconds = worker.run(iterations)?;
        }
        let one = seconds / iterations as f64;
        let iterations = (args.target / one).ceil().max(1.0) as u64;
        let rounds = match one * iterations as f64 {
            long if long > SLOW => SLOW_ROUNDS.min(args.rounds),
            long if long > LONG => FEW_ROUNDS.min(args.rounds),
            _ => args.rounds,
        };
        Ok(Side { worker, is_rate, iterations, rounds, seconds: Vec::new() })
    }

    fn measure(&mut self, pause: Duration) -> Result<(), Box<dyn Error>> {
        sleep(pause);
        self.seconds.push(self.worker.run(self.iterations)? / self.iterations as f64);
        Ok(())
    }

    fn timed(mut self) -> Timed {
        Timed {
            name: self.worker.name.clone(),
            version: self.worker.version.clone(),
            seconds: median(&mut self.seconds),
            rounds: self.rounds,
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// No measurement where no peer has the point or agrees.
pub fn interleaved(
    point: &Point,
    us: &mut Worker,
    peers: &mut [&mut Worker],
    rates: &mut [Worker],
    threads: usize,
    args: &Args,
    scratch: &Path,
) -> Result<(Option<Measurement>, Vec<Refusal>), Box<dyn Error>> {
    let given = given::write(point, scratch)?;
    let mut refused = Vec::new();
    us.prepare(point, &given)?.map_err(|reason| format!("{point}: gradflow: {reason}"))?;
    let ours = us.outputs(scratch)?;
    let mut sides = vec![Side::calibrate(us, false, args)?];
    for worker in peers {
        let name = worker.name.clone();
        let prepared = worker.prepare(point, &given)?;
        if let Err(reason) = prepared {
            refused.push(Refusal { name, reason, disagrees: false });
        } else if let Err(reason) = agree::check(&ours, &worker.outputs(scratch)?, point.dtype) {
            refused.push(Refusal { name, reason, disagrees: true });
        } else {
            sides.push(Side::calibrate(worker, false, args)?);
        }
    }
    if sides.len() == 1 {
        return Ok((None, refused));
    }
    for worker in rates {
        worker.prepare(point, &given)?.map_err(|reason| format!("{point}: {}: {reason}", worker.name))?;
        sides.push(Side::calibrate(worker, true, args)?);
    }

    let pause = if threads == 1 { PAUSE } else { LONG_PAUSE };
    let (count, rounds) = (sides.len(), sides[0].rounds);
    for round in 0..rounds {
        for turn in 0..count {
            let side = &mut sides[(round + turn) % count];
            if round < side.rounds {
                side.measure(pause)?;
            }
        }
    }

    let mut timed = sides.into_iter().map(|side| (side.is_rate, side.timed()));
    let ours = timed.next().expect("gradflow").1.seconds;
    let (rates, peers): (Vec<_>, Vec<_>) = timed.partition(|(is_rate, _)| *is_rate);
    let without_mark = |list: Vec<(bool, Timed)>| list.into_iter().map(|(_, timed)| timed).collect();
    let measurement = Measurement { point: *point, ours, peers: without_mark(peers), rates: without_mark(rates) };
    Ok((Some(measurement), refused))
}
