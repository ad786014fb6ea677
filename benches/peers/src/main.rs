//! gradflow and its peers, interleaved in one run: see README.md.

mod args;
mod gradflow;
mod grid;
mod measure;
mod peers;
mod report;

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use args::{Args, Task};
use driver::{Scratch, Worker, given, machine};
use measure::{Measurement, Refusal};
use peers::Settings;
use protocol::{Cell, Mode, Point};
use report::Results;

/// The load average of a minute above which other work disturbs the measurements.
const BUSY: f64 = 1.5;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let done = match arguments.next().as_deref() {
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
    let points = grid::points(&args);
    if args.task == Task::List {
        points.iter().for_each(|point| println!("{point}"));
        return Ok(true);
    }
    let mut results = Results::open(&args.out)?;
    if args.task == Task::Report {
        results.write()?;
        return Ok(true);
    }
    peers::make_ready(&args.peers, &args.threads)?;
    let scratch = Scratch::new()?;
    let mut all_agreed = true;
    for &threads in &args.threads {
        let settings = Settings { threads, isa: args.isa };
        match args.task {
            Task::Memory => memory(&args, &points, &settings, scratch.path())?,
            _ => all_agreed &= time(&args, &points, &settings, scratch.path(), &mut results)?,
        }
    }
    if args.task == Task::Time {
        println!();
        report::print_summary(&results.of_run());
        results.write()?;
        println!("\nwritten: {}", args.out.display());
    }
    Ok(all_agreed)
}

fn time(
    args: &Args,
    points: &[Point],
    settings: &Settings,
    scratch: &Path,
    results: &mut Results,
) -> Result<bool, Box<dyn Error>> {
    let mut us = peers::start("gradflow", settings)?;
    us.version = machine::gradflow_version();
    let mut others = Vec::new();
    for peer in &args.peers {
        match peers::cannot_at_all(peer, settings) {
            Some(reason) => println!("{peer}: left out: {reason}"),
            None => others.push(peers::start(peer, settings)?),
        }
    }
    let mut rates = Vec::new();
    if points.iter().any(grid::is_sgemm_point) {
        rates = vec![peers::start("sgemm", settings)?, peers::start("sgemm_square", settings)?];
    }
    println!("\n# {}, {} instructions", args::plural(settings.threads, "thread"), settings.isa.name());
    for worker in [&us].into_iter().chain(&others) {
        println!("# {}", worker.version);
    }
    if let Some(load) = machine::load().filter(|&load| load > BUSY) {
        println!(
            "# the machine has other work (load {load}): the ratios are worth little, those of several threads nothing"
        );
    }
    let mut all_agreed = true;
    let mut said = HashSet::new();
    for point in points {
        let mut sides: Vec<&mut Worker> =
            others.iter_mut().filter(|peer| !(args.resume && results.has(point, settings, &peer.name))).collect();
        if sides.is_empty() {
            continue;
        }
        let with_rates = grid::is_sgemm_point(point);
        let rate_sides = if with_rates { &mut rates[..] } else { &mut [] };
        let (measurement, refused) =
            measure::interleaved(point, &mut us, &mut sides, rate_sides, settings.threads, args, scratch)?;
        if let Some(measurement) = measurement {
            println!("{}", line(&measurement));
            results.add(&measurement, &us.version, settings)?;
        }
        for Refusal { name, reason, disagrees } in refused {
            all_agreed &= !disagrees;
            if disagrees {
                println!("# {name} DISAGREES: {point}: {reason}");
            } else if said.insert((name.clone(), point.cell, point.mode)) {
                println!("# {name}: no {} {}: {reason}", point.cell.name(), point.mode.name());
            }
        }
    }
    Ok(all_agreed)
}

/// A point's line: our time and rate, then every peer's time as a multiple of ours.
fn line(measurement: &Measurement) -> String {
    let Measurement { point, ours, peers, rates } = measurement;
    let mut line = format!("{:<38}", point.to_string());
    line += &format!("gradflow {:>9.3} ms {:>6.1} GFLOP/s ", 1e3 * ours, 1e-9 * point.flops() / ours);
    for peer in peers {
        line += &format!("| {} {:.2} ", peer.name, peer.seconds / ours);
    }
    for rate in rates {
        let rate_flops = grid::product_flops(&rate.name, point) / rate.seconds;
        line += &format!("| {:.3} of {} {:.1} ", point.flops() / ours / rate_flops, rate.name, 1e-9 * rate_flops);
    }
    line.trim_end().to_owned()
}

/// Peak memory of training, each side in a fresh process.
fn memory(args: &Args, points: &[Point], settings: &Settings, scratch: &Path) -> Result<(), Box<dyn Error>> {
    let mut rows = Vec::new();
    for point in points.iter().filter(|point| point.mode == Mode::Train) {
        let given = given::write(point, scratch)?;
        let mut measured = Vec::new();
        for name in ["gradflow"].into_iter().chain(args.peers.iter().map(String::as_str)) {
            let mut worker = peers::start(name, settings)?;
            if let Some(memory) = worker.memory(&grid::warm_up(point), point, &given, scratch)? {
                measured.push((name.to_owned(), memory));
            }
        }
        let row = report::MemoryRow { point: *point, threads: settings.threads, measured };
        println!("{row}");
        rows.push(row);
        fs::remove_file(given)?;
    }
    report::write_memory(&args.out, &rows)?;
    Ok(())
}

/// The cells' names as a report writes them.
pub fn title(cell: Cell) -> &'static str {
    match cell {
        Cell::Lstm => "LSTM",
        Cell::Gru => "GRU",
        Cell::Rnn => "RNN (tanh)",
        Cell::Residual => "Residual blocks",
    }
}
