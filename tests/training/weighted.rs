//! Weights of sequences, steps and elements: losses against PyTorch, against differences, and against masks; and refusals.

use std::ops::ControlFlow::Continue;
use std::path::Path;

use gradflow::author::Id;
use gradflow::fit::{Fit, Weighted};
use gradflow::layers::Linear;
use gradflow::loss::{BinaryCrossEntropy, Ctc, Huber, Loss, MeanSquaredError, SoftmaxCrossEntropy, Weights};
use gradflow::ndarray::{Array1, Array2, Array3, ArrayD, ArrayRef3, Ix1, Ix2, Ix3, arr1, arr2, s};
use gradflow::optim::{Optimizer, Sgd};
use gradflow::recurrent::GruCell;
use gradflow::{Float, Layer, Sequence, ZerosLike};
use serde_json::Value;

use crate::common::{Within, allocations, assert_all_near, assert_near, assert_says, bits, panic_of, rng, wave};

const SHAPE: (usize, usize, usize) = (3, 2, 4);
const CLASS_WEIGHTS: [f64; 4] = [0.5, 2.0, 0.25, 1.5];
const POS_WEIGHT: [f64; 4] = [0.5, 1.0, 3.0, 10.0];

/// Element `i`, counted row-major, is `f(i)`.
fn grid<F: Float>(f: impl Fn(usize) -> f64) -> Array3<F> {
    Array3::from_shape_vec(SHAPE, (0..24).map(|i| F::of(f(i))).collect()).unwrap()
}

fn logits<F: Float>() -> Array3<F> {
    grid(|i| ((i * 7 % 11) as f64 - 5.0) * 0.4 + 0.1 * i as f64)
}

fn targets<F: Float>() -> Array3<F> {
    grid(|i| ((i * 5 % 7) as f64 - 3.0) * 0.5)
}

fn probabilities<F: Float>() -> Array3<F> {
    grid(|i| (i * 3 % 5) as f64 * 0.25)
}

fn ids() -> Array2<usize> {
    arr2(&[[0, 3], [9, 1], [2, 3]])
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Passes the weights of a case to `act`, in the shape that their number implies.
fn with_weights<F: Float, R>(weights: &[f64], act: impl FnOnce(Weights<'_, F>) -> R) -> R {
    let shape: &[usize] = match weights.len() {
        2 => &[2],
        6 => &[3, 2],
        _ => &[3, 2, 4],
    };
    let weights = ArrayD::from_shape_vec(shape, weights.iter().map(|&weight| F::of(weight)).collect()).unwrap();
    match shape.len() {
        1 => act((&weights.into_dimensionality::<Ix1>().unwrap()).into()),
        2 => act((&weights.into_dimensionality::<Ix2>().unwrap()).into()),
        _ => act((&weights.into_dimensionality::<Ix3>().unwrap()).into()),
    }
}

/// Compares value, gradient and weight of one case with PyTorch's, and the gradient with differences.
fn check<F: Float, L: Loss<F>>(case: &Value, mut loss: L, targets: &L::Targets) {
    let tolerance = if size_of::<F>() == 8 { 1e-12 } else { 1e-5 };
    let within = Within::either(tolerance);
    let (z, lengths) = (logits::<F>(), numbers(&case["lengths"]));
    let lengths: Vec<_> = lengths.iter().map(|&length| length as usize).collect();
    let weights = numbers(&case["weights"]);
    let what = format!("{} of {}, {}, {lengths:?}", case["kind"], case["parts"], case["reduction"]);
    with_weights::<F, _>(&weights, |weights| {
        let y = Sequence::from(&z).with_lengths(&lengths).unwrap();
        let total = if case["reduction"] == "sum" { 1.0 } else { case["total"].as_f64().unwrap() };
        assert_near(loss.total_weight(y, targets, weights), total, within, &format!("weight, {what}"));
        let evaluated = loss.of_weighted(y, targets, weights);
        let (value, gradient) = (evaluated.value(), evaluated.gradient().to_owned());
        assert_near(value, case["value"].as_f64().unwrap(), within, &what);
        let want: Vec<_> = numbers(&case["gradient"]).into_iter().map(F::of).collect();
        assert_all_near(gradient.as_slice().unwrap(), &want, within, &format!("gradient, {what}"));
        assert_eq!(loss.value_weighted(y, targets, weights).to_bits(), value.to_bits(), "without a gradient, {what}");
        if size_of::<F>() == 4 {
            return;
        }
        for (i, &got) in gradient.iter().enumerate() {
            let side = |step: f64| {
                let mut z = z.clone();
                z.as_slice_mut().unwrap()[i] += F::of(step);
                loss.value_weighted(Sequence::from(&z).with_lengths(&lengths).unwrap(), targets, weights)
            };
            let difference = (side(1e-5) - side(-1e-5)) / 2e-5;
            assert_near(got.widen(), difference, Within::either(2e-8), &format!("element {i} of {what}"));
        }
    });
}

/// `tests/training/data/weighted.py` wrote the cases.
#[test]
fn losses_are_pytorchs() {
    fn check_all<F: Float>(cases: &[Value]) {
        for case in cases {
            let (sum, yes) = (case["reduction"] == "sum", |name: &str| case[name].as_bool().unwrap());
            match case["kind"].as_str().unwrap() {
                "mse" => {
                    let loss = MeanSquaredError::<F>::new();
                    check(case, if sum { loss.sum() } else { loss }, &*targets());
                }
                "huber" => {
                    let loss = Huber::<F>::new(case["delta"].as_f64().unwrap());
                    check(case, if sum { loss.sum() } else { loss }, &*targets());
                }
                "bce" => {
                    let loss = BinaryCrossEntropy::<F>::new();
                    let loss = if yes("pos_weight") { loss.pos_weight(&POS_WEIGHT) } else { loss };
                    check(case, if sum { loss.sum() } else { loss }, &*probabilities());
                }
                "ce" => {
                    let loss = SoftmaxCrossEntropy::<F>::new().ignore(9);
                    let loss = loss.label_smoothing(case["smoothing"].as_f64().unwrap());
                    let loss = if yes("class_weights") { loss.class_weights(&CLASS_WEIGHTS) } else { loss };
                    check(case, if sum { loss.sum() } else { loss }, &*ids());
                }
                kind => {
                    assert_eq!(kind, "ctc");
                    let loss = Ctc::<F>::new();
                    check(case, if sum { loss.sum() } else { loss }, &[vec![1, 2], vec![3]]);
                }
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training/data/weighted.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 84);
    check_all::<f64>(&cases);
    check_all::<f32>(&cases);
}

/// Each loss with its targets, for checks that cover all of them.
macro_rules! for_each_loss {
    ($F:ty, |$loss:ident, $targets:ident| $body:expr) => {{
        let ($loss, $targets) = (MeanSquaredError::<$F>::new(), &*targets::<$F>());
        $body;
        let ($loss, $targets) = (Huber::<$F>::new(1.05), &*targets::<$F>());
        $body;
        let ($loss, $targets) = (BinaryCrossEntropy::<$F>::new().pos_weight(&POS_WEIGHT), &*probabilities::<$F>());
        $body;
        let ($loss, $targets) = (SoftmaxCrossEntropy::<$F>::new().ignore(9).label_smoothing(0.1), &*ids());
        $body;
        let ($loss, $targets) =
            (Box::new(Ctc::<$F>::new()) as Box<dyn Loss<$F, Targets = [Vec<usize>]>>, &[vec![1, 2], vec![3]][..]);
        $body;
    }};
}

#[test]
fn weights_of_one_change_no_bit_and_a_factor_of_all_changes_no_mean() {
    fn check<L: Loss<f64>>(mut loss: L, targets: &L::Targets) {
        let z = logits();
        let want = loss.of(&z, targets).value();
        let gradient = loss.of(&z, targets).gradient().to_owned();
        let ones = loss.of_weighted(&z, targets, &Array1::ones(2));
        assert_eq!((ones.value().to_bits(), ones.gradient()), (want.to_bits(), &*gradient));
        // The smallest number above 0 is a valid weight.
        for factor in [0.37, 1e-30, 3e38, 5e-324] {
            let got = loss.of_weighted(&z, targets, &Array1::from_elem(2, factor));
            assert_near(got.value(), want, Within::relative(1e-14), &format!("{factor}"));
            let (got, want) = (got.gradient().as_slice().unwrap(), gradient.as_slice().unwrap());
            assert_all_near(got, want, Within::either(1e-14), &format!("{factor}"));
        }
        let (y, ones) = (Sequence::from(&z), Array1::ones(2));
        assert_eq!(loss.total_weight(y, targets, (&ones).into()), loss.weight(y, targets));
    }
    for_each_loss!(f64, |loss, targets| check(loss, targets));
}

#[test]
fn what_has_no_weight_counts_as_little_as_padding() {
    fn check<F: Float, L: Loss<F>>(mut loss: L, targets: &L::Targets, alone: impl Fn(&L, &Array3<F>) -> f64) {
        for junk in [f64::NAN, f64::INFINITY] {
            let mut z = logits::<F>();
            z.slice_mut(s![.., 1, ..]).fill(F::of(junk));
            let weights = arr1(&[1.0, 0.0].map(F::of));
            let want = alone(&loss, &z);
            let evaluated = loss.of_weighted(&z, targets, &weights);
            assert_eq!(evaluated.value().to_bits(), want.to_bits());
            assert!(want > 0.0 && evaluated.gradient().slice(s![.., 1, ..]).iter().all(|&d| d == F::zero()));
            assert!(evaluated.gradient().iter().all(|d| d.is_finite()));
            assert!(
                !loss.value_weighted(&z, targets, &arr1(&[1.0, 1e-30].map(F::of))).is_finite(),
                "any weight shows it"
            );
            // If nothing has a weight, there is neither loss nor gradient.
            let none = loss.of_weighted(&z, targets, &Array1::zeros(2));
            assert!(none.value() == 0.0 && none.gradient().iter().all(|&d| d == F::zero()));
            let y = Sequence::from(&z);
            assert_eq!(loss.total_weight(y, targets, (&Array1::zeros(2)).into()), 0.0);
        }
    }
    fn first<F: Float>(z: &Array3<F>) -> Sequence<'_, F> {
        Sequence::from(z).sequences(0..1)
    }
    fn check_all<F: Float>() {
        let (values, ids) = (targets::<F>(), ids());
        let of_first = values.slice(s![.., ..1, ..]);
        check(MeanSquaredError::new(), &*values, |loss, z| loss.value(first(z), &of_first));
        check(Huber::new(1.05), &*values, |loss, z| loss.value(first(z), &of_first));
        check(BinaryCrossEntropy::new(), &*values, |loss, z| loss.value(first(z), &of_first));
        let cross_entropy = SoftmaxCrossEntropy::<F>::new().ignore(9);
        check(cross_entropy, &*ids, |loss, z| loss.value(first(z), &ids.slice(s![.., ..1])));
        let labels = [vec![1, 2], vec![3]];
        check(Ctc::<F>::new(), &labels, |loss, z| loss.value(first(z), &labels[..1]));
        // An invalid target is not read without a weight.
        let wrong = arr2(&[[0, 77], [9, 77], [2, 77]]);
        let loss = SoftmaxCrossEntropy::<F>::new().ignore(9);
        let want = loss.value_weighted(&logits(), &ids, &arr1(&[1.0, 0.0].map(F::of)));
        assert_eq!(loss.value_weighted(&logits(), &wrong, &arr1(&[1.0, 0.0].map(F::of))), want);
        // A single element with an infinite loss.
        let (mut y, mut weights) = (logits::<F>(), Array3::ones(SHAPE));
        (y[[1, 0, 2]], weights[[1, 0, 2]]) = (F::infinity(), F::zero());
        let mut squared = MeanSquaredError::new();
        let got = squared.of_weighted(&y, &values, &weights);
        let without = (got.value(), got.gradient().to_owned());
        let mut ignored = values.clone();
        ignored[[1, 0, 2]] = F::of(-77.0);
        let mut ignoring = MeanSquaredError::new().ignore(-77.0);
        let want = ignoring.of(&y, &ignored);
        assert_eq!((without.0.to_bits(), &*without.1), (want.value().to_bits(), want.gradient()));
    }
    check_all::<f64>();
    check_all::<f32>();
}

/// The mean over batches, weighted by [`Loss::total_weight`], is the mean over all.
#[test]
fn the_mean_over_batches_is_weighted_by_the_weights() {
    let (z, values) = (logits::<f64>(), targets::<f64>());
    let weights = wave::<f64>(SHAPE, 0.2).mapv(f64::abs);
    let loss = MeanSquaredError::new();
    let (mut sum, mut total) = (0.0, 0.0);
    for t in 0..3 {
        let part = s![t..t + 1, .., ..];
        let (y, values, weights) = (z.slice(part), values.slice(part), weights.slice(part));
        let weight = loss.total_weight((&y).into(), &values, (&weights).into());
        sum += weight * loss.value_weighted(y, &values, weights);
        total += weight;
    }
    assert_near(sum / total, loss.value_weighted(&z, &values, &weights), Within::relative(1e-14), "steps");
    let y = Sequence::from(&z).with_lengths(&[3, 1]).unwrap();
    let w = Weights::from(&weights);
    assert_near(w.total(y), loss.total_weight(y, &values, w), Within::relative(1e-14), "by default");
    assert!(w.total(y) < w.total((&z).into()));
}

#[test]
fn weights_that_make_no_sense_are_refused() {
    let z = logits::<f64>();
    for bad in [-1.0, f64::NAN, f64::INFINITY, 1e39] {
        let shown = format!("got {bad:?} ");
        let mut steps = Array2::ones((3, 2));
        steps[[1, 1]] = bad;
        let elements = Array3::from_shape_fn(SHAPE, |(t, b, k)| if [t, b, k] == [2, 0, 1] { bad } else { 1.0 });
        let message = panic_of(|| MeanSquaredError::new().value_weighted(&z, &targets(), &elements));
        let at = "at feature 1 of step 2 of sequence 0";
        assert_says(&message, &["MeanSquaredError: weights: expected finite numbers, at least 0", &shown, at]);
        let message = panic_of(|| Huber::new(1.0).value_weighted(&z, &targets(), &steps));
        assert_says(&message, &["Huber: weights", &shown, "at step 1 of sequence 1"]);
        let message = panic_of(|| SoftmaxCrossEntropy::new().ignore(9).value_weighted(&z, &ids(), &steps));
        assert_says(&message, &["SoftmaxCrossEntropy: weights", &shown, "at step 1 of sequence 1"]);
        let message = panic_of(|| Ctc::new().value_weighted(&z, &[vec![1], vec![2]], &arr1(&[1.0, bad])));
        assert_says(&message, &["Ctc: weights", &shown, "of sequence 1"]);
        // At positions that do not count, weights are not read.
        let y = Sequence::from(&z).with_lengths(&[3, 1]).unwrap();
        assert!(Huber::new(1.0).value_weighted(y, &targets(), &steps).is_finite());
        let mut ignored = ids();
        ignored[[1, 1]] = 9;
        assert!(SoftmaxCrossEntropy::new().ignore(9).value_weighted(&z, &ignored, &steps).is_finite());
    }
    let message = panic_of(|| MeanSquaredError::new().value_weighted(&z, &targets(), &Array3::ones((3, 2, 5))));
    assert_says(&message, &["MeanSquaredError: weights: expected [3, 2, 4], got [3, 2, 5]"]);
    let message = panic_of(|| BinaryCrossEntropy::new().value_weighted(&z, &targets(), &Array2::ones((2, 2))));
    assert_says(&message, &["BinaryCrossEntropy: weights: expected [3, 2], got [2, 2]"]);
    let message = panic_of(|| Huber::new(1.0).value_weighted(&z, &targets(), &Array1::ones(3)));
    assert_says(&message, &["Huber: weights: expected [2], got [3]"]);
    let cross_entropy = SoftmaxCrossEntropy::new().ignore(9);
    let message = panic_of(|| cross_entropy.value_weighted(&z, &ids(), &Array3::ones(SHAPE)));
    let expected =
        "SoftmaxCrossEntropy: weights: expected one for each step, [T, B], or each sequence, [B], got [T, B, D]";
    assert_says(&message, &[expected]);
    let message = panic_of(|| Ctc::new().value_weighted(&z, &[vec![1], vec![2]], &Array2::ones((3, 2))));
    assert_says(&message, &["Ctc: weights: expected one for each sequence, [B], got [T, B]"]);
    let total = panic_of(|| cross_entropy.total_weight((&z).into(), &ids(), (&Array2::ones((4, 2))).into()));
    assert_says(&total, &["SoftmaxCrossEntropy: weights: expected [3, 2], got [4, 2]"]);

    /// A loss that does not support weights.
    struct Plain(Array3<f64>);
    impl Loss<f64> for Plain {
        type Targets = ArrayRef3<f64>;
        fn evaluate(&self, y: Sequence<'_, f64>, _: &ArrayRef3<f64>, _: Option<&mut ArrayRef3<f64>>) -> f64 {
            y.valid_count() as f64
        }
        fn memory(&mut self) -> &mut Array3<f64> {
            &mut self.0
        }
    }
    let message = panic_of(|| Plain(z.clone()).value_weighted(&z, &targets(), &Array1::ones(2)));
    assert_says(&message, &["Plain: weights: this loss takes none"]);
}

#[test]
fn a_second_evaluation_allocates_nothing() {
    fn check<L: Loss<f32>>(mut loss: L, targets: &L::Targets) {
        let (z, weights) = (logits(), arr1(&[0.5, 2.0]));
        let mut evaluate = || {
            let value = loss.of_weighted(&z, targets, &weights).value();
            assert!(value == loss.value_weighted(&z, targets, &weights));
        };
        evaluate();
        assert_eq!(allocations(evaluate), 0);
    }
    for_each_loss!(f32, |loss, targets| check(loss, targets));
}

/// `fit` on weighted batches equals the plain loop.
#[test]
fn fit_takes_weights() {
    let rng = &mut rng(3);
    let start = (GruCell::<f64>::new(2, 5, rng), Linear::new(5, 4, rng));
    let batches: Vec<_> = (0..3)
        .map(|k| {
            let x = wave::<f64>((3, 2, 2), k as f64);
            let ids = Array2::from_shape_fn((3, 2), |(t, b)| (t + 2 * b + k).index() % 4);
            Weighted {
                batch: (x, ids, vec![3, 2]),
                weights: wave::<f64>((3, 2, 1), k as f64).mapv(f64::abs).slice_move(s![.., .., 0]),
            }
        })
        .collect();
    let mut loss = SoftmaxCrossEntropy::new();
    let (mut plain, mut optimizer) = (start.clone(), Sgd::new(0.3));
    let (mut cache, mut grad) = (plain.cache(), plain.zeros_like());
    let (mut sum, mut total) = (0.0, 0.0);
    for Weighted { batch: (x, ids, lengths), weights } in &batches {
        let x = Sequence::from(x).with_lengths(lengths).unwrap();
        let mut state = plain.zero_state(2);
        let pass = plain.pass(x, &mut state, &mut cache);
        let weight = loss.total_weight((&pass).into(), ids, weights.into());
        let evaluated = loss.of_weighted(&pass, ids, weights);
        (sum, total) = (sum + weight * evaluated.value(), total + weight);
        pass.backward_into(evaluated.gradient(), &mut grad);
        optimizer.step(&mut plain, &grad);
    }
    let (mut fitted, mut optimizer) = (start.clone(), Sgd::new(0.3));
    let history =
        Fit::new(&mut fitted, &mut optimizer, &mut loss).run(|_| &batches, || &batches[..1], |_| Continue(())).unwrap();
    assert_eq!(bits(&fitted), bits(&plain));
    assert_ne!(bits(&fitted), bits(&start));
    assert_eq!(history.epochs[0].training.to_bits(), (sum / total).to_bits());
    let Weighted { batch: (x, ids, lengths), weights } = &batches[0];
    let x = Sequence::from(x).with_lengths(lengths).unwrap();
    let want = loss.value_weighted(&plain.pass(x, &mut plain.zero_state(2), &mut cache), ids, weights);
    assert_near(history.epochs[0].validation.unwrap(), want, Within::relative(1e-15), "validation");
}
