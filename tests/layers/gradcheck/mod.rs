//! Every layer's gradients against central differences in f64, in full: one test per layer.

mod planted;

use gradflow::ndarray::{Array2, Array3};
use gradflow::{
    Layer, Sequence, Tensors, ZerosLike,
    check::{GradCheck, GradReport},
    compose::{
        DenseConcat, Highway, PostNormBlock, PreNormBlock, Residual, Stacked, StochasticDepth, TemporalBlock,
        TiedEmbedding,
    },
    layers::{
        Activation, CausalConv1d, Dropout, Embedding, Identity, Init, LastStep, LayerNorm, Linear, Nonlinearity, Pool,
        Repeat,
    },
    recurrent::{
        Gru, GruCell, GruReset, Lstm, LstmCell, Mgu, MguCell, MinGru, MinGruCell, MinLstm, MinLstmCell, Rnn, RnnCell,
        Slstm, SlstmCell,
    },
    wrap::{Bidirectional, LearnedState, Merge, TruncatedBptt, WeightDrop, WeightNorm},
};

use crate::common::{lively, rng};

const LENGTHS: [usize; 3] = [4, 6, 2];

/// An input without a pattern, `[6, 3, D]`.
fn input(features: usize) -> Array3<f64> {
    Array3::from_shape_fn((6, 3, features), |(t, b, d)| (1.7 * t as f64 + 3.1 * b as f64 + 5.3 * d as f64 + 0.2).sin())
}

/// Token ids below 7, `[6, 3]`.
fn tokens() -> Array2<usize> {
    Array2::from_shape_fn((6, 3), |(t, b)| (2 * t + 3 * b) % 7)
}

fn varied_state<L: Layer<Elem = f64>>(layer: &L) -> L::State {
    let mut state = layer.zero_state(3);
    for i in 0..state.count() {
        let values = state.tensor_mut(i).iter_mut().enumerate();
        values.for_each(|(k, value)| *value = 0.5 * (1.9 * k as f64 + i as f64).cos());
    }
    state
}

/// Checks in full, with and without lengths, and prints the line of the table.
fn check<L: Layer<Elem = f64>>(name: &str, layer: &L, x: Sequence<'_, f64>) {
    check_by(GradCheck::default(), name, layer, x);
}

/// Checks with a smaller step. Normalising the small sums of a few hidden units is steep, and the error of central differences falls
/// with the square of their step.
fn check_finely<L: Layer<Elem = f64>>(name: &str, layer: &L, x: Sequence<'_, f64>) {
    check_by(GradCheck::default().step(1e-6), name, layer, x);
}

fn check_by<L: Layer<Elem = f64>>(differences: GradCheck, name: &str, layer: &L, x: Sequence<'_, f64>) {
    let report = |x| differences.check(layer, x, &varied_state(layer));
    let reports = [report(x), report(x.with_lengths(&LENGTHS).unwrap())];
    let worst = reports.iter().map(GradReport::worst_error).fold(0.0, f64::max);
    println!("{name:<44} {:>3} tensors  worst error {worst:.1e}", reports[0].tensors.len());
    for report in reports {
        assert!(report.passed() && report.tolerance <= 1e-6, "{name}\n{report}");
    }
}

/// Takes `name: layer;`, with `rng` as random number generator: a test for each, over the features of [`input`], in each of the ways
/// that `|x| [..]` lists.
macro_rules! gradients {
    ($check:ident |$x:ident| $ways:expr; $($name:ident: |$rng:ident| $layer:expr;)+) => {$(
        #[test]
        fn $name() {
            let $rng = &mut rng(3);
            let layer = $layer;
            let x = input(5);
            let $x = Sequence::from(&x);
            for x in $ways {
                $check(stringify!($name), &layer, x);
            }
        }
    )+};
}

gradients! {
    check |x| [x];
    linear: |rng| Linear::new(5, 4, rng);
    linear_without_bias: |rng| Linear::builder(5, 4).bias(false).build(rng);
    activation_tanh: |_rng| Activation::tanh();
    activation_sigmoid: |_rng| Activation::sigmoid();
    activation_relu: |_rng| Activation::relu();
    activation_leaky_relu: |_rng| Activation::leaky_relu(0.01);
    activation_gelu: |_rng| Activation::gelu();
    activation_silu: |_rng| Activation::silu();
    activation_identity: |_rng| Activation::new(Nonlinearity::Identity);
    activation_affine: |_rng| Activation::new(Nonlinearity::Affine { slope: -0.7, offset: 0.3 });
    activation_hard_sigmoid: |_rng| Activation::new(Nonlinearity::HardSigmoid { slope: 0.9, offset: 0.5 });
    activation_scaled_tanh: |_rng| Activation::new(Nonlinearity::ScaledTanh { scale: 1.7, slope: 0.6 });
    activation_thresholded_relu: |_rng| Activation::new(Nonlinearity::ThresholdedRelu { threshold: 0.3 });
    activation_elu: |_rng| Activation::new(Nonlinearity::Elu { alpha: 0.7 });
    activation_softsign: |_rng| Activation::new(Nonlinearity::Softsign);
    activation_softplus: |_rng| Activation::new(Nonlinearity::Softplus);
    pre_norm_block_tanh: |rng| PreNormBlock::new(5, 7, Nonlinearity::Tanh, rng);
    pre_norm_block_sigmoid: |rng| PreNormBlock::new(5, 7, Nonlinearity::Sigmoid, rng);
    pre_norm_block_relu: |rng| PreNormBlock::new(5, 7, Nonlinearity::Relu, rng);
    pre_norm_block_leaky_relu: |rng| PreNormBlock::new(5, 7, Nonlinearity::LeakyRelu { slope: 0.01 }, rng);
    pre_norm_block_gelu: |rng| PreNormBlock::new(5, 7, Nonlinearity::Gelu, rng);
    pre_norm_block_silu: |rng| PreNormBlock::new(5, 7, Nonlinearity::Silu, rng);
    post_norm_block: |rng| PostNormBlock::new(5, 7, Nonlinearity::Gelu, rng);
    layer_norm: |_rng| LayerNorm::new(5);
    identity: |_rng| Identity::new();
    last_step: |_rng| LastStep::new();
    pool_mean: |_rng| Pool::mean();
    pool_max: |_rng| Pool::max();
    pool_and_repeat: |_rng| (Pool::mean(), Repeat::new(4));
    classifier_of_both_directions: |rng|
        (Lstm::builder(5, 3).bidirectional().build(rng), LastStep::both_directions(), Linear::new(6, 2, rng));
    encoder_and_decoder: |rng| (
        LstmCell::new(5, 4, rng), LastStep::new(), Repeat::new(3), GruCell::new(4, 3, rng), Linear::new(3, 2, rng),
    );
    rnn_cell_tanh: |rng| RnnCell::new(5, 4, rng);
    rnn_cell_relu_as_it_starts: |rng| RnnCell::builder(5, 4).nonlinearity(Nonlinearity::Relu).build(rng);
    residual_projected: |rng| Residual::projected(Linear::new(5, 3, rng), 5, rng);
    residual_layer_scale_lstm: |rng| Residual::new(LstmCell::new(5, 5, rng)).layer_scale(5, 0.3);
    highway: |rng| Highway::new(Linear::new(5, 5, rng), 5, rng);
    highway_gru: |rng| Highway::builder(GruCell::new(5, 5, rng), 5).gate_bias(0.3).build(rng);
    dense_concat: |rng| DenseConcat::new(Linear::new(5, 3, rng));
    dense_concat_lstm: |rng| DenseConcat::new(LstmCell::new(5, 3, rng));
    five_residual_grus_between_others: |rng| (
        Linear::new(5, 4, rng),
        Stacked::build(5, |k| Residual::new((LayerNorm::new(4), GruCell::new(4, 4, rng))).scaled(1.0 / (k + 1) as f64)),
        LstmCell::new(4, 6, rng),
        Activation::gelu(),
        RnnCell::new(6, 3, rng),
    );
    eight_pre_norm_blocks: |rng| Stacked::build(8, |_| PreNormBlock::new(5, 9, Nonlinearity::Silu, rng));
}

gradients! {
    check |x| [x, x.reversed()];
    causal_conv1d: |rng| CausalConv1d::new(5, 4, 3, rng);
    causal_conv1d_dilated: |rng| CausalConv1d::builder(5, 4, 2).dilation(4).build(rng);
    causal_conv1d_of_groups: |rng| CausalConv1d::builder(5, 5, 4).groups(5).bias(false).build(rng);
    bidirectional_conv: |rng| {
        let mut direction = || (CausalConv1d::builder(5, 6, 3).dilation(2).groups(1).build(rng), Activation::tanh());
        Bidirectional::new(direction(), direction())
    };
    strided_conv1d: |rng| CausalConv1d::new(5, 4, 3, rng).strided(2);
    strided_convolutions: |rng| (
        CausalConv1d::new(5, 4, 3, rng).strided(2), LstmCell::new(4, 3, rng),
        CausalConv1d::builder(3, 3, 2).groups(3).build(rng).strided(3),
    );
    weight_norm: |rng| lively(WeightNorm::new(CausalConv1d::builder(5, 4, 3).bias(false).build(rng)), rng);
    weight_norm_of_a_cell: |rng| lively(WeightNorm::of(GruCell::new(5, 4, rng), "weight_hh"), rng);
    conv_and_gru: |rng| (CausalConv1d::new(5, 4, 3, rng), GruCell::new(4, 3, rng));
}

gradients! {
    check |x| [x.train(0), x.train(1), x.train(2), x.train(3)];
    dropout: |rng| Dropout::new(0.4, rng);
    stochastic_depth: |rng| StochasticDepth::new(Linear::new(5, 3, rng), 0.5, rng);
    stochastic_depth_lstm: |rng| Residual::new(StochasticDepth::new(LstmCell::new(5, 5, rng), 0.5, rng));
    stochastic_depth_lstm_whole_batch: |rng|
        Residual::new(StochasticDepth::new(LstmCell::new(5, 5, rng), 0.5, rng).whole_batch());
    weight_drop: |rng| WeightDrop::new(LstmCell::new(5, 4, rng), 0.5, rng);
    weight_drop_of_layers: |rng| WeightDrop::new(Gru::builder(5, 4).num_layers(2).bidirectional().build(rng), 0.3, rng);
    three_highways_with_all_that_is_random: |rng| Stacked::build(3, |k| {
        let branch = (LayerNorm::new(5), GruCell::new(5, 5, rng), Dropout::new(0.3, rng));
        Highway::new(StochasticDepth::linear(branch, 0.5, k, 3, rng), 5, rng)
    });
}

gradients! {
    check |x| [x.eval(), x.train(0), x.train(1).reversed()];
    temporal_block_of_weight_norm: |rng| TemporalBlock::weight_norm(5, 4, 3, 1, 0.3, rng);
    temporal_block_of_layer_norm: |rng| TemporalBlock::layer_norm(5, 5, 2, 2, 0.3, rng);
    three_temporal_blocks: |rng| (
        TemporalBlock::weight_norm(5, 4, 3, 1, 0.2, rng),
        Stacked::build(2, |k| TemporalBlock::weight_norm(4, 4, 3, 2 << k, 0.2, rng)),
    );
}

gradients! {
    check |x| [x.train(4)];
    bidirectional_residual_gru: |rng| {
        let mut direction = || Residual::new(GruCell::new(5, 5, rng));
        Bidirectional::new(direction(), direction())
    };
    bidirectional_sum: |rng| Bidirectional::new(GruCell::new(5, 4, rng), GruCell::new(5, 4, rng)).merge(Merge::Sum);
    bidirectional_average: |rng|
        Bidirectional::new(LstmCell::new(5, 4, rng), LstmCell::new(5, 4, rng)).merge(Merge::Average);
    bidirectional_product: |rng| {
        let mut direction = || (LstmCell::new(5, 3, rng), Linear::new(3, 4, rng));
        Bidirectional::new(direction(), direction()).merge(Merge::Multiply)
    };
    three_residual_lstms: |rng| Stacked::build(3, |_| Residual::new(LstmCell::new(5, 5, rng)));
    two_highway_rnns: |rng| Stacked::build(2, |_| Highway::new(RnnCell::new(5, 5, rng), 5, rng));
    learned_state_lstm: |rng| lively(LearnedState::new(Lstm::builder(5, 4).num_layers(2).build(rng)), rng);
    learned_state_gru_in_both_directions: |rng|
        lively(LearnedState::new(Gru::builder(5, 4).bidirectional().build(rng)), rng);
    chunks_with_gradients_passed: |rng|
        TruncatedBptt::new(Lstm::builder(5, 4).num_layers(2).zoneout(0.2, 0.1).build(rng), 4).pass_gradients();
}

gradients! {
    check |x| [x.train(4).reversed()];
    last_step_read_backwards: |rng| (GruCell::new(5, 4, rng), LastStep::both_directions());
    chunks_recomputed: |rng| {
        let lstm = Lstm::builder(5, 4).num_layers(2).zoneout(0.2, 0.1).build(rng);
        TruncatedBptt::new(lstm, 2).pass_gradients().recompute()
    };
}

/// The element type of the tables in `common/variants.rs`.
type F = f64;

/// Every option of the cells alone, and all together, in training and evaluation, forward and backward in time.
macro_rules! gradients_of_variants {
    ($($name:ident: |$input:ident, $hidden:ident| $builder:expr;)+) => {
        gradients! {
            check_finely |x| [x.train(1), x.train(2), x.eval(), x.train(3).reversed()];
            $($name: |rng| {
                let builder = |$input: usize, $hidden: usize| $builder;
                lively(builder(5, 4).build(rng), rng)
            };)+
        }
    };
}

/// Layers, directions, and connections between layers.
macro_rules! gradients_of_models {
    ($($name:ident: |$input:ident, $hidden:ident| $builder:expr;)+) => {
        gradients! {
            check_finely |x| [x.train(4)];
            $($name: |rng| {
                let builder = |$input: usize, $hidden: usize| $builder;
                lively(builder(5, 4).build(rng), rng)
            };)+
        }
    };
}

with_cell_variants! { gradients_of_variants }
with_recurrent_models! { gradients_of_models }
with_bidirectional_models! { gradients_of_models }

#[test]
fn embedding() {
    check("embedding", &Embedding::new(7, 4, &mut rng(3)), (&tokens()).into());
}

#[test]
fn tied_embedding() {
    let rng = &mut rng(3);
    let tied = TiedEmbedding::new(Embedding::new(7, 4, rng), (LstmCell::new(4, 5, rng), Linear::new(5, 4, rng)));
    check("tied_embedding", &lively(tied.clone().bias(), rng), (&tokens()).into());
    check("tied_embedding without bias", &tied, (&tokens()).into());
}

/// The gradient with a padding id is that of the same embedding without one, except in its row.
#[test]
fn embedding_with_padding() {
    let (plain, ids) = (Embedding::<f64>::new(7, 4, &mut rng(3)), tokens());
    let gradient = |layer: &Embedding<f64>| {
        let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
        layer.pass(&ids, &mut (), &mut cache).backward_into(&input(4), &mut grad);
        grad.weight
    };
    for id in 0..7 {
        let mut want = gradient(&plain);
        assert!(want.row(id).iter().all(|&d| d != 0.0));
        want.row_mut(id).fill(0.0);
        assert_eq!(gradient(&Embedding { padding_idx: Some(id), ..plain.clone() }), want);
    }
}

#[test]
fn embedding_residual_lstm_and_post_norm() {
    let rng = &mut rng(4);
    let tagger = (
        Embedding::new(7, 4, rng),
        Residual::projected((LstmCell::new(4, 5, rng), LayerNorm::new(5)), 4, rng),
        PostNormBlock::new(5, 6, Nonlinearity::Tanh, rng),
        Linear::new(5, 3, rng),
    );
    check("embedding_residual_lstm_and_post_norm", &tagger, (&tokens()).into());
}
