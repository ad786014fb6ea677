//! Streams of all sizes and models. The contract covers the relation of a stream to its layer.

use gradflow::ndarray::Array3;
use gradflow::rand::RngExt;
use gradflow::{
    Causal, Float, Layer, Sequence, TensorsExt, ZerosLike,
    compose::{BoxLayer, Residual, Stacked},
    layers::{Activation, Dropout, FeedForward, Identity, LayerNorm, Linear, Nonlinearity},
    recurrent::{Gru, GruCell, Lstm, LstmCell, Rnn, RnnCell},
    sequential,
    stream::Stream,
    wrap::{LearnedState, Prepacked, TruncatedBptt},
};

use crate::common::{Within, assert_all_near, assert_says, panic_of, rng};

/// The largest difference from a forward pass whose outputs and states are about 1.
fn within<F: Float>() -> Within {
    Within::absolute(100.0 * F::epsilon().widen())
}

#[track_caller]
fn check<M: Causal>(context: &str, model: &M, input: usize) {
    let rng = &mut rng(7);
    let x = Array3::from_shape_simple_fn((9, 1, input), || M::Elem::of(rng.random_range(-2.0..2.0)));
    let mut state = model.zero_state(1);
    let expected = model.forward(Sequence::from(&x).infer(), &mut state, &mut model.cache()).to_owned();
    let mut stream = Stream::new(model, input).unwrap();
    assert_eq!((stream.input_size(), stream.output_size()), (input, expected.dim().2), "{context}");
    let mut y = expected.zeros_like();
    stream.process(x.values(0), y.as_slice_mut().unwrap());
    assert_all_near(y.values(0), expected.values(0), within::<M::Elem>(), context);
    let found = stream.state();
    for i in 0..state.names().len() {
        assert_all_near(found.values(i), state.values(i), within::<M::Elem>(), &format!("{context}, state {i}"));
    }
}

/// Hidden sizes with all numbers of groups of sixteen and of four units, and of remaining units.
#[test]
fn cells_of_all_sizes() {
    fn all<F: Float>() {
        let rng = &mut rng(0);
        for hidden in (1..=36).chain([40, 47, 48, 63, 64, 65, 100]) {
            for input in [1, 2, 3, 5, 17] {
                let context = |cell: &str| format!("{cell}, {input} to {hidden}");
                check(&context("LSTM"), &LstmCell::<F>::builder(input, hidden).pytorch().build(rng), input);
                check(&context("GRU"), &GruCell::<F>::builder(input, hidden).pytorch().build(rng), input);
                check(&context("RNN"), &RnnCell::<F>::builder(input, hidden).bias_ih(0.3).build(rng), input);
                let relu = RnnCell::<F>::builder(input, hidden).nonlinearity(Nonlinearity::Relu);
                check(&context("RNN with relu"), &relu.build(rng), input);
                check(
                    &context("LSTM without bias"),
                    &LstmCell::<F>::builder(input, hidden).bias(false).build(rng),
                    input,
                );
                check(&context("Linear"), &Linear::<F>::new(input, hidden, rng), input);
            }
        }
    }
    all::<f32>();
    all::<f64>();
}

sequential! {
    #[derive(Clone, Debug)]
    struct Chain<F: Float>: Layer<F> {
        first: Linear<F>,
        cell: GruCell<F>,
        head: Linear<F>,
    }
}

#[test]
fn models_of_many_layers() {
    fn all<F: Float>() {
        let rng = &mut rng(1);
        check("Lstm", &Lstm::<F>::builder(2, 12).num_layers(3).dropout(0.2).build(rng), 2);
        check("Gru", &Gru::<F>::builder(3, 20).num_layers(2).build(rng), 3);
        check("Gru with layer normalisation", &Gru::<F>::builder(3, 20).num_layers(2).layer_norm().build(rng), 3);
        let hard = Gru::<F>::builder(3, 20).gate_activation(Nonlinearity::HARD_SIGMOID);
        check("Gru with another activation", &hard.num_layers(2).build(rng), 3);
        check("Lstm with clipped sums", &Lstm::<F>::builder(3, 20).clip(0.5).build(rng), 3);
        check(
            "Rnn with another activation",
            &Rnn::<F>::builder(3, 20).nonlinearity(Nonlinearity::Softsign).build(rng),
            3,
        );
        check("Rnn", &Rnn::<F>::builder(1, 7).num_layers(2).build(rng), 1);
        let chain =
            Chain { first: Linear::<F>::new(2, 6, rng), cell: GruCell::new(6, 9, rng), head: Linear::new(9, 5, rng) };
        check("sequential!", &chain, 2);
        check("tuple", &(LstmCell::<F>::new(1, 8, rng), Dropout::new(0.5, rng), Linear::new(8, 1, rng)), 1);
        check("activations", &(Linear::<F>::new(1, 20, rng), Activation::gelu(), Linear::new(20, 7, rng)), 1);
        check("FeedForward", &FeedForward::<F>::new(5, 9, Nonlinearity::Silu, rng), 5);
        check("nothing", &(Identity::<F>::new(), Dropout::new(0.5, rng)), 3);
        check("LayerNorm", &(LayerNorm::<F>::new(6), LstmCell::new(6, 4, rng)), 6);
        check("Residual", &(Residual::new(LstmCell::<F>::new(6, 6, rng)), Linear::new(6, 1, rng)), 6);
        let boxes = vec![BoxLayer::new(LstmCell::<F>::new(3, 8, rng)), BoxLayer::new(Activation::tanh())];
        check("boxes", &(Stacked::new(boxes), BoxLayer::new(Linear::new(8, 2, rng))), 3);
        let stacked = Stacked::build(3, |_| GruCell::<F>::new(8, 8, rng));
        check("Stacked", &stacked, 8);
        check("Prepacked", &Prepacked::new((LstmCell::<F>::new(1, 16, rng), Linear::new(16, 1, rng))), 1);
        check("TruncatedBptt", &TruncatedBptt::new(LstmCell::<F>::new(2, 5, rng), 4), 2);
        let mut learned = LearnedState::new(LstmCell::<F>::new(2, 5, rng));
        learned.initial.h.fill(F::of(0.5));
        check("LearnedState", &(learned, Linear::new(5, 1, rng)), 2);
    }
    all::<f32>();
    all::<f64>();
}

/// NaN is never masked, and it stays in the state until a reset.
#[test]
fn nan_comes_through() {
    let rng = &mut rng(2);
    let model = (LstmCell::<f32>::new(1, 20, rng), Linear::new(20, 1, rng));
    let mut stream = Stream::new(&model, 1).unwrap();
    let first = stream.push(&[0.5])[0];
    assert!(stream.push(&[f32::NAN])[0].is_nan());
    assert!(stream.push(&[0.5])[0].is_nan());
    stream.reset();
    assert_eq!(stream.push(&[0.5])[0], first);
    for huge in [f32::MAX, f32::INFINITY, -f32::MAX, 1e30] {
        stream.reset();
        let y = stream.push(&[huge])[0];
        let x = Array3::from_elem((1, 1, 1), huge);
        let expected =
            model.forward(Sequence::from(&x).infer(), &mut model.zero_state(1), &mut model.cache())[[0, 0, 0]];
        assert!((y - expected).abs() < 1e-5 || y.is_nan() && expected.is_nan(), "{huge}: {y}, {expected}");
    }
}

/// A stream can be continued by a forward pass, and a forward pass by a stream.
#[test]
fn a_state_goes_both_ways() {
    let rng = &mut rng(3);
    let model = (Lstm::<f64>::builder(2, 6).num_layers(2).build(rng), GruCell::new(6, 5, rng));
    let x = Array3::from_shape_fn((8, 1, 2), |(t, _, k)| (t as f64 + 0.3 * k as f64).sin());
    let whole = model.forward(&x, &mut model.zero_state(1), &mut model.cache()).to_owned();
    let (first, second) = x.view().split_at(gradflow::ndarray::Axis(0), 4);

    let mut stream = Stream::new(&model, 2).unwrap();
    first.outer_iter().for_each(|step| drop(stream.push(step.as_slice().unwrap()).to_vec()));
    let mut state = stream.state();
    let rest = model.forward(second.view(), &mut state, &mut model.cache()).to_owned();
    assert_all_near(rest.values(0), &whole.values(0)[4 * 5..], within::<f64>(), "a stream's state");

    let mut state = model.zero_state(1);
    model.forward(first, &mut state, &mut model.cache());
    stream.set_state(&state);
    let rest: Vec<_> = second.outer_iter().flat_map(|step| stream.push(step.as_slice().unwrap()).to_vec()).collect();
    assert_all_near(&rest, &whole.values(0)[4 * 5..], within::<f64>(), "a forward pass's state");
}

#[test]
fn wrong_sizes_are_refused() {
    let rng = &mut rng(4);
    let model = (LstmCell::<f32>::new(2, 4, rng), Linear::new(4, 3, rng));
    let error = Stream::new(&model, 1).unwrap_err();
    assert_eq!(error.to_string(), "0: LstmCell takes 2 features, got 1");
    let mut stream = Stream::new(&model, 2).unwrap();
    assert_says(&panic_of(|| drop(stream.push(&[1.0]).to_vec())), &["Stream: x: expected 2 values, got 1"]);
    let said = panic_of(|| stream.process(&[1.0; 4], &mut [0.0; 5]));
    assert_says(&said, &["Stream: x and y: expected as many steps of 2 and 3 values, got 4 and 5 values"]);
    assert_says(&panic_of(|| stream.process(&[1.0; 5], &mut [0.0; 6])), &["got 5 and 6 values"]);
    stream.process(&[], &mut []);
    let state = (model.0.zero_state(2), ());
    assert_says(&panic_of(|| stream.set_state(&state)), &["Stream: state"]);
}
