//! Numbers from words to digits, "four hundred and seven" to 407, by an encoder and a decoder: with attention and without
//! it, the words read forwards and backwards (Sutskever, Vinyals and Le 2014; Bahdanau, Cho and Bengio 2015).
//!
//! ```text
//! cargo run --release --example seq2seq
//! cargo run --release --example seq2seq -- --translate "four hundred and seven"
//! ```
//!
//! One LSTM reads the words, another starts from its last state and writes the digits. Without attention, that state is all it
//! knows of the words; with attention, it also uses the encoder's outputs at every digit. The models have about the same number of
//! parameters (53 units instead of 48 without attention), see the same number of examples, and have the same clipping. Learning
//! rate and forget bias are chosen for each of the four models with the first seed, on numbers kept for that. An answer is right if
//! every digit and the end are right; the test numbers are below a thousand billion, and no model was trained on them.
//!
//! The papers translate English into French with four layers of 1000 units, or with one of 1000 in both directions, and measure
//! BLEU; here is one layer of about 50 in one direction. So only the order of the models is compared with the papers.

#[path = "../common/mod.rs"]
mod common;
mod compare;
mod data;
mod model;
mod training;
mod translate;
mod words;

use std::process::ExitCode;

use gradflow::ndarray::Array2;

use common::picture::{Chart, HeatMap, picture};
use common::{Claims, Failure, Flag, Settings};

use compare::{LEARNED, Plan, Runs, compare};
use data::source;
use model::{Answer, Shape, Translator};
use training::{Outcome, Setting};
use words::{DIGITS, END, word, words};

/// The number whose attention is drawn: its words fit into the picture.
const SHOWN: u64 = 407_260;

/// A number with at least this many digits is long.
const LONG: usize = 10;

/// How the models look in the picture, in their order.
const STYLES: [usize; 4] = [0, 1, 2, 3];

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse(
        "Number words to digits, with and without attention, read forwards and backwards.\n\n    \
         cargo run --release --example seq2seq -- [flags]",
        &[
            Flag { name: "translate", value: "WORDS", help: "answer, instead of comparing; - reads lines" },
            Flag { name: "save", value: "FILE", help: "keep the model of --translate there" },
            Flag { name: "load", value: "FILE", help: "translate with a kept model, without training" },
        ],
    )?;
    let plan = if settings.quick {
        Plan { hidden: 48, rates: &[3e-2], forget_biases: &[1.0], updates: 250, seeds: settings.seeds(2) }
    } else {
        let rates = &[1e-2, 3e-2, 1e-1];
        Plan { hidden: 48, rates, forget_biases: &[1.0, 3.0], updates: 1000, seeds: settings.seeds(5) }
    };
    if settings.switch("translate") {
        let phrase = settings.get("translate", "words", |_| true, String::new())?;
        let shape = Shape { hidden: plan.hidden, attention: true, backwards: true, forget_bias: 1.0 };
        return translate::run(&phrase, Setting { shape, learning_rate: 3e-2 }, plan.updates, &settings);
    }
    if let Some(flag) = ["save", "load"].into_iter().find(|flag| settings.switch(flag)) {
        return Err(Failure::Usage(format!("--{flag} makes no sense without --translate")));
    }

    let out = settings.picture("seq2seq")?;
    let all = compare(&plan);
    print(&all);
    println!("\npicture: {}", out.write(&draw(&all)?)?.display());
    let mut claims = Claims::new(&settings);
    judge(&all, settings.quick, &mut claims);
    println!(
        "\nPublished: BLEU from English to French, Bahdanau et al. 2015 (sentences of up to 50 words in training) for"
    );
    println!("attention, Sutskever et al. 2014 for the order of reading.");
    claims.finish()
}

/// Prints the results of every model, and of every setting.
fn print(all: &[Runs]) {
    println!(
        "\nmodel                    parameters  learned  test numbers right      of {LONG} digits and more   forget bias, rate"
    );
    for runs in all {
        let Runs { name, setting: Setting { shape, learning_rate }, .. } = runs;
        let [total, long] = [runs.total(), runs.spread(|outcome| outcome.accuracy(LONG..=DIGITS))]
            .map(|[low, mean, high]| format!("{mean:.1} % ({low:.1} to {high:.1})"));
        let (parameters, learned) = (runs.parameters(), runs.learned());
        let setting = format!("{}, {learning_rate}", shape.forget_bias);
        println!("{name:<23}  {parameters:>10}  {learned:<7}  {total:<22}  {long:<22}  {setting}");
    }
    println!("\nLearned: at least {} % right. Every setting, seed 0, validation numbers right:", 100.0 * LEARNED);
    for runs in all.iter().filter(|runs| runs.grid.len() > 1) {
        for (Setting { shape, learning_rate }, share) in &runs.grid {
            let (bias, share) = (shape.forget_bias, 100.0 * share);
            println!("  {:<23}  forget bias {bias}  rate {learning_rate:<5}  {share:.1} %", runs.name);
        }
    }
}

fn judge(all: &[Runs], quick: bool, claims: &mut Claims) {
    let [forwards, backwards, none_forwards, none_backwards] = all else { unreachable!("four models") };
    let range = |[low, mean, high]: [f64; 3]| format!("{mean:.1} % ({low:.1} to {high:.1})");
    for (with, without, order, published) in
        [(forwards, none_forwards, "forwards", "26.8 BLEU, 17.8 without"), (backwards, none_backwards, "backwards", "")]
    {
        let ([low, ..], [.., high]) = (with.total(), without.total());
        let what = format!("attention against none, {order}");
        let here = format!("{} against {}", range(with.total()), range(without.total()));
        claims.check(what, published, "every seed better than each without", here, low > high);
        if !quick {
            let what = format!("attention, {order}: learned (95 % right)");
            claims.check(what, "", "5 of 5", with.learned(), with.learned() == "5 of 5");
            claims.note(format!("no attention, {order}: learned"), "", "", without.learned());
        }
    }
    let [there, back] = [none_forwards, none_backwards].map(|runs| runs.total()[1]);
    let (what, published) = ("no attention: backwards against forwards", "30.6 BLEU, 25.9 forwards");
    let here = format!("{back:.1} % against {there:.1} %");
    if quick {
        claims.note(what, published, "", here);
    } else {
        claims.check(what, published, "higher mean", here, back > there);
    }
    let long = |runs: &Runs| runs.spread(|outcome: &Outcome| outcome.accuracy(LONG..=DIGITS))[1];
    for runs in all {
        claims.note(format!("{}: {LONG} digits and more", runs.name), "", "", format!("{:.1} %", long(runs)));
    }
}

fn draw(all: &[Runs]) -> Result<String, Failure> {
    let chart = |x: &str, title: &str| Chart::new(x, "answers right (%)").title(title);
    let mut by_digits = chart("digits of the number", "Test numbers without a mistake: mean and range of the seeds");
    let mut by_numbers = chart("numbers seen (thousands)", "The same while training, on validation numbers");
    for (runs, style) in all.iter().zip(STYLES) {
        by_digits = by_digits.line(runs.by_digits(style));
        by_numbers = by_numbers.line(runs.by_numbers(style));
    }
    let map = attention_map(&all[0].outcomes[0].model);
    picture(1100, &[&[&by_digits], &[&by_numbers], &[&map]])
}

/// Where the decoder looks for each digit of a number.
fn attention_map(model: &Translator) -> HeatMap {
    let ids = words(SHOWN);
    let answer = model.translate(&source([ids.clone()])).pop();
    let Answer { digits, looked_at } = answer.expect("one answer for one phrase");
    let weights: Array2<f64> = looked_at.mapv(f64::from);
    let written = digits.iter().chain([&END]).take(weights.nrows());
    let rows = written.map(|&digit| if digit == END { "end".into() } else { digit.to_string() }).collect();
    let columns = ids.iter().map(|&id| word(id).to_owned()).collect();
    HeatMap::table(weights, rows, columns)
        .names("words read", "digits written", "weight")
        .title("Where the decoder looks for each digit (attention, forwards, first seed)")
        .range(0.0..1.0)
}
