//! Counts the detector's errors on sounds that its training did not see, compared with thresholds on the level.
//!
//! ```text
//! cargo run --release --manifest-path examples/web/Cargo.toml --bin judge
//! ```

use std::process::ExitCode;

use gradflow_voice::bands::HOP;
use gradflow_voice::detector::{Detector, Model};
use gradflow_voice::judgement::{Scores, above_floor, levels};
use gradflow_voice::synth::{Clip, Noise, sets};

/// Frames in which the level's floor is looked for: 2 s.
const FLOOR_FRAMES: usize = 200;

/// The training's seed, and those to judge on.
const TRAINED: u64 = 0;
const SEEDS: u64 = 5;

/// Claimed with every seed: the detector has at most this share of the errors of the better threshold.
const SHARE: f64 = 0.5;

/// The frames of a clip: which are voice, and the scores of the detector, of the level above the floor and of the level.
struct Judged {
    noise: Option<Noise>,
    seed: u64,
    voice: Vec<bool>,
    scores: [Vec<f32>; 3],
}

fn main() -> ExitCode {
    let model = Model::trained();
    let judge = |noise, seed, clip: Clip| {
        let mut detector = Detector::new(&model);
        let probabilities = clip.samples.chunks_exact(HOP).map(|hop| detector.hear(hop)).collect();
        let levels = levels(&clip.samples);
        let scores = [probabilities, above_floor(&levels, FLOOR_FRAMES), levels];
        Judged { noise, seed, voice: clip.voice, scores }
    };
    let trained: Vec<Judged> = sets::training(TRAINED).into_iter().map(|clip| judge(None, TRAINED, clip)).collect();
    let [_, above, level] = scores(&trained).map(|scores| scores.best_threshold());
    let thresholds = [0.5, above, level];

    let noises = || Noise::ALL.into_iter().map(Some).chain([None]);
    let sets = noises().flat_map(|noise| (0..SEEDS).map(move |seed| (noise, seed)));
    let clips =
        sets.flat_map(|(noise, seed)| sets::held_out(noise, seed).into_iter().map(move |clip| (noise, seed, clip)));
    let judged: Vec<Judged> = clips.map(|(noise, seed, clip)| judge(noise, seed, clip)).collect();

    println!("Frames that are wrong, and the area under the ROC curve:");
    println!("{:8}  GRU > 0.5      level > floor + {above:.0} dB  level > {level:.0} dB", "");
    for noise in noises() {
        let name = noise.map_or("two".into(), |noise| format!("{noise:?}"));
        print_row(&name, judged.iter().filter(|clip| clip.noise == noise), thresholds);
    }
    let mut holds = true;
    for seed in 0..SEEDS {
        let [detector, thresholds @ ..] =
            print_row(&format!("seed {seed}"), judged.iter().filter(|clip| clip.seed == seed), thresholds);
        holds &= detector <= SHARE * thresholds.into_iter().fold(f64::INFINITY, f64::min);
    }
    print_row("all", &judged, thresholds);
    println!(
        "With every seed, at most {SHARE} of the errors of the better threshold: {}",
        if holds { "holds" } else { "FAILS" }
    );
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn scores<'a>(clips: impl IntoIterator<Item = &'a Judged>) -> [Scores; 3] {
    let mut all = [(); 3].map(|()| Scores::default());
    for clip in clips {
        for (scores, of_clip) in all.iter_mut().zip(&clip.scores) {
            scores.add(of_clip.iter().copied(), &clip.voice);
        }
    }
    all
}

/// Prints the errors and areas of each score, and gives the errors.
fn print_row<'a>(name: &str, clips: impl IntoIterator<Item = &'a Judged>, thresholds: [f32; 3]) -> [f64; 3] {
    let scores = scores(clips);
    let errors = std::array::from_fn(|k| scores[k].errors(thresholds[k]));
    let cell = |k: usize| format!("{:4.1} %, {:.3}", 100.0 * errors[k], scores[k].area());
    println!("{name:8}  {:13}  {:20}  {}", cell(0), cell(1), cell(2));
    errors
}
