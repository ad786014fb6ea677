//! ONNX files.

use std::fs;
use std::path::Path;

use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{kept, replay, targets};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/onnx")
}

#[test]
fn kept_onnx_files() {
    replay("onnx", targets::onnx::run);
    // Each of this crate's own files and one of PyTorch's fits one of the models.
    let count = kept("onnx").iter().map(|(_, file)| targets::onnx::loaded(file)).sum::<usize>();
    assert!(count >= 5, "{count}");
}

/// Rewrites the seeds that this crate makes.
#[test]
#[ignore = "writes into the source tree"]
fn writes_onnx_seeds() {
    for (k, file) in targets::onnx::seeds().iter().enumerate() {
        fs::write(folder().join(format!("own{k}.onnx")), file).unwrap();
    }
}

/// Bytes are altered, inserted, removed and copied from elsewhere in the file, so that lengths, names and kinds of fields change. Set
/// `GRADFLOW_FILES=20000` for more files per seed.
#[test]
fn altered_onnx_files() {
    let mut seeds: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    let rng = &mut StdRng::seed_from_u64(0);
    let count = std::env::var("GRADFLOW_FILES").map_or(300, |text| text.parse().unwrap());
    for path in &seeds {
        let seed = fs::read(path).unwrap();
        for _ in 0..count {
            let mut file = seed.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..file.len());
                match rng.random_range(0..4) {
                    0 => file[at] ^= 1 << rng.random_range(0..8),
                    1 => file[at] = rng.random(),
                    2 => {
                        let from = rng.random_range(0..file.len());
                        let part = file[from..(from + rng.random_range(1..40)).min(file.len())].to_vec();
                        file.splice(at..at, part);
                    }
                    _ => drop(file.drain(at..(at + rng.random_range(1..20)).min(file.len()))),
                }
            }
            if let Err(message) = targets::panic_of(|| targets::onnx::run(&file)) {
                panic!("{}: {:?}: {message}", path.display(), file.escape_ascii().to_string());
            }
        }
    }
}
