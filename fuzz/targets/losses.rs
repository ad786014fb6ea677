//! Losses of random outputs and targets, also with weights: value, gradient and weight agree with the formulas and with central
//! differences, in any memory layout, with lengths, in parts, and on every instruction set.

use std::fmt;
use std::ops::Range;

use gradflow::author::Id;
use gradflow::loss::{BinaryCrossEntropy, Huber, Loss, MeanSquaredError, SoftmaxCrossEntropy};
use gradflow::ndarray::{Array1, Array2, Array3, ArrayRef2, ArrayRef3, ArrayView2, s};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{Float, Sequence};

use super::choices::Choices;
use super::layout::{Laid, Layout};
use super::panic_of;

pub fn run(data: &[u8]) {
    let choices = &mut Choices::new(data);
    if choices.yes() { choose::<f32>(choices) } else { choose::<f64>(choices) }
}

/// Targets of a batch, `[T, B]` or `[T, B, D]`.
trait Targets: ToOwned {
    /// The targets of some steps and sequences.
    fn part(&self, steps: Range<usize>, sequences: Range<usize>) -> Self::Owned;
    /// The targets with one more step.
    fn and_one_step(&self) -> Self::Owned;
    /// The targets with invalid values at positions that do not count.
    fn with_junk(&self, counts: &dyn Fn(usize, usize) -> bool) -> Self::Owned;
}

impl<F: Float> Targets for ArrayRef3<F> {
    fn part(&self, steps: Range<usize>, sequences: Range<usize>) -> Array3<F> {
        self.slice(s![steps, sequences, ..]).to_owned()
    }
    fn and_one_step(&self) -> Array3<F> {
        let (steps, batch, features) = self.dim();
        Array3::zeros((steps + 1, batch, features))
    }
    fn with_junk(&self, counts: &dyn Fn(usize, usize) -> bool) -> Array3<F> {
        Array3::from_shape_fn(self.dim(), |(t, b, k)| if counts(t, b) { self[[t, b, k]] } else { F::nan() })
    }
}

impl Targets for ArrayRef2<i64> {
    fn part(&self, steps: Range<usize>, sequences: Range<usize>) -> Array2<i64> {
        self.slice(s![steps, sequences]).to_owned()
    }
    fn and_one_step(&self) -> Array2<i64> {
        Array2::zeros((self.nrows() + 1, self.ncols()))
    }
    fn with_junk(&self, counts: &dyn Fn(usize, usize) -> bool) -> Array2<i64> {
        Array2::from_shape_fn(self.dim(), |(t, b)| if counts(t, b) { self[[t, b]] } else { i64::MIN })
    }
}

/// A position according to the formulas: its loss, the slope of each feature, and its weight in a mean. Losses are sums of terms of one
/// sign, so they can be compared to their own last digits.
#[derive(Default)]
struct Position {
    loss: f64,
    slopes: Vec<f64>,
    weight: f64,
    /// The largest term of a slope, from which others may be subtracted.
    largest: f64,
}

impl Position {
    /// Sums up elements, each with its loss and its slope, or `None` if it does not count.
    fn of_elements(elements: impl Iterator<Item = Option<(f64, f64)>>) -> Position {
        let mut position = Position::default();
        for element in elements {
            let (loss, slope) = element.unwrap_or_default();
            position.loss += loss;
            position.slopes.push(slope);
            position.weight += f64::from(u8::from(element.is_some()));
        }
        position
    }
}

/// A batch of outputs.
struct Batch<F> {
    y: Array3<F>,
    lengths: Option<Vec<usize>>,
    layout: Layout,
    sum: bool,
    seed: u64,
}

impl<F: Float> fmt::Debug for Batch<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Batch { y, lengths, layout, sum, .. } = self;
        write!(f, "{:?}, lengths {lengths:?}, {layout:?}, sum {sum}, y {y:?}", y.dim())
    }
}

impl<F: Float> Batch<F> {
    fn counts(&self, t: usize, b: usize) -> bool {
        self.lengths.as_ref().is_none_or(|lengths| t < lengths[b])
    }

    fn sequence<'a>(&'a self, y: impl Into<Sequence<'a, F>>) -> Sequence<'a, F> {
        let y = y.into();
        self.lengths.as_ref().map_or(y, |lengths| y.with_lengths(lengths).expect("lengths that fit"))
    }
}

/// `-log σ(z)`, without cancellation.
fn softplus_of_minus(z: f64) -> f64 {
    (-z).max(0.0) + (-z.abs()).exp().ln_1p()
}

/// `weight · loss`, or 0 for a weight of 0 even if the loss is not finite.
fn weighted(weight: f64, loss: f64) -> f64 {
    if weight == 0.0 { 0.0 } else { weight * loss }
}

fn choose<F: Float>(choices: &mut Choices<'_>) {
    let kind = choices.below(4);
    let (steps, batch) = (1 + choices.below(9), 1 + choices.below(5));
    let features = 1 + if choices.yes() { choices.below(6) } else { choices.below(80) };
    let seed = u64::from(choices.byte());
    let rng = &mut StdRng::seed_from_u64(seed);
    let huge = if size_of::<F>() == 4 { 1.5e38 } else { 1e150 };
    let size = choices.one_of(&[1.0, 1.0, 1.0, 1e-3, 30.0, 1e3, huge]);
    let mut y = Array3::from_shape_simple_fn((steps, batch, features), || F::of(size * rng.random_range(-1.0..1.0)));
    if choices.once_in(4) {
        // Masked classes, and certain answers. The first class is never masked.
        let infinity = if kind == 0 { -f64::INFINITY } else { f64::INFINITY };
        for ((_, _, k), value) in y.indexed_iter_mut() {
            if kind < 2 && k > 0 && rng.random_range(0..4) == 0 {
                *value = F::of(if rng.random_range(0..2) == 0 { infinity } else { -f64::INFINITY });
            }
        }
    }
    let layout = choices.one_of(&Layout::OF_ANY_VALUES);
    let lengths = choices.yes().then(|| (0..batch).map(|_| 1 + choices.below(steps)).collect());
    let batch = Batch { y, lengths, layout, sum: choices.once_in(3), seed };
    let weights: Option<Vec<f64>> =
        choices.once_in(3).then(|| (0..features).map(|_| choices.one_of(&[0.0, 1.0, 0.5, 3.0])).collect());
    match kind {
        0 => cross_entropy(&batch, weights, choices),
        1 => binary(&batch, weights, choices),
        2 => mean_squared(&batch, choices),
        _ => huber(&batch, choices),
    }
}

fn cross_entropy<F: Float>(batch: &Batch<F>, weights: Option<Vec<f64>>, choices: &mut Choices<'_>) {
    let (steps, sequences, classes) = batch.y.dim();
    let smoothing = choices.one_of(&[0.0, 0.0, 0.1, 1.0]);
    let ignored = choices.yes().then_some(-100);
    let ids = Array2::from_shape_simple_fn((steps, sequences), || match ignored {
        Some(ignored) if choices.once_in(4) => ignored,
        _ => choices.below(classes) as i64,
    });
    let mut loss = SoftmaxCrossEntropy::<F, i64>::new().label_smoothing(smoothing);
    loss = ignored.into_iter().fold(loss, SoftmaxCrossEntropy::ignore);
    loss = weights.iter().fold(loss, |loss, weights| loss.class_weights(weights));
    loss = if batch.sum { loss.sum() } else { loss };
    let class_weight = |k: usize| weights.as_ref().map_or(1.0, |weights| weights[k]);
    let position = |y: &Array3<F>, t: usize, b: usize| {
        let (id, z) = (ids[[t, b]], y.slice(s![t, b, ..]).mapv(F::widen));
        if ignored == Some(id) {
            return Position { slopes: vec![0.0; classes], ..Position::default() };
        }
        let id = id.index();
        let share = |k: usize| smoothing * class_weight(k) / classes as f64;
        let target = |k: usize| share(k) + if k == id { (1.0 - smoothing) * class_weight(id) } else { 0.0 };
        let first = (0..classes).max_by(|&a, &b| z[a].total_cmp(&z[b])).expect("a class");
        let others = |left_out: usize| (0..classes).filter(move |&k| k != left_out);
        let beside: f64 = others(first).map(|k| (z[k] - z[first]).exp()).sum();
        let all: f64 = (0..classes).map(target).sum();
        let probability = |k: usize| (z[k] - z[first]).exp() / (1.0 + beside);
        let rest = |k: usize| others(k).map(probability).sum::<f64>();
        // At the id, p - 1 is minus the probabilities of the others.
        let slope = |k: usize| match k == id {
            false => all * probability(k) - share(k),
            true => {
                let (shares, rest) = (others(id).map(share).sum::<f64>(), rest(id));
                probability(id) * shares - (share(id) + (1.0 - smoothing) * class_weight(id)) * rest
            }
        };
        Position {
            loss: (0..classes).map(|k| weighted(target(k), (z[first] - z[k]) + beside.ln_1p())).sum(),
            slopes: (0..classes).map(slope).collect(),
            weight: class_weight(id),
            largest: smoothing * all,
        }
    };
    // An id out of range is refused, except in padding.
    let at = (choices.below(steps), choices.below(sequences));
    let mut wrong = ids.clone();
    wrong[at] = choices.one_of(&[classes as i64, -1, i64::MAX, i64::MIN]);
    if batch.counts(at.0, at.1) {
        refused("ids below", || loss.value(batch.sequence(&batch.y), &wrong));
    }
    check(batch, loss, &*ids, &position);
}

fn values<F: Float>(batch: &Batch<F>, choices: &mut Choices<'_>, of: &[f64]) -> Array3<F> {
    Array3::from_shape_simple_fn(batch.y.dim(), || F::of(choices.one_of(of)))
}

/// A target value that some elements have and that may be ignored.
fn ignored(choices: &mut Choices<'_>) -> Option<f64> {
    choices.once_in(3).then(|| choices.one_of(&[0.0, 1.0, 0.3, f64::NAN]))
}

fn is<F: Float>(target: F, ignored: Option<f64>) -> bool {
    ignored.map(F::of).is_some_and(|ignored| ignored == target || (ignored.is_nan() && target.is_nan()))
}

fn binary<F: Float>(batch: &Batch<F>, weights: Option<Vec<f64>>, choices: &mut Choices<'_>) {
    let ignored = ignored(choices);
    let mut targets = values(batch, choices, &[0.0, 1.0, 0.3, 1e-3]);
    if ignored.is_some_and(f64::is_nan) {
        targets[[0, 0, 0]] = F::nan();
    }
    let mut loss = BinaryCrossEntropy::<F>::new();
    loss = ignored.into_iter().fold(loss, BinaryCrossEntropy::ignore);
    loss = weights.iter().fold(loss, |loss, weights| loss.pos_weight(weights));
    loss = if batch.sum { loss.sum() } else { loss };
    let position = |y: &Array3<F>, t: usize, b: usize| {
        Position::of_elements((0..y.dim().2).map(|k| {
            let (z, target) = (y[[t, b, k]].widen(), targets[[t, b, k]]);
            if is(target, ignored) {
                return None;
            }
            let target = target.widen();
            let (no, yes) = (1.0 - target, target * weights.as_ref().map_or(1.0, |weights| weights[k]));
            let sigmoid = |z: f64| (-softplus_of_minus(z)).exp();
            let loss = weighted(yes, softplus_of_minus(z)) + weighted(no, softplus_of_minus(-z));
            Some((loss, no * sigmoid(z) - yes * sigmoid(-z)))
        }))
    };
    check(batch, loss, &*targets, &|y, t, b| Position { largest: 3.0, ..position(y, t, b) });
}

fn mean_squared<F: Float>(batch: &Batch<F>, choices: &mut Choices<'_>) {
    let ignored = ignored(choices);
    let targets = values(batch, choices, &[0.0, 1.0, 0.3, -2.5, 100.0]);
    let mut loss = MeanSquaredError::<F>::new();
    loss = ignored.into_iter().fold(loss, MeanSquaredError::ignore);
    loss = if batch.sum { loss.sum() } else { loss };
    let position = |y: &Array3<F>, t: usize, b: usize| {
        Position::of_elements((0..y.dim().2).map(|k| {
            let error = y[[t, b, k]].widen() - targets[[t, b, k]].widen();
            (!is(targets[[t, b, k]], ignored)).then_some((error * error, 2.0 * error))
        }))
    };
    check(batch, loss, &*targets, &position);
}

fn huber<F: Float>(batch: &Batch<F>, choices: &mut Choices<'_>) {
    let (ignored, delta) = (ignored(choices), choices.one_of(&[1.0, 0.1, 5.0, 1e-20]));
    let targets = values(batch, choices, &[0.0, 1.0, 0.3, -2.5, 100.0]);
    let mut loss = Huber::<F>::new(delta);
    loss = ignored.into_iter().fold(loss, Huber::ignore);
    loss = if batch.sum { loss.sum() } else { loss };
    let position = |y: &Array3<F>, t: usize, b: usize| {
        Position::of_elements((0..y.dim().2).map(|k| {
            let error = y[[t, b, k]].widen() - targets[[t, b, k]].widen();
            let near = error.abs() <= delta;
            let loss = if near { error * error / 2.0 } else { delta * (error.abs() - delta / 2.0) };
            (!is(targets[[t, b, k]], ignored)).then_some((loss, error.clamp(-delta, delta)))
        }))
    };
    check(batch, loss, &*targets, &position);
}

/// Panics unless `act` panics with a message that contains `what`.
fn refused<R>(what: &str, act: impl FnOnce() -> R) {
    match panic_of(act) {
        Ok(_) => panic!("accepted, where {what:?} is expected"),
        Err(message) => assert!(message.contains(what), "{message:?}, where {what:?} is expected"),
    }
}

fn near(got: f64, want: f64, tolerance: f64) -> bool {
    got == want || (got - want).abs() <= tolerance
}

/// Makes all comparisons. `position` is the formula.
fn check<F: Float, L>(
    batch: &Batch<F>,
    mut loss: L,
    targets: &L::Targets,
    position: &dyn Fn(&Array3<F>, usize, usize) -> Position,
) where
    L: Loss<F> + Clone + fmt::Debug + 'static,
    L::Targets: Targets,
    <L::Targets as ToOwned>::Owned: std::ops::Deref<Target = L::Targets>,
{
    let text = format!("{loss:?}");
    let Formulas { value, gradient, weightless } = formulas(batch, &mut loss.clone(), targets, position, None, &text);
    #[cfg(fuzzing)]
    gradflow::for_each_instruction_set(|_| drop(formulas(batch, &mut loss.clone(), targets, position, None, &text)));
    weights(batch, &loss, targets, position, &text);

    // Another layout, reused memory, and junk at positions that do not count: the same bits.
    let counts = |t: usize, b: usize| batch.counts(t, b);
    let mut junk = batch.y.clone();
    for ((t, b, _), value) in junk.indexed_iter_mut() {
        if !counts(t, b) {
            *value = F::nan();
        }
    }
    let laid = Laid::new(&junk, batch.layout);
    let junk_targets = targets.with_junk(&counts);
    let y = batch.sequence(laid.view());
    for _ in 0..2 {
        let again = loss.of(y, &junk_targets);
        assert_eq!(again.value().to_bits(), value.to_bits(), "{text}: another layout: {batch:?}");
        let same = again.gradient().iter().zip(&gradient).all(|(a, b)| a.bits() == b.bits());
        assert!(same, "{text}: the gradient in another layout: {batch:?}");
        loss.memory().fill(F::nan());
    }
    let boxed: Box<dyn Loss<F, Targets = L::Targets>> = Box::new(loss.clone());
    assert_eq!(boxed.value(y, &junk_targets).to_bits(), value.to_bits(), "{text}: alone, boxed: {batch:?}");

    // Targets of another shape.
    let (steps, sequences, _) = batch.y.dim();
    refused("expected", || loss.value(batch.sequence(&batch.y), &targets.and_one_step()));
    refused("expected", || loss.clone().of(batch.sequence(&batch.y), &targets.and_one_step()).value());

    // The mean over parts, by sequences and by steps.
    let whole = batch.sequence(&batch.y);
    let by_sequence = (0..sequences).map(|b| (whole.sequences(b..b + 1), targets.part(0..steps, b..b + 1)));
    let by_step = (0..steps).map(|t| (whole.steps(t..t + 1), targets.part(t..t + 1, 0..sequences)));
    for (name, parts) in [("sequences", by_sequence.collect::<Vec<_>>()), ("steps", by_step.collect())] {
        let (mut sum, mut total) = (0.0, 0.0);
        for (y, targets) in parts {
            let weight = loss.weight(y, &targets);
            (sum, total) = (sum + weighted(weight, loss.value(y, &targets)), total + weight);
        }
        let (total, got) = if batch.sum { (1.0, sum) } else { (total, if total == 0.0 { 0.0 } else { sum / total }) };
        assert_eq!(total, loss.weight(whole, targets), "{text}: weight of {name}: {batch:?}");
        let near = near(got, value, 1e-12 * value.abs()) || !sum.is_finite() || weightless;
        assert!(near, "{text}: {got:e} of {name} for {value:e}: {batch:?}");
    }
    if size_of::<F>() == 8 {
        differences(batch, &loss, targets, &gradient, &text);
    }
}

/// Results that agree with the formulas.
struct Formulas<F> {
    value: f64,
    gradient: Array3<F>,
    /// Whether a position has a loss but no weight, as label smoothing causes for a class of weight 0: a part of such positions alone
    /// has no mean.
    weightless: bool,
}

/// Checks the formulas with weights of steps, and that positions of weight 0 are not read. Weights of sequences give the same bits as
/// equal weights of their steps.
fn weights<F: Float, L>(
    batch: &Batch<F>,
    loss: &L,
    targets: &L::Targets,
    position: &dyn Fn(&Array3<F>, usize, usize) -> Position,
    text: &str,
) where
    L: Loss<F> + Clone,
    L::Targets: Targets,
    <L::Targets as ToOwned>::Owned: std::ops::Deref<Target = L::Targets>,
{
    let (steps, sequences, _) = batch.y.dim();
    let rng = &mut StdRng::seed_from_u64(batch.seed + 2);
    let mut weight = || F::of([0.0, 1.0, 0.5, 3.0, 1e-3][rng.random_range(0..5)]);
    let of_steps = Array2::from_shape_simple_fn((steps, sequences), &mut weight);
    let Formulas { value, gradient, .. } =
        formulas(batch, &mut loss.clone(), targets, position, Some(of_steps.view()), text);
    let counts = |t: usize, b: usize| batch.counts(t, b) && of_steps[[t, b]] > F::zero();
    let mut junk = batch.y.clone();
    for ((t, b, _), value) in junk.indexed_iter_mut() {
        if !counts(t, b) {
            *value = F::nan();
        }
    }
    let (mut loss, junk_targets) = (loss.clone(), targets.with_junk(&counts));
    let again = loss.of_weighted(batch.sequence(&junk), &junk_targets, &of_steps);
    let same = again.gradient().iter().zip(&gradient).all(|(a, b)| a.bits() == b.bits());
    assert!(again.value().to_bits() == value.to_bits() && same, "{text}: read without a weight: {of_steps}, {batch:?}");
    let of_sequences = Array1::from_shape_simple_fn(sequences, &mut weight);
    let spread = of_sequences.broadcast((steps, sequences)).expect("a weight for each sequence");
    let (y, of_sequences) = (batch.sequence(&batch.y), &of_sequences);
    let (one, other) = (loss.value_weighted(y, targets, of_sequences), loss.value_weighted(y, targets, spread));
    assert_eq!(one.to_bits(), other.to_bits(), "{text}: weights of sequences: {of_sequences}, {batch:?}");
}

/// Checks value and gradient against the formulas.
fn formulas<F: Float, L: Loss<F>>(
    batch: &Batch<F>,
    loss: &mut L,
    targets: &L::Targets,
    position: &dyn Fn(&Array3<F>, usize, usize) -> Position,
    weights: Option<ArrayView2<'_, F>>,
    text: &str,
) -> Formulas<F> {
    let whole = batch.sequence(&batch.y);
    let evaluated = match weights {
        Some(weights) => loss.of_weighted(whole, targets, weights),
        None => loss.of(whole, targets),
    };
    let (value, gradient) = (evaluated.value(), evaluated.gradient().to_owned());
    let (alone, weighs) = match weights {
        Some(weights) => {
            (loss.value_weighted(whole, targets, weights), loss.total_weight(whole, targets, weights.into()))
        }
        None => (loss.value(whole, targets), loss.weight(whole, targets)),
    };
    assert_eq!(alone.to_bits(), value.to_bits(), "{text}: without a gradient: {batch:?}");

    let (steps, sequences, features) = batch.y.dim();
    let at = |t: usize, b: usize| {
        let factor = weights.map_or(1.0, |weights| weights[[t, b]].widen());
        if batch.counts(t, b) && factor > 0.0 {
            let Position { loss, slopes, weight, largest } = position(&batch.y, t, b);
            let slopes = slopes.into_iter().map(|slope| factor * slope).collect();
            Position { loss: factor * loss, slopes, weight: factor * weight, largest: factor * largest }
        } else {
            Position { slopes: vec![0.0; features], ..Position::default() }
        }
    };
    let positions: Vec<_> =
        (0..steps).flat_map(|t| (0..sequences).map(move |b| (t, b))).map(|(t, b)| at(t, b)).collect();
    let weight: f64 = positions.iter().map(|position| position.weight).sum();
    let want = if batch.sum { 1.0 } else { weight };
    // Weights of elements are summed one by one.
    let same = if weights.is_some() { near(weighs, want, 1e-13 * want) } else { weighs == want };
    assert!(same, "{text}: weight {weighs} for {want}: {batch:?}");
    let factor = match batch.sum {
        true => 1.0,
        false if weight == 0.0 => 0.0,
        false => 1.0 / weight,
    };
    let relative = if size_of::<F>() == 4 { 2e-5 } else { 1e-12 };
    // Powers of e below the smallest normal number may be 0.
    let tiny = 1e4 * F::min_positive_value().widen();
    let want: f64 = positions.iter().map(|position| weighted(factor, position.loss)).sum();
    let close = near(value, want, relative * want.abs() + tiny);
    assert!(close, "{text}: {value:e} for {want:e}: {batch:?}");
    for ((t, b, k), &got) in gradient.indexed_iter() {
        let Position { slopes, largest, .. } = &positions[t * sequences + b];
        let want = factor * slopes[k];
        let tolerance = relative * (want.abs() + factor * largest) + tiny;
        let close = near(got.widen(), F::of(want).widen(), tolerance);
        assert!(close, "{text}: slope {k} of step {t}, sequence {b}: {got} for {want:e}: {batch:?}");
    }
    let weightless = positions.iter().any(|position| position.weight == 0.0 && position.loss != 0.0);
    Formulas { value, gradient, weightless }
}

/// Checks the derivative along a random direction by central differences.
fn differences<F: Float, L: Loss<F>>(
    batch: &Batch<F>,
    loss: &L,
    targets: &L::Targets,
    gradient: &Array3<F>,
    text: &str,
) {
    if batch.y.iter().any(|value| value.widen().abs() > 100.0) {
        return; // rounding of large losses, and infinities
    }
    let rng = &mut StdRng::seed_from_u64(batch.seed + 1);
    let along = Array3::from_shape_simple_fn(batch.y.dim(), || F::of(rng.random_range(-1.0..1.0)));
    let value = |step: f64| loss.value(batch.sequence(&(&batch.y + &along.mapv(|along| along * F::of(step)))), targets);
    let (h, analytic) = (1e-5, (gradient * &along).sum().widen());
    let numeric = (value(h) - value(-h)) / (2.0 * h);
    let size: f64 = gradient.iter().zip(&along).map(|(slope, along)| (*slope * *along).widen().abs()).sum();
    // If the step crosses a bend of Huber's slope, the slope changes by less than the step.
    let factor = if batch.sum { 1.0 } else { 1.0 / loss.weight(batch.sequence(&batch.y), targets).max(1.0) };
    let tolerance = 1e-6 * size + 1e-9 * value(0.0).abs() + 4.0 * h * factor;
    assert!(near(numeric, analytic, tolerance), "{text}: differences {numeric:e} for {analytic:e}: {batch:?}");
}
