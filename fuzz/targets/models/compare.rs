//! The comparisons. Some require the same bits. The others allow for rounding, whose effect is measured with passes of slightly
//! different numbers.

use std::cell::RefCell;

use gradflow::author::Gradient;
use gradflow::compose::BoxLayer;
use gradflow::ndarray::{Array3, ArrayView3, Axis, s};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::wrap::Prepacked;
use gradflow::{Causal, Float, Layer, Sequence, Tensors, TensorsExt, ZerosLike};

use super::Report;
use super::batch::Batch;
use super::build::{Input, Spec};
use super::outcome::Outcome;
use crate::targets::choices::Choices;
use crate::targets::layout::{Laid, Layout};
use crate::targets::panic_of;

/// `dL/dy` of a loss without a pattern; also used for the gradient of the final state.
fn weight(at: usize) -> f64 {
    f64::from((0.7 * at as f64 + 0.3).sin() as f32)
}

fn output_gradient<F: Float>((steps, batch, features): (usize, usize, usize)) -> Array3<F> {
    Array3::from_shape_fn((steps, batch, features), |(t, b, k)| F::of(weight((t * batch + b) * features + k)))
}

fn state_gradient<F: Float, S: Tensors<F>>(mut state: S) -> S {
    let mut at = 0;
    for i in 0..state.count() {
        for value in state.tensor_mut(i) {
            *value = F::of(weight(at + 5));
            at += 1;
        }
    }
    state
}

/// Rounding that is always allowed, relative to the largest number of the tensor and to that of the outcome; and the relative size of a
/// disturbance.
const F64: [f64; 3] = [1e-12, 1e-15, 1e-12];
const F32: [f64; 3] = [2e-5, 2e-6, 3e-7];

/// How a pass is made.
struct Way<'a, F: Float> {
    model: &'a BoxLayer<F>,
    x: ArrayView3<'a, F>,
    dy_layout: Layout,
    overwrite: bool,
    /// The relative disturbance of the gradients of output and state, and its seed.
    disturbed: Option<(f64, u64)>,
}

/// Multiplies numbers by `1 ± size`.
fn disturb<F: Float>(size: f64, rng: &mut StdRng) -> impl FnMut(&mut F) {
    move |value| *value = F::of(value.widen() * (1.0 + size * rng.random_range(-1.0..1.0)))
}

/// A forward and a backward pass over the whole batch.
fn pass<F: Float>(batch: &Batch, way: &Way<'_, F>, cache: &mut <BoxLayer<F> as Layer>::Cache) -> Outcome {
    let Way { model, dy_layout, overwrite, disturbed, .. } = *way;
    let x = batch.sequence(way.x, batch.lengths.as_deref());
    let mut state = model.zero_state(batch.shape.batch);
    let y = model.forward(x, &mut state, cache).to_owned();
    let (mut grad, mut dy, mut dstate) = (model.zeros_like(), output_gradient(y.dim()), state_gradient(state.clone()));
    if let Some((size, seed)) = disturbed {
        let rng = &mut StdRng::seed_from_u64(seed);
        dy.iter_mut().for_each(disturb(size, rng));
        (0..dstate.count()).for_each(|i| dstate.tensor_mut(i).iter_mut().for_each(disturb(size, rng)));
    }
    let dy = Laid::new(&dy, dy_layout);
    let how = if overwrite {
        for i in 0..grad.count() {
            grad.tensor_mut(i).fill(F::of(f64::NAN));
        }
        Gradient::overwrite(&mut grad)
    } else {
        Gradient::add(&mut grad)
    };
    let dx = model.backward(x, &dy.view(), Some(&mut dstate), cache, how).to_owned();
    let mut outcome = Outcome::default();
    outcome.add_array("y", &y);
    outcome.add_all("state", &state);
    if x.wants_gradient() {
        outcome.add_array("dx", &dx);
    }
    outcome.add_all("dstate", &dstate);
    outcome.add_all("grad", &grad);
    outcome
}

/// The outcome that all others are compared with.
pub fn reference(spec: &Spec, batch: &Batch) -> Outcome {
    whole::<f64>(&spec.build(), batch, &batch.values())
}

fn whole<F: Float>(model: &BoxLayer<F>, batch: &Batch, x: &Array3<F>) -> Outcome {
    let way = Way { model, x: x.view(), dy_layout: Layout::Standard, overwrite: false, disturbed: None };
    pass(batch, &way, &mut model.cache())
}

/// The outcome of a pass from parameters, `x` and gradients with relative errors of about `size`.
fn disturbed<F: Float>(spec: &Spec, batch: &Batch, size: f64, seed: u64) -> Outcome {
    let (mut model, mut x, rng) = (spec.build::<F>(), batch.values::<F>(), &mut StdRng::seed_from_u64(seed));
    (0..model.count()).for_each(|i| model.tensor_mut(i).iter_mut().for_each(disturb(size, rng)));
    if matches!(spec.input, Input::Features(_)) {
        x.iter_mut().for_each(disturb(size, rng));
    }
    let way = Way {
        model: &model,
        x: x.view(),
        dy_layout: Layout::Standard,
        overwrite: false,
        disturbed: Some((size, seed + 1000)),
    };
    pass(batch, &way, &mut model.cache())
}

/// Number of disturbed passes that are made for every model, and the number if these do not explain a difference: a few passes may all
/// lie on one side of a kink.
const DISTURBED: [u64; 2] = [2, 40];

/// How far apart two outcomes may be.
///
/// Rounding is measured, not bounded. Passes in the same precision, from numbers that differ in their last digits, show how the model
/// carries these differences on, and the rounding within the model. This includes sums whose terms always cancel, as in the gradients
/// of a normalisation or of a softmax.
pub struct Judge<'a> {
    want: &'a Outcome,
    /// Makes a disturbed pass from a seed.
    disturbed: Box<dyn Fn(u64) -> Outcome + 'a>,
    /// An undisturbed pass, in the same precision.
    plain: &'a Outcome,
    /// For each tensor: the rounding that is always allowed.
    floors: Vec<f64>,
    /// For each tensor: the largest difference between disturbed passes and the plain one; and the number of passes.
    carried: RefCell<(Vec<f64>, u64)>,
    /// The largest number in the outcome.
    largest: f64,
}

impl<'a> Judge<'a> {
    /// A judge of other orders of operations in `f64`.
    pub fn of(spec: &'a Spec, batch: &'a Batch, want: &'a Outcome) -> Judge<'a> {
        Judge::with::<f64>(spec, batch, want, want)
    }

    /// A judge of `plain`, a pass in another precision.
    fn with<F: Float>(spec: &'a Spec, batch: &'a Batch, want: &'a Outcome, plain: &'a Outcome) -> Judge<'a> {
        let largest = |values: &[f64]| values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let all = want.tensors.iter().map(|(_, values)| largest(values)).fold(0.0, f64::max);
        let [relative, of_all, disturbance] = if size_of::<F>() == 4 { F32 } else { F64 };
        let floors = want.tensors.iter().map(|(_, values)| relative * largest(values) + of_all * all).collect();
        let disturbed = Box::new(move |seed| disturbed::<F>(spec, batch, disturbance, seed));
        let carried = RefCell::new((vec![0.0; want.tensors.len()], 0));
        Judge { want, disturbed, plain, floors, carried, largest: all }
    }

    /// The largest difference of a tensor that counts as rounding, from `passes` disturbed passes.
    fn tolerance(&self, at: usize, passes: u64) -> f64 {
        let (carried, made) = &mut *self.carried.borrow_mut();
        while *made < passes {
            let other = (self.disturbed)(*made);
            for ((carried, (_, plain)), (_, other)) in carried.iter_mut().zip(&self.plain.tensors).zip(&other.tensors) {
                *carried = plain.iter().zip(other).fold(*carried, |carried, (a, b)| carried.max((a - b).abs()));
            }
            *made += 1;
        }
        self.floors[at] + 30.0 * carried[at]
    }

    /// Panics unless one number of a tensor is near.
    fn one_near(&self, what: &dyn std::fmt::Display, at: usize, k: usize, got: f64) {
        let (name, want) = (&self.want.tensors[at].0, self.want.tensors[at].1[k]);
        let near = |passes| (got - want).abs() <= self.tolerance(at, passes) || got.to_bits() == want.to_bits();
        if !DISTURBED.into_iter().any(near) {
            let tolerance = self.tolerance(at, 0);
            panic!("{what}: {name}, element {k}: {got:e} for {want:e}, tolerance {tolerance:e}");
        }
    }

    /// The index of the tensor called `name`.
    fn index(&self, what: &str, name: &str) -> usize {
        let at = self.want.tensors.iter().position(|(other, _)| other == name);
        at.unwrap_or_else(|| panic!("{what}: {name} is not expected"))
    }

    /// Panics unless `got`, which is all of the outcome or a part of it, is near.
    pub fn near(&self, what: &str, got: &Outcome) {
        for (name, values) in &got.tensors {
            let at = self.index(what, name);
            assert_eq!(values.len(), self.want.tensors[at].1.len(), "{what}: {name}");
            values.iter().enumerate().for_each(|(k, &got)| self.one_near(&what, at, k, got));
        }
    }
}

fn same(what: &str, got: &Outcome, want: &Outcome) {
    if let Some(difference) = got.difference(want) {
        panic!("{what}: {difference}");
    }
}

/// Makes every comparison.
pub fn all(spec: &Spec, batch: &Batch, choices: &mut Choices<'_>) -> Report {
    let (model, x) = (spec.build::<f64>(), batch.values::<f64>());
    let want = reference(spec, batch);
    let mut report = Report { models: 1, ..Report::default() };
    // Infinities and NaN are no mistake of a random model, but then nothing can be compared.
    if want.tensors.iter().flat_map(|(_, values)| values).any(|value| !value.is_finite() || value.abs() > 1e30) {
        return report;
    }
    layouts(batch, &model, &x, choices, &want);
    threads(spec, batch, &want);
    let judge = Judge::of(spec, batch, &want);
    instruction_sets(spec, batch, &judge);
    if spec.causal {
        chunks(batch, &model, &x, choices, &judge, spec.exact_gradient);
    }
    if batch.train.is_none() {
        alone(batch, &model, &x, choices, &judge);
        inference(batch, spec, &model, &x, &judge);
    }
    precision(spec, batch, &want, &mut report);
    if spec.exact_gradient {
        differences(batch, &model, &x, &want, judge.largest, &mut report);
    }
    report
}

/// Another layout of `x` and `dy`, a used cache, a gradient that is overwritten: the same bits.
fn layouts(batch: &Batch, model: &BoxLayer<f64>, x: &Array3<f64>, choices: &mut Choices<'_>, want: &Outcome) {
    let laid = Laid::new(x, batch.layout);
    // `dy` needs a layout that can hold any values: a gradient that is the same for all steps would be a different one.
    let way = Way {
        model,
        x: laid.view(),
        dy_layout: choices.one_of(&Layout::OF_ANY_VALUES),
        overwrite: choices.yes(),
        disturbed: None,
    };
    let mut cache = model.cache();
    // Another batch first: its remains in the cache must have no effect.
    let steps = 1 + choices.below(batch.shape.steps);
    let other = batch.sequence(x.view(), batch.lengths.as_deref()).steps(0..steps);
    model.forward(other, &mut model.zero_state(batch.shape.batch), &mut cache);
    same("another layout, in a used cache", &pass(batch, &way, &mut cache), want);
}

/// Any number of threads gives the same bits.
#[cfg(feature = "rayon")]
fn threads(spec: &Spec, batch: &Batch, want: &Outcome) {
    use std::sync::OnceLock;
    static POOLS: OnceLock<Vec<rayon::ThreadPool>> = OnceLock::new();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let pools = POOLS.get_or_init(|| vec![pool(1), pool(2), pool(3)]);
    for pool in pools {
        let got = pool.install(|| reference(spec, batch));
        same(&format!("{} threads", pool.current_num_threads()), &got, want);
    }
}

#[cfg(not(feature = "rayon"))]
fn threads(_: &Spec, _: &Batch, _: &Outcome) {}

/// Compares every instruction set of this machine. The limit is read once per process, and only builds of a fuzzer can lower it; other
/// builds compare processes.
#[cfg(fuzzing)]
fn instruction_sets(spec: &Spec, batch: &Batch, judge: &Judge<'_>) {
    gradflow::for_each_instruction_set(|name| judge.near(name, &reference(spec, batch)));
}

#[cfg(not(fuzzing))]
fn instruction_sets(_: &Spec, _: &Batch, _: &Judge<'_>) {}

/// Compares passes in chunks, with states and gradients passed on, and step by step.
fn chunks(
    batch: &Batch,
    model: &BoxLayer<f64>,
    x: &Array3<f64>,
    choices: &mut Choices<'_>,
    judge: &Judge<'_>,
    exact_gradient: bool,
) {
    let whole = batch.sequence(x.view(), batch.lengths.as_deref());
    let mut parts: Vec<_> = whole.chunks(1 + choices.below(batch.shape.steps)).collect();
    if batch.reversed {
        parts.reverse();
    }
    let mut state = model.zero_state(batch.shape.batch);
    let features = model.output_size(whole.size()).expect("a size that fits");
    let mut y = Array3::zeros((batch.shape.steps, batch.shape.batch, features));
    let dy = output_gradient::<f64>(y.dim());
    let mut caches: Vec<_> = parts.iter().map(|_| model.cache()).collect();
    let range = |part: &Sequence<'_, f64>| part.first_step()..part.first_step() + part.dims().0;
    for (part, cache) in parts.iter().zip(&mut caches) {
        let part_of_y = model.forward(*part, &mut state, cache);
        y.slice_mut(s![range(part), .., ..]).assign(&part_of_y);
    }
    let mut outcome = Outcome::default();
    outcome.add_array("y", &y);
    outcome.add_all("state", &state);
    if exact_gradient {
        let (mut grad, mut dstate) = (model.zeros_like(), state_gradient(state.clone()));
        let mut dx = Array3::zeros(x.dim());
        for (part, cache) in parts.iter().zip(&mut caches).rev() {
            let dy = dy.slice(s![range(part), .., ..]);
            let part_of_dx = model.backward(*part, &dy, Some(&mut dstate), cache, &mut grad);
            if whole.wants_gradient() {
                dx.slice_mut(s![range(part), .., ..]).assign(&part_of_dx);
            }
        }
        if whole.wants_gradient() {
            outcome.add_array("dx", &dx);
        }
        outcome.add_all("dstate", &dstate);
        outcome.add_all("grad", &grad);
    }
    judge.near("in chunks", &outcome);
    // A stream has no lengths, no direction and no dropout.
    if batch.lengths.is_none() && !batch.reversed && batch.train.is_none() {
        let (mut state, mut cache) = (model.zero_state(batch.shape.batch), model.cache());
        for t in 0..batch.shape.steps {
            let step = model.step(whole.steps(t..t + 1), &mut state, &mut cache);
            y.index_axis_mut(Axis(0), t).assign(&step);
        }
        let mut outcome = Outcome::default();
        outcome.add_array("y", &y);
        outcome.add_all("state", &state);
        judge.near("step by step", &outcome);
    }
}

/// Compares a sequence alone, cut to its length, with the same sequence in its batch.
fn alone(batch: &Batch, model: &BoxLayer<f64>, x: &Array3<f64>, choices: &mut Choices<'_>, judge: &Judge<'_>) {
    let b = choices.below(batch.shape.batch);
    let length = batch.lengths.as_ref().map_or(batch.shape.steps, |lengths| lengths[b]);
    if length == 0 {
        return;
    }
    let one = batch.sequence(x.view(), None).sequences(b..b + 1).steps(0..length);
    let y = model.forward(one, &mut model.zero_state(1), &mut model.cache()).to_owned();
    let features = y.dim().2;
    let at = judge.index("alone", "y");
    for ((t, _, k), &got) in y.indexed_iter() {
        judge.one_near(&format_args!("sequence {b} alone"), at, (t * batch.shape.batch + b) * features + k, got);
    }
}

/// Compares inference, of the plain model and of one with packed weights, twice.
fn inference(batch: &Batch, spec: &Spec, model: &BoxLayer<f64>, x: &Array3<f64>, judge: &Judge<'_>) {
    let x = batch.sequence(x.view(), batch.lengths.as_deref()).infer();
    fn run<L: Layer<Elem = f64>>(model: &L, x: Sequence<'_, f64>, batch: usize) -> Outcome {
        let (mut outcome, mut state, mut cache) = (Outcome::default(), model.zero_state(batch), model.cache());
        outcome.add("y", model.forward(x, &mut state, &mut cache).iter().copied());
        outcome.add_all("state", &state);
        outcome
    }
    judge.near("inference", &run(model, x, batch.shape.batch));
    let prepacked = Prepacked::new(spec.build::<f64>());
    let first = run(&prepacked, x, batch.shape.batch);
    judge.near("prepacked", &first);
    same("prepacked, again", &run(&prepacked, x, batch.shape.batch), &first);
}

/// Compares a pass in `f32`.
///
/// If a row's variance is lost beside eps in the precision of the computation, a normalisation suppresses its gradient. In a few models
/// this happens in `f32` and not in `f64`. With an eps of 1 nothing is suppressed, and the two must agree.
fn precision(spec: &Spec, batch: &Batch, want: &Outcome, report: &mut Report) {
    if let Err(message) = panic_of(|| single_precision(spec, batch, want)) {
        let mut tame = spec.clone();
        tame.eps = 1.0;
        if !spec.normalises() || single_precision(&tame, batch, &reference(&tame, batch)) == 0 {
            panic!("{message}");
        }
        report.held_back += 1;
    }
}

/// Returns how many numbers were compared.
fn single_precision(spec: &Spec, batch: &Batch, want: &Outcome) -> usize {
    let single = whole::<f32>(&spec.build(), batch, &batch.values());
    let values = || single.tensors.iter().flat_map(|(_, values)| values);
    if !values().all(|value| value.is_finite()) {
        return 0;
    }
    Judge::with::<f32>(spec, batch, want, &single).near("f32", &single);
    values().count()
}

/// Compares the derivative along a random direction of parameters and `x` with central differences of two step sizes.
fn differences(
    batch: &Batch,
    model: &BoxLayer<f64>,
    x: &Array3<f64>,
    want: &Outcome,
    largest: f64,
    report: &mut Report,
) {
    let rng = &mut StdRng::seed_from_u64(batch.seed + 1);
    let mut draw = |count: usize| -> Vec<f64> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let along_model: Vec<_> = (0..model.count()).map(|i| draw(model.values(i).len())).collect();
    let moves_x = want.get("dx").is_some();
    let along_x = if moves_x { draw(x.len()) } else { vec![0.0; x.len()] };
    let loss = |step: f64| {
        let (mut model, mut x) = (model.clone(), x.clone());
        for (i, along) in along_model.iter().enumerate() {
            model.tensor_mut(i).iter_mut().zip(along).for_each(|(value, along)| *value += step * along);
        }
        x.iter_mut().zip(&along_x).for_each(|(value, along)| *value += step * along);
        let mut state = model.zero_state(batch.shape.batch);
        let mut cache = model.cache();
        let y = model.forward(batch.sequence(x.view(), batch.lengths.as_deref()), &mut state, &mut cache);
        let of_y: f64 = y.iter().enumerate().map(|(at, y)| y * weight(at)).sum();
        let of_state: f64 = (0..state.count())
            .flat_map(|i| state.values(i))
            .enumerate()
            .map(|(at, value)| value * weight(at + 5))
            .sum();
        of_y + of_state
    };
    let analytic: f64 = want
        .tensors
        .iter()
        .filter(|(name, _)| name.starts_with("grad") || name == "dx")
        .map(|(_, values)| values)
        .zip(along_x_first(moves_x, &along_x, &along_model))
        .map(|(values, along)| values.iter().zip(along).map(|(value, along)| value * along).sum::<f64>())
        .sum();
    // Halving the step divides the error of a central difference by four, and the difference between the two one-sided differences by
    // two. If it does not, there is a kink nearby.
    let here = loss(0.0);
    let [(coarse, coarse_sides), (fine, fine_sides)] = [1e-5, 5e-6].map(|step| {
        let (after, before) = (loss(step), loss(-step));
        ((after - before) / (2.0 * step), (after - 2.0 * here + before) / step)
    });
    let numeric = fine + (fine - coarse) / 3.0;
    let size = analytic.abs() + here.abs() + 1e-3 * largest;
    if (coarse - fine).abs() > 1e-4 * size || (2.0 * fine_sides - coarse_sides).abs() > 1e-5 * size {
        report.kinks += 1;
        return;
    }
    report.differences += 1;
    let error = (numeric - analytic).abs();
    assert!(error <= 1e-4 * size, "finite differences: {numeric:e} for {analytic:e}");
}

/// The directions in the order of an outcome: first that of `x`, if it has one, then those of the parameters.
fn along_x_first<'a>(
    moves_x: bool,
    along_x: &'a [f64],
    along_model: &'a [Vec<f64>],
) -> impl Iterator<Item = &'a [f64]> {
    moves_x.then_some(along_x).into_iter().chain(along_model.iter().map(Vec::as_slice))
}
