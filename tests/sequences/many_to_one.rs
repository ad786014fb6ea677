//! Layers that change the number of steps: against plain loops, against the states of the models before them, and in models.

use gradflow::ndarray::{Array2, Array3, Axis, arr2, arr3, s};
use gradflow::{
    Layer, Sequence, ZerosLike,
    clip::ClipNorm,
    compose::{BoxLayer, DenseConcat, Highway, Residual, Stacked, StochasticDepth},
    layers::{Embedding, LastStep, Linear, Pool, Repeat},
    loss::{Loss, SoftmaxCrossEntropy},
    optim::{AdamW, Optimizer},
    recurrent::{BiLstm, Gru, GruCell, Lstm},
    wrap::Bidirectional,
};

use crate::common::{assert_says, panic_of, rng, wave};

const LENGTHS: [usize; 3] = [5, 1, 3];

/// The last outputs of both directions are the last layer's final states, as in PyTorch's `h_n`.
#[test]
fn last_steps_are_final_states() {
    let rng = &mut rng(0);
    let x = wave::<f64>((5, 3, 2), 0.0);
    let x = Sequence::from(&x).with_lengths(&LENGTHS).unwrap();

    let lstm = Lstm::<f64>::new(2, 4, rng);
    let mut state = lstm.zero_state(3);
    lstm.forward(x, &mut state, &mut lstm.cache());
    let last = (lstm, LastStep::new());
    let y = last.forward(x, &mut last.zero_state(3), &mut last.cache()).to_owned();
    assert_eq!(y, state.h);

    let both: BiLstm<f64> = Lstm::builder(2, 4).num_layers(2).bidirectional().build(rng);
    let mut state = both.zero_state(3);
    both.forward(x, &mut state, &mut both.cache());
    let last = (both, LastStep::both_directions());
    let y = last.forward(x, &mut last.zero_state(3), &mut last.cache()).to_owned();
    assert_eq!(y.slice(s![0, .., ..4]), state.h.index_axis(Axis(0), 2));
    assert_eq!(y.slice(s![0, .., 4..]), state.h.index_axis(Axis(0), 3));
    // Read backward, the directions are swapped.
    let mut cache = last.1.cache();
    let plain = wave::<f64>((5, 3, 2), 1.0);
    let reversed = last.1.forward(x.with(plain.view()).reversed(), &mut (), &mut cache);
    for (b, length) in LENGTHS.into_iter().enumerate() {
        assert_eq!(reversed[[0, b, 0]], plain[[0, b, 0]]);
        assert_eq!(reversed[[0, b, 1]], plain[[length - 1, b, 1]]);
    }
}

/// Two directions with a last step each, joined afterwards, equal one bidirectional layer with its last steps.
#[test]
fn a_last_step_inside_each_direction_is_the_one_of_both() {
    let rng = &mut rng(1);
    let cells = [GruCell::<f64>::new(2, 4, rng), GruCell::new(2, 4, rng)];
    let x = wave::<f64>((5, 3, 2), 0.3);
    let x = Sequence::from(&x).with_lengths(&LENGTHS).unwrap();
    let [forward, reverse] = cells.clone();
    let inside = Bidirectional::new((forward, LastStep::new()), (reverse, LastStep::new()));
    let [forward, reverse] = cells;
    let outside = (Bidirectional::new(forward, reverse), LastStep::both_directions());
    let y = inside.forward(x, &mut inside.zero_state(3), &mut inside.cache()).to_owned();
    assert_eq!(y, outside.forward(x, &mut outside.zero_state(3), &mut outside.cache()));
}

#[test]
fn pools_are_means_and_maxima_of_valid_steps() {
    let mut x = wave::<f64>((5, 3, 4), 0.7);
    for (b, length) in LENGTHS.into_iter().enumerate() {
        x.slice_mut(s![length.., b, ..]).fill(f64::NAN);
    }
    let sequence = Sequence::from(&x).with_lengths(&LENGTHS).unwrap();
    let (mean, max) = (Pool::mean(), Pool::max());
    let (mut mean_cache, mut max_cache) = (mean.cache(), max.cache());
    let (means, maxima) =
        (mean.forward(sequence, &mut (), &mut mean_cache), max.forward(sequence, &mut (), &mut max_cache));
    for (b, length) in LENGTHS.into_iter().enumerate() {
        for k in 0..4 {
            let values: Vec<f64> = (0..length).map(|t| x[[t, b, k]]).collect();
            assert!((means[[0, b, k]] - values.iter().sum::<f64>() / length as f64).abs() < 1e-15);
            assert_eq!(maxima[[0, b, k]], values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
    }
}

/// NaN at a valid step is passed on; of equal maxima the first gets the gradient.
#[test]
fn a_pool_masks_no_nan_and_divides_no_gradient() {
    let max = Pool::<f64>::max();
    let mut cache = max.cache();
    for at in 0..3 {
        let mut x = arr3(&[[[1.0]], [[3.0]], [[2.0]]]);
        x[[at, 0, 0]] = f64::NAN;
        assert!(max.forward(&x, &mut (), &mut cache)[[0, 0, 0]].is_nan());
        assert!(Pool::mean().forward(&x, &mut (), &mut Default::default())[[0, 0, 0]].is_nan());
    }
    let x = arr3(&[[[1.0]], [[3.0]], [[3.0]]]);
    max.forward(&x, &mut (), &mut cache);
    let dx = max.backward(&x, &arr3(&[[[5.0]]]), None, &mut cache, &mut max.clone()).to_owned();
    assert_eq!(dx, arr3(&[[[0.0]], [[5.0]], [[0.0]]]));
}

#[test]
fn a_repeated_step_sums_its_gradients() {
    let repeat = Repeat::<f64>::new(3);
    let (x, mut cache) = (arr3(&[[[1.0, 2.0], [3.0, 4.0]]]), repeat.cache());
    let y = repeat.forward(&x, &mut (), &mut cache).to_owned();
    assert_eq!(y, arr3(&[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]]]));
    let dy = Array3::from_shape_fn((3, 2, 2), |(t, b, k)| (100 * t + 10 * b + k) as f64);
    let dx = repeat.backward(&x, &dy, None, &mut cache, &mut repeat.clone()).to_owned();
    assert_eq!(dx, arr3(&[[[300.0, 303.0], [330.0, 333.0]]]));
}

/// After each chunk, a model returns the output for the steps so far.
#[test]
fn after_each_chunk_the_output_is_that_of_the_steps_so_far() {
    let rng = &mut rng(2);
    let model = (Gru::<f64>::new(2, 4, rng), LastStep::new(), Linear::new(4, 3, rng));
    let x = wave::<f64>((6, 3, 2), 0.1);
    let (mut state, mut cache) = (model.zero_state(3), model.cache());
    for (k, chunk) in Sequence::from(&x).chunks(2).enumerate() {
        let y = model.forward(chunk, &mut state, &mut cache).to_owned();
        let so_far = Sequence::from(&x).steps(0..2 * (k + 1));
        let whole = model.forward(so_far, &mut model.zero_state(3), &mut model.cache()).to_owned();
        assert_eq!(y, whole);
    }
    // A sequence that ended before the chunk gives zero.
    let lengths = [6, 2, 3];
    let chunk = Sequence::from(&x).with_lengths(&lengths).unwrap().steps(2..4);
    let y = LastStep::new().forward(chunk, &mut (), &mut Default::default()).to_owned();
    assert_eq!(y.slice(s![0, .., 0]).to_vec(), [x[[3, 0, 0]], 0.0, x[[2, 2, 0]]]);
}

/// The whole output counts, whatever the lengths of the input: these belong to another time axis, even if both have the same number of
/// steps.
#[test]
fn a_loss_sees_the_output_without_the_lengths_of_the_input() {
    let rng = &mut rng(3);
    let ids = Array2::from_shape_fn((5, 3), |(t, b)| (t + b) % 6);
    let x = Sequence::from(&ids).with_lengths(&LENGTHS).unwrap();
    let model = (
        Embedding::<f64>::new(6, 3, rng),
        Gru::new(3, 4, rng),
        LastStep::new(),
        Repeat::new(5),
        Linear::new(4, 2, rng),
    );
    let (mut state, mut cache) = (model.zero_state(3), model.cache());
    let y = model.forward(x, &mut state, &mut cache).to_owned();
    let targets = Array2::from_shape_fn((5, 3), |(t, b)| (t * b) % 2);
    let mut loss = SoftmaxCrossEntropy::new();
    let all = loss.value(&y, &targets);
    let (mut state, mut cache) = (model.zero_state(3), model.cache());
    let pass = model.pass(x, &mut state, &mut cache);
    assert_eq!(loss.of(&pass, &targets).value(), all);
    assert_eq!(loss.value(model.output_sequence(&x, y.view()), &targets), all);
    // The lengths of the answers are passed to the loss.
    let answers = Sequence::from(&pass).with_lengths(&[2, 5, 4]).unwrap();
    let some = loss.of(answers, &targets);
    assert!(some.value() != all && some.gradient().slice(s![2.., 0, ..]).iter().all(|&d| d == 0.0));
}

/// The task: whether an X or a Y came first in a sequence of varying length.
#[test]
fn a_classifier_and_an_encoder_with_its_decoder_learn() {
    let rng = &mut rng(4);
    let ids = Array2::from_shape_fn((7, 8), |(t, b)| match (t, b % 2) {
        (1, 0) | (2, 1) => 1,
        (2, 0) | (1, 1) => 2,
        _ => 3 + (t * b) % 3,
    });
    let lengths = [7, 3, 4, 5, 6, 7, 3, 4];
    let x = Sequence::<f32>::from(&ids).with_lengths(&lengths).unwrap();
    let classes = Array2::from_shape_fn((1, 8), |(_, b)| b % 2);
    let mut model =
        (Embedding::new(6, 4, rng), BiLstm::new(4, 8, rng), LastStep::both_directions(), Linear::new(16, 2, rng));
    let nats = train(&mut model, x, &classes);
    assert!(nats < 0.05, "{nats}");

    let answers = Array2::from_shape_fn((3, 8), |(t, b)| (t + b) % 2);
    let mut model = (
        Embedding::new(6, 4, rng),
        Gru::new(4, 8, rng),
        LastStep::new(),
        Repeat::new(3),
        Gru::new(8, 8, rng),
        Linear::new(8, 2, rng),
    );
    let nats = train(&mut model, x, &answers);
    assert!(nats < 0.05, "{nats}");
}

fn train<L: Layer<Elem = f32>>(model: &mut L, x: Sequence<'_, f32>, targets: &Array2<usize>) -> f64 {
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    let (mut loss, mut optimizer, mut nats) = (SoftmaxCrossEntropy::new(), AdamW::new(0.02), f64::NAN);
    for _ in 0..150 {
        let mut state = model.zero_state(8);
        let pass = model.pass(x, &mut state, &mut cache);
        let loss = loss.of(&pass, targets);
        nats = loss.value();
        pass.backward_into(loss.gradient(), &mut grad);
        optimizer.step_clipped(model, &grad, ClipNorm::new(1.0)).unwrap();
    }
    nats
}

#[test]
fn misfits_are_named() {
    let rng = &mut rng(5);
    let x = wave::<f64>((4, 2, 3), 0.0);
    let message = panic_of(|| Repeat::new(3).forward(&x, &mut (), &mut Default::default()).to_owned());
    assert_says(&message, &["Repeat: x: expected one step", "[4, 2, 3]", "LastStep"]);
    assert_says(&panic_of(|| Repeat::<f64>::new(0)), &["Repeat: steps: expected at least 1, got 0"]);

    let error = LastStep::<f64>::both_directions().output_size(3.into()).unwrap_err().to_string();
    assert_says(&error, &["LastStep", "even number of features, got 3"]);

    let last = || (Linear::<f64>::zeros(3, 3), LastStep::new());
    for error in [
        Residual::new(last()).output_size(3.into()),
        Highway::new(Linear::<f64>::zeros(3, 3), 3, rng)
            .output_size(3.into())
            .and(DenseConcat::new(last()).output_size(3.into())),
        StochasticDepth::new(last(), 0.5, rng).output_size(3.into()),
    ] {
        assert_says(&error.unwrap_err().to_string(), &["keeps the number of steps, got one that gives 1"]);
    }
    let message = panic_of(|| Highway::new(last(), 3, rng));
    assert_says(&message, &["Highway", "keeps the number of steps"]);
    let directions = [BoxLayer::whole(LastStep::<f64>::new()), BoxLayer::whole(Linear::zeros(3, 3))];
    let [forward, reverse] = directions;
    let error = Bidirectional::new(forward, reverse).output_size(3.into()).unwrap_err().to_string();
    assert_says(&error, &["Bidirectional", "got 1 from forward and those of x from reverse"]);

    let model = Stacked::new(vec![last()]);
    let y = model.forward(&x, &mut model.zero_state(2), &mut model.cache()).to_owned();
    let message = panic_of(|| Sequence::from(&x).with(y.view()).dims());
    assert_says(&message, &["Sequence::with", "(1, 2)", "Layer::output_sequence"]);
    let loss = SoftmaxCrossEntropy::new();
    let message = panic_of(|| loss.value(&y, &arr2(&[[0u8, 1], [0, 1]])));
    assert_says(&message, &["SoftmaxCrossEntropy: ids: expected [1, 2], got [2, 2]"]);
}
