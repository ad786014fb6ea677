//! After a panic in a pass, no layer with parts accepts a backward pass with the cache.

use gradflow::check::{Contract, Input};
use gradflow::ndarray::{Array1, Array2};
use gradflow::{
    Causal, Layer,
    compose::{BoxLayer, DenseConcat, Highway, Residual, Stacked, StochasticDepth, TiedEmbedding},
    layers::{Activation, Dropout, Embedding, Linear},
    recurrent::Recurrent,
    sequential,
    wrap::{
        Bidirectional, GradientProbe, LearnedState, Merge, Prepacked, Probed, TruncatedBptt, WeightDrop, WeightNorm,
    },
};

use crate::common::failing::{FailingCell, FailingLayer, FailingRows, Fuse};
use crate::common::{assert_says, panic_of, rng};

const FEATURES: usize = 3;

fn weight() -> Array2<f64> {
    Array2::from_shape_fn((FEATURES, FEATURES), |(i, j)| (0.7 * i as f64 + 1.9 * j as f64).sin() / 2.0)
}

fn cell(fuse: &Fuse) -> FailingCell {
    FailingCell { weight: weight(), fuse: fuse.clone() }
}

fn rows(fuse: &Fuse) -> FailingRows<f64> {
    FailingRows { weight: weight(), fuse: fuse.clone() }
}

fn by_hand(fuse: &Fuse) -> FailingLayer {
    FailingLayer { gain: Array1::from_vec(vec![0.5, -0.3, 0.8]), fuse: fuse.clone(), marks_first: false }
}

fn check<L: Layer<Elem = f64>>(name: &str, layer: &L, fuse: &Fuse) {
    Contract::new(name, layer, FEATURES).check_after_panics(&|call| fuse.arm(call));
}

sequential! {
    #[derive(Clone)]
    struct Named<L: Layer<Elem = f64>>: Layer<f64> {
        first: L,
        second: L,
    }
}

/// Checks the layer inside everything that takes any layer.
fn check_everywhere<L>(name: &str, layer: L, fuse: &Fuse)
where
    L: Causal<Elem = f64> + 'static,
    L::State: 'static,
    L::Cache: 'static,
{
    let rng = &mut rng(0);
    let layer = || layer.clone();
    let linear = Linear::<f64>::new(FEATURES, FEATURES, rng);
    let probe = GradientProbe::new();
    let check = |what: &str, layer: &dyn Fn(&str)| layer(&format!("{what} of {name}"));
    macro_rules! check_all {
        ($($what:literal: $layer:expr;)+) => {$(
            check($what, &|name| self::check(name, &$layer, fuse));
        )+};
    }
    check_all! {
        "alone": layer();
        "Residual": Residual::new(layer());
        "scaled Residual": Residual::new(layer()).scaled(0.5);
        "ReZero Residual": Residual::new(layer()).layer_scale(FEATURES, 0.5);
        "Residual with a model as branch": Residual::new((layer(), Activation::tanh(), layer(), linear.clone()));
        "Residual in a Residual": Residual::new(Residual::new(layer()));
        "DenseConcat": DenseConcat::new(layer());
        "Stacked": Stacked::new(vec![layer(), layer()]);
        "Residuals, stacked": Stacked::new(vec![Residual::new(layer()), Residual::new(layer())]);
        "a tuple": (linear.clone(), layer(), Activation::tanh(), layer());
        "a struct": Named { first: layer(), second: layer() };
        "BoxLayer": BoxLayer::new(layer());
        "Bidirectional": Bidirectional::new(layer(), layer());
        "a product of directions": Bidirectional::new(layer(), layer()).merge(Merge::Multiply);
        "LearnedState": LearnedState::new(layer());
        "LearnedState of a Residual": LearnedState::new(Residual::new(layer()));
        "TruncatedBptt": TruncatedBptt::new(layer(), 1);
        "TruncatedBptt of a Residual": TruncatedBptt::new(Residual::new(layer()), 3).pass_gradients();
        "TruncatedBptt, recomputed": TruncatedBptt::new(layer(), 2).pass_gradients().recompute();
        "Prepacked": Prepacked::new(layer());
        "Probed": Probed::new(name, layer(), &probe);
        "WeightNorm": WeightNorm::of(layer(), &layer().name(0));
        "WeightDrop": WeightDrop::of(layer(), &[&layer().name(0)], 0.5, &mut crate::common::rng(0));
        "WeightDrop in a tuple": (WeightDrop::of((layer(), linear.clone()), &["1.weight"], 0.5, &mut crate::common::rng(0)), layer());
        "WeightNorm in a tuple": (WeightNorm::of(layer(), &layer().name(0)), layer());
    }
    let highway = Highway::new(layer(), FEATURES, rng);
    self::check(&format!("Highway of {name}"), &highway, fuse);
    let tied = TiedEmbedding::new(Embedding::new(5, FEATURES, rng), (layer(), layer())).bias();
    Contract::new(&format!("TiedEmbedding of {name}"), &tied, Input::Tokens(5))
        .check_after_panics(&|call| fuse.arm(call));
    for p in [0.0, 0.5] {
        let of = |what: &str| format!("{what} of {name}, p = {p}");
        let depth = StochasticDepth::new(layer(), p, rng);
        self::check(&of("StochasticDepth"), &depth, fuse);
        self::check(&of("a residual StochasticDepth"), &Residual::new(depth), fuse);
        self::check(&of("a model with dropout"), &(layer(), Dropout::new(p, rng), layer()), fuse);
    }
}

#[test]
fn of_a_cell() {
    let fuse = Fuse::new();
    check_everywhere("a cell", cell(&fuse), &fuse);
    check("Recurrent", &Recurrent::<_, 1>::from_cells(vec![[cell(&fuse)], [cell(&fuse)]]), &fuse);
    let wide = FailingCell { weight: Array2::ones((FEATURES, 2 * FEATURES)), fuse: fuse.clone() };
    let layers = vec![[cell(&fuse), cell(&fuse)], [wide.clone(), wide]];
    check("Recurrent in both directions", &Recurrent::<_, 2>::from_cells(layers), &fuse);
    let probe = GradientProbe::new();
    probe.record(true);
    check("Probed, recurrent", &Probed::recurrent("cell", cell(&fuse), &probe), &fuse);
}

#[test]
fn of_a_row_layer() {
    let fuse = Fuse::new();
    check_everywhere("a row layer", rows(&fuse), &fuse);
}

#[test]
fn of_a_layer_by_hand() {
    let fuse = Fuse::new();
    check_everywhere("a layer by hand", by_hand(&fuse), &fuse);
}

/// Without failures, these layers are correct.
#[test]
fn layers_that_can_fail_keep_the_contract() {
    let fuse = Fuse::new();
    Contract::new("FailingCell", &cell(&fuse), FEATURES).check_causal();
    Contract::new("FailingRows", &rows(&fuse), FEATURES).check_causal();
    Contract::new("FailingLayer", &by_hand(&fuse), FEATURES).check_causal();
}

#[test]
fn a_layer_that_sets_its_mark_first_is_found() {
    let fuse = Fuse::new();
    let layer = FailingLayer { marks_first: true, ..by_hand(&fuse) };
    Contract::new("marks first", &layer, FEATURES).check_causal();
    let message = panic_of(|| check("marks first", &layer, &fuse));
    assert_says(&message, &["marks first: `backward` is accepted after a panic in call 0 of a forward pass"]);
    let message = panic_of(|| check("nothing fails", &Linear::<f64>::new(FEATURES, 2, &mut rng(0)), &fuse));
    assert_says(&message, &["nothing fails: no call of it panics"]);
}
