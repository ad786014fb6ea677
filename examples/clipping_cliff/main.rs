//! Why gradients are clipped: the error surface of a recurrence has cliffs, and one step over a cliff's gradient throws
//! the parameters far away (Pascanu, Mikolov and Bengio 2013, figure 6).
//!
//! ```text
//! cargo run --release --example clipping_cliff
//! ```
//!
//! The paper's recurrence has one unit and two parameters:
//!
//! ```text
//! x_t = w σ(x_{t-1}) + b        t = 1 … 50        error = (σ(x_50) - 0.7)²
//! ```
//!
//! It is an [`RnnCell`](gradflow::recurrent::RnnCell) of one unit, exactly. With h = tanh(x / 2), and as σ(x) = (1 + tanh(x / 2)) / 2,
//!
//! ```text
//! x_t = w (1 + h_{t-1}) / 2 + b
//! h_t = tanh(x_t / 2) = tanh(w/4 h_{t-1} + w/4 + b/2)
//! ```
//!
//! so that W_hh = w/4 and the bias is w/4 + b/2, and by the chain rule
//! dE/dw = dE/dW_hh / 4 + dE/dbias / 4 and dE/db = dE/dbias / 2.
//!
//! Gradient descent starts on the upper side of the cliff, where the gradient is small and points at it; another start has no cliff
//! on its way, and clipping changes nothing there. x_0 = 0.5, the starts, the learning rates and the number of updates are chosen
//! here. As one path proves little, 25 starts above the cliff are also tried, each with learning rates from 0.05 to 1.

#[path = "../common/mod.rs"]
mod common;
mod one_unit;
mod path;

use std::ops::Range;
use std::process::ExitCode;

use gradflow::ndarray::Array2;

use common::picture::{Chart, HeatMap, Line, picture};
use common::{Claims, Failure, Settings, in_parallel};
use one_unit::{OneUnit, direct};
use path::{Path, larger};

/// The picture's ranges of w and b.
const W: Range<f64> = 2.5..6.5;
const B: Range<f64> = -3.5..0.0;

/// Its part near the cliff.
const NEAR_W: Range<f64> = 4.2..5.7;
const NEAR_B: Range<f64> = -2.8..-2.0;

/// The starts of the drawn paths, (w, b): above the cliff, and where there is none.
const STEEP: (f64, f64) = (5.5, -2.2);
const GENTLE: (f64, f64) = (3.0, -0.5);

/// How far a start is moved in w for each seed: on the cliff, rounding decides where a path goes.
const NUDGE: f64 = 1e-12;

/// The learning rate of the drawn paths.
const RATE: f64 = 0.1;

/// How many updates the picture of the norms shows.
const SHOWN: usize = 160;

/// A path has arrived if its error is below this.
const ARRIVED: f64 = 0.01;

/// The norms at which the gradient is clipped, and their names.
const CLIPS: [(Option<f64>, &str); 3] =
    [(None, "not clipped"), (Some(1.0), "clipped at 1"), (Some(0.1), "clipped at 0.1")];

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse(
        "Gradient descent over the cliff of a recurrence's error surface, with clipping and without.\n\n    \
         cargo run --release --example clipping_cliff -- [flags]\n\n\
         Nothing here is random: --seed N moves the starts by N times 1e-12, as other rounding would.",
        &[],
    )?;
    let file = settings.picture("clipping_cliff")?;
    let mut claims = Claims::new(&settings);
    let size = if settings.quick { (20, 32) } else { (40, 64) };
    let wide = surface(&W, &B, size);
    let near = surface(&NEAR_W, &NEAR_B, size);
    compare(&wide, &mut claims);
    compare(&near, &mut claims);

    let moved = |(w, b): (f64, f64)| (w + NUDGE * settings.seed as f64, b);
    let (steep, gentle) = (descents(moved(STEEP))?, descents(moved(GENTLE))?);
    judge(&steep, &gentle, &mut claims);
    count(moved(STEEP), settings.quick, &mut claims)?;
    println!("picture: {}", file.write(&draw(&wide, &near, &steep, &gentle)?)?.display());
    claims.finish()
}

/// The error over a part of the plane.
struct Surface {
    w: Range<f64>,
    b: Range<f64>,
    errors: Array2<f64>, // [rows of b, columns of w]
}

impl Surface {
    /// The middles of its cells, (w, b), row by row.
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        points(&self.w, &self.b, self.errors.dim())
    }
}

fn points(w: &Range<f64>, b: &Range<f64>, (rows, columns): (usize, usize)) -> impl Iterator<Item = (f64, f64)> {
    let middle = |range: &Range<f64>, k: usize, count: usize| {
        range.start + (k as f64 + 0.5) / count as f64 * (range.end - range.start)
    };
    (0..rows * columns).map(move |k| (middle(w, k % columns, columns), middle(b, k / columns, rows)))
}

fn surface(w: &Range<f64>, b: &Range<f64>, size: (usize, usize)) -> Surface {
    let mut unit = OneUnit::new();
    let errors = points(w, b, size).map(|(w, b)| unit.error(w, b)).collect();
    let errors = Array2::from_shape_vec(size, errors).expect("one error for each cell");
    Surface { w: w.clone(), b: b.clone(), errors }
}

/// Checks that the cell is the paper's recurrence and that their gradients agree, at all points of a surface.
fn compare(surface: &Surface, claims: &mut Claims) {
    let mut unit = OneUnit::new();
    let (mut value, mut gradient) = (0.0, 0.0);
    for (w, b) in surface.points() {
        let (values, [dw, db]) = direct(w, b);
        let states = unit.states(w, b).into_iter().map(|h| (1.0 + h) / 2.0);
        value = states.zip(values).map(|(here, there)| (here - there).abs()).fold(value, larger);
        let own = unit.gradient(w, b);
        // On the cliff the gradient itself changes steeply, so its error is measured relative to the square of its norm.
        let size = dw.hypot(db).max(1.0);
        gradient = larger(gradient, (own[0] - dw).hypot(own[1] - db) / (size * size));
    }
    let count = surface.errors.len();
    let what = format!("cell against recurrence, {count} points of w {:?}", surface.w);
    claims.check(format!("{what}: σ(x_t)"), "", "at most 1e-12", format!("{value:.1e}"), value <= 1e-12);
    claims.check(format!("{what}: gradient"), "", "at most 1e-12", format!("{gradient:.1e}"), gradient <= 1e-12);
}

/// One path for each of [`CLIPS`].
fn descents(start: (f64, f64)) -> Result<Vec<Path>, Failure> {
    CLIPS.iter().map(|&(clip, _)| Path::descend(start, RATE, clip)).collect()
}

fn judge(steep: &[Path], gentle: &[Path], claims: &mut Claims) {
    for (path, (clip, name)) in steep.iter().zip(CLIPS) {
        let what = format!("above the cliff, {name}");
        let norm = path.largest_norm();
        claims.check(format!("{what}: norm"), "very large", "above 10", format!("{norm:.3}"), norm > 10.0);
        let (published, expected, holds) = match clip {
            None => ("thrown away", "leaves the picture, error above 0.05", path.left() && path.error > 0.05),
            Some(_) => ("stays near", "stays, error below 0.01", !path.left() && path.error < ARRIVED),
        };
        claims.check(format!("{what}: end"), published, expected, path.end(), holds);
    }
    for (path, (_, name)) in gentle.iter().zip(CLIPS) {
        let holds = path.largest_norm() < 0.1 && path.error < ARRIVED && path.points == gentle[0].points;
        let here = format!("{}, norm at most {:.3}", path.end(), path.largest_norm());
        claims.check(format!("no cliff, {name}: end"), "", "the same to the bit, norm below 0.1", here, holds);
    }
}

/// Counts the starts around one above the cliff that arrive, for each learning rate and each kind of clipping.
fn count(middle: (f64, f64), quick: bool, claims: &mut Claims) -> Result<(), Failure> {
    let side: i32 = if quick { 1 } else { 2 };
    let rates: &[f64] = if quick { &[0.2, 1.0] } else { &[0.05, 0.1, 0.2, 0.5, 1.0] };
    let offsets = || (-side..=side).map(|k| 0.1 * f64::from(k));
    let starts: Vec<_> = offsets().flat_map(|w| offsets().map(move |b| (middle.0 + w, middle.1 + b))).collect();
    println!("\nStarts above the cliff, {} of them, and how many end with an error below {ARRIVED}:", starts.len());
    println!("                {}", rates.iter().map(|rate| format!("  rate {rate:<5}")).collect::<String>());
    for (clip, name) in CLIPS {
        let jobs = rates.iter().flat_map(|&rate| starts.iter().map(move |&start| (start, rate))).collect();
        let paths = in_parallel(jobs, |(start, rate)| Path::descend(start, rate, clip));
        let paths: Vec<Path> = paths.into_iter().collect::<Result<_, _>>()?;
        let arrived = |paths: &[Path]| paths.iter().filter(|path| path.error < ARRIVED).count();
        let counts: Vec<usize> = paths.chunks(starts.len()).map(arrived).collect();
        println!("{name:<16}{}", counts.iter().map(|count| format!("  {count:<10}")).collect::<String>());
        let best = counts.iter().copied().max().unwrap_or(0);
        let (expected, holds) = match clip {
            None => ("fewer than 3 of 4", 4 * best < 3 * starts.len()),
            Some(_) => ("all", best == starts.len()),
        };
        let what = format!("{} starts, {name}: arrive at the best rate", starts.len());
        claims.check(what, "", expected, format!("{best} of {}", starts.len()), holds);
    }
    Ok(())
}

fn draw(wide: &Surface, near: &Surface, steep: &[Path], gentle: &[Path]) -> Result<String, Failure> {
    let map = |surface: &Surface, title: &str| {
        HeatMap::surface(surface.errors.clone(), surface.w.clone(), surface.b.clone())
            .names("recurrent weight w (no unit)", "bias b (no unit)", "error (no unit)")
            .title(title)
            .log()
            .range(1e-5..1.0)
    };
    let steep = || steep.iter().zip(CLIPS).zip([0, 3, 6]).map(|((path, (_, name)), style)| (path, name, style));
    let line = |(path, name, style): (&Path, &str, usize)| Line::new(name, style, path.points.clone()).thin().ends();
    let all = steep().map(line).fold(map(wide, "The error (σ(x_50) - 0.7)² and descents on it"), HeatMap::path);
    let all = all.path(line((&gentle[0], "each of them, where there is no cliff", 2)));
    let cliff = steep().map(|(path, _, style)| line((path, "", style)));
    let cliff = cliff.fold(map(near, "The same, near the cliff"), HeatMap::path);
    let norms = steep().fold(
        Chart::new("updates", "gradient norm (no unit)").title("The gradient's norm before it is clipped").log_y(),
        |chart, (path, name, style)| {
            let points = path.norms.iter().take(SHOWN).enumerate().map(|(k, &norm)| (k as f64, norm));
            chart.line(Line::new(name, style, points.collect()).thin())
        },
    );
    picture(1200, &[&[&all], &[&cliff], &[&norms]])
}
