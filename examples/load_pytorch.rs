//! A model trained with PyTorch, loaded under its own names and run.
//!
//! ```text
//! cargo run --release --example load_pytorch
//! ```
//!
//! `examples/data/make_pytorch.py` wrote the two files: the state dict of a small character model (`nn.Embedding`,
//! `nn.LSTM`, `nn.Linear`), and what PyTorch computes with it.
//!
//! Claim: this crate computes the same, to the rounding of `f32`; a part of the file can be loaded alone, by its prefix; and a file
//! that does not fit is refused with one line, and leaves the model unchanged.

#[path = "common/mod.rs"]
mod common;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gradflow::io::{LoadError, LoadOptions, StateDict};
use gradflow::ndarray::{Array, Array2, Array3, ArrayD, Axis, Dimension, arr2, s};
use gradflow::rand::distr::{Distribution, weighted::WeightedIndex};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    Causal, Layer, Sequence,
    layers::{Embedding, Linear},
    recurrent::LstmCell,
    sequential,
};

use common::{Claims, Failure, Flag, Settings};

/// The largest difference of two results, relative to the largest of them, that counts as rounding: `f32` has 7 digits.
const ROUNDING: f32 = 1e-5;

/// The sizes of the PyTorch module.
const EMBEDDING: usize = 12;
const HIDDEN: usize = 36;

sequential! {
    /// Logits of the next character; the fields have the names of the PyTorch module's.
    #[derive(Clone, Debug)]
    struct Model: Layer<f32> {
        embedding: Embedding<f32>,
        lstm: LstmCell<f32>,
        head: Linear<f32>,
    }
}

impl Model {
    /// A model whose weights will be loaded.
    fn zeros(vocabulary: usize, hidden: usize) -> Self {
        Model {
            embedding: Embedding::zeros(vocabulary, EMBEDDING),
            lstm: LstmCell::zeros(EMBEDDING, hidden),
            head: Linear::zeros(hidden, vocabulary),
        }
    }

    /// Loads the state dict of the PyTorch module from a file.
    fn load(&mut self, path: &Path) -> Result<(), LoadError> {
        // The only difference: an `nn.LSTM` numbers its layers, `lstm.weight_ih_l0`.
        let torch = |name: &str| if name.starts_with("lstm.") { format!("{name}_l0") } else { name.into() };
        StateDict::open(path)?.load_with(&LoadOptions::new().rename(torch), self)?;
        Ok(())
    }
}

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let own = Flag { name: "file", value: "FILE", help: "a state dict [examples/data/pytorch_model.safetensors]" };
    let settings = Settings::parse("Loads a PyTorch model and compares what it computes.", &[own])?;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let (model_file, outputs_file) = (data.join("pytorch_model.safetensors"), data.join("pytorch_outputs.safetensors"));
    let model_file: PathBuf = settings.get("file", "a path", |_| true, model_file)?;

    let outputs = StateDict::open(&outputs_file).map_err(|error| refused(&outputs_file, error))?;
    let vocabulary: Vec<char> = outputs.metadata().get("vocabulary").map_or("", |text| text).chars().collect();
    let ids: Array2<usize> = tensor(&outputs, "ids")?.mapv(|id| id as usize); // [T, B]
    let logits: Array3<f32> = tensor(&outputs, "logits")?; // [T, B, V]
    let (h, c): (Array2<f32>, Array2<f32>) = (tensor(&outputs, "h")?, tensor(&outputs, "c")?); // [B, H]

    let mut model = Model::zeros(vocabulary.len(), HIDDEN);
    model.load(&model_file).map_err(|error| refused(&model_file, error))?;
    let mut claims = Claims::new(&settings);
    let mut same = |what: &str, difference: f32| {
        let (expected, here) = (format!("at most {ROUNDING:.0e} of the largest"), format!("{difference:.0e}"));
        claims.check(format!("{what}: from PyTorch's"), "", expected, here, difference <= ROUNDING);
    };

    // The whole sequence at once.
    let batch = ids.ncols();
    let (mut state, mut cache) = (model.zero_state(batch), model.cache());
    let y = model.forward(Sequence::from(&ids).infer(), &mut state, &mut cache);
    println!("logits {:?} of {}\n", logits.shape(), model_file.display());
    println!("PyTorch's first logits: {:8.5}", logits.slice(s![0, 0, ..6]));
    println!("this crate's:           {:8.5}", y.slice(s![0, 0, ..6]));
    same("logits", difference(&y.to_owned(), &logits));
    same("h after the last step", difference(&state.1.h, &h));
    same("c after the last step", difference(&state.1.c, &c));

    // The same on a stream, step by step.
    let mut state = model.zero_state(batch);
    let steps = ids.axis_chunks_iter(Axis(0), 1).zip(logits.outer_iter());
    let stream =
        steps.map(|(ids, logits)| difference(&model.step(ids, &mut state, &mut cache).to_owned(), &logits.to_owned()));
    same("logits, one step at a time", stream.fold(0.0, f32::max));

    // A part of the file, for a model that needs only that.
    let dict = StateDict::open(&model_file).map_err(|error| refused(&model_file, error))?;
    let mut lstm = LstmCell::<f32>::zeros(EMBEDDING, HIDDEN);
    let part = LoadOptions::new().prefix("lstm").rename(|name| format!("{name}_l0"));
    dict.load_with(&part, &mut lstm).map_err(|error| refused(&model_file, error))?;
    let embedded = model.embedding.forward(&ids, &mut (), &mut model.embedding.cache()).to_owned();
    let mut state = lstm.zero_state(batch);
    lstm.forward(Sequence::from(&embedded).infer(), &mut state, &mut lstm.cache());
    same("h after the last step, the part `lstm` alone", difference(&state.h, &h));

    println!("\nThe model goes on by itself:\n");
    println!("{}", speak(&model, &vocabulary, "the gradient ", 300, settings.seed));

    println!("\nFiles that do not fit:");
    for (file, hidden) in [
        (&data.join("absent.safetensors"), HIDDEN),
        (&data.join("make_pytorch.py"), HIDDEN),
        (&outputs_file, HIDDEN),
        (&model_file, HIDDEN + 1),
    ] {
        let mut model = Model::zeros(vocabulary.len(), hidden);
        let (before, name) = (StateDict::of(&model), file.file_name().unwrap_or_default().to_string_lossy());
        let (what, expected) = (format!("{name}, hidden size {hidden}"), "refused, nothing changed");
        let line = model.load(file).err().map(|error| one_line(&error).replace(&format!("{}: ", file.display()), ""));
        println!("  {name}: {}", line.as_deref().unwrap_or("loaded"));
        let holds = line.is_some_and(|line| !line.contains('\n')) && StateDict::of(&model) == before;
        claims.check(what, "", expected, if holds { "so" } else { "not so" }, holds);
    }
    claims.finish()
}

/// A tensor of a file, with the sizes that it has there.
fn tensor<D: Dimension>(dict: &StateDict, name: &str) -> Result<Array<f32, D>, Failure> {
    let misfit = |what: &dyn Display| Failure::Run(format!("pytorch_outputs.safetensors: {name}: {what}"));
    let mut values = ArrayD::zeros(dict.shape(name).ok_or_else(|| misfit(&"missing"))?);
    dict.load_with(&LoadOptions::new().prefix(name), &mut values).map_err(|error| misfit(&one_line(&error)))?;
    values.into_dimensionality().map_err(|error| misfit(&error))
}

/// The largest difference, relative to the largest value of `b`; NaN if there is a NaN.
fn difference<D: Dimension>(a: &Array<f32, D>, b: &Array<f32, D>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let largest = |a: &Array<f32, D>| a.iter().fold(0.0, |most, x| if x.abs() <= most { most } else { x.abs() });
    largest(&(a - b)) / largest(b)
}

/// Reads `text`, then says `count` characters, each drawn from the model's prediction.
fn speak(model: &Model, vocabulary: &[char], text: &str, count: usize, seed: u64) -> String {
    let (mut state, mut cache, mut said) = (model.zero_state(1), model.cache(), text.to_owned());
    let rng = &mut StdRng::seed_from_u64(seed);
    let id = |c| vocabulary.iter().position(|&known| known == c).unwrap_or(0);
    let mut next = text.chars().map(id).collect::<Vec<_>>().into_iter();
    let mut logits = Vec::new();
    for _ in 0..text.len() + count {
        let id = next.next().unwrap_or_else(|| {
            // At a temperature of 0.7, relative to the largest logit, whose exponential might overflow.
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights = logits.iter().map(|&z: &f32| ((z - largest) / 0.7).exp());
            let id = WeightedIndex::new(weights).expect("finite logits").sample(rng);
            said.push(vocabulary[id]);
            id
        });
        logits = model.step(&arr2(&[[id]]), &mut state, &mut cache).row(0).to_vec();
    }
    said
}

/// An error message in one line, however long it is.
fn one_line(error: &impl Display) -> String {
    error.to_string().replace("\n  ", "; ")
}

fn refused(path: &Path, error: impl Display) -> Failure {
    let (path, why) = (path.display().to_string(), one_line(&error));
    // An error of the operating system names the file itself.
    Failure::Run(if why.starts_with(&path) { why } else { format!("{path}: {why}") })
}
