//! Models saved by Keras compute here what they compute in Keras, and models that would not are refused.
//!
//! `tests/files/data/keras_files.py` wrote the files.

use std::fs;
use std::path::{Path, PathBuf};

use gradflow::convert::{KerasFile, KerasKind};
use gradflow::io::{LoadOptions, StateDict};
use gradflow::layers::{Activation, Embedding, LayerNorm, Linear};
use gradflow::ndarray::{Array2, Array3, ArrayD, ArrayView3};
use gradflow::recurrent::{BiLstm, Gru, Lstm, Nonlinearity, Rnn};
use gradflow::wrap::{Bidirectional, Merge};
use gradflow::{Float, Layer, Sequence};

use crate::common::assert_says;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/data/keras").join(name)
}

fn open(name: &str) -> KerasFile {
    KerasFile::open(path(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// The content and the outputs beside a file, with time first.
fn example<F: Float>(name: &str) -> (StateDict, Array3<F>) {
    let dict = StateDict::open(path(&format!("{name}.safetensors"))).unwrap();
    let mut y = ArrayD::zeros(dict.shape("y").unwrap());
    dict.load_with(&LoadOptions::new().prefix("y").convert(), &mut y).unwrap();
    let y: Array3<F> = y.into_dimensionality().unwrap();
    (dict, y.permuted_axes([1, 0, 2]).as_standard_layout().into_owned())
}

fn ids(dict: &StateDict) -> Array2<usize> {
    dict.indices("x").unwrap().into_dimensionality::<gradflow::ndarray::Ix2>().unwrap().t().to_owned()
}

#[track_caller]
fn assert_near<F: Float>(got: ArrayView3<'_, F>, want: &Array3<F>) {
    assert_eq!(got.dim(), want.dim());
    let largest = got.iter().zip(want).map(|(a, b)| (a.widen() - b.widen()).abs()).fold(0.0, f64::max);
    println!("largest difference {largest:.1e}");
    assert!(largest < 2e-6 && want.iter().any(|y| y.widen().abs() > 0.1), "{largest}");
}

/// The layers of `tagger.keras` without Dropout.
type Tagger<F> = (
    (Embedding<F>, BiLstm<F>, LayerNorm<F>, Gru<F>, Gru<F>),
    (Rnn<F>, Linear<F>, LayerNorm<F>, Linear<F>, Activation<F>),
);

/// The model of a file. A file of weights lacks the activation and the epsilons, which the caller adds.
fn tagger<F: Float>(file: &KerasFile, gru: &str, plain: &str) -> Tagger<F> {
    let mut rnn = file.recurrent(plain).unwrap();
    rnn.kind = KerasKind::SimpleRnn { activation: Nonlinearity::Relu };
    let scaled = file.layer_norm("scaled").unwrap_or_else(|error| {
        assert_says(&error.to_string(), &["vars: expected arrays: 2, got 1"]);
        open("tagger.keras").layer_norm("scaled").unwrap()
    });
    let words = file.embedding("words").unwrap();
    let both = BiLstm::from_keras(&[file.recurrent("both").unwrap()]).unwrap();
    let norm = file.layer_norm("norm").unwrap().eps(1e-4);
    let [gru, second] = [gru, "second"].map(|name| Gru::from_keras(&[file.recurrent(name).unwrap()]).unwrap());
    let plain = Rnn::from_keras(&[rnn]).unwrap();
    let [each, head] = ["each", "head"].map(|name| file.dense(name).unwrap().linear);
    ((words, both, norm, gru, second), (plain, each, scaled, head, Activation::tanh()))
}

fn run<F: Float>(model: &impl Layer<Elem = F>, x: Sequence<'_, F>, batch: usize) -> Array3<F> {
    model.forward(x.infer(), &mut model.zero_state(batch), &mut model.cache()).to_owned()
}

#[test]
fn a_model_computes_what_it_does_in_keras() {
    let file = open("tagger.keras");
    let layers: Vec<_> = file.layers().collect();
    assert_eq!(layers[2], ("both", Some("Bidirectional")), "{file:?}");
    assert_eq!(file.dense::<f32>("head").unwrap().activation, "tanh");
    assert_eq!(
        file.recurrent::<f32>("simple_rnn").unwrap().kind,
        KerasKind::SimpleRnn { activation: Nonlinearity::Relu }
    );
    let (dict, y) = example::<f32>("tagger");
    let model = tagger::<f32>(&file, "gru", "simple_rnn");
    let ids = ids(&dict);
    assert_near(run(&model, Sequence::from(&ids), 3).view(), &y);
    // The file holds f32, which convert to f64 without loss.
    let (_, y) = example::<f64>("tagger");
    assert_near(run(&tagger::<f64>(&file, "gru", "simple_rnn"), Sequence::from(&ids), 3).view(), &y);

    // The same weights without the model; a layer is found by its name or that of its group.
    let weights = open("tagger.weights.h5");
    assert!(weights.layers().all(|(_, class)| class.is_none()));
    for gru in ["gru", "layers/gru"] {
        let same = tagger::<f32>(&weights, gru, "layers/simple_rnn");
        assert_eq!(StateDict::of(&same), StateDict::of(&model));
    }
}

#[test]
fn models_in_models_and_classes_of_models_have_their_layers_names() {
    let file = open("nested.keras");
    let lstm = |name: &str| file.recurrent(name).unwrap();
    let encoder = Lstm::<f32>::from_keras(&[lstm("encoder.first"), lstm("encoder.second")]).unwrap();
    let model = (encoder, Lstm::from_keras(&[lstm("own")]).unwrap(), file.dense("head").unwrap().linear);
    let (dict, y) = example("nested");
    let x = dict.tensor::<f32>("x").unwrap().into_dimensionality().unwrap(); // [B, T, D]
    assert_near(run(&model, Sequence::batch_first(&x), 2).view(), &y);

    let file = open("subclassed.weights.h5");
    let lstm = Lstm::<f32>::from_keras(&[file.recurrent("layers/lstm").unwrap()]).unwrap();
    let head = file.dense("head").unwrap().linear;
    let model = (file.embedding("layers/embedding").unwrap(), lstm, head);
    let (dict, y) = example("subclassed");
    assert_near(run(&model, Sequence::from(&ids(&dict)), 3).view(), &y);
}

/// All supported activations, in the layers that have them.
#[test]
fn activations_of_recurrent_layers_compute_what_they_do_in_keras() {
    fn of<F: Float>(file: &KerasFile) -> impl Layer<Elem = F> {
        let lstm = |name: &str| Lstm::<F>::from_keras(&[file.recurrent(name).unwrap()]).unwrap();
        let gru = |name: &str| Gru::<F>::from_keras(&[file.recurrent(name).unwrap()]).unwrap();
        let rnn = |name: &str| Rnn::<F>::from_keras(&[file.recurrent(name).unwrap()]).unwrap();
        let both = BiLstm::<F>::from_keras(&[file.recurrent("both").unwrap()]).unwrap();
        (
            (lstm("lstm"), gru("gru"), both, gru("leaky"), rnn("elu")),
            (lstm("gelu"), lstm("silu"), rnn("softplus"), gru("by_name"), rnn("linear")),
        )
    }
    let bytes = fs::read(path("activations.keras")).unwrap();
    let file = KerasFile::read_from(&bytes[..]).unwrap();
    let (dict, y) = example::<f32>("activations");
    let x = dict.tensor::<f32>("x").unwrap().into_dimensionality().unwrap(); // [B, T, D]
    assert_near(run(&of::<f32>(&file), Sequence::batch_first(&x), 2).view(), &y);

    let kind = |file: &KerasFile, name: &str| file.recurrent::<f32>(name).unwrap().kind;
    let hard = |recurrent_activation| KerasKind::Lstm { activation: Nonlinearity::Tanh, recurrent_activation };
    assert_eq!(kind(&file, "lstm"), hard(Nonlinearity::HARD_SIGMOID));
    let leaky = Nonlinearity::LeakyRelu { slope: 0.3 };
    let (reset_after, recurrent_activation) = (false, Nonlinearity::HARD_SIGMOID);
    assert_eq!(kind(&file, "leaky"), KerasKind::Gru { reset_after, activation: leaky, recurrent_activation });
    assert_eq!(kind(&file, "linear"), KerasKind::SimpleRnn { activation: Nonlinearity::Identity });

    // The hard sigmoid of Keras 2 is a different one.
    let version = b"\"keras_version\": \"3.";
    let at = bytes.windows(version.len()).position(|window| window == version).unwrap() + version.len() - 2;
    let mut older = bytes.clone();
    older[at] = b'2';
    let older = KerasFile::read_from(&older[..]).unwrap();
    assert_eq!(kind(&older, "lstm"), hard(Nonlinearity::HARD_SIGMOID_ONNX));
    assert_eq!(kind(&older, "silu"), kind(&file, "silu"));
    // The version cannot be read.
    let mut broken = bytes;
    broken[at - 1] = b' ';
    assert_says(&KerasFile::read_from(&broken[..]).unwrap_err().to_string(), &["JSON"]);
}

/// All of Keras' merge modes.
#[test]
fn directions_are_merged_as_in_keras() {
    fn of<F: Float>(file: &KerasFile) -> impl Layer<Elem = F> {
        let layer = |name: &str| file.recurrent(name).unwrap();
        let merge = |name: &str| layer(name).merge;
        assert_eq!(["sum", "ave", "mul"].map(merge), [Merge::Sum, Merge::Average, Merge::Multiply]);
        let sum = Bidirectional::<Lstm<F>>::from_keras(&layer("sum")).unwrap();
        assert_eq!(sum.to_keras().unwrap(), layer("sum"));
        let ave = Bidirectional::<Gru<F>>::from_keras(&layer("ave")).unwrap();
        let mul = Bidirectional::<Rnn<F>>::from_keras(&layer("mul")).unwrap();
        (sum, ave, mul, BiLstm::<F>::from_keras(&[layer("concat")]).unwrap())
    }
    let bytes = fs::read(path("merged.keras")).unwrap();
    let file = KerasFile::read_from(&bytes[..]).unwrap();
    let (dict, y) = example::<f32>("merged");
    let x = dict.tensor::<f32>("x").unwrap().into_dimensionality().unwrap(); // [B, T, D]
    let model = of::<f32>(&file);
    assert_near(run(&model, Sequence::batch_first(&x), 2).view(), &y);
    let (dict, y) = example::<f64>("merged");
    let x = dict.tensor::<f32>("x").unwrap().mapv(f64::from).into_dimensionality().unwrap();
    assert_near(run(&of::<f64>(&file), Sequence::batch_first(&x), 2).view(), &y);

    // A `Bidirectional` layer that concatenates equals a `BiLstm`; a layer in one direction, and two outputs that stay separate,
    // are refused.
    let concat = file.recurrent("concat").unwrap();
    let (one, other) =
        (Bidirectional::<Lstm<f32>>::from_keras(&concat).unwrap(), BiLstm::from_keras(&[concat]).unwrap());
    let x = Array3::from_shape_fn((4, 2, 3), |(t, b, k)| (t as f32 - b as f32 + 0.3 * k as f32).sin());
    assert_eq!(run(&one, Sequence::from(&x), 2), run(&other, Sequence::from(&x), 2));
    let single = open("tagger.keras").recurrent::<f32>("gru").unwrap();
    let error = Bidirectional::<Gru<f32>>::from_keras(&single).unwrap_err().to_string();
    assert_says(&error, &["layer 0: expected directions: 2, got 1"]);
    let error = Bidirectional::<Lstm<f32>>::from_keras(&file.recurrent("ave").unwrap()).unwrap_err().to_string();
    assert_says(&error, &["layer 0: expected LSTM, got GRU"]);
    let deep = || Lstm::<f32>::builder(3, 4).num_layers(2).zeros();
    let error = Bidirectional::new(deep(), deep()).to_keras().unwrap_err().to_string();
    assert_says(&error, &["a direction of several layers"]);
    let mode = br#""merge_mode": "mul""#;
    let at = bytes.windows(mode.len()).position(|window| window == mode).unwrap() + mode.len() - 5;
    for (other, got) in [(b"null ", "got null"), (b"\"max\"", r#"got "max""#)] {
        let mut apart = bytes.clone();
        apart[at..at + 5].copy_from_slice(other);
        let error = KerasFile::read_from(&apart[..]).unwrap().recurrent::<f32>("mul").unwrap_err().to_string();
        assert_says(&error, &[r#"merge_mode: expected "concat" or "sum" or "ave" or "mul""#, got]);
    }
}

#[test]
fn half_precision_is_widened() {
    let head = open("half.keras").dense::<f32>("head").unwrap().linear;
    let dict = StateDict::open(path("half.safetensors")).unwrap();
    let load = |name: &str| {
        let mut array = ArrayD::<f32>::zeros(dict.shape(name).unwrap());
        dict.load_with(&LoadOptions::new().prefix(name).convert(), &mut array).unwrap();
        array.into_dimensionality::<gradflow::ndarray::Ix2>().unwrap()
    };
    let y = load("x").dot(&head.weight.t()) + head.bias.unwrap();
    assert!((y - load("y")).iter().all(|difference| difference.abs() < 4e-3));
    assert!(head.weight.iter().all(|weight| (weight * 2_f32.powi(24)).fract() == 0.0));
}

/// A layer that would compute something else in this crate is refused with its place and name.
#[test]
fn other_layers_are_refused() {
    let file = open("refused.keras");
    let recurrent = |name: &str| file.recurrent::<f32>(name).unwrap_err().to_string();
    assert_says(
        &recurrent("six"),
        &[
            "layers[1].config.recurrent_activation: expected one of linear, tanh, sigmoid, hard_sigmoid",
            r#"got "relu6""#,
        ],
    );
    assert_says(&recurrent("selu"), &["layers[2].config.activation", r#"got "selu", which is not supported"#]);
    assert_says(&recurrent("backwards"), &["go_backwards: expected false, got true"]);
    assert_says(&recurrent("prelu"), &["config.activation: expected one of ", "a LeakyReLU or an ELU, got PReLU"]);
    // PyTorch's bidirectional models concatenate.
    let error = BiLstm::from_keras(&[file.recurrent::<f32>("sum").unwrap()]).unwrap_err().to_string();
    assert_says(&error, &["layer 0: merge_mode Sum, which a `Bidirectional` layer has, has no counterpart there"]);
    assert_says(&recurrent("cells"), &["cells: expected SimpleRNN or LSTM or GRU or Bidirectional, got RNN"]);
    assert_says(&recurrent("convolution"), &["got Conv1D, which is not supported"]);
    assert_says(&recurrent("absent"), &[r#"expected one called "absent", got input_layer"#]);
    assert_says(&file.dense::<f32>("each_norm").unwrap_err().to_string(), &["expected Dense, got LayerNormalization"]);
    assert_says(&file.embedding::<f32>("six").unwrap_err().to_string(), &["expected Embedding, got LSTM"]);
    let norm = |name: &str| file.layer_norm::<f32>(name).unwrap_err().to_string();
    assert_says(&norm("over_time"), &["axis: expected -1 or [-1] or 2 or [2], got "]);
    assert_says(&norm("plain"), &["expected a scale or a center"]);

    // In a file of weights, shapes are the only information.
    let weights = open("tagger.weights.h5");
    assert_says(&weights.recurrent::<f32>("head").unwrap_err().to_string(), &["layers/dense/cell/vars"]);
    assert_says(&weights.embedding::<f32>("norm").unwrap_err().to_string(), &["expected arrays: 1, got 2"]);
    assert_says(
        &weights.dense::<f32>("norm").unwrap_err().to_string(),
        &["expected a matrix, got an array of shape [8]"],
    );
}

#[test]
fn other_files_are_refused() {
    let refused = |file: &Path| KerasFile::open(file).unwrap_err().to_string();
    assert_says(
        &refused(&path("legacy.h5")),
        &["legacy.h5: ", "expected groups of layers with their `vars`, as Keras 3 writes them"],
    );
    assert_says(&refused(&path("half.safetensors")), &["expected a file of Keras 3", "got a safetensors file"]);
    assert_says(&refused(&path("absent.keras")), &["absent.keras: "]);
    let pytorch = path("../pytorch/tensor.pt");
    assert_says(&refused(&pytorch), &["got a zip file of PyTorch"]);
    let error = StateDict::open(path("half.keras")).unwrap_err().to_string();
    assert_says(&error, &["a Keras model", "`gradflow::convert::KerasFile` reads it"]);
}

/// The number of layers that can be read as some kind of layer.
fn readable(file: &[u8]) -> usize {
    let Ok(file) = KerasFile::read_from(file) else { return 0 };
    let is_readable = |name: &str| {
        let (a, b) = (file.recurrent::<f32>(name).is_ok(), file.dense::<f32>(name).is_ok());
        let (c, d) = (file.embedding::<f32>(name).is_ok(), file.layer_norm::<f32>(name).is_ok());
        a | b | c | d
    };
    file.layers().filter(|(name, _)| is_readable(name)).count()
}

#[test]
fn damaged_files_are_refused() {
    for name in ["half.keras", "subclassed.weights.h5"] {
        let whole = fs::read(path(name)).unwrap();
        let all = readable(&whole);
        assert_eq!(all, if name == "half.keras" { 1 } else { 3 });
        for length in (0..whole.len()).step_by(13) {
            assert_eq!(readable(&whole[..length]), 0, "{name}: {length} of {}", whole.len());
        }
        let mut read = 0;
        for at in (0..whole.len()).step_by(11) {
            let mut changed = whole.clone();
            changed[at] ^= [1, 0x80, 0xff][at % 3];
            read += usize::from(readable(&changed) == all);
        }
        assert!(read > 0, "{name}: values may change");
    }
}
