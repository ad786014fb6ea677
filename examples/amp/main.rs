//! An LSTM and a GRU learn to imitate the diode clipper of a distortion pedal, and run sample by sample, as in an audio plug-in.
//!
//! ```text
//! cargo run --release --features plugin-formats --example amp
//! ```
//!
//! The circuit is simulated by its differential equation ([`circuit`]); its input is a synthetic guitar ([`guitar`]). The networks
//! learn its output from its input, by truncated backpropagation through time, as Wright, Damskägg and Välimäki (2019) train models
//! of real amplifiers. The error is the error-to-signal ratio Σ (y - ŷ)² / Σ y² on audio that nothing was trained on, without
//! pre-emphasis.
//!
//! The trained models are written in the plug-ins' formats: the LSTM as `.nam` (Neural Amp Modeler), both as Keras layers in JSON
//! (RTNeural, AIDA-X). They are read back and must sound the same.
//!
//! Claim: for every seed, the error of both networks is less than a twentieth of the error of the best linear filter, and less than
//! a fifth of that of the best curve without memory.

mod circuit;
#[path = "../common/mod.rs"]
mod common;
mod guitar;
mod simple;
mod training;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use common::picture::{Chart, Line, picture};
use common::{Claims, Failure, Flag, Progress, Settings, in_parallel};
use gradflow::compose::{BoxLayer, Stacked};
use gradflow::convert::FileError;
use gradflow::convert::keras_json::KerasJson;
use gradflow::convert::nam::NamModel;
use gradflow::layers::Linear;
use gradflow::ndarray::ArrayView3;
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::recurrent::{GruCell, Lstm, LstmCell};
use gradflow::stream::Stream;
use gradflow::{Layer, Sequence};

use circuit::{SAMPLE_RATE, clip};
use simple::{Curve, Filter};
use training::{Recipe, train};

/// The voltage at the circuit's input for a sample of 1.
const DRIVE: f32 = 4.5;

/// Steps of the simulation a sample.
const OVERSAMPLING: usize = 8;

/// Audio that nothing is trained on.
const TEST_SEED: u64 = 1_000_000;
const TEST_SECONDS: f64 = 5.0;

/// Networks of each kind, which differ in their audio and in their initial weights.
const SEEDS: u64 = 3;

/// Coefficients of the linear filter, and points of the curve.
const TAPS: usize = 128;
const POINTS: usize = 513;

/// The guitar's samples, and the circuit's output in V.
struct Recording {
    x: Vec<f32>,
    y: Vec<f32>,
}

impl Recording {
    fn new(seconds: f64, seed: u64) -> Self {
        let x = guitar::play(seconds, seed);
        let y = clip(&x.iter().map(|x| DRIVE * x).collect::<Vec<_>>(), OVERSAMPLING);
        Recording { x, y }
    }
}

/// A trained network in the plug-ins' formats.
struct Trained {
    keras: KerasJson<f32>,
    nam: Option<NamModel<f32>>,
    error: f64,
}

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let flags = [Flag { name: "hidden", value: "N", help: "units of each network, 1 to 256 [16]" }];
    let settings = Settings::parse("Learns the sound of a diode clipper, and writes it for audio plug-ins.", &flags)?;
    let out = settings.picture("amp")?;
    let hidden = settings.whole("hidden", 1..=256, if settings.quick { 8 } else { 16 })?;
    let (seconds, epochs, seeds) = if settings.quick { (2.0, 40, 1) } else { (10.0, 60, SEEDS) };
    let recipe = Recipe { epochs, learning_rate: 1e-2 };

    let recordings = in_parallel(settings.seeds(seeds).collect(), |seed| (seed, Recording::new(seconds, seed)));
    let test = Recording::new(TEST_SECONDS, TEST_SEED);
    let finer = clip(&test.x.iter().map(|x| DRIVE * x).collect::<Vec<_>>(), 4 * OVERSAMPLING);
    let solver = error_to_signal(&finer, &test.y);

    let first = &recordings[0].1;
    let filtered = Filter::fit(&first.x, &first.y, TAPS).run(&test.x);
    let linear = error_to_signal(&test.y, &filtered);
    let curve = error_to_signal(&test.y, &Curve::fit(&first.x, &first.y, POINTS).run(&test.x));

    let jobs: Vec<_> = recordings.iter().flat_map(|recording| ["LSTM", "GRU"].map(|name| (name, recording))).collect();
    let progress = Progress::new(jobs.len());
    let trained = in_parallel(jobs, |(name, (seed, recording))| {
        let trained = Trained::new(name, hidden, *seed, recording, recipe, &test);
        progress.step(format!("{name}, seed {seed}"));
        trained
    });
    progress.finish();
    let trained = trained.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (lstms, grus): (Vec<_>, Vec<_>) = trained.into_iter().partition(|network| network.nam.is_some());

    let mut claims = Claims::new(&settings);
    let (less_than_linear, less_than_curve) = if settings.quick { (1.0, 1.0) } else { (0.05, 0.2) };
    for (name, networks) in [("LSTM", &lstms), ("GRU", &grus)] {
        let most = networks.iter().map(|network| network.error).fold(0.0, f64::max);
        let least = networks.iter().map(|network| network.error).fold(f64::INFINITY, f64::min);
        let limit = (less_than_linear * linear).min(less_than_curve * curve);
        let what = format!("{name}, H = {hidden}: error to signal, seeds: {seeds}");
        let here = format!("{} to {}", percent(least), percent(most));
        claims.check(what, "", format!("below {}", percent(limit)), here, most < limit);
    }
    claims.note(format!("  linear filter of {TAPS} taps, least squares"), "", "", percent(linear));
    claims.note(format!("  curve of {POINTS} points, without memory"), "", "", percent(curve));
    claims.check(
        "  simulation against one of a quarter of the step",
        "",
        "below 0.0010 %",
        percent(solver),
        solver < 1e-5,
    );

    println!();
    let mut rendered = [Vec::new(), Vec::new()];
    for (whole, (name, network)) in rendered.iter_mut().zip([("LSTM", &lstms[0]), ("GRU", &grus[0])]) {
        let model = network.keras.model();
        *whole = render(&model, model.zero_state(1), &test.x);
        let (streamed, factor) = stream(&model, &test.x)?;
        println!("{name}, sample by sample: {factor:.0} times real time at {} kHz, on one thread", SAMPLE_RATE / 1000);
        let difference = largest_difference(whole, &streamed);
        let what = format!("{name}: largest difference of a stream to the whole");
        claims.check(what, "", "at most 1e-5 V", format!("{difference:.0e} V"), difference <= 1e-5);
    }
    for (name, difference) in write_and_read(&settings.out, [&lstms[0], &grus[0]], &rendered, &test.x)? {
        let what = format!("{name}, read again: largest difference");
        claims.check(what, "", "at most 1e-5 V", format!("{difference:.0e} V"), difference <= 1e-5);
    }
    println!("\npicture: {}", out.write(&draw(&test, &rendered[0], &filtered)?)?.display());
    claims.finish()
}

impl Trained {
    fn new(
        name: &str,
        hidden: usize,
        seed: u64,
        audio: &Recording,
        recipe: Recipe,
        test: &Recording,
    ) -> Result<Self, Failure> {
        let rng = &mut StdRng::seed_from_u64(seed);
        let (keras, nam) = if name == "LSTM" {
            let start = (LstmCell::<f32>::new(1, hidden, rng), Linear::new(hidden, 1, rng));
            let (cell, head) = train(start, &audio.x, &audio.y, recipe)?;
            let mut nam = NamModel::new(Lstm::from_cells(vec![[cell.clone()]]), head.clone());
            nam.sample_rate = Some(SAMPLE_RATE as f64);
            nam.metadata.insert("name".into(), "Diode clipper".into());
            nam.metadata.insert("gear_type".into(), "pedal".into());
            (KerasJson::new([cell.into(), head.into()]), Some(nam))
        } else {
            let start = (GruCell::<f32>::new(1, hidden, rng), Linear::new(hidden, 1, rng));
            let (cell, head) = train(start, &audio.x, &audio.y, recipe)?;
            (KerasJson::new([cell.into(), head.into()]), None)
        };
        let model = keras.model();
        let error = error_to_signal(&test.y, &render(&model, model.zero_state(1), &test.x));
        Ok(Trained { keras, nam, error })
    }
}

/// The output of a model for a whole recording.
fn render<L: Layer<Elem = f32>>(model: &L, mut state: L::State, x: &[f32]) -> Vec<f32> {
    let x = ArrayView3::from_shape((x.len(), 1, 1), x).expect("one feature");
    let (mut cache, mut y) = (model.cache(), Vec::new());
    for x in Sequence::from(&x).infer().chunks(SAMPLE_RATE / 10) {
        y.extend(model.forward(x, &mut state, &mut cache));
    }
    y
}

/// The same output sample by sample, and how many times faster than real time that is, by the median time of blocks of 10 ms.
fn stream(model: &Stacked<BoxLayer<f32>>, x: &[f32]) -> Result<(Vec<f32>, f64), Failure> {
    let mut stream = Stream::new(model, 1).map_err(|error| Failure::Run(error.to_string()))?;
    let mut y = Vec::with_capacity(x.len());
    let mut times = Vec::new();
    for block in x.chunks_exact(SAMPLE_RATE / 100) {
        let start = Instant::now();
        y.extend(block.iter().map(|x| stream.push(&[*x])[0]));
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok((y, 0.01 / times[times.len() / 2]))
}

/// Writes the plug-ins' files, reads them back and runs the models. Gives the name of each file, and the largest difference of its
/// output from `want`.
fn write_and_read(
    folder: &Path,
    networks: [&Trained; 2],
    want: &[Vec<f32>; 2],
    x: &[f32],
) -> Result<Vec<(String, f32)>, Failure> {
    let failed = |error: FileError| Failure::Run(error.to_string());
    let mut differences = Vec::new();
    for (network, (name, want)) in networks.into_iter().zip(["lstm", "gru"].iter().zip(want)) {
        if let Some(nam) = &network.nam {
            let path = folder.join("diode_clipper.nam");
            nam.save(&path).map_err(failed)?;
            let NamModel { model, initial_state, .. } = NamModel::<f32>::open(&path).map_err(failed)?;
            let difference = largest_difference(want, &render(&model, initial_state, x));
            differences.push((path.display().to_string(), difference));
        }
        let path = folder.join(format!("diode_clipper_{name}.json"));
        network.keras.save(&path).map_err(failed)?;
        let model = KerasJson::<f32>::open(&path).map_err(failed)?.model();
        let difference = largest_difference(want, &render(&model, model.zero_state(1), x));
        differences.push((path.display().to_string(), difference));
    }
    Ok(differences)
}

/// Σ (y - ŷ)² / Σ y²
fn error_to_signal(y: &[f32], estimate: &[f32]) -> f64 {
    let squared = |value: f32| f64::from(value) * f64::from(value);
    let error: f64 = y.iter().zip(estimate).map(|(y, estimate)| squared(y - estimate)).sum();
    error / y.iter().map(|y| squared(*y)).sum::<f64>()
}

/// The largest absolute difference; NaN if there is one.
fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |most, next| if next <= most { most } else { next })
}

fn percent(ratio: f64) -> String {
    format!("{:.4} %", 100.0 * ratio)
}

/// Draws some milliseconds of the loudest part, and output against input there.
fn draw(test: &Recording, network: &[f32], filtered: &[f32]) -> Result<String, Failure> {
    let length = SAMPLE_RATE * 8 / 1000;
    let energy = |start: &usize| test.x[*start..*start + length].iter().map(|x| x * x).sum::<f32>();
    let starts = (0..test.x.len() - length).step_by(length);
    let start = starts.max_by(|a, b| energy(a).total_cmp(&energy(b))).expect("a longer recording");
    let piece = start..start + length;
    let over_time = |y: &[f32]| -> Vec<(f64, f64)> {
        let time = |n: usize| 1000.0 * n as f64 / SAMPLE_RATE as f64;
        y[piece.clone()].iter().enumerate().map(|(n, y)| (time(n), f64::from(*y))).collect()
    };
    let over_input = |y: &[f32]| -> Vec<(f64, f64)> {
        piece.clone().map(|n| (f64::from(DRIVE * test.x[n]), f64::from(y[n]))).collect()
    };
    let time = Chart::new("ms", "output in V")
        .title("Eight milliseconds of a loud note")
        .line(Line::new("circuit", 1, over_time(&test.y)))
        .line(Line::new("linear", 3, over_time(filtered)))
        .line(Line::new("LSTM", 2, over_time(network)));
    let path = |title: &str, style: usize, y: &[f32]| {
        let chart =
            Chart::new("input in V", "output in V").title(title).x_range(-5.0..5.0).y_range(-1.0..1.0).unlabelled();
        chart.line(Line::new(title, style, over_input(y)).thin())
    };
    let charts = [path("circuit", 1, &test.y), path("LSTM", 2, network), path("linear", 3, filtered)];
    let [circuit, lstm, linear] = &charts;
    picture(700, &[&[&time], &[circuit, lstm, linear]])
}
