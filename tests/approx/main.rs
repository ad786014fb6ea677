//! Comparison of layers, states and named tensors up to a tolerance.

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

use approx::{
    RelativeEq, abs_diff_eq, abs_diff_ne, assert_abs_diff_eq, assert_relative_eq, assert_relative_ne, relative_eq,
    relative_ne,
};
use gradflow::approx::tensors_of;
use gradflow::{
    Layer, Tensors, TensorsExt,
    attention::Attention,
    author::NamedTensors,
    compose::{
        BoxLayer, DenseConcat, Highway, PostNormBlock, PreNormBlock, Residual, Stacked, StochasticDepth, TiedEmbedding,
    },
    layers::{Activation, Dropout, Embedding, FeedForward, Identity, Init, LayerNorm, Linear, Nonlinearity},
    recurrent::{
        Gru, GruCell, GruReset, Lstm, LstmCell, Mgu, MguCell, MinGru, MinGruCell, MinLstm, MinLstmCell, Rnn, RnnCell,
        Slstm, SlstmCell,
    },
    wrap::{Bidirectional, GradientProbe, LearnedState, Prepacked, Probed, TruncatedBptt, WeightDrop},
};

use common::{lively, rng};

type F = f64;

/// Checks that the value equals itself, and that after a change of any one value by 1e-6 it is equal within a larger tolerance only.
fn check<T: Tensors<F> + RelativeEq<Epsilon = F>>(name: &str, mut value: impl FnMut() -> T) {
    let (one, mut other) = (value(), value());
    assert!(relative_eq!(one, other) && abs_diff_eq!(one, other), "{name}");
    for i in 0..one.count() {
        for k in [0, one.values(i).len() - 1] {
            let before = other.values(i)[k];
            other.tensor_mut(i)[k] = before + 1e-6;
            let at = format!("{name}, {} at {k}", one.name(i));
            assert!(abs_diff_ne!(one, other, epsilon = 0.9e-6) && abs_diff_eq!(one, other, epsilon = 1.1e-6), "{at}");
            let relative = 1e-6 / before.abs().max((before + 1e-6).abs());
            let is_near = |factor: f64| relative_eq!(one, other, epsilon = 0.0, max_relative = factor * relative);
            assert!(!is_near(0.9) && is_near(1.1), "{at}");
            other.tensor_mut(i)[k] = f64::NAN;
            assert!(relative_ne!(one, other, epsilon = 1e9) && abs_diff_ne!(one, other, epsilon = 1e9), "{at}");
            other.tensor_mut(i)[k] = before;
        }
    }
}

/// Takes `name: layer;` and checks the layer and its state.
macro_rules! check_layers {
    ($($name:ident: |$rng:ident| $layer:expr;)+) => {$(
        let layer = || {
            let $rng = &mut rng(1);
            $layer
        };
        check(stringify!($name), layer);
        check(concat!("the state of ", stringify!($name)), || lively(layer().zero_state(3), &mut rng(2)));
    )+};
}

/// As [`check_layers`], for layers without a state.
macro_rules! check_stateless {
    ($($name:ident: |$rng:ident| $layer:expr;)+) => {$(
        check(stringify!($name), || {
            let $rng = &mut rng(1);
            $layer
        });
    )+};
}

#[test]
fn layers_without_a_state() {
    check_stateless! {
        linear: |rng| Linear::<F>::new(3, 4, rng);
        linear_without_bias: |rng| Linear::<F>::builder(3, 4).bias(false).build(rng);
        activation: |_rng| Activation::<F>::gelu();
        layer_norm: |_rng| LayerNorm::<F>::new(3);
        embedding: |rng| Embedding::<F>::new(3, 4, rng);
        dropout: |rng| Dropout::<F>::new(0.5, rng);
        identity: |_rng| Identity::<F>::new();
        feed_forward: |rng| FeedForward::<F>::new(3, 4, Nonlinearity::Silu, rng);
        residual_layer_scale: |rng| Residual::new(Linear::<F>::new(3, 3, rng)).layer_scale(3, 0.1);
        pre_norm_block: |rng| PreNormBlock::<F>::new(3, 4, Nonlinearity::Silu, rng);
        pre_norm_branch: |rng| PreNormBlock::<F>::new(3, 4, Nonlinearity::Silu, rng).residual.branch;
        post_norm_block: |rng| PostNormBlock::<F>::new(3, 4, Nonlinearity::Silu, rng);
        dot: |_rng| Attention::<F>::dot();
        bilinear: |rng| Attention::<F>::bilinear(3, 4, rng);
        additive: |rng| Attention::<F>::additive(3, 4, 5, rng);
        score: |rng| Attention::<F>::additive(3, 4, 5, rng).score;
        prepacked: |rng| Prepacked::new(Linear::<F>::new(3, 4, rng));
        probed: |rng| Probed::new("linear", Linear::<F>::new(3, 4, rng), &GradientProbe::new());
    }
}

#[test]
fn layers_and_their_states() {
    check_layers! {
        residual: |rng| Residual::new(LstmCell::<F>::new(3, 3, rng));
        highway: |rng| Highway::new(LstmCell::<F>::new(3, 3, rng), 3, rng);
        dense_concat: |rng| DenseConcat::new(GruCell::<F>::new(3, 4, rng));
        stochastic_depth: |rng| StochasticDepth::new(RnnCell::<F>::new(3, 3, rng), 0.5, rng);
        bidirectional_gru: |rng| Bidirectional::new(GruCell::<F>::new(3, 4, rng), GruCell::new(3, 4, rng));
        bidirectional_lstm: |rng| Bidirectional::new(LstmCell::<F>::new(3, 4, rng), LstmCell::new(3, 4, rng));
        learned_state: |rng| LearnedState::new(Lstm::<F>::builder(3, 4).num_layers(2).build(rng));
        weight_drop: |rng| WeightDrop::new(LstmCell::<F>::new(3, 4, rng), 0.5, rng);
        tied_embedding: |rng| TiedEmbedding::new(Embedding::<F>::new(5, 4, rng), GruCell::new(4, 4, rng)).bias();
        truncated_bptt: |rng| TruncatedBptt::new(Gru::<F>::builder(3, 4).num_layers(2).build(rng), 3);
        boxed: |rng| BoxLayer::new(LstmCell::<F>::new(3, 4, rng));
    }
}

/// A stack's state is a `Vec`, which is not a type of the crate.
#[test]
fn stacks() {
    check("stacked", || Stacked::build(2, |k| Linear::<F>::new(3 + k, 4 + k, &mut rng(1))));
}

macro_rules! check_builders {
    ($($name:ident: |$input:ident, $hidden:ident| $builder:expr;)+) => {
        check_layers! { $($name: |rng| {
            let builder = |$input: usize, $hidden: usize| $builder;
            builder(3, 4).build(rng)
        };)+ }
    };
}

#[test]
fn cells() {
    with_cell_variants! { check_builders }
}

#[test]
fn recurrent_models() {
    with_recurrent_models! { check_builders }
    with_bidirectional_models! { check_builders }
}

#[test]
fn the_tolerance_has_the_element_type() {
    let one = LstmCell::<f32>::new(3, 4, &mut rng(1));
    let mut other = one.clone();
    other.scale(1.0 + 1e-5_f32);
    assert_relative_ne!(one, other);
    assert_relative_eq!(one, other, max_relative = 2e-5_f32);
    assert_abs_diff_eq!(one, other, epsilon = 2e-5_f32);
}

#[test]
fn named_tensors_of_what_has_not_the_traits_itself() {
    let model = || (LstmCell::<F>::new(3, 4, &mut rng(1)), Linear::new(4, 2, &mut rng(2)));
    assert_relative_eq!(tensors_of(&model()), tensors_of(&model()));
    check("a tuple", || tensors_of(&model()));
    check("a tuple's state", || tensors_of(&lively(model().zero_state(3), &mut rng(3))));
}

#[test]
fn names_and_shapes_count() {
    let named = |name: &str, shape: &[usize]| NamedTensors::new([(name.to_owned(), shape.to_vec(), vec![0.5_f64; 6])]);
    let one = named("w", &[2, 3]);
    assert_relative_eq!(one, named("w", &[2, 3]));
    for other in [named("v", &[2, 3]), named("w", &[3, 2]), NamedTensors::new([])] {
        assert!(relative_ne!(one, other, epsilon = 1e9) && abs_diff_ne!(one, other, epsilon = 1e9));
    }
    let linear = Linear::<F>::zeros(3, 4);
    assert_relative_ne!(linear, Linear { bias: None, ..linear.clone() }, epsilon = 1e9);
    assert_relative_ne!(linear, Linear::zeros(4, 3), epsilon = 1e9);
    assert_relative_ne!(GruCell::<F>::zeros(3, 4), GruCell::zeros(3, 5), epsilon = 1e9);
}

#[test]
fn an_infinity_equals_itself() {
    let linear = |value: F| {
        let mut linear = Linear::<F>::zeros(2, 2);
        linear.weight[[0, 0]] = value;
        linear
    };
    assert_relative_eq!(linear(F::INFINITY), linear(F::INFINITY));
    assert_abs_diff_eq!(linear(F::INFINITY), linear(F::INFINITY));
    assert_relative_ne!(linear(F::INFINITY), linear(F::NEG_INFINITY), max_relative = 1.0);
}
