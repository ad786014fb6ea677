//! The options of recurrent cells and models, in cases whose results are known exactly.

use gradflow::ndarray::{Array1, Array2, Array3, Axis, concatenate, s};
use gradflow::rand::rngs::StdRng;
use gradflow::{
    Layer, Sequence, TensorsExt, ZerosLike,
    recurrent::{Gru, GruCell, Lstm, LstmCell, LstmState, Nonlinearity, Rnn, RnnCell},
    wrap::{Bidirectional, LearnedState, Merge},
};

use crate::common::{rng, wave};

const HIDDEN: usize = 500;
const BATCH: usize = 16;
const STEPS: usize = 6;
const P: f64 = 0.3;

fn share(values: impl ExactSizeIterator<Item = bool>) -> f64 {
    let count = values.len() as f64;
    values.filter(|&value| value).count() as f64 / count
}

/// With `h_t = relu(m ∘ h_{t-1})`, a unit is either gone from the first step on or grows by 1 / (1 - p) at each step: one mask for all
/// steps.
#[test]
fn recurrent_dropout_has_one_mask_for_all_steps() {
    let builder = RnnCell::<f64>::builder(1, 50).nonlinearity(Nonlinearity::Relu).bias(false).weight_ih(0.0);
    let mut cell = builder.recurrent_dropout(P).build(&mut rng(0));
    cell.weight_hh = Array2::eye(50);
    let x = Array3::zeros((STEPS, 40, 1));
    let run = |x: Sequence<'_, f64>| cell.forward(x, &mut Array2::ones((40, 50)), &mut cell.cache()).to_owned();
    let x = Sequence::from(&x);
    let y = run(x.train(1));
    for t in 0..STEPS {
        let grown = (1.0 - P).powi(-(t as i32 + 1));
        for (&now, &first) in y.index_axis(Axis(0), t).iter().zip(y.index_axis(Axis(0), 0)) {
            let want = if first == 0.0 { 0.0 } else { grown };
            assert!((now - want).abs() < 1e-12, "step {t}: {now}");
        }
    }
    let dropped = share(y.index_axis(Axis(0), 0).iter().map(|&value| value == 0.0));
    assert!((dropped - P).abs() < 0.04, "{dropped}");
    assert_ne!(y.index_axis(Axis(1), 0), y.index_axis(Axis(1), 1), "sequences have masks of their own");
    assert_ne!(run(x.train(2)), y);
    assert_eq!(run(x.train(1)), y);
    assert!(run(x.eval()).iter().all(|&value| value == 1.0));
}

/// If every candidate is 1, a unit that starts at 0 is still 0 after t steps with probability p^t; in evaluation it is at 1 - p^t.
#[test]
fn zoneout_keeps_a_unit_with_its_probability() {
    let builder = RnnCell::<f64>::builder(1, HIDDEN).nonlinearity(Nonlinearity::Relu).weight_ih(0.0).weight_hh(0.0);
    let cell = builder.bias_ih(1.0).zoneout(P).build(&mut rng(1));
    let x = Array3::zeros((STEPS, BATCH, 1));
    let run = |x: Sequence<'_, f64>| cell.forward(x, &mut cell.zero_state(BATCH), &mut cell.cache()).to_owned();
    let (y, expected) = (run(Sequence::from(&x).train(5)), run(Sequence::from(&x).eval()));
    assert!(y.iter().all(|&value| value == 0.0 || value == 1.0));
    for t in 0..STEPS {
        let kept = P.powi(t as i32 + 1);
        let zeros = share(y.index_axis(Axis(0), t).iter().map(|&value| value == 0.0));
        assert!((zeros - kept).abs() < 0.02, "step {t}: {zeros} and {kept}");
        assert!(expected.index_axis(Axis(0), t).iter().all(|value| (value - (1.0 - kept)).abs() < 1e-12));
    }
}

/// h and c of an LSTM have separate probabilities and separate masks.
#[test]
fn zoneout_keeps_a_memory_apart_from_the_output() {
    let run = |h: f64, c: f64| {
        let builder = LstmCell::<f64>::builder(1, HIDDEN).weight_ih(0.0).weight_hh(0.0).zoneout(h, c);
        let cell = builder.input_bias(50.0).cell_bias(50.0).output_bias(50.0).build(&mut rng(2));
        let mut state = cell.zero_state(BATCH);
        let x = Array3::zeros((1, BATCH, 1));
        cell.forward(Sequence::from(&x).train(3), &mut state, &mut cell.cache());
        [&state.h, &state.c].map(|part| part.mapv(|value| value == 0.0))
    };
    let rate = |kept: &Array2<bool>| share(kept.iter().copied());
    let [h, c] = run(0.2, 0.0);
    assert!((rate(&h) - 0.2).abs() < 0.02 && rate(&c) == 0.0);
    let [h, c] = run(0.0, 0.5);
    assert!(rate(&h) == 0.0 && (rate(&c) - 0.5).abs() < 0.02, "h comes from the memory's candidate");
    let [h, c] = run(0.2, 0.5);
    assert!((share(h.iter().zip(&c).map(|(h, c)| *h && *c).collect::<Vec<_>>().into_iter()) - 0.1).abs() < 0.02);
}

/// Dropout acts only between layers: the last layer's output passes, and each step has its own mask.
#[test]
fn dropout_stands_between_layers_alone() {
    let rng = &mut rng(3);
    let x = Array3::ones((STEPS, 3, 50));
    let run = |layers: usize, rng: &mut StdRng| {
        let builder = Rnn::<f64>::builder(50, 50).nonlinearity(Nonlinearity::Relu).bias(false).weight_hh(0.0);
        let dropout = if layers > 1 { 0.5 } else { 0.0 };
        let mut rnn = builder.num_layers(layers).dropout(dropout).build(rng);
        (0..layers).for_each(|layer| rnn.cell_mut(layer, 0).weight_ih = Array2::eye(50));
        rnn.forward(Sequence::from(&x).train(1), &mut rnn.zero_state(3), &mut rnn.cache()).to_owned()
    };
    assert_eq!(run(1, rng), x);
    let two = run(2, rng);
    assert!(two.iter().all(|&y| y == 0.0 || y == 2.0));
    assert_ne!(two.index_axis(Axis(0), 0), two.index_axis(Axis(0), 1));
    assert!(run(3, rng).iter().all(|&y| y == 0.0 || y == 4.0));
}

/// A model of several layers and directions equals its cells, one after another and side by side.
#[test]
fn models_are_made_of_their_cells() {
    let rng = &mut rng(4);
    let x = wave((STEPS, 3, 4), 0.0);
    let x = Sequence::from(&x).with_lengths(&[2, 6, 4]).unwrap();
    let gru = Gru::<f64>::builder(4, 5).num_layers(2).build(rng);
    let cells = (gru.cell(0, 0).clone(), gru.cell(1, 0).clone());
    let (mut state, mut of_cells) = (gru.zero_state(3), cells.zero_state(3));
    let y = gru.forward(x, &mut state, &mut gru.cache()).to_owned();
    assert_eq!(y, cells.forward(x, &mut of_cells, &mut cells.cache()));
    assert_eq!((state.index_axis(Axis(0), 0), state.index_axis(Axis(0), 1)), (of_cells.0.view(), of_cells.1.view()));

    let lstm = Lstm::<f64>::builder(4, 5).bidirectional().build(rng);
    let cells = Bidirectional::new(lstm.cell(0, 0).clone(), lstm.cell(0, 1).clone());
    let (mut state, mut both) = (lstm.zero_state(3), cells.zero_state(3));
    let y = lstm.forward(x, &mut state, &mut lstm.cache()).to_owned();
    assert_eq!(y, cells.forward(x, &mut both, &mut cells.cache()));
    assert_eq!(state.c.index_axis(Axis(0), 1), both.reverse.c);
    // The reverse direction equals the forward one over the reversed sequences.
    let cell = lstm.cell(0, 1);
    let values = x.features("test", None);
    let mut turned = Array3::zeros(values.raw_dim());
    for (b, length) in [2, 6, 4].into_iter().enumerate() {
        turned.slice_mut(s![..length, b, ..]).assign(&values.slice(s![..length;-1, b, ..]));
    }
    let again = Sequence::from(&turned).with_lengths(&[2, 6, 4]).unwrap();
    let again = cell.forward(again, &mut cell.zero_state(3), &mut cell.cache()).to_owned();
    for (b, length) in [2, 6, 4].into_iter().enumerate() {
        assert_eq!(again.slice(s![..length, b, ..]), y.slice(s![..length;-1, b, 5..]));
    }
}

/// Merging adds, averages or multiplies the halves that are otherwise concatenated, and the gradients match.
#[test]
fn directions_are_merged_as_keras_does() {
    let rng = &mut rng(5);
    let concat = Bidirectional::new(GruCell::<f64>::new(4, 5, rng), GruCell::new(4, 5, rng));
    let (x, dy) = (wave((STEPS, 3, 4), 0.0), wave((STEPS, 3, 5), 1.0));
    let x = Sequence::from(&x).with_lengths(&[2, 6, 4]).unwrap();
    let halves = concat.forward(x, &mut concat.zero_state(3), &mut concat.cache()).to_owned();
    let (f, r) = (halves.slice(s![.., .., ..5]), halves.slice(s![.., .., 5..]));
    let gradients = |layer: &Bidirectional<GruCell<f64>>, dy: &Array3<f64>| {
        let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
        let dx = layer.pass(x, &mut layer.zero_state(3), &mut cache).backward_into(dy, &mut grad).to_owned();
        (dx, grad)
    };
    let both = |df: Array3<f64>, dr: Array3<f64>| concatenate(Axis(2), &[df.view(), dr.view()]).unwrap();
    for (merge, y, dhalves) in [
        (Merge::Sum, &f + &r, both(dy.clone(), dy.clone())),
        (Merge::Average, (&f + &r) * 0.5, both(&dy * 0.5, &dy * 0.5)),
        (Merge::Multiply, &f * &r, both(&dy * &r, &dy * &f)),
    ] {
        let layer = concat.clone().merge(merge);
        assert_eq!(layer.forward(x, &mut layer.zero_state(3), &mut layer.cache()), y, "{merge:?}");
        let (dx, grad) = gradients(&layer, &dy);
        let (want_dx, want) = gradients(&concat, &dhalves);
        assert_eq!((dx, grad.forward, grad.reverse), (want_dx, want.forward, want.reverse), "{merge:?}");
    }
    assert_eq!(concat.merge, Merge::default());
}

/// A learned state is the state from which the layer starts; its gradient is the sum of the gradients that reach that state.
#[test]
fn a_learned_state_is_where_sequences_start() {
    let cell = LstmCell::<f64>::new(3, 4, &mut rng(5));
    let mut learned = LearnedState::new(cell.clone());
    learned.initial.h.assign(&Array2::from_shape_fn((1, 4), |(_, k)| 0.1 * k as f64));
    learned.initial.c.fill(-0.4);
    let all = |part: &Array2<f64>| part.broadcast((2, 4)).unwrap().to_owned();
    let (x, dy) = (wave((STEPS, 2, 3), 0.0), wave((STEPS, 2, 4), 0.0));
    let (mut grad, mut cache) = (learned.zeros_like(), learned.cache());
    let pass = learned.pass(&x, &mut learned.zero_state(2), &mut cache);
    let y = pass.output().to_owned();
    pass.backward(&dy, &mut grad);

    let mut state = LstmState { h: all(&learned.initial.h), c: all(&learned.initial.c) };
    let (mut own, mut cache, mut dstate) = (cell.zeros_like(), cell.cache(), cell.zero_state(2));
    let pass = cell.pass(&x, &mut state, &mut cache).with_state_gradient(&mut dstate);
    assert_eq!(y, pass.output());
    pass.backward(&dy, &mut own);
    for (got, want) in [(&grad.initial.h, &dstate.h), (&grad.initial.c, &dstate.c)] {
        let want = want.sum_axis(Axis(0)).insert_axis(Axis(0));
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-14));
    }
    assert_eq!(grad.layer.values(0), own.values(0));
}

/// Each gate has its own bias; a GRU's candidate has one on either side of the reset gate.
#[test]
fn each_gate_has_its_bias() {
    let rng = &mut rng(6);
    let lstm =
        LstmCell::<f64>::builder(2, 3).input_bias(1.0).forget_bias(2.0).cell_bias(3.0).output_bias(4.0).build(rng);
    let gates =
        |bias: &Option<Array1<f64>>| bias.as_ref().unwrap().exact_chunks(3).into_iter().map(|gate| gate[0]).collect();
    let (of_x, of_h): (Vec<_>, Vec<_>) = (gates(&lstm.bias_ih), gates(&lstm.bias_hh));
    assert_eq!((of_x, of_h), (vec![1.0, 2.0, 3.0, 4.0], vec![0.0; 4]));
    let plain: Vec<f64> = gates(&LstmCell::<f64>::new(2, 3, rng).bias_ih);
    assert_eq!(plain, [0.0, 1.0, 0.0, 0.0], "the memory holds from the start");
    let gru =
        GruCell::<f64>::builder(2, 3).reset_bias(1.0).update_bias(2.0).candidate_bias(3.0).candidate_hidden_bias(4.0);
    let gru = gru.build(rng);
    let (of_x, of_h): (Vec<_>, Vec<_>) = (gates(&gru.bias_ih), gates(&gru.bias_hh));
    assert_eq!((of_x, of_h), (vec![1.0, 2.0, 3.0], vec![0.0, 0.0, 4.0]));
}
