//! Trainings that were stopped by their report and continue.

use std::fs;
use std::ops::ControlFlow::{Break, Continue};
use std::path::{Path, PathBuf};

use gradflow::fit::{Fit, History, Report};
use gradflow::io::{Checkpoint, LoadError};
use gradflow::loss::SoftmaxCrossEntropy;
use gradflow::optim::{AdamW, OptimizerStateError, ReduceLrOnPlateau, Sgd, WeightAverage};

use super::{Model, batches, model, schedule};
use crate::common::{bits, lively, rng, temporary};

/// A new, empty folder that is removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = temporary(&format!("fit-{name}"));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

pub const EPOCHS: usize = 4;

/// Trains with its checkpoint at `path`, from which it resumes if the file exists, as long as `go_on` returns true.
pub fn train(path: &Path, mut go_on: impl FnMut(&Report<'_, Model>) -> bool) -> (Model, History) {
    // A new run has other weights than the file, but the same dropout.
    let (mut model, mut optimizer) = (lively(model(0), &mut rng(path.exists().into())), AdamW::new(1.0));
    let (mut loss, validation) = (SoftmaxCrossEntropy::new(), batches(99, 2));
    let fit = Fit::new(&mut model, &mut optimizer, &mut loss).epochs(EPOCHS).schedule(schedule()).checkpoint(path);
    let fit = if path.exists() { fit.resume(path).unwrap() } else { fit };
    let report = |report: Report<'_, Model>| if go_on(&report) { Continue(()) } else { Break(()) };
    let history = fit.run(|epoch| batches(epoch as u64, 3), || validation.clone(), report).unwrap();
    (model, history)
}

/// Dropout, the learning rate, the optimizer's moments, the means and the best weights all continue.
#[test]
fn a_training_stopped_after_any_step_or_epoch_goes_on_to_the_bit() {
    let folder = Folder::new("stopped");
    let whole = folder.0.join("whole");
    let (expected, history) = train(&whole, |_| true);
    assert_eq!(history.epochs.len(), EPOCHS);
    // Some of the stops are before and some after the best epoch.
    assert!((1..EPOCHS).contains(&history.best().unwrap()), "{history:?}");
    let saved = Checkpoint::open(&whole).unwrap();
    for stop in 1..4 * EPOCHS {
        let path = folder.0.join(stop.to_string());
        let mut reports = 0;
        let (_, before) = train(&path, |_| {
            reports += 1;
            reports < stop
        });
        assert!(before.epochs.len() < EPOCHS);
        let (model, resumed) = train(&path, |_| true);
        assert_eq!((bits(&model), &resumed), (bits(&expected), &history), "after {stop} reports");
        assert_eq!(Checkpoint::open(&path).unwrap(), saved);
    }
    // Even if it is stopped at each report, it ends.
    let path = folder.0.join("each");
    while train(&path, |_| false).1.epochs.len() < EPOCHS {}
    assert_eq!(train(&path, |_| true).1, history);
    assert_eq!(Checkpoint::open(&path).unwrap(), saved);
}

#[test]
fn the_best_weights_are_in_the_checkpoint() {
    let folder = Folder::new("best");
    let path = folder.0.join("file");
    let (fitted, history) = train(&path, |_| true);
    let mut loaded = model(5);
    Checkpoint::open(&path).unwrap().load_tensors("best", &mut loaded).unwrap();
    assert_eq!(bits(&loaded), bits(&fitted));
    let mut last = model(5);
    Checkpoint::open(&path).unwrap().load_tensors("model", &mut last).unwrap();
    assert_eq!(bits(&last) == bits(&fitted), history.best() == Some(EPOCHS - 1));
}

#[test]
fn a_file_that_does_not_fit_changes_nothing() {
    let folder = Folder::new("misfit");
    let path = folder.0.join("file");
    train(&path, |_| true);
    let (mut loss, mut model) = (SoftmaxCrossEntropy::<f32>::new(), model(3));
    let before = bits(&model);
    let mut other = Sgd::new(0.1);
    let error = Fit::new(&mut model, &mut other, &mut loss).resume(&path).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(_)), "{error}");
    let mut optimizer = AdamW::new(1.0);
    let error = Fit::new(&mut model, &mut optimizer, &mut loss).resume(folder.0.join("missing")).unwrap_err();
    assert!(matches!(error, LoadError::Io(_)), "{error}");
    // A checkpoint that is not of a fit, and one with an invalid history.
    Checkpoint::new().with_tensors("model", &model).with_optimizer(&optimizer).save(&path).unwrap();
    let error = Fit::new(&mut model, &mut optimizer, &mut loss).resume(&path).unwrap_err();
    assert!(matches!(error, LoadError::Absent { .. }), "{error}");
    let numbers = ["steps", "batches", "training_sum", "training_weight"];
    let checkpoint = numbers.iter().fold(Checkpoint::new(), |checkpoint, name| checkpoint.with_number(name, 0));
    checkpoint.with_metadata("fit.history", "1 2 3").save(&path).unwrap();
    let error = Fit::new(&mut model, &mut optimizer, &mut loss).resume(&path).unwrap_err();
    assert!(matches!(error, LoadError::Value { .. }), "{error}");
    assert_eq!(bits(&model), before);
}

/// Trains at `path` as [`train`] does, with an average and a plateau that often reduces the rate.
fn train_on_plateaus(path: &Path, go_on: impl Fn(&Report<'_, Model>) -> bool) -> (Model, History) {
    let (mut model, mut optimizer) = (lively(model(0), &mut rng(path.exists().into())), AdamW::new(1.0));
    let (mut loss, validation) = (SoftmaxCrossEntropy::new(), batches(99, 2));
    let plateau = ReduceLrOnPlateau::new(0.3).factor(0.5).patience(1).cooldown(1).threshold_abs(0.05).warm_up(5, 0.1);
    let fit = Fit::new(&mut model, &mut optimizer, &mut loss).epochs(10).reduce_lr_on_plateau(plateau).checkpoint(path);
    let fit = fit.average(WeightAverage::ema(0.7).warm_up().start(4));
    let fit = if path.exists() { fit.resume(path).unwrap() } else { fit };
    let report = |report: Report<'_, Model>| if go_on(&report) { Continue(()) } else { Break(()) };
    let history = fit.run(|epoch| batches(epoch as u64, 3), || validation.clone(), report).unwrap();
    (model, history)
}

#[test]
fn plateaus_and_averages_go_on_to_the_bit() {
    let folder = Folder::new("plateau");
    let whole = folder.0.join("whole");
    let (expected, history) = train_on_plateaus(&whole, |_| true);
    let rates: Vec<f64> = history.epochs.iter().map(|epoch| epoch.learning_rate).collect();
    assert!(rates[9] < rates[2] * 0.3, "too few reductions: {rates:?}");
    // Even if it is stopped at each report, it ends.
    let path = folder.0.join("each");
    while train_on_plateaus(&path, |_| false).1.epochs.len() < 10 {}
    let (model, resumed) = train_on_plateaus(&path, |_| true);
    assert_eq!((bits(&model), &resumed), (bits(&expected), &history));
    assert_eq!(Checkpoint::open(&path).unwrap(), Checkpoint::open(&whole).unwrap());
    // A file without it, and one with another text.
    train(&folder.0.join("plain"), |_| true);
    let (mut model, mut optimizer, mut loss) = (super::model(3), AdamW::new(1.0), SoftmaxCrossEntropy::<f32>::new());
    let before = bits(&model);
    let mut resume = |path: &Path| {
        let fit = Fit::new(&mut model, &mut optimizer, &mut loss).reduce_lr_on_plateau(ReduceLrOnPlateau::new(0.1));
        fit.resume(path).unwrap_err()
    };
    let error = resume(&folder.0.join("plain"));
    assert!(matches!(&error, LoadError::Absent { key } if key == "fit.reduce_lr_on_plateau"), "{error}");
    Checkpoint::open(&path).unwrap().with_metadata("fit.reduce_lr_on_plateau", "soon").save(&path).unwrap();
    let error = resume(&path);
    assert!(matches!(error, LoadError::Schedule(_)), "{error}");
    // The file has another average, or none.
    let mut resume = |path: &Path, average| {
        Fit::new(&mut model, &mut optimizer, &mut loss).average(average).resume(path).unwrap_err()
    };
    let error = resume(&whole, WeightAverage::ema(0.8).warm_up().start(4));
    assert!(
        matches!(&error, LoadError::Optimizer(OptimizerStateError::Setting { name, .. }) if name == "decay"),
        "{error}"
    );
    let error = resume(&folder.0.join("plain"), WeightAverage::swa());
    assert!(matches!(&error, LoadError::Absent { key } if key == "gradflow.average.average.kind"), "{error}");
    assert_eq!(bits(&model), before);
    // "model" has the training's weights, and "average" those that it ended with, or better ones.
    let (mut own, mut averaged) = (super::model(3), super::model(3));
    Checkpoint::open(&whole).unwrap().load_tensors("model", &mut own).unwrap();
    Checkpoint::open(&whole).unwrap().load_tensors("average", &mut averaged).unwrap();
    assert_ne!(bits(&own), bits(&averaged));
    assert_eq!(bits(&averaged) == bits(&expected), history.best() == Some(9));
}
