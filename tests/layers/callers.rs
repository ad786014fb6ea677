//! A panic names the line of the program that made the mistake, not one in this crate.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use gradflow::ndarray::{Array2, Array3, arr1, arr2};
use gradflow::{
    Causal, Layer, Sequence, TensorsExt, ZerosLike,
    attention::Attention,
    clip::{ClipNorm, clip_grad_norm},
    compose::{
        BoxLayer, DenseConcat, Highway, NormedConv1d, Residual, Stacked, StochasticDepth, TemporalBlock, TiedEmbedding,
    },
    layers::{Activation, CausalConv1d, Dropout, Embedding, FeedForward, Identity, LayerNorm, Linear, Nonlinearity},
    loss::{BinaryCrossEntropy, Ctc, Huber, Loss, MeanSquaredError, SoftmaxCrossEntropy},
    optim::{Adagrad, Adam, AdamW, NAdam, Optimizer, ReduceLrOnPlateau, RmsProp, Schedule, Sgd, WeightAverage},
    recurrent::{Gru, GruCell, Lstm, LstmCell, MguCell, MinGruCell, MinLstmCell, Rnn, RnnCell, SlstmCell},
    wrap::{Bidirectional, LearnedState, Merge, Prepacked, TruncatedBptt, WeightDrop, WeightNorm},
};

use crate::common::rng;

thread_local! {
    static FILE: Cell<Option<String>> = const { Cell::new(None) };
}

/// The file named by a panic of `act` on this thread.
fn file_of(what: &str, act: impl FnOnce()) -> String {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            FILE.set(info.location().map(|location| format!("{}:{}", location.file(), location.line())));
            before(info);
        }));
    });
    let mistake = panic::catch_unwind(AssertUnwindSafe(act));
    assert!(mistake.is_err(), "{what}: expected a panic");
    FILE.take().expect("a place")
}

/// Calls through a `dyn` and in closures do not track the caller: panics of an inner layer name a line in this crate.
const INSIDE: [&str; 6] = [
    "BoxLayer, ",
    "Stacked, no steps",
    "Stacked, a backward pass without a forward pass",
    "Stacked, dy of another size",
    "Stacked, another x",
    "TruncatedBptt, a state of another batch",
];

/// Mistakes whose panic named a line in another file than this one.
struct Report(Vec<String>);

impl Report {
    fn check(&mut self, what: &str, act: impl FnOnce()) {
        let file = file_of(what, act);
        if !file.starts_with(file!()) && !INSIDE.iter().any(|inside| what.starts_with(inside)) {
            self.0.push(format!("{what}: {file}"));
        }
    }

    fn end(self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

/// Checks everything that can be wrong with the arguments of a layer of `input` features.
fn check<L: Layer<Elem = f64>>(report: &mut Report, name: &str, layer: L, input: usize) {
    let (x, wide) = (Array3::zeros((3, 2, input)), Array3::zeros((3, 2, input + 1)));
    let output = layer.output_size(input.into()).unwrap();
    let (dy, wide_dy) = (Array3::zeros((3, 2, output)), Array3::zeros((3, 2, output + 1)));
    let state = || layer.zero_state(2);
    let eval = |x: &'_ Array3<f64>| x.to_owned();
    let mut say = |what: &str, act: &mut dyn FnMut()| report.check(&format!("{name}, {what}"), act);
    let wide_is_wrong = layer.output_size((input + 1).into()).is_err();
    if wide_is_wrong {
        say("forward of another size", &mut || {
            layer.forward(Sequence::from(&eval(&wide)).eval(), &mut state(), &mut layer.cache());
        });
        say("pass of another size", &mut || {
            drop(layer.pass(Sequence::from(&wide).eval(), &mut state(), &mut layer.cache()));
        });
    }
    let ids = arr2(&[[0, 1]]);
    say("token ids", &mut || {
        layer.forward(Sequence::from(&ids).eval(), &mut state(), &mut layer.cache());
    });
    let none = Array3::zeros((0, 2, input));
    say("no steps", &mut || {
        layer.forward(Sequence::from(&none).eval(), &mut state(), &mut layer.cache());
    });
    if layer.zero_state(3).element_count() != layer.zero_state(2).element_count() {
        say("a state of another batch", &mut || {
            layer.forward(Sequence::from(&x).eval(), &mut layer.zero_state(3), &mut layer.cache());
        });
        say("a gradient of a state of another batch", &mut || {
            let mut cache = layer.cache();
            let mut dstate = layer.zero_state(3);
            let pass = layer.pass(Sequence::from(&x).eval(), &mut state(), &mut cache);
            pass.with_state_gradient(&mut dstate).backward(&dy, &mut layer.zeros_like());
        });
    }
    say("a backward pass without a forward pass", &mut || {
        layer.backward(Sequence::from(&x).eval(), &dy, None, &mut layer.cache(), &mut layer.zeros_like());
    });
    say("dy of another size, held open", &mut || {
        let mut cache = layer.cache();
        let pass = layer.pass(Sequence::from(&x).eval(), &mut state(), &mut cache);
        pass.backward(&wide_dy, &mut layer.zeros_like());
    });
    say("dy of another size, overwriting", &mut || {
        let mut cache = layer.cache();
        let pass = layer.pass(Sequence::from(&x).eval(), &mut state(), &mut cache);
        pass.backward_into(&wide_dy, &mut layer.zeros_like());
    });
    say("another x", &mut || {
        let (mut cache, other) = (layer.cache(), &x + 1.0);
        layer.forward(Sequence::from(&x).eval(), &mut state(), &mut cache);
        layer.backward(Sequence::from(&other).eval(), &dy, None, &mut cache, &mut layer.zeros_like());
    });
}

fn check_causal<L: Causal<Elem = f64>>(report: &mut Report, name: &str, layer: L, input: usize) {
    let (steps, wide) = (Array3::zeros((2, 2, input)), Array2::zeros((2, input + 1)));
    report.check(&format!("{name}, several steps"), || {
        layer.step(&steps, &mut layer.zero_state(2), &mut layer.cache());
    });
    if layer.output_size((input + 1).into()).is_err() {
        report.check(&format!("{name}, a step of another size"), || {
            layer.step(Sequence::rows(&wide), &mut layer.zero_state(2), &mut layer.cache());
        });
    }
    check(report, name, layer, input);
}

#[test]
fn mistakes_with_layers_name_the_callers_line() {
    let rng = &mut rng(0);
    let mut report = Report(Vec::new());
    macro_rules! causal {
        ($($name:literal: $layer:expr;)+) => {$( check_causal(&mut report, $name, $layer, 3); )+};
    }
    causal! {
        "Identity": Identity::<f64>::new();
        "Linear": Linear::<f64>::new(3, 4, rng);
        "Activation": Activation::<f64>::tanh();
        "LayerNorm": LayerNorm::<f64>::new(3);
        "Dropout": Dropout::<f64>::new(0.5, rng);
        "FeedForward": FeedForward::<f64>::new(3, 5, Nonlinearity::Tanh, rng);
        "RnnCell": RnnCell::<f64>::new(3, 4, rng);
        "LstmCell": LstmCell::<f64>::new(3, 4, rng);
        "GruCell": GruCell::<f64>::new(3, 4, rng);
        "MguCell": MguCell::<f64>::new(3, 4, rng);
        "MinGruCell": MinGruCell::<f64>::new(3, 4, rng);
        "MinLstmCell": MinLstmCell::<f64>::new(3, 4, rng);
        "SlstmCell": SlstmCell::<f64>::new(3, 4, rng);
        "Lstm": Lstm::<f64>::builder(3, 4).num_layers(2).build(rng);
        "Residual": Residual::new(LstmCell::<f64>::new(3, 3, rng));
        "Highway": Highway::new(Linear::<f64>::new(3, 3, rng), 3, rng);
        "DenseConcat": DenseConcat::new(Linear::<f64>::new(3, 2, rng));
        "StochasticDepth": StochasticDepth::new(Linear::<f64>::new(3, 3, rng), 0.5, rng);
        "Stacked": Stacked::new(vec![Linear::<f64>::new(3, 3, rng), Linear::new(3, 3, rng)]);
        "a tuple": (Linear::<f64>::new(3, 4, rng), GruCell::new(4, 2, rng));
        "BoxLayer": BoxLayer::new(Linear::<f64>::new(3, 4, rng));
        "LearnedState": LearnedState::new(LstmCell::<f64>::new(3, 4, rng));
        "CausalConv1d": CausalConv1d::<f64>::new(3, 4, 2, rng);
        "WeightDrop": WeightDrop::new(LstmCell::<f64>::new(3, 4, rng), 0.5, rng);
        "WeightNorm": WeightNorm::new(Linear::<f64>::new(3, 4, rng));
    }
    check(&mut report, "StridedConv1d", CausalConv1d::<f64>::new(3, 4, 2, rng).strided(2), 3);
    check(&mut report, "Bidirectional", Bidirectional::new(GruCell::<f64>::new(3, 4, rng), GruCell::new(3, 4, rng)), 3);
    let product = Bidirectional::new(GruCell::<f64>::new(3, 4, rng), GruCell::new(3, 4, rng)).merge(Merge::Multiply);
    check(&mut report, "a product of directions", product, 3);
    check(&mut report, "BiGru", Gru::<f64>::builder(3, 4).bidirectional().build(rng), 3);
    check(&mut report, "TruncatedBptt", TruncatedBptt::new(RnnCell::<f64>::new(3, 4, rng), 2), 3);
    report.end();
}

#[test]
fn mistakes_with_parts_name_the_callers_line() {
    let rng = &mut rng(0);
    let mut report = Report(Vec::new());
    macro_rules! mistakes {
        ($($name:literal: $act:expr;)+) => {$(
            report.check($name, || {
                let _made = $act;
            });
        )+};
    }
    let (y, narrow) = (Array3::<f64>::zeros((2, 2, 3)), Array3::<f64>::zeros((2, 2, 2)));
    let ids = arr2(&[[0, 1], [2, 9]]);
    let embedding = Embedding::<f64>::new(5, 2, rng);
    let attention = Attention::<f64>::bilinear(3, 3, rng);
    let prepacked = Prepacked::new(Linear::<f64>::new(3, 4, rng));
    let model = Linear::<f64>::new(3, 4, rng);
    let (mut stepped, grad) = (model.clone(), Linear::<f64>::zeros(3, 5));
    mistakes! {
        "Linear::new(0, _)": Linear::<f64>::new(0, 3, rng);
        "Linear::zeros(0, _)": Linear::<f64>::zeros(0, 3);
        "Embedding::new(0, _)": Embedding::<f64>::new(0, 3, rng);
        "Embedding::zeros(0, _)": Embedding::<f64>::zeros(0, 3);
        "CausalConv1d::new(0, _, _)": CausalConv1d::<f64>::new(0, 3, 2, rng);
        "CausalConv1d::zeros(_, _, 0)": CausalConv1d::<f64>::zeros(2, 3, 0);
        "CausalConv1d, dilation": CausalConv1d::<f64>::builder(2, 3, 2).dilation(0);
        "CausalConv1d, groups": CausalConv1d::<f64>::builder(2, 3, 2).groups(2);
        "CausalConv1d::strided": CausalConv1d::<f64>::zeros(2, 3, 2).strided(0);
        "TemporalBlock::weight_norm": TemporalBlock::<WeightNorm<CausalConv1d<f64>>>::weight_norm(2, 3, 2, 0, 0.1, rng);
        "TemporalBlock::layer_norm, dropout": TemporalBlock::layer_norm(2, 3, 2, 1, 1.0, rng) as TemporalBlock<NormedConv1d<f64>>;
        "WeightDrop::new": WeightDrop::new(Linear::<f64>::zeros(2, 3), 0.5, rng);
        "WeightDrop::of": WeightDrop::of(Linear::<f64>::zeros(2, 3), &["weights"], 0.5, rng);
        "WeightDrop, p": WeightDrop::of(Linear::<f64>::zeros(2, 3), &["weight"], 1.0, rng);
        "WeightNorm::of": WeightNorm::of(Linear::<f64>::zeros(2, 3), "weights");
        "LayerNorm::new(0)": LayerNorm::<f64>::new(0);
        "LayerNorm::eps": LayerNorm::<f64>::new(1).eps(-1.0);
        "Dropout::new": Dropout::<f64>::new(1.0, rng);
        "leaky_relu": Activation::<f64>::leaky_relu(f64::NAN);
        "Lstm::new(0, _)": Lstm::<f64>::new(0, 3, rng);
        "Rnn::new(_, 0)": Rnn::<f64>::new(3, 0, rng);
        "LstmCell::new(0, _)": LstmCell::<f64>::new(0, 3, rng);
        "num_layers": Gru::<f64>::builder(3, 3).num_layers(0);
        "clip": LstmCell::<f64>::builder(3, 3).clip(-1.0).zeros();
        "an activation": GruCell::<f64>::builder(3, 3).candidate_activation(Nonlinearity::Elu { alpha: f64::NAN }).zeros();
        "projection": LstmCell::<f64>::builder(3, 3).projection(0);
        "Stacked::new": Stacked::<Linear<f64>>::new(vec![]);
        "StochasticDepth::new": StochasticDepth::new(Linear::<f64>::new(3, 3, rng), 1.5, rng);
        "Residual::projected": Residual::projected(Linear::<f64>::new(3, 3, rng), 4, rng);
        "TiedEmbedding::new": TiedEmbedding::new(embedding.clone(), Linear::new(2, 3, rng));
        "TiedEmbedding, an id out of range": {
            let tied = TiedEmbedding::new(embedding.clone(), Linear::new(2, 2, rng));
            tied.forward(&ids, &mut (), &mut tied.cache()).to_owned()
        };
        "padding_idx": Embedding::<f64>::builder(5, 2).padding_idx(5);
        "Highway::new": Highway::new(Linear::<f64>::new(3, 3, rng), 4, rng);
        "Attention::bilinear": Attention::<f64>::bilinear(0, 1, rng);
        "Attention::additive": Attention::<f64>::additive(1, 1, 0, rng);
        "attention, query": attention.forward(&narrow, &y, &mut attention.cache()).to_owned();
        "attention, memory": attention.forward(&y, &narrow, &mut attention.cache()).to_owned();
        "attention, attend without a memory": attention.attend(&y, &y, &mut attention.cache()).to_owned();
        "attention, stale": attention.backward(&y, &y, &y, &mut attention.cache(), &mut attention.zeros_like());
        "an id out of range": embedding.forward(&ids, &mut (), &mut embedding.cache()).to_owned();
        "features for ids": embedding.forward(&y, &mut (), &mut embedding.cache()).to_owned();
        "a prepacked layer": prepacked.forward(Sequence::from(&narrow).infer(), &mut (), &mut prepacked.cache()).to_owned();
        "a mode that was not said": Dropout::<f64>::new(0.5, rng).forward(&y, &mut (), &mut Default::default()).to_owned();
        "zoneout without a mode": {
            let cell = GruCell::<f64>::builder(3, 3).zoneout(0.5).build(rng);
            cell.forward(&y, &mut cell.zero_state(2), &mut cell.cache()).to_owned()
        };
        "cross-entropy of other ids": SoftmaxCrossEntropy::new().of(&y, &arr2(&[[0, 1]]));
        "cross-entropy of ids out of range": SoftmaxCrossEntropy::new().of(&y, &ids);
        "cross-entropy, value": SoftmaxCrossEntropy::<f64>::new().value(&y, &ids);
        "label smoothing": SoftmaxCrossEntropy::<f64>::new().label_smoothing(2.0);
        "mean squared error": MeanSquaredError::new().of(&y, &narrow);
        "binary cross-entropy": BinaryCrossEntropy::new().of(&y, &narrow);
        "huber": Huber::new(1.0).of(&y, &narrow);
        "weights of another shape": Huber::new(1.0).of_weighted(&y, &y, &arr1(&[1.0; 3]));
        "a negative weight": MeanSquaredError::new().value_weighted(&y, &y, &arr1(&[1.0, -1.0]));
        "a negative weight of a sequence": Ctc::new().of_weighted(&y, &[vec![1], vec![2]], &arr1(&[1.0, -1.0]));
        "a negative weight of a step": SoftmaxCrossEntropy::new().value_weighted(&y, &arr2(&[[0, 1], [1, 0]]), &arr1(&[1.0, -1.0]));
        "total weight": MeanSquaredError::new().total_weight((&y).into(), &y, (&arr1(&[1.0; 3])).into());
        "huber's delta": Huber::<f64>::new(-1.0);
        "a step with another gradient": AdamW::new(0.1).step(&mut stepped, &grad);
        "a clipped step with another gradient":
            Sgd::new(0.1).step_clipped(&mut stepped, &grad, ClipNorm::new(1.0)).unwrap().norm;
        "another model than before": {
            let mut adam = Adam::new(0.1);
            adam.step(&mut model.clone(), &model);
            adam.step(&mut grad.clone(), &grad)
        };
        "a learning rate": Adagrad::<f64>::new(-1.0);
        "another learning rate": RmsProp::<f64>::new(0.1).set_learning_rate(f64::NAN);
        "a momentum decay": NAdam::<f64>::new(0.1).momentum_decay(-1.0);
        "betas": Adam::<f64>::new(0.1).betas(2.0, 0.9);
        "a norm": clip_grad_norm(&mut arr1(&[1.0]), -1.0).unwrap();
        "a schedule": Schedule::cosine(0.1, 0, 0.0);
        "a decay of an average": WeightAverage::<f64>::ema(1.0);
        "an average of another model": {
            let mut average = WeightAverage::ema(0.5);
            average.update(&arr1(&[1.0])).unwrap();
            average.update(&arr1(&[1.0, 2.0])).unwrap()
        };
        "an average before an update": drop(WeightAverage::ema(0.5).swap_in(&mut arr1(&[1.0])));
        "a plateau": ReduceLrOnPlateau::new(-1.0);
        "add_assign": stepped.add_assign(&grad);
        "copy_from": stepped.copy_from(&grad);
        "steps out of range": Sequence::from(&y).steps(1..9);
        "chunks of none": Sequence::from(&y).chunks(0).count();
    }
    report.end();
}

#[cfg(feature = "safetensors")]
#[test]
fn mistakes_with_files_name_the_callers_line() {
    use gradflow::io::{Checkpoint, StateDict};
    let mut report = Report(Vec::new());
    let model = Linear::<f64>::zeros(2, 2);
    report.check("two of a name", || drop(StateDict::of(&model).with_tensors("", &model)));
    report.check("a reserved name", || drop(StateDict::new().with_tensors("__metadata__", &arr1(&[1.0]))));
    report.check("a section", || drop(Checkpoint::new().with_tensors("a.b", &model)));
    let average = WeightAverage::<f64>::ema(0.5);
    report.check("a section of an average", || drop(Checkpoint::new().with_average("a.b", &average)));
    report.check("metadata", || drop(Checkpoint::new().with_metadata("gradflow.format", "2")));
    let twice = || Checkpoint::new().with_optimizer(&Sgd::<f64>::new(0.1)).with_optimizer(&Sgd::<f64>::new(0.1));
    report.check("two optimizers", || drop(twice()));
    report.check("a setting", || drop(Sgd::<f64>::new(0.1).state().with_setting("no such", 1.0)));
    report.end();
}
