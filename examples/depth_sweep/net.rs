//! The nets that are compared: a first layer, a block that is repeated, and a linear layer.

use std::f64::consts::SQRT_2;
use std::fmt;

use gradflow::rand::rngs::StdRng;
use gradflow::{
    TensorsExt,
    compose::{BoxLayer, DenseConcat, Highway, Residual, Stacked},
    layers::{Activation, Init, Linear, Nonlinearity},
    sequential,
};

use crate::digits::{CLASSES, PIXELS};

/// Units of a layer of a plain or residual net: 1406 parameters.
const WIDTH: usize = 37;

/// Units of a highway layer, which has two matrices: 1404 parameters.
const HIGHWAY_WIDTH: usize = 26;

/// For tanh layers (Glorot and Bengio 2010).
const GLOROT: Init = Init::XavierUniform { gain: 1.0 };

/// For relu layers (He et al. 2015).
const HE: Init = Init::KaimingNormal { gain: SQRT_2 };

/// Saxe, McClelland and Ganguli 2014.
const ORTHOGONAL: Init = Init::Orthogonal { gain: 1.0 };

sequential! {
    /// `[1, B, 64]` to `[1, B, 10]`.
    #[derive(Clone, Debug)]
    pub struct Net: Layer<f32> {
        pub first: Linear<f32>,
        pub activation: Activation<f32>,
        pub blocks: Stacked<BoxLayer<f32>>,
        pub last: Linear<f32>,
    }
}

/// The block that a net repeats, and its initialisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Block {
    /// `tanh(W x)`, initialised as by Glorot and Bengio.
    Tanh,
    /// `relu(W x)`, initialised as by He et al.
    Relu,
    /// `tanh(W x)`, W orthogonal.
    Orthogonal,
    /// `x + W relu(x) / √L`
    Residual,
    /// `g ∘ tanh(W x) + (1 - g) ∘ x`, with a gate bias.
    Highway(f64),
    /// `[x, W relu(x)]`
    Dense,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Block::Tanh => write!(f, "tanh, Glorot"),
            Block::Relu => write!(f, "relu, He"),
            Block::Orthogonal => write!(f, "tanh, orthogonal"),
            Block::Residual => write!(f, "relu, He / √L"),
            Block::Highway(bias) => write!(f, "gate bias {bias}"),
            Block::Dense => write!(f, "relu, He"),
        }
    }
}

impl Block {
    /// The units of the first layer, and how many each block of a dense net adds to them.
    fn sizes(self, blocks: usize) -> (usize, usize) {
        match self {
            Block::Highway(_) => (HIGHWAY_WIDTH, 0),
            Block::Dense => dense_sizes(blocks),
            _ => (WIDTH, 0),
        }
    }

    /// The `k`-th of `blocks`.
    fn build(self, k: usize, blocks: usize, rng: &mut StdRng) -> BoxLayer<f32> {
        let (width, growth) = self.sizes(blocks);
        let mut square = |init: Init| linear(width, width, init, rng);
        match self {
            Block::Tanh => BoxLayer::new((square(GLOROT), Activation::tanh())),
            Block::Relu => BoxLayer::new((square(HE), Activation::relu())),
            Block::Orthogonal => BoxLayer::new((square(ORTHOGONAL), Activation::tanh())),
            Block::Residual => {
                let branch = (Activation::relu(), square(HE));
                BoxLayer::new(Residual::new(branch).scaled(1.0 / (blocks as f64).sqrt()))
            }
            Block::Highway(bias) => {
                let branch = (square(GLOROT), Activation::tanh());
                BoxLayer::new(Highway::builder(branch, width).gate_weight(GLOROT).gate_bias(bias).build(rng))
            }
            Block::Dense => {
                BoxLayer::new(DenseConcat::new((Activation::relu(), linear(width + k * growth, growth, HE, rng))))
            }
        }
    }
}

/// A linear layer with bias 0.
fn linear(input: usize, output: usize, init: Init, rng: &mut StdRng) -> Linear<f32> {
    Linear::builder(input, output).weight(init).bias_init(0.0).build(rng)
}

/// The sizes with which `blocks` dense layers have about as many parameters in all as the same number of plain ones.
fn dense_sizes(blocks: usize) -> (usize, usize) {
    let parameters = |(width, growth)| (0..blocks).map(|k| growth * (width + k * growth + 1)).sum::<usize>();
    let plain = blocks * WIDTH * (WIDTH + 1);
    let widths = WIDTH - WIDTH / 4..=WIDTH + WIDTH / 4;
    let all = widths.flat_map(|width| (1..=WIDTH).map(move |growth| (width, growth)));
    all.min_by_key(|&sizes| parameters(sizes).abs_diff(plain)).expect("several sizes")
}

impl Net {
    /// A net of `depth` layers: the first one and `depth - 1` blocks.
    pub fn new(block: Block, depth: usize, rng: &mut StdRng) -> Self {
        let blocks = depth - 1;
        let (width, growth) = block.sizes(blocks);
        let (init, activation) = match block {
            Block::Orthogonal => (ORTHOGONAL, Nonlinearity::Tanh),
            Block::Tanh | Block::Highway(_) => (GLOROT, Nonlinearity::Tanh),
            Block::Relu | Block::Residual | Block::Dense => (HE, Nonlinearity::Relu),
        };
        Net {
            first: linear(PIXELS, width, init, rng),
            activation: Activation::new(activation),
            blocks: Stacked::build(blocks, |k| block.build(k, blocks, rng)),
            last: linear(width + blocks * growth, CLASSES, GLOROT, rng),
        }
    }

    /// The mean number of parameters of a block.
    pub fn parameters_per_block(&self) -> f64 {
        self.blocks.element_count() as f64 / self.blocks.layers().len() as f64
    }
}
