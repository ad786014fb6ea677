//! Files read back into models: those of this crate, to the bit, and those of PyTorch, compared by their outputs.

use std::path::PathBuf;

use gradflow::compose::{Residual, Stacked};
use gradflow::layers::{Activation, Dropout, Embedding, FeedForward, LastStep, LayerNorm, Linear, Nonlinearity, Pool};
use gradflow::ndarray::{Array2, Array3};
use gradflow::onnx::{ExportOptions, LoadOptions, export, load_from, load_into};
use gradflow::recurrent::{BiLstm, Gru, Lstm, Rnn};
use gradflow::{Float, Layer, Sequence, TensorsExt, author::Size};
use safetensors::{Dtype, SafeTensors};

use crate::common::{Within, assert_all_near, assert_says, bits, rng};
use crate::models::{self, Visit};

/// Reads each model, written in each interface, into one with other weights.
struct RoundTrip<F> {
    count: usize,
    elem: std::marker::PhantomData<F>,
}

impl<F: Float> Visit for RoundTrip<F> {
    type Elem = F;

    fn visit<M: Layer<Elem = F>>(&mut self, name: &str, model: M, input: Size) {
        for number in 0..8 {
            let flag = |bit: usize| number & bit != 0;
            let options = ExportOptions::new().lengths(flag(1)).states(flag(2)).batch_first(flag(4));
            let file = export(&model, input, &options).unwrap();
            let mut copy = model.clone();
            for i in 0..copy.count() {
                copy.tensor_mut(i).fill(F::of(f64::NAN));
            }
            for options in [LoadOptions::new(), LoadOptions::new().by_name(str::to_owned)] {
                load_from(&mut copy, &file[..], &options).unwrap_or_else(|error| panic!("{name}, {number}: {error}"));
                assert_eq!(bits(&copy), bits(&model), "{name}, {number}");
                copy.set_zero();
            }
            self.count += 1;
        }
    }
}

#[test]
fn every_exported_model_comes_back_to_the_bit() {
    fn all<F: Float>() -> usize {
        let mut visit = RoundTrip::<F> { count: 0, elem: std::marker::PhantomData };
        models::for_each(&mut visit);
        visit.count
    }
    assert!(all::<f32>() + all::<f64>() >= 900);
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/onnx/data").join(name)
}

/// Inputs and outputs of another program, `[T, B, D]`; ids are `[T, B]`.
struct Expected<F> {
    x: Result<Array3<F>, Array2<i64>>,
    y: Array3<F>,
}

impl<F: Float> Expected<F> {
    fn open(name: &str) -> Self {
        let bytes = std::fs::read(data(&format!("{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| {
            let tensor = file.tensor(name).unwrap();
            assert_eq!(tensor.dtype(), if size_of::<F>() == 4 { Dtype::F32 } else { Dtype::F64 });
            let values = tensor.data().chunks(size_of::<F>()).map(|element| {
                let mut bits = [0; 8];
                bits[..element.len()].copy_from_slice(element);
                F::from_bits(u64::from_le_bytes(bits))
            });
            let &[steps, batch, features] = tensor.shape() else { panic!("{:?}", tensor.shape()) };
            Array3::from_shape_vec((steps, batch, features), values.collect()).unwrap()
        };
        let x = file.tensor("x").unwrap();
        let x = match x.dtype() {
            Dtype::I64 => {
                let ids = x.data().chunks(8).map(|id| i64::from_le_bytes(id.try_into().unwrap())).collect();
                Err(Array2::from_shape_vec((x.shape()[0], x.shape()[1]), ids).unwrap())
            }
            _ => Ok(floats("x")),
        };
        Expected { x, y: floats("y") }
    }

    #[track_caller]
    fn check<M: Layer<Elem = F>>(&self, model: &M, what: &str) {
        let x = match &self.x {
            Ok(features) => Sequence::from(features),
            Err(ids) => Sequence::from(ids),
        };
        let batch = self.y.dim().1;
        let y = model.forward(x.infer(), &mut model.zero_state(batch), &mut model.cache()).to_owned();
        assert_eq!(y.dim(), self.y.dim(), "{what}");
        let within = Within::either(if size_of::<F>() == 4 { 1e-5 } else { 1e-12 });
        assert_all_near(y.as_slice().unwrap(), self.y.as_slice().unwrap(), within, what);
    }
}

/// Checks that the model, loaded from each of the files, has the expected outputs.
#[track_caller]
fn reads<M: Layer>(model: M, name: &str, exporters: &[&str]) {
    let expected = Expected::open(name);
    for exporter in exporters {
        let mut model = model.clone();
        let path = data(&format!("{name}-{exporter}.onnx"));
        load_into(&mut model, &path).unwrap_or_else(|error| panic!("{error}"));
        expected.check(&model, &path.display().to_string());
    }
}

const BOTH: [&str; 2] = ["jit", "dynamo"];
const I: usize = 3;
const H: usize = 5;

#[test]
fn recurrent_models_of_pytorch_have_its_outputs() {
    let rng = &mut rng(1);
    reads((Lstm::<f32>::new(I, H, rng), Linear::new(H, 2, rng)), "lstm", &BOTH);
    reads((Lstm::<f32>::builder(I, H).num_layers(2).build(rng), Linear::new(H, 2, rng)), "lstm_two_layers", &BOTH);
    let both = Lstm::<f32>::builder(I, H).num_layers(2).bidirectional().build(rng);
    reads((both, Linear::new(2 * H, 2, rng)), "lstm_both", &BOTH);
    reads((Lstm::<f32>::builder(I, H).bias(false).build(rng), Linear::new(H, 2, rng)), "lstm_no_bias", &BOTH);
    reads(Lstm::<f32>::new(I, H, rng), "lstm_alone", &BOTH);
    // With states as inputs and outputs, which a layer in this crate always has.
    reads((Lstm::<f32>::builder(I, H).num_layers(2).build(rng), Linear::new(H, 2, rng)), "stateful", &BOTH);
    reads((Gru::<f32>::new(I, H, rng), Linear::new(H, 2, rng)), "gru", &BOTH);
    reads((Gru::<f32>::builder(I, H).num_layers(2).build(rng), Linear::new(H, 2, rng)), "gru_two_layers", &BOTH);
    let both = Gru::<f32>::builder(I, H).num_layers(2).bidirectional().build(rng);
    reads((both, Linear::new(2 * H, 2, rng)), "gru_both", &BOTH);
    // The newer exporter unrolls an `nn.RNN` over the steps of its example.
    reads((Rnn::<f32>::new(I, H, rng), Linear::new(H, 2, rng)), "rnn", &BOTH[..1]);
    reads((Rnn::<f32>::builder(I, H).num_layers(2).build(rng), Linear::new(H, 2, rng)), "rnn_two_layers", &BOTH[..1]);
    let both = Rnn::<f32>::builder(I, H).num_layers(2).bidirectional().build(rng);
    reads((both, Linear::new(2 * H, 2, rng)), "rnn_both", &BOTH[..1]);
    let relu = Rnn::<f32>::builder(I, H).nonlinearity(Nonlinearity::Relu).build(rng);
    reads((relu, Linear::new(H, 2, rng)), "rnn_relu", &BOTH[..1]);
}

#[test]
fn doubles_of_pytorch_have_its_outputs() {
    let rng = &mut rng(2);
    let both = Lstm::<f64>::builder(I, H).num_layers(2).bidirectional().build(rng);
    reads((both, Linear::new(2 * H, 2, rng)), "lstm_f64", &BOTH);
    reads((Gru::<f64>::new(I, H, rng), Linear::new(H, 2, rng)), "gru_f64", &BOTH);
    reads((Linear::<f64>::new(I, 8, rng), Activation::tanh(), Linear::new(8, 2, rng)), "rows_f64", &BOTH);
}

#[test]
fn classifiers_of_pytorch_have_its_outputs() {
    let rng = &mut rng(3);
    for name in ["classifier_output", "classifier_state"] {
        let embedding = Embedding::<f32>::new(11, 4, rng);
        reads(
            (embedding, Lstm::new(4, H, rng), LastStep::new(), LayerNorm::new(H), Linear::new(H, 3, rng)),
            name,
            &BOTH,
        );
    }
    let (lstm, norm) = (BiLstm::<f32>::new(4, H, rng), LayerNorm::new(2 * H));
    let model = (Embedding::new(11, 4, rng), lstm, LastStep::both_directions(), norm, Linear::new(2 * H, 3, rng));
    reads(model, "classifier_both", &BOTH);
}

/// Files for one sequence of six steps, whose axes of size 1 could be mistaken for others.
#[test]
fn files_of_fixed_sizes_have_its_outputs() {
    let rng = &mut rng(8);
    let both = Lstm::<f32>::builder(I, H).num_layers(2).bidirectional().build(rng);
    reads((both, Linear::new(2 * H, 2, rng)), "static_lstm", &BOTH);
    reads((Gru::<f32>::new(I, H, rng), Linear::new(H, 2, rng)), "static_gru", &BOTH);
    let (lstm, norm) = (BiLstm::<f32>::new(4, H, rng), LayerNorm::new(2 * H));
    let model = (Embedding::new(11, 4, rng), lstm, LastStep::both_directions(), norm, Linear::new(2 * H, 3, rng));
    reads(model, "static_classifier", &BOTH);
    let (embedding, lstm) = (Embedding::<f32>::new(11, 4, rng), Lstm::new(4, H, rng));
    reads((embedding, lstm, LastStep::new(), LayerNorm::new(H), Linear::new(H, 3, rng)), "static_last", &BOTH);
}

#[test]
fn feed_forward_models_of_pytorch_have_its_outputs() {
    let rng = &mut rng(4);
    let blocks = Stacked::build(2, |_| {
        Residual::new((LayerNorm::<f32>::new(4), FeedForward::new(4, 7, Nonlinearity::Gelu, rng)))
    });
    let rng = &mut crate::common::rng(5);
    let head = Linear::builder(H, 2).bias(false).build(rng);
    reads((Linear::new(I, 4, rng), blocks, Gru::new(4, H, rng), Pool::mean(), head), "blocks", &BOTH);
    let rows = (
        (Linear::<f32>::new(I, 8, rng), Activation::relu(), LayerNorm::new(8)),
        (Linear::new(8, 6, rng), Activation::silu(), Dropout::new(0.5, rng)),
        (Linear::new(6, 4, rng), Activation::leaky_relu(0.2), Linear::new(4, 3, rng), Activation::sigmoid()),
    );
    reads(rows, "rows", &BOTH);
}

const KERAS: [&str; 2] = ["tf2onnx", "export"];

#[test]
fn models_of_keras_have_its_outputs() {
    let rng = &mut rng(6);
    reads((Lstm::<f32>::new(I, H, rng), Linear::new(H, 2, rng)), "keras_lstm", &KERAS);
    let two = Lstm::<f32>::builder(I, H).num_layers(2).build(rng);
    reads((two, LastStep::new(), Linear::new(H, 2, rng)), "keras_lstm_two_layers", &KERAS);
    reads((BiLstm::<f32>::new(I, H, rng), Linear::new(2 * H, 2, rng)), "keras_lstm_both", &KERAS);
    let last = (BiLstm::<f32>::new(I, H, rng), LastStep::both_directions(), Linear::new(2 * H, 2, rng));
    reads(last, "keras_lstm_both_last", &KERAS);
    let classifier = (Embedding::<f32>::new(11, 4, rng), Lstm::new(4, H, rng), LastStep::new(), Linear::new(H, 3, rng));
    reads(classifier, "keras_classifier", &KERAS);
    let dense = (Linear::<f32>::new(I, 4, rng), LayerNorm::new(4).eps(1e-3));
    reads((dense, Lstm::new(4, H, rng), LastStep::new(), Linear::new(H, 1, rng)), "keras_norm", &KERAS);
}

/// Recurrences that are written out, instead of being one operator, are refused by their name.
#[test]
fn recurrences_that_are_written_out_are_refused() {
    let rng = &mut rng(7);
    let mut model = (Rnn::<f32>::new(I, H, rng), Linear::new(H, 2, rng));
    let error = load_into(&mut model, data("rnn-dynamo.onnx")).unwrap_err().to_string();
    assert_says(&error, &["expected RNN `0.l0.RNN` of 3 features and 5 units, got Concat `node_cat`"]);
    let mut model = (Gru::<f32>::new(I, H, rng), Linear::new(H, 2, rng), Activation::tanh());
    let error = load_into(&mut model, data("keras_gru-tf2onnx.onnx")).unwrap_err().to_string();
    assert_says(&error, &["expected GRU `0.l0.GRU` of 3 features and 5 units, got Loop"]);
}
