//! The history of a training.

use std::fmt;
#[cfg(feature = "safetensors")]
use std::str::FromStr;

/// The numbers of an epoch, known when it ends.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Epoch {
    /// The steps taken so far, including those of earlier epochs.
    pub steps: u64,
    /// The mean training loss over the epoch, with each batch's loss taken before its step.
    pub training: f64,
    /// The mean validation loss after the epoch, if there was a batch to validate on.
    pub validation: Option<f64>,
    /// The learning rate of the last step.
    pub learning_rate: f64,
}

impl Epoch {
    /// The score that decides which epoch is the best: the validation loss, or the training loss if there is none.
    #[must_use]
    pub fn score(&self) -> f64 {
        self.validation.unwrap_or(self.training)
    }
}

/// Why a training ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// All epochs are done.
    #[default]
    Done,
    /// The loss had not fallen for as many epochs as the [patience](super::Fit::patience) allows.
    Patience,
    /// The report returned [`Break`](std::ops::ControlFlow::Break).
    Stopped,
}

/// The epochs of a training, first to last, including those before it was resumed.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// One entry per epoch.
    pub epochs: Vec<Epoch>,
    /// Why the training ended.
    pub end: End,
}

impl History {
    /// The index, from 0, of the epoch with the lowest [score](Epoch::score). `None` before the first epoch has ended, or if all scores
    /// are NaN.
    #[must_use]
    pub fn best(&self) -> Option<usize> {
        let scores = self.epochs.iter().map(Epoch::score).enumerate().filter(|(_, score)| !score.is_nan());
        scores.reduce(|best, next| if next.1 < best.1 { next } else { best }).map(|(epoch, _)| epoch)
    }

    /// How many epochs have ended since the best one.
    pub(super) fn since_best(&self) -> usize {
        self.epochs.len() - self.best().map_or(0, |best| best + 1)
    }
}

/// Shows the last epoch in one line.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Epoch { steps, training, validation, learning_rate }) = self.epochs.last() else {
            return f.write_str("no epoch has ended");
        };
        write!(f, "epoch {:>3}  step {steps:>6}  training {training:<8.4}", self.epochs.len())?;
        if let Some(validation) = validation {
            write!(f, "  validation {validation:<8.4}")?;
        }
        let best = if self.since_best() == 0 { "  best" } else { "" };
        write!(f, "  learning rate {learning_rate:.1e}{best}")
    }
}

/// An epoch as a line of a checkpoint, with numbers in digits that give the same `f64`.
#[cfg(feature = "safetensors")]
impl Epoch {
    pub(super) fn to_line(&self) -> String {
        let Epoch { steps, training, validation, learning_rate } = self;
        let validation = validation.map_or("-".into(), |loss| loss.to_string());
        format!("{steps} {training} {validation} {learning_rate}")
    }

    pub(super) fn from_line(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [steps, training, validation, learning_rate] = fields[..] else { return None };
        let validation = if validation == "-" { None } else { Some(number(validation)?) };
        Some(Epoch {
            steps: number(steps)?,
            training: number(training)?,
            validation,
            learning_rate: number(learning_rate)?,
        })
    }
}

#[cfg(feature = "safetensors")]
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(training: f64, validation: Option<f64>) -> Epoch {
        Epoch { steps: 7, training, validation, learning_rate: 1e-3 }
    }

    fn history(scores: &[f64]) -> History {
        History { epochs: scores.iter().map(|&score| epoch(9.0, Some(score))).collect(), end: End::Done }
    }

    #[test]
    fn the_best_epoch_is_the_first_with_the_lowest_score() {
        assert_eq!((history(&[]).best(), history(&[]).since_best()), (None, 0));
        let nan = history(&[f64::NAN, f64::NAN]);
        assert_eq!((nan.best(), nan.since_best()), (None, 2));
        let scores = history(&[f64::NAN, 3.0, 1.0, f64::NAN, 1.0, f64::INFINITY]);
        assert_eq!((scores.best(), scores.since_best()), (Some(2), 3));
        assert_eq!(epoch(2.0, None).score(), 2.0);
    }

    #[cfg(feature = "safetensors")]
    #[test]
    fn a_line_gives_the_same_numbers() {
        for loss in [0.1 + 0.2, 1e-300, f64::INFINITY, -0.0] {
            for epoch in [epoch(loss, None), epoch(loss, Some(loss / 3.0))] {
                assert_eq!(Epoch::from_line(&epoch.to_line()), Some(epoch));
            }
        }
        assert!(Epoch::from_line(&epoch(f64::NAN, None).to_line()).unwrap().training.is_nan());
        for line in ["", "1 2 3", "1 2 3 4 5", "a 2 3 4", "1 2 x 4"] {
            assert_eq!(Epoch::from_line(line), None, "{line}");
        }
    }

    #[test]
    fn the_last_epoch_prints_as_a_line() {
        assert_eq!(history(&[]).to_string(), "no epoch has ended");
        let line = "epoch   2  step      7  training 9.0000    validation 1.0000    learning rate 1.0e-3  best";
        assert_eq!(history(&[2.0, 1.0]).to_string(), line);
        assert!(!history(&[1.0, 2.0]).to_string().contains("best"));
    }
}
