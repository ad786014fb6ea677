//! The learning rate range test (Smith 2017) on images that a GRU reads row by row, and trainings that show how good its suggestion
//! is.
//!
//! ```text
//! cargo run --release --example lr_range
//! ```
//!
//! The learning rate grows from step to step. The rate is good while the loss falls, and too large past the lowest point of the
//! loss. The test suggests a tenth of the rate at the lowest point. This is compared with rates far below and above it, in
//! trainings of the same length from the same weights.

#[path = "common/mod.rs"]
mod common;
#[path = "depth_sweep/digits.rs"]
mod digits;

use std::process::ExitCode;

use gradflow::clip::ClipNorm;
use gradflow::fit::{self, Fit, LrRange};
use gradflow::layers::{LastStep, Linear};
use gradflow::loss::SoftmaxCrossEntropy;
use gradflow::ndarray::{Array2, Array3, ArrayView2, s};
use gradflow::optim::{AdamW, Optimizer, Sgd};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::recurrent::Gru;

use common::picture::{Chart, Line, picture};
use common::{Claims, Failure, Settings};
use digits::{CLASSES, Digits};

/// Rows of an image, which are the steps of its sequence, and pixels of a row.
const SIDE: usize = 8;

const BATCH: usize = 32;

/// The range that is tested, and in how many steps.
const RATES: (f64, f64) = (1e-5, 100.0);
const STEPS: u32 = 300;

/// The factor between the suggested rate and each of the others.
const FAR: f64 = 30.0;

type Model = (Gru<f32>, LastStep<f32>, Linear<f32>);
type Batch = (Array3<f32>, Array2<usize>);
/// Makes an optimizer with a learning rate.
type NewOptimizer = fn(f64) -> Box<dyn Optimizer<f32>>;

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse(
        "Which learning rate: the range test, and what it is worth.\n\n    \
         cargo run --release --example lr_range -- [flags]",
        &[],
    )?;
    let file = settings.picture("lr_range")?;
    let epochs = if settings.quick { 2 } else { 10 };
    let digits = Digits::read()?;
    let (training, test) = (batches(digits.training()), batches(digits.test()));
    let rng = &mut StdRng::seed_from_u64(settings.seed);
    let model: Model = (Gru::new(SIDE, 32, rng), LastStep::new(), Linear::new(32, CLASSES, rng));

    let mut claims = Claims::new(&settings);
    let mut chart = Chart::new("learning rate", "loss in nats, smoothed")
        .title("The learning rate grows from step to step; beside the names, the rates suggested")
        .log_x()
        .y_range(0.0..3.5);
    let optimizers: [(&str, NewOptimizer); 2] = [
        ("SGD with momentum", |rate| Box::new(Sgd::new(rate).momentum(0.9))),
        ("AdamW", |rate| Box::new(AdamW::new(rate))),
    ];
    for (style, (name, new)) in optimizers.into_iter().enumerate() {
        let range = test_of(&model, &mut *new(0.0), &training)?;
        let rate = range.suggestion().ok_or_else(|| Failure::Run("the first loss is not finite".into()))?;
        let [low, suggested, high] = [rate / FAR, rate, rate * FAR]
            .map(|rate| trained(model.clone(), &mut *new(rate), epochs, &training, &test));
        let losses = format!("{low:.3}, {suggested:.3}, {high:.3}");
        claims.check(
            format!("{name}: {rate:.1e} beside 1/{FAR} and {FAR} times of it, nats after {epochs} epochs"),
            "",
            "lowest in the middle",
            losses,
            suggested < low.min(high),
        );
        let points = range.points.iter().map(|point| (point.learning_rate, point.smoothed)).collect();
        chart = chart.line(Line::new(format!("{name}: {rate:.1e}"), style, points));
    }
    let path = file.write(&picture(420, &[&[&chart]])?)?;
    println!("picture: {}", path.display());
    claims.finish()
}

fn test_of(model: &Model, optimizer: &mut dyn Optimizer<f32>, training: &[Batch]) -> Result<LrRange, Failure> {
    let range = fit::lr_range(model, optimizer, &mut SoftmaxCrossEntropy::new(), training, RATES.0..=RATES.1, STEPS);
    range.map_err(|error| Failure::Run(error.to_string()))
}

/// The loss on `test` after a training; infinite if it diverged.
fn trained(
    mut model: Model,
    optimizer: &mut dyn Optimizer<f32>,
    epochs: usize,
    training: &[Batch],
    test: &[Batch],
) -> f64 {
    let history = Fit::new(&mut model, optimizer, &mut SoftmaxCrossEntropy::new())
        .epochs(epochs)
        .clip(ClipNorm::new(1.0))
        .run(|_| training, || test, fit::quiet);
    history.ok().and_then(|history| Some(history.epochs.last()?.score())).unwrap_or(f64::INFINITY)
}

/// Images, `[N, 64]`, as sequences of their rows, `[8, B, 8]`, with their digits, `[1, B]`.
fn batches((images, labels): (ArrayView2<'_, f32>, ArrayView2<'_, usize>)) -> Vec<Batch> {
    let count = images.nrows();
    let starts = (0..count).step_by(BATCH).map(|start| (start, count.min(start + BATCH)));
    let batch = |(start, end): (usize, usize)| {
        let x = Array3::from_shape_fn((SIDE, end - start, SIDE), |(t, b, k)| images[[start + b, SIDE * t + k]]);
        (x, labels.slice(s![.., start..end]).to_owned())
    };
    starts.map(batch).collect()
}
