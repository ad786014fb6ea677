//! Models that contain every layer that can be exported.

use gradflow::compose::{
    BoxLayer, DenseConcat, Highway, PostNormBlock, PreNormBlock, Residual, Stacked, StochasticDepth, TemporalBlock,
    TiedEmbedding,
};
use gradflow::layers::{
    Activation, CausalConv1d, Dropout, Embedding, FeedForward, Identity, LastStep, LayerNorm, Linear, Nonlinearity,
    Pool, Repeat,
};
use gradflow::recurrent::{BiGru, BiLstm, BiRnn, Gru, GruCell, GruReset, Lstm, LstmCell, Rnn, RnnCell};
use gradflow::wrap::{Bidirectional, GradientProbe, LearnedState, Merge, Prepacked, Probed, TruncatedBptt, WeightNorm};
use gradflow::{Float, Layer, author::Size, sequential};

use crate::common::{lively, rng};

/// An action on each model.
pub trait Visit {
    type Elem: Float;

    fn visit<M: Layer<Elem = Self::Elem>>(&mut self, name: &str, model: M, input: Size);
}

sequential! {
    /// Tokens to classes.
    #[derive(Clone, Debug)]
    pub struct Tagger<F: Float>: Layer<F> {
        pub embedding: Embedding<F>,
        pub dropout: Dropout<F>,
        pub lstm: BiLstm<F>,
        pub head: Linear<F>,
    }
}

const I: usize = 3;
const H: usize = 5;

/// Calls `visit` with all of them.
pub fn for_each(visit: &mut impl Visit) {
    let rng = &mut rng(7);
    macro_rules! models {
        ($($name:ident: $input:expr => $model:expr;)+) => {$({
            let model = $model;
            visit.visit(stringify!($name), lively(model, rng), $input.into());
        })+};
    }
    models! {
        linear: I => Linear::new(I, H, rng);
        linear_without_bias: I => Linear::builder(I, H).bias(false).build(rng);
        tanh: I => Activation::tanh();
        sigmoid: I => Activation::sigmoid();
        relu: I => Activation::relu();
        leaky_relu: I => Activation::leaky_relu(0.2);
        gelu: I => Activation::gelu();
        silu: I => Activation::silu();
        identity_activation: I => Activation::new(Nonlinearity::Identity);
        affine: I => Activation::new(Nonlinearity::Affine { slope: -0.7, offset: 0.3 });
        hard_sigmoid: I => Activation::new(Nonlinearity::HARD_SIGMOID);
        scaled_tanh: I => Activation::new(Nonlinearity::ScaledTanh { scale: 1.7, slope: 0.6 });
        thresholded_relu: I => Activation::new(Nonlinearity::ThresholdedRelu { threshold: 0.3 });
        elu: I => Activation::new(Nonlinearity::Elu { alpha: 0.7 });
        softsign: I => Activation::new(Nonlinearity::Softsign);
        softplus: I => Activation::new(Nonlinearity::Softplus);
        layer_norm: I => LayerNorm::new(I).eps(1e-3);
        feed_forward: I => FeedForward::new(I, H, Nonlinearity::Gelu, rng);
        identity: I => Identity::new();
        dropout: I => Dropout::new(0.5, rng);
        embedding: Size::Tokens => Embedding::new(11, H, rng);
        last_step: I => LastStep::new();
        last_step_of_both: 4 => LastStep::both_directions();
        pool_mean: I => Pool::mean();
        pool_max: I => Pool::max();

        causal_conv1d: I => CausalConv1d::new(I, H, 3, rng);
        causal_conv1d_dilated: I => CausalConv1d::builder(I, H, 2).dilation(3).bias(false).build(rng);
        causal_conv1d_of_one_tap: I => CausalConv1d::new(I, H, 1, rng);
        causal_conv1d_of_groups: 4 => CausalConv1d::builder(4, 6, 3).groups(2).build(rng);
        causal_conv1d_of_each_feature: I => CausalConv1d::builder(I, I, 4).groups(I).dilation(2).build(rng);
        convolutions_and_others: I => (
            CausalConv1d::new(I, H, 3, rng), LayerNorm::new(H), Residual::new(CausalConv1d::new(H, H, 2, rng)), Gru::new(H, 2, rng),
            Linear::new(2, 4, rng), LastStep::new(),
        );
        convolutions_both: I => {
            let mut direction = || (CausalConv1d::builder(I, H, 3).dilation(2).build(rng), CausalConv1d::new(H, 2, 2, rng));
            (Bidirectional::new(direction(), direction()), Pool::max())
        };
        temporal_block: I => (
            TemporalBlock::layer_norm(I, H, 3, 1, 0.2, rng), TemporalBlock::layer_norm(H, H, 3, 2, 0.2, rng), Linear::new(H, 2, rng),
        );
        learned_state_conv: I => LearnedState::new(CausalConv1d::new(I, H, 3, rng));

        rnn_cell: I => RnnCell::new(I, H, rng);
        rnn_cell_relu: I => RnnCell::builder(I, H).nonlinearity(Nonlinearity::Relu).build(rng);
        lstm_cell: I => LstmCell::new(I, H, rng);
        lstm_cell_without_bias: I => LstmCell::builder(I, H).bias(false).build(rng);
        lstm_cell_peepholes: I => LstmCell::builder(I, H).peepholes().build(rng);
        lstm_cell_coupled: I => LstmCell::builder(I, H).coupled().build(rng);
        lstm_cell_peepholes_coupled: I => LstmCell::builder(I, H).peepholes().coupled().build(rng);
        lstm_cell_recurrent_dropout: I => LstmCell::builder(I, H).recurrent_dropout(0.3).build(rng);
        gru_cell: I => GruCell::new(I, H, rng);
        gru_cell_reset_before: I => GruCell::builder(I, H).reset(GruReset::BeforeProduct).build(rng);
        rnn_cell_clip: I => RnnCell::builder(I, H).nonlinearity(Nonlinearity::Softsign).clip(0.5).build(rng);
        rnn_cell_identity: I => RnnCell::builder(I, H).nonlinearity(Nonlinearity::Identity).build(rng);
        rnn_both_elu: I => Rnn::builder(I, H).nonlinearity(Nonlinearity::Elu { alpha: 0.7 }).bidirectional().build(rng);
        lstm_cell_clip: I => LstmCell::builder(I, H).peepholes().coupled().clip(0.5).build(rng);
        lstm_cell_gate_activation: I => LstmCell::builder(I, H).gate_activation(Nonlinearity::HARD_SIGMOID).build(rng);
        lstm_cell_relu: I => LstmCell::builder(I, H)
            .candidate_activation(Nonlinearity::Relu).output_activation(Nonlinearity::Relu).build(rng);
        lstm_cell_activations: I => LstmCell::builder(I, H).gate_activation(Nonlinearity::Affine { slope: 0.2, offset: 0.4 })
            .candidate_activation(Nonlinearity::ScaledTanh { scale: 0.8, slope: 0.9 })
            .output_activation(Nonlinearity::LeakyRelu { slope: 0.1 }).build(rng);
        lstm_both_activations: I => Lstm::builder(I, H).num_layers(2).bidirectional()
            .gate_activation(Nonlinearity::HARD_SIGMOID_ONNX).output_activation(Nonlinearity::Softplus).clip(1.5).build(rng);
        gru_cell_activations: I => GruCell::builder(I, H).gate_activation(Nonlinearity::HARD_SIGMOID)
            .candidate_activation(Nonlinearity::ThresholdedRelu { threshold: 0.1 }).build(rng);
        gru_both_activations: I => Gru::builder(I, H).reset(GruReset::BeforeProduct).bidirectional()
            .gate_activation(Nonlinearity::HARD_SIGMOID).candidate_activation(Nonlinearity::Softsign).clip(1.5).build(rng);
        rnn_layers: I => Rnn::builder(I, H).num_layers(3).build(rng);
        lstm_layers: I => Lstm::builder(I, H).num_layers(2).dropout(0.2).build(rng);
        gru_layers: I => Gru::builder(I, H).num_layers(2).reset(GruReset::BeforeProduct).build(rng);
        rnn_both: I => BiRnn::new(I, H, rng);
        lstm_both: I => Lstm::builder(I, H).num_layers(2).bidirectional().build(rng);
        lstm_both_peepholes: I => Lstm::builder(I, H).bidirectional().peepholes().build(rng);
        gru_both: I => Gru::builder(I, H).num_layers(3).bidirectional().build(rng);
        gru_both_reset_before: I => Gru::builder(I, H).reset(GruReset::BeforeProduct).bidirectional().build(rng);

        residual: I => Residual::new(FeedForward::new(I, H, Nonlinearity::Relu, rng));
        residual_projected: I => Residual::projected(GruCell::new(I, H, rng), I, rng);
        residual_scaled: I => Residual::new(Linear::new(I, I, rng)).scaled(0.5);
        residual_rezero: I => Residual::new(LstmCell::new(I, I, rng)).rezero();
        residual_layer_scale: I => Residual::new(Linear::new(I, I, rng)).layer_scale(I, 0.3);
        highway: I => Highway::new(LstmCell::new(I, I, rng), I, rng);
        dense_concat: I => (DenseConcat::new(GruCell::new(I, 2, rng)), DenseConcat::new(Linear::new(I + 2, 4, rng)));
        stochastic_depth: I => Residual::new(StochasticDepth::new(GruCell::new(I, I, rng), 0.4, rng));
        pre_norm_blocks: I => Stacked::build(4, |_| PreNormBlock::new(I, H, Nonlinearity::Silu, rng));
        post_norm_blocks: I => Stacked::build(2, |_| PostNormBlock::new(I, H, Nonlinearity::Tanh, rng));
        learned_state: I => LearnedState::new(Lstm::new(I, H, rng));
        learned_state_both: I => LearnedState::new(Gru::builder(I, H).num_layers(2).bidirectional().build(rng));
        truncated: I => TruncatedBptt::new(GruCell::new(I, H, rng), 2);
        prepacked: I => Prepacked::new(Lstm::new(I, H, rng));
        probed: I => Probed::new("gru", GruCell::new(I, H, rng), &GradientProbe::new());
        bidirectional_sum: I => Bidirectional::new(Gru::new(I, H, rng), Gru::new(I, H, rng)).merge(Merge::Sum);
        bidirectional_average: I => Bidirectional::new(LstmCell::new(I, H, rng), LstmCell::new(I, H, rng)).merge(Merge::Average);
        bidirectional_product: I => {
            let mut direction = || (Gru::new(I, H, rng), LastStep::new(), Linear::new(H, 4, rng));
            (Bidirectional::new(direction(), direction()).merge(Merge::Multiply), Linear::new(4, 2, rng))
        };
        weight_drop: I => gradflow::wrap::WeightDrop::new(Lstm::builder(I, H).num_layers(2).build(rng), 0.4, rng);
        bidirectional: I => Bidirectional::new((Gru::new(I, H, rng), Linear::new(H, 2, rng)), (Gru::new(I, H, rng), Linear::new(H, 2, rng)));
        bidirectional_last: I => {
            let mut direction = || (LstmCell::new(I, H, rng), LastStep::new());
            (Bidirectional::new(direction(), direction()), Linear::new(2 * H, 2, rng))
        };
        // A reversed bidirectional model, in which the directions are swapped.
        bidirectional_of_both: I => {
            let mut direction = || Lstm::builder(I, H).num_layers(2).bidirectional().build(rng);
            Bidirectional::new((direction(), LastStep::both_directions()), (direction(), LastStep::both_directions()))
        };
        boxed: I => Stacked::new(vec![
            BoxLayer::whole(BiGru::new(I, H, rng)), BoxLayer::whole(LayerNorm::new(2 * H)),
            BoxLayer::whole(Pool::max()), BoxLayer::whole(Linear::new(2 * H, 2, rng)),
        ]);
        tagger: Size::Tokens => Tagger {
            embedding: Embedding::new(11, 4, rng), dropout: Dropout::new(0.3, rng),
            lstm: Lstm::builder(4, H).num_layers(2).bidirectional().build(rng), head: Linear::new(2 * H, 6, rng),
        };
        embedding_with_padding: Size::Tokens => (Embedding::builder(11, 4).padding_idx(0).build(rng), Lstm::new(4, H, rng));
        tied_embedding: Size::Tokens => TiedEmbedding::new(Embedding::new(11, 4, rng), (Gru::new(4, H, rng), Linear::new(H, 4, rng))).bias();
        tied_embedding_of_both: Size::Tokens =>
            TiedEmbedding::new(Embedding::new(11, 2 * H, rng), (BiLstm::new(2 * H, H, rng), LastStep::both_directions()));
        classifier: Size::Tokens => (Embedding::new(11, 4, rng), BiLstm::new(4, H, rng), LastStep::both_directions(), Linear::new(2 * H, 3, rng));
        encoder_decoder: Size::Tokens => (
            Embedding::new(11, 4, rng), Gru::new(4, H, rng), LastStep::new(), Repeat::new(4),
            Gru::new(H, H, rng), Linear::new(H, 11, rng),
        );
        repeat_both: I => (Pool::mean(), Repeat::new(3), BiGru::new(I, H, rng), Linear::new(2 * H, 2, rng));
        deep_residual: I => (
            Linear::new(I, 4, rng),
            Stacked::build(6, |_| Residual::new((LayerNorm::new(4), LstmCell::new(4, 4, rng), Dropout::new(0.1, rng)))),
            LayerNorm::new(4),
            Activation::gelu(),
            Linear::new(4, 2, rng),
        );
        deep_mixture: I => (
            Highway::new(Rnn::new(I, I, rng), I, rng),
            DenseConcat::new((LstmCell::builder(I, H).peepholes().build(rng), Activation::leaky_relu(0.1))),
            LearnedState::new(GruCell::new(I + H, H, rng)),
            Bidirectional::new(Residual::new(GruCell::new(H, H, rng)), Residual::new(GruCell::new(H, H, rng))),
            PreNormBlock::new(2 * H, 7, Nonlinearity::Gelu, rng),
            Pool::mean(),
            Linear::new(2 * H, 3, rng),
        );
        learned_stack: I => Stacked::build(3, |_| LearnedState::new(Residual::new(LstmCell::new(I, I, rng))));
    }
}

/// Models of layers whose constants are computed from several parameters: they are written, but not read back.
pub fn for_each_written_only(visit: &mut impl Visit) {
    let rng = &mut rng(8);
    let weight_norm = WeightNorm::new(CausalConv1d::builder(I, H, 3).dilation(2).build(rng));
    visit.visit("weight_norm", lively(weight_norm, rng), I.into());
    let block = TemporalBlock::weight_norm(I, H, 2, 2, 0.2, rng);
    visit.visit("temporal_block_of_weight_norm", lively(block, rng), I.into());
}
