//! gradflow's streams and nexus-inference, in turn: see ../README.md.

mod args;
mod latency;
mod reference;
mod report;
mod sides;

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use args::Args;
use driver::turns::{self, Timed};
use driver::{Scratch, Worker, agree, given, machine};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use latency::Clock;
use protocol::{Cell, Dtype, Mode, Point, Tensors};
use report::{Delays, Report, Speed};
use sides::Side;

/// Steps of a run, and of the sequence that is compared.
const STEPS: usize = 4096;

/// Hidden sizes whose single steps are timed one by one.
const LATENCY_HIDDEN: [usize; 3] = [8, 16, 32];

/// The pause before a measurement.
const PAUSE: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", name] => match Side::named(name) {
            Some(side) => protocol::serve(&side).map_err(Into::into),
            None => Err(format!("{name}: no side").into()),
        },
        _ => run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let Some(args) = Args::parse()? else { return Ok(()) };
    let scratch = Scratch::new()?;
    let mut workers = sides::ALL.into_iter().map(Side::start).collect::<Result<Vec<_>, _>>()?;
    let mut report = Report::new(&workers, args.rounds, Clock::measured());
    for &cell in &args.cells {
        for &hidden in &args.hidden {
            eprintln!("{} H{hidden}", cell.name());
            let speed = speed(&args, cell, hidden, &mut workers, &scratch)?;
            report.speeds.push(speed);
        }
    }
    for &cell in &args.cells {
        for hidden in LATENCY_HIDDEN.into_iter().filter(|hidden| args.hidden.contains(hidden) && args.steps > 0) {
            eprintln!("{} H{hidden}, single steps", cell.name());
            let (point, given) = point(cell, hidden, 1);
            prepare(&mut workers, &point, &given, &scratch)?;
            let single = |side: &Side| side.is_single();
            let chosen = sides::ALL.iter().zip(&mut workers).filter(|(side, _)| single(side));
            let times = latency::in_turn(&mut chosen.map(|(_, worker)| worker).collect::<Vec<_>>(), args.steps)?;
            let sides = sides::ALL.into_iter().filter(single).zip(times).collect();
            report.delays.push(Delays { cell, hidden, sides });
        }
    }
    report.load_after = machine::load();
    report.write(&args.out)?;
    println!("{}", report.markdown());
    eprintln!("written: {}", args.out.display());
    Ok(())
}

/// A cell with a dense head, one number in and one out; `steps` is the length of a run.
fn point(cell: Cell, hidden: usize, steps: usize) -> (Point, Tensors) {
    let (mode, dtype) = (Mode::Infer, Dtype::F32);
    let point = Point { cell, mode, dtype, steps, batch: 1, input: 1, hidden, depth: 1, vocabulary: 0 };
    let mut given = given::tensors(&Point { steps: STEPS, ..point });
    let (rng, bound) = (&mut StdRng::seed_from_u64(1), 1.0 / (hidden as f64).sqrt());
    given.insert("param.head.weight", given::uniform(rng, [1, hidden], 0.0, bound));
    given.insert("param.head.bias", given::uniform(rng, [1], 0.0, bound));
    (point, given)
}

fn prepare(workers: &mut [Worker], point: &Point, given: &Tensors, scratch: &Scratch) -> Result<(), Box<dyn Error>> {
    let file = given::save(given, point, scratch.path())?;
    for worker in workers {
        let name = worker.name.clone();
        worker.prepare(point, &file)?.map_err(|reason| format!("{point}: {name}: {reason}"))?;
    }
    Ok(())
}

/// Compares all sides, then times them.
fn speed(
    args: &Args,
    cell: Cell,
    hidden: usize,
    workers: &mut [Worker],
    scratch: &Scratch,
) -> Result<Speed, Box<dyn Error>> {
    let (point, given) = point(cell, hidden, STEPS);
    prepare(workers, &point, &given, scratch)?;
    let outputs = workers.iter_mut().map(|worker| worker.outputs(scratch.path())).collect::<Result<Vec<_>, _>>()?;
    for (worker, theirs) in workers.iter().zip(&outputs) {
        let agrees = agree::check(&outputs[0], theirs, point.dtype);
        agrees.map_err(|reason| format!("{point}: {} disagrees: {reason}", worker.name))?;
    }
    // The parameters and inputs as all sides have them: rounded to f32.
    let given = Tensors::open(&given::save(&given, &point, scratch.path())?)?;
    let exact = reference::outputs(&point, &given);
    let error = |outputs: &Tensors| agree::relative_difference(&exact, &outputs.get("y").values);
    let errors = outputs.iter().map(error).collect();

    let sides = workers.iter_mut().map(|worker| turns::Side::calibrate(worker, args.target, args.rounds));
    let mut timed = turns::in_turn(sides.collect::<Result<_, _>>()?, PAUSE)?;
    for Timed { seconds, best, .. } in &mut timed {
        *seconds /= STEPS as f64;
        *best /= STEPS as f64;
    }
    Ok(Speed { cell, hidden, timed, errors })
}
