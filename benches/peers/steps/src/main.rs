//! Whole training steps of gradflow and its peers, in turn: see ../README.md.

mod args;
mod gradflow;
mod peers;
mod points;
mod report;

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use args::Args;
use driver::turns::{Side, in_turn};
use driver::{Scratch, Worker, agree, given, machine};
use protocol::Point;
use report::{Report, Row};

/// The pause before a measurement. With several threads it is longer, since some spin after their work before they sleep.
const PAUSE: Duration = Duration::from_millis(1);
const LONG_PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let done = match env::args().nth(1).as_deref() {
        Some("worker") => protocol::serve(&gradflow::Gradflow).map(|()| true).map_err(Into::into),
        _ => run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all peers agreed.
fn run() -> Result<bool, Box<dyn Error>> {
    let Some(args) = Args::parse()? else { return Ok(true) };
    let points = points::points(&args);
    if args.list {
        points.iter().for_each(|point| println!("{}", points::name(point)));
        return Ok(true);
    }
    peers::make_ready(&args.peers, &args.threads)?;
    let scratch = Scratch::new()?;
    let mut report = Report::new();
    for &threads in &args.threads {
        let mut us = peers::start("gradflow", threads)?;
        us.version = machine::gradflow_version();
        let mut others = args.peers.iter().map(|peer| peers::start(peer, threads)).collect::<Result<Vec<_>, _>>()?;
        report.has_versions([&us].into_iter().chain(&others));
        for point in &points {
            let row = measure(&args, *point, threads, &mut us, &mut others, &scratch, &mut report.refusals)?;
            println!("{}", row.line());
            report.rows.push(row);
            report.write(&args.out)?;
        }
    }
    println!("\n{}", report.markdown());
    eprintln!("written: {}", args.out.display());
    Ok(report.refusals.iter().all(|refusal| !refusal.contains(DISAGREES)))
}

const DISAGREES: &str = "DISAGREES";

/// Compares the results of ten steps, then times single steps.
fn measure(
    args: &Args,
    point: Point,
    threads: usize,
    us: &mut Worker,
    others: &mut [Worker],
    scratch: &Scratch,
    refusals: &mut Vec<String>,
) -> Result<Row, Box<dyn Error>> {
    let file = given::write(&point, scratch.path())?;
    us.prepare(&point, &file)?.map_err(|reason| format!("{point}: gradflow: {reason}"))?;
    let ours = us.outputs(scratch.path())?;
    let mut sides = vec![Side::calibrate(us, args.target, args.rounds)?];
    for worker in others {
        let name = worker.name.clone();
        let mut refuse = |text: String| {
            let text = format!("{} x{threads}: {name}: {text}", points::name(&point));
            println!("# {text}");
            refusals.push(text);
        };
        if let Err(reason) = worker.prepare(&point, &file)? {
            refuse(reason);
            continue;
        }
        let theirs = worker.outputs(scratch.path())?;
        if let Err(reason) = agree::check(&ours, &theirs, point.dtype) {
            refuse(format!("{DISAGREES}: {reason}"));
            continue;
        }
        sides.push(Side::calibrate(worker, args.target, args.rounds)?);
    }
    let timed = in_turn(sides, if threads == 1 { PAUSE } else { LONG_PAUSE })?;
    Ok(Row { point, threads, timed })
}
