//! Letters to phonemes: how is a written word spoken? An LSTM that reads the letters from both ends is trained by connectionist
//! temporal classification (CTC), which needs no alignment of letters and phonemes (Graves et al. 2006; Rao, Peng, Sak and Beaufays
//! 2015). It is compared with an LSTM that reads forwards, and with a table of the most frequent pronunciation of each letter
//! between its neighbours.
//!
//! ```text
//! cargo run --release --example pronounce
//! ```
//!
//! Published for the whole dictionary and 512 units: 25.8 % of the words wrong. Here there are 17,000 words to learn from, 64 units and
//! one layer, so only the order of the models is claimed. Each letter is two steps of the input, since some letters are two phonemes. A
//! word is right if all of its phonemes are; stress is left out.
//!
//! An LSTM that reads forwards does not know the letters that follow: at the c, "cent" and "cant" look the same to it. It can give
//! a phoneme some steps late, but only as long as there are steps left.

#[path = "../common/mod.rs"]
mod common;
mod lookup;
mod model;
mod words;

use std::process::ExitCode;

use common::picture::{Chart, Line, Panel, picture};
use common::{Claims, Failure, Progress, Settings, in_parallel};
use lookup::Lookup;
use model::{Errors, Outcome, Plan, Reading};
use words::Words;

/// The most neighbours of a letter on each side in the table.
const WIDTH: usize = 3;

/// Test words that are printed.
const SHOWN: usize = 12;

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse(
        "How a written word is spoken: an LSTM trained by CTC, and a table.\n\n    \
         cargo run --release --example pronounce -- [flags]",
        &[
            common::Flag { name: "epochs", value: "N", help: "passes over the words [8]" },
            common::Flag { name: "hidden", value: "N", help: "units of a direction [64]" },
        ],
    )?;
    let file = settings.picture("pronounce")?;
    let (epochs, hidden, train) = if settings.quick { (4, 32, 3000) } else { (8, 64, 17_000) };
    let epochs = settings.whole("epochs", 1..=1000, epochs)?;
    let hidden = settings.whole("hidden", 1..=4096, hidden)?;
    let words = Words::load(train)?;

    let lookup = Lookup::learn(&words.train, WIDTH);
    let of = |words: &[words::Word], width: usize| {
        Errors::of(words, words.iter().map(|word| lookup.speak(&word.letters, width)))
    };
    let tables: Vec<Errors> = (0..=WIDTH).map(|width| of(&words.test, width)).collect();

    // With the same number of parameters: reading forwards has one direction, which is wider.
    let both = Plan { reading: Reading::Both, hidden, epochs, learning_rate: 0.01 };
    let forwards = Plan { reading: Reading::Forwards, hidden: hidden * 3 / 2, ..both };
    let seeds = settings.seeds(if settings.quick { 2 } else { 5 });
    let jobs: Vec<_> =
        [both, forwards].into_iter().flat_map(|plan| seeds.clone().map(move |seed| (plan, seed))).collect();
    let progress = Progress::new(jobs.len());
    let outcomes = in_parallel(jobs, |(plan, seed): (Plan, u64)| {
        let outcome = plan.train(&words, seed);
        if let Ok(outcome) = &outcome {
            progress.step(format!(
                "{:?}, seed {seed}: {} of phonemes wrong",
                plan.reading,
                percent(outcome.test.phonemes)
            ));
        }
        outcome
    });
    progress.finish();
    let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (both, forwards) = outcomes.split_at(outcomes.len() / 2);

    print(&words, &tables, both, forwards);
    let mut claims = Claims::new(&settings);
    judge(&tables, both, forwards, settings.quick, &mut claims);
    let of_validation: Vec<f64> = (0..=WIDTH).map(|width| of(&words.validation, width).phonemes).collect();
    println!("\npicture: {}", file.write(&draw(&of_validation, both, forwards)?)?.display());
    claims.finish()
}

/// One of the error rates.
type Rate = fn(&Errors) -> f64;

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The mean over seeds, the lowest and the highest.
fn spread(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> String {
    let values: Vec<f64> = outcomes.iter().map(of).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    format!("{} ({:.1} to {:.1})", percent(mean), 100.0 * lowest(&values), 100.0 * highest(&values))
}

fn lowest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn highest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Prints the table of all models, and the pronunciation of some words.
fn print(words: &Words, tables: &[Errors], both: &[Outcome], forwards: &[Outcome]) {
    println!("{:<34}{:>10}  {:<24}{:<24}", "of 2000 test words", "parameters", "phonemes wrong", "words wrong");
    for (width, errors) in tables.iter().enumerate() {
        let name = match width {
            0 => "table: the letter alone".into(),
            1 => "table: one neighbour a side".into(),
            _ => format!("table: up to {width} neighbours a side"),
        };
        println!("{name:<34}{:>10}  {:<24}{:<24}", "", percent(errors.phonemes), percent(errors.words));
    }
    for (name, outcomes) in [("LSTM, forwards", forwards), ("LSTM, from both ends", both)] {
        let (phonemes, wrong) = (spread(outcomes, |o| o.test.phonemes), spread(outcomes, |o| o.test.words));
        println!("{name:<34}{:>10}  {phonemes:<24}{wrong:<24}", outcomes[0].parameters);
        let (phonemes, wrong) = (spread(outcomes, |o| o.beam.phonemes), spread(outcomes, |o| o.beam.words));
        println!("{:<34}{:>10}  {phonemes:<24}{wrong:<24}", "  by beam search", "");
    }
    println!("\nThe first test words, by the first LSTM from both ends:");
    for (word, said) in words.test.iter().zip(&both[0].said).take(SHOWN) {
        let is = if *said == word.phonemes { String::new() } else { format!("for {}", words.spoken(&word.phonemes)) };
        println!("  {:<16}{:<32}{is}", word.text(), words.spoken(said));
    }
}

/// The claims.
fn judge(tables: &[Errors], both: &[Outcome], forwards: &[Outcome], quick: bool, claims: &mut Claims) {
    let worst =
        |outcomes: &[Outcome], of: Rate| highest(&outcomes.iter().map(|outcome| of(&outcome.test)).collect::<Vec<_>>());
    // The quick form has enough words for a table, but not for an LSTM.
    let (tables, share, text) = match quick {
        true => (&tables[..1], 0.9, "every seed below 0.9 of the letter alone"),
        false => (tables, 0.85, "every seed below 0.85 of the best table"),
    };
    let best = |of: Rate| lowest(&tables.iter().map(of).collect::<Vec<_>>());
    let measures: [(&str, Rate); 2] =
        [("phonemes wrong", |errors| errors.phonemes), ("words wrong", |errors| errors.words)];
    for (name, of) in measures {
        let here = format!("{} against {}", spread(both, |outcome| of(&outcome.test)), percent(best(of)));
        let published = if name == "words wrong" { "25.8 % (all words)" } else { "" };
        claims.check(format!("from both ends: {name}"), published, text, here, worst(both, of) < share * best(of));
    }
    let least = lowest(&forwards.iter().map(|outcome| outcome.test.phonemes).collect::<Vec<_>>());
    let here = format!("{} against {}", spread(both, |o| o.test.phonemes), spread(forwards, |o| o.test.phonemes));
    let holds = worst(both, |errors| errors.phonemes) < least;
    claims.check(
        "from both ends against forwards: phonemes wrong",
        "",
        "every seed better than each forwards",
        here,
        holds,
    );
    let mean = |of: fn(&Outcome) -> f64| both.iter().map(of).sum::<f64>() / both.len() as f64;
    let (likeliest, beam) = (mean(|outcome| outcome.test.words), mean(|outcome| outcome.beam.words));
    let here = format!("{} against {}", percent(beam), percent(likeliest));
    claims.note("beam search against the likeliest classes: words wrong", "", "", here);
}

/// Errors on the validation words after each epoch.
fn draw(tables: &[f64], both: &[Outcome], forwards: &[Outcome]) -> Result<String, Failure> {
    let mut chart = Chart::new("passes over the words", "phonemes wrong (%)").y_range(0.0..50.0);
    // The line of two neighbours is too near to that of three to have its own name.
    for (width, name) in [(0, "table: the letter alone"), (1, "one neighbour a side"), (WIDTH, "up to three a side")] {
        chart = chart.rule(100.0 * tables[width], name);
    }
    for (name, style, outcomes) in [("LSTM, forwards", 1, forwards), ("LSTM, from both ends", 0, both)] {
        let at = |epoch: usize| outcomes.iter().map(|outcome| 100.0 * outcome.curve[epoch]).collect::<Vec<_>>();
        let epochs = 1..outcomes[0].curve.len();
        let points = epochs.clone().map(|epoch| (epoch as f64, at(epoch).iter().sum::<f64>() / outcomes.len() as f64));
        let band = epochs.clone().map(|epoch| (epoch as f64, lowest(&at(epoch)), highest(&at(epoch))));
        chart = chart.line(Line::new(name, style, points.collect()).band(band.collect()));
    }
    picture(640, &[&[&chart as &dyn Panel]])
}
