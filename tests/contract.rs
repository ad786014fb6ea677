//! Every layer keeps the contract of `Layer`: a line a layer, in f64 and f32.

use gradflow::contract::{Contract, Input};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    Activation, BoxLayer, Causal, DenseConcat, Dropout, Embedding, FeedForward, GradientProbe, GruCell, Highway,
    Identity, Init, Layer, LayerNorm, Linear, LstmCell, Nonlinearity, PostNormBlock, PreNormBlock, Probed, Residual,
    RnnCell, RnnNonlinearity, Stacked, StochasticDepth, sequential,
};

fn count(act: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(act).count_total
}

fn check<L: Causal>(name: &str, layer: &L, input: impl Into<Input>) {
    let worst = Contract::new(name, layer, input).allocations(count).check_causal();
    println!("{name:<24} {:>4}  {worst:.1e}", std::any::type_name::<L::Elem>());
}

/// `name: input => layer`, with `F` its element type and `rng` to draw from.
macro_rules! contracts {
    ($($name:ident: $input:expr => |$rng:ident| $layer:expr;)+) => {$(
        #[test]
        fn $name() {
            {
                type F = f64;
                let $rng = &mut StdRng::seed_from_u64(1);
                check(stringify!($name), &$layer, $input);
            }
            {
                type F = f32;
                let $rng = &mut StdRng::seed_from_u64(1);
                check(stringify!($name), &$layer, $input);
            }
        }
    )+};
}

contracts! {
    linear: 3 => |rng| Linear::<F>::new(3, 4, rng);
    linear_without_bias: 3 => |rng| Linear::<F>::new(3, 4, rng).without_bias();
    tanh: 3 => |_rng| Activation::<F>::tanh();
    sigmoid: 3 => |_rng| Activation::<F>::sigmoid();
    relu: 3 => |_rng| Activation::<F>::relu();
    leaky_relu: 3 => |_rng| Activation::<F>::leaky_relu(0.1);
    gelu: 3 => |_rng| Activation::<F>::gelu();
    silu: 3 => |_rng| Activation::<F>::silu();
    layer_norm: 5 => |_rng| LayerNorm::<F>::new(5);
    embedding: Input::Tokens(7) => |rng| Embedding::<F>::new(7, 3, rng);
    rnn_cell: 3 => |rng| RnnCell::<F>::new(3, 4, rng);
    rnn_cell_relu: 3 => |rng| RnnCell::<F>::builder(3, 4).hidden_bias(0.3).build(rng).with_nonlinearity(RnnNonlinearity::Relu);
    rnn_cell_without_bias: 3 => |rng| RnnCell::<F>::builder(3, 4).bias(false).build(rng);
    lstm_cell: 3 => |rng| LstmCell::<F>::builder(3, 4).pytorch().build(rng);
    lstm_cell_wide: 3 => |rng| LstmCell::<F>::new(3, 19, rng);
    lstm_cell_without_bias: 3 => |rng| LstmCell::<F>::builder(3, 4).bias(false).build(rng);
    lstm_cell_projected: 3 => |rng| LstmCell::<F>::builder(3, 5).projection(2).build(rng);
    gru_cell: 3 => |rng| GruCell::<F>::builder(3, 4).pytorch().build(rng);
    gru_cell_wide: 3 => |rng| GruCell::<F>::new(3, 19, rng);
    gru_cell_without_bias: 3 => |rng| GruCell::<F>::builder(3, 4).bias(false).build(rng);
    feed_forward: 3 => |rng| FeedForward::<F>::new(3, 5, Nonlinearity::Silu, rng);
    residual: 4 => |rng| Residual::new(Linear::<F>::new(4, 4, rng));
    residual_scaled: 4 => |rng| Residual::new(Linear::<F>::new(4, 4, rng)).scaled(0.3);
    residual_projected: 3 => |rng| Residual::projected(Linear::<F>::new(3, 4, rng), 3, rng).scaled(0.5);
    residual_rezero: 4 => |rng| rezero(Residual::new(Linear::<F>::new(4, 4, rng)));
    residual_layer_scale: 4 => |rng| Residual::new(Linear::<F>::new(4, 4, rng)).layer_scale(4, 0.1);
    residual_lstm: 4 => |rng| Residual::new(LstmCell::<F>::new(4, 4, rng));
    residual_projected_gru: 3 => |rng| Residual::projected(GruCell::<F>::new(3, 4, rng), 3, rng).layer_scale(4, 0.5);
    pre_norm_block: 4 => |rng| PreNormBlock::<F>::pre_norm(4, 6, Nonlinearity::Gelu, rng);
    post_norm_block: 4 => |rng| PostNormBlock::<F>::new(4, 6, Nonlinearity::Tanh, rng);
    dropout: 5 => |rng| Dropout::<F>::new(0.4, rng);
    dropout_of_nothing: 5 => |rng| Dropout::<F>::new(0.0, rng);
    identity: 3 => |_rng| Identity::<F>::new();
    highway: 4 => |rng| Highway::new(Linear::<F>::new(4, 4, rng), 4, rng);
    highway_lstm: 4 => |rng| Highway::new(LstmCell::<F>::new(4, 4, rng), 4, rng).gate_bias(0.5);
    dense_concat: 4 => |rng| DenseConcat::new(Linear::<F>::new(4, 3, rng));
    dense_concat_gru: 4 => |rng| DenseConcat::new(GruCell::<F>::new(4, 3, rng));
    dense_stack: 2 => |rng| Stacked::build(3, |k| DenseConcat::new(Linear::<F>::new(2 + 3 * k, 3, rng)));
    stochastic_depth: 4 => |rng| StochasticDepth::new(Linear::<F>::new(4, 3, rng), 0.5, rng);
    stochastic_depth_lstm: 4 => |rng| Residual::new(StochasticDepth::new(LstmCell::<F>::new(4, 4, rng), 0.5, rng));
    stochastic_depth_whole_batch: 4 => |rng|
        Residual::new(StochasticDepth::new(GruCell::<F>::new(4, 4, rng), 0.5, rng).whole_batch());
    dropout_in_a_stack: 4 => |rng| Stacked::build(2, |_| Residual::new((
        LayerNorm::<F>::new(4), LstmCell::new(4, 4, rng), Dropout::new(0.3, rng),
    )));
    probed: 3 => |rng| Probed::new("linear", Linear::<F>::new(3, 4, rng), &GradientProbe::new());
    probed_and_recorded: 3 => |rng| {
        let probe = GradientProbe::new();
        probe.record(true);
        (
            Probed::recurrent("lstm", LstmCell::<F>::new(3, 4, rng), &probe),
            Probed::recurrent("gru", GruCell::new(4, 4, rng), &probe),
            Probed::recurrent("rnn", RnnCell::new(4, 2, rng), &probe),
        )
    };
    tuple_of_one: 3 => |rng| (RnnCell::<F>::new(3, 4, rng),);
    tuple_of_eight: 3 => |rng| (
        LayerNorm::<F>::new(3), Linear::new(3, 4, rng), Activation::tanh(), LstmCell::new(4, 4, rng),
        GruCell::new(4, 3, rng), Residual::new(RnnCell::new(3, 3, rng)), Activation::sigmoid(), Linear::new(3, 2, rng),
    );
    nested: 3 => |rng| ((Linear::<F>::new(3, 4, rng), Activation::gelu()), (LstmCell::new(4, 3, rng),));
    stacked: 3 => |rng| Stacked::build(3, |_| Residual::new((LstmCell::<F>::new(3, 3, rng), Activation::tanh())));
    named: Input::Tokens(6) => |rng| Tagger::<F> {
        embedding: Embedding::new(6, 3, rng), gru: GruCell::new(3, 4, rng), head: Linear::new(4, 2, rng),
    };
}

// A boxed layer gives its state and cache behind a pointer, and allocates no more than the layer inside.
contracts! {
    boxed: 3 => |rng| Stacked::new(vec![
        BoxLayer::new(LstmCell::<F>::new(3, 5, rng)),
        BoxLayer::new((Linear::new(5, 2, rng), Activation::tanh())),
        BoxLayer::new(Residual::new(GruCell::builder(2, 2).weight_hh(Init::Orthogonal { gain: 0.5 }).build(rng))),
    ]);
}

sequential! {
    #[derive(Clone, Debug)]
    struct Tagger<F: gradflow::Float>: Layer<F> {
        embedding: Embedding<F>,
        gru: GruCell<F>,
        head: Linear<F>,
    }
}

/// At its start, a ReZero branch has no gradient: a scale of 0.4 shows it.
fn rezero<L: Layer>(block: Residual<L>) -> Residual<L> {
    let mut block = block.rezero();
    let scale = gradflow::Tensors::count(&block) - 1;
    gradflow::Tensors::tensor_mut(&mut block, scale)[0] = gradflow::Float::of(0.4);
    block
}
