//! Files in other forms that can be read, and the messages for files that are refused.

use gradflow::author::{Gradient, Graph, RowGradients, RowLayer, Rows, Signal, Unsupported};
use gradflow::compose::Residual;
use gradflow::layers::{Activation, CausalConv1d, Embedding, LastStep, LayerNorm, Linear, Nonlinearity, Pool};
use gradflow::ndarray::{Array1, ArrayViewMut2};
use gradflow::onnx::messages::{Attribute, AttributeType, Entry, Graph as File, Model, Node, Tensor};
use gradflow::onnx::{ExportOptions, LoadError, LoadOptions, Misfit, export, load_from, load_into, load_with};
use gradflow::recurrent::{BiLstm, Gru, GruReset, Lstm, LstmCell, Rnn};
use gradflow::wrap::{LearnedState, WeightNorm};
use gradflow::{Float, Layer, TensorsExt, author::Size, parameters, row_layer};
use prost::Message;

use crate::common::{assert_says, bits, lively, rng, temporary};
use crate::decoded;

/// The file of a model, with a change.
fn changed<M: Layer>(model: &M, input: impl Into<Size>, change: impl FnOnce(&mut File)) -> Vec<u8> {
    let mut file = decoded(model, input, &ExportOptions::new());
    change(file.graph.as_mut().unwrap());
    file.encode_to_vec()
}

fn node<'a>(file: &'a mut File, operator: &str) -> &'a mut Node {
    file.node.iter_mut().find(|node| node.op_type == operator).expect("a node")
}

fn constant<'a>(file: &'a mut File, name: &str) -> &'a mut Tensor {
    file.initializer.iter_mut().find(|tensor| tensor.name == name).expect("a constant")
}

fn attribute(name: &str, kind: AttributeType) -> Attribute {
    let mut attribute = Attribute { name: name.into(), ..Attribute::default() };
    attribute.set_type(kind);
    attribute
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { i: Some(value), ..attribute(name, AttributeType::Int) }
}

fn words(name: &str, values: &[&str]) -> Attribute {
    let strings = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    Attribute { strings, ..attribute(name, AttributeType::Strings) }
}

fn set(node: &mut Node, attribute: Attribute) {
    node.attribute.retain(|other| other.name != attribute.name);
    node.attribute.push(attribute);
}

fn new_node(operator: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) -> Node {
    let input = inputs.iter().map(|&name| name.to_owned()).collect();
    Node {
        input,
        output: vec![output.into()],
        name: output.into(),
        op_type: operator.into(),
        attribute: attributes,
        ..Node::default()
    }
}

/// The error from loading the file into a copy of the model; checks that nothing has changed.
#[track_caller]
fn refusal<M: Layer>(model: &M, file: &[u8]) -> String {
    let mut model = model.clone();
    let before = bits(&model);
    let error = load_from(&mut model, file, &LoadOptions::new()).expect_err("a refusal");
    assert_eq!(bits(&model), before, "a refused file changes nothing");
    error.to_string()
}

#[track_caller]
fn loads<M: Layer>(trained: &M, file: &[u8], options: &LoadOptions<'_>) {
    let mut model = trained.clone();
    model.set_zero();
    load_from(&mut model, file, options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bits(&model), bits(trained));
}

#[test]
fn attributes_that_a_cell_does_not_have_are_refused_by_name() {
    let rng = &mut rng(0);
    let lstm = (Lstm::<f32>::new(3, 4, rng),);
    let with = |attribute: Attribute| changed(&lstm, 3, |file| set(node(file, "LSTM"), attribute));
    let hard = with(words("activations", &["HardSigmoid", "Tanh", "Tanh"]));
    assert_says(
        &refusal(&lstm, &hard),
        &[
            "LSTM `0.l0.LSTM` of 3 features and 4 units: activations: expected Sigmoid, Tanh, Tanh, as",
            "got HardSigmoid(0.2, 0.5), Tanh, Tanh",
        ],
    );
    let clip = Attribute { f: Some(3.0), ..attribute("clip", AttributeType::Float) };
    assert_says(&refusal(&lstm, &with(clip)), &["clip: expected 0, as LSTM", "got 3.0"]);
    assert_says(&refusal(&lstm, &with(int("layout", 1))), &["layout: expected 0", "got 1"]);
    assert_says(&refusal(&lstm, &with(int("input_forget", 1))), &["input_forget: expected 0", "got 1"]);
    let reverse = Attribute { s: Some(b"reverse".to_vec()), ..attribute("direction", AttributeType::String) };
    assert_says(&refusal(&lstm, &with(reverse)), &["direction: expected forward", "got reverse"]);
    // The defaults, written out and in another case, make no difference.
    loads(&lstm, &with(words("activations", &["sigmoid", "TANH", "Tanh"])), &LoadOptions::new());
    loads(&lstm, &with(int("layout", 0)), &LoadOptions::new());

    let gru = Gru::<f64>::new(3, 4, rng);
    let before = Gru::<f64>::builder(3, 4).reset(GruReset::BeforeProduct).build(rng);
    let file = export(&before, 3, &ExportOptions::new()).unwrap();
    assert_says(&refusal(&gru, &file), &["GRU", "linear_before_reset: expected 1", "got 0"]);
    let rnn = Rnn::<f32>::new(3, 4, rng);
    let file = changed(&rnn, 3, |file| set(node(file, "RNN"), words("activations", &["Softsign"])));
    assert_says(&refusal(&rnn, &file), &["RNN", "activations: expected Tanh", "got Softsign"]);
}

/// Activations with alphas and betas take them from the lists in order; missing ones are ONNX' defaults.
#[test]
fn activations_of_other_programs_are_read_with_their_numbers() {
    let rng = &mut rng(0);
    let floats =
        |name: &str, floats: &[f32]| Attribute { floats: floats.to_vec(), ..attribute(name, AttributeType::Floats) };
    let hard = Nonlinearity::HardSigmoid { slope: 0.25, offset: 0.5 };
    let builder = Lstm::<f32>::builder(3, 4).gate_activation(hard).output_activation(Nonlinearity::Elu { alpha: 0.75 });
    let lstm = (builder.clip(3.0).bidirectional().build(rng),);
    let file = export(&lstm, 3, &ExportOptions::new()).unwrap();
    loads(&lstm, &file, &LoadOptions::new());
    // Written out for both directions.
    let mut decoded = Model::decode(&file[..]).unwrap();
    let node_of = |file: &mut Model| node(file.graph.as_mut().unwrap(), "LSTM").clone();
    let given = node_of(&mut decoded);
    let listed = |name: &str| given.attribute.iter().find(|attribute| attribute.name == name).unwrap().clone();
    assert_eq!(listed("activation_alpha").floats, [0.25, 0.75, 0.25, 0.75]);
    assert_eq!(listed("activation_beta").floats, [0.5, 0.5]);
    assert_eq!(listed("clip").f, Some(3.0));

    let with = |changes: &[Attribute]| {
        changed(&lstm, 3, |file| changes.iter().for_each(|change| set(node(file, "LSTM"), change.clone())))
    };
    assert_says(
        &refusal(&lstm, &with(&[floats("activation_alpha", &[0.25, 0.75, 0.25, 0.5])])),
        &[
            "activations: expected HardSigmoid(0.25, 0.5), Tanh, Elu(0.75)",
            "got HardSigmoid(0.25, 0.5), Tanh, Elu(0.5)",
        ],
    );
    assert_says(
        &refusal(&lstm, &with(&[floats("activation_alpha", &[]), floats("activation_beta", &[])])),
        &["got HardSigmoid(0.2, 0.5), Tanh, Elu(1.0)"],
    );
    // A short list ends early.
    loads(&lstm, &with(&[floats("activation_beta", &[0.5])]), &LoadOptions::new());
    let affine = words("activations", &["Affine", "Tanh", "Tanh", "Affine", "Tanh", "Tanh"]);
    let file = with(&[affine, floats("activation_alpha", &[0.25, 0.75]), floats("activation_beta", &[])]);
    assert_says(&refusal(&lstm, &file), &["activation_beta: none for Affine"]);
    let clip = |f: f32| Attribute { f: Some(f), ..attribute("clip", AttributeType::Float) };
    assert_says(&refusal(&lstm, &with(&[clip(2.0)])), &["clip: expected 3.0, as LSTM", "got 2.0"]);
    let plain = (BiLstm::<f32>::new(3, 4, rng),);
    assert_says(
        &refusal(&plain, &with(&[])),
        &["clip: expected 0", "got 3.0", "activations: expected Sigmoid, Tanh, Tanh"],
    );

    // The identity is an affine function, and activations without numbers are the same in any case.
    let rnn = Rnn::<f64>::builder(3, 4).nonlinearity(Nonlinearity::Identity).build(rng);
    let same = Rnn::<f64>::builder(3, 4).nonlinearity(Nonlinearity::Affine { slope: 1.0, offset: 0.0 }).zeros();
    loads(&rnn, &export(&rnn, 3, &ExportOptions::new()).unwrap(), &LoadOptions::new());
    let mut loaded = same.clone();
    load_from(&mut loaded, &export(&rnn, 3, &ExportOptions::new()).unwrap()[..], &LoadOptions::new()).unwrap();
    assert_eq!(bits(&loaded), bits(&rnn));
    let gru = Gru::<f32>::builder(3, 4).candidate_activation(Nonlinearity::Softsign).build(rng);
    let file = changed(&gru, 3, |file| set(node(file, "GRU"), words("activations", &["SIGMOID", "softSign"])));
    loads(&gru, &file, &LoadOptions::new());
    let file = changed(&gru, 3, |file| set(node(file, "GRU"), words("activations", &["Sigmoid", "Mish"])));
    assert_says(&refusal(&gru, &file), &["activations: expected Sigmoid, Softsign", "got Sigmoid, Mish"]);

    // Default numbers of operators that are single activations.
    let elu = (Linear::<f32>::new(3, 4, rng), Activation::new(Nonlinearity::Elu { alpha: 1.0 }));
    loads(&elu, &changed(&elu, 3, |file| node(file, "Elu").attribute.clear()), &LoadOptions::new());
    let hard = (Linear::<f32>::new(3, 4, rng), Activation::new(Nonlinearity::HARD_SIGMOID_ONNX));
    loads(&hard, &changed(&hard, 3, |file| node(file, "HardSigmoid").attribute.clear()), &LoadOptions::new());
    let file = changed(&hard, 3, |file| {
        set(node(file, "HardSigmoid"), Attribute { f: Some(0.25), ..attribute("alpha", AttributeType::Float) })
    });
    assert_says(&refusal(&hard, &file), &["HardSigmoid", "alpha: expected 0.2", "got 0.25"]);
}

#[test]
fn inputs_of_a_recurrence_that_a_model_does_not_have_are_refused_by_name() {
    let rng = &mut rng(1);
    let (plain, peepholes) = (LstmCell::<f32>::new(3, 4, rng), LstmCell::<f32>::builder(3, 4).peepholes().build(rng));
    let [plain_file, peephole_file] =
        [export(&plain, 3, &ExportOptions::new()), export(&peepholes, 3, &ExportOptions::new())].map(Result::unwrap);
    assert_says(&refusal(&plain, &peephole_file), &["LSTM", "P: expected none", "got `P`, [12]"]);
    assert_says(&refusal(&peepholes, &plain_file), &["LSTM", "P: expected `P`, [12]", "got none"]);
    let bare = LstmCell::<f32>::builder(3, 4).bias(false).build(rng);
    assert_says(&refusal(&bare, &plain_file), &["LSTM", "B: expected none"]);
    // Missing biases are zero, and biases of zero count as missing.
    let file = export(&bare, 3, &ExportOptions::new()).unwrap();
    let mut model = plain.clone();
    load_from(&mut model, &file[..], &LoadOptions::new()).unwrap();
    assert!(model.bias_ih.unwrap().iter().all(|&bias| bias == 0.0));
    assert_eq!(model.weight_hh, bare.weight_hh);
    let file = changed(&plain, 3, |file| constant(file, "B").raw_data = vec![0; 4 * 32].into());
    let mut model = bare.clone();
    load_from(&mut model, &file[..], &LoadOptions::new()).unwrap();
    assert_eq!(model.weight_ih, plain.weight_ih);

    let learned = lively(LearnedState::new(LstmCell::<f32>::new(3, 4, rng)), rng);
    let file = export(&learned, 3, &ExportOptions::new()).unwrap();
    assert_says(&refusal(&plain, &file), &["initial_h: expected none", "initial_c: expected none"]);
    assert_says(&refusal(&learned, &plain_file), &["initial_h: expected", "got none"]);
}

#[test]
fn what_does_not_fit_is_listed() {
    let rng = &mut rng(2);
    let model = (Lstm::<f32>::new(3, 4, rng), Linear::new(4, 5, rng), Activation::tanh(), Linear::new(5, 2, rng));
    let written = |file: Result<Vec<u8>, _>| -> Vec<u8> { file.unwrap() };
    let plain = ExportOptions::new();

    let other = (Lstm::<f32>::new(3, 6, rng), Linear::new(6, 5, rng), Activation::tanh(), Linear::new(5, 2, rng));
    let file = written(export(&other, 3, &plain));
    assert_says(
        &refusal(&model, &file),
        &[
            "MatMul `1.MatMul` by [6, 5]: `1.weight`: expected shape [4, 5] for `1.weight` of MatMul `1.MatMul` by [4, 5], got [6, 5]",
            "LSTM `0.l0.LSTM` of 3 features and 6 units: `0.l0.W`: expected shape [16, 3]",
            "`0.l0.R`: expected shape [16, 4]",
            "`0.l0.B`: expected shape [32]",
        ],
    );

    let other = (Gru::<f32>::new(3, 4, rng), Linear::new(4, 5, rng), Activation::tanh(), Linear::new(5, 2, rng));
    let file = written(export(&other, 3, &plain));
    assert_says(
        &refusal(&model, &file),
        &["expected LSTM `0.l0.LSTM` of 3 features and 4 units, got GRU `0.l0.GRU` of 3 features and 4 units"],
    );

    let other = (Lstm::<f32>::new(3, 4, rng), Linear::new(4, 5, rng), Activation::relu(), Linear::new(5, 2, rng));
    let file = written(export(&other, 3, &plain));
    assert_eq!(refusal(&model, &file), "the file does not fit the model\n  expected Tanh `2.Tanh`, got Relu `2.Relu`");

    let other = (
        Lstm::<f32>::new(3, 4, rng),
        LayerNorm::new(4),
        Linear::new(4, 5, rng),
        Activation::tanh(),
        Linear::new(5, 2, rng),
    );
    let file = written(export(&other, 3, &plain));
    let surplus = "the file does not fit the model\n  surplus in the file: LayerNormalization `1.LayerNormalization`";
    assert_eq!(refusal(&model, &file), surplus);

    let other = (Lstm::<f32>::new(3, 4, rng), Linear::new(4, 5, rng), Linear::new(5, 2, rng));
    let file = written(export(&other, 3, &plain));
    assert_eq!(refusal(&model, &file), "the file does not fit the model\n  missing in the file: Tanh `2.Tanh`");

    let (deep, shallow) = (Lstm::<f32>::builder(3, 4).num_layers(2).build(rng), Lstm::<f32>::new(3, 4, rng));
    let [deep_file, shallow_file] = [export(&deep, 3, &plain), export(&shallow, 3, &plain)].map(written);
    assert_says(&refusal(&shallow, &deep_file), &["surplus in the file: LSTM `l1.LSTM` of 4 features"]);
    assert_says(&refusal(&deep, &shallow_file), &["missing in the file: LSTM `l1.LSTM` of 4 features"]);

    // The same layers, connected in another way.
    let (direct, around) = (Linear::<f32>::new(3, 3, rng), Residual::new(Linear::<f32>::new(3, 3, rng)));
    let [direct_file, around_file] = [export(&direct, 3, &plain), export(&around, 3, &plain)].map(written);
    assert_says(&refusal(&direct, &around_file), &["surplus in the file: Add"]);
    assert_says(&refusal(&around, &direct_file), &["missing in the file: Add"]);
    let (last, all) = ((Lstm::<f32>::new(3, 4, rng), LastStep::new()), Lstm::<f32>::new(3, 4, rng));
    let file = written(export(&all, 3, &plain));
    assert_says(&refusal(&last, &file), &["missing in the file: Slice `1.Slice`"]);
    let scaled = Residual::new(Linear::<f32>::new(3, 3, rng)).scaled(0.5);
    let file =
        changed(&scaled, 3, |file| constant(file, "scalar:0.5").raw_data = 0.25_f32.to_le_bytes().to_vec().into());
    assert_says(&refusal(&scaled, &file), &["expected 0.5", "got 0.25"]);
    let norm = LayerNorm::<f32>::new(3);
    let file = written(export(&norm.clone().eps(1e-3), 3, &plain));
    assert_says(&refusal(&norm, &file), &["epsilon: expected 1e-5", "got 0.001"]);
    let both = BiLstm::<f32>::new(3, 4, rng);
    assert_says(&refusal(&both, &shallow_file), &["missing in the file: Concat `l0.Reshape`"]);
}

#[test]
fn inputs_that_a_model_does_not_take_are_refused() {
    let rng = &mut rng(3);
    let (wide, narrow) = (Linear::<f32>::new(5, 2, rng), Linear::<f32>::new(3, 2, rng));
    let file = export(&wide, 5, &ExportOptions::new()).unwrap();
    assert_eq!(refusal(&narrow, &file), "the input `x` is not the model's: Linear takes 3 features, got 5");
    let file = export(&Embedding::<f32>::new(7, 4, rng), Size::Tokens, &ExportOptions::new()).unwrap();
    assert_eq!(refusal(&narrow, &file), "the input `x` is not the model's: Linear takes 3 features, got token ids");
    let file = changed(&narrow, 3, |file| file.input[0].r#type = None);
    assert_says(&refusal(&narrow, &file), &["graph.input `x`: it does not say how many features it has"]);
    loads(&narrow, &file, &LoadOptions::new().input(3));
}

#[test]
fn element_types_are_converted_on_wish() {
    let rng = &mut rng(4);
    let model = (Lstm::<f64>::new(3, 4, rng), Linear::<f64>::new(4, 2, rng));
    let file = export(&model, 3, &ExportOptions::new()).unwrap();
    let mut single = (Lstm::<f32>::new(3, 4, rng), Linear::<f32>::new(4, 2, rng));
    assert_says(&refusal(&single, &file), &["`1.weight`: expected type F32, got F64; `LoadOptions::convert`"]);
    load_from(&mut single, &file[..], &LoadOptions::new().convert()).unwrap();
    assert_eq!(single.1.weight, model.1.weight.mapv(|value| value as f32));

    // 16 bits, as raw data and in the field for small integers.
    let layer = Linear {
        weight: Array1::from(vec![1.5_f32, -0.25, 65504.0]).insert_axis(gradflow::ndarray::Axis(0)),
        bias: None,
    };
    let halves = [0x3e00_u16, 0xb400, 0x7bff];
    let brains = [0x3fc0_u16, 0xbe80, 0x4780];
    for (kind, bits, largest) in [(10, halves, 65504.0), (16, brains, 65536.0)] {
        for raw in [true, false] {
            let file = changed(&layer, 3, |file| {
                let tensor = constant(file, "weight");
                (tensor.data_type, tensor.raw_data) = (kind, Default::default());
                match raw {
                    true => tensor.raw_data = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect(),
                    false => tensor.int32_data = bits.iter().map(|&bits| bits.into()).collect(),
                }
            });
            let mut model = Linear { bias: None, ..Linear::<f32>::zeros(3, 1) };
            assert_says(&refusal(&model, &file), &["expected type F32, got", "F16"]);
            load_from(&mut model, &file[..], &LoadOptions::new().convert()).unwrap();
            assert_eq!(model.weight.as_slice().unwrap(), [1.5, -0.25, largest]);
        }
    }
}

#[test]
fn constants_are_read_from_every_field() {
    let rng = &mut rng(5);
    let single = (Lstm::<f32>::new(3, 4, rng), LastStep::new(), Linear::new(4, 2, rng));
    let file = changed(&single, 3, |file| {
        for tensor in &mut file.initializer {
            let raw = std::mem::take(&mut tensor.raw_data);
            match tensor.data_type {
                1 => tensor.float_data = raw.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
                7 => tensor.int64_data = raw.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect(),
                other => panic!("{other}"),
            }
        }
    });
    loads(&single, &file, &LoadOptions::new());
    let double = Linear::<f64>::new(3, 4, rng);
    let file = changed(&double, 3, |file| {
        for tensor in &mut file.initializer {
            let raw = std::mem::take(&mut tensor.raw_data);
            tensor.double_data = raw.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        }
    });
    loads(&double, &file, &LoadOptions::new());
    let file = changed(&double, 3, |file| {
        constant(file, "weight").raw_data = vec![0; 8].into();
    });
    assert_says(&refusal(&double, &file), &["graph.initializer[0] `weight`: expected 12 values for [3, 4], got 1"]);
    let file = changed(&double, 3, |file| constant(file, "weight").data_type = 9);
    let says = ["expected MatMul `MatMul` by [3, 4], got MatMul `MatMul`"];
    assert_says(&refusal(&double, &file), &says);
    let file = changed(&double, 3, |file| constant(file, "weight").dims = vec![-3, 4]);
    assert_says(&refusal(&double, &file), &["there is no array of shape [-3, 4]"]);
}

/// A weight that nodes compute from other constants, as exporters write it.
#[test]
fn constants_are_folded() {
    let rng = &mut rng(6);
    let model = Lstm::<f32>::new(3, 4, rng);
    let file = changed(&model, 3, |file| {
        // W, [1, 16, 3], from its transposed halves, one of them a `Constant` node; B from two doubles.
        let w: Vec<f32> =
            constant(file, "l0.W").raw_data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let half = |from: usize| -> Tensor {
            let values = (0..3).flat_map(|i| (from..from + 8).map(move |g| (g, i)));
            let values = values.map(|(g, i)| w[g * 3 + i]).collect();
            Tensor {
                dims: vec![3, 8],
                data_type: 1,
                name: format!("half{from}"),
                float_data: values,
                ..Tensor::default()
            }
        };
        let b: Vec<f32> =
            constant(file, "l0.B").raw_data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let double = |name: &str, values: &[f32]| Tensor {
            dims: vec![values.len() as i64],
            data_type: 11,
            name: name.into(),
            double_data: values.iter().map(|&value| value.into()).collect(),
            ..Tensor::default()
        };
        let numbers = |name: &str, values: &[i64]| Tensor {
            dims: vec![values.len() as i64],
            data_type: 7,
            name: name.into(),
            int64_data: values.to_vec(),
            ..Tensor::default()
        };
        file.initializer.retain(|tensor| !["l0.W", "l0.B"].contains(&&tensor.name[..]));
        let mut padded = b[..16].to_vec();
        padded.splice(0..0, [9.0, 9.0]);
        file.initializer.extend([
            half(0),
            double("b_x", &padded),
            double("b_h", &b[16..]),
            numbers("zero", &[0]),
            numbers("two", &[2]),
            numbers("all", &[i64::MAX]),
            numbers("shape", &[1, -1]),
        ]);
        let perm = Attribute { ints: vec![1, 0], ..attribute("perm", AttributeType::Ints) };
        let value = Attribute { t: Some(half(8)), ..attribute("value", AttributeType::Tensor) };
        let nodes = [
            new_node("Constant", &[], "other", vec![value]),
            new_node("Identity", &["other"], "same", vec![]),
            new_node("Transpose", &["half0"], "t0", vec![perm.clone()]),
            new_node("Transpose", &["same"], "t8", vec![perm]),
            new_node("Concat", &["t0", "t8"], "w", vec![int("axis", 0)]),
            new_node("Unsqueeze", &["w", "zero"], "l0.W", vec![]),
            new_node("Slice", &["b_x", "two", "all"], "b_x_cut", vec![]),
            new_node("Concat", &["b_x_cut", "b_h"], "b_flat", vec![int("axis", 0)]),
            new_node("Cast", &["b_flat"], "b_single", vec![int("to", 1)]),
            new_node("Reshape", &["b_single", "shape"], "l0.B", vec![]),
        ];
        file.node.splice(0..0, nodes);
    });
    loads(&model, &file, &LoadOptions::new());
}

#[test]
fn values_in_a_second_file_are_read_if_it_is_beside_the_first() {
    let folder = temporary("onnx-external");
    std::fs::create_dir_all(folder.join("inner")).unwrap();
    let model = Linear::<f32>::new(3, 4, &mut rng(7));
    let path = folder.join("inner/model.onnx");
    let write = |location: &str, offset: &str, length: Option<&str>| {
        let file = changed(&model, 3, |file| {
            let tensor = constant(file, "weight");
            let mut bytes = vec![7_u8; 5];
            bytes.extend_from_slice(&tensor.raw_data);
            std::fs::write(folder.join("inner/values.bin"), bytes).unwrap();
            std::fs::write(folder.join("values.bin"), [0; 53]).unwrap();
            (tensor.data_location, tensor.raw_data) = (1, Default::default());
            let entries = [("location", Some(location)), ("offset", Some(offset)), ("length", length)];
            let given = entries.into_iter().filter_map(|(key, value)| Some((key, value?)));
            tensor.external_data = given.map(|(key, value)| Entry { key: key.into(), value: value.into() }).collect();
        });
        std::fs::write(&path, file).unwrap();
        let mut loaded = Linear::<f32>::zeros(3, 4);
        load_into(&mut loaded, &path).map(|()| loaded).map_err(|error| error.to_string())
    };
    assert_eq!(write("values.bin", "5", Some("48")).unwrap(), model);
    assert_eq!(write("values.bin", "5", None).unwrap(), model);
    let absolute = folder.join("values.bin");
    for (location, offset, length, says) in [
        ("../values.bin", "5", Some("48"), "`../values.bin`, which is not beside this one"),
        (absolute.to_str().unwrap(), "5", Some("48"), "which is not beside this one"),
        ("..\\values.bin", "5", Some("48"), "which is not beside this one"),
        ("", "5", Some("48"), "which is not beside this one"),
        ("values.bin", "6", Some("48"), "`values.bin` has no 48 bytes at 6"),
        ("values.bin", "18446744073709551615", Some("48"), "`values.bin` has no 48 bytes at 18446744073709551615"),
        ("values.bin", "5", Some("47"), "expected 48 bytes, got 47"),
        ("values.bin", "five", None, "its offset `five` is no number"),
        ("others.bin", "5", None, "`others.bin`: "),
        (".", "5", None, "which is not beside this one"),
    ] {
        let error = write(location, offset, length).unwrap_err();
        assert_says(&error, &["model.onnx: graph.initializer[0] `weight`: ", says]);
    }
    let bytes = std::fs::read(&path).unwrap();
    assert_says(&refusal(&model, &bytes), &["it is in another file, `.`, which is found beside a path"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_output_may_be_chosen_and_others_are_surplus() {
    let rng = &mut rng(8);
    let model = (Lstm::<f32>::new(3, 4, rng), Linear::new(4, 2, rng));
    let other = Linear::<f32>::new(4, 7, rng);
    let file = changed(&model, 3, |file| {
        let weight = other.weight.t().iter().copied().collect();
        let weight =
            Tensor { dims: vec![4, 7], data_type: 1, name: "other".into(), float_data: weight, ..Tensor::default() };
        file.initializer.push(weight);
        let lstm = node(file, "MatMul").input[0].clone();
        file.node.push(new_node("MatMul", &[&lstm, "other"], "z", vec![]));
        let z = gradflow::onnx::messages::ValueInfo { name: "z".into(), r#type: None };
        file.output.push(z);
    });
    assert_eq!(refusal(&model, &file), "the file does not fit the model\n  surplus in the file: MatMul `z` by [4, 7]");
    loads(&model, &file, &LoadOptions::new().output("y"));
    let mut second = (Lstm::<f32>::new(3, 4, rng), Linear { weight: other.weight.clone() * 0.0, bias: None });
    load_from(&mut second, &file[..], &LoadOptions::new().output("z")).unwrap();
    assert_eq!((&second.0, &second.1.weight), (&model.0, &other.weight));
    let error = load_from(&mut second, &file[..], &LoadOptions::new().output("no")).unwrap_err();
    assert_eq!(error.to_string(), "graph: no node computes `no`");
}

#[test]
fn the_output_may_be_what_comes_before_a_softmax() {
    let model = (Lstm::<f32>::new(3, 4, &mut rng(13)), Linear::new(4, 2, &mut rng(14)));
    let file = changed(&model, 3, |file| {
        node(file, "Add").output[0] = "logits".into();
        file.node.push(new_node("Softmax", &["logits"], "y", vec![int("axis", -1)]));
    });
    assert_eq!(refusal(&model, &file), "the file does not fit the model\n  surplus in the file: Softmax `y`");
    loads(&model, &file, &LoadOptions::new().output("logits"));
}

/// Without recurrences and names of axes, a pool determines the axis of time.
#[test]
fn time_is_the_axis_that_fits() {
    let rng = &mut rng(15);
    let model = (Linear::<f32>::new(3, 4, rng), Pool::mean(), Linear::new(4, 2, rng));
    for (batch_first, axis) in [(false, 0), (true, 1), (true, 2)] {
        let mut file = decoded(&model, 3, &ExportOptions::new().batch_first(batch_first));
        let graph = file.graph.as_mut().unwrap();
        let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
        tensor.shape.as_mut().unwrap().dim[..2].iter_mut().for_each(|dim| dim.value = None);
        graph.node.retain(|node| node.op_type != "Transpose");
        node(graph, "MatMul").input[0] = "x".into();
        let last = graph.node.last_mut().unwrap();
        last.output[0] = "y".into();
        set(node(graph, "ReduceMean"), Attribute { ints: vec![axis], ..attribute("axes", AttributeType::Ints) });
        let file = file.encode_to_vec();
        match axis {
            2 => assert_says(&refusal(&model, &file), &["ReduceMean", "over: expected time", "got features"]),
            _ => loads(&model, &file, &LoadOptions::new()),
        }
    }
}

#[test]
fn names_are_asked_for_and_their_operators_compared() {
    let rng = &mut rng(9);
    let trained = (Lstm::<f32>::new(3, 4, rng), Linear::new(4, 2, rng), Linear::new(2, 2, rng));
    let file = export(&trained, 3, &ExportOptions::new()).unwrap();
    let load = |model: &mut (Linear<f32>, Lstm<f32>), names: [&'static str; 2]| {
        let rename = move |name: &str| match name.split_once('.') {
            Some(("0", rest)) => format!("{}.{rest}", names[0]),
            Some(("1", rest)) => format!("{}.{rest}", names[1]),
            _ => name.to_owned(),
        };
        load_from(model, &file[..], &LoadOptions::new().by_name(rename).input(3))
    };
    let mut model = (Linear::zeros(3, 3), Lstm::new(3, 4, rng));
    let error = load(&mut model, ["1", "0"]).unwrap_err().to_string();
    assert_says(
        &error,
        &["`1.weight`: expected shape [3, 3] for `0.weight` of MatMul `0.MatMul` by [3, 3], got [4, 2]"],
    );
    let error = load(&mut model, ["1", "3"]).unwrap_err().to_string();
    assert_says(&error, &["missing in the file: `3.l0.W` of LSTM `1.l0.LSTM`"]);
}

/// y = a a x
#[derive(Clone)]
struct Squared<F> {
    a: Array1<F>,
}
parameters! { impl<F: Float> Tensors<F> for Squared<F> { a } }

impl<F: Float> RowLayer for Squared<F> {
    type Elem = F;
    type Kept = ();
    const NAME: &'static str = "Squared";

    fn forward_rows(&self, rows: Rows<'_, F>, mut y: ArrayViewMut2<'_, F>, (): &mut ()) {
        y.assign(&(&rows.x * &self.a * &self.a));
    }
    fn backward_rows(&self, _: Rows<'_, F>, _: RowGradients<'_, F>, (): &mut (), _: Gradient<'_, Self>) {}
    fn add_rows_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        let a = graph.parameter("square", &[self.a.len()], self.a.mapv(|a| a * a).to_vec());
        Ok(x.with(graph.node("Mul", &[x.value, a], &[]), x.features(Self::NAME)?))
    }
}
row_layer! { impl<F: Float> Layer for Squared<F> }

#[test]
fn constants_that_are_computed_from_parameters_are_refused() {
    let model = Squared { a: Array1::from(vec![1.0_f32, 2.0]) };
    let file = export(&model, 2, &ExportOptions::new()).unwrap();
    let says = "`square`: this constant of the model's graph is computed from parameters, which cannot be undone";
    assert_eq!(refusal(&model, &file), says);
}

#[test]
fn damaged_files_are_refused_and_nothing_panics() {
    let model = (Lstm::<f32>::new(2, 3, &mut rng(10)), LastStep::new(), Linear::new(3, 1, &mut rng(11)));
    let file = export(&model, 2, &ExportOptions::new()).unwrap();
    for cut in 0..file.len() {
        let mut copy = model.clone();
        let Err(error) = load_from(&mut copy, &file[..cut], &LoadOptions::new()) else {
            // Only what follows the graph may be cut.
            panic!("cut at {cut} of {}", file.len());
        };
        assert!(!error.to_string().is_empty());
    }
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut altered = file.clone();
            altered[at] ^= 1 << bit;
            let mut copy = model.clone();
            let before = bits(&copy);
            if load_from(&mut copy, &altered[..], &LoadOptions::new()).is_err() {
                assert_eq!(bits(&copy), before);
            }
        }
    }
    assert_says(&refusal(&model, b"hello"), &["not an ONNX file, or a damaged one: no field at byte 2"]);
    assert_says(&refusal(&model, b""), &["not an ONNX file, or a damaged one: it has no graph"]);
    let mut old = decoded(&model, 2, &ExportOptions::new());
    old.opset_import[0].version = 6;
    assert_says(&refusal(&model, &old.encode_to_vec()), &["opset_import: expected operator set 7 or later, got 6"]);
}

/// Files whose size in memory would be out of proportion are refused.
#[test]
fn files_that_ask_for_much_memory_are_refused() {
    let model = Linear::<f32>::new(2, 1, &mut rng(12));
    // Nodes of two bytes.
    let file =
        Model { graph: Some(File { node: vec![Node::default(); 2_000_000], ..File::default() }), ..Model::default() };
    assert_eq!(refusal(&model, &file.encode_to_vec()), "more than 1048576 fields");
    // A constant, a shape, and a computed value, each doubled again and again.
    for (first, operator) in [("weight", "Concat"), ("sizes", "Concat"), ("x", "Concat"), ("x", "Mul"), ("y", "Where")]
    {
        let file = changed(&model, 2, |file| {
            file.node.insert(0, new_node("Shape", &["x"], "sizes", vec![]));
            let mut name = first.to_owned();
            for k in 0..60 {
                let next = format!("double{k}");
                let mut inputs = vec![&name[..]; 2];
                inputs.extend((operator == "Where").then_some(&name[..]));
                let at = file.node.len();
                file.node.insert(at, new_node(operator, &inputs, &next, vec![int("axis", 0)]));
                name = next;
            }
        });
        let started = std::time::Instant::now();
        let mut copy = model.clone();
        let outcome = load_from(&mut copy, &file[..], &LoadOptions::new());
        match (first, operator) {
            ("weight", _) => {
                assert_says(&outcome.unwrap_err().to_string(), &["more than", "bytes for what its nodes make"])
            }
            _ => outcome.unwrap_or_else(|error| panic!("{first}: {error}")),
        }
        assert!(started.elapsed().as_secs() < 20);
    }
    // Many nodes that concatenate everything so far, or add an axis.
    for (operator, axes) in [("Concat", 2), ("Unsqueeze", 0)] {
        let file = changed(&model, 2, |file| {
            let sizes =
                Tensor { dims: vec![1], data_type: 7, name: "axis".into(), int64_data: vec![0], ..Tensor::default() };
            file.initializer.push(sizes);
            let mut name = "x".to_owned();
            for k in 0..40_000 {
                let next = format!("n{k}");
                let inputs = if operator == "Concat" { [&name[..], "x"] } else { [&name[..], "axis"] };
                file.node.push(new_node(operator, &inputs, &next, vec![int("axis", axes)]));
                name = next;
            }
        });
        assert!(file.len() < 4_000_000);
        loads(&model, &file, &LoadOptions::new());
    }
    // An array that takes all memory, and one without elements whose dimensions would.
    for dims in [vec![1 << 62], vec![i64::MAX, i64::MAX, 0]] {
        let file = changed(&model, 2, |file| {
            let (name, data_type) = ("huge".into(), 1);
            file.initializer.push(Tensor { dims, data_type, name, ..Tensor::default() });
        });
        assert_says(&refusal(&model, &file), &["graph.initializer[2] `huge`: "]);
    }
    let file = changed(&model, 2, |file| node(file, "MatMul").input[0] = "y".into());
    assert_says(
        &refusal(&model, &file),
        &["graph.node[0] `MatMul` (MatMul): nothing before it computes its input `y`"],
    );
}

#[test]
fn errors_name_the_file() {
    let path = temporary("onnx-named.onnx");
    let mut model = Linear::<f32>::zeros(2, 1);
    let error = load_into(&mut model, &path).unwrap_err();
    assert!(matches!(error, LoadError::Io(_)));
    assert_says(&error.to_string(), &[path.to_str().unwrap()]);
    gradflow::onnx::export_to_file(&path, &Linear::<f32>::zeros(2, 5), 2, &ExportOptions::new()).unwrap();
    let error = load_with(&mut model, &path, &LoadOptions::new()).unwrap_err();
    assert_says(&error.to_string(), &[path.to_str().unwrap(), "the file does not fit the model"]);
    let LoadError::Mismatch { misfits, .. } = error else { panic!("{error}") };
    assert!(
        misfits.iter().any(
            |misfit| matches!(misfit, Misfit::Shape { expected, got, .. } if expected == &[2, 1] && got == &[2, 5])
        )
    );
    std::fs::remove_file(path).unwrap();
}

/// The file has only W, which a layer with the parameter W can load.
#[test]
fn a_weight_that_is_made_of_two_parameters_is_not_taken_apart() {
    let rng = &mut rng(4);
    let mut model = WeightNorm::new(CausalConv1d::<f32>::new(3, 4, 2, rng));
    let file = export(&model, 3, &ExportOptions::new()).unwrap();
    let before = bits(&model);
    let error = load_from(&mut model, &file[..], &LoadOptions::new()).unwrap_err();
    assert_says(&error.to_string(), &["weight"]);
    assert_eq!(bits(&model), before);
    let mut plain = CausalConv1d::<f32>::zeros(3, 4, 2);
    load_from(&mut plain, &file[..], &LoadOptions::new()).unwrap();
    assert_eq!(bits(&plain), bits(&model.into_inner()));
}

/// Convolutions are distinguished by their attributes.
#[test]
fn another_convolution_is_refused() {
    let rng = &mut rng(4);
    let file = |layer: &CausalConv1d<f32>| export(layer, 4, &ExportOptions::new()).unwrap();
    let builder = || CausalConv1d::<f32>::builder(4, 4, 3);
    for (other, says) in [
        (builder().dilation(2).build(rng), "dilations"),
        (builder().groups(2).build(rng), "group"),
        (CausalConv1d::builder(4, 4, 2).build(rng), "kernel_shape"),
        (builder().bias(false).build(rng), "Conv"),
    ] {
        let mut model = builder().build(rng);
        let before = bits(&model);
        let error = load_from(&mut model, &file(&other)[..], &LoadOptions::new()).unwrap_err();
        assert_says(&error.to_string(), &[says]);
        assert_eq!(bits(&model), before);
    }
}
