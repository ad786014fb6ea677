//! Down through depth: feed-forward nets, plain and with skip connections.

use gradflow::rand::rngs::StdRng;
use gradflow::{
    Layer, Sequence, ZerosLike,
    compose::{BoxLayer, DenseConcat, Highway, Residual, Stacked},
    layers::{Activation, Init, Linear},
    wrap::{GradientProbe, Probed},
};

use crate::common::picture::{Chart, picture};
use crate::common::{Claims, Failure, Settings, in_parallel};
use crate::flow::{Flow, slope};
use crate::theory::{sigmoid, tanh_net};
use crate::{Role, normal, rng, unit};

/// Rows of the batch.
const ROWS: usize = 32;

/// Features that each dense layer adds to those before it.
const GROWTH: usize = 16;

/// The block that a net repeats.
#[derive(Clone, Copy, PartialEq)]
enum Block {
    /// `tanh(W x)`
    Tanh(Init),
    /// `relu(W x)`
    Relu(Init),
    /// `x + scale · W relu(x)`
    Residual(f64),
    /// `x + α W relu(x)`, α = 0 learned
    ReZero,
    /// `g ∘ tanh(W x) + (1 - g) ∘ x`, with a gate bias
    Highway(f64),
    /// `[x, W relu(x)]`
    Dense,
}

/// For tanh and linear layers (Glorot and Bengio 2010).
const GLOROT: Init = Init::XavierUniform { gain: 1.0 };

/// For relu layers (He et al. 2015).
const HE: Init = Init::KaimingNormal { gain: std::f64::consts::SQRT_2 };

impl Block {
    /// The k-th block of a net that starts with `width` features.
    fn build(self, k: usize, width: usize, rng: &mut StdRng) -> BoxLayer<f64> {
        let mut linear = |init: Init| Linear::builder(width, width).weight(init).bias_init(0.0).build(rng);
        match self {
            Block::Tanh(init) => BoxLayer::new((linear(init), Activation::tanh())),
            Block::Relu(init) => BoxLayer::new((linear(init), Activation::relu())),
            Block::Residual(scale) => BoxLayer::new(Residual::new((Activation::relu(), linear(HE))).scaled(scale)),
            Block::ReZero => BoxLayer::new(Residual::new((Activation::relu(), linear(HE))).rezero()),
            Block::Highway(bias) => {
                let branch = (linear(GLOROT), Activation::tanh());
                BoxLayer::new(Highway::builder(branch, width).gate_bias(bias).build(rng))
            }
            Block::Dense => {
                let features = width + k * GROWTH;
                let branch =
                    (Activation::relu(), Linear::builder(features, GROWTH).weight(HE).bias_init(0.0).build(rng));
                BoxLayer::new(DenseConcat::new(branch))
            }
        }
    }

    /// The lowest and the highest slope that theory gives.
    fn theory(self, depth: usize, width: usize) -> (f64, f64) {
        let exactly = |slope: f64| (slope, slope);
        // The number of inputs times the variance of a weight.
        let squared_gain = |init: Init| match init {
            Init::Uniform { bound } => width as f64 * bound * bound / 3.0,
            Init::XavierUniform { gain } => gain * gain,
            Init::KaimingNormal { gain } => gain * gain,
            other => unreachable!("{other:?} is not among the nets"),
        };
        match self {
            Block::Tanh(init) => exactly(slope(&tanh_net(squared_gain(init).sqrt(), depth), 0)),
            // Half of the units are on.
            Block::Relu(init) => exactly(0.5 * (squared_gain(init) / 2.0).ln()),
            // The direct path and the branch, as W has mean 0: 1 + scale² · 2 / 2.
            Block::Residual(scale) => exactly(0.5 * (1.0 + scale * scale).ln()),
            Block::ReZero => exactly(0.0),
            // The direct path alone; and at most what branch (gain 1) and gate (squared gain 1/3) add: the variance of
            // branch(x) - x is at most 2.
            Block::Highway(bias) => {
                let g = sigmoid(bias);
                let most = (1.0 - g).powi(2) + g * g + 2.0 / 3.0 * (g * (1.0 - g)).powi(2);
                ((1.0 - g).ln(), 0.5 * most.ln())
            }
            // The gradient that goes into the added features comes back with the same squared norm.
            Block::Dense => exactly(0.0),
        }
    }

    /// How far a slope may be from the theory, which holds for infinitely wide nets, except for ReZero's.
    fn tolerance(self) -> f64 {
        match self {
            Block::ReZero => 1e-12,
            Block::Tanh(_) | Block::Relu(_) | Block::Residual(_) => 0.03,
            Block::Highway(_) | Block::Dense => 0.01,
        }
    }
}

/// One line of the picture.
struct Case {
    name: &'static str,
    published: &'static str,
    block: Block,
}

fn cases(depth: usize, width: usize) -> Vec<Case> {
    let case = |name, published, block| Case { name, published, block };
    let uniform = Init::Uniform { bound: 1.0 / (width as f64).sqrt() };
    vec![
        case("tanh, uniform ±1/√n", "vanishes (Glorot 2010)", Block::Tanh(uniform)),
        case("tanh, Glorot", "vanishes more slowly (Glorot 2010)", Block::Tanh(GLOROT)),
        case("relu, Glorot", "vanishes, ln √(1/2) (He 2015)", Block::Relu(GLOROT)),
        case("relu, He", "0 (He 2015)", Block::Relu(HE)),
        case("residual", "does not vanish (He 2015)", Block::Residual(1.0)),
        case("residual, 1/√L", "", Block::Residual(1.0 / (depth as f64).sqrt())),
        case("residual, ReZero", "0 (Bachlechner 2020)", Block::ReZero),
        case("highway, bias -1", "ln σ(1) (Srivastava 2015)", Block::Highway(-1.0)),
        case("highway, bias -2", "ln σ(2) (Srivastava 2015)", Block::Highway(-2.0)),
        case("highway, bias -4", "ln σ(4) (Srivastava 2015)", Block::Highway(-4.0)),
        case("dense", "does not vanish (Huang 2017)", Block::Dense),
    ]
}

/// The norms of one seed, by distance: `‖dL/dy‖` of the last block is 1, the farthest is `‖dL/dx‖` of the net.
fn measure(block: Block, depth: usize, width: usize, seed: u64) -> Vec<f64> {
    let (weights, probe) = (&mut rng(seed, Role::Weights), GradientProbe::new());
    let net = Stacked::build(depth, |k| Probed::new(format!("block {k}"), block.build(k, width, weights), &probe));
    let x = normal((1, ROWS, width), &mut rng(seed, Role::Input));
    let (mut state, mut cache, mut grad) = (net.zero_state(ROWS), net.cache(), net.zeros_like());
    probe.record(true);
    let pass = net.pass(Sequence::from(&x), &mut state, &mut cache);
    let dy = unit(pass.output().dim(), seed);
    let dx = pass.backward(&dy, &mut grad);
    let dx = dx.iter().map(|d| d * d).sum::<f64>().sqrt();
    probe.flow().layers.iter().rev().map(|layer| layer.total()).chain([dx]).collect()
}

/// Measures all nets, adds the claims about them, and draws the picture.
///
/// # Errors
/// If the picture cannot be drawn.
pub fn run(settings: &Settings, claims: &mut Claims) -> Result<String, Failure> {
    let (depth, width, seeds) = if settings.quick { (30, 128, 2) } else { (50, 256, 5) };
    let cases = cases(depth, width);
    let jobs = cases.iter().flat_map(|case| settings.seeds(seeds).map(|seed| (case.block, seed))).collect();
    let norms = in_parallel(jobs, |(block, seed)| measure(block, depth, width, seed));

    let chart =
        |title: &str| Chart::new("distance from the loss (layers)", "‖dL/dy‖ (1 at the loss)").title(title).log_y();
    let mut plain = chart("Plain nets");
    let mut direct = chart("Nets with skip connections");
    for (k, (case, norms)) in cases.iter().zip(norms.chunks(seeds as usize)).enumerate() {
        let flow = Flow { name: case.name.into(), norms: norms.to_vec() };
        let (theory, tolerance) = (case.block.theory(depth, width), case.block.tolerance());
        flow.judge(case.name, case.published, 0, theory, tolerance, claims);
        match case.block {
            Block::Tanh(_) | Block::Relu(_) => plain = plain.line(flow.line(k, 1)),
            _ => direct = direct.line(flow.line(k - 4, 1)),
        }
    }
    picture(760, &[&[&plain], &[&direct]])
}
