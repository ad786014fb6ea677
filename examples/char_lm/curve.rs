//! How training went, as numbers and as a picture.

use std::fmt;

use gradflow::io::{Checkpoint, LoadError};
use gradflow::ndarray::{Array1, Array2};

use crate::common::Failure;
use crate::common::picture::{Chart, Line, picture};

/// The height of a picture, in pixels.
pub const HEIGHT: u32 = 470;

/// The weight that one update's loss has in the smoothed loss.
const SMOOTHING: f64 = 0.02;

/// The most points that the training curve is drawn with.
const POINTS: usize = 300;

/// Bits per character over characters seen.
pub struct Curve {
    /// Characters of one update.
    stride: usize,
    /// Smoothed training loss after each update.
    training: Vec<f64>,
    /// Validation losses, each with the number of updates before it.
    validation: Vec<(usize, f64)>,
}

impl Curve {
    /// For updates of `stride` characters each.
    pub fn new(stride: usize) -> Self {
        Curve { stride, training: Vec::new(), validation: Vec::new() }
    }

    /// Adds an update's training loss.
    pub fn trained(&mut self, bits: f64) {
        // A plain mean at first: the average must not start at a single batch and stay near it.
        let weight = SMOOTHING.max(1.0 / (self.training.len() + 1) as f64);
        let before = self.training.last().copied().unwrap_or(bits);
        self.training.push(before + weight * (bits - before));
    }

    /// Adds the current validation loss.
    pub fn validated(&mut self, bits: f64) {
        self.validation.push((self.training.len(), bits));
    }

    /// The last validation loss.
    pub fn last_validation(&self) -> f64 {
        self.validation.last().map_or(f64::NAN, |&(_, bits)| bits)
    }

    /// How many updates there were.
    pub fn updates(&self) -> usize {
        self.training.len()
    }

    /// Adds this curve to a checkpoint.
    pub fn saved(&self, checkpoint: Checkpoint) -> Checkpoint {
        let validation: Vec<_> = self.validation.iter().map(|&(update, bits)| [update as f64, bits]).collect();
        let checkpoint = checkpoint.with_tensors("training_curve", &Array1::from_vec(self.training.clone()));
        checkpoint.with_tensors("validation_curve", &Array2::from(validation))
    }

    /// Loads the curve that a checkpoint of `updates` updates was saved with.
    ///
    /// # Errors
    /// If it has none.
    pub fn load(&mut self, checkpoint: &Checkpoint, updates: usize) -> Result<(), LoadError> {
        let validations = checkpoint.state_dict().shape("validation_curve").map_or(0, |shape| shape[0]);
        let (mut training, mut validation) = (Array1::<f64>::zeros(updates), Array2::<f64>::zeros((validations, 2)));
        checkpoint.load_tensors("training_curve", &mut training)?;
        checkpoint.load_tensors("validation_curve", &mut validation)?;
        self.training = training.to_vec();
        self.validation = validation.rows().into_iter().map(|row| (row[0] as usize, row[1])).collect();
        Ok(())
    }

    /// How many characters were seen.
    pub fn characters(&self) -> f64 {
        (self.training.len() * self.stride) as f64
    }

    fn millions(&self, updates: usize) -> f64 {
        (updates * self.stride) as f64 / 1e6
    }

    /// The picture.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn svg(&self, cell: &str, unigram: f64, trigram: f64) -> Result<String, Failure> {
        // A few hundred points, the last one among them: more would only draw stairs.
        let sparse = self.training.len().div_ceil(POINTS);
        let points = (1..).map(|update| self.millions(update)).zip(self.training.iter().copied());
        let training: Vec<_> = points.skip((self.training.len() - 1) % sparse).step_by(sparse).collect();
        let validation: Vec<_> = self.validation.iter().map(|&(update, bits)| (self.millions(update), bits)).collect();
        // The first updates, of an untrained model, are cut off: they would compress the rest of the chart.
        let highest = validation.iter().fold(unigram, |highest, &(_, bits)| bits.max(highest));
        let lowest = training.iter().chain(&validation).fold(trigram, |lowest, &(_, bits)| bits.min(lowest));
        let chart = Chart::new("characters seen (millions)", "bits per character")
            .title(format!("A character {cell} beside n-gram models of the same text (training loss: smoothed)"))
            .x_range(0.0..self.millions(self.training.len()))
            .y_range((2.0 * lowest).floor() / 2.0..(2.0 * highest + 0.5).ceil() / 2.0)
            .rule(unigram, format!("unigram {unigram:.2}"))
            .rule(trigram, format!("trigram {trigram:.2}"))
            .line(Line::new("training", 1, training))
            .line(Line::new(format!("validation {:.2}", self.last_validation()), 0, validation).markers());
        picture(HEIGHT, &[&[&chart]])
    }
}

/// The current losses, for a line of progress.
impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} bits/char", self.training.last().copied().unwrap_or(f64::NAN))?;
        match self.validation.last() {
            Some((_, bits)) => write!(f, ", {bits:.3} validation"),
            None => Ok(()),
        }
    }
}
