//! Golden parity: forward, backward and training against PyTorch, and recurrent outputs against ONNX Runtime and Keras too, case by
//! case.
//!
//! Every `*.safetensors` file of `tests/golden/cases/` is a case. If the environment variable `GRADFLOW_GOLDEN` names a folder, so is
//! every such file in it. One line per case says how far off the worst tensor is:
//!
//! ```text
//! GRADFLOW_GOLDEN=some/folder cargo test --test golden -- --nocapture
//! ```
//!
//! `max|got - want| <= tolerance * max(1, max|want|)` must hold for every tensor that a case expects, with a tolerance of 1e-12 for F64
//! (1e-9 after training) and 1e-5 for F32, or the case's own. A case that cannot be read, run or compared has failed; nothing is
//! skipped. `tests/golden/generate.py` writes the cases, and `tests/golden/random_cases.py` random ones.

mod case;
mod kinds;
mod planted;
mod verdict;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use case::{Case, Results};
use verdict::Verdict;

fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases")
}

/// The folder of this crate's cases and, if set, that of the environment variable.
fn folders() -> Vec<PathBuf> {
    std::iter::once(own_folder()).chain(std::env::var_os("GRADFLOW_GOLDEN").map(PathBuf::from)).collect()
}

/// The cases of a folder, by name.
fn cases(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    if files.is_empty() { Err(format!("{}: no case in it", folder.display())) } else { Ok(files) }
}

/// The kind of a case, or why the case cannot be read.
fn kind_of(bytes: &[u8]) -> Result<String, String> {
    Case::parse(bytes)?.kind().map(String::from)
}

/// Runs the cases of every folder whose kind `wanted` accepts, and prints one line for each and a count. Returns how many passed, or
/// what is wrong. A case that cannot be read has no kind; it is an error in any run.
fn run(folders: &[PathBuf], wanted: impl Fn(&str) -> bool) -> Result<usize, String> {
    let (mut passed, mut wrong) = (0, Vec::new());
    for folder in folders {
        let files = cases(folder).unwrap_or_else(|error| {
            println!("{error}  FAIL");
            wrong.push(error);
            Vec::new()
        });
        for file in files {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let verdict = match fs::read(&file) {
                Ok(bytes) if kind_of(&bytes).is_ok_and(|kind| !wanted(&kind)) => continue,
                Ok(bytes) => Verdict::on(&bytes),
                Err(error) => Verdict::Failed(error.to_string()),
            };
            println!("{name:<44} {verdict}");
            if verdict.passed() {
                passed += 1;
            } else {
                wrong.push(format!("{name}: {}", verdict.to_string().split_whitespace().collect::<Vec<_>>().join(" ")));
            }
        }
    }
    println!("{passed} passed, {} failed", wrong.len());
    if wrong.is_empty() { Ok(passed) } else { Err(wrong.join("\n")) }
}

/// A test of each kind's cases; there must be at least one case per kind.
macro_rules! kinds {
    ($($kind:ident)+) => {
        const KINDS: &[&str] = &[$(stringify!($kind)),+];

        $(
            #[test]
            fn $kind() {
                match run(&folders(), |kind| kind == stringify!($kind)) {
                    Ok(passed) => assert!(passed > 0, "no case of this kind"),
                    Err(wrong) => panic!("failed:\n{wrong}"),
                }
            }
        )+
    };
}

kinds! { rnn cell residual_ff train variant recurrence onnx keras attention conv }

/// Checks that the tests of the kinds leave no case out.
#[test]
fn every_case_is_of_a_kind_that_is_run() {
    let mut found = BTreeSet::new();
    for file in folders().iter().flat_map(|folder| cases(folder).unwrap_or_else(|error| panic!("{error}"))) {
        let kind = fs::read(&file).map_err(|error| error.to_string()).and_then(|bytes| kind_of(&bytes));
        let kind = kind.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(KINDS.contains(&kind.as_str()), "{}: unknown kind {kind}", file.display());
        found.insert(kind);
    }
    assert_eq!(found.len(), KINDS.len());
}
