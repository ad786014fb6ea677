//! One point, every side in turn; medians.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use driver::turns::{Side, Timed, in_turn};
use driver::{Worker, agree, given};
use protocol::Point;

use crate::args::Args;

/// The pause before a measurement. With several threads it is longer, since some spin after their work before they sleep: ONNX
/// Runtime's for some 27 ms.
const PAUSE: Duration = Duration::from_millis(1);
const LONG_PAUSE: Duration = Duration::from_millis(50);

/// A side that was not timed.
pub struct Refusal {
    pub name: String,
    pub reason: String,
    /// Whether it gave a different result, rather than none.
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

/// Measures a point; there is no measurement if no peer has the point or agrees.
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
    let mut sides = vec![Side::calibrate(us, args.target, args.rounds)?];
    for worker in peers {
        let name = worker.name.clone();
        let prepared = worker.prepare(point, &given)?;
        if let Err(reason) = prepared {
            refused.push(Refusal { name, reason, disagrees: false });
        } else if let Err(reason) = agree::check(&ours, &worker.outputs(scratch)?, point.dtype) {
            refused.push(Refusal { name, reason, disagrees: true });
        } else {
            sides.push(Side::calibrate(worker, args.target, args.rounds)?);
        }
    }
    let peers = sides.len() - 1;
    if peers == 0 {
        return Ok((None, refused));
    }
    for worker in rates {
        worker.prepare(point, &given)?.map_err(|reason| format!("{point}: {}: {reason}", worker.name))?;
        sides.push(Side::calibrate(worker, args.target, args.rounds)?);
    }

    let mut timed = in_turn(sides, if threads == 1 { PAUSE } else { LONG_PAUSE })?.into_iter();
    let ours = timed.next().expect("gradflow").seconds;
    let peers = timed.by_ref().take(peers).collect();
    Ok((Some(Measurement { point: *point, ours, peers, rates: timed.collect() }), refused))
}
