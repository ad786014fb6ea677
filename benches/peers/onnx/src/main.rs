//! Runs gradflow's ONNX files in tract and rten, and compares `y` with gradflow's.
//!
//! ```sh
//! GRADFLOW_ONNX=/tmp/files cargo test --features onnx --test onnx written
//! cargo run --release --manifest-path benches/peers/Cargo.toml -p onnx-peers -- /tmp/files
//! ```
//!
//! If an engine refuses a file, its reason is in the last table. If it gives other numbers, the program fails, unless the engine is
//! known to leave out what the file asks for.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use rten_tensor::{AsView, Layout};
use safetensors::{Dtype, SafeTensors};
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, Tensor, tract_ndarray::ArrayD,
};

/// The largest difference: absolute for numbers below 1, relative for larger ones.
const TOLERANCE: f32 = 1e-5;

/// Whether a file asks for something that an engine reads but does not do. In tract 0.23 this is `direction="reverse"`,
/// `input_forget=1` and the `activations` of `RNN`; in rten 0.27 `sequence_lens`, which shows in reverse directions.
fn is_left_out(engine: &str, name: &str) -> bool {
    let is_one_of = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    match engine {
        "tract" => is_one_of(&["bidirectional", "deep_mixture", "coupled", "rnn_cell_relu"]),
        _ => {
            let has_lengths = is_one_of(&["-lengths", "-all"]);
            has_lengths && is_one_of(&["bidirectional", "_both", "boxed", "classifier", "tagger"])
        }
    }
}

/// An input.
enum Input {
    Floats(Vec<usize>, Vec<f32>),
    Integers(Vec<usize>, Vec<i64>, Dtype),
}

type Inputs = BTreeMap<String, Input>;

/// The shape and the values of `y`.
type Output = (Vec<usize>, Vec<f32>);

type Outcome = Result<Output, Box<dyn Error>>;

type Engine = fn(&Path, &Inputs) -> Outcome;

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Inputs by name, and the expected `y`.
fn tensors(path: &Path) -> Result<(Inputs, Output), Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let (mut inputs, mut shape, mut y) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (name, tensor) in file.tensors() {
        let sizes = tensor.shape().to_vec();
        match tensor.dtype() {
            Dtype::F32 if name == "y" => (shape, y) = (sizes, floats(tensor.data())),
            Dtype::F32 if name.starts_with("next") => {}
            Dtype::F32 => drop(inputs.insert(name, Input::Floats(sizes, floats(tensor.data())))),
            dtype => {
                let size = if dtype == Dtype::I64 { 8 } else { 4 };
                let value = |element: &[u8]| {
                    let mut bits = [0; 8];
                    bits[..size].copy_from_slice(element);
                    i64::from_le_bytes(bits)
                };
                let values = tensor.data().chunks_exact(size).map(value).collect();
                inputs.insert(name, Input::Integers(sizes, values, dtype));
            }
        }
    }
    Ok((inputs, (shape, y)))
}

fn in_tract(path: &Path, inputs: &Inputs) -> Outcome {
    let mut model = tract_onnx::onnx().model_for_path(path)?;
    let mut values: Vec<TValue> = Vec::new();
    for k in 0..model.inputs.len() {
        let name = model.node(model.inputs[k].node).name.clone();
        let tensor: Tensor = match inputs.get(&name).ok_or_else(|| format!("an input {name}"))? {
            Input::Floats(shape, values) => ArrayD::from_shape_vec(&shape[..], values.clone())?.into(),
            Input::Integers(shape, values, Dtype::I64) => ArrayD::from_shape_vec(&shape[..], values.clone())?.into(),
            Input::Integers(shape, values, _) => {
                ArrayD::from_shape_vec(&shape[..], values.iter().map(|&value| value as i32).collect())?.into()
            }
        };
        let fact = tract_onnx::prelude::InferenceFact::dt_shape(tensor.datum_type(), tensor.shape());
        model.set_input_fact(k, fact)?;
        values.push(tensor.into_tvalue());
    }
    let outputs = model.into_optimized()?.into_runnable()?.run(values.into_iter().collect())?;
    let y = outputs[0].to_plain_array_view::<f32>()?;
    Ok((y.shape().to_vec(), y.iter().copied().collect()))
}

fn in_rten(path: &Path, inputs: &Inputs) -> Outcome {
    let model = rten::Model::load_file(path)?;
    let mut values: Vec<(rten::NodeId, rten::ValueOrView<'_>)> = Vec::new();
    for (name, input) in inputs {
        let value: rten::Value = match input {
            Input::Floats(shape, values) => rten_tensor::Tensor::from_data(shape, values.clone()).into(),
            // rten has only integers of 32 bits.
            Input::Integers(shape, values, _) => {
                rten_tensor::Tensor::from_data(shape, values.iter().map(|&value| value as i32).collect::<Vec<_>>())
                    .into()
            }
        };
        values.push((model.node_id(name)?, value.into()));
    }
    let outputs = model.run(values, &[model.node_id("y")?], None)?;
    let y: rten_tensor::Tensor<f32> = outputs.into_iter().next().ok_or("no output")?.try_into()?;
    Ok((y.shape().to_vec(), y.to_vec()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("expected the folder of the files")?;
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "onnx"));
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("f32-")));
    paths.sort();
    let engines: [(&str, Engine); 2] = [("tract", in_tract), ("rten", in_rten)];
    let mut wrong = 0;
    for (engine, run) in engines {
        let mut left_out = 0;
        let (mut ran, mut largest, mut refused) = (0, 0.0_f32, BTreeMap::<String, Vec<String>>::new());
        for path in &paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let (inputs, (shape, want)) = tensors(&path.with_extension("safetensors"))?;
            match std::panic::catch_unwind(|| run(path, &inputs)) {
                Ok(Ok((got_shape, got))) => {
                    let distance = |(got, want): (&f32, &f32)| (got - want).abs() / want.abs().max(1.0);
                    let error = got.iter().zip(&want).map(distance).fold(0.0, f32::max);
                    if error > TOLERANCE && is_left_out(engine, &name) {
                        left_out += 1;
                    } else if got_shape != shape || error.is_nan() || error > TOLERANCE {
                        println!("{engine}: {name}: {got_shape:?} for {shape:?}, {error:.1e} away");
                        wrong += 1;
                    } else {
                        ran += 1;
                        largest = largest.max(error);
                    }
                }
                Ok(Err(error)) => {
                    // Without names and numbers of nodes.
                    let text = error.to_string();
                    let words = text.lines().next().unwrap_or_default().split_whitespace().take(24);
                    let words = words.filter(|word| !word.contains(['"', '#', '`']) && !word.contains("0."));
                    let reason = words.collect::<Vec<_>>().join(" ");
                    refused.entry(reason).or_default().push(name);
                }
                Err(_) => refused.entry("a panic".into()).or_default().push(name),
            }
        }
        println!(
            "{engine}: {ran} of {} files agree, at most {largest:.1e} away; {left_out} ask for what is left out",
            paths.len()
        );
        for (reason, names) in refused {
            println!("  refused: {} files, as {}: {reason}", names.len(), names[0]);
        }
    }
    if wrong > 0 { Err(format!("{wrong} files give other numbers").into()) } else { Ok(()) }
}
