//! An optimizer's state, as a value.

use std::fmt;

use crate::base::{NamedTensors, Tensors};
use crate::kernels::Float;

/// The largest number of steps of a state: corrections and decays compute with it in f64, which is exact up to here.
const MOST_STEPS: u64 = 1 << 53;

/// The state of an [`Optimizer`](crate::optim::Optimizer) or a [`WeightAverage`](crate::optim::WeightAverage): enough to continue
/// a training to the bit, in a form that a file can hold.
///
/// ```
/// use gradflow::{TensorsExt, ndarray::arr1, optim::{AdamW, Optimizer}};
///
/// let (mut parameter, gradient) = (arr1(&[1.0, -1.0]), arr1(&[0.5, 2.0]));
/// let mut optimizer = AdamW::new(0.1);
/// optimizer.step(&mut parameter, &gradient);
/// let state = optimizer.state();
/// assert_eq!((state.kind.as_str(), state.steps, state.setting("lr")), ("AdamW", 1, Some(0.1)));
/// assert_eq!(state.tensors.names(), ["exp_avg", "exp_avg_sq"]); // `exp_avg.<name>` if the parameter has a name
///
/// let (mut resumed, mut copy) = (AdamW::new(0.1), parameter.clone());
/// resumed.load_state(&copy, &state)?;
/// resumed.step(&mut copy, &gradient);
/// optimizer.step(&mut parameter, &gradient);
/// assert_eq!(copy, parameter);
/// # Ok::<(), gradflow::optim::OptimizerStateError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState<F> {
    /// The optimizer's name: `AdamW`; for an average, `Ema` or `Swa`.
    pub kind: String,
    /// How many steps were taken, or updates of an average.
    pub steps: u64,
    /// Its settings in PyTorch's spelling, switches as 0 and 1: `lr`, `weight_decay`, `beta1`, …
    pub settings: Vec<(String, f64)>,
    /// Its moments, named by PyTorch's name and that of their parameter: `exp_avg.lstm.weight_ih`. Empty before the first step; a
    /// frozen parameter has none.
    pub tensors: NamedTensors<F>,
}

impl<F> OptimizerState<F> {
    /// The setting called `name`.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<f64> {
        self.settings.iter().find(|(setting, _)| setting == name).map(|&(_, value)| value)
    }

    /// Changes the value of one setting, to continue a training with it on purpose.
    /// [`load_moments`](crate::optim::Optimizer::load_moments) does the same for all settings at once.
    ///
    /// ```
    /// use gradflow::{ndarray::arr1, optim::{AdamW, Optimizer}};
    ///
    /// let (mut parameter, gradient) = (arr1(&[1.0, -1.0]), arr1(&[0.5, 2.0]));
    /// let mut optimizer = AdamW::new(0.1);
    /// optimizer.step(&mut parameter, &gradient);
    ///
    /// let mut resumed = AdamW::new(0.1).weight_decay(0.3);
    /// assert!(resumed.load_state(&parameter, &optimizer.state()).is_err());
    /// resumed.load_state(&parameter, &optimizer.state().with_setting("weight_decay", 0.3))?;
    /// # Ok::<(), gradflow::optim::OptimizerStateError>(())
    /// ```
    ///
    /// # Panics
    /// Panics if the state has no setting of this name.
    #[must_use]
    #[track_caller]
    pub fn with_setting(mut self, name: &str, value: f64) -> Self {
        match self.settings.iter_mut().find(|(setting, _)| setting == name) {
            Some((_, old)) => *old = value,
            None => {
                let names: Vec<_> = self.settings.iter().map(|(name, _)| name).collect();
                panic!("OptimizerState: with_setting: expected one of {names:?}, got {name:?}")
            }
        }
        self
    }
}

impl<F: Float> OptimizerState<F> {
    pub(super) fn check_kind(&self, kind: &str) -> Result<(), OptimizerStateError> {
        use OptimizerStateError::*;
        if self.kind != kind {
            return Err(Kind { expected: kind.into(), got: self.kind.clone() });
        }
        if self.steps > MOST_STEPS {
            return Err(Steps { got: self.steps });
        }
        Ok(())
    }

    /// `added` are settings that states of earlier versions do not have, with the value that they had there.
    pub(super) fn check_settings(
        &self,
        settings: &[(&'static str, f64)],
        added: &[(&'static str, f64)],
    ) -> Result<(), OptimizerStateError> {
        use OptimizerStateError::*;
        for &(name, expected) in settings {
            let value_of_added = || added.iter().find(|(added, _)| *added == name).map(|&(_, value)| value);
            let got = self.setting(name);
            if got.or_else(value_of_added) != Some(expected) {
                return Err(Setting { name: name.into(), expected, got });
            }
        }
        Ok(())
    }
}

/// The tensors of a state, each of which is taken once.
pub(super) struct ToTake<'a, F> {
    tensors: &'a NamedTensors<F>,
    taken: Vec<bool>,
}

impl<'a, F: Float> ToTake<'a, F> {
    pub fn new(tensors: &'a NamedTensors<F>) -> Self {
        ToTake { tensors, taken: vec![false; tensors.count()] }
    }

    /// The values of the tensor called `name`, which was not taken before.
    pub fn take(&mut self, name: &str, expected: &[usize]) -> Result<&'a [F], OptimizerStateError> {
        use OptimizerStateError::*;
        let name = || name.to_owned();
        let mut left = (0..self.taken.len()).filter(|&i| !self.taken[i]);
        let i = left.find(|&i| self.tensors.name(i) == name()).ok_or_else(|| MissingTensor { name: name() })?;
        let (shape, values) = self.tensors.tensor(i);
        if shape != expected {
            return Err(Shape { name: name(), expected: expected.to_vec(), got: shape.to_vec() });
        }
        self.taken[i] = true;
        Ok(values)
    }

    /// Returns an error if a tensor is left.
    pub fn finish(self) -> Result<(), OptimizerStateError> {
        match self.taken.iter().position(|taken| !taken) {
            Some(i) => Err(OptimizerStateError::UnexpectedTensor { name: self.tensors.name(i) }),
            None => Ok(()),
        }
    }
}

/// Why a state does not fit this optimizer, or average, with this model: nothing was changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OptimizerStateError {
    /// It comes from another optimizer.
    Kind {
        /// The optimizer that should load it.
        expected: String,
        /// The optimizer that it comes from.
        got: String,
    },
    /// Its learning rate is missing, negative or not finite.
    LearningRate {
        /// The learning rate in the state.
        got: Option<f64>,
    },
    /// It has taken more steps than any training can.
    Steps {
        /// The number of steps in the state.
        got: u64,
    },
    /// A setting other than the learning rate differs from this optimizer's. The learning rate itself is restored.
    Setting {
        /// The setting's name.
        name: String,
        /// Its value in the optimizer that should load the state.
        expected: f64,
        /// Its value in the state, if there is one.
        got: Option<f64>,
    },
    /// The state lacks a tensor that the model needs.
    MissingTensor {
        /// The tensor's name.
        name: String,
    },
    /// The state has a tensor twice, or one that does not belong to the model or to a state before the first step.
    UnexpectedTensor {
        /// The tensor's name.
        name: String,
    },
    /// A mean or sum of squares has an element below 0.
    NegativeSquare {
        /// The tensor's name.
        name: String,
    },
    /// A weight of an average is infinite or NaN.
    NonFinite {
        /// The tensor's name.
        name: String,
    },
    /// A product of momentums is not in `0..1`.
    Product {
        /// The tensor's name.
        name: String,
        /// The product in the state.
        got: f64,
    },
    /// A tensor has another shape than the model's.
    Shape {
        /// The tensor's name.
        name: String,
        /// The shape in the model.
        expected: Vec<usize>,
        /// The shape in the state.
        got: Vec<usize>,
    },
}

impl fmt::Display for OptimizerStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use OptimizerStateError::*;
        match self {
            Kind { expected, got } => write!(f, "the state is of {got}, not of {expected}"),
            LearningRate { got: None } => write!(f, "the state has no learning rate"),
            LearningRate { got: Some(got) } => write!(f, "the state's learning rate is {got}"),
            Steps { got } => write!(f, "the state has taken {got} steps, more than any training can"),
            Setting { name, expected, got: None } => write!(f, "the state has no {name}, which is {expected} here"),
            Setting { name, expected, got: Some(got) } => {
                write!(f, "{name} is {got} in the state and {expected} here; if that is meant, ")?;
                write!(f, "`Optimizer::load_moments` goes on with the settings here")
            }
            MissingTensor { name } => write!(f, "the state has no {name}"),
            UnexpectedTensor { name } => write!(f, "the state has {name}, which the model has no use for"),
            NegativeSquare { name } => {
                write!(f, "{name} has an element below 0 in the state, where squares are summed")
            }
            NonFinite { name } => write!(f, "{name} has an element in the state that is not finite"),
            Product { name, got } => {
                write!(f, "{name} is {got} in the state, and no product of momentums, which is in 0..1")
            }
            Shape { name, expected, got } => write!(f, "{name} is {got:?} in the state and {expected:?} in the model"),
        }
    }
}

impl std::error::Error for OptimizerStateError {}
