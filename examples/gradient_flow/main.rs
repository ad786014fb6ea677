//! How far a gradient reaches, back through time and down through depth, in networks at initialisation.
//!
//! The gradient of a far state is a product of Jacobians, so its norm is about a power, whose exponent is the distance: it vanishes
//! or explodes (Hochreiter 1991; Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013). An LSTM's memory keeps
//! σ(forget bias) of it a step (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000); a skip connection keeps all
//! of it, and a highway 1 - σ(gate bias) a layer (He et al. 2015; Srivastava et al. 2015).
//!
//! ```text
//! cargo run --release --example gradient_flow
//! ```
//!
//! Nothing is trained. Each network is drawn from five seeds and a [`GradientProbe`](gradflow::wrap::GradientProbe) takes the norms
//! of one backward pass from a random unit gradient at the end. The slope of their logarithm is compared with theory, and the run
//! fails if they differ by more than the tolerance in the table.
//!
//! It is only half of the truth that the gradient of a residual net does not vanish: with branches as large as their input, it
//! grows by √2 a layer, and only a scale (1/√L, or ReZero's learned 0) keeps it.

#[path = "../common/mod.rs"]
mod common;
mod depth;
mod flow;
mod theory;
mod time;

use std::process::ExitCode;

use gradflow::ndarray::{Array2, Array3};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{clip::grad_norm, layers::Init};

use common::{Claims, Failure, Settings};

/// The use of a generator: one seed gives different numbers for each.
#[derive(Clone, Copy)]
enum Role {
    Weights = 1,
    Input = 2,
    Gradient = 3,
}

fn rng(seed: u64, role: Role) -> StdRng {
    StdRng::seed_from_u64(seed << 8 | role as u64)
}

/// Standard normal numbers.
fn normal((steps, batch, features): (usize, usize, usize), rng: &mut StdRng) -> Array3<f64> {
    let mut rows = Array2::zeros((steps * batch, features));
    Init::Normal { std: 1.0 }.fill(&mut rows, rng);
    rows.into_shape_with_order((steps, batch, features)).expect("as many numbers")
}

/// A gradient of norm 1, in a random direction.
fn unit(shape: (usize, usize, usize), seed: u64) -> Array3<f64> {
    let gradient = normal(shape, &mut rng(seed, Role::Gradient));
    let norm = grad_norm(&gradient, 2.0);
    gradient / norm
}

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let settings = Settings::parse(
        "Gradient norms over the distance in time and in depth, measured and predicted.\n\n    \
         cargo run --release --example gradient_flow -- [flags]",
        &[],
    )?;
    let pictures = [settings.picture("gradient_flow_time")?, settings.picture("gradient_flow_depth")?];
    let mut claims = Claims::new(&settings);
    let drawn = [time::run(&settings, &mut claims)?, depth::run(&settings, &mut claims)?];
    for (file, svg) in pictures.into_iter().zip(drawn) {
        println!("picture: {}", file.write(&svg)?.display());
    }
    println!("\nSlopes are of ln(gradient norm), per step or per layer: mean and standard deviation over the seeds.");
    claims.finish()
}
