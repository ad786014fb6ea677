//! Every layer keeps the contract of `Layer`: one line per layer, in f64 and f32.

mod overwriting;
mod panics;
mod wrappers;

use gradflow::check::{Contract, GradCheck, Input};
use gradflow::{
    Causal, Layer,
    compose::{
        BoxLayer, DenseConcat, Highway, NormedConv1d, PostNormBlock, PreNormBlock, Residual, Stacked, StochasticDepth,
        TemporalBlock, TiedEmbedding,
    },
    layers::{
        Activation, CausalConv1d, Dropout, Embedding, FeedForward, Identity, Init, LastStep, LayerNorm, Linear,
        Nonlinearity, Pool, Repeat,
    },
    recurrent::{
        Gru, GruCell, GruReset, Lstm, LstmCell, Mgu, MguCell, MinGru, MinGruCell, MinLstm, MinLstmCell, Rnn, RnnCell,
        Slstm, SlstmCell,
    },
    sequential,
    wrap::{
        Bidirectional, GradientProbe, LearnedState, Merge, Prepacked, Probed, TruncatedBptt, WeightDrop, WeightNorm,
    },
};

use crate::common::{allocations, lively, rng};

fn count(act: &mut dyn FnMut()) -> u64 {
    allocations(act)
}

fn check_causal<L: Causal>(name: &str, layer: &L, input: impl Into<Input>) {
    report::<L>(name, Contract::new(name, layer, input).allocations(count).check_causal());
}

/// For layers that need the whole sequence.
fn check_any<L: Layer>(name: &str, layer: &L, input: impl Into<Input>) {
    report::<L>(name, Contract::new(name, layer, input).allocations(count).check());
}

/// The same of a layer in f32, as a [`BoxLayer`], so that the contract is compiled only once for all of them: it is most of what this program
/// compiles. In f64, each layer's own type is checked.
mod boxed {
    use super::*;

    pub(super) fn check_causal<L: Causal<Elem = f32>>(name: &str, layer: L, input: impl Into<Input>) {
        super::check_causal(name, &BoxLayer::new(layer), input);
    }

    pub(super) fn check_any<L: Layer<Elem = f32>>(name: &str, layer: L, input: impl Into<Input>) {
        super::check_any(name, &BoxLayer::whole(layer), input);
    }

    pub(super) fn check_finely<L: Layer<Elem = f32>>(name: &str, layer: L, input: impl Into<Input>) {
        super::check_finely(name, &BoxLayer::whole(layer), input);
    }
}

fn report<L: Layer>(name: &str, worst: f64) {
    println!("{name:<28} {:>4}  {worst:.1e}", std::any::type_name::<L::Elem>());
}

/// Takes `name: input => layer`, where `F` is the element type and `rng` a random number generator.
macro_rules! contracts {
    ($($name:ident: $input:expr => |$rng:ident| $layer:expr;)+) => {
        contracts! { check_causal; $($name: $input => |$rng| $layer;)+ }
    };
    ($check:ident; $($name:ident: $input:expr => |$rng:ident| $layer:expr;)+) => {$(
        #[test]
        fn $name() {
            {
                type F = f64;
                let $rng = &mut rng(1);
                $check(stringify!($name), &$layer, $input);
            }
            {
                type F = f32;
                let $rng = &mut rng(1);
                boxed::$check(stringify!($name), $layer, $input);
            }
        }
    )+};
}

/// [`contracts!`] for the builders in a table of `common/variants.rs`.
macro_rules! contracts_of_builders {
    (@ $check:ident; $($name:ident: |$input:ident, $hidden:ident| $builder:expr;)+) => {
        contracts! { $check; $($name: 3 => |rng| {
            let builder = |$input: usize, $hidden: usize| $builder;
            lively(builder(3, 4).build(rng), rng)
        };)+ }
    };
    ($($table:tt)+) => { contracts_of_builders! { @ check_causal; $($table)+ } };
}

macro_rules! any_contracts_of_builders {
    ($($table:tt)+) => { contracts_of_builders! { @ check_any; $($table)+ } };
}

with_cell_variants! { contracts_of_builders }
with_recurrent_models! { contracts_of_builders }
with_bidirectional_models! { any_contracts_of_builders }

contracts! {
    linear: 3 => |rng| Linear::<F>::new(3, 4, rng);
    linear_without_bias: 3 => |rng| Linear::<F>::builder(3, 4).bias(false).build(rng);
    tanh: 3 => |_rng| Activation::<F>::tanh();
    sigmoid: 3 => |_rng| Activation::<F>::sigmoid();
    relu: 3 => |_rng| Activation::<F>::relu();
    leaky_relu: 3 => |_rng| Activation::<F>::leaky_relu(0.1);
    gelu: 3 => |_rng| Activation::<F>::gelu();
    silu: 3 => |_rng| Activation::<F>::silu();
    softplus: 3 => |_rng| Activation::<F>::new(Nonlinearity::Softplus);
    layer_norm: 5 => |_rng| LayerNorm::<F>::new(5);
    embedding: Input::Tokens(7) => |rng| Embedding::<F>::new(7, 3, rng);
    // The padding id is not among these: finite differences would see that its row is read.
    embedding_with_padding: Input::Tokens(7) => |rng| Embedding::<F>::builder(8, 3).padding_idx(7).build(rng);
    tied_embedding: Input::Tokens(6) => |rng|
        lively(TiedEmbedding::new(Embedding::<F>::new(6, 4, rng), GruCell::new(4, 4, rng)).bias(), rng);
    tied_embedding_of_a_model: Input::Tokens(6) => |rng| {
        let layer = (Dropout::<F>::new(0.3, rng), Residual::new(Lstm::new(3, 3, rng)), LayerNorm::new(3), Linear::new(3, 3, rng));
        (TiedEmbedding::new(Embedding::new(6, 3, rng), layer), Activation::tanh())
    };
    tied_embedding_alone: Input::Tokens(6) => |rng| TiedEmbedding::new(Embedding::<F>::new(6, 3, rng), Identity::new());
    causal_conv1d: 3 => |rng| CausalConv1d::<F>::new(3, 4, 3, rng);
    causal_conv1d_dilated: 3 => |rng| CausalConv1d::<F>::builder(3, 2, 2).dilation(2).bias(false).build(rng);
    causal_conv1d_of_one_tap: 3 => |rng| CausalConv1d::<F>::new(3, 4, 1, rng);
    causal_conv1d_beyond_the_sequence: 2 => |rng| CausalConv1d::<F>::builder(2, 3, 3).dilation(40).build(rng);
    causal_conv1d_of_groups: 4 => |rng| CausalConv1d::<F>::builder(4, 6, 5).groups(2).build(rng);
    causal_conv1d_of_each_feature: 4 => |rng| CausalConv1d::<F>::builder(4, 4, 9).groups(4).build(rng);
    weight_norm: 3 => |rng| lively(WeightNorm::new(Linear::<F>::new(3, 4, rng)), rng);
    weight_norm_conv: 4 => |rng| lively(WeightNorm::new(CausalConv1d::<F>::builder(4, 6, 3).groups(2).build(rng)), rng);
    weight_norm_of_a_cell: 3 => |rng| lively(WeightNorm::of(LstmCell::<F>::new(3, 4, rng), "weight_hh"), rng);
    weight_norm_in_a_model: 3 => |rng|
        WeightNorm::of((Linear::<F>::new(3, 4, rng), Residual::new(GruCell::new(4, 4, rng))), "1.weight_ih");
    weight_drop: 3 => |rng| WeightDrop::new(LstmCell::<F>::new(3, 4, rng), 0.5, rng);
    weight_drop_of_nothing: 3 => |rng| WeightDrop::new(RnnCell::<F>::new(3, 4, rng), 0.0, rng);
    weight_drop_of_a_model: 3 => |rng| {
        let model = (Gru::<F>::builder(3, 4).num_layers(2).recurrent_dropout(0.3).build(rng), MguCell::new(4, 2, rng));
        WeightDrop::new(model, 0.4, rng)
    };
    weight_drop_of_weight_norm: 3 => |rng|
        WeightDrop::of(WeightNorm::of(LstmCell::<F>::new(3, 4, rng), "weight_hh"), &["weight_hh_g", "bias_hh"], 0.3, rng);
    weight_drop_in_chunks: 3 => |rng|
        TruncatedBptt::new(WeightDrop::new(LstmCell::<F>::new(3, 4, rng), 0.5, rng), 2).pass_gradients();
    residual_weight_drop: 4 => |rng| Residual::new(WeightDrop::new(GruCell::<F>::new(4, 4, rng), 0.5, rng));
    residual_weight_norm: 4 => |rng| Residual::new(WeightNorm::new(Linear::<F>::new(4, 4, rng)));
    learned_state_conv: 3 => |rng| lively(LearnedState::new(CausalConv1d::<F>::new(3, 4, 3, rng)), rng);
    truncated_conv: 3 => |rng| TruncatedBptt::new(CausalConv1d::<F>::new(3, 4, 4, rng), 2).pass_gradients();
    residual_conv: 4 => |rng| Residual::new((CausalConv1d::<F>::new(4, 4, 2, rng), Activation::tanh()));
    lstm_cell_wide: 3 => |rng| LstmCell::<F>::new(3, 19, rng);
    gru_cell_wide: 3 => |rng| GruCell::<F>::new(3, 19, rng);
    learned_state_lstm: 3 => |rng| lively(LearnedState::new(LstmCell::<F>::new(3, 4, rng)), rng);
    learned_state_gru: 3 => |rng| lively(LearnedState::new(Gru::<F>::builder(3, 4).num_layers(2).build(rng)), rng);
    truncated_bptt: 3 => |rng| TruncatedBptt::new(LstmCell::<F>::new(3, 4, rng), 2).pass_gradients();
    truncated_bptt_of_uneven_chunks: 3 => |rng|
        TruncatedBptt::new(Gru::<F>::builder(3, 4).num_layers(2).zoneout(0.3).build(rng), 3).pass_gradients();
    truncated_bptt_recomputed: 3 => |rng| {
        let lstm = Lstm::<F>::builder(3, 4).num_layers(2).dropout(0.3).build(rng);
        TruncatedBptt::new((lstm, Linear::new(4, 2, rng)), 1).pass_gradients().recompute()
    };
    truncated_bptt_in_one_chunk: 3 => |rng| TruncatedBptt::new(LstmCell::<F>::new(3, 4, rng), 9);
    residual_lstms: 4 => |rng| Stacked::build(3, |_| Residual::new(LstmCell::<F>::new(4, 4, rng)));
    highway_grus: 4 => |rng| Stacked::build(2, |_| Highway::new(Gru::<F>::builder(4, 4).build(rng), 4, rng));
    feed_forward: 3 => |rng| FeedForward::<F>::new(3, 5, Nonlinearity::Silu, rng);
    residual: 4 => |rng| Residual::new(Linear::<F>::new(4, 4, rng));
    residual_scaled: 4 => |rng| Residual::new(Linear::<F>::new(4, 4, rng)).scaled(0.3);
    residual_projected: 3 => |rng| Residual::projected(Linear::<F>::new(3, 4, rng), 3, rng).scaled(0.5);
    residual_rezero: 4 => |rng| rezero(Residual::new(Linear::<F>::new(4, 4, rng)));
    residual_layer_scale: 4 => |rng| Residual::new(Linear::<F>::new(4, 4, rng)).layer_scale(4, 0.1);
    residual_lstm: 4 => |rng| Residual::new(LstmCell::<F>::new(4, 4, rng));
    residual_projected_gru: 3 => |rng| Residual::projected(GruCell::<F>::new(3, 4, rng), 3, rng).layer_scale(4, 0.5);
    pre_norm_block: 4 => |rng| PreNormBlock::<F>::new(4, 6, Nonlinearity::Gelu, rng);
    post_norm_block: 4 => |rng| PostNormBlock::<F>::new(4, 6, Nonlinearity::Tanh, rng);
    dropout: 5 => |rng| Dropout::<F>::new(0.4, rng);
    dropout_of_nothing: 5 => |rng| Dropout::<F>::new(0.0, rng);
    identity: 3 => |_rng| Identity::<F>::new();
    highway: 4 => |rng| Highway::new(Linear::<F>::new(4, 4, rng), 4, rng);
    highway_lstm: 4 => |rng| Highway::builder(LstmCell::<F>::new(4, 4, rng), 4).gate_bias(0.5).build(rng);
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
    prepacked: 3 => |rng| Prepacked::new(Lstm::<F>::builder(3, 4).num_layers(2).build(rng));
    stacked: 3 => |rng| Stacked::build(3, |_| Residual::new((LstmCell::<F>::new(3, 3, rng), Activation::tanh())));
    named: Input::Tokens(6) => |rng| Tagger::<F> {
        embedding: Embedding::new(6, 3, rng), gru: GruCell::new(3, 4, rng), head: Linear::new(4, 2, rng),
    };
}

contracts! {
    check_any;
    bidirectional_lstm_cell: 3 => |rng| Bidirectional::new(LstmCell::<F>::new(3, 4, rng), LstmCell::new(3, 4, rng));
    bidirectional_sum: 3 => |rng|
        Bidirectional::new(LstmCell::<F>::new(3, 4, rng), LstmCell::new(3, 4, rng)).merge(Merge::Sum);
    bidirectional_average: 3 => |rng| {
        let mut one = || (GruCell::<F>::new(3, 4, rng), Residual::new(Linear::new(4, 4, rng)));
        Bidirectional::new(one(), one()).merge(Merge::Average)
    };
    bidirectional_product: 3 => |rng| {
        let mut one = || Gru::<F>::builder(3, 4).num_layers(2).dropout(0.3).build(rng);
        Bidirectional::new(one(), one()).merge(Merge::Multiply)
    };
    bidirectional_product_of_last_steps: 3 => |rng| {
        let mut one = || (GruCell::<F>::new(3, 4, rng), LastStep::new());
        (Bidirectional::new(one(), one()).merge(Merge::Multiply), Linear::new(4, 2, rng))
    };
    bidirectional_sum_with_a_stride: 3 => |rng| {
        let mut one = || CausalConv1d::<F>::new(3, 4, 3, rng).strided(2);
        Bidirectional::new(one(), one()).merge(Merge::Sum)
    };
    residual_bidirectional_sum: 4 => |rng|
        Residual::new(Bidirectional::new(LstmCell::<F>::new(4, 4, rng), LstmCell::new(4, 4, rng)).merge(Merge::Sum));
    bidirectional_conv: 3 => |rng| {
        let mut one = || CausalConv1d::<F>::builder(3, 2, 3).dilation(2).build(rng);
        Bidirectional::new(one(), one())
    };
    weight_norm_in_both_directions: 3 => |rng| {
        let mut one = || WeightNorm::of((GruCell::<F>::new(3, 4, rng), LastStep::new()), "0.weight_ih");
        Bidirectional::new(one(), one())
    };
    tied_embedding_of_both_directions: Input::Tokens(6) => |rng| {
        let layer = (Gru::<F>::builder(4, 2).bidirectional().build(rng), LastStep::both_directions());
        TiedEmbedding::new(Embedding::new(6, 4, rng), layer).bias()
    };
    tied_embedding_with_a_stride: Input::Tokens(6) => |rng|
        TiedEmbedding::new(Embedding::<F>::new(6, 4, rng), CausalConv1d::new(4, 4, 2, rng).strided(2));
    weight_drop_of_both_directions: 3 => |rng|
        WeightDrop::new((Lstm::<F>::builder(3, 2).bidirectional().build(rng), LastStep::both_directions()), 0.5, rng);
    strided_conv1d: 3 => |rng| CausalConv1d::<F>::new(3, 4, 3, rng).strided(2);
    strided_conv1d_beyond_the_sequence: 2 => |rng| CausalConv1d::<F>::new(2, 3, 2, rng).strided(9);
    strided_conv1d_of_stride_1: 2 => |rng| CausalConv1d::<F>::new(2, 3, 2, rng).strided(1);
    strided_convolutions: Input::Tokens(6) => |rng| (
        Embedding::<F>::new(6, 3, rng), CausalConv1d::new(3, 4, 3, rng).strided(2), Activation::tanh(),
        CausalConv1d::builder(4, 2, 2).dilation(2).build(rng).strided(2), Linear::new(2, 3, rng),
    );
    strided_convolutions_in_a_stack: 3 => |rng|
        Stacked::build(3, |_| BoxLayer::whole(CausalConv1d::<F>::new(3, 3, 2, rng).strided(2)));
    strided_conv_in_both_directions: 3 => |rng| {
        let mut one = || (CausalConv1d::<F>::new(3, 4, 3, rng).strided(2), GruCell::new(4, 2, rng));
        (Bidirectional::new(one(), one()), LearnedState::new(Gru::builder(4, 3).bidirectional().build(rng)))
    };
    strided_conv_of_few_steps: 3 => |rng|
        (LastStep::<F>::new(), Repeat::new(5), CausalConv1d::new(3, 2, 2, rng).strided(2), Pool::mean());
    conv_pooled: 3 => |rng| (CausalConv1d::<F>::new(3, 4, 2, rng), Pool::mean());
    bidirectional_model: 3 => |rng| {
        let mut one = || (Linear::<F>::new(3, 4, rng), Residual::new(GruCell::new(4, 4, rng)), Linear::new(4, 2, rng));
        Bidirectional::new(one(), one())
    };
    bidirectional_in_both: 3 => |rng| {
        let mut one = || Gru::<F>::builder(3, 2).bidirectional().build(rng);
        Bidirectional::new(one(), one())
    };
    residual_bi_lstms: 4 => |rng| Stacked::build(2, |_| Residual::new(Lstm::<F>::builder(4, 2).bidirectional().build(rng)));
    last_step: 3 => |_rng| LastStep::<F>::new();
    last_step_of_both_directions: 4 => |_rng| LastStep::<F>::both_directions();
    pool_mean: 3 => |_rng| Pool::<F>::mean();
    repeat: 3 => |_rng| (LastStep::<F>::new(), Repeat::new(3));
    classifier: Input::Tokens(6) => |rng| (
        Embedding::<F>::new(6, 3, rng), Lstm::new(3, 4, rng), LastStep::new(), Linear::new(4, 2, rng),
    );
    bidirectional_classifier: 3 => |rng| (
        Lstm::<F>::builder(3, 4).num_layers(2).bidirectional().build(rng), LastStep::both_directions(), Dropout::new(0.3, rng),
        Linear::new(8, 2, rng),
    );
    encoder_and_decoder: Input::Tokens(6) => |rng| (
        Embedding::<F>::new(6, 3, rng), Gru::new(3, 4, rng), LastStep::new(), Repeat::new(3), Gru::new(4, 3, rng),
        Linear::new(3, 2, rng),
    );
    // As many output as input steps: the output still has its own time axis.
    encoder_and_decoder_of_equal_steps: 3 => |rng|
        (GruCell::<F>::new(3, 4, rng), Pool::mean(), Repeat::new(4), GruCell::new(4, 2, rng));
    pooled_directions: 3 => |rng| {
        let mut one = || (GruCell::<F>::new(3, 4, rng), LastStep::new());
        (Bidirectional::new(one(), one()), Linear::new(8, 2, rng))
    };
    wrapped_classifier: 3 => |rng| {
        let probe = GradientProbe::new();
        probe.record(true);
        let encoder = lively(LearnedState::new((LstmCell::<F>::new(3, 4, rng), Pool::mean())), rng);
        Prepacked::new((Probed::new("encoder", encoder, &probe), Repeat::new(2)))
    };
    learned_state_bi_lstm: 3 => |rng|
        lively(LearnedState::new(Lstm::<F>::builder(3, 4).bidirectional().build(rng)), rng);
}

// A boxed layer has its state and cache behind a pointer, and allocates no more than the inner layer.
contracts! {
    boxed: 3 => |rng| Stacked::new(vec![
        BoxLayer::new(LstmCell::<F>::new(3, 5, rng)),
        BoxLayer::new((Linear::new(5, 2, rng), Activation::tanh())),
        BoxLayer::new(Residual::new(GruCell::builder(2, 2).weight_hh(Init::Orthogonal { gain: 0.5 }).build(rng))),
    ]);
}

/// For layers with kinks, and for inputs that are nearer to one than the usual step of the differences.
fn check_finely<L: Layer>(name: &str, layer: &L, input: impl Into<Input>) {
    let gradients = GradCheck::new().step(1e-4);
    report::<L>(name, Contract::new(name, layer, input).gradients(gradients).allocations(count).check());
}

contracts! {
    check_finely;
    pool_max: 3 => |_rng| Pool::<F>::max();
}

contracts! {
    check_finely;
    temporal_block_weight_norm: 3 => |rng| TemporalBlock::<WeightNorm<CausalConv1d<F>>>::weight_norm(3, 4, 3, 2, 0.3, rng);
    temporal_block_layer_norm: 3 => |rng| lively(TemporalBlock::<NormedConv1d<F>>::layer_norm(3, 3, 2, 1, 0.3, rng), rng);
}

contracts! {
    check_any;
    boxed_classifier: 3 => |rng| Stacked::new(vec![
        BoxLayer::whole(Lstm::<F>::builder(3, 4).bidirectional().build(rng)),
        BoxLayer::whole(LastStep::both_directions()),
        BoxLayer::whole(Repeat::new(2)),
        BoxLayer::whole((GruCell::new(8, 3, rng), Linear::new(3, 2, rng))),
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

/// At its start, a ReZero branch gets no gradient; a scale of 0.4 gives it one.
fn rezero<L: Layer>(block: Residual<L>) -> Residual<L> {
    let mut block = block.rezero();
    let scale = gradflow::Tensors::count(&block) - 1;
    gradflow::Tensors::tensor_mut(&mut block, scale)[0] = gradflow::Float::of(0.4);
    block
}
