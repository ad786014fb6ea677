//! Readers of files and bytes.

use gradflow::rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{replay, targets};

#[test]
fn kept_state_dicts() {
    replay("state_dict", targets::state_dict::run);
}

#[cfg(feature = "pytorch")]
#[test]
fn kept_files_of_pytorch() {
    replay("pytorch", targets::pytorch::run);
}

#[cfg(feature = "keras")]
#[test]
fn kept_files_of_keras() {
    replay("keras", targets::keras::run);
}

/// Bytes that are lengths and addresses replace bytes of the seeds.
#[cfg(feature = "keras")]
#[test]
fn altered_files_of_keras() {
    let rng = &mut StdRng::seed_from_u64(0);
    for (path, seed) in super::kept("keras") {
        for _ in 0..1000 {
            let mut file = seed.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..file.len());
                file[at] = [0, 1, 2, 3, 8, 0x10, 0x7f, 0x80, 0xff, rng.random()][rng.random_range(0..10)];
            }
            if let Err(message) = targets::panic_of(|| targets::keras::run(&file)) {
                panic!("{}: {}: {message}", path.display(), file.escape_ascii());
            }
        }
    }
}

/// Operations of pickles replace bytes of the seeds.
#[cfg(feature = "pytorch")]
#[test]
fn altered_files_of_pytorch() {
    let pieces: [&[u8]; 20] = [
        b"(",
        b"t",
        b"}",
        b"u",
        b"]",
        b"e",
        b"R",
        b"Q",
        b"b",
        b".",
        b"\x85",
        b"\x86",
        b"h\0",
        b"q\x01",
        b"K\x02",
        b"N",
        b"J\xff\xff\xff\x7f",
        b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"X\x01\0\0\0a",
        b"ctorch\nFloatStorage\n",
    ];
    let rng = &mut StdRng::seed_from_u64(0);
    for (path, seed) in super::kept("pytorch") {
        for _ in 0..1500 {
            let mut file = seed.clone();
            for _ in 0..rng.random_range(1..4) {
                // Most of a file is tensors and padding; its beginning is the pickle.
                let at = rng.random_range(0..=file.len().min(1500));
                let end = (at + rng.random_range(0..6)).min(file.len());
                file.splice(at..end, pieces[rng.random_range(0..pieces.len())].iter().copied());
            }
            if let Err(message) = targets::panic_of(|| targets::pytorch::run(&file)) {
                panic!("{}: {}: {message}", path.display(), file.escape_ascii());
            }
        }
    }
}

#[test]
fn kept_checkpoints() {
    replay("checkpoint", targets::checkpoint::run);
}

#[test]
fn kept_optimizer_states() {
    replay("optimizer_state", targets::optimizer_state::run);
}

#[test]
fn kept_schedules() {
    replay("schedule", targets::schedule::run);
}

#[test]
fn kept_conversions() {
    replay("convert", targets::convert::run);
}

/// Inputs that are made of choices reach everything without a fuzzer.
#[test]
fn random_optimizer_states_and_conversions() {
    let rng = &mut StdRng::seed_from_u64(0);
    for _ in 0..3000 {
        let mut bytes = vec![0; rng.random_range(1..80)];
        rng.fill_bytes(&mut bytes);
        for target in [targets::optimizer_state::run, targets::convert::run] {
            if let Err(message) = targets::panic_of(|| target(&bytes)) {
                panic!("{bytes:?}: {message}");
            }
        }
    }
}

#[test]
#[ignore = "not a test: writes the checkpoints in fuzz/seeds"]
fn writes_checkpoint_seeds() {
    use gradflow::io::{Checkpoint, StateDict};
    use gradflow::layers::Linear;
    use gradflow::ndarray::arr1;
    use gradflow::optim::{AdamW, Optimizer, Schedule, Sgd, WeightAverage};

    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut model = Linear::<f32>::new(2, 1, &mut StdRng::seed_from_u64(0));
    let grad = model.clone();
    let mut optimizers: [(&str, Box<dyn Optimizer<f32>>); 2] =
        [("sgd", Box::new(Sgd::new(0.1).momentum(0.5))), ("adamw", Box::new(AdamW::new(0.01)))];
    for (name, optimizer) in &mut optimizers {
        optimizer.step(&mut model, &grad);
        let checkpoint = Checkpoint::new().with_tensors("model", &model).with_optimizer(&**optimizer);
        checkpoint.save(folder.join("checkpoint").join(*name)).unwrap();
        let all = checkpoint.with_tensors("state", &arr1(&[1.0, 2.0, 3.0])).with_schedule(&Schedule::constant(0.1));
        let all = all.with_number("step", 7).with_number("seed", u64::MAX).with_metadata("note", "a note");
        all.save(folder.join("checkpoint").join(format!("{name}_all"))).unwrap();
    }
    let mut average = WeightAverage::ema(0.5);
    average.update(&model).unwrap();
    Checkpoint::new().with_average("average", &average).save(folder.join("checkpoint/average")).unwrap();
    StateDict::of(&model).save(folder.join("checkpoint/no_checkpoint")).unwrap();
}
