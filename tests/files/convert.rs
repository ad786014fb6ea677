//! Weights of ONNX and Keras: models of several layers make the round trip, and unsupported models are refused.
//!
//! `tests/golden` checks that the converted weights compute what ONNX Runtime and Keras compute.

use gradflow::convert::{ConvertError, KerasKind, KerasLayer, KerasWeights, OnnxNode, OnnxOperator};
use gradflow::ndarray::{Array1, Array2, Array3, ArrayD, Axis, s};
use gradflow::{
    Layer, TensorsExt,
    recurrent::{BiGru, BiLstm, BiRnn, Gru, GruReset, Lstm, LstmCell, Nonlinearity, Rnn},
};

use crate::common::{lively, rng};

const INPUT: usize = 3;
const HIDDEN: usize = 4;

/// The layer with random values added to its parameters, always from the same seed.
fn drawn<L: Layer<Elem = f64>>(layer: L) -> L {
    lively(layer, &mut rng(1))
}

#[track_caller]
fn assert_same<L: Layer<Elem = f64>>(got: &L, want: &L) {
    assert_eq!(got.names(), want.names());
    for i in 0..want.count() {
        assert_eq!(got.tensor(i), want.tensor(i), "{}", want.name(i));
    }
}

/// The output for a fixed input, to compare models whose parameters differ.
fn output<L: Layer<Elem = f64>>(model: &L) -> Array3<f64> {
    let x = Array3::from_shape_fn((5, 2, INPUT), |(t, b, k)| (t as f64 + 2.0 * b as f64 + 0.7 * k as f64).sin());
    model.forward(&x, &mut model.zero_state(2), &mut model.cache()).to_owned()
}

#[test]
fn models_of_several_layers_come_back_from_onnx_to_the_bit() {
    macro_rules! check {
        ($($model:ty: $builder:expr;)+) => {$({
            let model: $model = drawn($builder.zeros());
            let nodes = model.to_onnx().unwrap();
            assert_eq!(nodes.len(), 2);
            let back = <$model>::from_onnx(&nodes).unwrap();
            assert_same(&back, &model);
            assert_eq!(back, model, "options");
        })+};
    }
    check! {
        Rnn<f64>: Rnn::builder(INPUT, HIDDEN).num_layers(2).nonlinearity(Nonlinearity::Relu);
        BiRnn<f64>: Rnn::builder(INPUT, HIDDEN).num_layers(2).bidirectional().bias(false);
        Lstm<f64>: Lstm::builder(INPUT, HIDDEN).num_layers(2).peepholes();
        BiLstm<f64>: Lstm::builder(INPUT, HIDDEN).num_layers(2).bidirectional().coupled();
        BiLstm<f64>: Lstm::builder(INPUT, HIDDEN).num_layers(2).bidirectional().coupled().peepholes().bias(false);
        Gru<f64>: Gru::builder(INPUT, HIDDEN).num_layers(2).reset(GruReset::BeforeProduct);
        BiGru<f64>: Gru::builder(INPUT, HIDDEN).num_layers(2).bidirectional();
        BiRnn<f64>: Rnn::builder(INPUT, HIDDEN).num_layers(2).bidirectional().nonlinearity(Nonlinearity::Softsign).clip(2.0);
        BiLstm<f64>: Lstm::builder(INPUT, HIDDEN).num_layers(2).bidirectional().clip(2.0).coupled()
            .candidate_activation(Nonlinearity::Identity).output_activation(Nonlinearity::Elu { alpha: 0.5 });
        Gru<f64>: Gru::builder(INPUT, HIDDEN).num_layers(2).gate_activation(Nonlinearity::HARD_SIGMOID);
    }
    // A node may have different activations in each direction.
    let cell = |f| LstmCell::<f64>::builder(INPUT, HIDDEN).candidate_activation(f).zeros();
    let mixed = BiLstm::from_cells(vec![[cell(Nonlinearity::Tanh), cell(Nonlinearity::Relu)]]);
    let node = mixed.to_onnx().unwrap().remove(0);
    assert_eq!((node.activations[1], node.activations[4]), (Nonlinearity::Tanh, Nonlinearity::Relu));
    assert_eq!(BiLstm::from_onnx(&[node]).unwrap(), mixed);
}

#[test]
fn models_of_several_layers_come_back_from_keras_with_one_bias() {
    macro_rules! check {
        ($($model:ty: $builder:expr;)+) => {$({
            let model: $model = drawn($builder.zeros());
            let layers = model.to_keras().unwrap();
            assert_eq!(layers.len(), 2);
            let back = <$model>::from_keras(&layers).unwrap();
            assert!(output(&back).iter().zip(&output(&model)).all(|(a, b)| (a - b).abs() < 1e-14));
            // Once the two biases are merged into one, nothing more is lost; nothing is lost either if there are two, or none.
            assert_same(&<$model>::from_keras(&back.to_keras().unwrap()).unwrap(), &back);
            assert_eq!(back.to_keras().unwrap(), layers);
        })+};
    }
    check! {
        Rnn<f64>: Rnn::builder(INPUT, HIDDEN).num_layers(2).nonlinearity(Nonlinearity::Relu);
        BiRnn<f64>: Rnn::builder(INPUT, HIDDEN).num_layers(2).bidirectional();
        Lstm<f64>: Lstm::builder(INPUT, HIDDEN).num_layers(2);
        BiLstm<f64>: Lstm::builder(INPUT, HIDDEN).num_layers(2).bidirectional().bias(false);
        Gru<f64>: Gru::builder(INPUT, HIDDEN).num_layers(2);
        BiGru<f64>: Gru::builder(INPUT, HIDDEN).num_layers(2).bidirectional().reset(GruReset::BeforeProduct);
        Lstm<f64>: Lstm::builder(INPUT, HIDDEN).num_layers(2).gate_activation(Nonlinearity::HARD_SIGMOID)
            .candidate_activation(Nonlinearity::Relu).output_activation(Nonlinearity::Relu);
        BiGru<f64>: Gru::builder(INPUT, HIDDEN).num_layers(2).bidirectional().candidate_activation(Nonlinearity::Gelu);
    }
    // With `reset_after` both biases are kept, to the bit.
    let gru: Gru<f64> = drawn(Gru::builder(INPUT, HIDDEN).num_layers(2).zeros());
    assert_same(&Gru::from_keras(&gru.to_keras().unwrap()).unwrap(), &gru);
}

/// Gates set by hand: block k of a tensor holds the value k.
#[test]
fn gates_stand_where_the_other_systems_have_them() {
    let blocks = |gates: usize| Array1::from_shape_fn(gates * HIDDEN, |row| (row / HIDDEN) as f64);
    let first = |tensor: &[f64], gates: usize| -> Vec<f64> {
        tensor.chunks_exact(tensor.len() / gates).map(|gate| gate[0]).collect()
    };
    let weight = |gates: usize, columns: usize| {
        blocks(gates).insert_axis(Axis(1)).broadcast((gates * HIDDEN, columns)).unwrap().to_owned()
    };

    let mut lstm = Lstm::<f64>::builder(INPUT, HIDDEN).peepholes().zeros();
    let cell = lstm.cell_mut(0, 0);
    (cell.weight_ih, cell.weight_hh) = (weight(4, INPUT), weight(4, HIDDEN)); // i, f, g, o = 0, 1, 2, 3
    (cell.bias_ih, cell.bias_hh) = (Some(blocks(4)), Some(blocks(4) + 10.0));
    cell.peephole = Some(blocks(3).into_shape_with_order((3, HIDDEN)).unwrap()); // i, f, o = 0, 1, 2
    let node = lstm.to_onnx().unwrap().remove(0);
    assert_eq!(node.operator, OnnxOperator::Lstm { input_forget: false });
    for tensor in [&node.w, &node.r] {
        assert_eq!(first(tensor.as_slice().unwrap(), 4), [0.0, 3.0, 1.0, 2.0]); // i, o, f, c
    }
    assert_eq!(first(node.b.unwrap().as_slice().unwrap(), 8), [0.0, 3.0, 1.0, 2.0, 10.0, 13.0, 11.0, 12.0]);
    assert_eq!(first(node.p.unwrap().as_slice().unwrap(), 3), [0.0, 2.0, 1.0]); // i, o, f

    let mut gru = Gru::<f64>::builder(INPUT, HIDDEN).zeros();
    let cell = gru.cell_mut(0, 0);
    (cell.weight_ih, cell.weight_hh) = (weight(3, INPUT), weight(3, HIDDEN)); // r, z, n = 0, 1, 2
    (cell.bias_ih, cell.bias_hh) = (Some(blocks(3)), Some(blocks(3) + 10.0));
    let node = gru.to_onnx().unwrap().remove(0);
    assert_eq!(first(node.w.as_slice().unwrap(), 3), [1.0, 0.0, 2.0]); // z, r, h
    let layer = gru.to_keras().unwrap().remove(0);
    assert_eq!(layer.kind, KerasKind::gru(true));
    assert_eq!(layer.forward.kernel.row(0).to_vec()[..], layer.forward.kernel.row(1).to_vec()[..]);
    assert_eq!(first(layer.forward.kernel.row(0).to_vec().as_slice(), 3), [1.0, 0.0, 2.0]); // z, r, h
    let bias: Vec<f64> = layer.forward.bias.unwrap().into_iter().collect();
    assert_eq!(first(&bias, 6), [1.0, 0.0, 2.0, 11.0, 10.0, 12.0]);
}

fn node() -> OnnxNode<f64> {
    drawn(Lstm::<f64>::builder(INPUT, HIDDEN).peepholes().zeros()).to_onnx().unwrap().remove(0)
}

fn layer() -> KerasLayer<f64> {
    drawn(Lstm::<f64>::builder(INPUT, HIDDEN).zeros()).to_keras().unwrap().remove(0)
}

#[track_caller]
fn assert_refused<M>(got: Result<M, ConvertError>, want: ConvertError, text: &str) {
    let error = got.err().expect("an error");
    assert_eq!(error, want);
    assert_eq!(error.to_string(), text);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let shape = |layer, tensor, expected: &[usize], got: &[usize]| ConvertError::Shape {
        layer,
        tensor,
        expected: expected.to_vec(),
        got: got.to_vec(),
    };
    assert_refused(Lstm::<f64>::from_onnx(&[]), ConvertError::NoLayers, "expected at least one layer, got none");
    assert_refused(
        BiLstm::from_onnx(&[node()]),
        ConvertError::Directions { layer: 0, expected: 2, got: 1 },
        "layer 0: expected directions: 2, got 1",
    );
    let other = ConvertError::Kind { layer: 0, expected: "GRU", got: "LSTM" };
    assert_refused(Gru::from_onnx(&[node()]), other.clone(), "layer 0: expected GRU, got LSTM");
    assert_refused(Gru::from_keras(&[layer()]), other, "layer 0: expected GRU, got LSTM");
    assert_refused(
        Lstm::from_onnx(&[OnnxNode { r: Array3::zeros((1, 4 * HIDDEN, HIDDEN + 1)), ..node() }]),
        shape(0, "R", &[1, 20, 5], &[1, 16, 5]),
        "layer 0: R: expected [1, 20, 5], got [1, 16, 5]",
    );
    assert_refused(
        Lstm::from_onnx(&[node(), node()]),
        shape(1, "W", &[1, 16, 4], &[1, 16, 3]),
        "layer 1: W: expected [1, 16, 4], got [1, 16, 3]",
    );
    assert_refused(
        Lstm::from_onnx(&[OnnxNode { b: Some(Array2::zeros((1, 16))), ..node() }]),
        shape(0, "B", &[1, 32], &[1, 16]),
        "layer 0: B: expected [1, 32], got [1, 16]",
    );
    assert_refused(
        Lstm::from_onnx(&[OnnxNode { p: Some(Array2::zeros((2, 12))), ..node() }]),
        shape(0, "P", &[1, 12], &[2, 12]),
        "layer 0: P: expected [1, 12], got [2, 12]",
    );
    assert_refused(
        Lstm::from_onnx(&[OnnxNode { w: Array3::zeros((1, 16, 0)), ..node() }]),
        shape(0, "W", &[1, 16, 1], &[1, 16, 0]),
        "layer 0: W: expected [1, 16, 1], got [1, 16, 0]",
    );
    let gru = OnnxNode::<f64> {
        operator: OnnxOperator::Gru { linear_before_reset: true },
        activations: Vec::new(),
        clip: None,
        w: Array3::zeros((1, 12, INPUT)),
        r: Array3::zeros((1, 12, HIDDEN)),
        b: None,
        p: Some(Array2::zeros((1, 12))),
    };
    assert_refused(
        Lstm::from_onnx(&[OnnxNode { activations: vec![Nonlinearity::Tanh; 6], ..node() }]),
        shape(0, "activations", &[3], &[6]),
        "layer 0: activations: expected [3], got [6]",
    );
    for (clip, f, option, expected, got) in [
        (Some(0.0), Nonlinearity::Tanh, "clip", "a finite number above 0", "0.0"),
        (Some(f64::NAN), Nonlinearity::Tanh, "clip", "a finite number above 0", "NaN"),
        (None, Nonlinearity::Elu { alpha: f64::INFINITY }, "alpha", "a finite number", "inf"),
    ] {
        assert_refused(
            Lstm::from_onnx(&[OnnxNode { clip, activations: vec![f; 3], ..node() }]),
            ConvertError::Number { layer: 0, option, expected, got: got.into() },
            &format!("layer 0: {option}: expected {expected}, got {got}"),
        );
    }
    let (activation, recurrent_activation) = (Nonlinearity::LeakyRelu { slope: f64::NAN }, Nonlinearity::Tanh);
    let got = ConvertError::Number { layer: 0, option: "slope", expected: "a finite number", got: "NaN".into() };
    assert_refused(
        Lstm::from_keras(&[KerasLayer { kind: KerasKind::Lstm { activation, recurrent_activation }, ..layer() }]),
        got,
        "layer 0: slope: expected a finite number, got NaN",
    );
    let unexpected = ConvertError::Unexpected { layer: 0, tensor: "P" };
    assert_refused(Gru::from_onnx(&[gru]), unexpected, "layer 0: P: expected none");

    assert_refused(Lstm::<f64>::from_keras(&[]), ConvertError::NoLayers, "expected at least one layer, got none");
    assert_refused(
        BiLstm::from_keras(&[layer()]),
        ConvertError::Directions { layer: 0, expected: 2, got: 1 },
        "layer 0: expected directions: 2, got 1",
    );
    let with = |change: &dyn Fn(&mut KerasWeights<f64>)| {
        let mut layer = layer();
        change(&mut layer.forward);
        Lstm::from_keras(&[layer])
    };
    assert_refused(
        with(&|weights| weights.kernel = weights.kernel.slice(s![.., ..12]).to_owned()),
        shape(0, "kernel", &[3, 16], &[3, 12]),
        "layer 0: kernel: expected [3, 16], got [3, 12]",
    );
    assert_refused(
        with(&|weights| weights.bias = Some(ArrayD::zeros(vec![2, 16]))),
        shape(0, "bias", &[16], &[2, 16]),
        "layer 0: bias: expected [16], got [2, 16]",
    );
    assert_refused(
        Lstm::from_keras(&[layer(), layer()]),
        shape(1, "kernel", &[4, 16], &[3, 16]),
        "layer 1: kernel: expected [4, 16], got [3, 16]",
    );
    let mut both = layer();
    both.backward = Some(KerasWeights { kernel: Array2::zeros((INPUT + 1, 16)), ..both.forward.clone() });
    assert_refused(
        BiLstm::from_keras(&[both]),
        shape(0, "kernel", &[3, 16], &[4, 16]),
        "layer 0: kernel: expected [3, 16], got [4, 16]",
    );
}

#[test]
fn options_without_a_counterpart_are_refused() {
    let unsupported = |option: &str| ConvertError::Unsupported { layer: 0, option: option.into() };
    let text = |option: &str| format!("layer 0: {option} has no counterpart there");
    let builder = || Lstm::<f64>::builder(INPUT, HIDDEN);
    for (model, option) in [
        (builder().projection(2).zeros(), "weight_hr"),
        (builder().layer_norm().zeros(), "norm_ih"),
        (builder().zoneout(0.1, 0.0).zeros(), "zoneout"),
    ] {
        assert_refused(model.to_onnx(), unsupported(option), &text(option));
        assert_refused(model.to_keras(), unsupported(option), &text(option));
    }
    assert_refused(builder().peepholes().zeros().to_keras(), unsupported("peephole"), &text("peephole"));
    assert_refused(builder().coupled().zeros().to_keras(), unsupported("coupled"), &text("coupled"));
    // Dropout acts only in training and is no part of the weights.
    let dropped = builder().num_layers(2).dropout(0.5).recurrent_dropout(0.5).zeros();
    assert!(dropped.to_onnx().is_ok() && dropped.to_keras().is_ok());
    // Each system has activations that the other lacks.
    for (model, option) in [
        (builder().clip(2.0).zeros(), "clip"),
        (builder().output_activation(Nonlinearity::Relu).zeros(), "an output_activation of its own"),
        (
            builder().gate_activation(Nonlinearity::HardSigmoid { slope: 0.3, offset: 0.5 }).zeros(),
            "activation HardSigmoid",
        ),
        (builder().gate_activation(Nonlinearity::Affine { slope: 0.3, offset: 0.5 }).zeros(), "activation Affine"),
    ] {
        assert!(model.to_onnx().is_ok());
        assert_refused(model.to_keras(), unsupported(option), &text(option));
    }
    let silu = builder().gate_activation(Nonlinearity::Silu).zeros();
    assert!(silu.to_keras().is_ok());
    assert_refused(silu.to_onnx(), unsupported("activation SiLU"), &text("activation SiLU"));
    // Both directions share one set of attributes.
    let cell = |coupled: bool| if coupled { builder().coupled().zeros() } else { builder().zeros() }.cell(0, 0).clone();
    let mixed = BiLstm::from_cells(vec![[cell(false), cell(true)]]);
    assert!(mixed.to_onnx().unwrap_err().to_string().contains("a direction that is"));
    assert!(mixed.to_keras().is_err());
}

/// Directions with different tensors but the same kind of cell: the message names the tensor.
#[test]
fn directions_that_differ_in_a_tensor_are_told_apart() {
    let builder = || LstmCell::<f64>::builder(INPUT, HIDDEN);
    let plain = builder().zeros();
    for (other, name) in [(builder().bias(false).zeros(), "bias_ih"), (builder().peepholes().zeros(), "peephole")] {
        for cells in [[plain.clone(), other.clone()], [other, plain.clone()]] {
            let error = BiLstm::from_cells(vec![cells]).to_onnx().unwrap_err().to_string();
            assert_eq!(error, format!("layer 0: a direction with {name}, another without has no counterpart there"));
        }
    }
}

/// The forget gate's rows have no meaning if gates are coupled: whatever they hold, the model is the same.
#[test]
fn rows_that_mean_nothing_are_not_read() {
    let model: Lstm<f64> = drawn(Lstm::builder(INPUT, HIDDEN).coupled().peepholes().zeros());
    let mut node = model.to_onnx().unwrap().remove(0);
    assert!(node.w.slice(s![.., 2 * HIDDEN..3 * HIDDEN, ..]).iter().all(|&weight| weight == 0.0)); // i, o, f, c
    node.w.slice_mut(s![.., 2 * HIDDEN..3 * HIDDEN, ..]).fill(f64::NAN);
    node.p.as_mut().unwrap().slice_mut(s![.., 2 * HIDDEN..]).fill(f64::NAN); // i, o, f
    assert_same(&Lstm::from_onnx(&[node]).unwrap(), &model);
}
