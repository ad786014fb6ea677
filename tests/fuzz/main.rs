//! The fuzzer's targets without the fuzzer: over seeds, over inputs that once revealed a mistake, and over random ones.
//!
//! `fuzz/README.md` describes how to run the fuzzer itself.

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

mod instruction_sets;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "plugin-formats")]
mod plugins;
#[cfg(feature = "safetensors")]
mod readers;

use std::fs;
use std::path::{Path, PathBuf};

use gradflow::rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// The kept inputs of a target, by file name.
fn kept(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut inputs = Vec::new();
    for folder in ["seeds", "regressions"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(target);
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name != ".gitkeep") {
                inputs.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    inputs.sort();
    inputs
}

/// Runs a target over its kept inputs.
fn replay(target: &str, run: fn(&[u8])) {
    let inputs = kept(target);
    assert!(!inputs.is_empty(), "{target}: no seeds");
    for (path, input) in &inputs {
        if let Err(message) = targets::panic_of(|| run(input)) {
            panic!("{}: {message}", path.display());
        }
    }
    println!("{target}: {} inputs", inputs.len());
}

/// Bytes that describe a model.
fn model_number(k: u64) -> Vec<u8> {
    let rng = &mut StdRng::seed_from_u64(k);
    let mut bytes = vec![0; rng.random_range(8..120)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Set `GRADFLOW_LOSSES=1000000` for more of them.
#[test]
fn losses_are_what_their_formulas_say() {
    replay("losses", targets::losses::run);
    let count = std::env::var("GRADFLOW_LOSSES").map_or(2000, |text| text.parse().unwrap());
    for k in 0..count {
        if let Err(message) = targets::panic_of(|| targets::losses::run(&model_number(k))) {
            panic!("losses {k}: {message}");
        }
    }
}

#[test]
fn kept_models_agree_with_themselves() {
    replay("models", targets::models::run);
}

/// Set `GRADFLOW_MODELS=100000` for more of them, `GRADFLOW_FIRST_MODEL=5000` for others.
#[test]
fn random_models_agree_with_themselves() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, count) = (number("GRADFLOW_FIRST_MODEL", 0), number("GRADFLOW_MODELS", 150));
    let (mut total, mut found) = (targets::models::Report::default(), 0);
    for k in first..first + count {
        match targets::panic_of(|| targets::models::check(&model_number(k))) {
            Ok(report) => {
                total.models += report.models;
                total.refused += report.refused;
                total.differences += report.differences;
                total.kinks += report.kinks;
                total.held_back += report.held_back;
            }
            Err(message) => {
                eprintln!("found: model {k}: {message}");
                found += 1;
            }
        }
    }
    println!("{total:?}");
    assert_eq!(found, 0, "of {count} models");
    assert!(
        total.models > count / 2 && total.differences > 5 * total.kinks && 1000 * total.held_back <= count,
        "{total:?}"
    );
}
