//! Weights of ONNX and Keras in shapes that fit or do not: refused, or converted so that the conversion back restores them.

use gradflow::convert::{KerasKind, KerasLayer, KerasWeights, OnnxNode, OnnxOperator};
use gradflow::ndarray::{Array2, Array3, ArrayD, Axis};
use gradflow::recurrent::{BiGru, BiLstm, BiRnn, Gru, Lstm, Nonlinearity, Rnn};
use gradflow::wrap::{Bidirectional, Merge};
use gradflow::{Layer, TensorsExt};

use super::choices::Choices;

pub fn run(data: &[u8]) {
    let choices = &mut Choices::new(data);
    if choices.yes() { onnx(choices) } else { keras(choices) }
}

/// A size near the right one.
fn about(size: usize, choices: &mut Choices<'_>) -> usize {
    match choices.below(12) {
        0..=9 => size,
        10 => size + 1,
        _ => choices.below(size + 1),
    }
}

/// Distinct values in a layout that a caller may use.
fn values2(rows: usize, columns: usize, choices: &mut Choices<'_>) -> Array2<f64> {
    let value = |row: usize, column: usize| (row * 100 + column) as f64 + 0.5;
    if choices.yes() {
        return Array2::from_shape_fn((rows, columns), |(row, column)| value(row, column));
    }
    Array2::from_shape_fn((columns, rows), |(column, row)| value(row, column)).reversed_axes()
}

fn values3(planes: usize, rows: usize, columns: usize, choices: &mut Choices<'_>) -> Array3<f64> {
    let mut values = Array3::zeros((planes, rows, columns));
    for (plane, mut values) in values.axis_iter_mut(Axis(0)).enumerate() {
        values.assign(&(values2(rows, columns, choices) + 10_000.0 * plane as f64));
    }
    if choices.yes() { values.view().reversed_axes().as_standard_layout().into_owned().reversed_axes() } else { values }
}

fn nonlinearity(choices: &mut Choices<'_>) -> Nonlinearity {
    let hard = Nonlinearity::HardSigmoid { slope: choices.one_of(&[0.2, 1.0, f64::INFINITY]), offset: 0.5 };
    choices.one_of(&[Nonlinearity::Tanh, Nonlinearity::Relu, Nonlinearity::Sigmoid, Nonlinearity::Gelu, hard])
}

fn onnx(choices: &mut Choices<'_>) {
    let (directions, hidden, mut input) = (1 + choices.below(2), 1 + choices.below(4), 1 + choices.below(4));
    let kind = choices.below(3);
    let mut nodes = Vec::new();
    for _ in 0..choices.below(4) {
        let (operator, gates) = match if choices.once_in(8) { choices.below(3) } else { kind } {
            0 => (OnnxOperator::Rnn, 1),
            1 => (OnnxOperator::Lstm { input_forget: choices.yes() }, 4),
            _ => (OnnxOperator::Gru { linear_before_reset: choices.yes() }, 3),
        };
        let rows = gates * hidden;
        let (d, w_rows, columns) = (about(directions, choices), about(rows, choices), about(input, choices));
        let w = values3(d, w_rows, columns, choices);
        let (r_rows, r_columns) = (about(rows, choices), about(hidden, choices));
        let r = values3(about(directions, choices), r_rows, r_columns, choices);
        let b = choices.yes().then(|| values2(about(directions, choices), about(2 * rows, choices), choices));
        let peepholes = if gates == 4 { choices.yes() } else { choices.once_in(16) };
        let p = peepholes.then(|| values2(about(directions, choices), about(3 * hidden, choices), choices));
        let (per_direction, of_all) = ([1, 3, 2][gates / 2], directions + usize::from(choices.once_in(16)));
        let activations = if choices.yes() { 0 } else { per_direction * of_all };
        let activations = (0..activations).map(|_| nonlinearity(choices)).collect();
        let clip = choices.once_in(4).then(|| choices.one_of(&[0.5, 3.0, 0.0, f64::NAN]));
        nodes.push(OnnxNode { operator, activations, clip, w, r, b, p });
        input = directions * hidden;
    }
    macro_rules! check {
        ($($model:ident),+) => {$(
            if let Ok(model) = $model::<f64>::from_onnx(&nodes) {
                passes(&model);
                match model.to_onnx() {
                    Err(error) => assert!(error.to_string().contains("GELU"), "{error}"),
                    Ok(mut back) => {
                        let again = $model::<f64>::from_onnx(&back).expect("what went to ONNX");
                        assert_eq!(again.names(), model.names());
                        // Default activations of the operator need not be named.
                        for (back, node) in back.iter_mut().zip(&nodes) {
                            if back.activations.is_empty() {
                                back.activations.clone_from(&node.activations);
                            }
                        }
                        // The rows of a coupled gate are unused and come back as zeros; all else is the same.
                        if nodes.iter().all(|node| node.operator != OnnxOperator::Lstm { input_forget: true }) {
                            assert_eq!(back, nodes);
                        }
                    }
                }
            }
        )+};
    }
    check!(Rnn, Lstm, Gru, BiRnn, BiLstm, BiGru);
}

fn keras(choices: &mut Choices<'_>) {
    let (directions, hidden, mut input) = (1 + choices.below(2), 1 + choices.below(4), 1 + choices.below(4));
    let chosen = choices.below(3);
    let mut layers = Vec::new();
    for _ in 0..choices.below(4) {
        let (kind, gates) = match if choices.once_in(8) { choices.below(3) } else { chosen } {
            0 => (KerasKind::SimpleRnn { activation: nonlinearity(choices) }, 1),
            1 => {
                (KerasKind::Lstm { activation: nonlinearity(choices), recurrent_activation: nonlinearity(choices) }, 4)
            }
            _ => {
                let (activation, recurrent_activation) = (nonlinearity(choices), nonlinearity(choices));
                (KerasKind::Gru { reset_after: choices.yes(), activation, recurrent_activation }, 3)
            }
        };
        let columns = gates * hidden;
        let weights = |choices: &mut Choices<'_>| {
            let kernel = values2(about(input, choices), about(columns, choices), choices);
            let recurrent_kernel = values2(about(hidden, choices), about(columns, choices), choices);
            let shape = if matches!(kind, KerasKind::Gru { reset_after: true, .. }) != choices.once_in(16) {
                vec![about(2, choices), about(columns, choices)]
            } else {
                vec![about(columns, choices)]
            };
            let bias = choices.yes().then(|| {
                let mut next = 0.0;
                ArrayD::from_shape_simple_fn(shape, || {
                    next += 1.0;
                    next
                })
            });
            KerasWeights { kernel, recurrent_kernel, bias }
        };
        let forward = weights(choices);
        let backward = ((directions == 2) != choices.once_in(16)).then(|| weights(choices));
        let merge = if choices.once_in(8) { choices.one_of(&MERGES) } else { Merge::Concat };
        layers.push(KerasLayer { kind, forward, backward, merge });
        input = directions * hidden;
    }
    macro_rules! check {
        ($($model:ident),+) => {$(
            if let Ok(model) = $model::<f64>::from_keras(&layers) {
                passes(&model);
                if let Ok(back) = model.to_keras() {
                    // A layer in one direction ignores `merge`.
                    let merges = back.iter().zip(&layers).all(|(a, b)| a.backward.is_none() || a.merge == b.merge);
                    let plain = |layer: &KerasLayer<f64>| KerasLayer { merge: Merge::Concat, ..layer.clone() };
                    assert!(merges && back.iter().map(plain).eq(layers.iter().map(plain)));
                }
            }
        )+};
    }
    check!(Rnn, Lstm, Gru, BiRnn, BiLstm, BiGru);
    macro_rules! check_merged {
        ($($model:ident),+) => {$(
            for layer in &layers {
                if let Ok(model) = Bidirectional::<$model<f64>>::from_keras(layer) {
                    passes(&model);
                    if let Ok(back) = model.to_keras() {
                        assert_eq!(back, *layer);
                    }
                }
            }
        )+};
    }
    check_merged!(Rnn, Lstm, Gru);
}

const MERGES: [Merge; 4] = [Merge::Concat, Merge::Sum, Merge::Average, Merge::Multiply];

/// A model that was accepted runs.
fn passes<L: Layer<Elem = f64>>(model: &L) {
    let input = (1..20).find(|&size| model.output_size(size.into()).is_ok()).expect("a size that fits");
    let x = Array3::from_elem((2, 1, input), 0.5);
    let y = model.forward(&x, &mut model.zero_state(1), &mut model.cache()).to_owned();
    assert!(y.iter().all(|value| value.is_finite() || model.element_count() > 0));
}
