//! Files of `torch.save`: their content is read as PyTorch reads it, and nothing else in them does any harm.
//!
//! `tests/files/data/torch_files.py` wrote the files, each with the same content as a safetensors file beside it.

use std::fs;
use std::path::{Path, PathBuf};

use gradflow::io::{FileKind, LoadError, LoadOptions, ReadLimits, StateDict};
use gradflow::layers::{Embedding, Linear};
use gradflow::ndarray::ArrayD;
use gradflow::recurrent::Lstm;
use gradflow::{Tensors, sequential};

use crate::common::assert_says;

#[track_caller]
fn says_so(message: &str, part: &str) {
    assert_says(message, &[part]);
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/data/pytorch").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

sequential! {
    #[derive(Clone, Debug)]
    struct Tagger: Layer<f32> {
        embedding: Embedding<f32>,
        lstm: Lstm<f32>,
        head: Linear<f32>,
    }
}

fn tagger() -> Tagger {
    Tagger {
        embedding: Embedding::zeros(7, 3),
        lstm: Lstm::builder(3, 4).num_layers(2).zeros(),
        head: Linear::zeros(4, 5),
    }
}

#[test]
fn every_file_holds_what_pytorch_says() {
    for (file, expected) in [
        ("everything", "everything"),
        ("everything_no_checksums", "everything"),
        ("everything_legacy", "everything_legacy"),
        ("checkpoint", "checkpoint"),
        ("checkpoint_protocol_5", "checkpoint"),
        ("checkpoint_legacy", "checkpoint"),
        ("wrapped", "wrapped"),
        ("tensor", "tensor"),
        ("views", "views"),
    ] {
        let got = StateDict::open_pytorch(path(&format!("{file}.pt"))).unwrap_or_else(|error| panic!("{error}"));
        let expected = StateDict::open(path(&format!("{expected}.safetensors"))).unwrap();
        assert_eq!(got.metadata(), expected.metadata(), "{file}");
        assert!(got == expected, "{file}: {got:#?}\n{expected:#?}");
        // It can be saved, too.
        let mut saved = Vec::new();
        got.save_to(&mut saved).unwrap();
        assert!(StateDict::read_from(&saved[..]).unwrap() == got, "{file}");
    }
}

/// A part of a checkpoint is loaded by its prefix, also with the prefixes of wrappers; the file's ids and masks have no place in a
/// model and are ignored.
#[test]
fn models_load_from_parts_of_a_file() {
    let mut models = [(); 3].map(|()| tagger());
    let files = [("checkpoint", "model"), ("wrapped", "_orig_mod.module"), ("checkpoint_legacy", "model.")];
    for (model, (file, prefix)) in models.iter_mut().zip(files) {
        let dict = StateDict::open_pytorch(path(&format!("{file}.pt"))).unwrap();
        let skipped = dict.load_with(&LoadOptions::new().prefix(prefix), model).unwrap();
        let prefix = prefix.trim_end_matches('.');
        assert_eq!(skipped.unexpected, [format!("{prefix}.mask"), format!("{prefix}.positions")]);
        dict.load_with(&LoadOptions::new().prefix(prefix).lenient(), model).unwrap();
    }
    assert!(models[0].head.weight.iter().all(|weight| *weight != 0.0));
    for model in &models[1..] {
        assert_eq!(StateDict::of(model), StateDict::of(&models[0]));
    }
    // Without the prefix, the error names it.
    let error = StateDict::open_pytorch(path("checkpoint.pt")).unwrap().load(&mut tagger()).unwrap_err();
    says_so(&error.to_string(), r#"`LoadOptions::prefix("model")`"#);
}

#[test]
fn halves_are_converted() {
    let dict = StateDict::open_pytorch(path("everything.pt")).unwrap();
    for name in ["f16", "bf16", "f32", "f64"] {
        let mut wide = ArrayD::<f64>::zeros(vec![2, 3]);
        let options = LoadOptions::new().prefix(name);
        let strict = dict.load_with(&options, &mut wide).map_err(|error| error.types[0].found.clone());
        assert_eq!(strict.err(), (name != "f64").then(|| name.to_uppercase()));
        dict.load_with(&LoadOptions::new().prefix(name).convert(), &mut wide).unwrap();
        let mut narrow = ArrayD::<f32>::zeros(vec![2, 3]);
        dict.load_with(&LoadOptions::new().prefix(name).convert(), &mut narrow).unwrap();
        assert_eq!(narrow, wide.mapv(|value| value as f32));
        // PyTorch's conversion is only as precise as the type.
        let step = match name {
            "f16" => 2_f64.powi(-24),
            "bf16" => 2_f64.powi(-16),
            _ => continue,
        };
        assert!(
            wide.iter().all(|value| value.abs() > 1e-3 && value.abs() < 4.0 && value / step == (value / step).round())
        );
    }
    let mut eight_bits = ArrayD::<f32>::zeros(vec![2]);
    let error = dict.load_with(&LoadOptions::new().prefix("f8").convert(), &mut eight_bits).unwrap_err();
    says_so(&error.to_string(), "f8: expected type F32, found F8_E4M3");
}

#[test]
fn foreign_files_are_told_apart() {
    let refused = |file: &str| StateDict::open_pytorch(path(file)).unwrap_err().to_string();
    says_so(&refused("module.pt"), "module.pt: module/data.pkl, byte ");
    says_so(&refused("module.pt"), "got the Python object torch.nn.modules.linear.Linear");
    says_so(&refused("plain.pickle"), "expected a PyTorch file, got a Python pickle");
    says_so(
        &refused("tensor.safetensors"),
        "expected a PyTorch file, got a safetensors file (`StateDict::open` reads it)",
    );
    says_so(&refused("absent.pt"), "absent.pt: ");
    says_so(&StateDict::open(path("tensor.pt")).unwrap_err().to_string(), "`StateDict::open_pytorch` reads it");
    says_so(&StateDict::open(path("views.pt")).unwrap_err().to_string(), "`StateDict::open_pytorch` reads it");
    for (bytes, kind) in [(&b""[..], FileKind::Empty), (b"GGUF", FileKind::Gguf), (b"PK\x05\x06", FileKind::Zip)] {
        match StateDict::read_pytorch(bytes) {
            Err(LoadError::Foreign { kind: got, expected: "PyTorch", .. }) => assert_eq!(got, kind),
            Err(LoadError::PyTorch { .. }) if kind == FileKind::Zip => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A file that is cut off anywhere, or has any byte changed, gives an error or the same names.
#[test]
fn damaged_files_are_refused() {
    for name in ["everything.pt", "everything_legacy.pt", "views.pt"] {
        let whole = bytes(name);
        for length in 0..whole.len() {
            if name != "everything_legacy.pt" || length < 2800 {
                let cut = StateDict::read_pytorch(&whole[..length]);
                assert!(cut.is_err(), "{name}: {length} of {}", whole.len());
            }
        }
        let mut read = 0;
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= [1, 0x80, 0xff][at % 3];
            read += usize::from(StateDict::read_pytorch(&changed[..]).is_ok());
        }
        assert!(read > 0, "{name}: values may change");
    }
}

/// A file in the format before PyTorch 1.6 with the given pickle and one storage of 4 `f32`, 0 to 3.
fn legacy(pickle: &[u8]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    file.extend([b"\x80\x02", pickle, b".\x80\x02]"].concat());
    if pickle.windows(7).any(|name| name == b"storage") {
        file.extend(b"X\x01\0\0\x000a.");
        file.extend(4_u64.to_le_bytes());
        file.extend((0..4).flat_map(|k| (k as f32).to_le_bytes()));
    } else {
        file.push(b'.');
    }
    file
}

/// A tensor of that storage, from the pickles of its offset, shape and strides.
fn tensor(offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ";
    let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    [rebuild, &storage[..], offset, shape, strides, b"\x89ccollections\nOrderedDict\n)RtR"].concat()
}

fn read(pickle: &[u8]) -> Result<StateDict, String> {
    StateDict::read_pytorch(&legacy(pickle)[..]).map_err(|error| error.to_string())
}

#[test]
fn views_outside_their_storage_are_refused() {
    let view = |offset, shape, strides| read(&tensor(offset, shape, strides));
    let plain = view(b"K\0", b"K\x02K\x02\x86", b"K\x02K\x01\x86").unwrap();
    assert_eq!(plain.tensor::<f32>("").unwrap().into_raw_vec_and_offset().0, [0.0, 1.0, 2.0, 3.0]);
    let diagonal = view(b"K\0", b"K\x02\x85", b"K\x03\x85").unwrap();
    assert_eq!(diagonal.tensor::<f32>("").unwrap().into_raw_vec_and_offset().0, [0.0, 3.0]);
    for (offset, shape, strides, says) in [
        (
            &b"K\x01"[..],
            &b"K\x04\x85"[..],
            &b"K\x01\x85"[..],
            "expected a view of the 4 elements of storage 0, got shape [4]",
        ),
        (b"K\0", b"K\x05\x85", b"K\x01\x85", "shape [5] with strides [1] from element 0 on"),
        (b"K\0", b"K\x02\x85", b"K\x04\x85", "shape [2] with strides [4]"),
        (b"J\xff\xff\xff\xff", b"K\x01\x85", b"K\x01\x85", "expected the arguments of a tensor"),
        (b"K\0", b"K\x02\x85", b"J\xff\xff\xff\xff\x85", "expected the arguments of a tensor"),
        (b"K\0", b"K\x02\x85", b"K\x01K\x01\x86", "expected a shape and as many strides"),
        // 2^62 elements, and sums that overflow.
        (b"K\0", b"\x8a\x08\0\0\0\0\0\0\0\x40\x85", b"K\0\x85", "there is none"),
        (
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"K\x02\x85",
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85",
            "strides",
        ),
        // 2^40 elements from a storage of 4.
        (b"K\0", b"\x8a\x06\0\0\0\0\0\x01\x85", b"K\0\x85", "bytes of tensors that are repeated or transposed"),
    ] {
        match view(offset, shape, strides) {
            Err(error) if says == "there is none" => assert!(error.contains("expected"), "{error}"),
            Err(error) => says_so(&error, says),
            Ok(dict) => panic!("{says}: {dict:?}"),
        }
    }
}

#[test]
fn pickles_are_read_as_data_only() {
    for (pickle, says) in [
        (&b"cos\nsystem\nX\x02\0\0\0ls\x85R"[..], "data, byte 2: expected tensors, numbers, text, and lists and dictionaries of them"),
        (b"cos\nsystem\nX\x02\0\0\0ls\x85R", "got the Python object os.system"),
        (b"\x8c\x08builtins\x8c\x04eval\x93", "got the Python object builtins.eval"),
        (b"ctorch\nload\n", "torch.load"),
        (b"ctorch\nEvilStorage\n", "torch.EvilStorage"),
        (b"(iargparse\nNamespace\n", "expected an operation that makes data, got operation 'i'"),
        (b"K\x01K\x02\x85R", "expected a function and its arguments, got an integer"),
        (b"X\x01\0\0\0as", "2 values on the stack"),
        (b"}(K\x01u", "keys with a value each"),
        (b"K\x01K\x02a", "a list to add to"),
        (b"h\x07", "a value that was kept"),
        (b"0", "1 values on the stack"),
        (b"X\xff\xff\xff\xffabc", "the end after"),
        (b"X\x02\0\0\0\xff\xfe", "text in UTF-8"),
        (b"ctorch\nFloatStorage\n", "expected a tensor, a number, text, a list or a dictionary, got a name"),
        (b"}(N)u", "a key that is text or a number, got None"),
        (b"}(X\x01\0\0\0aK\x01X\x01\0\0\0aK\x02u", "a: expected a name of one value"),
        (b"ctorch._utils\n_rebuild_parameter\nctorch._utils\n_rebuild_parameter\nctorch._utils\n_rebuild_parameter\nN\x85R\x85R\x85R", "the arguments of a tensor"),
    ] {
        match read(pickle) {
            Err(error) => says_so(&error, says),
            Ok(dict) => panic!("{}: {dict:?}", pickle.escape_ascii()),
        }
    }
    // A list that contains itself; then a tuple that the next one contains twice, and so on, 24 times.
    says_so(&read(b"]q\0h\0a").unwrap_err(), "at most 64 lists and dictionaries in each other");
    let doubled = [b"K\x01".to_vec(), b"q\0\x85q\0h\0\x86".repeat(24)].concat();
    says_so(&read(&doubled).unwrap_err(), "the file has more than ");
    // Attributes of a state dict are ignored.
    assert_eq!(read(b"}").unwrap(), StateDict::new());
    let attributes = read(b"ccollections\nOrderedDict\n)RX\x01\0\0\0aK\x05s}X\x09\0\0\0_metadata}sb").unwrap();
    assert_eq!(attributes.metadata()["a"], "5");
}

#[test]
fn limits_hold() {
    let limited = |limits| StateDict::open_pytorch_with(path("checkpoint.pt"), limits).unwrap_err().to_string();
    says_so(&limited(ReadLimits::new().tensors(3)), "the file has more than 3 tensors");
    says_so(&limited(ReadLimits::new().axes(1)), "1 axes of a tensor");
    says_so(&limited(ReadLimits::new().metadata_entries(2)), "2 entries of metadata");
    says_so(&limited(ReadLimits::new().header_bytes(100)), "100 bytes of pickle");
    // One long key in many places.
    let key = [b"X\x00\x00\x01\x00".to_vec(), vec![b'a'; 1 << 16]].concat();
    let pickle = [b"(".to_vec(), key, b"q\0}h\0K\x01s".to_vec(), b"}h\0K\x01s".repeat(1000), b"t".to_vec()].concat();
    let error = StateDict::read_pytorch(&legacy(&pickle)[..]).unwrap_err();
    says_so(&error.to_string(), "bytes of names and strings");
}

/// Tied tensors are read as two, and a model that ties them saves one.
#[test]
fn tied_tensors_are_both_there() {
    let dict = StateDict::open_pytorch(path("everything.pt")).unwrap();
    let [a, b] = ["tied.0", "tied.1"].map(|name| dict.tensor::<f32>(name).unwrap());
    assert_eq!(a, b);
    assert_eq!(a.count(), 1);
    assert_eq!(dict.tensor::<f32>("transposed").unwrap(), a.t());
}
