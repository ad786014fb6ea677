//! State dicts and checkpoints: what was saved comes back to the bit, a training goes on as if it had not been
//! interrupted, and neither a crash, nor a full disk, nor a damaged file does harm.
#![cfg(feature = "safetensors")]

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gradflow::io::{Checkpoint, LoadError, LoadOptions, Mismatch, StateDict};
use gradflow::ndarray::{Array1, Array2, Array3, ArrayD, arr1, arr2, s};
use gradflow::rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use gradflow::{
    Adagrad, Adam, AdamW, Embedding, Float, GruCell, Layer, Linear, LstmCell, LstmState, NamedTensors, Optimizer,
    OptimizerStateError, RmsProp, Schedule, Sgd, SoftmaxCrossEntropy, Stacked, Tensors, TensorsExt, clip_grad_norm,
};

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// A new, empty folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("gradflow-checkpoint-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Every element's bits.
fn bits<F: Float>(tensors: &(impl Tensors<F> + ?Sized)) -> Vec<u64> {
    (0..tensors.count()).flat_map(|i| tensors.values(i).iter().map(|value| value.bits()).collect::<Vec<_>>()).collect()
}

fn bytes(save: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    save(&mut bytes).unwrap();
    bytes
}

fn panic_of<R>(act: impl FnOnce() -> R) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(act)) else { panic!("expected a panic") };
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().expect("a message").to_string(),
    }
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in {message:?}");
    }
}

type Model<F> = (Embedding<F>, LstmCell<F>, Linear<F>);

fn model<F: Float>(seed: u64) -> Model<F> {
    let rng = &mut rng(seed);
    (Embedding::new(5, 3, rng), LstmCell::new(3, 4, rng), Linear::new(4, 5, rng))
}

// State dicts.

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
    // Quiet and signalling NaN with payloads, infinities, both zeros, the smallest number.
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
    // One bit of one value, the sign of a zero, makes another dict.
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
    // Aligned, so that a file in memory can be used in place.
    for name in header.tensors().into_values() {
        assert_eq!(name.data_offsets.0 % (name.dtype.bitsize() / 8), 0);
    }
    assert_eq!(u64::from_le_bytes(file[..8].try_into().unwrap()) % 8, 0);
    assert_eq!(StateDict::read_from(&file[..]).unwrap(), dict);
    let empty = bytes(|file| StateDict::new().save_to(file));
    assert_eq!(StateDict::read_from(&empty[..]).unwrap(), StateDict::new());
}

/// A dict that fits a `Linear<f64>` of 3 to 2 in nothing.
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

    // Lenient or not, another shape or type is an error; the one with the other does not hide it.
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
    // What is of the right type already is not touched.
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch_lstm.safetensors");
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
    let y = net.forward((&x).into(), &mut net.zero_state(2), &mut net.cache()).to_owned();
    let error = (&y - &expected).iter().fold(0.0_f32, |largest, error| largest.max(error.abs()));
    assert!(error < 1e-6, "{error}");

    // One cell from one layer of the two: the other one's tensors are in the file and have no use.
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

    // An integer is no parameter, and it survives being saved again.
    let error = dict.load_with(&LoadOptions::new().prefix("batches").convert(), &mut ArrayD::<f32>::zeros(vec![]));
    assert_eq!(
        error.unwrap_err().to_string(),
        "the file does not fit the model\n  batches: expected type F32, found I64"
    );
    assert_eq!(StateDict::read_from(&bytes(|file| dict.save_to(file))[..]).unwrap(), dict);
}

// Trainings.

/// Trains on batches that only `seed` and the step determine, with a carried state; the losses' bits.
fn train(
    model: &mut Model<f32>,
    optimizer: &mut dyn Optimizer<f32>,
    schedule: &Schedule,
    state: &mut <Model<f32> as Layer>::State,
    seed: u64,
    steps: Range<u64>,
) -> Vec<u64> {
    let (mut cache, mut grad, mut dlogits) = (model.cache(), model.zeros_like(), Array3::default((0, 0, 0)));
    let step = |step| {
        let rng = &mut rng(seed.wrapping_add(step));
        let ids = Array2::from_shape_simple_fn((7, 2), || rng.random_range(0..5));
        let pass = model.pass(ids.slice(s![..6, ..]), state, &mut cache);
        let loss = SoftmaxCrossEntropy::new().evaluate(&pass.output(), &ids.slice(s![1.., ..]), None, &mut dlogits);
        grad.set_zero();
        pass.backward(&dlogits, &mut grad);
        clip_grad_norm(&mut grad, 1.0).unwrap();
        optimizer.set_learning_rate(schedule.learning_rate(step));
        optimizer.step(model, &grad);
        loss.to_bits()
    };
    steps.map(step).collect()
}

#[test]
fn a_training_goes_on_to_the_bit() {
    let folder = Folder::new("training");
    type New = fn() -> Box<dyn Optimizer<f32>>;
    let optimizers: [New; 6] = [
        || Box::new(Sgd::new(0.1).momentum(0.9).nesterov()),
        || Box::new(Sgd::new(0.1)),
        || Box::new(Adam::new(0.01)),
        || Box::new(AdamW::new(0.01).betas(0.9, 0.99)),
        || Box::new(Adagrad::new(0.1)),
        || Box::new(RmsProp::new(0.01).momentum(0.5)),
    ];
    for (k, optimizer) in optimizers.iter().enumerate() {
        let path = folder.path(&format!("{k}.safetensors"));
        let (schedule, seed) = (Schedule::cosine(0.03, 40, 1e-3).warm_up(5, 0.1), u64::MAX - 1);
        let (mut reference, mut stepping) = (model::<f32>(0), optimizer());
        let mut state = reference.zero_state(2);
        train(&mut reference, &mut *stepping, &schedule, &mut state, seed, 0..10);
        Checkpoint::new()
            .with_tensors("model", &reference)
            .with_tensors("state", &state)
            .with_optimizer(&*stepping)
            .with_schedule(&schedule)
            .with_number("seed", seed)
            .with_number("step", 10)
            .with_metadata("note", "a line\nand another")
            .save(&path)
            .unwrap();
        let losses = train(&mut reference, &mut *stepping, &schedule, &mut state, seed, 10..20);

        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.metadata("note"), Some("a line\nand another"));
        assert_eq!(checkpoint.schedule().unwrap(), schedule);
        let (seed, step) = (checkpoint.number("seed").unwrap(), checkpoint.number("step").unwrap());
        let (mut resumed, mut resumed_stepping) = (model::<f32>(99), optimizer());
        let mut resumed_state = resumed.zero_state(2);
        checkpoint.load_training("model", &mut resumed, &mut *resumed_stepping).unwrap();
        checkpoint.load_tensors("state", &mut resumed_state).unwrap();
        let schedule = checkpoint.schedule().unwrap();
        assert_eq!(
            train(&mut resumed, &mut *resumed_stepping, &schedule, &mut resumed_state, seed, step..20),
            losses,
            "optimizer {k}"
        );
        assert_eq!(bits(&resumed), bits(&reference));
        assert_eq!(bits(&resumed_state), bits(&state));
        let (state, resumed_state) = (stepping.state(), resumed_stepping.state());
        assert_eq!((resumed_state.steps, &resumed_state.settings), (20, &state.settings));
        assert_eq!(bits(&resumed_state.tensors), bits(&state.tensors));

        // Each part counts: without the optimizer's state, or without the carried one, the numbers are others.
        for (with_optimizer, with_state) in [(false, true), (true, false)] {
            let (mut model, mut stepping) = (model::<f32>(99), optimizer());
            let mut state = model.zero_state(2);
            checkpoint.load_tensors("model", &mut model).unwrap();
            if with_optimizer {
                checkpoint.load_optimizer(&model, &mut *stepping).unwrap();
            }
            if with_state {
                checkpoint.load_tensors("state", &mut state).unwrap();
            }
            let others = train(&mut model, &mut *stepping, &schedule, &mut state, seed, step..20);
            let remembers_nothing = k == 1 && !with_optimizer;
            assert_eq!(others == losses, remembers_nothing, "optimizer {k}, {with_optimizer}, {with_state}");
        }
    }
}

#[test]
fn what_a_checkpoint_lacks_is_named_and_nothing_changes() {
    let (saved, schedule) = (model::<f32>(0), Schedule::constant(0.1));
    let mut stepping = AdamW::new(0.1);
    let (mut stepped, grad) = (saved.clone(), saved.clone());
    stepping.step(&mut stepped, &grad);
    let whole = Checkpoint::new().with_tensors("model", &saved).with_optimizer(&stepping);
    let before = model::<f32>(1);
    let (mut model, mut optimizer) = (before.clone(), AdamW::new(0.3));

    assert_says(&whole.schedule().unwrap_err().to_string(), &["has no gradflow.schedule"]);
    assert_says(&whole.number("seed").unwrap_err().to_string(), &["has no gradflow.number.seed"]);
    assert_eq!(whole.metadata("note"), None);
    assert_eq!(whole.load_tensors::<f32>("state", &mut ()), Ok(()));
    let error = whole.load_tensors("average", &mut model).unwrap_err();
    assert_eq!((error.missing.len(), error.missing[0].as_str()), (model.count(), "average.0.weight"));
    let without = Checkpoint::new().with_tensors("model", &saved).with_schedule(&schedule);
    let error = without.load_training("model", &mut model, &mut optimizer).unwrap_err();
    assert!(matches!(&error, LoadError::Absent { key } if key == "gradflow.optimizer.kind"), "{error}");
    let error = whole.load_training("average", &mut model, &mut optimizer).unwrap_err();
    assert!(matches!(error, LoadError::Mismatch(Mismatch { .. })), "{error}");
    let error = whole.load_training("model", &mut model, &mut Sgd::new(0.1)).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(OptimizerStateError::Kind { .. })), "{error}");
    let error = whole.load_training("model", &mut model, &mut AdamW::new(0.1).eps(1e-3)).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(OptimizerStateError::Setting { .. })), "{error}");
    // The optimizer of a model with the same names in other shapes, and one in another type.
    let wider = Linear::<f32>::new(3, 2, &mut rng(0));
    let error = whole.load_optimizer(&wider, &mut optimizer).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(OptimizerStateError::MissingTensor { .. })), "{error}");
    let error = whole.load_optimizer(&self::model::<f64>(0), &mut AdamW::new(0.1)).unwrap_err();
    assert_says(&error.to_string(), &["optimizer.exp_avg.1.weight_hh: expected type F64, found F32"]);

    assert_eq!(bits(&model), bits(&before));
    assert_eq!((optimizer.state().steps, optimizer.learning_rate()), (0, 0.3));
    whole.load_training("model", &mut model, &mut optimizer).unwrap();
    assert_eq!(bits(&model), bits(&saved));
    assert_eq!((optimizer.state().steps, optimizer.learning_rate()), (1, 0.1));
}

// Writing.

/// Takes so many bytes, one or a few at a time and now and then interrupted, then fails.
struct Failing {
    taken: Vec<u8>,
    most: usize,
    kind: ErrorKind,
    calls: usize,
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(ErrorKind::Interrupted.into());
        }
        let taken = bytes.len().min(1 + self.calls % 40).min(self.most - self.taken.len());
        self.taken.extend_from_slice(&bytes[..taken]);
        if taken == 0 && !bytes.is_empty() { Err(self.kind.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn small_checkpoint() -> Checkpoint {
    let mut model = Linear::<f32>::new(2, 1, &mut rng(0));
    let mut optimizer = Sgd::new(0.1).momentum(0.5);
    let grad = model.clone();
    optimizer.step(&mut model, &grad);
    Checkpoint::new()
        .with_tensors("model", &model)
        .with_tensors("state", &LstmState { h: arr2(&[[0.5_f32]]), c: arr2(&[[f32::NAN]]) })
        .with_optimizer(&optimizer)
        .with_schedule(&Schedule::constant(0.1))
        .with_number("a", 1)
        .with_number("c", 2)
        .with_metadata("note", "x")
}

#[test]
fn a_writer_that_fails_after_any_number_of_bytes_is_reported() {
    let checkpoint = small_checkpoint();
    let whole = bytes(|file| checkpoint.save_to(file));
    for kind in [ErrorKind::StorageFull, ErrorKind::BrokenPipe] {
        for most in 0..whole.len() {
            let mut writer = Failing { taken: Vec::new(), most, kind, calls: 0 };
            assert_eq!(checkpoint.save_to(&mut writer).unwrap_err().kind(), kind);
            assert_eq!(writer.taken, whole[..most]);
        }
    }
    // Short and interrupted writes alone do no harm.
    let mut writer = Failing { taken: Vec::new(), most: whole.len(), kind: ErrorKind::Other, calls: 0 };
    checkpoint.save_to(&mut writer).unwrap();
    assert_eq!(writer.taken, whole);
    println!("{} failing writers", 2 * whole.len());
}

#[test]
fn places_that_cannot_be_written_are_named_and_left_alone() {
    let folder = Folder::new("places");
    let checkpoint = small_checkpoint();
    let is_a_folder = folder.path("folder");
    fs::create_dir_all(is_a_folder.join("not-empty")).unwrap();
    fs::write(folder.path("file"), b"a file").unwrap();
    let before = folder.names();
    for path in [is_a_folder, folder.path("missing/model"), folder.path("file/model"), folder.path(".."), "".into()] {
        let error = checkpoint.save(&path).unwrap_err();
        assert_says(&error.to_string(), &[path.to_str().unwrap()]);
        let error = checkpoint.state_dict().save(&path).unwrap_err();
        assert_says(&error.to_string(), &[path.to_str().unwrap()]);
    }
    assert_eq!(folder.names(), before);
    assert_eq!(fs::read(folder.path("file")).unwrap(), b"a file");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_and_a_read_only_one_are_reported() {
    let error = small_checkpoint().save_to(fs::File::create("/dev/full").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    // Not even root can write here.
    assert_says(&small_checkpoint().save("/proc/model.safetensors").unwrap_err().to_string(), &["/proc/model"]);
}

/// The state number `k` of the process that is killed: about a megabyte that only `k` determines.
fn state_number(k: u64) -> Checkpoint {
    let values = Array1::from_elem(1 << 18, k as f32);
    Checkpoint::new().with_tensors("model", &values).with_number("k", k)
}

#[test]
#[ignore = "not a test: the process that `a_process_killed_while_saving_leaves_a_whole_file` starts and kills"]
fn saves_until_killed() {
    let Some(path) = std::env::var_os("GRADFLOW_SAVES_UNTIL_KILLED") else { return };
    for k in 0.. {
        state_number(k).save(&path).unwrap();
        println!("\nsaved {k}");
    }
}

/// The file is always whole, and holds the last state whose saving was reported, or the one after it.
#[test]
fn a_process_killed_while_saving_leaves_a_whole_file() {
    let kills: u64 = std::env::var("GRADFLOW_KILLS").map_or(25, |kills| kills.parse().unwrap());
    let (mut cut_short, mut saved) = (0, 0);
    let rng = &mut rng(u64::from(std::process::id()));
    for _ in 0..kills {
        let folder = Folder::new("killed");
        let path = folder.path("model.safetensors");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["saves_until_killed", "--exact", "--ignored", "--nocapture"])
            .env("GRADFLOW_SAVES_UNTIL_KILLED", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut reported =
            lines.filter_map(|line| line.unwrap().strip_prefix("saved ").map(|k| k.parse::<u64>().unwrap()));
        assert_eq!(reported.next(), Some(0));
        std::thread::sleep(Duration::from_micros(rng.random_range(0..40_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = reported.last().unwrap_or(0);
        let checkpoint = Checkpoint::open(&path).unwrap();
        let k = checkpoint.number("k").unwrap();
        assert!(k == last || k == last + 1, "{k} after {last}");
        assert_eq!(checkpoint, state_number(k));
        saved += k + 1;
        cut_short += u64::from(folder.names().len() > 1);
        // What was left behind is not in the way.
        state_number(k + 1).save(&path).unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap(), state_number(k + 1));
    }
    println!("{kills} kills, {cut_short} of them in the middle of a file, {saved} files saved");
    assert!(cut_short > 0, "no kill hit a file being written");
}

// Bad files.

/// A safetensors file with this header.
fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Reads a file that may be bad: a panic or an allocation out of proportion fails.
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
        Err(LoadError::Malformed { reason }) => reason,
        other => panic!("expected Malformed, got {other:?}"),
    }
}

#[test]
fn a_truncated_or_extended_file_is_refused_wherever_it_ends() {
    let checkpoint = small_checkpoint();
    let mut whole = bytes(|file| checkpoint.save_to(file));
    for length in 0..whole.len() {
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

/// A state dict has no checksum, but a model that takes it has its own names, shapes and types.
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
    // Colons, braces and quotes in strings are no keys.
    let tricky = format!(r#"{{"__metadata__":{{"\":{{\\":"\"a\":"}},"\"a\":{{}}\\":{a}}}"#);
    assert_eq!(
        StateDict::read_from(&file_of(&tricky, &zeros[..8])[..]).unwrap().names().collect::<Vec<_>>(),
        [r#""a":{}\"#]
    );
    let mut not_utf_8 = good.clone();
    not_utf_8[10] = 0xff;
    assert_malformed(&not_utf_8);
    let lengths = [u64::MAX, u64::MAX - 7, 1 << 63, 100_000_001, 100_000_000, good.len() as u64, 1, 0];
    for length in lengths {
        let mut file = good.clone();
        file[..8].copy_from_slice(&length.to_le_bytes());
        assert_malformed(&file);
    }
    println!("{} bad headers", bad_headers.len() + 1 + lengths.len());
}

#[test]
fn tensors_of_other_types_are_named() {
    for (dtype, size) in [("I64", 8), ("F16", 2), ("BF16", 2), ("I32", 4), ("BOOL", 1), ("F8_E4M3", 1), ("C64", 8)] {
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
}

#[test]
fn what_is_no_checkpoint_says_so() {
    let no_checkpoint = bytes(|file| StateDict::of(&arr1(&[1.0])).save_to(file));
    assert!(matches!(Checkpoint::read_from(&no_checkpoint[..]), Err(LoadError::NotACheckpoint)));
    let with = |metadata: &[(&str, &str)]| {
        let dict = metadata.iter().fold(StateDict::new(), |dict, &(key, value)| dict.with_metadata(key, value));
        Checkpoint::read_from(&bytes(|file| dict.save_to(file))[..])
    };
    let error = with(&[("gradflow.format", "2")]).unwrap_err();
    assert_eq!(error.to_string(), "a checkpoint of format 2, where format 1 is known");
    assert!(matches!(with(&[("gradflow.format", "1")]), Err(LoadError::Absent { .. })));
    let error = with(&[("gradflow.format", "1"), ("gradflow.checksum", "0000000000000000")]).unwrap_err();
    assert!(matches!(error, LoadError::Checksum { .. }), "{error}");

    // Right checksums over values that make no sense: only somebody who computes them can make such a file.
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
                assert_eq!(error.kind(), kind);
                assert_says(&error.to_string(), &[path.to_str().unwrap()]);
            }
            other => panic!("{other:?}"),
        }
    }
    let file = folder.path("text");
    fs::write(&file, "a text of more than a few bytes, and no safetensors file").unwrap();
    assert!(matches!(StateDict::open(&file), Err(LoadError::Malformed { .. })));
    // What cannot be a safetensors file is not read to its end, which need not exist.
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
