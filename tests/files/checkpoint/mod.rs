//! State dicts and checkpoints: saved values are restored to the bit, a training continues as if it had not been interrupted, and
//! neither a crash, nor a full disk, nor a damaged file does harm.

mod damage;
mod saving;
mod state_dict;
mod training;

use std::fs;
use std::io;
use std::path::PathBuf;

use gradflow::io::Checkpoint;
use gradflow::ndarray::arr2;
use gradflow::{
    Float,
    layers::{Embedding, Linear},
    optim::{Optimizer, Schedule, Sgd},
    recurrent::{LstmCell, LstmState},
};

use crate::common::{rng, temporary};

/// A new, empty folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = temporary(&format!("checkpoint-{name}"));
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

fn bytes(save: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    save(&mut bytes).unwrap();
    bytes
}

type Model<F> = (Embedding<F>, LstmCell<F>, Linear<F>);

fn model<F: Float>(seed: u64) -> Model<F> {
    let rng = &mut rng(seed);
    (Embedding::new(5, 3, rng), LstmCell::new(3, 4, rng), Linear::new(4, 5, rng))
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
