//! Damaged files are refused wherever they end and whatever was altered, without a panic or a large allocation.

use std::fs;
use std::io::{self, ErrorKind, Read};

use gradflow::io::{Checkpoint, FileKind, LoadError, LoadOptions, ReadLimits, StateDict};
use gradflow::ndarray::arr1;
use gradflow::rand::{Rng, RngExt};
use gradflow::{layers::Linear, optim::Sgd};

use super::{Folder, bytes, small_checkpoint};
use crate::common::{assert_says, bits, rng};

/// A safetensors file with this header.
fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Reads a file that may be bad; fails if it panics or allocates out of proportion.
#[track_caller]
fn read<T>(file: &[u8], read: impl FnOnce(&[u8]) -> Result<T, LoadError>) -> Result<T, LoadError> {
    let mut result = None;
    let memory = allocation_counter::measure(|| result = Some(read(file)));
    assert!(memory.bytes_max < 100_000 + 50 * file.len() as u64, "{} bytes for {}", memory.bytes_max, file.len());
    result.unwrap()
}

#[track_caller]
fn assert_malformed(file: &[u8]) -> String {
    match read(file, |file| StateDict::read_from(file)) {
        Err(LoadError::Malformed { reason, path: None }) => reason,
        other => panic!("expected Malformed, got {other:?}"),
    }
}

#[test]
fn a_truncated_or_extended_file_is_refused_wherever_it_ends() {
    let checkpoint = small_checkpoint();
    let mut whole = bytes(|file| checkpoint.save_to(file));
    assert!(matches!(StateDict::read_from(&whole[..0]), Err(LoadError::Foreign { kind: FileKind::Empty, .. })));
    for length in 1..whole.len() {
        assert_malformed(&whole[..length]);
        assert!(matches!(read(&whole[..length], |file| Checkpoint::read_from(file)), Err(LoadError::Malformed { .. })));
    }
    assert_eq!(Checkpoint::read_from(&whole[..]).unwrap(), checkpoint);
    println!("{} truncated files", whole.len());
    whole.push(0);
    assert_malformed(&whole);
}

#[test]
fn every_altered_bit_of_a_checkpoint_is_found() {
    let checkpoint = small_checkpoint();
    let whole = bytes(|file| checkpoint.save_to(file));
    let (mut refused, mut same) = (0, 0);
    for at in 0..whole.len() {
        for flip in 1..=255 {
            let mut file = whole.clone();
            file[at] ^= flip;
            match read(&file, |file| Checkpoint::read_from(file)) {
                Err(_) => refused += 1,
                Ok(loaded) => {
                    assert_eq!(loaded, checkpoint, "byte {at} with {flip:#x}");
                    same += 1;
                }
            }
        }
    }
    println!("{} altered bytes: {refused} refused, {same} of the same meaning", refused + same);
    assert!(refused > 100 * same, "{same}");
}

/// A state dict has no checksum, but a model accepts only its own names, shapes and types.
#[test]
fn an_altered_header_of_a_state_dict_is_refused_or_gives_the_same_model() {
    let saved = Linear::<f32>::new(2, 3, &mut rng(0));
    let whole = bytes(|file| StateDict::of(&saved).with_metadata("format", "pt").save_to(file));
    let data = whole.len() - 4 * 9;
    let (mut refused, mut unfit, mut same) = (0, 0, 0);
    for at in 0..data {
        for flip in 1..=255 {
            let mut file = whole.clone();
            file[at] ^= flip;
            let Ok(dict) = read(&file, |file| StateDict::read_from(file)) else {
                refused += 1;
                continue;
            };
            let mut model = Linear::<f32>::zeros(2, 3);
            match dict.load(&mut model) {
                Ok(()) => {
                    assert_eq!(bits(&model), bits(&saved), "byte {at} with {flip:#x}");
                    same += 1;
                }
                Err(_) => {
                    assert_eq!(bits(&model), [0; 9]);
                    unfit += 1;
                }
            }
        }
    }
    println!("{} altered bytes: {refused} refused, {unfit} that fit no model, {same} of the same model", 255 * data);
    assert!(refused > 0 && unfit > 0);
}

#[test]
fn files_altered_at_random_never_panic() {
    let checkpoint = small_checkpoint();
    let whole = bytes(|file| checkpoint.save_to(file));
    let rng = &mut rng(0);
    let (mut refused, mut same) = (0, 0);
    for _ in 0..20_000 {
        let mut file = whole.clone();
        for _ in 0..rng.random_range(1..6) {
            let (a, b) = (rng.random_range(0..file.len()), rng.random_range(0..file.len()));
            match rng.random_range(0..4) {
                0 => file[a] = rng.next_u32() as u8,
                1 => file.swap(a, b),
                2 => drop(file.drain(a.min(b)..a.max(b).min(a.min(b) + 9))),
                _ => (0..(b % 9).min(file.len() - a)).for_each(|k| file.insert(a, file[b.min(a + k)])),
            }
        }
        match read(&file, |file| Checkpoint::read_from(file)) {
            Err(_) => refused += 1,
            Ok(loaded) => {
                assert_eq!(loaded, checkpoint);
                same += 1;
            }
        }
    }
    println!("{refused} refused, {same} of the same meaning");
    assert!(refused > 19_000);
}

#[test]
fn headers_that_lie_are_refused() {
    let zeros = [0; 64];
    let f32x2 = |start: usize| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":[{start},{}]}}"#, start + 8);
    let (a, b) = (f32x2(0), f32x2(8));
    let good = file_of(&format!(r#"{{"a":{a},"b":{b}}}"#), &zeros[..16]);
    assert_eq!(StateDict::read_from(&good[..]).unwrap().names().collect::<Vec<_>>(), ["a", "b"]);
    let bad_headers = [
        ("the same name twice", format!(r#"{{"a":{a},"a":{b}}}"#), 16),
        ("the same name twice, the same place", format!(r#"{{"a":{a},"a":{a}}}"#), 8),
        ("the same name twice, written otherwise", format!(r#"{{"a":{a},"\u0061":{a}}}"#), 8),
        ("two metadata", format!(r#"{{"__metadata__":{{}},"__metadata__":{{}},"a":{a}}}"#), 8),
        ("overlapping", format!(r#"{{"a":{a},"b":{}}}"#, f32x2(4)), 12),
        ("the same place", format!(r#"{{"a":{a},"b":{a}}}"#), 8),
        ("a gap", format!(r#"{{"a":{a},"b":{}}}"#, f32x2(12)), 20),
        ("a gap before", format!(r#"{{"b":{b}}}"#), 16),
        ("past the end", format!(r#"{{"a":{a},"b":{b}}}"#), 12),
        ("more data than tensors", format!(r#"{{"a":{a}}}"#), 16),
        ("backwards", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#.into(), 8),
        ("negative", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#.into(), 8),
        ("negative shape", r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#.into(), 8),
        ("too small for its shape", r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#.into(), 8),
        (
            "a shape that overflows",
            format!(r#"{{"a":{{"dtype":"F32","shape":[{0},{0}],"data_offsets":[0,8]}}}}"#, u64::MAX),
            8,
        ),
        (
            "a shape that wraps to 2",
            r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4,2],"data_offsets":[0,8]}}"#.into(),
            8,
        ),
        (
            "a shape of no elements that is too large for an array",
            format!(r#"{{"a":{{"dtype":"F32","shape":[0,{}],"data_offsets":[0,0]}}}}"#, usize::MAX),
            0,
        ),
        (
            "offsets near the end of numbers",
            format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":[{},{}]}}}}"#, u64::MAX - 8, u64::MAX),
            8,
        ),
        ("an unknown type", r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#.into(), 8),
        ("no shape", r#"{"a":{"dtype":"F32","data_offsets":[0,8]}}"#.into(), 8),
        ("metadata that are no strings", format!(r#"{{"__metadata__":{{"a":1}},"a":{a}}}"#), 8),
        ("metadata that are none", format!(r#"{{"__metadata__":null,"a":{a}}}"#), 8),
        ("a list", "[]".into(), 0),
        ("no JSON", "{".into(), 0),
        ("deep", "{\"a\":".to_owned() + &"[".repeat(100_000), 0),
        ("empty", String::new(), 0),
    ];
    for (what, header, data) in &bad_headers {
        let reason = assert_malformed(&file_of(header, &zeros[..*data]));
        assert!(!reason.is_empty(), "{what}");
    }
    // Colons, braces and quotes inside strings are no keys.
    let tricky = format!(r#"{{"__metadata__":{{"\":{{\\":"\"a\":"}},"\"a\":{{}}\\":{a}}}"#);
    assert_eq!(
        StateDict::read_from(&file_of(&tricky, &zeros[..8])[..]).unwrap().names().collect::<Vec<_>>(),
        [r#""a":{}\"#]
    );
    let mut not_utf_8 = good.clone();
    not_utf_8[10] = 0xff;
    assert_malformed(&not_utf_8);
    let lengths = [u64::MAX, u64::MAX - 7, 1 << 63, 100_000_001, good.len() as u64, 1, 0];
    for length in lengths {
        let mut file = good.clone();
        file[..8].copy_from_slice(&length.to_le_bytes());
        assert_malformed(&file);
    }
    println!("{} bad headers", bad_headers.len() + 1 + lengths.len());
}

#[test]
fn tensors_of_other_types_are_named() {
    for (dtype, size) in [("I64", 8), ("I32", 4), ("BOOL", 1), ("F8_E4M3", 1), ("C64", 8)] {
        let header = format!(r#"{{"":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{}]}}}}"#, 2 * size);
        let dict = StateDict::read_from(&file_of(&header, &vec![0; 2 * size])[..]).unwrap();
        assert_eq!(dict.dtype("").as_deref(), Some(dtype));
        let mut values = arr1(&[1.0_f32, 2.0]);
        for options in [LoadOptions::new(), LoadOptions::new().convert(), LoadOptions::new().convert().lenient()] {
            let error = dict.load_with(&options, &mut values).unwrap_err();
            assert_eq!((&*error.types[0].expected, &*error.types[0].found), ("F32", dtype));
        }
        assert_eq!(values, arr1(&[1.0, 2.0]));
    }
    // Half-precision values are converted if the options ask for it.
    for (dtype, bits) in [("F16", [0xc000_u16, 0x3800]), ("BF16", [0xc000, 0x3f00])] {
        let header = format!(r#"{{"":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,4]}}}}"#);
        let dict = StateDict::read_from(&file_of(&header, bits.map(u16::to_le_bytes).as_flattened())[..]).unwrap();
        let (mut single, mut double) = (arr1(&[1.0_f32, 2.0]), arr1(&[1.0_f64, 2.0]));
        let error = dict.load_with(&LoadOptions::new().lenient(), &mut single).unwrap_err();
        assert_eq!((&*error.types[0].expected, &*error.types[0].found), ("F32", dtype));
        assert_eq!(single, arr1(&[1.0, 2.0]));
        dict.load_with(&LoadOptions::new().convert(), &mut single).unwrap();
        dict.load_with(&LoadOptions::new().convert(), &mut double).unwrap();
        assert_eq!((single, double), (arr1(&[-2.0, 0.5]), arr1(&[-2.0, 0.5])));
    }
}

#[test]
fn what_is_no_checkpoint_says_so() {
    let no_checkpoint = bytes(|file| StateDict::of(&arr1(&[1.0])).save_to(file));
    assert!(matches!(Checkpoint::read_from(&no_checkpoint[..]), Err(LoadError::NotACheckpoint { path: None })));
    let with = |metadata: &[(&str, &str)]| {
        let dict = metadata.iter().fold(StateDict::new(), |dict, &(key, value)| dict.with_metadata(key, value));
        Checkpoint::read_from(&bytes(|file| dict.save_to(file))[..])
    };
    let error = with(&[("gradflow.format", "2")]).unwrap_err();
    assert_eq!(error.to_string(), "a checkpoint of format 2, where format 1 is known");
    assert!(matches!(with(&[("gradflow.format", "1")]), Err(LoadError::Absent { .. })));
    let error = with(&[("gradflow.format", "1"), ("gradflow.checksum", "0000000000000000")]).unwrap_err();
    assert!(matches!(error, LoadError::Checksum { .. }), "{error}");

    // The right checksum over values that make no sense: such a file can only be made on purpose.
    let forged = |key, value| match with(&[("gradflow.format", "1"), (key, value), ("gradflow.checksum", "")]) {
        Err(LoadError::Checksum { actual, .. }) => {
            with(&[("gradflow.format", "1"), (key, value), ("gradflow.checksum", &actual)]).unwrap()
        }
        other => panic!("{other:?}"),
    };
    for value in ["", "-1", "1.5", "18446744073709551616"] {
        let error = forged("gradflow.number.seed", value).number("seed").unwrap_err();
        assert_says(&error.to_string(), &["gradflow.number.seed", &format!("{value:?}")]);
    }
    let error = forged("gradflow.schedule", "constant(-1)").schedule().unwrap_err();
    assert!(matches!(error, LoadError::Schedule(_)), "{error}");
    let error = forged("gradflow.optimizer.kind", "Sgd").load_optimizer(&(), &mut Sgd::<f32>::new(0.1)).unwrap_err();
    assert_says(&error.to_string(), &["gradflow.optimizer.steps"]);
}

#[test]
fn places_that_cannot_be_read_are_named() {
    let folder = Folder::new("unreadable");
    let missing = folder.path("missing.safetensors");
    for (path, kind) in [(&missing, ErrorKind::NotFound), (&folder.0, ErrorKind::IsADirectory)] {
        match Checkpoint::open(path) {
            Err(LoadError::Io(error)) => {
                // The error for a folder differs between platforms.
                assert!(error.kind() == kind || path == &folder.0 && !cfg!(unix), "{error:?}");
                assert_says(&error.to_string(), &[path.to_str().unwrap()]);
            }
            other => panic!("{other:?}"),
        }
    }
    let file = folder.path("text");
    fs::write(&file, "a text of more than a few bytes, and no safetensors file").unwrap();
    match StateDict::open(&file) {
        Err(error @ LoadError::Malformed { .. }) => assert_says(&error.to_string(), &[file.to_str().unwrap()]),
        other => panic!("{other:?}"),
    }
    // Input that cannot be a safetensors file is not read to its end, since it may have none.
    assert!(matches!(StateDict::read_from(io::repeat(0)), Err(LoadError::Malformed { .. })));
    assert!(matches!(StateDict::read_from(io::repeat(b'{')), Err(LoadError::Malformed { .. })));
    // A disk that fails in the middle.
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let whole = bytes_of_small();
            let count = bytes.len().min(7).min(100 - self.0);
            bytes[..count].copy_from_slice(&whole[self.0..self.0 + count]);
            self.0 += count;
            if count == 0 { Err(ErrorKind::HostUnreachable.into()) } else { Ok(count) }
        }
    }
    fn bytes_of_small() -> Vec<u8> {
        bytes(|file| small_checkpoint().save_to(file))
    }
    match Checkpoint::read_from(Broken(0)) {
        Err(LoadError::Io(error)) => assert_eq!(error.kind(), ErrorKind::HostUnreachable),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_of_other_kinds_are_named_with_their_path_and_advice() {
    let folder = Folder::new("foreign");
    let cases: [(&str, &[u8], &[&str]); 6] = [
        (
            "model.pt",
            b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0archive/data.pkl",
            &["PyTorch", "save_file"],
        ),
        ("model.h5", b"\x89HDF\r\n\x1a\n\0\0\0", &["HDF5", "gradflow::convert"]),
        ("model.onnx", b"\x08\x08\x12\x07pytorch", &["ONNX", "gradflow::onnx::load_into"]),
        ("model.gguf", b"GGUF\x03\0\0\0", &["GGUF"]),
        ("pointer", b"version https://git-lfs", &["git lfs pull"]),
        ("empty", b"", &["empty"]),
    ];
    for (name, bytes, says) in cases {
        let path = folder.path(name);
        fs::write(&path, bytes).unwrap();
        for error in [StateDict::open(&path).unwrap_err(), Checkpoint::open(&path).unwrap_err()] {
            assert!(matches!(error, LoadError::Foreign { .. }), "{error:?}");
            assert_says(&error.to_string(), &[path.to_str().unwrap(), "expected a safetensors file"]);
            assert_says(&error.to_string(), says);
        }
    }
    // If a state dict is opened as a checkpoint, the error contains the path, too.
    let path = folder.path("state_dict");
    StateDict::of(&arr1(&[1.0])).save(&path).unwrap();
    assert_says(&Checkpoint::open(&path).unwrap_err().to_string(), &[path.to_str().unwrap(), "no checkpoint"]);
}

/// Headers that would take many times their size in memory are refused before they are parsed, unless the limits allow them.
#[test]
fn headers_beyond_the_limits_are_refused_before_they_are_parsed() {
    let axes = |count: usize| {
        let shape = vec!["1"; count].join(",");
        file_of(&format!(r#"{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}"#), &[0; 4])
    };
    let tensors = |count: usize| {
        let tensor = |k| format!(r#""{k}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        file_of(&format!("{{{}}}", (0..count).map(tensor).collect::<Vec<_>>().join(",")), &[])
    };
    let metadata = |count: usize| {
        let pairs: Vec<_> = (0..count).map(|k| format!(r#""{k}":"""#)).collect();
        file_of(&format!(r#"{{"__metadata__":{{{}}}}}"#, pairs.join(",")), &[])
    };
    let cases = [
        ("axes of a tensor", axes(64), axes(65), ReadLimits::new().axes(65)),
        ("axes of a tensor", axes(64), axes(2_000_000), ReadLimits::new().axes(2_000_000)),
        ("tensors", tensors(1 << 16), tensors((1 << 16) + 1), ReadLimits::new().tensors((1 << 16) + 1)),
        ("entries of metadata", metadata(1 << 16), metadata(300_000), ReadLimits::new().metadata_entries(300_000)),
        ("bytes of header", metadata(3), metadata(3), ReadLimits::new()),
    ];
    for (what, within, beyond, allowed) in &cases {
        assert!(StateDict::read_from(&within[..]).is_ok(), "{what}");
        assert!(StateDict::read_with(&beyond[..], *allowed).is_ok(), "{what}");
        let strict = if *what == "bytes of header" { ReadLimits::new().header_bytes(20) } else { ReadLimits::new() };
        let mut error = None;
        let memory = allocation_counter::measure(|| error = StateDict::read_with(&beyond[..], strict).err());
        assert!(matches!(error, Some(LoadError::Limit { what: found, .. }) if found == *what), "{what}: {error:?}");
        assert_says(&error.unwrap().to_string(), &[what, "ReadLimits"]);
        // The memory for the file itself, in a buffer that grows by doubling.
        assert!(memory.bytes_max < 4 * beyond.len() as u64 + 1000, "{what}: {} for {}", memory.bytes_max, beyond.len());
    }
    // Files that this crate saves can be read again, if the limits are raised.
    let dict = (0..100_000).fold(StateDict::new(), |dict, k| dict.with_metadata(k.to_string(), ""));
    let file = bytes(|file| dict.save_to(file));
    assert!(matches!(StateDict::read_from(&file[..]), Err(LoadError::Limit { .. })));
    assert_eq!(StateDict::read_with(&file[..], ReadLimits::new().metadata_entries(100_000)).unwrap(), dict);
    // A header length at the format's maximum, but no more bytes: no memory is reserved for them.
    let memory = allocation_counter::measure(|| {
        let file = [&100_000_000_u64.to_le_bytes()[..], b"{"].concat();
        let limits = ReadLimits::new().header_bytes(usize::MAX);
        assert!(matches!(StateDict::read_with(&file[..], limits), Err(LoadError::Malformed { .. })));
        assert!(matches!(StateDict::read_from(&file[..]), Err(LoadError::Limit { limit: 16_777_216, .. })));
    });
    assert!(memory.bytes_max < 10_000, "{}", memory.bytes_max);
}
