//! The same models on other instruction sets. The choice is made once per process, so each set runs in a process of its own.

use std::fs;
use std::process::{Command, Stdio};

use super::{kept, model_number, targets::models};

fn inputs() -> Vec<Vec<u8>> {
    kept("models").into_iter().map(|(_, input)| input).chain((0..60).map(model_number)).collect()
}

#[test]
#[ignore = "not a test: a process that `other_instruction_sets_agree` starts"]
fn writes_what_models_compute() {
    let Some(path) = std::env::var_os("GRADFLOW_OUTCOMES") else { return };
    let bytes: Vec<u8> =
        inputs().iter().filter_map(|input| models::outcome(input)).flat_map(|outcome| outcome.to_bytes()).collect();
    fs::write(path, bytes).unwrap();
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "starts processes")]
fn other_instruction_sets_agree() {
    let mut compared = 0;
    for isa in ["scalar", "avx2", "avx512"] {
        let path = std::env::temp_dir().join(format!("gradflow-outcomes-{isa}-{}", std::process::id()));
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["instruction_sets::writes_what_models_compute", "--exact", "--ignored"])
            .env("GRADFLOW_OUTCOMES", &path)
            .env("GRADFLOW_ISA", isa)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        if !ended.success() && !cfg!(target_arch = "x86_64") {
            continue; // no such instruction set
        }
        assert!(ended.success(), "{isa}");
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut rest = &bytes[..];
        for input in inputs() {
            let Some(want) = models::outcome(&input) else { continue };
            let (of_this, others) = rest.split_at(want.to_bytes().len());
            models::assert_agrees(&input, &want.with_bytes(of_this), &want);
            rest = others;
            compared += 1;
        }
        assert!(rest.is_empty(), "{isa}: more values than here");
    }
    println!("{compared} outcomes of other instruction sets");
}
