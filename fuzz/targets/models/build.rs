//! What a model is made of, and the model itself in either element type.

use gradflow::compose::{
    BoxLayer, DenseConcat, Highway, PostNormBlock, PreNormBlock, Residual, Stacked, StochasticDepth,
};
use gradflow::layers::{Activation, Dropout, Embedding, FeedForward, Identity, LayerNorm, Linear, Nonlinearity};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::recurrent::{Gru, GruReset, Lstm, Mgu, MinGru, Rnn, RnnNonlinearity};
use gradflow::wrap::{Bidirectional, GradientProbe, LearnedState, Prepacked, Probed, TruncatedBptt};
use gradflow::{Float, Layer, Tensors};

use super::assume::AssumeCausal;
use crate::targets::choices::Choices;

/// A layer, with its input and output sizes where they are free.
#[derive(Clone, Debug)]
pub enum Node {
    Identity,
    Linear { output: usize, bias: bool },
    Activation(Nonlinearity),
    LayerNorm,
    Dropout(f64),
    FeedForward { hidden: usize, f: Nonlinearity },
    PreNormBlock { hidden: usize, f: Nonlinearity },
    PostNormBlock { hidden: usize, f: Nonlinearity },
    Embedding { vocabulary: usize, output: usize },
    Recurrent(Recurrent),
    Sequence(Box<Node>, Box<Node>),
    Stacked(Vec<Node>),
    Residual { branch: Box<Node>, scale: Scale },
    Projected(Box<Node>),
    Highway(Box<Node>),
    DenseConcat(Box<Node>),
    StochasticDepth { branch: Box<Node>, p: f64, whole_batch: bool },
    Bidirectional(Box<Node>, Box<Node>),
    LearnedState(Box<Node>),
    Truncated { layer: Box<Node>, steps: usize, pass: bool, recompute: bool },
    Probed(Box<Node>),
    Prepacked(Box<Node>),
}

#[derive(Clone, Copy, Debug)]
pub enum Scale {
    None,
    Fixed(f64),
    Rezero,
    Layer(f64),
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Rnn(RnnNonlinearity),
    Lstm { peepholes: bool, coupled: bool, projection: Option<usize> },
    Gru(GruReset),
    Mgu,
    MinGru,
}

#[derive(Clone, Copy, Debug)]
pub struct Recurrent {
    kind: Kind,
    hidden: usize,
    num_layers: usize,
    bidirectional: bool,
    bias: bool,
    layer_norm: bool,
    dropout: f64,
    recurrent_dropout: f64,
    zoneout: [f64; 2],
}

/// A whole model.
#[derive(Clone, Debug)]
pub struct Spec {
    pub root: Node,
    /// The sizes of its input, or of its vocabulary.
    pub input: Input,
    /// Whether its outputs need no later input: it runs in chunks and step by step.
    pub causal: bool,
    /// Whether its gradient is that of the loss: it is not, if it is cut.
    pub exact_gradient: bool,
    /// Whether rows that are constant or zero give it a gradient that means nothing.
    pub normalises: bool,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    Features(usize),
    Tokens(usize),
}

impl Spec {
    pub fn choose(choices: &mut Choices<'_>, input: Input) -> Spec {
        let seed = u64::from(choices.byte());
        let mut spec =
            Spec { root: Node::Identity, input, causal: true, exact_gradient: true, normalises: false, seed };
        spec.root = match input {
            Input::Features(size) => spec.node(choices, size, 3).0,
            Input::Tokens(vocabulary) => {
                let output = size(choices, 20);
                let rest = spec.node(choices, output, 2).0;
                Node::Sequence(Box::new(Node::Embedding { vocabulary, output }), Box::new(rest))
            }
        };
        spec
    }

    /// A layer for `input` features, and how many it gives. `depth` bounds how deeply layers are nested.
    fn node(&mut self, choices: &mut Choices<'_>, input: usize, depth: usize) -> (Node, usize) {
        let leaf = depth == 0 || choices.below(3) == 0;
        if leaf {
            return self.leaf(choices, input);
        }
        let boxed = |(node, output): (Node, usize)| (Box::new(node), output);
        match choices.below(13) {
            0 | 1 => {
                let (first, between) = boxed(self.node(choices, input, depth - 1));
                let (second, output) = boxed(self.node(choices, between, depth - 1));
                (Node::Sequence(first, second), output)
            }
            2 => {
                let layers = (0..1 + choices.below(3)).map(|_| self.square(choices, input, depth - 1)).collect();
                (Node::Stacked(layers), input)
            }
            3 => {
                let scale = match choices.below(4) {
                    0 => Scale::None,
                    1 => Scale::Fixed(0.5),
                    2 => Scale::Rezero,
                    _ => Scale::Layer(0.1),
                };
                (Node::Residual { branch: Box::new(self.square(choices, input, depth - 1)), scale }, input)
            }
            4 => {
                let (branch, output) = boxed(self.node(choices, input, depth - 1));
                (Node::Projected(branch), output)
            }
            5 => (Node::Highway(Box::new(self.square(choices, input, depth - 1))), input),
            6 => {
                let (branch, output) = boxed(self.node(choices, input, depth - 1));
                (Node::DenseConcat(branch), input + output)
            }
            7 => {
                let branch = Box::new(self.square(choices, input, depth - 1));
                (
                    Node::StochasticDepth { branch, p: choices.one_of(&[0.0, 0.3, 0.7]), whole_batch: choices.yes() },
                    input,
                )
            }
            8 => {
                let (forward, output) = boxed(self.node(choices, input, depth - 1));
                let (reverse, more) = boxed(self.node(choices, input, depth - 1));
                self.causal = false;
                (Node::Bidirectional(forward, reverse), output + more)
            }
            9 => {
                let (layer, output) = boxed(self.node(choices, input, depth - 1));
                (Node::LearnedState(layer), output)
            }
            10 => {
                let was_causal = std::mem::replace(&mut self.causal, true);
                let (layer, output) = boxed(self.node(choices, input, depth - 1));
                // Chunks of what is not causal are another model.
                if !self.causal {
                    return (*layer, output);
                }
                self.causal = was_causal;
                let (pass, recompute) = (choices.yes(), choices.yes());
                self.exact_gradient &= pass;
                (Node::Truncated { layer, steps: 1 + choices.below(9), pass, recompute }, output)
            }
            11 => {
                let (layer, output) = boxed(self.node(choices, input, depth - 1));
                (Node::Probed(layer), output)
            }
            _ => {
                let (layer, output) = boxed(self.node(choices, input, depth - 1));
                (Node::Prepacked(layer), output)
            }
        }
    }

    /// A layer of as many output as input features.
    fn square(&mut self, choices: &mut Choices<'_>, size: usize, depth: usize) -> Node {
        match self.node(choices, size, depth) {
            (node, output) if output == size => node,
            (node, _) => Node::Sequence(Box::new(node), Box::new(Node::Linear { output: size, bias: choices.yes() })),
        }
    }

    fn leaf(&mut self, choices: &mut Choices<'_>, input: usize) -> (Node, usize) {
        let node = match choices.below(16) {
            0 => Node::Identity,
            1 | 2 => {
                let output = size(choices, 70);
                return (Node::Linear { output, bias: choices.yes() }, output);
            }
            3 => Node::Activation(nonlinearity(choices)),
            4 => {
                self.normalises = true;
                Node::LayerNorm
            }
            5 => Node::Dropout(choices.one_of(&[0.0, 0.3, 0.9])),
            6 => Node::FeedForward { hidden: size(choices, 70), f: nonlinearity(choices) },
            7 => {
                self.normalises = true;
                Node::PreNormBlock { hidden: size(choices, 40), f: nonlinearity(choices) }
            }
            8 => {
                self.normalises = true;
                Node::PostNormBlock { hidden: size(choices, 40), f: nonlinearity(choices) }
            }
            _ => {
                let recurrent = self.recurrent(choices);
                return (Node::Recurrent(recurrent), recurrent.output());
            }
        };
        (node, input)
    }

    fn recurrent(&mut self, choices: &mut Choices<'_>) -> Recurrent {
        let hidden = size(choices, 70);
        let kind = match choices.below(5) {
            0 => Kind::Rnn(choices.one_of(&[RnnNonlinearity::Tanh, RnnNonlinearity::Relu])),
            1 => {
                let projection = (choices.yes() && hidden > 1).then(|| 1 + choices.below(hidden - 1));
                Kind::Lstm { peepholes: choices.yes(), coupled: choices.yes(), projection }
            }
            2 => Kind::Gru(choices.one_of(&[GruReset::AfterProduct, GruReset::BeforeProduct])),
            3 => Kind::Mgu,
            _ => Kind::MinGru,
        };
        let probability = |choices: &mut Choices<'_>| choices.one_of(&[0.0, 0.0, 0.0, 0.4]);
        let recurrent = Recurrent {
            kind,
            hidden,
            num_layers: 1 + choices.below(3),
            bidirectional: choices.once_in(4),
            bias: !choices.once_in(4),
            layer_norm: choices.once_in(4),
            dropout: probability(choices),
            recurrent_dropout: probability(choices),
            zoneout: [probability(choices), probability(choices)],
        };
        self.causal &= !recurrent.bidirectional;
        self.normalises |= recurrent.layer_norm;
        recurrent
    }

    /// The model; its parameters are the same numbers in both element types, to rounding of `f32`.
    pub fn build<F: Float>(&self) -> BoxLayer<F> {
        let input = match self.input {
            Input::Features(size) => size,
            Input::Tokens(_) => 1,
        };
        let mut model = build(&self.root, input, &mut 0).0;
        let rng = &mut StdRng::seed_from_u64(self.seed);
        for i in 0..model.count() {
            let (name, columns) = (model.name(i), model.tensor(i).0.get(1).copied());
            let gain = name.contains("norm") && name.contains("weight");
            let spread = columns.map_or(0.3, |columns| 1.0 / (columns as f64).sqrt());
            let middle = if gain { 1.0 } else { 0.0 };
            for value in model.tensor_mut(i) {
                *value = F::of(f64::from(middle + rng.random_range(-1.0..1.0_f32) * spread as f32));
            }
        }
        model
    }
}

impl Recurrent {
    fn output(&self) -> usize {
        let one = match self.kind {
            Kind::Lstm { projection: Some(projection), .. } => projection,
            _ => self.hidden,
        };
        one * if self.bidirectional { 2 } else { 1 }
    }
}

/// A size of at most `most`, small ones more often.
pub fn size(choices: &mut Choices<'_>, most: usize) -> usize {
    1 + if choices.yes() { choices.below(most.min(9)) } else { choices.below(most) }
}

fn nonlinearity(choices: &mut Choices<'_>) -> Nonlinearity {
    use Nonlinearity::{Gelu, LeakyRelu, Relu, Sigmoid, Silu, Tanh};
    choices.one_of(&[Tanh, Sigmoid, Relu, LeakyRelu { slope: 0.1 }, Gelu, Silu])
}

/// The layer for `input` features, and how many it gives. `serial` numbers what needs a name or an id of its own.
fn build<F: Float>(node: &Node, input: usize, serial: &mut u64) -> (BoxLayer<F>, usize) {
    *serial += 1;
    // The same ids in both element types, whatever else is drawn.
    let rng = &mut StdRng::seed_from_u64(*serial);
    fn causal<L: Layer + 'static>(layer: L) -> BoxLayer<L::Elem>
    where
        L::State: 'static,
        L::Cache: 'static,
    {
        BoxLayer::new(AssumeCausal(layer))
    }
    match node {
        Node::Identity => (BoxLayer::new(Identity::new()), input),
        Node::Linear { output, bias } => (BoxLayer::new(Linear::builder(input, *output).bias(*bias).zeros()), *output),
        Node::Activation(f) => (BoxLayer::new(Activation::new(*f)), input),
        Node::LayerNorm => (BoxLayer::new(LayerNorm::new(input)), input),
        Node::Dropout(p) => (BoxLayer::new(Dropout::new(*p, rng)), input),
        Node::FeedForward { hidden, f } => (BoxLayer::new(FeedForward::zeros(input, *hidden, *f)), input),
        Node::PreNormBlock { hidden, f } => (BoxLayer::new(PreNormBlock::zeros(input, *hidden, *f)), input),
        Node::PostNormBlock { hidden, f } => (BoxLayer::new(PostNormBlock::zeros(input, *hidden, *f)), input),
        Node::Embedding { vocabulary, output } => (BoxLayer::new(Embedding::zeros(*vocabulary, *output)), *output),
        Node::Recurrent(recurrent) => (recurrent.build(input), recurrent.output()),
        Node::Sequence(first, second) => {
            let (first, between) = build(first, input, serial);
            let (second, output) = build(second, between, serial);
            (BoxLayer::new((first, second)), output)
        }
        Node::Stacked(layers) => {
            (BoxLayer::new(Stacked::new(layers.iter().map(|layer| build(layer, input, serial).0).collect())), input)
        }
        Node::Residual { branch, scale } => {
            let residual = Residual::new(build(branch, input, serial).0);
            let residual = match *scale {
                Scale::None => residual,
                Scale::Fixed(scale) => residual.scaled(scale),
                Scale::Rezero => residual.rezero(),
                Scale::Layer(initial) => residual.layer_scale(input, initial),
            };
            (BoxLayer::new(residual), input)
        }
        Node::Projected(branch) => {
            let (branch, output) = build(branch, input, serial);
            let shortcut = Linear::builder(input, output).bias(false).zeros();
            let residual = Residual { shortcut: Some(shortcut), ..Residual::new(branch) };
            (BoxLayer::new(residual), output)
        }
        Node::Highway(branch) => {
            let branch = build(branch, input, serial).0;
            let highway = Highway::builder(branch, input).gate_weight(0.0).gate_bias(-1.0).build(rng);
            (BoxLayer::new(highway), input)
        }
        Node::DenseConcat(branch) => {
            let (branch, output) = build(branch, input, serial);
            (BoxLayer::new(DenseConcat::new(branch)), input + output)
        }
        Node::StochasticDepth { branch, p, whole_batch } => {
            let depth = StochasticDepth::new(build(branch, input, serial).0, *p, rng);
            (BoxLayer::new(if *whole_batch { depth.whole_batch() } else { depth }), input)
        }
        Node::Bidirectional(forward, reverse) => {
            let ((forward, output), (reverse, more)) = (build(forward, input, serial), build(reverse, input, serial));
            (causal(Bidirectional::new(forward, reverse)), output + more)
        }
        Node::LearnedState(layer) => {
            let (layer, output) = build(layer, input, serial);
            (BoxLayer::new(LearnedState::new(layer)), output)
        }
        Node::Truncated { layer, steps, pass, recompute } => {
            let (layer, output) = build(layer, input, serial);
            let truncated = TruncatedBptt::new(layer, *steps);
            let truncated = if *pass { truncated.pass_gradients() } else { truncated };
            (causal(if *recompute { truncated.recompute() } else { truncated }), output)
        }
        Node::Probed(layer) => {
            let (layer, output) = build(layer, input, serial);
            let probe = GradientProbe::new();
            (BoxLayer::new(Probed::new(format!("layer {serial}"), layer, &probe)), output)
        }
        Node::Prepacked(layer) => {
            let (layer, output) = build(layer, input, serial);
            (BoxLayer::new(Prepacked::new(layer)), output)
        }
    }
}

impl Recurrent {
    fn build<F: Float>(&self, input: usize) -> BoxLayer<F> {
        let Recurrent { hidden, num_layers, bias, zoneout: [zoneout_h, zoneout_c], .. } = *self;
        macro_rules! finish {
            ($builder:expr) => {{
                let builder = $builder.num_layers(num_layers).bias(bias);
                let builder = if self.layer_norm { builder.layer_norm() } else { builder };
                let builder = if num_layers > 1 { builder.dropout(self.dropout) } else { builder };
                if self.bidirectional {
                    BoxLayer::new(AssumeCausal(builder.bidirectional().zeros()))
                } else {
                    BoxLayer::new(builder.zeros())
                }
            }};
        }
        match self.kind {
            Kind::Rnn(f) => {
                let builder = Rnn::<F>::builder(input, hidden).nonlinearity(f);
                finish!(builder.recurrent_dropout(self.recurrent_dropout).zoneout(zoneout_h))
            }
            Kind::Lstm { peepholes, coupled, projection } => {
                let builder = Lstm::<F>::builder(input, hidden).recurrent_dropout(self.recurrent_dropout);
                let builder = builder.zoneout(zoneout_h, zoneout_c);
                let builder = if peepholes { builder.peepholes() } else { builder };
                let builder = if coupled { builder.coupled() } else { builder };
                finish!(match projection {
                    Some(size) => builder.projection(size),
                    None => builder,
                })
            }
            Kind::Gru(reset) => {
                let builder = Gru::<F>::builder(input, hidden).reset(reset);
                finish!(builder.recurrent_dropout(self.recurrent_dropout).zoneout(zoneout_h))
            }
            Kind::Mgu => {
                let builder = Mgu::<F>::builder(input, hidden).recurrent_dropout(self.recurrent_dropout);
                finish!(builder.zoneout(zoneout_h))
            }
            Kind::MinGru => finish!(MinGru::<F>::builder(input, hidden).zoneout(zoneout_h)),
        }
    }
}
