//! A wrapper computes the same bits as the inner layer, alone and as the branch of a residual connection.

use gradflow::check::Contract;
use gradflow::{
    Causal, Layer,
    compose::{BoxLayer, Residual, Stacked, StochasticDepth},
    layers::{Activation, CausalConv1d, FeedForward, Linear, Nonlinearity},
    recurrent::{Lstm, LstmCell},
    sequential,
    wrap::{GradientProbe, LearnedState, Prepacked, Probed, TruncatedBptt, WeightDrop, WeightNorm},
};

use crate::common::{assert_says, panic_of, rng};

const FEATURES: usize = 4;

sequential! {
    #[derive(Clone, Debug)]
    struct Named<L: Layer>: Layer<L::Elem> {
        layer as "": L,
    }
}

/// Checks the layer in every wrapper of the crate; gradients are compared by the names that a wrapper keeps.
fn check<L>(name: &str, layer: &L)
where
    L: Causal + 'static,
    L::State: 'static,
    L::Cache: 'static,
{
    let wrapped = |what: &str| format!("{what} of {name}");
    let layer = || layer.clone();
    let (what, probe) = (wrapped("Probed"), GradientProbe::new());
    probe.record(true);
    Contract::new(&what, &Probed::new("layer", layer(), &probe), FEATURES).check_wraps(&layer());
    let what = wrapped("BoxLayer");
    Contract::new(&what, &BoxLayer::new(layer()), FEATURES).check_wraps(&layer());
    let what = wrapped("Prepacked");
    Contract::new(&what, &Prepacked::new(layer()), FEATURES).check_wraps(&layer());
    let what = wrapped("LearnedState");
    Contract::new(&what, &LearnedState::new(layer()), FEATURES).check_wraps(&layer());
    let what = wrapped("TruncatedBptt");
    Contract::new(&what, &TruncatedBptt::new(layer(), 100).pass_gradients(), FEATURES).check_wraps(&layer());
    let what = wrapped("StochasticDepth");
    Contract::new(&what, &StochasticDepth::new(layer(), 0.0, &mut rng(1)), FEATURES).check_wraps(&layer());
    let what = wrapped("WeightDrop");
    let name = layer().name(0);
    Contract::new(&what, &WeightDrop::of(layer(), &[&name], 0.0, &mut rng(1)), FEATURES).check_wraps(&layer());
    let what = wrapped("a struct");
    Contract::new(&what, &Named { layer: layer() }, FEATURES).check_wraps(&layer());
    // These name tensors by position, so they are compared with another wrapper that does the same.
    let what = wrapped("Stacked");
    Contract::new(&what, &Stacked::new(vec![layer()]), FEATURES).check_wraps(&(layer(),));
    let what = wrapped("a tuple");
    Contract::new(&what, &(Probed::new("other", layer(), &probe),), FEATURES).check_wraps(&Stacked::new(vec![layer()]));
}

#[test]
fn around_a_linear_layer() {
    check("Linear<f32>", &Linear::<f32>::new(FEATURES, FEATURES, &mut rng(0)));
    check("Linear<f64>", &Linear::<f64>::new(FEATURES, FEATURES, &mut rng(0)));
}

#[test]
fn around_a_feed_forward_layer() {
    check("FeedForward", &FeedForward::<f32>::new(FEATURES, 9, Nonlinearity::Gelu, &mut rng(0)));
}

#[test]
fn around_a_recurrent_layer() {
    check("LstmCell", &LstmCell::<f32>::new(FEATURES, FEATURES, &mut rng(0)));
    check("Lstm", &Lstm::<f32>::builder(FEATURES, FEATURES).num_layers(2).build(&mut rng(0)));
}

#[test]
fn around_a_convolution() {
    check("CausalConv1d", &CausalConv1d::<f32>::builder(FEATURES, FEATURES, 3).dilation(2).build(&mut rng(0)));
    check("WeightNorm", &WeightNorm::new(CausalConv1d::<f32>::new(FEATURES, FEATURES, 2, &mut rng(0))));
}

#[test]
fn around_a_model_and_a_residual_block() {
    let rng = &mut rng(0);
    let model = (Linear::<f32>::new(FEATURES, 7, rng), Activation::tanh(), Linear::new(7, FEATURES, rng));
    check("a model", &model);
    check("Residual", &Residual::new(Linear::<f32>::new(FEATURES, FEATURES, rng)).scaled(0.5));
}

/// The check finds a different inner layer.
#[test]
fn another_layer_is_found() {
    let (layer, other) = (Linear::<f32>::new(4, 4, &mut rng(0)), Linear::new(4, 4, &mut rng(1)));
    let message = panic_of(|| Contract::new("other", &BoxLayer::new(other), 4).check_wraps(&layer));
    assert_says(&message, &["other", "the output is not the layer's"]);
}
