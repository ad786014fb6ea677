//! State dicts: bits are kept, other programs can read the files, and every mismatch is named.

use std::path::Path;

use gradflow::io::{Checkpoint, LoadOptions, StateDict, TensorError};
use gradflow::ndarray::{Array1, Array3, ArrayD, arr1, arr2};
use gradflow::{
    Float, Layer, Tensors, TensorsExt,
    author::NamedTensors,
    clip::ClipNorm,
    compose::Stacked,
    layers::Linear,
    optim::{Optimizer, Sgd},
    recurrent::{GruCell, LstmCell},
};

use super::{Folder, bytes, model};
use crate::common::{assert_says, bits, panic_of, rng};

#[test]
fn a_model_comes_back_to_the_bit() {
    fn check<F: Float>() {
        let folder = Folder::new(std::any::type_name::<F>());
        let path = folder.path("model.safetensors");
        let (saved, mut loaded) = (model::<F>(0), model::<F>(1));
        StateDict::of(&saved).save(&path).unwrap();
        assert_ne!(bits(&loaded), bits(&saved));
        let dict = StateDict::open(&path).unwrap();
        assert_eq!(dict, StateDict::of(&saved));
        dict.load(&mut loaded).unwrap();
        assert_eq!(bits(&loaded), bits(&saved));
        let mut names = saved.names();
        names.sort();
        assert_eq!(dict.names().collect::<Vec<_>>(), names);
        assert_eq!(dict.shape("1.weight_hh"), Some(&[16, 4][..]));
        assert_eq!((dict.shape("weight"), dict.dtype("weight")), (None, None));
        assert_eq!(folder.names(), ["model.safetensors"]);
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn values_are_not_judged() {
    // Quiet and signalling NaN with payloads, infinities, both zeros, and the smallest number.
    let single = [0x7fc0_1234_u32, 0xff80_0001, 0x7f80_0000, 0xff80_0000, 0x8000_0000, 0, 1];
    let double = [0x7ff8_0000_0000_1234_u64, 0xfff0_0000_0000_0001, 0x7ff0_0000_0000_0000, 1 << 63, 0, 1];
    let (single, double) = (single.map(f32::from_bits).to_vec(), double.map(f64::from_bits).to_vec());
    fn check<F: Float>(values: Vec<F>) {
        let saved = Array1::from_vec(values);
        let mut loaded = Array1::from_elem(saved.len(), F::of(7.0));
        let file = bytes(|file| StateDict::new().with_tensors("x", &saved).save_to(file));
        let dict = StateDict::read_from(&file[..]).unwrap();
        dict.load_with(&LoadOptions::new().prefix("x"), &mut loaded).unwrap();
        assert_eq!(bits(&loaded), bits(&saved));
    }
    check(single);
    check(double);
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let checkpoint = |keys: &[&str]| {
        let checkpoint = Checkpoint::new().with_tensors("model", &model::<f32>(0));
        keys.iter().fold(checkpoint, |checkpoint, &key| checkpoint.with_metadata(key, "x").with_number(key, 1))
    };
    let (one, other) = (checkpoint(&["a", "b", "c", "d"]), checkpoint(&["c", "a", "d", "b"]));
    assert_eq!(one, other);
    assert_eq!(bytes(|file| one.save_to(file)), bytes(|file| other.save_to(file)));
    assert_ne!(one, checkpoint(&["a", "b", "c"]));
    // One different bit in one value, the sign of a zero, makes another dict.
    assert_ne!(StateDict::of(&arr1(&[0.0])), StateDict::of(&arr1(&[-0.0])));
}

#[test]
fn the_reference_implementation_reads_what_is_written() {
    let tricky = "\"quoted\" \\ \u{1}\n\t/ ü 漢 \u{1f600} ':{}[],";
    let dict = StateDict::of(&model::<f32>(0))
        .with_tensors("double", &arr2(&[[1.0_f64, 2.0]]))
        .with_renamed(&Array1::from_vec(Vec::<f32>::new()), |_| tricky.into())
        .with_tensors("scalar", &ArrayD::from_elem(vec![], 1.5_f32))
        .with_metadata(tricky, tricky)
        .with_metadata("", "");
    let file = bytes(|file| dict.save_to(file));
    let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    assert_eq!((metadata[tricky].as_str(), metadata[""].as_str(), metadata.len()), (tricky, "", 2));
    assert_eq!(header.tensors().len(), dict.names().count());
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.tensor("double").unwrap().data(), [1.0_f64.to_le_bytes(), 2.0_f64.to_le_bytes()].as_flattened());
    assert_eq!(tensors.tensor("double").unwrap().shape(), [1, 2]);
    assert_eq!(tensors.tensor("scalar").unwrap().data(), 1.5_f32.to_le_bytes());
    assert_eq!(tensors.tensor(tricky).unwrap().shape(), [0]);
    // The data is aligned, so that a file in memory can be used in place.
    for name in header.tensors().into_values() {
        assert_eq!(name.data_offsets.0 % (name.dtype.bitsize() / 8), 0);
    }
    assert_eq!(u64::from_le_bytes(file[..8].try_into().unwrap()) % 8, 0);
    assert_eq!(StateDict::read_from(&file[..]).unwrap(), dict);
    let empty = bytes(|file| StateDict::new().save_to(file));
    assert_eq!(StateDict::read_from(&empty[..]).unwrap(), StateDict::new());
}

/// A dict of which no tensor fits a `Linear<f64>` of 3 to 2.
fn misfit() -> StateDict {
    let other_type = |name: &str| NamedTensors::new([(name.to_owned(), vec![2], vec![0.5_f32, 0.25])]);
    StateDict::new()
        .with_tensors("model", &NamedTensors::new([("weight".to_owned(), vec![3, 2], vec![1.0_f64; 6])]))
        .with_tensors("model", &other_type("bias"))
        .with_tensors("model", &other_type("more"))
        .with_tensors("modelling", &other_type("else"))
}

#[test]
fn everything_that_does_not_fit_is_named_in_one_error() {
    let before = (Linear::<f64>::new(3, 2, &mut rng(0)), GruCell::new(2, 1, &mut rng(1)));
    let mut model = before.clone();
    let rename = |name: &str| name.strip_prefix("0.").unwrap_or(name).to_owned();
    let options = || LoadOptions::new().prefix("model").rename(rename);
    let error = misfit().load_with(&options(), &mut model).unwrap_err();
    assert_eq!(error.missing, ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|name| format!("model.1.{name}")));
    assert_eq!(error.unexpected, ["model.more"]);
    assert_eq!(
        error.to_string(),
        "the file does not fit the model\n  \
         missing in the file: model.1.weight_ih, model.1.weight_hh, model.1.bias_ih, model.1.bias_hh\n  \
         unexpected in the file: model.more\n  \
         model.weight: expected shape [2, 3], found [3, 2]\n  \
         model.bias: expected type F64, found F32"
    );
    assert_eq!(bits(&model), bits(&before));

    // Lenient or not, another shape or type is an error, and neither error hides the other.
    let error = misfit().load_with(&options().lenient(), &mut model).unwrap_err();
    assert_eq!((error.missing.len(), error.unexpected.len()), (0, 0));
    assert_eq!((&*error.shapes[0].name, &*error.types[0].name), ("model.weight", "model.bias"));
    let error = misfit().load_with(&options().lenient().convert(), &mut model).unwrap_err();
    assert_eq!((error.shapes.len(), error.types.len()), (1, 0));
    assert_eq!(bits(&model), bits(&before));
    let wrong_in_both = LoadOptions::new().prefix("model").rename(|_| "bias".into());
    let error = misfit().load_with(&wrong_in_both, &mut arr2(&[[0.0_f64]])).unwrap_err();
    assert_eq!((error.shapes.len(), error.types.len(), error.unexpected.len()), (1, 1, 2));
}

#[test]
fn lenient_loading_reports_what_it_passes_over() {
    let before = (Linear::<f64>::new(3, 2, &mut rng(0)), Linear::new(2, 2, &mut rng(1)));
    let mut model = before.clone();
    let file =
        StateDict::new().with_tensors("1", &Linear::<f64>::new(2, 2, &mut rng(2))).with_tensors("x", &arr1(&[0.0]));
    let skipped = file.load_with(&LoadOptions::new().lenient(), &mut model).unwrap();
    assert_eq!((skipped.missing, skipped.unexpected), (vec!["0.weight".into(), "0.bias".into()], vec!["x".into()]));
    assert_eq!(bits(&model.0), bits(&before.0));
    assert_eq!(bits(&model.1), bits(&Linear::<f64>::new(2, 2, &mut rng(2))));
}

#[test]
fn types_are_converted_only_when_asked() {
    let (single, double) = (model::<f32>(0), model::<f64>(0));
    let (from_single, from_double) = (StateDict::of(&single), StateDict::of(&double));
    let (mut to_single, mut to_double) = (model::<f32>(1), model::<f64>(1));
    let error = from_double.load(&mut to_single).unwrap_err();
    assert_eq!(error.types.len(), single.count());
    assert_says(&error.to_string(), &["1.weight_ih: expected type F32, found F64"]);
    assert_eq!(from_single.load(&mut to_double).unwrap_err().types.len(), single.count());
    assert_eq!((bits(&to_single), bits(&to_double)), (bits(&model::<f32>(1)), bits(&model::<f64>(1))));

    let convert = LoadOptions::new().convert();
    from_double.load_with(&convert, &mut to_single).unwrap();
    from_single.load_with(&convert, &mut to_double).unwrap();
    for i in 0..single.count() {
        let rounded: Vec<f32> = double.values(i).iter().map(|&value| value as f32).collect();
        let widened: Vec<f64> = single.values(i).iter().map(|&value| f64::from(value)).collect();
        assert_eq!((to_single.values(i), to_double.values(i)), (&rounded[..], &widened[..]));
    }
    assert_ne!(bits(&to_double), bits(&double), "f32 has lost nothing");
    // A tensor of the right type already is loaded unchanged.
    from_double.load_with(&convert, &mut to_double).unwrap();
    assert_eq!(bits(&to_double), bits(&double));
}

#[test]
fn names_that_cannot_be_kept_apart_are_refused_when_saving() {
    let cell = LstmCell::<f32>::new(3, 4, &mut rng(0));
    let message = panic_of(|| StateDict::new().with_renamed(&cell, |_| "same".into()));
    assert_says(&message, &["StateDict: same", "got two"]);
    assert_says(&panic_of(|| StateDict::new().with_tensors("__metadata__", &arr1(&[0.0]))), &["__metadata__"]);
    for section in ["", "a.b", "optimizer"] {
        assert_says(&panic_of(|| Checkpoint::new().with_tensors(section, &cell)), &["Checkpoint: section", section]);
    }
    let twice = || Checkpoint::new().with_optimizer(&Sgd::<f32>::new(0.1)).with_optimizer(&Sgd::<f32>::new(0.1));
    assert_says(&panic_of(twice), &["one optimizer, got two"]);
    assert_says(&panic_of(|| Checkpoint::new().with_metadata("gradflow.format", "2")), &["outside gradflow."]);
}

#[test]
fn a_file_of_pytorch_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/data/torch_lstm.safetensors");
    let dict = StateDict::open(path).unwrap();
    assert_eq!(dict.metadata()["format"], "pt");
    let rng = &mut rng(0);
    let mut lstm = Stacked::new(vec![LstmCell::<f32>::new(3, 4, rng), LstmCell::new(4, 4, rng)]);
    let mut head = Linear::<f32>::new(4, 2, rng);
    let layers = |name: &str| name.split_once('.').map(|(k, name)| format!("{name}_l{k}")).unwrap();
    dict.load_with(&LoadOptions::new().prefix("encoder.lstm.").rename(layers), &mut lstm).unwrap();
    dict.load_with(&LoadOptions::new().prefix("head"), &mut head).unwrap();
    let (mut x, mut expected) = (Array3::zeros((5, 2, 3)), Array3::<f32>::zeros((5, 2, 2)));
    dict.load_with(&LoadOptions::new().prefix("example.x"), &mut x).unwrap();
    dict.load_with(&LoadOptions::new().prefix("example.y"), &mut expected).unwrap();
    let net = (lstm, head);
    let y = net.forward(&x, &mut net.zero_state(2), &mut net.cache()).to_owned();
    let error = (&y - &expected).iter().fold(0.0_f32, |largest, error| largest.max(error.abs()));
    assert!(error < 1e-6, "{error}");

    // One cell from one of two layers: the tensors of the other layer are in the file and have no use.
    let mut cell = LstmCell::<f32>::new(3, 4, rng);
    let first = LoadOptions::new().prefix("encoder.lstm").rename(|name| format!("{name}_l0"));
    let error = dict.load_with(&first, &mut cell).unwrap_err();
    assert_eq!(
        error.unexpected,
        ["bias_hh", "bias_ih", "weight_hh", "weight_ih"].map(|n| format!("encoder.lstm.{n}_l1"))
    );
    assert_eq!((error.missing.len(), error.shapes.len(), error.types.len()), (0, 0, 0));
    assert_ne!(cell.weight_hh, net.0.layers()[0].weight_hh);
    let skipped = dict.load_with(&first.lenient(), &mut cell).unwrap();
    assert_eq!(skipped.unexpected, error.unexpected);
    assert_eq!(cell.weight_hh, net.0.layers()[0].weight_hh);

    // An integer is no parameter, and it can be saved again.
    let error = dict.load_with(&LoadOptions::new().prefix("batches").convert(), &mut ArrayD::<f32>::zeros(vec![]));
    assert_eq!(
        error.unwrap_err().to_string(),
        "the file does not fit the model\n  batches: expected type F32, found I64"
    );
    assert_eq!(StateDict::read_from(&bytes(|file| dict.save_to(file))[..]).unwrap(), dict);
}

#[test]
fn lenient_loading_that_loads_nothing_is_an_error() {
    let file = StateDict::new().with_tensors("encoder", &Linear::<f64>::new(3, 2, &mut rng(0)));
    let before = Linear::<f64>::new(3, 2, &mut rng(1));
    let mut model = before.clone();
    let error = file.load_with(&LoadOptions::new().lenient(), &mut model).unwrap_err();
    assert_eq!((error.missing.len(), error.unexpected.len()), (2, 2));
    assert_says(&error.to_string(), &["weight", r#"the file has encoder.weight: `LoadOptions::prefix("encoder")`"#]);
    assert_eq!(bits(&model), bits(&before));
    // One tensor is enough; a model without tensors needs none.
    let error = StateDict::new().load_with(&LoadOptions::new().lenient(), &mut model).unwrap_err();
    assert_eq!(error.missing, ["weight", "bias"]);
    let skipped = file.load_with::<f64>(&LoadOptions::new().lenient(), &mut ()).unwrap();
    assert_eq!(skipped.unexpected, ["encoder.bias", "encoder.weight"]);
    let bias = StateDict::new().with_tensors("bias", &arr1(&[1.0, 2.0]));
    assert_eq!(bias.load_with(&LoadOptions::new().lenient(), &mut model).unwrap().missing, ["weight"]);
    assert_eq!(model.bias, Some(arr1(&[1.0, 2.0])));
}

#[test]
fn a_forgotten_prefix_is_said_and_so_is_one_too_many() {
    let linear = |output| Linear::<f32>::new(3, output, &mut rng(0));
    let file = StateDict::new()
        .with_tensors("encoder.0", &linear(2))
        .with_tensors("head", &linear(4))
        .with_tensors("tail", &linear(2));
    let prefixes = |options: LoadOptions<'_>, model: &mut dyn Tensors<f32>| {
        let error = file.load_with(&options, model).unwrap_err();
        let told = error.elsewhere.iter().all(|there| error.to_string().contains(&format!("{:?}", there.prefix)));
        assert!(told, "{error}");
        error.elsewhere.into_iter().map(|there| (there.prefix, there.name)).collect::<Vec<_>>()
    };
    let at = |prefix: &str, name: &str| (prefix.to_owned(), name.to_owned());
    // Only prefixes under which all tensors of the model exist, with their shapes.
    assert_eq!(prefixes(LoadOptions::new(), &mut linear(4)), [at("head", "head.weight")]);
    let both = [at("encoder.0", "encoder.0.weight"), at("tail", "tail.weight")];
    assert_eq!(prefixes(LoadOptions::new(), &mut linear(2)), both);
    assert_eq!(prefixes(LoadOptions::new().prefix("model"), &mut linear(2)), both);
    assert_eq!(prefixes(LoadOptions::new(), &mut linear(7)), []);
    assert_eq!(prefixes(LoadOptions::new(), &mut vec![linear(2)]), [at("encoder", "encoder.0.weight")]);
    let renamed = LoadOptions::new().rename(|name| name.replace("gain", "weight"));
    let mut gain = NamedTensors::<f32>::new([("gain".to_owned(), vec![4, 3], vec![0.0; 12])]);
    assert_eq!(prefixes(renamed, &mut gain), [at("head", "head.weight")]);
    assert_eq!(prefixes(LoadOptions::new(), &mut arr1(&[0.0; 4])), [at("head.bias", "head.bias")]);
    let alone = StateDict::of(&linear(2)).load_with(&LoadOptions::new().prefix("model."), &mut linear(2)).unwrap_err();
    assert_says(&alone.to_string(), &[r#"the file has weight: `LoadOptions::prefix("")`"#]);
}

#[test]
fn one_tensor_is_read_by_its_name() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/data/torch_lstm.safetensors");
    let dict = StateDict::open(path).unwrap();
    let weight = dict.tensor::<f32>("head.weight").unwrap();
    assert_eq!(weight.shape(), [2, 4]);
    assert_eq!(weight, {
        // the same as when loaded into a model
        let mut head = Linear::<f32>::zeros(4, 2);
        dict.load_with(&LoadOptions::new().prefix("head"), &mut head).unwrap();
        head.weight.into_dyn()
    });
    let says = |error: TensorError, text: &str| assert_eq!(error.to_string(), text);
    says(dict.tensor::<f64>("head.weight").unwrap_err(), "head.weight: expected type F64, found F32");
    says(dict.tensor::<f32>("head").unwrap_err(), "the file has no tensor head; it has head.bias, head.weight");
    says(dict.tensor::<f32>("nothing").unwrap_err(), "the file has no tensor nothing");
    says(dict.tensor::<f32>("batches").unwrap_err(), "batches: expected type F32, found I64");
    says(dict.indices("head.bias").unwrap_err(), "head.bias: expected type I8 to I64 or U8 to U64, found F32");
    assert_eq!(dict.indices("batches").unwrap().ndim(), 0);
}

#[test]
fn indices_of_every_integer_type_are_read() {
    fn file(dtype: &str, data: &[u8], count: usize) -> StateDict {
        let end = data.len();
        let header = format!(r#"{{"ids":{{"dtype":"{dtype}","shape":[1,{count}],"data_offsets":[0,{end}]}}}}"#);
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
        StateDict::read_from(&file[..]).unwrap()
    }
    macro_rules! check {
        ($($dtype:literal: $type:ty;)+) => {$({
            let largest = <$type>::MAX;
            let values: [$type; 3] = [0, 7, if usize::try_from(largest).is_ok() { largest } else { 9 }];
            let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let read = file($dtype, &data, 3).indices("ids").unwrap();
            assert_eq!(read, arr2(&[values.map(|value| value as usize)]).into_dyn(), $dtype);
            for value in [largest, <$type>::MIN, largest.wrapping_add(1), 0_i8.wrapping_sub(1) as $type] {
                if usize::try_from(value).is_err() {
                    let error = file($dtype, &value.to_le_bytes(), 1).indices("ids").unwrap_err();
                    assert_eq!(error, TensorError::Value { name: "ids".into(), value: value.into() });
                }
            }
        })+};
    }
    check! { "I8": i8; "I16": i16; "I32": i32; "I64": i64; "U8": u8; "U16": u16; "U32": u32; }
    #[cfg(target_pointer_width = "64")]
    assert_eq!(file("U64", &u64::MAX.to_le_bytes(), 1).indices("ids").unwrap()[[0, 0]], usize::MAX);
}

/// A list of tensors implemented by hand, in safe code, whose shapes and values do not agree.
#[derive(Clone)]
struct Liar {
    shape: Vec<usize>,
    values: Vec<f32>,
    /// The values that it returns for writing.
    written: Vec<f32>,
}

impl Tensors<f32> for Liar {
    fn count(&self) -> usize {
        1
    }
    fn name(&self, _: usize) -> String {
        "liar".into()
    }
    fn tensor(&self, _: usize) -> (&[usize], &[f32]) {
        (&self.shape, &self.values)
    }
    fn tensor_mut(&mut self, _: usize) -> &mut [f32] {
        &mut self.written
    }
}

#[test]
fn tensors_that_lie_about_their_shape_are_neither_saved_nor_loaded() {
    let liar = |shape: &[usize], values: usize, written: usize| Liar {
        shape: shape.to_vec(),
        values: vec![1.0; values],
        written: vec![2.0; written],
    };
    // The product of these wraps to 0.
    let wrapping = [1 << (usize::BITS - 1), 4];
    let lies = [(&[2, 3][..], 5), (&[2, 3], 7), (&[], 0), (&[], 2), (&[0], 1), (&[usize::MAX, 2], 6), (&wrapping, 0)];
    for (shape, values) in lies {
        let said = ["liar: expected".to_owned(), format!("{shape:?}, got {values}")];
        for message in [
            panic_of(|| StateDict::of(&liar(shape, values, values))),
            panic_of(|| Checkpoint::new().with_tensors("model", &liar(shape, values, values))),
            panic_of(|| Sgd::new(0.1).load_state(&liar(shape, values, values), &Sgd::<f32>::new(0.1).state())),
        ] {
            assert_says(&message, &[&said[0], &said[1]]);
        }
        let file = StateDict::new().with_tensors("liar", &arr1(&[0.0_f32; 6]));
        assert_says(&panic_of(|| file.load(&mut liar(shape, values, values))), &[&said[0], &said[1]]);
    }
    let file = StateDict::of(&liar(&[2, 3], 6, 6));
    let (mut short, mut long) = (liar(&[2, 3], 6, 5), liar(&[2, 3], 6, 7));
    assert_says(&panic_of(|| file.load(&mut short)), &["liar: expected 6 values for [2, 3], got 5"]);
    assert_says(&panic_of(|| file.load(&mut long)), &["liar: expected 6 values for [2, 3], got 7"]);
    assert_eq!((short.written, long.written), (vec![2.0; 5], vec![2.0; 7]));
}

#[test]
fn tensors_without_a_name_are_called_so() {
    let error = StateDict::of(&arr1(&[1.0_f32])).load(&mut arr1(&[1.0_f64, 2.0])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the file does not fit the model\n  \
         (unnamed): expected shape [2], found [1]\n  \
         (unnamed): expected type F64, found F32"
    );
    let error = StateDict::new().load(&mut arr1(&[1.0_f32])).unwrap_err();
    assert_says(&error.to_string(), &["missing in the file: (unnamed)"]);
    let twice = || StateDict::of(&arr1(&[1.0_f32])).with_tensors("", &arr1(&[1.0_f32]));
    assert_says(&panic_of(twice), &["StateDict: (unnamed): expected one tensor"]);
    let mut sgd = Sgd::new(0.1);
    let message = panic_of(|| sgd.step(&mut arr1(&[1.0]), &arr1(&[1.0, 2.0])));
    assert_eq!(message, "Sgd: (unnamed): expected [1], got [2]");
    sgd.step(&mut arr1(&[1.0]), &arr1(&[1.0]));
    let message = panic_of(|| sgd.step(&mut arr1(&[1.0, 2.0]), &arr1(&[1.0, 2.0])));
    assert_eq!(message, "Sgd: (unnamed): expected [1], got [2]");
    let error = ClipNorm::new(1.0).clip(&mut arr1(&[f64::NAN])).unwrap_err();
    assert_eq!(error.to_string(), "the gradient is not finite (norm NaN), first in (unnamed)");
}
