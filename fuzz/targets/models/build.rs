//! The description of a model, and the model itself in either element type.

use gradflow::author::Steps;
use gradflow::compose::{
    BoxLayer, DenseConcat, Highway, PostNormBlock, PreNormBlock, Residual, Stacked, StochasticDepth, TemporalBlock,
    TiedEmbedding,
};
use gradflow::layers::{
    Activation, CausalConv1d, Dropout, Embedding, FeedForward, Identity, LastStep, LayerNorm, Linear, Nonlinearity,
    Pool, Repeat,
};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::recurrent::{Gru, GruReset, Lstm, Mgu, MinGru, MinLstm, Rnn, Slstm};
use gradflow::wrap::{
    Bidirectional, GradientProbe, LearnedState, Merge, Prepacked, Probed, TruncatedBptt, WeightDrop, WeightNorm,
};
use gradflow::{Float, Layer, Tensors};

use super::assume::AssumeCausal;
use super::attend::{Attend, Score};
use crate::targets::choices::Choices;

/// A layer, with those of its sizes that can be chosen.
#[derive(Clone, Debug)]
pub enum Node {
    Identity,
    Linear {
        output: usize,
        bias: bool,
    },
    Activation(Nonlinearity),
    LayerNorm,
    Dropout(f64),
    FeedForward {
        hidden: usize,
        f: Nonlinearity,
    },
    PreNormBlock {
        hidden: usize,
        f: Nonlinearity,
    },
    PostNormBlock {
        hidden: usize,
        f: Nonlinearity,
    },
    Embedding {
        vocabulary: usize,
        output: usize,
        /// Whether there is one more id, for padding. No batch has it, since finite differences would see its vector.
        padding: bool,
    },
    TiedEmbedding {
        vocabulary: usize,
        features: usize,
        bias: bool,
        layer: Box<Node>,
    },
    Recurrent(Recurrent),
    Convolution(Convolution),
    WeightNorm(Convolution),
    /// For the hidden weights, or for the first weight of a cell that has none.
    WeightDrop(Recurrent, f64),
    TemporalBlock {
        output: usize,
        kernel: usize,
        dilation: usize,
        layer_norm: bool,
    },
    Sequence(Box<Node>, Box<Node>),
    Stacked(Vec<Node>),
    Residual {
        branch: Box<Node>,
        scale: Scale,
    },
    Projected(Box<Node>),
    Highway(Box<Node>),
    DenseConcat(Box<Node>),
    StochasticDepth {
        branch: Box<Node>,
        p: f64,
        whole_batch: bool,
    },
    Bidirectional(Box<Node>, Box<Node>, Merge),
    LearnedState(Box<Node>),
    Truncated {
        layer: Box<Node>,
        steps: usize,
        pass: bool,
        recompute: bool,
    },
    Probed(Box<Node>),
    Prepacked(Box<Node>),
    LastStep {
        both: bool,
    },
    Pool {
        max: bool,
    },
    Repeat(usize),
    /// The queries are the outputs of `query_layer`, with `query` features; `at_once` of them attend in one call.
    Attention {
        query_layer: Box<Node>,
        query: usize,
        score: Score,
        at_once: usize,
    },
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
    Rnn(Nonlinearity),
    Lstm { peepholes: bool, coupled: bool, projection: Option<usize> },
    Gru(GruReset),
    Mgu,
    MinGru,
    MinLstm,
    Slstm { exponential_forget: bool },
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
    /// For all cells but minGRU and minLSTM.
    heads: usize,
    zoneout: [f64; 2],
    /// For LSTM and GRU: of the gates, and of the candidate.
    activations: [Nonlinearity; 2],
    /// For RNN, LSTM and GRU.
    clip: Option<f64>,
}

/// A convolution in time.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    output: usize,
    kernel: usize,
    dilation: usize,
    groups: usize,
    bias: bool,
    /// `None` for a causal convolution.
    stride: Option<usize>,
}

/// A whole model.
#[derive(Clone, Debug)]
pub struct Spec {
    pub root: Node,
    /// The size of its input, or of its vocabulary.
    pub input: Input,
    /// Whether no output needs later inputs, so that the model can run in chunks and step by step.
    pub causal: bool,
    /// Whether its gradient is that of the loss, which it is not if it is truncated.
    pub exact_gradient: bool,
    /// The eps of all normalisations.
    pub eps: f64,
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
        let mut spec = Spec { root: Node::Identity, input, causal: true, exact_gradient: true, eps: 1e-5, seed };
        spec.root = match input {
            Input::Features(size) => spec.body(choices, size, 3),
            Input::Tokens(vocabulary) => {
                let output = size(choices, 20);
                if choices.once_in(4) {
                    let (bias, layer) = (choices.yes(), Box::new(spec.square(choices, output, 2)));
                    Node::TiedEmbedding { vocabulary, features: output, bias, layer }
                } else {
                    let (padding, rest) = (choices.once_in(4), spec.body(choices, output, 2));
                    in_turn(Node::Embedding { vocabulary, output, padding }, rest)
                }
            }
        };
        spec
    }

    fn body(&mut self, choices: &mut Choices<'_>, input: usize, depth: usize) -> Node {
        if choices.once_in(4) { self.many_to_one(choices, input, depth) } else { self.node(choices, input, depth).0 }
    }

    /// A model that reads all steps, reduces them to one, and goes on from that with any number of steps.
    fn many_to_one(&mut self, choices: &mut Choices<'_>, input: usize, depth: usize) -> Node {
        let (reads, features) = self.node(choices, input, depth - 1);
        let one = self.many_to_one_layer(choices, features);
        let mut then = Vec::new();
        if choices.yes() {
            then.push(Node::Repeat(1 + choices.below(9)));
        }
        let last = self.node(choices, features, depth - 1).0;
        then.into_iter().chain([last]).fold(in_turn(reads, one), in_turn)
    }

    /// A layer that reduces all steps to one.
    fn many_to_one_layer(&mut self, choices: &mut Choices<'_>, features: usize) -> Node {
        self.causal = false;
        match choices.below(4) {
            0 => Node::Pool { max: true },
            1 => Node::Pool { max: false },
            _ => Node::LastStep { both: features.is_multiple_of(2) && choices.yes() },
        }
    }

    /// A layer for `input` features, and its number of outputs. `depth` bounds how deeply layers are nested.
    fn node(&mut self, choices: &mut Choices<'_>, input: usize, depth: usize) -> (Node, usize) {
        let leaf = depth == 0 || choices.below(3) == 0;
        if leaf {
            return self.leaf(choices, input);
        }
        let boxed = |(node, output): (Node, usize)| (Box::new(node), output);
        match choices.below(14) {
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
                let merges = [Merge::Concat, Merge::Sum, Merge::Average, Merge::Multiply];
                let merge = if output == more { choices.one_of(&merges) } else { Merge::Concat };
                let output = if merge == Merge::Concat { output + more } else { output };
                (Node::Bidirectional(forward, reverse, merge), output)
            }
            9 => {
                let (layer, output) = boxed(self.node(choices, input, depth - 1));
                (Node::LearnedState(layer), output)
            }
            10 => {
                let was_causal = std::mem::replace(&mut self.causal, true);
                let (layer, output) = boxed(self.node(choices, input, depth - 1));
                // A layer that is not causal computes something else in chunks.
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
            12 => self.attention(choices, input, depth),
            _ => {
                let (layer, output) = boxed(self.node(choices, input, depth - 1));
                (Node::Prepacked(layer), output)
            }
        }
    }

    /// Attention over the input, with queries that are computed from the input too.
    fn attention(&mut self, choices: &mut Choices<'_>, input: usize, depth: usize) -> (Node, usize) {
        let dot = choices.yes();
        let (made, query) =
            if dot { (self.square(choices, input, depth - 1), input) } else { self.node(choices, input, depth - 1) };
        // As many queries as steps, a single one, or any number of them.
        let query_layer = match choices.below(3) {
            0 => made,
            1 => in_turn(made, self.many_to_one_layer(choices, query)),
            _ => {
                let one = self.many_to_one_layer(choices, query);
                in_turn(in_turn(made, one), Node::Repeat(1 + choices.below(9)))
            }
        };
        let score = match (dot, choices.yes()) {
            (true, scaled) => Score::Dot { scaled },
            (false, true) => Score::Bilinear,
            (false, false) => Score::Additive { hidden: size(choices, 40), bias: choices.yes() },
        };
        self.causal = false;
        let at_once = 1 + choices.below(12);
        (Node::Attention { query_layer: Box::new(query_layer), query, score, at_once }, input)
    }

    /// A layer with as many output as input features.
    fn square(&mut self, choices: &mut Choices<'_>, size: usize, depth: usize) -> Node {
        match self.node(choices, size, depth) {
            (node, output) if output == size => node,
            (node, _) => Node::Sequence(Box::new(node), Box::new(Node::Linear { output: size, bias: choices.yes() })),
        }
    }

    fn leaf(&mut self, choices: &mut Choices<'_>, input: usize) -> (Node, usize) {
        let node = match choices.below(20) {
            0 => Node::Identity,
            1 | 2 => {
                let output = size(choices, 70);
                return (Node::Linear { output, bias: choices.yes() }, output);
            }
            3 => Node::Activation(nonlinearity(choices)),
            4 => Node::LayerNorm,
            5 => Node::Dropout(choices.one_of(&[0.0, 0.3, 0.9])),
            6 => Node::FeedForward { hidden: size(choices, 70), f: nonlinearity(choices) },
            7 => Node::PreNormBlock { hidden: size(choices, 40), f: nonlinearity(choices) },
            8 => Node::PostNormBlock { hidden: size(choices, 40), f: nonlinearity(choices) },
            // Most surroundings refuse it.
            9 if choices.once_in(4) => self.many_to_one_layer(choices, input),
            9 => Node::Identity,
            10 | 11 => {
                let convolution = self.convolution(choices, input);
                return (Node::Convolution(convolution), convolution.output);
            }
            12 => {
                let convolution = Convolution { stride: None, ..self.convolution(choices, input) };
                return (Node::WeightNorm(convolution), convolution.output);
            }
            13 => {
                let output = if choices.yes() { input } else { size(choices, 40) };
                let (kernel, dilation) = (1 + choices.below(4), 1 + choices.below(5));
                return (Node::TemporalBlock { output, kernel, dilation, layer_norm: choices.yes() }, output);
            }
            _ => {
                let recurrent = self.recurrent(choices);
                let node = match choices.once_in(6) {
                    true => Node::WeightDrop(recurrent, choices.one_of(&[0.0, 0.3, 0.7])),
                    false => Node::Recurrent(recurrent),
                };
                return (node, recurrent.output());
            }
        };
        (node, input)
    }

    fn convolution(&mut self, choices: &mut Choices<'_>, input: usize) -> Convolution {
        // Most surroundings refuse it.
        let stride = choices.once_in(8).then(|| 1 + choices.below(4));
        self.causal &= stride.is_none();
        let (kernel, dilation, bias) = (1 + choices.below(9), 1 + choices.below(6), choices.yes());
        let groups =
            if choices.yes() { 1 } else { choices.one_of(&[input, if input.is_multiple_of(2) { 2 } else { 1 }]) };
        let output = if choices.yes() { input } else { groups * size(choices, 1 + 60 / groups) };
        Convolution { output, kernel, dilation, groups, bias, stride }
    }

    fn recurrent(&mut self, choices: &mut Choices<'_>) -> Recurrent {
        let hidden = size(choices, 70);
        let kind = match choices.below(7) {
            0 => Kind::Rnn(choices.one_of(&[Nonlinearity::Tanh, Nonlinearity::Relu, Nonlinearity::Softsign])),
            1 => {
                let projection = (choices.yes() && hidden > 1).then(|| 1 + choices.below(hidden - 1));
                Kind::Lstm { peepholes: choices.yes(), coupled: choices.yes(), projection }
            }
            2 => Kind::Gru(choices.one_of(&[GruReset::AfterProduct, GruReset::BeforeProduct])),
            3 => Kind::Mgu,
            4 => Kind::MinGru,
            5 => Kind::MinLstm,
            _ => Kind::Slstm { exponential_forget: choices.yes() },
        };
        let output = if let Kind::Lstm { projection: Some(output), .. } = kind { output } else { hidden };
        let divisors: Vec<usize> =
            (1..=hidden).filter(|&n| hidden.is_multiple_of(n) && output.is_multiple_of(n)).collect();
        let heads = if choices.once_in(4) { choices.one_of(&divisors) } else { 1 };
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
            heads,
            zoneout: [probability(choices), probability(choices)],
            activations: if choices.once_in(4) {
                let gates = [Nonlinearity::Sigmoid, Nonlinearity::HARD_SIGMOID, Nonlinearity::Softsign];
                let hard = Nonlinearity::ScaledTanh { scale: 0.9, slope: 0.8 };
                [choices.one_of(&gates), choices.one_of(&[Nonlinearity::Tanh, Nonlinearity::Softsign, hard])]
            } else {
                [Nonlinearity::Sigmoid, Nonlinearity::Tanh]
            },
            clip: choices.once_in(6).then_some(3.0),
        };
        self.causal &= !recurrent.bidirectional;
        recurrent
    }

    /// Whether the model contains a normalisation.
    pub fn normalises(&self) -> bool {
        let text = format!("{:?}", self.root);
        ["LayerNorm", "NormBlock", "layer_norm: true"].iter().any(|name| text.contains(name))
    }

    /// Whether the model contains a layer that gives only one output for every few steps; it takes no mask and no resets.
    pub fn has_stride(&self) -> bool {
        format!("{:?}", self.root).contains("stride: Some")
    }

    /// The model. Its parameters are the same numbers in both element types, up to rounding to `f32`.
    pub fn build<F: Float>(&self) -> BoxLayer<F> {
        let input = match self.input {
            Input::Features(size) => size,
            Input::Tokens(_) => 1,
        };
        let mut model = build(&self.root, input, &mut Parts { serial: 0, eps: self.eps }).0;
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

fn in_turn(first: Node, second: Node) -> Node {
    Node::Sequence(Box::new(first), Box::new(second))
}

impl Node {
    /// The number of output steps, if it is not the number of input steps.
    fn output_steps(&self) -> Steps {
        match self {
            Node::LastStep { .. } | Node::Pool { .. } => Steps::Count(1),
            Node::Repeat(steps) => Steps::Count(*steps),
            Node::Convolution(Convolution { stride: Some(stride), .. }) => Steps::Every(*stride),
            Node::Sequence(first, second) => first.output_steps().then(second.output_steps()),
            Node::Stacked(layers) => layers.iter().fold(Steps::Same, |steps, layer| steps.then(layer.output_steps())),
            Node::Bidirectional(layer, ..)
            | Node::LearnedState(layer)
            | Node::Probed(layer)
            | Node::Prepacked(layer)
            | Node::TiedEmbedding { layer, .. }
            | Node::Attention { query_layer: layer, .. } => layer.output_steps(),
            _ => Steps::Same,
        }
    }

    /// Whether the node accepts `steps` steps: a skip connection needs a branch that keeps their number, and [`Repeat`] a single step.
    pub fn takes(&self, steps: usize) -> bool {
        let keeps = |branch: &Node| branch.output_steps() == Steps::Same && branch.takes(steps);
        match self {
            Node::Repeat(_) => steps == 1,
            Node::Sequence(first, second) => first.takes(steps) && second.takes(first.output_steps().of(steps)),
            Node::Stacked(layers) => {
                let mut steps = steps;
                layers.iter().all(|layer| {
                    let takes = layer.takes(steps);
                    steps = layer.output_steps().of(steps);
                    takes
                })
            }
            Node::Residual { branch, .. } | Node::StochasticDepth { branch, .. } => keeps(branch),
            Node::Projected(branch) | Node::Highway(branch) | Node::DenseConcat(branch) => keeps(branch),
            Node::Bidirectional(forward, reverse, _) => {
                forward.takes(steps) && reverse.takes(steps) && forward.output_steps() == reverse.output_steps()
            }
            Node::LearnedState(layer) | Node::Probed(layer) | Node::Prepacked(layer) => layer.takes(steps),
            Node::Truncated { layer, .. }
            | Node::TiedEmbedding { layer, .. }
            | Node::Attention { query_layer: layer, .. } => layer.takes(steps),
            _ => true,
        }
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

/// A size of at most `most`; small sizes are more likely.
pub fn size(choices: &mut Choices<'_>, most: usize) -> usize {
    1 + if choices.yes() { choices.below(most.min(9)) } else { choices.below(most) }
}

fn nonlinearity(choices: &mut Choices<'_>) -> Nonlinearity {
    use Nonlinearity::{Gelu, LeakyRelu, Relu, Sigmoid, Silu, Tanh};
    choices.one_of(&[Tanh, Sigmoid, Relu, LeakyRelu { slope: 0.1 }, Gelu, Silu])
}

/// State that the parts of a model share while they are built.
struct Parts {
    /// Numbers the layers that need a unique name or id.
    serial: u64,
    /// The eps of all normalisations.
    eps: f64,
}

/// The layer for `input` features, and its number of outputs.
fn build<F: Float>(node: &Node, input: usize, parts: &mut Parts) -> (BoxLayer<F>, usize) {
    parts.serial += 1;
    // The same ids in both element types, whatever else is drawn.
    let rng = &mut StdRng::seed_from_u64(parts.serial);
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
        Node::LayerNorm => (BoxLayer::new(LayerNorm::new(input).eps(parts.eps)), input),
        Node::Dropout(p) => (BoxLayer::new(Dropout::new(*p, rng)), input),
        Node::FeedForward { hidden, f } => (BoxLayer::new(FeedForward::zeros(input, *hidden, *f)), input),
        Node::PreNormBlock { hidden, f } => {
            (BoxLayer::new(PreNormBlock::zeros(input, *hidden, *f).eps(parts.eps)), input)
        }
        Node::PostNormBlock { hidden, f } => {
            (BoxLayer::new(PostNormBlock::zeros(input, *hidden, *f).eps(parts.eps)), input)
        }
        Node::Embedding { vocabulary, output, padding: false } => {
            (BoxLayer::new(Embedding::zeros(*vocabulary, *output)), *output)
        }
        Node::Embedding { vocabulary, output, padding: true } => {
            let builder = Embedding::builder(vocabulary + 1, *output);
            (BoxLayer::new(builder.padding_idx(*vocabulary).zeros()), *output)
        }
        Node::TiedEmbedding { vocabulary, features, bias, layer } => {
            let layer = build(layer, *features, parts).0;
            let tied = TiedEmbedding::new(Embedding::zeros(*vocabulary, *features), layer);
            (BoxLayer::new(if *bias { tied.bias() } else { tied }), *vocabulary)
        }
        Node::Recurrent(recurrent) => (recurrent.build(input, parts.eps), recurrent.output()),
        Node::WeightDrop(recurrent, p) => {
            let layer = recurrent.build(input, parts.eps);
            let dropped = match recurrent.kind {
                Kind::MinGru | Kind::MinLstm => WeightDrop::of(layer, &["weight_ih_l0"], *p, rng),
                _ => WeightDrop::new(layer, *p, rng),
            };
            (BoxLayer::new(dropped), recurrent.output())
        }
        Node::Convolution(convolution) => {
            let conv = convolution.build(input);
            let conv = match convolution.stride {
                Some(stride) => causal(conv.strided(stride)),
                None => BoxLayer::new(conv),
            };
            (conv, convolution.output)
        }
        Node::WeightNorm(convolution) => (BoxLayer::new(WeightNorm::new(convolution.build(input))), convolution.output),
        Node::TemporalBlock { output, kernel, dilation, layer_norm } => {
            let sizes = (input, *output, *kernel, *dilation);
            let block = if *layer_norm {
                BoxLayer::new(TemporalBlock::layer_norm(sizes.0, sizes.1, sizes.2, sizes.3, 0.2, rng))
            } else {
                BoxLayer::new(TemporalBlock::weight_norm(sizes.0, sizes.1, sizes.2, sizes.3, 0.2, rng))
            };
            (block, *output)
        }
        Node::Sequence(first, second) => {
            let (first, between) = build(first, input, parts);
            let (second, output) = build(second, between, parts);
            (BoxLayer::new((first, second)), output)
        }
        Node::Stacked(layers) => {
            (BoxLayer::new(Stacked::new(layers.iter().map(|layer| build(layer, input, parts).0).collect())), input)
        }
        Node::Residual { branch, scale } => {
            let residual = Residual::new(build(branch, input, parts).0);
            let residual = match *scale {
                Scale::None => residual,
                Scale::Fixed(scale) => residual.scaled(scale),
                Scale::Rezero => residual.rezero(),
                Scale::Layer(initial) => residual.layer_scale(input, initial),
            };
            (BoxLayer::new(residual), input)
        }
        Node::Projected(branch) => {
            let (branch, output) = build(branch, input, parts);
            let shortcut = Linear::builder(input, output).bias(false).zeros();
            let residual = Residual { shortcut: Some(shortcut), ..Residual::new(branch) };
            (BoxLayer::new(residual), output)
        }
        Node::Highway(branch) => {
            let branch = build(branch, input, parts).0;
            let highway = Highway::builder(branch, input).gate_weight(0.0).gate_bias(-1.0).build(rng);
            (BoxLayer::new(highway), input)
        }
        Node::DenseConcat(branch) => {
            let (branch, output) = build(branch, input, parts);
            (BoxLayer::new(DenseConcat::new(branch)), input + output)
        }
        Node::StochasticDepth { branch, p, whole_batch } => {
            let depth = StochasticDepth::new(build(branch, input, parts).0, *p, rng);
            (BoxLayer::new(if *whole_batch { depth.whole_batch() } else { depth }), input)
        }
        Node::Bidirectional(forward, reverse, merge) => {
            let ((forward, output), (reverse, more)) = (build(forward, input, parts), build(reverse, input, parts));
            let output = if *merge == Merge::Concat { output + more } else { output };
            (causal(Bidirectional::new(forward, reverse).merge(*merge)), output)
        }
        Node::LearnedState(layer) => {
            let (layer, output) = build(layer, input, parts);
            (BoxLayer::new(LearnedState::new(layer)), output)
        }
        Node::Truncated { layer, steps, pass, recompute } => {
            let (layer, output) = build(layer, input, parts);
            let truncated = TruncatedBptt::new(layer, *steps);
            let truncated = if *pass { truncated.pass_gradients() } else { truncated };
            (causal(if *recompute { truncated.recompute() } else { truncated }), output)
        }
        Node::Probed(layer) => {
            let (layer, output) = build(layer, input, parts);
            let probe = GradientProbe::new();
            (BoxLayer::new(Probed::new(format!("layer {}", parts.serial), layer, &probe)), output)
        }
        Node::Prepacked(layer) => {
            let (layer, output) = build(layer, input, parts);
            (BoxLayer::new(Prepacked::new(layer)), output)
        }
        Node::LastStep { both: false } => (causal(LastStep::new()), input),
        Node::LastStep { both: true } => (causal(LastStep::both_directions()), input),
        Node::Pool { max } => (causal(if *max { Pool::max() } else { Pool::mean() }), input),
        Node::Repeat(steps) => (causal(Repeat::new(*steps)), input),
        Node::Attention { query_layer, query, score, at_once } => {
            let layer = build(query_layer, input, parts).0;
            (causal(Attend::new(layer, score.attention(*query, input, rng), *at_once)), input)
        }
    }
}

impl Convolution {
    fn build<F: Float>(&self, input: usize) -> CausalConv1d<F> {
        let builder = CausalConv1d::builder(input, self.output, self.kernel).dilation(self.dilation);
        builder.groups(self.groups).bias(self.bias).zeros()
    }
}

impl Recurrent {
    fn build<F: Float>(&self, input: usize, eps: f64) -> BoxLayer<F> {
        let Recurrent { hidden, num_layers, bias, zoneout: [zoneout_h, zoneout_c], .. } = *self;
        macro_rules! finish {
            ($builder:expr) => {{
                let builder = $builder.num_layers(num_layers).bias(bias);
                let builder = if self.layer_norm { builder.layer_norm().layer_norm_eps(eps) } else { builder };
                let builder = if num_layers > 1 { builder.dropout(self.dropout) } else { builder };
                if self.bidirectional {
                    BoxLayer::new(AssumeCausal(builder.bidirectional().zeros()))
                } else {
                    BoxLayer::new(builder.zeros())
                }
            }};
        }
        let [gate, candidate] = self.activations;
        match self.kind {
            Kind::Rnn(f) => {
                let builder = Rnn::<F>::builder(input, hidden).nonlinearity(f).heads(self.heads);
                let builder = if let Some(clip) = self.clip { builder.clip(clip) } else { builder };
                finish!(builder.recurrent_dropout(self.recurrent_dropout).zoneout(zoneout_h))
            }
            Kind::Lstm { peepholes, coupled, projection } => {
                let builder =
                    Lstm::<F>::builder(input, hidden).recurrent_dropout(self.recurrent_dropout).heads(self.heads);
                let builder = builder.zoneout(zoneout_h, zoneout_c).gate_activation(gate);
                let builder = builder.candidate_activation(candidate).output_activation(candidate);
                let builder = if let Some(clip) = self.clip { builder.clip(clip) } else { builder };
                let builder = if peepholes { builder.peepholes() } else { builder };
                let builder = if coupled { builder.coupled() } else { builder };
                finish!(match projection {
                    Some(size) => builder.projection(size),
                    None => builder,
                })
            }
            Kind::Gru(reset) => {
                let builder = Gru::<F>::builder(input, hidden).reset(reset).heads(self.heads);
                let builder = builder.gate_activation(gate).candidate_activation(candidate);
                let builder = if let Some(clip) = self.clip { builder.clip(clip) } else { builder };
                finish!(builder.recurrent_dropout(self.recurrent_dropout).zoneout(zoneout_h))
            }
            Kind::Mgu => {
                let builder =
                    Mgu::<F>::builder(input, hidden).recurrent_dropout(self.recurrent_dropout).heads(self.heads);
                finish!(builder.zoneout(zoneout_h))
            }
            Kind::MinGru => finish!(MinGru::<F>::builder(input, hidden).zoneout(zoneout_h)),
            Kind::MinLstm => finish!(MinLstm::<F>::builder(input, hidden).zoneout(zoneout_h)),
            Kind::Slstm { exponential_forget } => {
                let builder = Slstm::<F>::builder(input, hidden).recurrent_dropout(self.recurrent_dropout);
                let builder = if exponential_forget { builder.exponential_forget() } else { builder };
                finish!(builder.heads(self.heads).zoneout(zoneout_h))
            }
        }
    }
}
