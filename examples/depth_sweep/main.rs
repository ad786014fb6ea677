//! How deep can a net be and still be trained? Plain, residual, highway and dense nets of 5 to 100 layers, on images of
//! handwritten digits (after Srivastava, Greff and Schmidhuber 2015, figure 1).
//!
//! ```text
//! cargo run --release --example depth_sweep
//! ```
//!
//! A layer has the same number of parameters in every kind of net: 37 units in a plain or residual one, 26 in a highway one, which
//! has two matrices; a dense net's layers grow, and have as many on average. For each kind and depth, one of five learning rates
//! and one of the kind's initialisations are chosen by the training loss of the first seed, and used for the other seeds. All nets
//! get the same number of updates, by gradient descent with momentum 0.9 and gradients clipped at 1. The test images, the last 500,
//! are used once, by the trained nets.
//!
//! Scaled down from the paper: 8 x 8 images, 1297 of them, instead of MNIST's 60,000 of 28 x 28; 37 and 26 units instead
//! of 71 and 50; 40 epochs instead of up to 400; grids instead of 100 random settings, and constant learning rates; the
//! paper has neither residual nor dense nets nor orthogonal weights.
//!
//! Plain nets are hard to train because of their initialisation, not because they are plain: with the paper's initial weights they
//! fail, and with orthogonal ones they train (a separate line). And a highway net is one only while its gates let the input
//! through: another line shows 100 layers whose gate bias starts at -2.

#[path = "../common/mod.rs"]
mod common;
mod digits;
mod net;
mod sweep;
mod training;

use std::process::ExitCode;

use common::picture::{Chart, picture};
use common::{Claims, Failure, Settings};

use digits::Digits;
use net::Block;
use sweep::{Kind, Plan, Runs, TRAINED, over_depth, over_epochs, sweep};

/// The kinds of nets, and the initialisations of each.
const KINDS: [Kind; 5] = [
    Kind { name: "plain", blocks: &[Block::Tanh, Block::Relu] },
    Kind { name: "plain, orthogonal", blocks: &[Block::Orthogonal] },
    Kind { name: "residual", blocks: &[Block::Residual] },
    Kind { name: "highway", blocks: &[Block::Highway(-2.0), Block::Highway(-4.0), Block::Highway(-6.0)] },
    Kind { name: "dense", blocks: &[Block::Dense] },
];

/// The style of each in the pictures.
const STYLES: [usize; 5] = [0, 3, 2, 4, 1];

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse(
        "Plain, residual, highway and dense nets of 5 to 100 layers, trained on handwritten digits.\n\n    \
         cargo run --release --example depth_sweep -- [flags]",
        &[],
    )?;
    let out = settings.picture("depth_sweep")?;
    let digits = Digits::read()?;
    let plan = if settings.quick {
        Plan { depths: &[5, 50], rates: &[0.1, 0.03], epochs: 10, seeds: settings.seeds(2) }
    } else {
        Plan {
            depths: &[5, 10, 20, 50, 100],
            rates: &[0.3, 0.1, 0.03, 0.01, 0.003],
            epochs: 40,
            seeds: settings.seeds(5),
        }
    };
    let all = sweep(&digits, &KINDS, &plan);
    print(&all);
    println!("\npicture: {}", out.write(&draw(&all)?)?.display());

    let mut claims = Claims::new(&settings);
    if settings.quick {
        judge_quickly(&all, &mut claims)
    } else {
        judge(&all, &mut claims)
    }
    claims.finish()
}

/// Prints the results of every net, and of every setting at the greatest depth.
fn print(all: &[Vec<Runs>]) {
    println!(
        "\nkind               layers  per layer  trained  loss, and over the seeds      test accuracy           setting"
    );
    for (kind, runs) in KINDS.iter().zip(all) {
        for runs in runs {
            let (name, depth, parameters, rate) = (kind.name, runs.setting.depth, runs.parameters(), runs.rate());
            let [low, loss, high] = runs.spread(|outcome| outcome.loss);
            let [worst, accuracy, best] = runs.spread(|outcome| 100.0 * outcome.accuracy);
            let losses = format!("{loss:.5} ({low:.5} to {high:.5})");
            let accuracies = format!("{accuracy:.1} % ({worst:.1} to {best:.1})");
            let setting = format!("{}; rate {}", runs.setting.block, runs.setting.learning_rate);
            println!("{name:<17}  {depth:>6}  {parameters:>9.0}  {rate:<7}  {losses:<28}  {accuracies:<22}  {setting}");
        }
    }
    println!(
        "\nTrained: a loss below {TRAINED} nats over all training images. Every setting of the deepest nets, seed 0:"
    );
    for (kind, runs) in KINDS.iter().zip(all) {
        for (setting, loss) in &runs[runs.len() - 1].grid {
            println!(
                "  {:<17}  {:<16}  rate {:<5}  {loss:.5}",
                kind.name,
                setting.block.to_string(),
                setting.learning_rate
            );
        }
    }
}

fn draw(all: &[Vec<Runs>]) -> Result<String, Failure> {
    let lines = || KINDS.iter().zip(STYLES).zip(all).map(|((kind, style), runs)| (kind.name, style, runs));
    let deepest = all[0][all[0].len() - 1].setting.depth;
    let loss = Chart::new("depth (layers)", "training loss (nats)")
        .title("Loss of all training images after training, by depth: median and range of the seeds");
    let accuracy = Chart::new("depth (layers)", "test images right (%)").title("Test accuracy, by depth");
    let course = Chart::new("epochs", "training loss (nats)").title(format!("The training of {deepest} layers"));
    let (mut loss, mut accuracy, mut course) = (loss.log_x().log_y(), accuracy.log_x(), course.log_y());
    for (name, style, runs) in lines() {
        loss = loss.line(over_depth(name, style, runs, |outcome| outcome.loss));
        accuracy = accuracy.line(over_depth(name, style, runs, |outcome| 100.0 * outcome.accuracy));
        course = course.line(over_epochs(name, style, &runs[runs.len() - 1]));
    }
    picture(1020, &[&[&loss], &[&accuracy], &[&course]])
}

/// The claims of the full form.
fn judge(all: &[Vec<Runs>], claims: &mut Claims) {
    let [plain, orthogonal, direct @ ..] = all else { unreachable!("five kinds") };
    let at = |runs: &[Runs], depth: usize| runs.iter().position(|runs| runs.setting.depth == depth).expect("a depth");
    let hundred = at(plain, 100);
    let of = |runs: &Runs| format!("{} trained, loss {:.5}", runs.rate(), runs.loss());
    for depth in [10, 20, 50] {
        claims.note(format!("plain, {depth} layers"), "", "", of(&plain[at(plain, depth)]));
    }
    let (published, failed) = ("much worse than 10 layers", plain[hundred].trained() == 0);
    claims.check("plain, 100 layers", published, "0 of 5 trained", of(&plain[hundred]), failed);
    for (kind, runs) in KINDS[2..].iter().zip(direct) {
        let published = if kind.name == "highway" { "trains" } else { "" };
        claims.note(format!("{}, 10 layers", kind.name), "", "", of(&runs[at(runs, 10)]));
        let (what, all) = (format!("{}, 100 layers", kind.name), runs[hundred].trained() == 5);
        claims.check(what, published, "5 of 5 trained", of(&runs[hundred]), all);
        // Shallow nets have the largest rates and end nearer to the limit: one seed may fail there.
        let least = runs.iter().map(Runs::trained).min().unwrap_or(0);
        let (what, here) =
            (format!("{}, each depth from 5 to 100", kind.name), format!("at least {least} of 5 trained"));
        claims.check(what, published, "at least 4 of 5", here, least >= 4);
    }
    let highway = &direct[1][hundred];
    let ratio = plain[hundred].loss() / highway.loss();
    let what = "loss of plain by that of highway, 100 layers";
    claims.check(what, "", "over 100", format!("{ratio:.0}"), ratio > 100.0);
    let open = highway.grid.iter().filter(|(setting, _)| setting.block == Block::Highway(-2.0));
    let best = open.map(|&(_, loss)| loss).fold(f64::INFINITY, f64::min);
    claims.note("highway, 100 layers, gate bias -2: best loss", "", "", format!("{best:.5}"));
    for depth in [50, 100] {
        claims.note(format!("plain, orthogonal, {depth} layers"), "", "", of(&orthogonal[at(orthogonal, depth)]));
    }
    println!("\nPublished: Srivastava et al. 2015, on MNIST, with the best of 100 random settings.");
}

/// The claims of the quick form.
fn judge_quickly(all: &[Vec<Runs>], claims: &mut Claims) {
    let deepest = |runs: &Vec<Runs>| runs[runs.len() - 1].loss();
    let plain = deepest(&all[0]);
    for (kind, runs) in KINDS[2..].iter().zip(&all[2..]) {
        let (what, loss) = (format!("{}, 50 layers: loss", kind.name), deepest(runs));
        claims.check(
            what,
            "",
            format!("below half of the plain net's {plain:.3}"),
            format!("{loss:.3}"),
            loss < 0.5 * plain,
        );
    }
}
