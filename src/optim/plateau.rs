//! Learning rates that fall when a metric no longer improves.

use std::fmt;
use std::str::FromStr;

use super::schedule::{LARGEST, ScheduleError, part, read_number, read_rate, read_steps, rise, split};
use crate::base::{Expect, check_number};

const NAME: &str = "ReduceLrOnPlateau";

/// A learning rate that is multiplied by a factor when a metric has stopped improving: PyTorch's `ReduceLROnPlateau`, with its defaults.
///
/// ```text
/// better:  metric < best · (1 - threshold)           maximize: metric > best · (1 + threshold)
///          metric < best - threshold (absolute)                metric > best + threshold (absolute)
/// bad   ← 0 if better, and in each of the `cooldown` calls after a reduction; else bad + 1
/// lr    ← max(factor · lr, min_lr) if bad > patience, unless that changes it by eps or less; then bad ← 0
/// ```
///
/// A metric that is NaN is not better. Unlike a [`Schedule`](super::Schedule), this has a state. Its text
/// ([`Display`](fmt::Display), [`FromStr`]) holds the state and the settings, for a checkpoint's metadata.
/// [`Fit`](crate::fit::Fit::reduce_lr_on_plateau) does all of this.
///
/// ```
/// use gradflow::optim::{ReduceLrOnPlateau, Optimizer, Sgd};
///
/// let mut plateau = ReduceLrOnPlateau::new(0.1).factor(0.5).patience(1).warm_up(4, 0.25);
/// let mut optimizer = Sgd::<f32>::new(0.1);
/// let mut step = 0;
/// for validation_loss in [3.0, 2.0, 2.5, 2.0, 1.9] {
///     for _batch in 0..4 {
///         optimizer.set_learning_rate(plateau.learning_rate(step));
///         step += 1;
///     }
///     plateau.step(validation_loss);
/// }
/// assert_eq!([0, 2, 4].map(|step| plateau.learning_rate(step)), [0.0125, 0.03125, 0.05]); // halved after two bad epochs
/// assert_eq!(plateau.to_string().parse(), Ok(plateau));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ReduceLrOnPlateau {
    maximize: bool,
    factor: f64,
    patience: u64,
    threshold: f64,
    absolute: bool,
    cooldown: u64,
    min_lr: f64,
    eps: f64,
    /// The steps of the warm-up and the factor that it starts from.
    warm_up: Option<(u64, f64)>,
    state: State,
}

/// The part that changes from call to call.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    learning_rate: f64,
    /// The best metric so far; at first, the worst one possible.
    best: f64,
    bad: u64,
    cooling: u64,
}

impl ReduceLrOnPlateau {
    /// With PyTorch's defaults: a metric that should fall, a factor of 0.1, a patience of 10, a relative threshold of 1e-4, no cooldown, a
    /// minimum of 0, eps 1e-8.
    ///
    /// # Panics
    /// Panics if the learning rate is negative or not finite.
    #[track_caller]
    pub fn new(learning_rate: f64) -> Self {
        ReduceLrOnPlateau {
            maximize: false,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            absolute: false,
            cooldown: 0,
            min_lr: 0.0,
            eps: 1e-8,
            warm_up: None,
            state: State {
                learning_rate: check_rate("learning rate", learning_rate),
                best: f64::INFINITY,
                bad: 0,
                cooling: 0,
            },
        }
    }

    /// For a metric that should rise, such as an accuracy: PyTorch's `mode="max"`.
    ///
    /// # Panics
    /// Panics if there was a metric already.
    #[track_caller]
    pub fn maximize(self) -> Self {
        let State { best, bad, .. } = self.state;
        assert!(best.is_infinite() && bad == 0, "{NAME}: maximize: it is chosen before the first metric");
        ReduceLrOnPlateau { maximize: true, state: State { best: f64::NEG_INFINITY, ..self.state }, ..self }
    }

    /// Sets the factor.
    ///
    /// # Panics
    /// Panics if it is not in `0..1`.
    #[track_caller]
    pub fn factor(self, factor: f64) -> Self {
        ReduceLrOnPlateau { factor: check_number::<f64>(NAME, "factor", Expect::Fraction, factor), ..self }
    }

    /// Reduces the learning rate after more than `patience` metrics in a row that are not better.
    pub fn patience(self, patience: u64) -> Self {
        ReduceLrOnPlateau { patience, ..self }
    }

    /// Sets the threshold as a fraction of the best metric: PyTorch's `threshold_mode="rel"`. For metrics below 0, use an
    /// [absolute](ReduceLrOnPlateau::threshold_abs) one: with a relative one, a slightly worse metric counts as better.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    pub fn threshold(self, threshold: f64) -> Self {
        let threshold = check_number::<f64>(NAME, "threshold", Expect::AtLeast0, threshold);
        ReduceLrOnPlateau { threshold, absolute: false, ..self }
    }

    /// Sets the threshold as a difference of metrics: PyTorch's `threshold_mode="abs"`.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    pub fn threshold_abs(self, threshold: f64) -> Self {
        let threshold = check_number::<f64>(NAME, "threshold", Expect::AtLeast0, threshold);
        ReduceLrOnPlateau { threshold, absolute: true, ..self }
    }

    /// Does not count the `cooldown` metrics after each reduction as bad.
    pub fn cooldown(self, cooldown: u64) -> Self {
        ReduceLrOnPlateau { cooldown, ..self }
    }

    /// Sets the minimum of the learning rate.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    pub fn min_lr(self, min_lr: f64) -> Self {
        ReduceLrOnPlateau { min_lr: check_rate("min_lr", min_lr), ..self }
    }

    /// Leaves out reductions that change the learning rate by `eps` or less.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    pub fn eps(self, eps: f64) -> Self {
        ReduceLrOnPlateau { eps: check_number::<f64>(NAME, "eps", Expect::AtLeast0, eps), ..self }
    }

    /// Adds a warm-up of `steps` steps that rise linearly to the learning rate, from `start` times it, as
    /// [`Schedule::warm_up`](super::Schedule::warm_up).
    ///
    /// # Panics
    /// Panics if `start` is negative or not finite, or `steps` is 0.
    #[track_caller]
    pub fn warm_up(self, steps: u64, start: f64) -> Self {
        assert!(steps > 0, "{NAME}: steps: expected at least 1 step, got 0");
        let start = check_number::<f64>(NAME, "start", Expect::AtLeast0, start);
        ReduceLrOnPlateau { warm_up: Some((steps, start)), ..self }
    }

    /// The learning rate of step `step`, counted from 0; after the warm-up it is the same for all steps.
    #[must_use]
    pub fn learning_rate(&self, step: u64) -> f64 {
        let rate = self.state.learning_rate;
        match self.warm_up {
            Some((steps, start)) if step < steps => (rate * rise(start, part(step, steps))).clamp(0.0, LARGEST),
            _ => rate,
        }
    }

    /// Takes the metric of an epoch; returns whether the learning rate was reduced.
    pub fn step(&mut self, metric: f64) -> bool {
        let ReduceLrOnPlateau { maximize, factor, patience, threshold, absolute, cooldown, min_lr, eps, .. } = *self;
        let State { learning_rate, best, bad, cooling } = &mut self.state;
        let better = match (maximize, absolute) {
            (false, false) => metric < *best * (1.0 - threshold),
            (false, true) => metric < *best - threshold,
            (true, false) => metric > *best * (threshold + 1.0),
            (true, true) => metric > *best + threshold,
        };
        if better {
            (*best, *bad) = (metric, 0);
        } else {
            *bad = bad.saturating_add(1);
        }
        if *cooling > 0 {
            (*cooling, *bad) = (*cooling - 1, 0);
        }
        if *bad <= patience {
            return false;
        }
        (*cooling, *bad) = (cooldown, 0);
        let reduced = f64::max(*learning_rate * factor, min_lr);
        let counts = *learning_rate - reduced > eps;
        if counts {
            *learning_rate = reduced;
        }
        counts
    }

    pub(crate) fn maximizes(&self) -> bool {
        self.maximize
    }

    /// Takes the state of `saved`, and keeps its own settings.
    #[cfg(feature = "safetensors")]
    pub(crate) fn resume(self, saved: &ReduceLrOnPlateau) -> Self {
        ReduceLrOnPlateau { state: saved.state, ..self }
    }
}

#[track_caller]
fn check_rate(what: &str, rate: f64) -> f64 {
    check_number::<f32>(NAME, what, Expect::AtLeast0, rate).min(LARGEST)
}

impl fmt::Display for ReduceLrOnPlateau {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReduceLrOnPlateau {
            maximize,
            factor,
            patience,
            threshold,
            absolute,
            cooldown,
            min_lr,
            eps,
            warm_up,
            state: State { learning_rate, best, bad, cooling },
        } = self;
        if let Some((steps, start)) = warm_up {
            write!(f, "warm_up({steps}, {start:?}) ")?;
        }
        let (mode, threshold_mode) = (if *maximize { "max" } else { "min" }, if *absolute { "abs" } else { "rel" });
        write!(f, "reduce_lr_on_plateau({learning_rate:?}, {mode}, {factor:?}, {patience}, {threshold:?}, ")?;
        write!(f, "{threshold_mode}, {cooldown}, {min_lr:?}, {eps:?}) best({best:?}, {bad}, {cooling})")
    }
}

impl FromStr for ReduceLrOnPlateau {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        parse(text).ok_or_else(|| ScheduleError { text: text.into() })
    }
}

fn parse(text: &str) -> Option<ReduceLrOnPlateau> {
    let (name, arguments, rest) = split(text)?;
    if let ("warm_up", [steps, start]) = (name, &arguments[..]) {
        let then = rest.strip_prefix(' ').filter(|then| !then.starts_with("warm_up"))?;
        let warm_up = Some((read_steps(steps, 1)?, read_number(start)?));
        return Some(ReduceLrOnPlateau { warm_up, ..parse(then)? });
    }
    let ("reduce_lr_on_plateau", [rate, mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps]) =
        (name, &arguments[..])
    else {
        return None;
    };
    let one_of = |text: &str, names: [&str; 2]| names.iter().position(|name| *name == text).map(|at| at == 1);
    let (name, state, rest) = split(rest.strip_prefix(' ')?)?;
    let ("best", [best, bad, cooling], "") = (name, &state[..], rest) else { return None };
    Some(ReduceLrOnPlateau {
        maximize: one_of(mode, ["min", "max"])?,
        factor: read_number(factor).filter(|&factor| factor < 1.0)?,
        patience: read_steps(patience, 0)?,
        threshold: read_number(threshold)?,
        absolute: one_of(threshold_mode, ["rel", "abs"])?,
        cooldown: read_steps(cooldown, 0)?,
        min_lr: read_rate(min_lr)?,
        eps: read_number(eps)?,
        warm_up: None,
        state: State {
            learning_rate: read_rate(rate)?,
            best: best.parse().ok().filter(|best: &f64| !best.is_nan())?,
            bad: read_steps(bad, 0)?,
            cooling: read_steps(cooling, 0)?,
        },
    })
}
