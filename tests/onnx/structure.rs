//! The content of the files.

use std::collections::HashSet;

use gradflow::layers::{Activation, Linear};
use gradflow::ndarray::{arr1, arr2};
use gradflow::onnx::messages::{Length, Model, ValueInfo};
use gradflow::onnx::{ExportOptions, IR_VERSION, OPERATOR_SET, export};
use gradflow::recurrent::{Gru, Lstm, LstmCell};
use gradflow::{Layer, Tensors, author::Size};

use crate::common::rng;
use crate::decoded;
use crate::models::{self, Visit};

/// `name float [time, batch, 3]`
fn shown(info: &ValueInfo) -> String {
    let tensor = info.r#type.as_ref().and_then(|info| info.tensor_type.as_ref()).expect("a tensor");
    let dims = tensor.shape.as_ref().expect("a shape").dim.iter().map(|dim| match &dim.value {
        Some(Length::DimValue(value)) => value.to_string(),
        Some(Length::DimParam(name)) => name.clone(),
        None => "?".into(),
    });
    let elements = format!("{:?}", tensor.elem_type()).to_lowercase();
    format!("{} {elements} [{}]", info.name, dims.collect::<Vec<_>>().join(", "))
}

fn ports(model: &Model) -> [Vec<String>; 2] {
    let graph = model.graph.as_ref().expect("a graph");
    [graph.input.iter().map(shown).collect(), graph.output.iter().map(shown).collect()]
}

/// `Operator(inputs) -> outputs` of each node.
fn nodes(model: &Model) -> Vec<String> {
    let graph = model.graph.as_ref().expect("a graph");
    let nodes = graph.node.iter();
    nodes.map(|node| format!("{}({}) -> {}", node.op_type, node.input.join(", "), node.output.join(", "))).collect()
}

/// Each value is computed once, before it is used; names are unique; every constant is used.
struct WellFormed;

impl Visit for WellFormed {
    type Elem = f32;

    fn visit<M: Layer<Elem = f32>>(&mut self, name: &str, model: M, input: Size) {
        for (lengths, states, batch_first) in [(false, false, false), (true, true, false), (true, false, true)] {
            let options = ExportOptions::new().lengths(lengths).states(states).batch_first(batch_first);
            let file = decoded(&model, input, &options);
            assert_eq!((file.ir_version, file.opset_import[0].version), (IR_VERSION, OPERATOR_SET));
            let graph = file.graph.expect("a graph");
            let mut known = HashSet::from([""]);
            let mut used = HashSet::new();
            for value in graph.input.iter().map(|info| &info.name).chain(graph.initializer.iter().map(|t| &t.name)) {
                assert!(known.insert(value), "{name}: {value} twice");
            }
            for constant in &graph.initializer {
                let count = constant.dims.iter().product::<i64>() as usize;
                let size = if constant.data_type == 7 { 8 } else { 4 };
                assert_eq!(constant.raw_data.len(), count * size, "{name}: {}", constant.name);
            }
            let mut names = HashSet::new();
            for node in &graph.node {
                assert!(names.insert(&node.name), "{name}: node {} twice", node.name);
                for input in &node.input {
                    assert!(known.contains(&input[..]), "{name}: {} uses {input}", node.name);
                    used.insert(&input[..]);
                }
                for output in &node.output {
                    assert!(known.insert(output), "{name}: {output} twice");
                }
            }
            for output in &graph.output {
                assert!(known.contains(&output.name[..]), "{name}: nothing computes {}", output.name);
            }
            let unused: Vec<_> = graph.initializer.iter().filter(|t| !used.contains(&t.name[..])).collect();
            assert!(unused.is_empty(), "{name}: {:?} unused", unused.iter().map(|t| &t.name).collect::<Vec<_>>());
            let state = model.zero_state(1);
            let count = if states { state.count() } else { 0 };
            assert_eq!(
                (graph.input.len(), graph.output.len()),
                (1 + usize::from(lengths) + count, 1 + count),
                "{name}"
            );
        }
    }
}

#[test]
fn every_file_is_well_formed() {
    models::for_each(&mut WellFormed);
    models::for_each_written_only(&mut WellFormed);
}

#[test]
fn an_affine_layer_is_a_product_and_a_sum() {
    let model = (
        Linear { weight: arr2(&[[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0]]), bias: Some(arr1(&[0.1, 0.2, 0.3])) },
        Activation::tanh(),
    );
    let file = decoded(&model, 2, &ExportOptions::new());
    assert_eq!(ports(&file), [["x float [time, batch, 2]"], ["y float [time, batch, 3]"]]);
    assert_eq!(
        nodes(&file),
        ["MatMul(x, 0.weight) -> 0.MatMul:0", "Add(0.MatMul:0, 0.bias) -> 0.Add:0", "Tanh(0.Add:0) -> y"]
    );
    let constants = file.graph.unwrap().initializer;
    let values: Vec<_> = constants[0].raw_data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!((&constants[0].dims[..], &values[..]), (&[2, 3][..], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0][..]));
}

#[test]
fn a_recurrent_layer_is_a_node_with_lengths_and_states() {
    let rng = &mut rng(1);
    let model = (LstmCell::<f64>::builder(2, 3).coupled().build(rng), Gru::new(3, 4, rng));
    let file = decoded(&model, 2, &ExportOptions::new().lengths(true).states(true).batch_first(true));
    let [inputs, outputs] = ports(&file);
    let [h, c, gru] = ["0.h double [batch, 3]", "0.c double [batch, 3]", "1 double [1, batch, 4]"];
    let states = |name: &str| [h, c, gru].map(|tensor| format!("{name}.{tensor}"));
    assert_eq!(inputs[..2], ["x double [batch, time, 2]", "lengths int32 [batch]"]);
    assert_eq!((&inputs[2..], &outputs[1..]), (&states("state")[..], &states("next")[..]));
    assert_eq!(outputs[0], "y double [batch, time, 4]");
    let graph = file.graph.as_ref().unwrap();
    let lstm = graph.node.iter().find(|node| node.op_type == "LSTM").unwrap();
    assert_eq!(lstm.input[1..5], ["0.W", "0.R", "0.B", "lengths"]);
    let attribute = |name: &str| lstm.attribute.iter().find(|attribute| attribute.name == name).unwrap();
    assert_eq!((attribute("hidden_size").i, attribute("input_forget").i), (Some(3), Some(1)));
    assert_eq!(attribute("direction").s.as_deref(), Some(&b"forward"[..]));
    let gru = graph.node.iter().find(|node| node.op_type == "GRU").unwrap();
    assert_eq!((&gru.name[..], &gru.input[5][..], &gru.output[1][..]), ("1.l0.GRU", "state.1", "next.1"));
    let shapes: Vec<_> = graph.initializer.iter().map(|constant| (&constant.name[..], &constant.dims[..])).collect();
    for expected in [("0.W", &[1, 12, 2][..]), ("0.R", &[1, 12, 3]), ("0.B", &[1, 24]), ("1.l0.W", &[1, 12, 3])] {
        assert!(shapes.contains(&expected), "{expected:?} in {shapes:?}");
    }
}

#[test]
fn the_bytes_of_a_small_model_are_these() {
    let model = Linear { weight: arr2(&[[1.0_f32]]), bias: None };
    let bytes = export(&model, 1, &ExportOptions::new()).unwrap();
    let mut expected = vec![0x08, 8];
    expected.extend(b"\x12\x08gradflow\x1a\x050.1.0");
    let node = b"\x0a\x01x\x0a\x06weight\x12\x01y\x1a\x06MatMul\x22\x06MatMul";
    let tensor = b"\x08\x01\x08\x01\x10\x01\x42\x06weight\x4a\x04\x00\x00\x80\x3f";
    let shape = b"\x0a\x06\x12\x04time\x0a\x07\x12\x05batch\x0a\x02\x08\x01";
    let field = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
    let tensor_type = [&[0x08, 1][..], &field(0x12, shape)].concat();
    let value = |name: &[u8]| [field(0x0a, name), field(0x12, &field(0x0a, &tensor_type))].concat();
    let graph = [
        field(0x0a, node),
        field(0x12, b"model"),
        field(0x2a, tensor),
        field(0x5a, &value(b"x")),
        field(0x62, &value(b"y")),
    ];
    let graph = graph.concat();
    expected.extend([0x3a, graph.len() as u8 | 0x80, 1]);
    assert!((128..256).contains(&graph.len()), "{}", graph.len());
    expected.extend(graph);
    expected.extend(b"\x42\x02\x10\x11");
    assert_eq!(bytes, expected);
}

#[test]
fn two_directions_are_one_node() {
    let model = Lstm::<f32>::builder(2, 3).bidirectional().build(&mut rng(2));
    let file = decoded(&model, 2, &ExportOptions::new());
    assert_eq!(
        nodes(&file),
        [
            "LSTM(x, l0.W, l0.R, l0.B) -> l0.LSTM:0, l0.LSTM:1, l0.LSTM:2",
            "Transpose(l0.LSTM:0) -> l0.Transpose:0",
            "Reshape(l0.Transpose:0, integers:0,0,6) -> y",
        ]
    );
}
