//! Variable lengths: padding changes no bit of valid values, and no work is spent on it.

use std::sync::atomic::{AtomicUsize, Ordering};

use gradflow::ndarray::{Array2, Array3, Axis, s};
use gradflow::rand::rngs::StdRng;
use gradflow::{
    Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    author::{Cell, CellSizes, CellStep, CellStepBackward},
    clip::{clip_grad_norm, grad_norm},
    compose::Residual,
    layers::{LayerNorm, Linear},
    loss::SoftmaxCrossEntropy,
    parameters,
    recurrent::{Gru, Lstm, Recurrent, Rnn},
    wrap::{GradientProbe, Probed},
};

use crate::common::{evaluate, rng};

const BATCH: usize = 5;
const STEPS: usize = 9;
const INPUT: usize = 3;
const CLASSES: usize = 4;
const LENGTHS: [usize; BATCH] = [4, 9, 1, 6, 9];

fn value(t: usize, b: usize, k: usize) -> f64 {
    (0.9 * t as f64 + 2.3 * b as f64 + 4.1 * k as f64).sin()
}

/// A batch of `steps` steps with `junk` past the lengths.
fn padded(steps: usize, junk: f64) -> Array3<f64> {
    Array3::from_shape_fn((steps, BATCH, INPUT), |(t, b, k)| if t < LENGTHS[b] { value(t, b, k) } else { junk })
}

/// All numbers of a training step, to the bit: loss, valid outputs and `dL/dx`, final states and their gradients, parameters'
/// gradients, norms before and after clipping, and the probe's records.
fn training_step<L: Layer<Elem = f64>>(model: &L, probe: &GradientProbe, x: &Array3<f64>, junk: f64) -> Vec<u64> {
    let (steps, batch, _) = x.dim();
    let targets =
        Array2::from_shape_fn((steps, batch), |(t, b)| if t < LENGTHS[b] { (t + 2 * b) % CLASSES } else { usize::MAX });
    let (mut state, mut cache, mut grad) = (model.zero_state(batch), model.cache(), model.zeros_like());
    let mut dstate = state.clone();
    (0..dstate.count()).for_each(|i| dstate.tensor_mut(i).fill(0.3));
    let sequence = Sequence::from(x).with_lengths(&LENGTHS).unwrap().train(7);
    probe.record(true);
    let pass = model.pass(sequence, &mut state, &mut cache).with_state_gradient(&mut dstate);
    let (y, mut dlogits) = (pass.output().to_owned(), Array3::zeros((0, 0, 0)));
    let loss = evaluate(&SoftmaxCrossEntropy::new(), &y, &targets, Some(&LENGTHS), &mut dlogits);
    for (t, b) in (0..steps).flat_map(|t| (0..batch).map(move |b| (t, b))).filter(|&(t, b)| t >= LENGTHS[b]) {
        assert!(dlogits.slice(s![t, b, ..]).iter().all(|&d| d == 0.0), "the loss has a gradient in the padding");
        dlogits.slice_mut(s![t, b, ..]).fill(junk);
    }
    let dx = pass.backward(&dlogits, &mut grad).to_owned();

    let mut numbers = vec![loss];
    for array in [&y, &dx] {
        for (b, length) in LENGTHS.into_iter().enumerate() {
            numbers.extend(array.slice(s![..length, b, ..]));
            assert!(array.slice(s![length.., b, ..]).iter().all(|&value| value == 0.0));
        }
    }
    for i in 0..state.count() {
        numbers.extend(state.values(i).iter().chain(dstate.values(i)));
    }
    for name in ["recurrent", "head"] {
        let flow = probe.flow();
        let flow = flow.get(name).unwrap();
        numbers.extend(flow.hidden.iter().chain(&flow.output).take(STEPS));
    }
    numbers.extend([grad_norm(&grad, 2.0), grad_norm(&grad, f64::INFINITY)]);
    numbers.push(clip_grad_norm(&mut grad, 0.1).unwrap());
    (0..grad.count()).for_each(|i| numbers.extend(grad.values(i)));
    numbers.into_iter().map(f64::to_bits).collect()
}

#[test]
fn padding_changes_no_bit_of_a_training_step() {
    let rng = &mut rng(0);
    fn check<L: Layer<Elem = f64>>(name: &str, recurrent: L, rng: &mut StdRng) {
        let (probe, output) = (GradientProbe::new(), recurrent.output_size(INPUT.into()).unwrap());
        let head = Linear::new(output, CLASSES, rng);
        let model =
            (Probed::new("recurrent", recurrent, &probe), LayerNorm::new(output), Probed::new("head", head, &probe));
        let want = training_step(&model, &probe, &padded(STEPS, 0.0), 0.0);
        for junk in [f64::NAN, f64::INFINITY, -1e30] {
            assert!(training_step(&model, &probe, &padded(STEPS, junk), junk) == want, "{name}: padding of {junk}");
        }
        // More padding, after the longest sequence.
        assert!(training_step(&model, &probe, &padded(STEPS + 6, f64::NAN), f64::NAN) == want, "{name}: more padding");
    }
    check("RNN", Rnn::builder(INPUT, 5).num_layers(2).dropout(0.2).build(rng), rng);
    check("LSTM", Lstm::builder(INPUT, 5).num_layers(2).dropout(0.2).build(rng), rng);
    check("GRU", Gru::builder(INPUT, 5).num_layers(2).zoneout(0.2).build(rng), rng);
    check("RNN in both directions", Rnn::builder(INPUT, 5).num_layers(2).bidirectional().build(rng), rng);
    let lstm = Lstm::builder(INPUT, 5).num_layers(2).bidirectional().peepholes().layer_norm().zoneout(0.2, 0.1);
    check("LSTM in both directions", lstm.dropout(0.3).build(rng), rng);
    check("GRU in both directions", Gru::builder(INPUT, 5).num_layers(3).bidirectional().build(rng), rng);
    check("residual", (Linear::new(INPUT, 5, rng), Residual::new(Lstm::builder(5, 5).build(rng))), rng);
}

/// The order of a batch does not matter: each sequence gets the same results in any order.
#[test]
fn lengths_may_come_in_any_order() {
    let model = Lstm::<f64>::builder(INPUT, 6).num_layers(2).bidirectional().build(&mut rng(1));
    let x = padded(STEPS, f64::NAN);
    let run = |order: [usize; BATCH]| {
        let (x, lengths) = (x.select(Axis(1), &order), order.map(|b| LENGTHS[b]));
        let (mut state, mut cache, mut grad) = (model.zero_state(BATCH), model.cache(), model.zeros_like());
        let pass = model.pass(Sequence::from(&x).with_lengths(&lengths).unwrap(), &mut state, &mut cache);
        let (y, dy) = (pass.output().to_owned(), pass.output().mapv(|y| y + 0.5));
        let dx = pass.backward(&dy, &mut grad).to_owned();
        let back = |array: &Array3<f64>| {
            let mut turned = array.clone();
            order.iter().enumerate().for_each(|(at, &b)| {
                turned.index_axis_mut(Axis(1), b).assign(&array.index_axis(Axis(1), at));
            });
            turned
        };
        (back(&y), back(&dx), back(&state.h), back(&state.c), grad)
    };
    let want = run([0, 1, 2, 3, 4]);
    for order in [[4, 3, 2, 1, 0], [1, 4, 3, 0, 2], [2, 0, 3, 4, 1]] {
        let got = run(order);
        for (got, want) in [(&got.0, &want.0), (&got.1, &want.1), (&got.2, &want.2), (&got.3, &want.3)] {
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-14));
        }
        for i in 0..model.count() {
            assert!(got.4.values(i).iter().zip(want.4.values(i)).all(|(a, b)| (a - b).abs() < 1e-13));
        }
    }
}

/// A cell that counts the rows that it gets.
#[derive(Clone)]
struct Counting {
    weight: Array2<f64>,
    rows: &'static [AtomicUsize; 2],
}
parameters! { impl Tensors<f64> for Counting { weight; skip rows } }

impl Cell for Counting {
    type Elem = f64;
    type State = Array2<f64>;
    type Buffers = ();

    fn sizes(&self) -> CellSizes {
        CellSizes { name: "Counting", input: self.weight.ncols(), output: self.weight.nrows(), memory: 0 }
    }

    fn initial_state(&self, batch: usize) -> Array2<f64> {
        Array2::zeros((batch, self.weight.nrows()))
    }

    fn forward_step(&self, mut step: CellStep<'_, f64>, _: &mut ()) {
        self.rows[0].fetch_add(step.x.nrows(), Ordering::Relaxed);
        step.h.assign(&(&step.x.dot(&self.weight.t()) + &step.h_before));
    }

    fn backward_step(&self, mut step: CellStepBackward<'_, f64>, _: &mut (), grad: &mut Self) {
        self.rows[1].fetch_add(step.x.nrows(), Ordering::Relaxed);
        grad.weight += &step.dh.t().dot(&step.x);
        if let Some(dx) = &mut step.dx {
            dx.assign(&step.dh.dot(&self.weight));
        }
    }
}

/// A step runs only for the sequences that reach it: as many rows as there are valid positions, in every layer and direction, forward
/// and backward.
#[test]
fn no_work_is_spent_on_padding() {
    static ROWS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let cell = |input| Counting { weight: Array2::from_elem((INPUT, input), 0.1), rows: &ROWS };
    let model =
        Recurrent::<Counting, 2>::from_cells(vec![[cell(INPUT), cell(INPUT)], [cell(2 * INPUT), cell(2 * INPUT)]]);
    let count = |lengths: Option<&[usize]>| {
        ROWS.iter().for_each(|rows| rows.store(0, Ordering::Relaxed));
        let x = padded(STEPS, 0.0);
        let mut x = Sequence::from(&x);
        if let Some(lengths) = lengths {
            x = x.with_lengths(lengths).unwrap();
        }
        let mut grad = model.zeros_like();
        let (mut state, mut cache) = (model.zero_state(BATCH), model.cache());
        model.pass(x, &mut state, &mut cache).backward(&Array3::ones((STEPS, BATCH, 2 * INPUT)), &mut grad);
        ROWS.each_ref().map(|rows| rows.load(Ordering::Relaxed))
    };
    let cells = 2 * 2;
    assert_eq!(count(None), [cells * STEPS * BATCH; 2]);
    assert_eq!(count(Some(&LENGTHS)), [cells * LENGTHS.iter().sum::<usize>(); 2]);
    assert_eq!(count(Some(&[STEPS / 2; BATCH])), [cells * (STEPS / 2) * BATCH; 2]);
}
