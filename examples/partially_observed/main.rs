//! A policy with memory and the same policy without it, trained by policy gradient in a T-maze (Bakker 2002): a sign at the start
//! says which way to turn at the end of a corridor.
//!
//! ```text
//! cargo run --release --example partially_observed
//! ```
//!
//! All places of the corridor look alike, so at the junction only memory tells the way. Without memory no policy is right more often
//! than a coin, 1/2, whatever it learns.
//!
//! 64 mazes are walked in parallel, and episodes differ in length, so each row of a batch holds many, one after the other. A mask
//! of [resets](gradflow::Sequence::with_resets) tells where each begins. The policy without memory is the same LSTM with a reset at
//! every step.
//!
//! Differences from the paper: the agent cannot go back, so it finds the junction by chance; it learns by an actor-critic method
//! with full gradients instead of advantage learning with eligibility traces; corridors are shorter than the paper's longest, 70.

mod agent;
#[path = "../common/mod.rs"]
mod common;
mod maze;

use std::process::ExitCode;

use agent::{Agent, Memory};
use common::picture::{Chart, Line, picture};
use common::{Claims, Failure, Flag, Settings, in_parallel};

/// A corridor's length and how often its agents are trained.
struct Course {
    corridor: usize,
    updates: usize,
}

/// The outcome of a training.
struct Outcome {
    success: f64,
    shares: Vec<f64>, // of right turns, by update
}

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse(
        "A policy with memory and one without in a T-maze.\n\n    \
         cargo run --release --example partially_observed -- [flags]",
        &[Flag { name: "updates", value: "N", help: "updates of each training [500]" }],
    )?;
    let file = settings.picture("partially_observed")?;
    let updates = settings.whole("updates", 1..=1_000_000, if settings.quick { 150 } else { 500 })?;
    let corridors: &[usize] = if settings.quick { &[5] } else { &[5, 10, 20, 40] };
    let courses: Vec<Course> = corridors.iter().map(|&corridor| Course { corridor, updates }).collect();
    let seeds: Vec<u64> = settings.seeds(if settings.quick { 2 } else { 5 }).collect();

    let mut jobs = Vec::new();
    for (c, memory) in (0..courses.len()).flat_map(|c| [Memory::Episode, Memory::None].map(|memory| (c, memory))) {
        jobs.extend(seeds.iter().map(|&seed| (c, memory, seed)));
    }
    let outcomes = in_parallel(jobs, |(c, memory, seed)| {
        let Course { corridor, updates } = courses[c];
        let mut agent = Agent::new(memory, corridor, seed);
        let shares = agent.train(updates);
        Outcome { success: agent.succeeds(seed + 1000), shares }
    });

    let mut claims = Claims::new(&settings);
    let runs: Vec<&[Outcome]> = outcomes.chunks(seeds.len()).collect();
    for (course, pair) in courses.iter().zip(runs.chunks(2)) {
        judge(course, pair[0], pair[1], &mut claims);
    }
    println!("picture: {}", file.write(&draw(&courses, &runs)?)?.display());
    println!("\nSuccess: new episodes that end with the right turn in at most twice the steps that they need.");
    claims.finish()
}

fn percent(runs: &[Outcome]) -> String {
    let (least, most) = range(runs.iter().map(|run| run.success));
    format!("{:.0} to {:.0} %", 100.0 * least, 100.0 * most)
}

fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
}

fn judge(course: &Course, with: &[Outcome], without: &[Outcome], claims: &mut Claims) {
    let corridor = course.corridor;
    // One seed in ten fails, and another machine rounds differently.
    let least = with.len().div_ceil(2);
    let solved = with.iter().filter(|run| run.success > 0.95).count();
    let name = format!("corridor of {corridor}: LSTM");
    let expected = format!("above 95 % for at least {least} of {}", with.len());
    claims.check(name, "", expected, format!("{solved} of {}: {}", with.len(), percent(with)), solved >= least);
    let most = range(without.iter().map(|run| run.success)).1;
    let name = format!("corridor of {corridor}: without memory");
    claims.check(name, "a coin: 50 %", "at most 65 %", percent(without), most <= 0.65);
}

/// Draws success by the corridor's length, and the progress of the trainings of the longest.
fn draw(courses: &[Course], runs: &[&[Outcome]]) -> Result<String, Failure> {
    let names = [("LSTM", 0), ("without memory", 4)];
    let mut success = Chart::new("length of the corridor", "success (%)")
        .title("New episodes with the right turn, by the corridor's length: mean and range of the seeds")
        .y_range(0.0..105.0)
        .rule(50.0, "a coin");
    let mut course = Chart::new("updates", "right turns (%)")
        .title(format!("Training in a corridor of {}: mean of the seeds", courses[courses.len() - 1].corridor))
        .y_range(0.0..105.0)
        .rule(50.0, "a coin");
    for (k, (name, style)) in names.into_iter().enumerate() {
        let of_memory = || courses.iter().zip(runs.iter().skip(k).step_by(2));
        let point = |(course, runs): (&Course, &&[Outcome])| {
            let mean = runs.iter().map(|run| run.success).sum::<f64>() / runs.len() as f64;
            (course.corridor as f64, 100.0 * mean)
        };
        let band = |(course, runs): (&Course, &&[Outcome])| {
            let (least, most) = range(runs.iter().map(|run| run.success));
            (course.corridor as f64, 100.0 * least, 100.0 * most)
        };
        let line = Line::new(name, style, of_memory().map(point).collect()).band(of_memory().map(band).collect());
        success = success.line(line.markers());
        let longest = runs[runs.len() - 2 + k];
        let at = |update: usize| longest.iter().map(|run| run.shares[update]).sum::<f64>() / longest.len() as f64;
        let smooth = |from: usize| (from..from + 10).map(at).sum::<f64>() / 10.0;
        let updates = courses[courses.len() - 1].updates / 10 * 10;
        let points = (0..updates).step_by(10).map(|from| (from as f64 + 5.0, 100.0 * smooth(from)));
        course = course.line(Line::new(name, style, points.collect()));
    }
    picture(640, &[&[&success], &[&course]])
}
