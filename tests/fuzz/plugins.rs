//! Files of plug-ins.

use std::fs;
use std::path::Path;

use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};

use gradflow::convert::keras_json::KerasJson;
use gradflow::convert::nam::NamModel;

use super::{kept, replay, targets};

#[test]
fn kept_files() {
    replay("plugins", targets::plugins::run);
    for (path, file) in kept("plugins") {
        let read = NamModel::<f32>::read_from(&file[..]).is_ok() || KerasJson::<f32>::read_from(&file[..]).is_ok();
        assert!(read || !path.parent().unwrap().ends_with("seeds/plugins"), "{}", path.display());
    }
}

/// Pieces of JSON replace pieces of the seeds.
#[test]
fn altered_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/plugins");
    let mut seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    let pieces =
        ["[", "]", "{", "}", ",", ":", "\"", "0", "-1", "1e999", "null", "[]", "{}", "\\ud800", "3", "é", "[[", "]]"];
    let rng = &mut StdRng::seed_from_u64(0);
    for path in &seeds {
        let seed = fs::read(path).unwrap();
        for _ in 0..2_000 {
            let mut file = seed.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..=file.len());
                let end = (at + rng.random_range(0..6)).min(file.len());
                file.splice(at..end, pieces[rng.random_range(0..pieces.len())].bytes());
            }
            if let Err(message) = targets::panic_of(|| targets::plugins::run(&file)) {
                panic!("{}: {}: {message}", path.display(), String::from_utf8_lossy(&file));
            }
        }
    }
}
