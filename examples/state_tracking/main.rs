//! State tracking: at every step, a model gives the product of all elements of a group so far. Trained on 40 steps, tested on 2048.
//!
//! ```text
//! cargo run --release --example state_tracking
//! ```
//!
//! The groups are parity (0 and 1, whether the number of ones is odd) and S3 (the six permutations of three things, whose product
//! depends on their order). The effect of a new element on the state depends on the state: it swaps two things, whichever they are.
//! An RNN, LSTM, GRU or sLSTM, whose step has a product of h, learns that once and for all. In a minGRU or minLSTM, a step scales
//! each unit of the state by a number from 0 to 1 that depends on the input alone. Such a recurrence cannot tell an odd number of
//! steps from an even one (Sarrof, Veitsman and Hahn 2024; Grazzi et al. 2025), and the solution that it finds for short sequences
//! does not work for long ones. That is the price of a recurrence without a product, whose steps are fast.
//!
//! Accuracy is scaled: 0 is guessing, 1 is no mistake. The cells with a product have one layer, those without one have two, so that
//! the reason is not a lack of depth. All have 32 units, see batches of 64 sequences, and have the same learning rate and the same
//! maximum number of updates; a training ends as soon as its loss is below 0.001 nats.
//!
//! Published figures are for larger models of other kinds: the sLSTM's parity and Mamba's, trained on 40 steps and tested on up to
//! 256 (Grazzi et al. 2025, table 1).

#[path = "../common/mod.rs"]
mod common;
mod group;
mod training;

use std::process::ExitCode;

use common::picture::{Chart, Line, Panel, picture};
use common::{Claims, Failure, Flag, Progress, Settings, in_parallel};
use group::Group;
use training::{Kind, Outcome, PARTS, Plan, TESTED, TRAINED};

const HIDDEN: usize = 32;
const LEARNING_RATE: f64 = 0.006;

/// The mean scaled accuracy past the steps of training: at least, for a model that follows the state, and at most, for one that
/// does not.
const FOLLOWS: f64 = 0.95;
const GUESSES: f64 = 0.05;

/// A kind of model on a group, and the outcome of each seed.
struct Runs {
    group: Group,
    kind: Kind,
    outcomes: Vec<Outcome>,
}

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse(
        "Cells with a product in their recurrence and without, on parity and on permutations.\n\n    \
         cargo run --release --example state_tracking -- [flags]",
        &[Flag { name: "updates", value: "N", help: "updates of each training at most [3000]" }],
    )?;
    let file = settings.picture("state_tracking")?;
    let updates = settings.whole("updates", 50..=1_000_000, if settings.quick { 600 } else { 3000 })?;
    let groups: &[Group] = if settings.quick { &[Group::Parity] } else { &[Group::Parity, Group::S3] };
    let seeds = settings.seeds(if settings.quick { 2 } else { 5 });

    let mut jobs = Vec::new();
    for &group in groups {
        for kind in Kind::ALL {
            let plan = Plan { group, kind, hidden: HIDDEN, learning_rate: LEARNING_RATE, updates };
            jobs.extend(seeds.clone().map(|seed| (plan, seed)));
        }
    }
    let progress = Progress::new(jobs.len());
    let outcomes = in_parallel(jobs, |(plan, seed)| {
        let outcome = plan.run(seed);
        if let Ok(Outcome { updates, long, .. }) = &outcome {
            let (group, kind) = (plan.group.name(), plan.kind.name());
            progress.step(format!("{group}, {kind}, seed {seed}: {long:.3} after {updates} updates"));
        }
        outcome
    });
    progress.finish();
    let mut outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter();
    let count = (seeds.end - seeds.start) as usize;
    let mut runs = Vec::new();
    for &group in groups {
        for kind in Kind::ALL {
            runs.push(Runs { group, kind, outcomes: outcomes.by_ref().take(count).collect() });
        }
    }

    print(&runs);
    println!("\npicture: {}", file.write(&draw(&runs)?)?.display());
    let mut claims = Claims::new(&settings);
    runs.iter().for_each(|runs| judge(runs, &mut claims));
    claims.finish()
}

impl Runs {
    /// The mean of a number over the seeds.
    fn mean(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        self.outcomes.iter().map(of).sum::<f64>() / self.outcomes.len() as f64
    }

    /// The least and the largest.
    fn range(&self, of: impl Fn(&Outcome) -> f64) -> [f64; 2] {
        let values = || self.outcomes.iter().map(&of);
        [values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max)]
    }
}

fn print(runs: &[Runs]) {
    println!("\nScaled accuracy, mean over the seeds: at the steps of training, past them, and at the last ones");
    println!("  group   model    parameters  updates  1 to {TRAINED}  to {TESTED}  last {}", TESTED / PARTS);
    for runs in runs {
        let (group, kind, parameters) = (runs.group.name(), runs.kind.name(), runs.outcomes[0].parameters);
        let last = |outcome: &Outcome| outcome.parts[PARTS - 1];
        let numbers = [runs.mean(|outcome| outcome.short), runs.mean(|outcome| outcome.long), runs.mean(last)];
        let [short, long, last] = numbers.map(|x| format!("{x:.3}"));
        let updates = runs.mean(|outcome| outcome.updates as f64);
        println!("  {group:<6}  {kind:<7}  {parameters:>10}  {updates:>7.0}  {short:>7}  {long:>7}  {last:>7}");
    }
}

/// Claims that a cell with a product follows the state to the end of the test, and that one without does not.
fn judge(runs: &Runs, claims: &mut Claims) {
    let published = match (runs.group, runs.kind) {
        (Group::Parity, Kind::Slstm) => "1.000",
        (Group::Parity, Kind::MinGru) => "0.000 (Mamba)",
        _ => "",
    };
    let what = format!("{}, {}: steps {} to {TESTED}", runs.group.name(), runs.kind.name(), TRAINED + 1);
    let (mean, [least, most]) = (runs.mean(|outcome| outcome.long), runs.range(|outcome| outcome.long));
    let here = format!("{mean:.3} ({least:.3} to {most:.3})");
    if runs.kind.has_product() {
        claims.check(what, published, format!("at least {FOLLOWS}"), here, mean >= FOLLOWS);
    } else {
        claims.check(what, published, format!("at most {GUESSES}"), here, mean <= GUESSES);
    }
}

/// A chart for each group.
fn draw(runs: &[Runs]) -> Result<String, Failure> {
    let chart = |runs: &[Runs]| {
        let chart = Chart::new("step of the test", "scaled accuracy")
            .title(format!("{}, trained on {TRAINED} steps", runs[0].group.name()))
            .y_range(-0.1..1.1);
        runs.iter().zip([4, 0, 3, 1, 2, 6]).fold(chart, |chart, (runs, style)| {
            let step = |part: usize| ((part + 1) * TESTED / PARTS) as f64;
            let points = (0..PARTS).map(|k| (step(k), runs.mean(|outcome| outcome.parts[k]))).collect();
            let band = (0..PARTS).map(|k| {
                let [least, most] = runs.range(|outcome| outcome.parts[k]);
                (step(k), least, most)
            });
            chart.line(Line::new(runs.kind.name(), style, points).band(band.collect()))
        })
    };
    let charts: Vec<Chart> = runs.chunks(Kind::ALL.len()).map(chart).collect();
    let rows: Vec<[&dyn Panel; 1]> = charts.iter().map(|chart| [chart as &dyn Panel]).collect();
    picture(320 * charts.len() as u32, &rows.iter().map(|row| row.as_slice()).collect::<Vec<_>>())
}
