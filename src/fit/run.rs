//! The loop over epochs and batches.

use std::fmt;
use std::ops::ControlFlow;
#[cfg(feature = "safetensors")]
use std::path::{Path, PathBuf};

use super::error::FitError;
use super::history::{End, Epoch, History};
use super::report::{Report, Step};
use super::supervised::{self, Supervised};
use crate::base::{TensorsExt, ZerosLike};
use crate::clip::ClipNorm;
#[cfg(feature = "safetensors")]
use crate::io::{Checkpoint, LoadError};
use crate::layer::Layer;
use crate::loss::Loss;
use crate::optim::{Optimizer, ReduceLrOnPlateau, Schedule, WeightAverage};

const NAME: &str = "Fit";

/// A training: a model, an optimizer, a loss, and the settings of the loop over epochs and batches.
///
/// See [`fit`](crate::fit) for examples and the definition of a step.
#[must_use]
pub struct Fit<'a, L: Layer, C> {
    model: &'a mut L,
    optimizer: &'a mut dyn Optimizer<L::Elem>,
    loss: &'a mut C,
    epochs: usize,
    clip: ClipNorm,
    schedule: Option<Schedule>,
    plateau: Option<ReduceLrOnPlateau>,
    average: Option<WeightAverage<L::Elem>>,
    seed: u64,
    patience: Option<usize>,
    #[cfg(feature = "safetensors")]
    file: Option<PathBuf>,
    /// The steps taken, and how many of them in this epoch.
    steps: u64,
    batches: usize,
    /// The training loss of this epoch.
    training: Mean,
    history: History,
    /// The weights of the best epoch.
    best: Option<L>,
}

impl<L: Layer, C> fmt::Debug for Fit<'_, L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fit { epochs, clip, schedule, plateau, average, seed, patience, steps, .. } = self;
        let mut debug = f.debug_struct(NAME);
        debug.field("epochs", epochs).field("clip", clip).field("schedule", schedule).field("plateau", plateau);
        debug.field("averages", &average.is_some()).field("seed", seed);
        debug.field("patience", patience).field("steps", steps).finish_non_exhaustive()
    }
}

/// The mean of losses, each with its weight.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, loss: f64, weight: f64) {
        *self = Mean { sum: self.sum + weight * loss, weight: self.weight + weight };
    }

    fn value(self) -> f64 {
        self.sum / self.weight
    }
}

impl<'a, L: Layer, C: Loss<L::Elem>> Fit<'a, L, C> {
    /// A training of one epoch, with the optimizer's own learning rate and without clipping, but with an error for a gradient
    /// that is not finite.
    pub fn new(model: &'a mut L, optimizer: &'a mut dyn Optimizer<L::Elem>, loss: &'a mut C) -> Self {
        Fit {
            model,
            optimizer,
            loss,
            epochs: 1,
            clip: ClipNorm::new(f64::INFINITY),
            schedule: None,
            plateau: None,
            average: None,
            seed: 0,
            patience: None,
            #[cfg(feature = "safetensors")]
            file: None,
            steps: 0,
            batches: 0,
            training: Mean::default(),
            history: History::default(),
            best: None,
        }
    }

    /// Trains at most this many epochs, including those before a training was resumed.
    pub fn epochs(self, epochs: usize) -> Self {
        Fit { epochs, ..self }
    }

    /// Clips the gradients.
    pub fn clip(self, clip: ClipNorm) -> Self {
        Fit { clip, ..self }
    }

    /// Changes the learning rate with the step, counted from 0 over all epochs.
    ///
    /// # Panics
    /// Panics if there is a [plateau](Fit::reduce_lr_on_plateau).
    #[track_caller]
    pub fn schedule(self, schedule: Schedule) -> Self {
        assert!(self.plateau.is_none(), "{NAME}: schedule: the learning rate follows reduce_lr_on_plateau already");
        Fit { schedule: Some(schedule), ..self }
    }

    /// Reduces the learning rate when the [score](Epoch::score) of the epochs has stopped falling. The warm-up counts steps, from
    /// 0 over all epochs. A [`checkpoint`](Fit::checkpoint) holds the plateau's state.
    ///
    /// ```
    /// use gradflow::fit::{self, Fit};
    /// use gradflow::ndarray::Array3;
    /// use gradflow::{layers::Linear, loss::MeanSquaredError, optim::{ReduceLrOnPlateau, Sgd}};
    ///
    /// let (mut model, mut optimizer, mut loss) = (Linear::<f64>::zeros(1, 1), Sgd::new(0.1), MeanSquaredError::new());
    /// let batches = [(Array3::ones((1, 4, 1)), Array3::ones((1, 4, 1)))];
    /// let history = Fit::new(&mut model, &mut optimizer, &mut loss)
    ///     .epochs(30)
    ///     .reduce_lr_on_plateau(ReduceLrOnPlateau::new(1.1).factor(0.5).patience(2)) // too large: the loss grows
    ///     .run(|_| &batches, || &batches, fit::quiet)?;
    /// let (first, last) = (&history.epochs[0], &history.epochs[29]);
    /// assert!(last.learning_rate < 0.25 * first.learning_rate && last.score() < 1e-3, "{history}");
    /// # Ok::<(), gradflow::fit::FitError>(())
    /// ```
    ///
    /// # Panics
    /// Panics if there is a [schedule](Fit::schedule), or the plateau [maximizes](ReduceLrOnPlateau::maximize): the score is a
    /// loss.
    #[track_caller]
    pub fn reduce_lr_on_plateau(self, plateau: ReduceLrOnPlateau) -> Self {
        assert!(self.schedule.is_none(), "{NAME}: reduce_lr_on_plateau: the learning rate follows a schedule already");
        assert!(!plateau.maximizes(), "{NAME}: reduce_lr_on_plateau: expected one that minimizes: the score is a loss");
        Fit { plateau: Some(plateau), ..self }
    }

    /// Averages the weights, after every step. The average is validated, kept as the best weights, shown to the report after an
    /// epoch, and copied into the model at the end; the training itself continues with the model's own weights. A
    /// [`checkpoint`](Fit::checkpoint) has the average in the section `average`.
    ///
    /// ```
    /// use gradflow::fit::{self, Fit};
    /// use gradflow::ndarray::Array3;
    /// use gradflow::{layers::Linear, loss::MeanSquaredError, optim::{Sgd, WeightAverage}};
    ///
    /// let (mut model, mut optimizer, mut loss) = (Linear::<f64>::zeros(1, 1), Sgd::new(0.1), MeanSquaredError::new());
    /// // The targets of the batches contradict each other: the weights jump between 0.85 and 1.15 in each step.
    /// let batch = |target| (Array3::ones((1, 4, 1)), Array3::from_elem((1, 4, 1), target));
    /// let (training, validation) = ([batch(0.4), batch(1.6)], [batch(1.0)]);
    /// let history = Fit::new(&mut model, &mut optimizer, &mut loss)
    ///     .epochs(40)
    ///     .average(WeightAverage::ema(0.9))
    ///     .run(|_| &training, || &validation, fit::quiet)?;
    /// assert!(history.epochs[39].score() < 1e-3, "{history}");
    /// # Ok::<(), gradflow::fit::FitError>(())
    /// ```
    pub fn average(self, average: WeightAverage<L::Elem>) -> Self {
        Fit { average: Some(average), ..self }
    }

    /// Sets the seed of dropout, from which each step derives its own; 0 by default.
    pub fn seed(self, seed: u64) -> Self {
        Fit { seed, ..self }
    }

    /// Ends after `epochs` epochs in a row without a [score](Epoch::score) below the best one (Prechelt 1998).
    ///
    /// # Panics
    /// Panics if it is 0.
    #[track_caller]
    pub fn patience(self, epochs: usize) -> Self {
        assert!(epochs > 0, "{NAME}: patience: expected at least 1 epoch, got 0");
        Fit { patience: Some(epochs), ..self }
    }

    /// Saves a [`Checkpoint`] after every epoch, and when the report stops the training. It holds the model in the section
    /// `model`, the weights of the best epoch in `best`, the optimizer, and whatever else [`resume`](Fit::resume) needs.
    #[cfg(feature = "safetensors")]
    pub fn checkpoint(self, path: impl AsRef<Path>) -> Self {
        Fit { file: Some(path.as_ref().to_owned()), ..self }
    }

    /// Continues from a checkpoint, to the bit as if the training had not been interrupted, if the settings, the batches of each
    /// epoch and the model's dropout are the same as before. (A dropout layer draws an id when it is made, which determines its
    /// masks: make the model from the same seed. Its weights come from the file.)
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or is not one that [`checkpoint`](Fit::checkpoint) wrote for this model,
    /// optimizer and average. The model and the optimizer are unchanged then.
    #[cfg(feature = "safetensors")]
    pub fn resume(mut self, path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let checkpoint = Checkpoint::open(path)?;
        let float = |name| checkpoint.number(name).map(f64::from_bits);
        self.steps = checkpoint.number("steps")?;
        self.batches = checkpoint.number("batches")? as usize;
        self.training = Mean { sum: float("training_sum")?, weight: float("training_weight")? };
        let lines = checkpoint.metadata(HISTORY).unwrap_or_default().lines();
        let epochs: Option<Vec<Epoch>> = lines.map(Epoch::from_line).collect();
        let value = || checkpoint.metadata(HISTORY).unwrap_or_default().to_owned();
        let epochs = epochs.ok_or_else(|| LoadError::Value { key: HISTORY.into(), value: value() })?;
        self.history = History { epochs, end: End::Stopped };
        if self.history.best().is_some() {
            let mut best = self.model.clone();
            checkpoint.load_tensors("best", &mut best)?;
            self.best = Some(best);
        }
        if let Some(plateau) = self.plateau.take() {
            let text = checkpoint.metadata(PLATEAU).ok_or_else(|| LoadError::Absent { key: PLATEAU.into() })?;
            self.plateau = Some(plateau.resume(&text.parse()?));
        }
        if let Some(average) = &mut self.average {
            checkpoint.load_average(AVERAGE, &*self.model, average)?;
        }
        checkpoint.load_training("model", self.model, self.optimizer)?;
        Ok(self)
    }

    /// Trains until the epochs are done, the patience has run out, or the report returns [`Break`](ControlFlow::Break).
    ///
    /// `training` returns the batches of an epoch, counted from 0, and `validation` those for evaluating the model after it:
    /// `|| None` if there are none. Both may return owned batches or references. At the end the model has the weights of the best
    /// epoch, if one has ended; the last ones are in the checkpoint.
    ///
    /// # Errors
    /// Returns an error if a gradient is not finite, lengths do not fit, or a checkpoint cannot be saved. The model then keeps the
    /// weights of the last step that was taken.
    ///
    /// # Panics
    /// Panics if an epoch has no batch, and as [`Layer::forward`] and [`Loss::of`] do.
    #[track_caller]
    pub fn run<B, T, V>(
        mut self,
        mut training: impl FnMut(usize) -> T,
        mut validation: impl FnMut() -> V,
        mut report: impl FnMut(Report<'_, L>) -> ControlFlow<()>,
    ) -> Result<History, FitError>
    where
        B: Supervised<L::Elem, Targets = C::Targets>,
        T: IntoIterator<Item = B>,
        V: IntoIterator<Item = B>,
    {
        let (mut cache, mut grad) = (self.model.cache(), self.model.zeros_like());
        loop {
            let epoch = self.history.epochs.len();
            if epoch >= self.epochs {
                return self.end(End::Done);
            }
            if self.patience.is_some_and(|patience| self.history.since_best() >= patience) {
                return self.end(End::Patience);
            }
            for batch in training(epoch).into_iter().skip(self.batches) {
                let step = self.step(&batch, &mut cache, &mut grad)?;
                if report(Report::Step(&step)).is_break() {
                    self.save()?;
                    return self.end(End::Stopped);
                }
            }
            assert!(self.batches > 0, "{NAME}: training: expected at least one batch in epoch {epoch}, got none");
            let judged = self.judge(|model, loss, _| validate(model, loss, validation(), &mut cache))?;
            self.end_epoch(judged);
            self.save()?;
            if self.judge(|model, _, history| report(Report::Epoch { history, model })).is_break() {
                return self.end(End::Stopped);
            }
        }
    }

    /// One training step: the plain loop's body.
    fn step<B>(&mut self, batch: &B, cache: &mut L::Cache, grad: &mut L) -> Result<Step, FitError>
    where
        B: Supervised<L::Elem, Targets = C::Targets>,
    {
        let x = batch.input()?.train(self.seed.wrapping_mul(SEEDS_APART).wrapping_add(self.steps));
        let mut state = self.model.zero_state(x.dims().1);
        let pass = self.model.pass(x, &mut state, cache);
        let (weight, evaluated) = supervised::evaluate(self.loss, &pass, batch);
        let loss = evaluated.value();
        pass.backward_into(evaluated.gradient(), grad);
        let of_schedule = self.schedule.as_ref().map(|schedule| schedule.learning_rate(self.steps));
        let of_plateau = self.plateau.as_ref().map(|plateau| plateau.learning_rate(self.steps));
        if let Some(learning_rate) = of_schedule.or(of_plateau) {
            self.optimizer.set_learning_rate(learning_rate);
        }
        let clipped = self.optimizer.step_clipped(self.model, grad, self.clip)?;
        if let Some(average) = &mut self.average {
            average.update(self.model)?;
        }
        self.training.add(loss, weight);
        self.steps += 1;
        self.batches += 1;
        let (steps, epoch, learning_rate) = (self.steps, self.history.epochs.len(), self.optimizer.learning_rate());
        Ok(Step { steps, epoch, loss, norm: clipped.norm, scale: clipped.scale, learning_rate })
    }

    /// Evaluates the model by `of`; if there is an average, while it is in the model.
    #[track_caller]
    fn judge<T>(&mut self, of: impl FnOnce(&L, &C, &History) -> T) -> T {
        match &mut self.average {
            Some(average) => of(&average.swap_in(self.model), self.loss, &self.history),
            None => of(self.model, self.loss, &self.history),
        }
    }

    fn end_epoch(&mut self, validation: Option<f64>) {
        let (steps, learning_rate) = (self.steps, self.optimizer.learning_rate());
        let epoch = Epoch { steps, training: self.training.value(), validation, learning_rate };
        if let Some(plateau) = &mut self.plateau {
            plateau.step(epoch.score());
        }
        self.history.epochs.push(epoch);
        (self.batches, self.training) = (0, Mean::default());
        if self.history.best() == Some(self.history.epochs.len() - 1) {
            let best = self.best.get_or_insert_with(|| self.model.clone());
            match &self.average {
                Some(average) => average.copy_to(best),
                None => best.copy_from(self.model),
            }
        }
    }

    /// Gives the model the weights of the best epoch.
    fn end(mut self, end: End) -> Result<History, FitError> {
        if let Some(best) = &self.best {
            self.model.copy_from(best);
        }
        self.history.end = end;
        Ok(self.history)
    }

    #[cfg(feature = "safetensors")]
    fn save(&self) -> Result<(), FitError> {
        let Some(file) = &self.file else { return Ok(()) };
        let lines: Vec<String> = self.history.epochs.iter().map(Epoch::to_line).collect();
        let mut checkpoint = Checkpoint::new()
            .with_tensors("model", self.model)
            .with_optimizer(self.optimizer)
            .with_number("steps", self.steps)
            .with_number("batches", self.batches as u64)
            .with_number("training_sum", self.training.sum.to_bits())
            .with_number("training_weight", self.training.weight.to_bits())
            .with_metadata(HISTORY, lines.join("\n"));
        if let Some(average) = &self.average {
            checkpoint = checkpoint.with_average(AVERAGE, average);
        }
        if let Some(plateau) = &self.plateau {
            checkpoint = checkpoint.with_metadata(PLATEAU, plateau.to_string());
        }
        if let Some(best) = &self.best {
            checkpoint = checkpoint.with_tensors("best", best);
        }
        Ok(checkpoint.save(file)?)
    }

    #[cfg(not(feature = "safetensors"))]
    fn save(&self) -> Result<(), FitError> {
        Ok(())
    }
}

/// The mean loss over `batches`, without a gradient; `None` if there are none.
fn validate<L, C, B>(
    model: &L,
    loss: &C,
    batches: impl IntoIterator<Item = B>,
    cache: &mut L::Cache,
) -> Result<Option<f64>, FitError>
where
    L: Layer,
    C: Loss<L::Elem>,
    B: Supervised<L::Elem, Targets = C::Targets>,
{
    let (mut mean, mut any) = (Mean::default(), false);
    for batch in batches {
        let x = batch.input()?.infer();
        let mut state = model.zero_state(x.dims().1);
        let pass = model.pass(x, &mut state, cache);
        let (weight, value) = supervised::value(loss, &pass, &batch);
        mean.add(value, weight);
        any = true;
    }
    Ok(any.then(|| mean.value()))
}

/// The section of a checkpoint that has the average.
#[cfg(feature = "safetensors")]
const AVERAGE: &str = "average";

/// The metadata key of a checkpoint under which the epochs are listed.
#[cfg(feature = "safetensors")]
const HISTORY: &str = "fit.history";

/// The metadata key of the plateau.
#[cfg(feature = "safetensors")]
const PLATEAU: &str = "fit.reduce_lr_on_plateau";

/// Separates the dropout seeds of two trainings with neighbouring seeds: an odd number near 2⁶⁴/φ.
const SEEDS_APART: u64 = 0x9e37_79b9_7f4a_7c15;
