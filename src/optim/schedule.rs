//! Learning rates that change with the step.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use crate::base::{Expect, check_number};

const NAME: &str = "Schedule";

/// A learning rate as a function of the step; a plain value without state. For a learning rate that depends on a metric, see
/// [`ReduceLrOnPlateau`](super::ReduceLrOnPlateau).
///
/// Steps count from 0: step `n` comes after `n` steps. Schedules that PyTorch has give the numbers of its `lr_scheduler`. As text
/// ([`Display`](fmt::Display), [`FromStr`]) a schedule fits into a checkpoint's metadata, and is read back exactly.
///
/// ```
/// use gradflow::{ndarray::arr1, optim::{AdamW, Optimizer, Schedule}};
///
/// let schedule = Schedule::cosine(3e-3, 900, 1e-5).warm_up(100, 0.01);
/// let (mut optimizer, mut parameter) = (AdamW::new(schedule.learning_rate(0)), arr1(&[1.0f32]));
/// for step in 0..1000 {
///     optimizer.set_learning_rate(schedule.learning_rate(step));
///     optimizer.step(&mut parameter, &arr1(&[2.0]));
/// }
/// assert_eq!(schedule.learning_rate(100), 3e-3);
/// assert_eq!(schedule.to_string(), "warm_up(100, 0.01) cosine(0.003, 900, 1e-5)");
/// assert_eq!(schedule.to_string().parse(), Ok(schedule));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Schedule(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Constant { learning_rate: f64 },
    Step { learning_rate: f64, every: u64, factor: f64 },
    Cosine { learning_rate: f64, steps: u64, minimum: f64 },
    OneCycle { maximum: f64, steps: u64, rising: f64, start_divisor: f64, end_divisor: f64 },
    Linear { learning_rate: f64, steps: u64, end: f64 },
    Exponential { learning_rate: f64, gamma: f64 },
    Polynomial { learning_rate: f64, steps: u64, power: f64 },
    CosineWarmRestarts { learning_rate: f64, steps: u64, multiplier: u64, minimum: f64 },
    WarmUp { steps: u64, start: f64, then: Box<Schedule> },
}

impl Schedule {
    /// The same learning rate at every step.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    pub fn constant(learning_rate: f64) -> Self {
        let learning_rate = check_rate("learning rate", learning_rate);
        Schedule(Kind::Constant { learning_rate })
    }

    /// A learning rate multiplied by `factor` after every `every` steps: `lr · factor^⌊step / every⌋`, PyTorch's `StepLR`.
    ///
    /// # Panics
    /// Panics if a number is negative or not finite, or `every` is 0.
    #[track_caller]
    pub fn step(learning_rate: f64, every: u64, factor: f64) -> Self {
        let learning_rate = check_rate("learning rate", learning_rate);
        let (every, factor) =
            (check_steps("every", every), check_number::<f64>(NAME, "factor", Expect::AtLeast0, factor));
        Schedule(Kind::Step { learning_rate, every, factor })
    }

    /// Half a cosine from `learning_rate` at step 0 to `minimum` at step `steps`, PyTorch's `CosineAnnealingLR`
    /// (Loshchilov and Hutter 2017):
    ///
    /// ```text
    /// minimum + (lr - minimum) · (1 + cos(π · step / steps)) / 2
    /// ```
    ///
    /// After `steps` it rises again, as PyTorch's does, with a period of `2 · steps`.
    ///
    /// # Panics
    /// Panics if a number is negative or not finite, or `steps` is 0.
    #[track_caller]
    pub fn cosine(learning_rate: f64, steps: u64, minimum: f64) -> Self {
        let learning_rate = check_rate("learning rate", learning_rate);
        let (steps, minimum) = (check_steps("steps", steps), check_rate("minimum", minimum));
        Schedule(Kind::Cosine { learning_rate, steps, minimum })
    }

    /// Half a cosine up to `maximum`, then half a cosine down, in `steps` steps (Smith and Topin 2018): PyTorch's `OneCycleLR`
    /// with its defaults.
    ///
    /// It starts at `maximum / 25`, rises for 30% of the steps and ends at 1/10000 of its start. After its end it stays there;
    /// PyTorch raises an error.
    ///
    /// # Panics
    /// Panics if the maximum is negative or not finite, or there are fewer than 2 steps.
    #[track_caller]
    pub fn one_cycle(maximum: f64, steps: u64) -> Self {
        Self::one_cycle_with(maximum, steps, 0.3, 25.0, 1e4)
    }

    /// [`one_cycle`](Schedule::one_cycle) with PyTorch's `pct_start`, the fraction of the steps up to the maximum, `div_factor`,
    /// the maximum divided by the start, and `final_div_factor`, the start divided by the end.
    ///
    /// # Panics
    /// Panics if the maximum is negative or not finite, there are fewer than 2 steps, `pct_start` is not in `0..1`, or
    /// a divisor is not positive and finite, or so small that a learning rate is not.
    #[track_caller]
    pub fn one_cycle_with(maximum: f64, steps: u64, pct_start: f64, div_factor: f64, final_div_factor: f64) -> Self {
        let maximum = check_rate("maximum", maximum);
        assert!(steps >= 2, "{NAME}: steps: expected at least 2, got {steps}");
        let rising = check_number::<f64>(NAME, "pct_start", Expect::Fraction, pct_start);
        let mut rate = maximum;
        for (name, divisor) in [("div_factor", div_factor), ("final_div_factor", final_div_factor)] {
            check_number::<f64>(NAME, name, Expect::Above0, divisor);
            rate /= divisor;
            assert!(rate <= LARGEST, "{NAME}: {name}: expected a learning rate up to {LARGEST:e}, got {rate:e}");
        }
        Schedule(Kind::OneCycle { maximum, steps, rising, start_divisor: div_factor, end_divisor: final_div_factor })
    }

    /// A straight line from `learning_rate` at step 0 to `end` at step `steps`, where it stays; it may rise:
    ///
    /// ```text
    /// lr + (end - lr) · min(step, steps) / steps
    /// ```
    ///
    /// This is PyTorch's `LinearLR` with `total_iters = steps`: its base rate times `start_factor` at step 0, and times
    /// `end_factor` at the end.
    ///
    /// ```
    /// use gradflow::optim::Schedule;
    ///
    /// let schedule = Schedule::linear(0.5, 4, 0.25);
    /// assert_eq!([0, 1, 4, 9].map(|step| schedule.learning_rate(step)), [0.5, 0.4375, 0.25, 0.25]);
    /// ```
    ///
    /// # Panics
    /// Panics if a number is negative or not finite, or `steps` is 0.
    #[track_caller]
    pub fn linear(learning_rate: f64, steps: u64, end: f64) -> Self {
        let learning_rate = check_rate("learning rate", learning_rate);
        let (steps, end) = (check_steps("steps", steps), check_rate("end", end));
        Schedule(Kind::Linear { learning_rate, steps, end })
    }

    /// A learning rate multiplied by `gamma` after every step: `lr · gamma^step`, PyTorch's `ExponentialLR`.
    ///
    /// ```
    /// use gradflow::optim::Schedule;
    ///
    /// assert_eq!(Schedule::exponential(0.5, 0.5).learning_rate(3), 0.0625);
    /// ```
    ///
    /// # Panics
    /// Panics if a number is negative or not finite.
    #[track_caller]
    pub fn exponential(learning_rate: f64, gamma: f64) -> Self {
        let learning_rate = check_rate("learning rate", learning_rate);
        let gamma = check_number::<f64>(NAME, "gamma", Expect::AtLeast0, gamma);
        Schedule(Kind::Exponential { learning_rate, gamma })
    }

    /// A power of the remaining steps, from `learning_rate` at step 0 to 0 at step `steps`, where it stays: PyTorch's
    /// `PolynomialLR` with `total_iters = steps`.
    ///
    /// ```text
    /// lr · (1 - min(step, steps) / steps)^power
    /// ```
    ///
    /// ```
    /// use gradflow::optim::Schedule;
    ///
    /// let schedule = Schedule::polynomial(0.5, 4, 2.0);
    /// assert_eq!([0, 2, 4, 9].map(|step| schedule.learning_rate(step)), [0.5, 0.125, 0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// Panics if a number is negative or not finite, or `steps` is 0.
    #[track_caller]
    pub fn polynomial(learning_rate: f64, steps: u64, power: f64) -> Self {
        let learning_rate = check_rate("learning rate", learning_rate);
        let (steps, power) = (check_steps("steps", steps), check_number::<f64>(NAME, "power", Expect::AtLeast0, power));
        Schedule(Kind::Polynomial { learning_rate, steps, power })
    }

    /// Repeated half cosines from `learning_rate` down to `minimum`. The first takes `steps` steps, and each of the others is
    /// `multiplier` times as long as the one before it (Loshchilov and Hutter 2017): PyTorch's `CosineAnnealingWarmRestarts` with
    /// `T_0`, `T_mult` and `eta_min`.
    ///
    /// ```text
    /// minimum + (lr - minimum) · (1 + cos(π · position / length)) / 2      of the half cosine that the step lies in
    /// ```
    ///
    /// ```
    /// use gradflow::optim::Schedule;
    ///
    /// let schedule = Schedule::cosine_warm_restarts(0.5, 10, 2, 0.0);
    /// // From 0 to 10, from 10 to 30, from 30 to 70, …
    /// assert_eq!([0, 10, 30, 70].map(|step| schedule.learning_rate(step)), [0.5; 4]);
    /// assert_eq!([5, 20, 50].map(|step| schedule.learning_rate(step)), [0.25; 3]);
    /// ```
    ///
    /// # Panics
    /// Panics if a number is negative or not finite, or `steps` or `multiplier` is 0.
    #[track_caller]
    pub fn cosine_warm_restarts(learning_rate: f64, steps: u64, multiplier: u64, minimum: f64) -> Self {
        let learning_rate = check_rate("learning rate", learning_rate);
        let (steps, minimum) = (check_steps("steps", steps), check_rate("minimum", minimum));
        assert!(multiplier > 0, "{NAME}: multiplier: expected at least 1, got 0");
        Schedule(Kind::CosineWarmRestarts { learning_rate, steps, multiplier, minimum })
    }

    /// Adds a warm-up before this schedule: `steps` steps that rise linearly to its first learning rate, from `start` times it.
    /// This is PyTorch's `LinearLR`, followed by this schedule in a `SequentialLR`.
    ///
    /// ```text
    /// lr₀ · (start + (1 - start) · step / steps)
    /// ```
    ///
    /// # Panics
    /// Panics if `start` is negative or not finite, `steps` is 0, or there is a warm-up already.
    #[track_caller]
    pub fn warm_up(self, steps: u64, start: f64) -> Self {
        assert!(!matches!(self.0, Kind::WarmUp { .. }), "{NAME}: warm_up: there is one already");
        let (steps, start) = (check_steps("steps", steps), check_number::<f64>(NAME, "start", Expect::AtLeast0, start));
        Schedule(Kind::WarmUp { steps, start, then: Box::new(self) })
    }

    /// The learning rate of step `step`, counted from 0. It is at least 0 and, even if a factor above 1 makes it grow, at most
    /// the largest `f32`, about 3.4e38, so optimizers of both types accept it.
    #[must_use]
    pub fn learning_rate(&self, step: u64) -> f64 {
        let learning_rate = match &self.0 {
            Kind::Constant { learning_rate } => *learning_rate,
            Kind::Step { learning_rate, every, factor } => learning_rate * power(*factor, step / every),
            Kind::Cosine { learning_rate, steps, minimum } => {
                // Within one period, so that a large step loses no digits.
                between(*learning_rate, *minimum, (step % steps.saturating_mul(2)) as f64 / *steps as f64)
            }
            Kind::OneCycle { maximum, steps, rising, start_divisor, end_divisor } => {
                let (start, top) = (maximum / start_divisor, rising * *steps as f64 - 1.0);
                let (step, last) = ((step as f64).min((steps - 1) as f64), (steps - 1) as f64);
                if step < top {
                    between(start, *maximum, step / top)
                } else {
                    // With more steps than f64 can count, the top may be the last step.
                    let falling = last - top;
                    let position = if falling > 0.0 { (step - top) / falling } else { 1.0 };
                    between(*maximum, start / end_divisor, position)
                }
            }
            Kind::Linear { learning_rate, steps, end } => {
                let position = part(step, *steps);
                learning_rate * (1.0 - position) + end * position
            }
            Kind::Exponential { learning_rate, gamma } => learning_rate * power(*gamma, step),
            Kind::Polynomial { learning_rate, steps, power } => learning_rate * (1.0 - part(step, *steps)).powf(*power),
            Kind::CosineWarmRestarts { learning_rate, steps, multiplier, minimum } => {
                let (mut position, mut length) = (step, *steps);
                if *multiplier == 1 {
                    position %= length;
                }
                while position >= length {
                    position -= length;
                    length = length.saturating_mul(*multiplier);
                }
                between(*learning_rate, *minimum, position as f64 / length as f64)
            }
            Kind::WarmUp { steps, start, then } => match step.checked_sub(*steps) {
                Some(step) => then.learning_rate(step),
                None => then.learning_rate(0) * rise(*start, part(step, *steps)),
            },
        };
        // Rounding may give less than 0 at the end of a cosine.
        learning_rate.clamp(0.0, LARGEST)
    }
}

/// The fraction of `steps` before `step`, from 0 to 1.
pub(super) fn part(step: u64, steps: u64) -> f64 {
    step.min(steps) as f64 / steps as f64
}

/// `factor^count`, but finite: 0 times infinity is NaN.
fn power(factor: f64, count: u64) -> f64 {
    factor.powf(count as f64).min(f64::MAX)
}

/// The factor of a warm-up, from `start` at 0 to 1 at 1.
pub(super) fn rise(start: f64, position: f64) -> f64 {
    start + (1.0 - start) * position
}

/// From `a` at 0 to `b` at 1 along half a cosine.
fn between(a: f64, b: f64, position: f64) -> f64 {
    b + (a - b) * (1.0 + (PI * position).cos()) / 2.0
}

/// The largest learning rate.
pub(super) const LARGEST: f64 = f32::MAX as f64;

#[track_caller]
fn check_rate(what: &str, rate: f64) -> f64 {
    check_number::<f32>(NAME, what, Expect::AtLeast0, rate).min(LARGEST)
}

#[track_caller]
fn check_steps(what: &str, steps: u64) -> u64 {
    assert!(steps > 0, "{NAME}: {what}: expected at least 1 step, got 0");
    steps
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Constant { learning_rate } => write!(f, "constant({learning_rate:?})"),
            Kind::Step { learning_rate, every, factor } => write!(f, "step({learning_rate:?}, {every}, {factor:?})"),
            Kind::Cosine { learning_rate, steps, minimum } => {
                write!(f, "cosine({learning_rate:?}, {steps}, {minimum:?})")
            }
            Kind::OneCycle { maximum, steps, rising, start_divisor, end_divisor } => {
                write!(f, "one_cycle({maximum:?}, {steps}, {rising:?}, {start_divisor:?}, {end_divisor:?})")
            }
            Kind::Linear { learning_rate, steps, end } => write!(f, "linear({learning_rate:?}, {steps}, {end:?})"),
            Kind::Exponential { learning_rate, gamma } => write!(f, "exponential({learning_rate:?}, {gamma:?})"),
            Kind::Polynomial { learning_rate, steps, power } => {
                write!(f, "polynomial({learning_rate:?}, {steps}, {power:?})")
            }
            Kind::CosineWarmRestarts { learning_rate, steps, multiplier, minimum } => {
                write!(f, "cosine_warm_restarts({learning_rate:?}, {steps}, {multiplier}, {minimum:?})")
            }
            Kind::WarmUp { steps, start, then } => write!(f, "warm_up({steps}, {start:?}) {then}"),
        }
    }
}

/// The error for a text that is not a [`Schedule`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleError {
    /// The text, or the part of it, that was not understood.
    pub text: String,
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no schedule: {:?}", self.text)
    }
}

impl std::error::Error for ScheduleError {}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        parse(text).ok_or_else(|| ScheduleError { text: text.into() })
    }
}

/// Splits off a name and the arguments between its brackets, and returns them with the rest.
pub(super) fn split(text: &str) -> Option<(&str, Vec<&str>, &str)> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, rest) = rest.split_once(')')?;
    Some((name, arguments.split(", ").collect(), rest))
}

pub(super) fn read_steps(text: &str, least: u64) -> Option<u64> {
    text.parse().ok().filter(|&steps: &u64| steps >= least)
}

pub(super) fn read_number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| *value >= 0.0 && value.is_finite())
}

pub(super) fn read_rate(text: &str) -> Option<f64> {
    read_number(text).filter(|&rate| rate <= LARGEST)
}

fn parse(text: &str) -> Option<Schedule> {
    let (steps, number, rate) = (read_steps, read_number, read_rate);
    let above_0 = |text: &str| number(text).filter(|&value| value > 0.0);
    let (name, arguments, rest) = split(text)?;
    if let ("warm_up", [n, start]) = (name, &arguments[..]) {
        let then = rest.strip_prefix(' ').filter(|then| !then.starts_with("warm_up"))?;
        return Some(parse(then)?.warm_up(steps(n, 1)?, number(start)?));
    }
    let schedule = match (name, &arguments[..]) {
        ("constant", [start]) => Schedule::constant(rate(start)?),
        ("step", [start, every, factor]) => Schedule::step(rate(start)?, steps(every, 1)?, number(factor)?),
        ("cosine", [start, n, minimum]) => Schedule::cosine(rate(start)?, steps(n, 1)?, rate(minimum)?),
        ("linear", [start, n, end]) => Schedule::linear(rate(start)?, steps(n, 1)?, rate(end)?),
        ("exponential", [start, gamma]) => Schedule::exponential(rate(start)?, number(gamma)?),
        ("polynomial", [start, n, power]) => Schedule::polynomial(rate(start)?, steps(n, 1)?, number(power)?),
        ("cosine_warm_restarts", [start, n, multiplier, minimum]) => {
            Schedule::cosine_warm_restarts(rate(start)?, steps(n, 1)?, steps(multiplier, 1)?, rate(minimum)?)
        }
        ("one_cycle", [maximum, n, rising, start, end]) => {
            let rising = number(rising).filter(|&rising| rising < 1.0)?;
            let (maximum, start, end) = (rate(maximum)?, above_0(start)?, above_0(end)?);
            if maximum / start > LARGEST || maximum / start / end > LARGEST {
                return None;
            }
            Schedule::one_cycle_with(maximum, steps(n, 2)?, rising, start, end)
        }
        _ => return None,
    };
    rest.is_empty().then_some(schedule)
}
