//! The common part of all optimizers: settings, parameter groups, the loop over the tensors, and the moments.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::groups::ParameterGroups;
use super::state::{OptimizerState, OptimizerStateError, ToTake};
use crate::base::tensors::{check_alike, check_values, join, shown};
use crate::base::{Expect, NamedTensors, Tensors, TensorsExt, check_number};
use crate::clip::{Change, ClipNorm, ClipReport, NonFiniteGradient, grad_norm};
use crate::kernels::Float;
use crate::kernels::softmax::all_finite;
use crate::parallel::{for_each_part, function_work};

/// The arithmetic of one optimizer: its own settings, and the update of one tensor.
pub(super) trait Rule<F>: Sync {
    /// The settings under PyTorch's names.
    fn settings(&self) -> Vec<(&'static str, f64)>;

    /// The moments of each parameter: PyTorch's name, and the value before the first step.
    fn moments(&self) -> Vec<(&'static str, f64)>;

    /// The moments that are sums, averages or maxima of squares, and so are never below 0.
    fn squares(&self) -> &'static [&'static str] {
        &[]
    }

    /// Settings that states of earlier versions do not have, with the value that they had there.
    fn added_settings(&self) -> &'static [(&'static str, f64)] {
        &[]
    }

    /// PyTorch's name of the product that a rule keeps for each parameter, if it keeps one. The product is 1 before the first
    /// step and then in `0..1`.
    fn product(&self) -> Option<&'static str> {
        None
    }

    /// The factor by which the product is multiplied in step `step`, counted from 1.
    fn product_factor(&self, _step: u64) -> f64 {
        1.0
    }

    /// One step for some of a parameter's values, with the moments that [`moments`](Rule::moments) lists, in that order. It is
    /// one pass that reads and writes each value once.
    #[track_caller]
    fn update(&self, at: At, p: &mut [F], g: &[F], moments: &mut [&mut [F]]);
}

/// The largest number of moments of a rule.
const MOST_MOMENTS: usize = 3;

/// The number of values that are checked, and then updated while they are in the L1 cache.
const CHUNK: usize = 1 << 13;

#[cold]
#[track_caller]
fn refuse<F: Float>(optimizer: &str, tensor: &str, grad: &dyn Tensors<F>) -> ! {
    let error = NonFiniteGradient { tensor: tensor.into(), norm: grad_norm(grad, 2.0) };
    panic!("{optimizer}: step: {error}; step_clipped returns this as an error")
}

/// The step, and the settings of the tensor that is updated.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// Counted from 1.
    pub step: u64,
    /// The learning rate of this tensor.
    pub learning_rate: f64,
    /// The weight decay of this tensor.
    pub weight_decay: f64,
    /// Its gradient is multiplied by this first.
    pub factor: f64,
    /// Its [`product`](Rule::product), with this step's factor.
    pub product: f64,
}

impl At {
    /// `beta^step`
    pub fn power(self, beta: f64) -> f64 {
        beta.powi(i32::try_from(self.step).unwrap_or(i32::MAX))
    }
}

/// An optimizer: its arithmetic and everything else.
#[derive(Clone, Debug)]
pub(super) struct Core<F, R> {
    pub rule: R,
    pub training: Training<F>,
}

/// An optimizer, except for its arithmetic. It does not know the rule's type, so that it is compiled once.
#[derive(Clone, Debug)]
pub(super) struct Training<F> {
    name: &'static str,
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
    product: F,
}

impl<F: Float, R> Core<F, R> {
    #[track_caller]
    pub fn new(name: &'static str, learning_rate: f64, weight_decay: f64, rule: R) -> Self {
        let learning_rate = check_number::<F>(name, "learning rate", Expect::AtLeast0, learning_rate);
        let groups = ParameterGroups::default();
        Core { rule, training: Training { name, learning_rate, weight_decay, groups, steps: 0, plan: None } }
    }

    #[track_caller]
    fn check_unused(&self) {
        let Training { name, steps, .. } = self.training;
        assert!(steps == 0, "{name}: settings are chosen before the first step; {steps} were taken");
    }

    /// Changes the rule's settings.
    #[track_caller]
    pub fn with(mut self, change: impl FnOnce(&mut R)) -> Self {
        self.check_unused();
        change(&mut self.rule);
        self
    }

    #[track_caller]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.check_unused();
        self.training.weight_decay =
            check_number::<F>(self.training.name, "weight decay", Expect::AtLeast0, weight_decay);
        self
    }

    #[track_caller]
    pub fn groups(mut self, groups: ParameterGroups) -> Self {
        self.check_unused();
        self.training.groups = groups;
        self
    }

    pub fn learning_rate(&self) -> f64 {
        self.training.learning_rate
    }

    #[track_caller]
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.training.learning_rate =
            check_number::<F>(self.training.name, "learning rate", Expect::AtLeast0, learning_rate);
    }
}

impl<F: Float> Training<F> {
    #[track_caller]
    fn plan(&self, rule: &dyn Rule<F>, model: &dyn Tensors<F>) -> Plan<F> {
        let moments = rule.moments();
        let options = self.groups.resolve(self.name, model);
        let trained = options.into_iter().enumerate().filter(|(_, options)| !options.frozen);
        let trained = trained.map(|(index, options)| {
            let ((shape, values), name) = (model.tensor(index), model.name(index));
            check_values(self.name, &name, shape, values.len());
            Trained {
                index,
                name,
                shape: shape.to_vec(),
                learning_rate_factor: options.learning_rate_factor,
                weight_decay: options.weight_decay.unwrap_or(self.weight_decay),
                moments: moments.iter().map(|&(_, initial)| vec![F::of(initial); values.len()]).collect(),
                product: F::one(),
            }
        });
        Plan { count: model.count(), trained: trained.collect() }
    }

    /// One step; with `clip`, by the clipped gradient.
    #[track_caller]
    pub fn step(
        &mut self,
        rule: &dyn Rule<F>,
        model: &mut dyn Tensors<F>,
        grad: &dyn Tensors<F>,
        clip: Option<ClipNorm>,
    ) -> Result<Option<ClipReport>, NonFiniteGradient> {
        check_alike(&self.name, &*model, grad);
        // Clipping has already decided what happens to a gradient that is not finite.
        let must_be_finite = clip.is_none();
        if self.plan.is_none() {
            self.plan = Some(self.plan(rule, model));
        }
        let Some(plan) = &mut self.plan else { unreachable!("made above") };
        plan.check(self.name, model);
        let mut clipping = clip.map(|clip| clip.measure(&Unfrozen { grad, trained: &plan.trained })).transpose()?;
        self.steps += 1;
        // One pass over the tensors.
        for tensor in &mut plan.trained {
            let (g, mut zeros) = (grad.values(tensor.index), None);
            let change = clipping.as_mut().map_or(Change::Keep, |clipping| clipping.change(g));
            let (g, factor) = match change {
                Change::Keep => (g, 1.0),
                Change::Scale(factor) => (g, factor),
                // A factor of 0 would leave NaN as it is.
                Change::Zero => (zeros.insert(vec![F::zero(); g.len()]).as_slice(), 1.0),
            };
            let learning_rate = self.learning_rate * tensor.learning_rate_factor;
            tensor.product *= F::of(rule.product_factor(self.steps));
            let at = At {
                step: self.steps,
                learning_rate: check_number::<F>(
                    self.name,
                    "learning rate times its factor",
                    Expect::AtLeast0,
                    learning_rate,
                ),
                weight_decay: tensor.weight_decay,
                factor,
                product: tensor.product.widen(),
            };
            let (p, count) = (model.tensor_mut(tensor.index), tensor.moments.len());
            let mut moments = tensor.moments.iter_mut().map(Vec::as_mut_slice);
            let moments = (moments.next(), (moments.next(), moments.next()));
            let (work, is_refused) = (function_work(p.len()), AtomicBool::new(false));
            // Each element is updated on its own, so parts may be of any size.
            for_each_part((p, (g, moments)), work, CHUNK, |(p, (g, (first, (second, third))))| {
                let mut parts = [first, second, third].map(Option::unwrap_or_default);
                for (k, (p, g)) in p.chunks_mut(CHUNK).zip(g.chunks(CHUNK)).enumerate() {
                    if must_be_finite && !all_finite(g) {
                        return is_refused.store(true, Relaxed);
                    }
                    let mut moments: [&mut [F]; MOST_MOMENTS] = Default::default();
                    for (chunk, moment) in moments.iter_mut().zip(&mut parts[..count]) {
                        *chunk = &mut moment[k * CHUNK..][..p.len()];
                    }
                    rule.update(at, p, g, &mut moments[..count]);
                }
            });
            if is_refused.into_inner() {
                refuse(self.name, &tensor.name, grad);
            }
        }
        Ok(clipping.map(|clipping| clipping.report))
    }

    fn settings(&self, rule: &dyn Rule<F>) -> Vec<(&'static str, f64)> {
        let mut settings = vec![("lr", self.learning_rate), ("weight_decay", self.weight_decay)];
        settings.extend(rule.settings());
        settings
    }

    pub fn state(&self, rule: &dyn Rule<F>) -> OptimizerState<F> {
        let trained = self.plan.as_ref().filter(|_| self.steps > 0).map_or(&[][..], |plan| &plan.trained);
        let names = rule.moments();
        let tensors = names.iter().enumerate().flat_map(|(k, (moment, _))| {
            trained
                .iter()
                .map(move |tensor| (join(moment, tensor.name.clone()), tensor.shape.clone(), tensor.moments[k].clone()))
        });
        let products = rule.product().into_iter().flat_map(|product| {
            trained.iter().map(move |tensor| (join(product, tensor.name.clone()), vec![], vec![tensor.product]))
        });
        OptimizerState {
            kind: self.name.into(),
            steps: self.steps,
            settings: self.settings(rule).into_iter().map(|(name, value)| (name.into(), value)).collect(),
            tensors: NamedTensors::new(tensors.chain(products)),
        }
    }

    #[track_caller]
    pub fn load_state(
        &mut self,
        rule: &dyn Rule<F>,
        model: &dyn Tensors<F>,
        state: &OptimizerState<F>,
    ) -> Result<(), OptimizerStateError> {
        use OptimizerStateError::{LearningRate, NegativeSquare, Product};
        state.check_kind(self.name)?;
        let learning_rate = state.setting("lr").filter(|&rate| rate >= 0.0 && F::of(rate).is_finite());
        let learning_rate = learning_rate.ok_or(LearningRate { got: state.setting("lr") })?;
        // The first setting is the learning rate, which is restored.
        state.check_settings(&self.settings(rule)[1..], rule.added_settings())?;
        let mut plan = self.plan(rule, model);
        let mut tensors = ToTake::new(&state.tensors);
        if state.steps > 0 {
            let moments = rule.moments();
            for tensor in &mut plan.trained {
                for ((moment, _), values) in moments.iter().zip(&mut tensor.moments) {
                    let name = join(moment, tensor.name.clone());
                    let saved = tensors.take(&name, &tensor.shape)?;
                    if rule.squares().contains(moment) && saved.iter().any(|&square| square < F::zero()) {
                        return Err(NegativeSquare { name });
                    }
                    values.copy_from_slice(saved);
                }
                if let Some(product) = rule.product() {
                    let name = join(product, tensor.name.clone());
                    let product = tensors.take(&name, &[])?[0];
                    let got = product.widen();
                    if !(0.0..1.0).contains(&got) {
                        return Err(Product { name, got });
                    }
                    tensor.product = product;
                }
            }
        }
        tensors.finish()?;
        (self.learning_rate, self.steps) = (learning_rate, state.steps);
        self.plan = (state.steps > 0).then_some(plan);
        Ok(())
    }
}

/// The tensors of a gradient that are not frozen; a frozen one has no gradient.
struct Unfrozen<'a, F> {
    grad: &'a dyn Tensors<F>,
    trained: &'a [Trained<F>],
}

impl<F> Tensors<F> for Unfrozen<'_, F> {
    fn count(&self) -> usize {
        self.trained.len()
    }
    fn name(&self, i: usize) -> String {
        self.grad.name(self.trained[i].index)
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        self.grad.tensor(self.trained[i].index)
    }
    fn tensor_mut(&mut self, _: usize) -> &mut [F] {
        unreachable!("its norm is taken, and nothing else")
    }
}

impl<F: Float> Plan<F> {
    /// Panics unless `model` has the shapes that the plan was made for.
    #[track_caller]
    fn check(&self, optimizer: &str, model: &dyn Tensors<F>) {
        let (expected, got) = (self.count, model.count());
        assert!(expected == got, "{optimizer}: expected {expected} tensors, got {got}");
        for Trained { index, name, shape: expected, .. } in &self.trained {
            let got = model.shape(*index);
            assert!(expected == got, "{optimizer}: {}: expected {expected:?}, got {got:?}", shown(name));
        }
    }
}

/// Implements the methods of every optimizer, for a struct whose `core` is a [`Core`].
macro_rules! optimizer {
    ($name:ident, $(#[$decay:meta])* weight_decay) => {
        impl<F: Float> $name<F> {
            $(#[$decay])*
            ///
            /// # Panics
            /// Panics if it is negative or not finite, or a step was taken.
            #[track_caller]
            pub fn weight_decay(self, weight_decay: f64) -> Self {
                $name { core: self.core.weight_decay(weight_decay) }
            }

            /// Sets rules for parameters that are decayed, scaled or frozen differently from the rest.
            ///
            /// # Panics
            /// Panics if a step was taken; and, at the first step, if a rule matches no parameter of the model.
            #[track_caller]
            pub fn groups(self, groups: $crate::optim::groups::ParameterGroups) -> Self {
                $name { core: self.core.groups(groups) }
            }
        }

        const _: () = {
            use $crate::base::Tensors;
            use $crate::clip::{ClipNorm, ClipReport, NonFiniteGradient};
            use $crate::optim::core::Core;
            use $crate::optim::optimizer::Optimizer;
            use $crate::optim::state::{OptimizerState, OptimizerStateError};

            $crate::kernels::once! {
                #[track_caller]
                fn step<'a, F: Float>(
                    optimizer: &'a mut $name<F>,
                    model: &'a mut dyn Tensors<F>,
                    grad: &'a dyn Tensors<F>,
                    clip: Option<ClipNorm>,
                ) -> Result<Option<ClipReport>, NonFiniteGradient> {
                    let Core { rule, training } = &mut optimizer.core;
                    training.step(rule, model, grad, clip)
                }

                fn state<'a, F: Float>(optimizer: &'a $name<F>) -> OptimizerState<F> {
                    optimizer.core.training.state(&optimizer.core.rule)
                }

                #[track_caller]
                fn load_state<'a, F: Float>(
                    optimizer: &'a mut $name<F>,
                    model: &'a dyn Tensors<F>,
                    state: &'a OptimizerState<F>,
                ) -> Result<(), OptimizerStateError> {
                    let Core { rule, training } = &mut optimizer.core;
                    training.load_state(rule, model, state)
                }
            }

            impl<F: Float> Optimizer<F> for $name<F> {
                #[track_caller]
                fn step(&mut self, model: &mut dyn Tensors<F>, grad: &dyn Tensors<F>) {
                    let step = step(self, model, grad, None);
                    debug_assert!(step.is_ok(), "only clipping can fail");
                }

                fn step_clipped(
                    &mut self,
                    model: &mut dyn Tensors<F>,
                    grad: &dyn Tensors<F>,
                    clip: ClipNorm,
                ) -> Result<ClipReport, NonFiniteGradient> {
                    step(self, model, grad, Some(clip)).map(|report| report.expect("a report of clipping"))
                }

                fn learning_rate(&self) -> f64 {
                    self.core.learning_rate()
                }

                #[track_caller]
                fn set_learning_rate(&mut self, learning_rate: f64) {
                    self.core.set_learning_rate(learning_rate);
                }

                fn state(&self) -> OptimizerState<F> {
                    state(self)
                }

                fn load_state(
                    &mut self,
                    model: &dyn Tensors<F>,
                    state: &OptimizerState<F>,
                ) -> Result<(), OptimizerStateError> {
                    load_state(self, model, state)
                }
            }
        };
    };
}
pub(super) use optimizer;
