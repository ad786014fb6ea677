//! What all optimizers share: settings, parameter groups, the walk over the tensors, and what is remembered.

use super::check_setting;
use super::groups::ParameterGroups;
use super::state::{OptimizerState, OptimizerStateError};
use crate::base::tensors::{check_alike, join};
use crate::base::{NamedTensors, Tensors, TensorsExt};
use crate::clip::{Change, ClipNorm, ClipReport, NonFiniteGradient};
use crate::kernels::Float;

/// The arithmetic of one optimizer: its own settings, and the update of one tensor.
pub(super) trait Rule<F> {
    /// The settings under PyTorch's names.
    fn settings(&self) -> Vec<(&'static str, f64)>;

    /// What is remembered of each parameter: PyTorch's name, and the value before the first step.
    fn moments(&self) -> Vec<(&'static str, f64)>;

    /// One step of a parameter's values, with as many moments as [`moments`](Rule::moments) lists, in its order: one pass,
    /// in which each is read and written once.
    fn update(&self, at: At, p: &mut [F], g: &[F], moments: &mut [Vec<F>]);
}

/// Where an update stands.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// Counted from 1.
    pub step: u64,
    /// The learning rate of this tensor.
    pub learning_rate: f64,
    /// The weight decay of this tensor.
    pub weight_decay: f64,
    /// What its gradient is multiplied by first.
    pub factor: f64,
}

impl At {
    /// `beta^step`
    pub fn power(self, beta: f64) -> f64 {
        beta.powi(i32::try_from(self.step).unwrap_or(i32::MAX))
    }
}

/// An optimizer, but for its arithmetic.
#[derive(Clone, Debug)]
pub(super) struct Core<F, R> {
    name: &'static str,
    pub rule: R,
    learning_rate: f64,
    weight_decay: f64,
    groups: ParameterGroups,
    steps: u64,
    plan: Option<Plan<F>>,
}

/// The groups resolved for one model's tensors.
#[derive(Clone, Debug)]
struct Plan<F> {
    /// How many tensors the model has, frozen ones included.
    count: usize,
    trained: Vec<Trained<F>>,
}

/// A tensor that is not frozen.
#[derive(Clone, Debug)]
struct Trained<F> {
    index: usize,
    name: String,
    shape: Vec<usize>,
    learning_rate_factor: f64,
    weight_decay: f64,
    moments: Vec<Vec<F>>,
}

impl<F: Float, R: Rule<F>> Core<F, R> {
    #[track_caller]
    pub fn new(name: &'static str, learning_rate: f64, weight_decay: f64, rule: R) -> Self {
        let learning_rate = check_setting(name, "learning rate", learning_rate);
        Core { name, rule, learning_rate, weight_decay, groups: ParameterGroups::default(), steps: 0, plan: None }
    }

    #[track_caller]
    fn check_unused(&self) {
        assert!(self.steps == 0, "{}: settings are chosen before the first step; {} were taken", self.name, self.steps);
    }

    /// With the rule's settings changed.
    #[track_caller]
    pub fn with(mut self, change: impl FnOnce(&mut R)) -> Self {
        self.check_unused();
        change(&mut self.rule);
        self
    }

    #[track_caller]
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        self.check_unused();
        Core { weight_decay: check_setting(self.name, "weight decay", weight_decay), ..self }
    }

    #[track_caller]
    pub fn groups(self, groups: ParameterGroups) -> Self {
        self.check_unused();
        Core { groups, ..self }
    }

    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    #[track_caller]
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = check_setting(self.name, "learning rate", learning_rate);
    }

    #[track_caller]
    fn plan(&self, model: &dyn Tensors<F>) -> Plan<F> {
        let moments = self.rule.moments();
        let options = self.groups.resolve(self.name, model);
        let trained = options.into_iter().enumerate().filter(|(_, options)| !options.frozen);
        let trained = trained.map(|(index, options)| {
            let (shape, values) = model.tensor(index);
            Trained {
                index,
                name: model.name(index),
                shape: shape.to_vec(),
                learning_rate_factor: options.learning_rate_factor,
                weight_decay: options.weight_decay.unwrap_or(self.weight_decay),
                moments: moments.iter().map(|&(_, initial)| vec![F::of(initial); values.len()]).collect(),
            }
        });
        Plan { count: model.count(), trained: trained.collect() }
    }

    /// One pass over the tensors; `clip` says what happens to each tensor of the gradient first.
    #[track_caller]
    pub fn step(&mut self, model: &mut dyn Tensors<F>, grad: &dyn Tensors<F>, mut clip: impl FnMut(&[F]) -> Change) {
        check_alike(&self.name, &*model, grad);
        if self.plan.is_none() {
            self.plan = Some(self.plan(model));
        }
        let Some(plan) = &mut self.plan else { unreachable!("made above") };
        plan.check(self.name, model);
        self.steps += 1;
        let mut trained = plan.trained.iter_mut().peekable();
        for i in 0..plan.count {
            let (g, mut zeros) = (grad.values(i), None);
            let change = clip(g); // of a frozen tensor too: it counts in the report
            let Some(tensor) = trained.next_if(|tensor| tensor.index == i) else { continue };
            let (g, factor) = match change {
                Change::Keep => (g, 1.0),
                Change::Scale(factor) => (g, factor),
                // Not by a factor of 0, which leaves NaN as it is.
                Change::Zero => (zeros.insert(vec![F::zero(); g.len()]).as_slice(), 1.0),
            };
            let at = At {
                step: self.steps,
                learning_rate: self.learning_rate * tensor.learning_rate_factor,
                weight_decay: tensor.weight_decay,
                factor,
            };
            self.rule.update(at, model.tensor_mut(i), g, &mut tensor.moments);
        }
    }

    #[track_caller]
    pub fn step_clipped(
        &mut self,
        model: &mut dyn Tensors<F>,
        grad: &dyn Tensors<F>,
        clip: ClipNorm,
    ) -> Result<ClipReport, NonFiniteGradient> {
        check_alike(&self.name, &*model, grad);
        let mut clipping = clip.measure(grad)?;
        self.step(model, grad, |values| clipping.change(values));
        Ok(clipping.report)
    }

    fn settings(&self) -> Vec<(&'static str, f64)> {
        let mut settings = vec![("lr", self.learning_rate), ("weight_decay", self.weight_decay)];
        settings.extend(self.rule.settings());
        settings
    }

    pub fn state(&self) -> OptimizerState<F> {
        let trained = self.plan.as_ref().map_or(&[][..], |plan| &plan.trained);
        let names = self.rule.moments();
        let tensors = names.iter().enumerate().flat_map(|(k, (moment, _))| {
            trained
                .iter()
                .map(move |tensor| (join(moment, tensor.name.clone()), tensor.shape.clone(), tensor.moments[k].clone()))
        });
        OptimizerState {
            kind: self.name.into(),
            steps: self.steps,
            settings: self.settings().into_iter().map(|(name, value)| (name.into(), value)).collect(),
            tensors: NamedTensors::new(tensors),
        }
    }

    #[track_caller]
    pub fn load_state(&mut self, model: &dyn Tensors<F>, state: &OptimizerState<F>) -> Result<(), OptimizerStateError> {
        use OptimizerStateError::*;
        if state.kind != self.name {
            return Err(Kind { expected: self.name.into(), got: state.kind.clone() });
        }
        let learning_rate = state.setting("lr").filter(|&rate| rate >= 0.0 && rate.is_finite());
        let learning_rate = learning_rate.ok_or(LearningRate { got: state.setting("lr") })?;
        for (name, expected) in self.settings().into_iter().skip(1) {
            let got = state.setting(name);
            if got != Some(expected) {
                return Err(Setting { name: name.into(), expected, got });
            }
        }
        let mut plan = self.plan(model);
        let mut used = vec![false; state.tensors.count()];
        if state.steps > 0 {
            let moments = self.rule.moments();
            for tensor in &mut plan.trained {
                for ((moment, _), values) in moments.iter().zip(&mut tensor.moments) {
                    let name = join(moment, tensor.name.clone());
                    let Some(i) = (0..used.len()).find(|&i| !used[i] && state.tensors.name(i) == name) else {
                        return Err(MissingTensor { name });
                    };
                    let (shape, saved) = state.tensors.tensor(i);
                    if shape != tensor.shape {
                        return Err(Shape { name, expected: tensor.shape.clone(), got: shape.to_vec() });
                    }
                    values.copy_from_slice(saved);
                    used[i] = true;
                }
            }
        }
        if let Some(i) = used.iter().position(|used| !used) {
            return Err(UnexpectedTensor { name: state.tensors.name(i) });
        }
        (self.learning_rate, self.steps) = (learning_rate, state.steps);
        self.plan = (state.steps > 0).then_some(plan);
        Ok(())
    }
}

impl<F: Float> Plan<F> {
    /// Panics unless `model` is of the shapes that the plan was made for.
    #[track_caller]
    fn check(&self, optimizer: &str, model: &dyn Tensors<F>) {
        let (expected, got) = (self.count, model.count());
        assert!(expected == got, "{optimizer}: expected {expected} tensors, got {got}");
        for Trained { index, name, shape: expected, .. } in &self.trained {
            let got = model.shape(*index);
            assert!(expected == got, "{optimizer}: {name}: expected {expected:?}, got {got:?}");
        }
    }
}

/// What every optimizer offers, for a struct whose `core` is a [`Core`].
macro_rules! optimizer {
    ($name:ident, $(#[$decay:meta])* weight_decay) => {
        impl<F: Float> $name<F> {
            $(#[$decay])*
            ///
            /// # Panics
            /// Where it is negative or not finite, or a step was taken.
            #[track_caller]
            pub fn weight_decay(self, weight_decay: f64) -> Self {
                $name { core: self.core.weight_decay(weight_decay) }
            }

            /// With parameters that are decayed, scaled or frozen otherwise than the rest.
            ///
            /// # Panics
            /// Where a step was taken; and, at the first step, where a rule fits no parameter of the model.
            #[track_caller]
            pub fn groups(self, groups: $crate::ParameterGroups) -> Self {
                $name { core: self.core.groups(groups) }
            }
        }

        impl<F: Float> $crate::Optimizer<F> for $name<F> {
            #[track_caller]
            fn step(&mut self, model: &mut dyn $crate::Tensors<F>, grad: &dyn $crate::Tensors<F>) {
                self.core.step(model, grad, |_| $crate::clip::Change::Keep);
            }

            #[track_caller]
            fn step_clipped(
                &mut self,
                model: &mut dyn $crate::Tensors<F>,
                grad: &dyn $crate::Tensors<F>,
                clip: $crate::ClipNorm,
            ) -> Result<$crate::ClipReport, $crate::NonFiniteGradient> {
                self.core.step_clipped(model, grad, clip)
            }

            fn learning_rate(&self) -> f64 {
                self.core.learning_rate()
            }

            #[track_caller]
            fn set_learning_rate(&mut self, learning_rate: f64) {
                self.core.set_learning_rate(learning_rate);
            }

            fn state(&self) -> $crate::OptimizerState<F> {
                self.core.state()
            }

            #[track_caller]
            fn load_state(
                &mut self,
                model: &dyn $crate::Tensors<F>,
                state: &$crate::OptimizerState<F>,
            ) -> Result<(), $crate::OptimizerStateError> {
                self.core.load_state(model, state)
            }
        }
    };
}
pub(super) use optimizer;
