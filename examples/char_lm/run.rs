//! A training as a value: everything that changes with an update, saved to a file and loaded from it.

use std::fs::File;
use std::path::Path;

use gradflow::io::{Checkpoint, LoadError};
use gradflow::{
    Layer,
    optim::{AdamW, Schedule},
    rand::Rng,
    wrap::GradientProbe,
};

use crate::CharLm;
use crate::common::Failure;
use crate::corpus::{Corpus, Readers};
use crate::curve::Curve;
use crate::settings::{Settings, Training};

/// Everything that a training needs to continue, with its corpus and settings.
pub struct Run<'a> {
    pub corpus: &'a Corpus,
    pub training: &'a Training,
    pub model: CharLm,
    pub optimizer: AdamW<f32>,
    pub schedule: Schedule,
    /// The recurrent state, carried from batch to batch.
    pub state: <CharLm as Layer>::State,
    pub readers: Readers<'a>,
    pub curve: Curve,
}

impl<'a> Run<'a> {
    /// A training before its first update.
    pub fn new(corpus: &'a Corpus, training: &'a Training, probe: &GradientProbe, rng: &mut impl Rng) -> Self {
        let Training { batch, bptt, updates, learning_rate, .. } = *training;
        let model = CharLm::new(corpus.classes(), training, probe, rng);
        let (updates, warm_up) = (updates as u64, (updates as u64 / 20).max(1));
        let falling = Schedule::cosine(learning_rate, (updates - warm_up).max(1), 0.0);
        Run {
            corpus,
            training,
            optimizer: AdamW::new(learning_rate).weight_decay(0.1),
            schedule: falling.warm_up(warm_up, 0.5 / warm_up as f64),
            state: model.zero_state(batch),
            readers: Readers::new(corpus.train(), bptt, batch),
            curve: Curve::new(batch * bptt),
            model,
        }
    }

    /// How many updates were done.
    pub fn updates(&self) -> usize {
        self.curve.updates()
    }

    /// Saves everything. (Weights and sample are drawn from the seed, which is among the settings; training draws
    /// nothing.)
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let checkpoint = Checkpoint::new()
            .with_tensors("model", &self.model)
            .with_tensors("state", &self.state)
            .with_optimizer(&self.optimizer)
            .with_schedule(&self.schedule)
            .with_number("updates", self.updates() as u64)
            .with_number("place", self.readers.place() as u64)
            .with_number("text", self.corpus.fingerprint())
            .with_metadata("vocabulary", self.corpus.vocabulary())
            .with_metadata("settings", self.training.command_line());
        Ok(self.curve.saved(checkpoint).save(path)?)
    }

    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// If the checkpoint is of another text or lacks something.
    pub fn resume(&mut self, checkpoint: &Checkpoint) -> Result<(), Misfit> {
        same_vocabulary(checkpoint, self.corpus)?;
        if checkpoint.number("text")? != self.corpus.fingerprint() {
            return Err(Misfit("saved with another text".into()));
        }
        checkpoint.load_training("model", &mut self.model, &mut self.optimizer)?;
        checkpoint.load_tensors("state", &mut self.state).map_err(LoadError::from)?;
        self.schedule = checkpoint.schedule()?;
        self.readers.go_to(checkpoint.number("place")? as usize);
        Ok(self.curve.load(checkpoint, checkpoint.number("updates")? as usize)?)
    }

    /// Takes a checkpoint's model, for the sample.
    ///
    /// # Errors
    /// If the checkpoint is of another vocabulary or has no such model.
    pub fn load_model(&mut self, checkpoint: &Checkpoint) -> Result<(), Misfit> {
        same_vocabulary(checkpoint, self.corpus)?;
        Ok(checkpoint.load_tensors("model", &mut self.model).map_err(LoadError::from)?)
    }
}

/// An error in a checkpoint, in one line.
pub struct Misfit(String);

impl From<LoadError> for Misfit {
    fn from(error: LoadError) -> Self {
        Misfit(error.to_string().replace("\n  ", "; "))
    }
}

impl Misfit {
    /// The failure, with the name of the checkpoint's file.
    pub fn of(self, path: &Path) -> Failure {
        in_file(path, self.0)
    }
}

fn same_vocabulary(checkpoint: &Checkpoint, corpus: &Corpus) -> Result<(), Misfit> {
    let same = checkpoint.metadata("vocabulary") == Some(&corpus.vocabulary());
    if same { Ok(()) } else { Err(Misfit("saved with another text: the vocabulary differs".into())) }
}

/// Opens a checkpoint and the settings it was saved with.
///
/// # Errors
/// If the file is missing, damaged or no checkpoint of this program.
pub fn open(path: &Path) -> Result<(Checkpoint, String), Failure> {
    let checkpoint = Checkpoint::open(path).map_err(|error| match error {
        LoadError::Io(error) => Failure::from(error), // It names the file.
        error => Misfit::from(error).of(path),
    })?;
    let settings = checkpoint.metadata("settings").map(str::to_owned);
    let settings =
        settings.filter(|line| matches!(Settings::parse(line.lines().map(Into::into).collect()), Ok(Some(_))));
    let settings = settings.ok_or_else(|| in_file(path, "not a checkpoint of this program"))?;
    Ok((checkpoint, settings))
}

/// Checks early whether a checkpoint can be written, without changing an existing file.
///
/// # Errors
/// If it cannot.
pub fn check_writable(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let file = folder.and_then(|()| File::options().append(true).create(true).open(path));
    file.map(drop).map_err(|error| in_file(path, error))
}

fn in_file(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Run(format!("{}: {error}", path.display()))
}
