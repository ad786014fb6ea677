//! The flags of the example.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::prelude::*;

use crate::common::{Failure, parsed, positive, whole};

/// The text of `--help`.
pub const HELP: &str = "\
Trains a character language model and compares it with n-grams.

    cargo run --release --example char_lm -- [flags]

  --cell rnn|gru|lstm  the recurrent cell [lstm]
  --text FILE          UTF-8 text to learn [a snapshot of this crate's sources]
  --hidden N           features of the cell [256]
  --embedding N        features of a character [48]
  --steps N            updates [6000]
  --batch N            sequences side by side [8]
  --bptt N             steps that a gradient goes back [64]
  --lr X               highest learning rate [0.007]
  --clip X             largest norm of the gradient [1]
  --seed N             of the weights and of the sample [0]
  --temperature X      of the sample: below 1 plays safe [0.7]
  --sample N           characters to write at the end [600]
  --out DIR            where the pictures go [out]
  --save FILE          keep a checkpoint there, up to date at the end and after Ctrl-C
  --save-every N       updates from checkpoint to checkpoint [500]
  --resume FILE        go on with a checkpoint's training, with its settings, to the same bits as uninterrupted
  --sample-only FILE   only write, with a checkpoint's model
  --quick              a few seconds: --steps 1500 --hidden 64, unless given
  --help               this text
";

/// The recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// `RnnCell`
    Rnn,
    /// `GruCell`
    Gru,
    /// `LstmCell`
    Lstm,
}

impl Cell {
    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Cell::Rnn => "RNN",
            Cell::Gru => "GRU",
            Cell::Lstm => "LSTM",
        }
    }
}

impl FromStr for Cell {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        [Cell::Rnn, Cell::Gru, Cell::Lstm].into_iter().find(|cell| cell.name().to_lowercase() == name).ok_or(())
    }
}

/// The settings that determine the trained model.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The text to learn; `None` is the snapshot.
    pub text: Option<PathBuf>,
    /// The recurrent cell.
    pub cell: Cell,
    /// Features of the cell.
    pub hidden: usize,
    /// Features of a character.
    pub embedding: usize,
    /// The number of updates.
    pub updates: usize,
    /// Sequences in a batch, B.
    pub batch: usize,
    /// Steps that a gradient goes back, T.
    pub bptt: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The largest norm of the gradient.
    pub clip: f64,
    /// The seed of the weights and of the sample.
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            text: None,
            cell: Cell::Lstm,
            hidden: 256,
            embedding: 48,
            updates: 6000,
            batch: 8,
            bptt: 64,
            learning_rate: 7e-3,
            clip: 1.0,
            seed: 0,
        }
    }
}

impl Training {
    /// As flags: those that determine the model's shape, then the others.
    fn flags(&self) -> [(&'static str, String); 9] {
        [
            ("cell", self.cell.name().to_lowercase()),
            ("hidden", self.hidden.to_string()),
            ("embedding", self.embedding.to_string()),
            ("batch", self.batch.to_string()),
            ("steps", self.updates.to_string()),
            ("bptt", self.bptt.to_string()),
            ("lr", self.learning_rate.to_string()),
            ("clip", self.clip.to_string()),
            ("seed", self.seed.to_string()),
        ]
    }

    /// As a command line, one flag a line.
    pub fn command_line(&self) -> String {
        let flags = self.flags().map(|(name, value)| format!("--{name}={value}"));
        let text = self.text.as_ref().and_then(|text| text.to_str()).map(|text| format!("--text={text}"));
        Vec::from_iter(flags.into_iter().chain(text)).join("\n")
    }

    /// The first difference, as a sentence. The text's name does not count: its contents are compared.
    pub fn difference(&self, saved: &Training) -> Option<String> {
        let mut pairs = self.flags().into_iter().zip(saved.flags());
        let differing = pairs.find(|(here, there)| here != there);
        differing.map(|((name, here), (_, there))| format!("saved with --{name} {there}, not --{name} {here}"))
    }
}

/// What the model starts from.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// Random weights.
    Fresh,
    /// A checkpoint, to train on.
    Resume(PathBuf),
    /// A checkpoint, to write only.
    SampleOnly(PathBuf),
}

/// All flags.
pub struct Settings {
    /// The settings that determine the trained model.
    pub training: Training,
    /// The temperature of the sample.
    pub temperature: f64,
    /// The number of characters to write.
    pub sample: usize,
    /// The folder of the pictures.
    pub out: PathBuf,
    /// What the model starts from.
    pub start: Start,
    /// The checkpoint's file.
    pub save: Option<PathBuf>,
    /// Updates between two checkpoints.
    pub save_every: usize,
}

impl Settings {
    /// Parses a command line; `None` if it asks for help.
    ///
    /// # Errors
    /// If a flag is unknown, has no good value, or makes no sense beside another.
    pub fn parse(arguments: Vec<OsString>) -> Result<Option<Self>, Failure> {
        let mut training = Training::default();
        let (mut temperature, mut sample, mut out) = (0.7, 600, None);
        let (mut resume, mut sample_only, mut save, mut save_every) = (None, None, None, None);
        let (mut quick, mut hidden, mut updates) = (false, None, None);
        let parser = &mut lexopt::Parser::from_args(arguments);
        while let Some(flag) = parser.next()? {
            match flag {
                Long("cell") => training.cell = parsed(parser, "cell", "rnn, gru or lstm", |_| true)?,
                Long("text") => training.text = Some(parser.value()?.into()),
                Long("hidden") => hidden = Some(whole(parser, "hidden", 1..=4096)?),
                Long("embedding") => training.embedding = whole(parser, "embedding", 1..=4096)?,
                Long("steps") => updates = Some(whole(parser, "steps", 1..=1_000_000)?),
                Long("batch") => training.batch = whole(parser, "batch", 1..=1024)?,
                Long("bptt") => training.bptt = whole(parser, "bptt", 1..=1024)?,
                Long("lr") => training.learning_rate = positive(parser, "lr")?,
                Long("clip") => training.clip = positive(parser, "clip")?,
                Long("seed") => training.seed = whole(parser, "seed", 0..=u64::MAX)?,
                Long("temperature") => temperature = positive(parser, "temperature")?,
                Long("sample") => sample = whole(parser, "sample", 1..=1_000_000)?,
                Long("out") => out = Some(parser.value()?.into()),
                Long("save") => save = Some(parser.value()?.into()),
                Long("save-every") => save_every = Some(whole(parser, "save-every", 1..=1_000_000)?),
                Long("resume") => resume = Some(parser.value()?.into()),
                Long("sample-only") => sample_only = Some(parser.value()?.into()),
                Long("quick") => quick = true,
                Long("help") | Short('h') => return Ok(None),
                unexpected => return Err(unexpected.unexpected().into()),
            }
        }
        let idle = [
            ("resume", resume.is_some()),
            ("save", save.is_some()),
            ("save-every", save_every.is_some()),
            ("out", out.is_some()),
            ("quick", quick),
        ];
        if let (Some(_), Some((flag, _))) = (&sample_only, idle.iter().find(|(_, given)| *given)) {
            return Err(Failure::Usage(format!("--sample-only does not train: --{flag} makes no sense with it")));
        }
        if save.is_none() && save_every.is_some() {
            return Err(Failure::Usage("--save-every makes no sense without --save".into()));
        }
        let start = match (resume, sample_only) {
            (_, Some(file)) => Start::SampleOnly(file),
            (Some(file), None) => Start::Resume(file),
            (None, None) => Start::Fresh,
        };
        training.hidden = hidden.unwrap_or(if quick { 64 } else { training.hidden });
        training.updates = updates.unwrap_or(if quick { 1500 } else { training.updates });
        let (out, save_every) = (out.unwrap_or_else(|| "out".into()), save_every.unwrap_or(500));
        Ok(Some(Settings { training, temperature, sample, out, start, save, save_every }))
    }
}
