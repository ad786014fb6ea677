//! State dicts of PyTorch's recurrent modules load unchanged, and are saved again as PyTorch saved them.
//!
//! `tests/files/data/torch_recurrent.py` wrote the file, and describes how PyTorch reads the file that these tests leave in
//! `target/tmp`.

use std::path::Path;

use gradflow::io::{LoadOptions, StateDict};
use gradflow::ndarray::{Array3, Axis};
use gradflow::{
    Layer, Sequence, Tensors, TensorsExt,
    recurrent::{BiLstm, BiRnn, Gru, Lstm, Nonlinearity, Rnn},
};

const LENGTHS: [usize; 4] = [4, 7, 1, 6];

fn dict() -> StateDict {
    StateDict::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/data/torch_recurrent.safetensors")).unwrap()
}

fn example(name: &str) -> Array3<f32> {
    let dict = dict();
    let shape = dict.shape(&format!("example.{name}")).unwrap();
    let mut array = Array3::zeros((shape[0], shape[1], shape[2]));
    dict.load_with(&LoadOptions::new().prefix(format!("example.{name}")), &mut array).unwrap();
    array
}

/// Loads a part of the file by its prefix, runs the example, compares, and returns the outputs.
fn load<L: Layer<Elem = f32>>(prefix: &str, model: &mut L) -> StateDict {
    dict().load_with(&LoadOptions::new().prefix(prefix), model).unwrap();
    let x = example("x");
    let sequence = Sequence::from(&x).with_lengths(&LENGTHS).unwrap().eval();
    let mut state = model.zero_state(LENGTHS.len());
    let y = model.forward(sequence, &mut state, &mut model.cache()).to_owned();

    let name = prefix.trim_end_matches('.');
    let parts: &[&str] = if state.count() == 2 { &["h", "c"] } else { &["h"] };
    let near = |got: &[f32], want: &[f32]| got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let mut largest = near(y.as_slice().unwrap(), example(&format!("{name}.y")).as_slice().unwrap());
    for (i, part) in parts.iter().enumerate() {
        let want = example(&format!("{name}.{part}"));
        assert_eq!(state.shape(i), want.shape(), "states stand in PyTorch's order");
        largest = largest.max(near(state.values(i), want.as_slice().unwrap()));
    }
    println!("{name:<14} largest difference {largest:.1e}");
    assert!(largest < 1e-6, "{name}: {largest}");

    let mut outputs = StateDict::new().with_tensors(&format!("example.{name}.y"), &y);
    for (i, part) in parts.iter().enumerate() {
        let mut values = example(&format!("{name}.{part}"));
        values.tensor_mut(0).copy_from_slice(state.values(i));
        outputs = outputs.with_tensors(&format!("example.{name}.{part}"), &values);
    }
    outputs
}

fn models() -> (BiLstm<f32>, Gru<f32>, Lstm<f32>, BiRnn<f32>) {
    (
        Lstm::builder(3, 4).num_layers(3).bidirectional().zeros(),
        Gru::builder(3, 5).num_layers(2).zeros(),
        Lstm::builder(3, 4).num_layers(2).projection(2).bias(false).zeros(),
        Rnn::builder(3, 4).nonlinearity(Nonlinearity::Relu).bidirectional().zeros(),
    )
}

/// A round trip from PyTorch and back: the same names, shapes and bits.
#[test]
fn a_state_dict_of_pytorch_loads_as_it_is_and_is_saved_as_it_was() {
    let (mut lstm, mut gru, mut projected, mut plain) = models();
    let outputs = [
        load("encoder.lstm.", &mut lstm),
        load("decoder", &mut gru),
        load("projected", &mut projected),
        load("plain", &mut plain),
    ];
    let ours = StateDict::new()
        .with_tensors("encoder.lstm.", &lstm)
        .with_tensors("decoder", &gru)
        .with_tensors("projected", &projected)
        .with_tensors("plain", &plain);
    let theirs = dict();
    let weights: Vec<_> = theirs.names().filter(|name| !name.starts_with("example.")).collect();
    assert_eq!(ours.names().collect::<Vec<_>>(), weights);
    assert_eq!(weights.len(), 24 + 8 + 6 + 8);
    for name in weights {
        assert_eq!(ours.shape(name), theirs.shape(name), "{name}");
        let bits = |dict: &StateDict| {
            let mut values = gradflow::ndarray::ArrayD::<f32>::zeros(dict.shape(name).unwrap());
            dict.load_with(&LoadOptions::new().prefix(name), &mut values).unwrap();
            values.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&ours), bits(&theirs), "{name}");
    }

    // For PyTorch to read: the weights after the round trip, and the outputs that this crate computes with them.
    let mut file = ours.with_metadata("format", "pt");
    for outputs in outputs {
        for name in outputs.names().map(str::to_owned).collect::<Vec<_>>() {
            let shape = outputs.shape(&name).unwrap();
            let mut values = Array3::<f32>::zeros((shape[0], shape[1], shape[2]));
            outputs.load_with(&LoadOptions::new().prefix(&name), &mut values).unwrap();
            file = file.with_tensors(&name, &values);
        }
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("round_trip.safetensors");
    file.save(&path).unwrap();
    let mut again = models().0;
    StateDict::open(&path).unwrap().load_with(&LoadOptions::new().prefix("encoder.lstm"), &mut again).unwrap();
    assert!((0..lstm.count()).all(|i| again.values(i) == lstm.values(i)));
}

/// A model without a prefix, and as a part of a model of several layers.
#[test]
fn a_model_alone_and_in_a_model_has_pytorchs_names() {
    let mut lstm = models().0;
    dict().load_with(&LoadOptions::new().prefix("encoder.lstm"), &mut lstm).unwrap();
    let mut file = Vec::new();
    StateDict::of(&lstm).save_to(&mut file).unwrap();
    let alone = StateDict::read_from(&file[..]).unwrap();
    assert!(alone.names().any(|name| name == "weight_ih_l2_reverse"));
    let mut loaded = models().0;
    alone.load(&mut loaded).unwrap();
    assert!((0..lstm.count()).all(|i| loaded.values(i) == lstm.values(i)));
    let in_a_model = (gradflow::layers::Identity::<f32>::new(), lstm);
    assert_eq!(in_a_model.names()[..2], ["1.weight_ih_l0", "1.weight_hh_l0"]);
}

#[test]
fn a_model_of_another_make_is_refused_by_name() {
    let refused = |model: &mut dyn Tensors<f32>| {
        let mismatch = dict().load_with(&LoadOptions::new().prefix("encoder.lstm"), model).unwrap_err();
        assert!((0..model.count()).all(|i| model.values(i).iter().all(|&value| value == 0.0)), "something was changed");
        mismatch
    };
    let deeper = refused(&mut Lstm::<f32>::builder(3, 4).num_layers(4).bidirectional().zeros());
    assert_eq!(deeper.missing.len(), 8);
    assert!(deeper.missing.contains(&"encoder.lstm.weight_hh_l3_reverse".to_owned()));
    let one_way = refused(&mut Lstm::<f32>::builder(3, 4).num_layers(3).zeros());
    assert_eq!(one_way.unexpected.len(), 12);
    assert!(!one_way.shapes.is_empty(), "later layers are given one direction's features");
    let gru = refused(&mut Gru::<f32>::builder(3, 4).num_layers(3).bidirectional().zeros());
    assert_eq!((gru.missing.len(), gru.unexpected.len(), gru.shapes.len()), (0, 0, 24));
}

/// `batch_first=True`: PyTorch's layout of the example, with the batch first, is read without a copy.
#[test]
fn a_batch_that_comes_first_is_the_same_batch() {
    let mut lstm = models().0;
    dict().load_with(&LoadOptions::new().prefix("encoder.lstm"), &mut lstm).unwrap();
    let x = example("x");
    let turned = x.view().permuted_axes([1, 0, 2]).as_standard_layout().into_owned(); // [B, T, I]
    let sequence = Sequence::batch_first(&turned);
    let seen = sequence.features("test", Some(3));
    assert_eq!(seen.as_ptr(), turned.as_ptr());
    let y = |x: Sequence<'_, f32>| {
        let x = x.with_lengths(&LENGTHS).unwrap();
        lstm.forward(x, &mut lstm.zero_state(LENGTHS.len()), &mut lstm.cache()).to_owned()
    };
    assert_eq!(y(sequence), y((&x).into()));
    // A single sequence, without an axis for the batch, is read without a copy too.
    let alone = x.index_axis(Axis(1), 1).to_owned();
    let unbatched = Sequence::unbatched(&alone);
    assert_eq!((unbatched.dims(), unbatched.features("test", Some(3)).as_ptr()), ((7, 1), alone.as_ptr()));
    let y_alone = lstm.forward(unbatched, &mut lstm.zero_state(1), &mut lstm.cache()).to_owned();
    let batch = y((&x).into());
    assert!(y_alone.iter().zip(batch.index_axis(Axis(1), 1)).all(|(a, b)| (a - b).abs() < 1e-6));
}
