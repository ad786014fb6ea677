//! The worker's side.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Instant;
use std::{fs, process};

use crate::{Answer, Memory, Point, Request, Tensors};

/// A library that does the work.
pub trait Peer {
    /// Name and version, and the instructions or library that it computes with.
    fn version(&self) -> String;

    /// The model of a point with the given parameters `param.{name}`, its input `x` and, for training, `dy`.
    ///
    /// # Errors
    /// Why it cannot be done.
    fn prepare(&self, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String>;
}

/// A point, ready to run.
pub trait Work {
    /// The whole work once.
    fn run(&mut self);

    /// The results of the last run: `y`, and in training `dx` and `grad.{name}`.
    fn outputs(&mut self) -> Tensors;

    /// Bytes that are kept between forward and backward, if known.
    fn cache_bytes(&mut self) -> Option<u64> {
        None
    }
}

/// Answers the driver until it closes the pipe.
pub fn serve(peer: &dyn Peer) -> io::Result<()> {
    answer(&Answer::Version(peer.version()))?;
    let mut work: Option<(Point, Box<dyn Work>)> = None;
    for line in io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let reply = match request {
            Request::Prepare { point, given } => {
                work = None;
                match peer.prepare(&point, &Tensors::open(&given)?) {
                    Ok(ready) => {
                        work = Some((point, ready));
                        Answer::Done
                    }
                    Err(reason) => Answer::Cannot(reason),
                }
            }
            Request::Outputs { to } => {
                let (point, work) = work.as_mut().expect("a point was prepared");
                work.run();
                work.outputs().save(&to, point.dtype)?;
                Answer::Done
            }
            Request::Run { iterations } => {
                let (_, work) = work.as_mut().expect("a point was prepared");
                let start = Instant::now();
                (0..iterations).for_each(|_| work.run());
                Answer::Seconds(start.elapsed().as_secs_f64())
            }
            Request::Each { runs } => {
                let (_, work) = work.as_mut().expect("a point was prepared");
                Answer::Nanoseconds(each(work.as_mut(), runs))
            }
            Request::Memory { point, given, iterations } => {
                work = None;
                memory(peer, &point, &given, iterations)?
            }
        };
        answer(&reply)?;
    }
    Ok(())
}

fn answer(answer: &Answer) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// The nanoseconds of each run, those of the clock included.
fn each(work: &mut dyn Work, runs: usize) -> Vec<u64> {
    let mut times = vec![0; runs];
    for time in &mut times {
        let start = Instant::now();
        work.run();
        *time = u64::try_from(start.elapsed().as_nanos()).expect("less than five centuries");
    }
    times
}

fn memory(peer: &dyn Peer, point: &Point, given: &Path, iterations: u64) -> io::Result<Answer> {
    let tensors = Tensors::open(given)?;
    let before = resident("VmRSS:")?;
    let mut work = match peer.prepare(point, &tensors) {
        Ok(work) => work,
        Err(reason) => return Ok(Answer::Cannot(reason)),
    };
    reset_peak()?;
    (0..iterations).for_each(|_| work.run());
    let peak = resident("VmHWM:")?.saturating_sub(before);
    Ok(Answer::Memory(Memory { peak, cache: work.cache_bytes() }))
}

/// A line of this process's status, in bytes. Linux only.
fn resident(key: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process::id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::Error::other(format!("no {key} in the status")))
}

/// Resets the peak to the current resident size. Linux only.
fn reset_peak() -> io::Result<()> {
    fs::write(format!("/proc/{}/clear_refs", process::id()), "5")
}
