//! Files of plug-ins: models written by other programs compute here what they compute there, and damaged files are refused.
//!
//! `tests/files/data/plugins.py` wrote the files, and compares the files that these tests leave in `target/tmp/plugins`. In a run by
//! hand, RTNeural (commit 1fb1f07, its `parseJson`) and NeuralAmpModelerCore (commit daae2d0, its `get_dsp`) loaded both kinds of files
//! as well and gave the same samples to 2e-7.

use std::fs;
use std::path::{Path, PathBuf};

use gradflow::convert::FileError;
use gradflow::convert::keras_json::{KerasJson, KerasJsonLayer};
use gradflow::convert::nam::NamModel;
use gradflow::layers::{Activation, Linear, Nonlinearity};
use gradflow::ndarray::{Array2, Array3, Axis};
use gradflow::recurrent::{GruCell, GruReset, Lstm, LstmCell};
use gradflow::stream::Stream;
use gradflow::{Causal, Layer, Sequence};
use serde_json::{Value, json};

use crate::common::{assert_says, lively, rng};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/data/plugins").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(data(name)).unwrap()
}

/// The signal beside a file: input and output, `[T, features]`.
fn signal(name: &str) -> [Array2<f32>; 2] {
    let both: Value = serde_json::from_str(&text(&format!("{name}.signal"))).unwrap();
    ["input", "output"].map(|key| {
        let rows: Vec<Vec<f32>> = serde_json::from_value(both[key].clone()).unwrap();
        let columns = rows[0].len();
        Array2::from_shape_vec((rows.len(), columns), rows.into_iter().flatten().collect()).unwrap()
    })
}

/// The output of a model; checks that a stream gives the same.
fn run<L: Causal<Elem = f32>>(model: &L, state: &L::State, x: &Array2<f32>) -> Array2<f32> {
    let mut stream = Stream::new(model, x.ncols()).unwrap();
    stream.set_state(state);
    let x = x.clone().insert_axis(Axis(1));
    let mut state = state.clone();
    let y = model.forward(Sequence::from(&x).infer(), &mut state, &mut model.cache()).index_axis(Axis(1), 0).to_owned();
    let mut streamed = Array2::zeros(y.dim());
    stream.process(x.as_slice().unwrap(), streamed.as_slice_mut().unwrap());
    assert!((&streamed - &y).iter().all(|difference| difference.abs() < 1e-5));
    y
}

#[track_caller]
fn assert_same_sound(name: &str, got: &Array2<f32>, want: &Array2<f32>) {
    assert_eq!(got.dim(), want.dim(), "{name}");
    let largest = (got - want).iter().fold(0.0, |largest: f32, difference| largest.max(difference.abs()));
    let lively = want.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    assert!(lively > 0.01 && largest < 1e-5, "{name}: {largest} of {lively}");
}

#[test]
fn files_of_neural_amp_modeler_sound_as_there_and_come_back() {
    for (name, layers) in [("lstm", 1), ("lstm_two_layers", 2)] {
        let file = NamModel::<f32>::open(data(&format!("{name}.nam"))).unwrap();
        assert_eq!((file.sample_rate, file.model.0.num_layers()), (Some(48_000.0), layers));
        assert_eq!(file.metadata["name"], format!("random, {layers} layers"));
        assert!(file.initial_state.0.h.iter().all(|h| *h != 0.0), "silence leads to another state");
        let [x, y] = signal(name);
        assert_same_sound(name, &run(&file.model, &file.initial_state, &x), &y);

        let mut saved = Vec::new();
        file.save_to(&mut saved).unwrap();
        assert_eq!(NamModel::read_from(&saved[..]).unwrap(), file);
    }
}

#[test]
fn files_of_keras_layers_sound_as_in_keras_and_come_back() {
    for name in ["keras_lstm", "keras_stack", "keras_gru_skip"] {
        let file = KerasJson::<f32>::open(data(&format!("{name}.json"))).unwrap();
        let (model, [x, y]) = (file.model(), signal(name));
        assert_same_sound(name, &run(&model, &model.zero_state(1), &x), &y);

        let mut saved = Vec::new();
        file.save_to(&mut saved).unwrap();
        let mut again = KerasJson::read_from(&saved[..]).unwrap();
        if name == "keras_stack" {
            // It has a layer without biases.
            let (Some(KerasJsonLayer::Dense(saved)), Some(KerasJsonLayer::Dense(given))) =
                (again.layers.last_mut(), file.layers.last())
            else {
                panic!("expected dense layers at the end");
            };
            assert!(given.bias.is_none() && saved.bias.take().is_some_and(|bias| bias.iter().all(|b| *b == 0.0)));
        }
        assert_eq!(again, file);
    }
    let skip = KerasJson::<f32>::open(data("keras_gru_skip.json")).unwrap();
    assert_eq!((skip.input_gain, skip.output_gain), (Some(-6.0), Some(1.5)));
    assert_eq!(skip.metadata["samplerate"], "48000");
}

#[test]
fn files_of_guitarml_sound_as_in_pytorch() {
    for name in ["guitarml_lstm", "guitarml_gru"] {
        let file = KerasJson::<f32>::open(data(&format!("{name}.json"))).unwrap();
        assert_eq!(file.skip, name == "guitarml_lstm");
        let (model, [x, y]) = (file.model(), signal(name));
        assert_same_sound(name, &run(&model, &model.zero_state(1), &x), &y);
    }
}

/// The cell with random values added to its parameters, including both biases.
fn cell<L: Layer<Elem = f32>>(cell: L) -> L {
    lively(cell, &mut rng(3))
}

/// Leaves files with their signals for the other programs.
#[test]
fn files_are_left_for_the_other_programs() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
    fs::create_dir_all(&folder).unwrap();
    let leave = |name: &str, x: &Array2<f32>, y: &Array2<f32>| {
        let rows = |values: &Array2<f32>| values.outer_iter().map(|row| row.to_vec()).collect::<Vec<_>>();
        let signal = json!({ "input": rows(x), "output": rows(y) });
        fs::write(folder.join(format!("{name}.signal")), signal.to_string()).unwrap();
    };
    let x = Array2::from_shape_fn((64, 1), |(t, _)| (0.3 * t as f32).sin() * (-0.02 * t as f32).exp());

    for (name, layers) in [("one", 1), ("three", 3)] {
        let lstm = cell(Lstm::<f32>::builder(1, 6).num_layers(layers).zeros());
        let mut file = NamModel::new(lstm, cell(Linear::zeros(6, 1)));
        file.sample_rate = Some(44_100.0);
        file.initial_state.0.h.fill(0.25);
        file.initial_state.0.c.fill(-0.5);
        let path = folder.join(format!("{name}.nam"));
        file.save(&path).unwrap();
        let loaded = NamModel::open(&path).unwrap();
        let y = run(&file.model, &file.initial_state, &x);
        assert_same_sound(name, &run(&loaded.model, &loaded.initial_state, &x), &y);
        leave(name, &x, &y);
    }

    let (lstm, gru) = (cell(LstmCell::zeros(1, 5)), cell(GruCell::zeros(1, 5)));
    let bare = cell(LstmCell::builder(1, 5).bias(false).zeros());
    let head = cell(Linear::zeros(5, 1));
    let inside = [cell(Linear::zeros(5, 3)).into(), Activation::relu().into(), cell(GruCell::zeros(3, 5)).into()];
    let stack = [bare.into(), Activation::tanh().into()].into_iter().chain(inside).chain([head.clone().into()]);
    let mut skip = KerasJson::new([gru.into(), head.clone().into()]);
    skip.skip = true;
    let files =
        [("lstm", KerasJson::new([lstm.into(), head.into()])), ("gru_skip", skip), ("stack", KerasJson::new(stack))];
    for (name, file) in files {
        let path = folder.join(format!("{name}.json"));
        file.save(&path).unwrap();
        let (model, loaded) = (file.model(), KerasJson::open(&path).unwrap().model());
        let y = run(&model, &model.zero_state(1), &x);
        assert_same_sound(name, &run(&loaded, &loaded.zero_state(1), &x), &y);
        leave(name, &x, &y);
    }
}

#[test]
fn what_a_format_does_not_have_is_not_written() {
    let error = |file: NamModel<f32>| file.save_to(Vec::new()).unwrap_err().to_string();
    let nam = || NamModel::new(cell(Lstm::builder(1, 3).zeros()), cell(Linear::zeros(3, 1)));
    let peepholes = NamModel::new(cell(Lstm::builder(1, 3).peepholes().zeros()), Linear::zeros(3, 1));
    assert_says(&error(peepholes), &["layer 0", "peephole"]);
    let hard = Lstm::builder(1, 3).gate_activation(Nonlinearity::HARD_SIGMOID).zeros();
    assert_says(&error(NamModel::new(hard, Linear::zeros(3, 1))), &["layer 0: an activation of a recurrent layer"]);
    let head = NamModel::new(Lstm::builder(1, 3).zeros(), Linear::zeros(4, 1));
    assert_says(&error(head), &["weight of the linear layer", "[1, 3]", "[1, 4]"]);
    let mut infinite = nam();
    infinite.model.0.cell_mut(0, 0).weight_hh[[2, 1]] = f32::INFINITY;
    assert_says(&error(infinite), &["weight_hh_l0", "finite"]);
    let mut state = nam();
    state.initial_state.0.c = Array3::zeros((1, 2, 3));
    assert_says(&error(state), &["initial_state.c", "[1, 1, 3]", "[1, 2, 3]"]);
    let mut rate = nam();
    rate.sample_rate = Some(f64::NAN);
    assert_says(&error(rate), &["sample_rate"]);
    assert!(nam().save_to(Vec::new()).is_ok());

    let error = |layers: Vec<KerasJsonLayer<f32>>| KerasJson::new(layers).save_to(Vec::new()).unwrap_err().to_string();
    let before = GruCell::builder(1, 3).reset(GruReset::BeforeProduct).zeros();
    assert_says(&error(vec![before.into()]), &["layer 0", "reset gate"]);
    let relu = LstmCell::builder(1, 3).candidate_activation(Nonlinearity::Relu).output_activation(Nonlinearity::Relu);
    assert_says(
        &error(vec![relu.zeros().into()]),
        &["layer 0: an activation of a recurrent layer that is not tanh or the sigmoid has no counterpart there"],
    );
    assert_says(&error(vec![GruCell::builder(1, 3).clip(1.0).zeros().into()]), &["layer 0: clip"]);
    assert_says(&error(vec![Linear::zeros(1, 2).into(), Activation::gelu().into()]), &["layer 1", "activation"]);
    assert_says(
        &error(vec![Linear::zeros(1, 2).into(), LstmCell::zeros(3, 4).into()]),
        &["layer 1: input", "[3]", "[2]"],
    );
    assert_says(&error(vec![]), &["at least one layer"]);
    let mut nan = Linear::zeros(1, 2);
    nan.weight[[1, 0]] = f32::NAN;
    assert_says(&error(vec![Linear::zeros(1, 1).into(), nan.into()]), &["1.weight", "finite"]);
    let mut skip = KerasJson::<f32>::new([Linear::zeros(1, 2).into()]);
    skip.skip = true;
    assert_says(&skip.save_to(Vec::new()).unwrap_err().to_string(), &["2 outputs"]);
}

/// A file in which the value at one place is replaced.
fn altered(name: &str, place: &str, value: Value) -> String {
    let mut file: Value = serde_json::from_str(&text(name)).unwrap();
    *file.pointer_mut(place).unwrap_or_else(|| panic!("{name} has no {place}")) = value;
    file.to_string()
}

/// The error for a text in either format.
fn fault(name: &str, text: &str) -> String {
    let error = if name.ends_with(".nam") {
        NamModel::<f32>::read_from(text.as_bytes()).err()
    } else {
        KerasJson::<f32>::read_from(text.as_bytes()).err()
    };
    error.unwrap_or_else(|| panic!("{name}: expected an error")).to_string()
}

#[test]
fn an_error_names_the_place_what_was_expected_and_what_came() {
    let zeros = |count: usize| Value::from(vec![0.0; count]);
    let cases: &[(&str, &str, Value, &[&str])] = &[
        (
            "lstm.nam",
            "/architecture",
            json!("WaveNet"),
            &["architecture: expected \"LSTM\", got \"WaveNet\"", "not supported"],
        ),
        ("lstm.nam", "/architecture", json!("CatLSTM"), &["CatLSTM"]),
        ("lstm.nam", "/version", json!("0.8.0"), &["version", "0.8.0", "not supported"]),
        ("lstm.nam", "/version", json!("new"), &["version: expected a version", "\"new\""]),
        ("lstm.nam", "/version", json!(5), &["version: expected a text, got 5"]),
        ("lstm.nam", "/config/hidden_size", json!(4), &["weights: expected a list of 109 numbers, got 70"]),
        ("lstm.nam", "/config/hidden_size", json!(usize::MAX), &["weights: expected fewer weights"]),
        #[cfg(target_pointer_width = "64")]
        ("lstm.nam", "/config/hidden_size", json!(1_usize << 29), &["weights: expected a list of 115", "got 70"]),
        (
            "lstm.nam",
            "/config/hidden_size",
            json!(0),
            &["config.hidden_size: expected a whole number from 1 on, got 0"],
        ),
        ("lstm.nam", "/config/num_layers", json!(2_000), &["config.num_layers", "from 1 to 1024", "2000"]),
        ("lstm.nam", "/config/input_size", json!(-1), &["config.input_size", "got -1"]),
        ("lstm.nam", "/config", json!([]), &["config: expected an object, got a list"]),
        ("lstm.nam", "/config", json!({}), &["config: expected a value for \"input_size\", got none"]),
        ("lstm.nam", "/weights/3", json!("0.5"), &["weights[3]: expected a finite number, got \"0.5\""]),
        ("lstm.nam", "/weights/3", json!([0.5]), &["weights[3]: expected a finite number, got a list"]),
        ("lstm.nam", "/weights/3", json!(1e300), &["weights[3]: expected a finite number, got 1e+300"]),
        ("lstm.nam", "/weights", Value::Null, &["expected a value for \"weights\", got none"]),
        ("lstm.nam", "/sample_rate", json!(-1.0), &["sample_rate: expected a number above 0, got -1.0"]),
        ("lstm.nam", "/metadata", json!(3), &["metadata: expected an object, got 3"]),
        (
            "keras_stack.json",
            "/in_shape/2",
            json!(3),
            &["layers[0].weights[0]: expected a list of 3 lists of 3 numbers, got 2 lists"],
        ),
        ("keras_stack.json", "/in_shape", json!([]), &["in_shape: expected a shape"]),
        ("keras_stack.json", "/in_shape/2", Value::Null, &["in_shape[2]: expected a whole number from 1 on, got null"]),
        ("keras_stack.json", "/layers/1/type", json!("conv1d"), &["layers[1].type", "conv1d", "not supported"]),
        ("keras_stack.json", "/layers/1/activation", json!("relu"), &["layers[1].activation", "relu", "not supported"]),
        ("keras_stack.json", "/layers/4/activation", json!("elu"), &["layers[4].activation", "elu", "not supported"]),
        ("keras_stack.json", "/layers/4/shape/2", json!(5), &["layers[4].shape", "ends with 4"]),
        ("keras_stack.json", "/layers/1/shape/2", json!(usize::MAX), &["layers[1].shape"]),
        #[cfg(target_pointer_width = "64")]
        (
            "keras_stack.json",
            "/layers/1/shape/2",
            json!(1_usize << 40),
            &["layers[1].weights[0][0]: expected a list of 4398046511104 numbers, got 16"],
        ),
        (
            "keras_stack.json",
            "/layers/1/weights/1/2",
            zeros(15),
            &["layers[1].weights[1][2]: expected a list of 16 numbers, got 15"],
        ),
        (
            "keras_stack.json",
            "/layers/2/weights/2",
            zeros(9),
            &["layers[2].weights[2][0]: expected a list of 9 numbers, got 0.0"],
        ),
        ("keras_stack.json", "/layers/2/weights", json!([]), &["layers[2].weights: expected a list of 2 weights or 3"]),
        ("keras_stack.json", "/layers/2/weights", json!([0, 0, 0, 0]), &["layers[2].weights: more than 3 elements"]),
        ("keras_stack.json", "/layers", json!([]), &["layers: expected a list with a layer that has weights"]),
        ("keras_stack.json", "/layers", json!(vec![0; 2_000]), &["layers: more than 1024 elements"]),
        ("keras_gru_skip.json", "/in_skip", json!(2), &["in_skip: expected a whole number from 0 to 1, got 2"]),
        (
            "guitarml_lstm.json",
            "/model_data/model",
            json!("GatedConvNet"),
            &["model_data.model", "GatedConvNet", "not supported"],
        ),
        (
            "guitarml_lstm.json",
            "/model_data/unit_type",
            json!("RNN"),
            &["model_data.unit_type", "RNN", "not supported"],
        ),
        (
            "guitarml_gru.json",
            "/model_data/num_layers",
            json!(1),
            &["state_dict: expected keys rec.weight_ih_l0", "_l1"],
        ),
        (
            "guitarml_gru.json",
            "/model_data/num_layers",
            json!(3),
            &["state_dict: expected a value for \"rec.weight_ih_l2\""],
        ),
        (
            "guitarml_lstm.json",
            "/state_dict/rec.bias_hh_l0",
            zeros(3),
            &["state_dict.rec.bias_hh_l0: expected a list of 20 numbers, got 3"],
        ),
    ];
    for (name, place, value, parts) in cases {
        assert_says(&fault(name, &altered(name, place, value.clone())), parts);
    }
    let path = data("keras_stack.json");
    let error = NamModel::<f32>::open(&path).unwrap_err().to_string();
    assert_says(&error, &["keras_stack.json: expected a value for \"version\", got none"]);
    assert_says(&NamModel::<f32>::open(data("absent.nam")).unwrap_err().to_string(), &["absent.nam"]);
    let twice = text("lstm.nam").replacen('{', "{\"weights\": [], ", 1);
    assert_says(&fault("lstm.nam", &twice), &["expected one value for \"weights\", got two"]);
}

#[test]
fn what_is_not_json_is_refused_by_line_and_column() {
    for (json, parts) in [
        ("", &["line 1, column 0: expected JSON", "EOF"][..]),
        ("{\"version\": \"0.5.4\",\n \"weights\": [0.5, NaN]}", &["line 2, column 19: expected JSON, got NaN"]),
        ("{\"weights\": [0.5, -Infinity]}", &["expected JSON, got Infinity"]),
        ("{\"weights\": [0.5,, 1]}", &["line 1, column 18"]),
        ("{\"version\": 1} {}", &["trailing"]),
    ] {
        for name in ["x.nam", "x.json"] {
            assert_says(&fault(name, json), parts);
        }
    }
    let error = NamModel::<f32>::read_from(&b"{\"version\": \"\xff\"}"[..]).unwrap_err().to_string();
    assert_says(&error, &["expected JSON, got bytes that are not UTF-8, from byte 13 on"]);
    // A byte order mark is accepted.
    let marked = format!("\u{feff}{}", text("lstm.nam"));
    assert_eq!(NamModel::<f32>::read_from(marked.as_bytes()).unwrap(), NamModel::open(data("lstm.nam")).unwrap());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for name in ["lstm.nam", "keras_lstm.json", "guitarml_lstm.json"] {
        let text = text(name);
        let text = text.trim_end();
        for end in 0..text.len() {
            fault(name, &text[..end]);
        }
    }
}

/// Reads a text that must be refused; returns the error and the peak memory per byte of the text.
fn memory_of(name: &str, text: &str) -> (String, f64) {
    let mut error = String::new();
    let memory = allocation_counter::measure(|| error = fault(name, text));
    (error, memory.bytes_max as f64 / text.len() as f64)
}

#[test]
fn hostile_files_take_memory_in_proportion() {
    let million = 1_000_000;
    let nam = |weights: &str| {
        let config = r#"{"input_size": 1, "hidden_size": 100000, "num_layers": 1}"#;
        format!(r#"{{"version": "0.5.4", "architecture": "LSTM", "config": {config}, "weights": {weights}}}"#)
    };
    let deep = format!("{}{}", "[".repeat(million), "]".repeat(million));
    let keras = |key: &str, value: &str| format!(r#"{{"in_shape": [1], "layers": [], "{key}": {value}}}"#);
    let layers = |value: &str| format!(r#"{{"in_shape": [1], "layers": {value}}}"#);
    let cases = [
        ("x.nam", nam(&format!("[{}0]", "0,".repeat(million)))),
        ("x.nam", nam(&deep)),
        ("x.nam", nam(&format!("[{}0]", "[],".repeat(million)))),
        ("x.nam", format!("{{{}\"version\": 3}}", "\"a\":{},".repeat(million))),
        ("x.nam", format!("{{\"{}\": 3}}", "a".repeat(million))),
        ("x.json", layers(&format!("[{}0]", "{},".repeat(million)))),
        ("x.json", layers(&deep)),
        ("x.json", keras("metadata", &format!("[{}0]", "{},".repeat(million)))),
        ("x.json", keras("input_batch", &deep)),
        ("x.json", format!(r#"{{"in_shape": [{}1]}}"#, "null,".repeat(million))),
    ];
    for (name, text) in cases {
        let (error, memory) = memory_of(name, &text);
        assert!(memory < 10.0 && error.len() < 300, "{memory:.1} bytes a byte: {error}");
    }
    let file = |metadata: &str| text("lstm.nam").replacen("\"metadata\": {", &format!("\"metadata\": {{{metadata}"), 1);
    let entries = |count: usize| (0..count).map(|i| format!("\"{i}\": {{\"\":0}}, ")).collect::<String>();
    assert_says(&fault("x.nam", &file(&entries(100_000))), &["metadata: more than 1048576 bytes"]);
    let nested = format!("\"x\": {}0{}, ", "[".repeat(200), "]".repeat(200));
    assert_says(&fault("x.nam", &file(&nested)), &["metadata: expected an object", "recursion limit"]);
    assert!(NamModel::<f32>::read_from(file(&entries(1_000)).as_bytes()).is_ok());
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let text = text("lstm.nam");
    assert!(NamModel::<f32>::read_with(text.as_bytes(), text.len()).is_ok());
    let error = NamModel::<f32>::read_with(text.as_bytes(), text.len() - 1).unwrap_err();
    assert!(matches!(error, FileError::Limit { what: "bytes", .. }), "{error}");
    // A file that never ends is refused too.
    let error = KerasJson::<f32>::read_with(std::io::repeat(b' '), 1 << 20).unwrap_err();
    assert_says(&error.to_string(), &["more than 1048576 bytes"]);
}
