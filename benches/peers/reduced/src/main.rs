//! Recurrent cells with weights in fewer bits, compared with PyTorch's and ONNX Runtime's in turn: see ../README.md.

mod args;
mod report;
mod sides;

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use args::Args;
use driver::build::make_python;
use driver::turns::{self, Timed};
use driver::{Scratch, Worker, agree, given};
use protocol::{Dtype, Mode, Point};
use report::{Report, Row};
use sides::Side;

/// The pause before a measurement.
const PAUSE: Duration = Duration::from_millis(1);

/// The largest relative difference from f32 weights, in the Euclidean norm, that counts as one of precision.
const MOST: f64 = 0.1;

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
    make_python()?;
    let scratch = Scratch::new()?;
    let mut workers = sides::ALL.into_iter().map(Side::start).collect::<Result<Vec<_>, _>>()?;
    let mut report = Report::new(&workers, args.rounds);
    for &cell in &args.cells {
        for &steps in &args.steps {
            for &hidden in &args.hidden {
                let (mode, dtype) = (Mode::Infer, Dtype::F32);
                let (batch, vocabulary) = (args.batch, 0);
                let point = Point { cell, mode, dtype, steps, batch, input: hidden, hidden, depth: 1, vocabulary };
                let row = measure(&args, point, &mut workers, &scratch)?;
                eprintln!("{}", row.line());
                report.rows.push(row);
            }
        }
    }
    report.write(&args.out)?;
    println!("{}", report.markdown());
    eprintln!("written: {}", args.out.display());
    Ok(())
}

/// Compares all sides with the first, then times them.
fn measure(args: &Args, point: Point, workers: &mut [Worker], scratch: &Scratch) -> Result<Row, Box<dyn Error>> {
    let file = given::write(&point, scratch.path())?;
    let mut taking_part = Vec::new();
    for (side, worker) in sides::ALL.into_iter().zip(workers) {
        match worker.prepare(&point, &file)? {
            Ok(()) => taking_part.push((side, worker)),
            Err(reason) => eprintln!("{point}: {}: {reason}", worker.name),
        }
    }
    let outputs: Vec<_> =
        taking_part.iter_mut().map(|(_, worker)| worker.outputs(scratch.path())).collect::<Result<_, _>>()?;
    let full = &outputs[0].get("y").values;
    let error = |outputs: &protocol::Tensors| agree::relative_difference(full, &outputs.get("y").values);
    let errors: Vec<f64> = outputs.iter().map(error).collect();
    for ((side, _), &error) in taking_part.iter().zip(&errors) {
        if error.is_nan() || error > MOST {
            return Err(format!("{point}: {} disagrees: {error:.1e}", side.name()).into());
        }
    }
    let names: Vec<Side> = taking_part.iter().map(|(side, _)| *side).collect();
    let calibrate = |(_, worker)| turns::Side::calibrate(worker, args.target, args.rounds);
    let timed = turns::in_turn(taking_part.into_iter().map(calibrate).collect::<Result<_, _>>()?, PAUSE)?;
    let sides = names.into_iter().zip(timed).zip(errors);
    let sides = sides
        .map(|((side, Timed { best, seconds, .. }), error)| (side, report::Measured { best, median: seconds, error }));
    Ok(Row { point, sides: sides.collect() })
}
