//! Bytes as a state dict: no panic, whatever they are, and what is read can be saved and read again, to the bit.

use gradflow::author::NamedTensors;
use gradflow::io::{LoadError, LoadOptions, ReadLimits, StateDict};
use gradflow::{Float, Tensors, TensorsExt};

pub fn run(data: &[u8]) {
    let tight = ReadLimits::new().header_bytes(200).tensors(2).axes(2).metadata_entries(1);
    let tight = StateDict::read_with(data, tight);
    match StateDict::read_from(data) {
        Ok(dict) => {
            match tight {
                Ok(tight) => assert_eq!(tight, dict),
                Err(error) => assert!(matches!(error, LoadError::Limit { .. }), "{error}"),
            }
            survives(&dict);
            loads::<f32>(&dict);
            loads::<f64>(&dict);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(tight.is_err(), "lower limits accept what higher ones refuse");
        }
    }
}

/// A saved dict can be read again, and gives the same bytes the second time.
pub fn survives(dict: &StateDict) {
    let save = |dict: &StateDict| {
        let mut file = Vec::new();
        dict.save_to(&mut file).expect("a vector takes all");
        file
    };
    let file = save(dict);
    let again = StateDict::read_from(&file[..]).expect("what was saved");
    assert_eq!(&again, dict);
    assert_eq!(save(&again), file);
}

/// Every tensor is read by its name, and by a model that has exactly these tensors; a model that has others is not changed.
fn loads<F: Float>(dict: &StateDict) {
    let mut model = Vec::new();
    for name in dict.names() {
        let shape = dict.shape(name).expect("a tensor of this name").to_vec();
        let tensor = dict.tensor::<F>(name);
        let indices = dict.indices(name);
        assert!(tensor.is_err() || indices.is_err(), "{name:?}: floating point and integer");
        if let Ok(tensor) = tensor {
            assert_eq!(tensor.shape(), shape);
            model.push((name.to_owned(), shape, tensor.into_iter().collect::<Vec<F>>()));
        } else if let Ok(indices) = indices {
            assert_eq!(indices.shape(), shape);
        }
    }
    let count = model.len();
    let model = NamedTensors::new(model);
    let mut zeros = NamedTensors::zeros_like(&model);
    let bits = |tensors: &NamedTensors<F>| -> Vec<u64> {
        (0..tensors.count()).flat_map(|i| tensors.values(i).iter().map(|value| value.bits())).collect()
    };
    match dict.load_with(&LoadOptions::new().lenient(), &mut zeros) {
        Ok(skipped) => {
            assert!(skipped.missing.is_empty() && skipped.unexpected.len() == dict.names().count() - count);
            assert_eq!(bits(&zeros), bits(&model));
        }
        Err(error) => panic!("{error}"),
    }
    // In strict mode, every tensor of the file needs a place, except integers and booleans.
    let strict = dict.load(&mut zeros);
    let counts = |name: &&str| dict.dtype(name).is_some_and(|dtype| dtype.starts_with(['I', 'U']) || dtype == "BOOL");
    let skipped = dict.names().filter(counts).count();
    assert_eq!(strict.is_ok(), count + skipped == dict.names().count(), "{strict:?}");
    for prefix in ["", "a", "model.", "x"] {
        let options = LoadOptions::new().prefix(prefix).rename(|name| format!("{name}_l0")).convert();
        let before = bits(&zeros);
        if dict.load_with(&options, &mut zeros).is_err() {
            assert_eq!(bits(&zeros), before, "changed by an error");
        }
    }
}
