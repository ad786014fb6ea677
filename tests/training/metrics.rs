//! Metrics against plain loops over all positions, and against known results.

use gradflow::metrics::{Accuracy, ConfusionMatrix, EditDistance, Errors, Perplexity, argmax, edit_distance};
use gradflow::ndarray::{Array2, Array3, arr2, arr3, s};
use gradflow::{
    Sequence, Tensors, TensorsExt,
    loss::{Loss, SoftmaxCrossEntropy},
};

use crate::common::{Within, assert_near, assert_says, panic_of, wave};

const LENGTHS: [usize; 4] = [5, 2, 4, 1];
const IGNORED: i64 = -100;
const EXACT: Within = Within::relative(1e-13);

fn logits() -> Array3<f64> {
    wave((5, 4, 6), 0.4)
}

fn targets() -> Array2<i64> {
    Array2::from_shape_fn((5, 4), |(t, b)| if (t + 2 * b) % 5 == 4 { IGNORED } else { ((3 * t + 5 * b) % 6) as i64 })
}

fn weights() -> Array2<f64> {
    Array2::from_shape_fn((5, 4), |(t, b)| 0.25 + ((t * 7 + b * 3) % 5) as f64)
}

/// The positions that count, as (t, b, class, weight).
fn counted() -> Vec<(usize, usize, usize, f64)> {
    let mut list = Vec::new();
    for (b, length) in LENGTHS.into_iter().enumerate() {
        for t in 0..length {
            if let Ok(class) = usize::try_from(targets()[[t, b]]) {
                list.push((t, b, class, weights()[[t, b]]));
            }
        }
    }
    list
}

/// Adds the whole batch in two parts of unequal size, with padding that holds NaN.
fn in_two_parts(mut add: impl FnMut(Sequence<'_, f64>, &Array2<i64>, &Array2<f64>)) {
    let (mut z, targets, weights) = (logits(), targets(), weights());
    for (b, length) in LENGTHS.into_iter().enumerate() {
        z.slice_mut(s![length.., b, ..]).fill(f64::NAN);
    }
    for part in [0..1, 1..4] {
        let own = z.slice(s![.., part.clone(), ..]);
        let (targets, weights) = (targets.slice(s![.., part.clone()]), weights.slice(s![.., part.clone()]));
        add(Sequence::from(own).with_lengths(&LENGTHS[part]).unwrap(), &targets.to_owned(), &weights.to_owned());
    }
}

#[test]
fn accuracies_are_shares_of_all_positions_together() {
    for k in 1..=6 {
        let (mut plain, mut weighted) = (Accuracy::top(k).ignore(IGNORED), Accuracy::top(k).ignore(IGNORED));
        in_two_parts(|y, targets, weights| {
            plain.add(y, targets);
            weighted.add_weighted(y, targets, weights);
        });
        let (mut right, mut right_weight, mut total_weight) = (0, 0.0, 0.0);
        for (t, b, class, weight) in counted() {
            let mut order: Vec<usize> = (0..6).collect();
            order.sort_by(|&i, &j| logits()[[t, b, j]].total_cmp(&logits()[[t, b, i]]));
            let is_right = order[..k].contains(&class);
            (right, right_weight) = (right + usize::from(is_right), right_weight + if is_right { weight } else { 0.0 });
            total_weight += weight;
        }
        assert_eq!(plain.value(), right as f64 / counted().len() as f64);
        assert_eq!(plain.total(), counted().len() as f64);
        assert_near(weighted.value(), right_weight / total_weight, EXACT, "weighted");
        let mut sum = Accuracy::top(k).ignore(IGNORED);
        sum.merge(&plain);
        sum.merge(&plain);
        assert_eq!((sum.value(), sum.total()), (plain.value(), 2.0 * plain.total()));
        sum.reset();
        assert!(sum.value().is_nan() && sum.total() == 0.0);
    }
}

/// Of classes with equal logits, exactly one is right; for NaN, it is the class that argmax returns.
#[test]
fn ties_and_nan_are_those_of_argmax() {
    let z = arr3(&[[[1.0, 1.0, 0.0], [0.0, f64::NAN, f64::NAN]]]);
    assert_eq!(argmax(&z), arr2(&[[0, 1]]));
    for class in 0..3 {
        let mut accuracy = Accuracy::new();
        accuracy.add(&z, &arr2(&[[class, class]]));
        assert_eq!(accuracy.value() * 2.0, f64::from(class == 0) + f64::from(class == 1), "{class}");
    }
    assert_eq!(argmax(&z.slice(s![0, 1, ..])).into_scalar(), 1);
    let mut one = Array3::<f32>::zeros((2, 3, 4));
    one[[1, 2, 3]] = 1.0;
    assert_eq!(argmax(&one), Array2::from_shape_fn((2, 3), |at| if at == (1, 2) { 3 } else { 0 }));
}

/// The nats of a data set are the mean loss over its positions, not over its batches.
#[test]
fn perplexity_is_that_of_all_positions_together() {
    let (mut plain, mut weighted) = (Perplexity::new().ignore(IGNORED), Perplexity::new().ignore(IGNORED));
    in_two_parts(|y, targets, weights| {
        plain.add(y, targets);
        weighted.add_weighted(y, targets, weights);
    });
    let loss = SoftmaxCrossEntropy::new().ignore(IGNORED);
    let z = logits();
    let all = loss.value(Sequence::from(&z).with_lengths(&LENGTHS).unwrap(), &targets());
    assert_near(plain.nats(), all, EXACT, "nats");
    assert_near(plain.bits(), all / 2f64.ln(), EXACT, "bits");
    assert_near(plain.value(), all.exp(), EXACT, "perplexity");
    let mut batches = Vec::new();
    in_two_parts(|y, targets, _| batches.push(loss.value(y, targets)));
    assert!((batches.iter().sum::<f64>() / 2.0 - all).abs() > 1e-3, "the batches are alike");
    let (mut sum, mut total) = (0.0, 0.0);
    for (t, b, class, weight) in counted() {
        let row = z.slice(s![t, b, ..]);
        sum += weight * (row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[class]);
        total += weight;
    }
    assert_near(weighted.nats(), sum / total, Within::relative(1e-12), "weighted");

    let mut large = Perplexity::new();
    large.add(&arr3(&[[[1e30f32, 0.0]]]), &arr2(&[[0u8]]));
    assert_eq!(large.value(), 1.0);
}

#[test]
fn a_confusion_matrix_counts_all_positions() {
    let mut confusion = ConfusionMatrix::new(6).ignore(IGNORED);
    let mut weighted = confusion.clone();
    let mut of_classes = confusion.clone();
    in_two_parts(|y, targets, weights| {
        confusion.add(y, targets);
        weighted.add_weighted(y, targets, weights);
    });
    of_classes.add_classes_within(&argmax(&logits()), &targets(), &LENGTHS);
    assert_eq!(confusion, of_classes);
    let (mut counts, mut weights) = (Array2::<f64>::zeros((6, 6)), Array2::<f64>::zeros((6, 6)));
    for (t, b, class, weight) in counted() {
        counts[[class, argmax(&logits())[[t, b]]]] += 1.0;
        weights[[class, argmax(&logits())[[t, b]]]] += weight;
    }
    assert_eq!(confusion.counts(), counts);
    assert_eq!(weighted.counts(), weights);
    let mut accuracy = Accuracy::new().ignore(IGNORED);
    in_two_parts(|y, targets, _| accuracy.add(y, targets));
    assert_eq!(confusion.accuracy(), accuracy.value());
    assert_near(confusion.micro_f1(&[]), accuracy.value(), EXACT, "micro F1");
    let mut twice = confusion.clone();
    twice.merge(&confusion);
    assert_eq!(twice.counts(), &(confusion.counts() * 2.0));
    twice.reset();
    assert_eq!((twice.counts().sum(), twice.accuracy(), twice.macro_f1()), (0.0, 0.0, 0.0));
}

/// From scikit-learn's documentation of `f1_score`: y_true = [0, 1, 2, 0, 1, 2], y_pred = [0, 2, 1, 0, 0, 1].
#[test]
fn f1_is_scikit_learns() {
    let mut confusion = ConfusionMatrix::new(3);
    confusion.add_classes(&arr2(&[[0, 2, 1, 0, 0, 1]]), &arr2(&[[0u8, 1, 2, 0, 1, 2]]));
    let f1 = [confusion.f1(0), confusion.f1(1), confusion.f1(2)];
    assert_eq!(f1, [0.8, 0.0, 0.0]);
    assert_near(confusion.macro_f1(), 0.8 / 3.0, EXACT, "macro");
    assert_near(confusion.weighted_f1(), 0.8 / 3.0, EXACT, "weighted");
    assert_near(confusion.micro_f1(&[]), 1.0 / 3.0, EXACT, "micro");
    // Without class 0: none of classes 1 and 2 is right.
    assert_eq!(confusion.micro_f1(&[0]), 0.0);
    assert_eq!((confusion.precision(0), confusion.recall(0), confusion.recall(1)), (2.0 / 3.0, 1.0, 0.0));
    assert!(confusion.to_string().lines().count() == 4);
}

#[test]
fn errors_are_those_of_all_elements_together() {
    let (y, targets, weights) = (logits(), wave::<f64>((5, 4, 6), 2.0), weights());
    let (mut plain, mut weighted) = (Errors::new(), Errors::new());
    for (part, lengths) in [(0..1, &LENGTHS[..1]), (1..4, &LENGTHS[1..])] {
        let (own, target) = (y.slice(s![.., part.clone(), ..]), targets.slice(s![.., part.clone(), ..]));
        let own = Sequence::from(own).with_lengths(lengths).unwrap();
        plain.add(own, &target);
        weighted.add_weighted(own, &target, &weights.slice(s![.., part]));
    }
    let mut sums = [0.0; 6];
    for (b, length) in LENGTHS.into_iter().enumerate() {
        for (t, k) in (0..length).flat_map(|t| (0..6).map(move |k| (t, k))) {
            let (error, weight) = ((y[[t, b, k]] - targets[[t, b, k]]).abs(), weights[[t, b]]);
            for (sum, term) in
                sums.iter_mut().zip([error, error * error, 1.0, weight * error, weight * error * error, weight])
            {
                *sum += term;
            }
        }
    }
    let [absolute, squared, count, weighted_absolute, weighted_squared, weight] = sums;
    assert_near(plain.mae(), absolute / count, EXACT, "MAE");
    assert_near(plain.rmse(), (squared / count).sqrt(), EXACT, "RMSE");
    assert_near(weighted.mae(), weighted_absolute / weight, EXACT, "weighted MAE");
    assert_near(weighted.rmse(), (weighted_squared / weight).sqrt(), EXACT, "weighted RMSE");
    assert!(Errors::new().mae().is_nan());
    let mut nan = Errors::new();
    nan.add(&arr3(&[[[1.0]]]), &arr3(&[[[f64::NAN]]]));
    assert!(nan.mae().is_nan() && nan.total() == 1.0);
    let mut ignoring = Errors::new().ignore(3.0);
    ignoring.add(&arr3(&[[[1.0f32, 2.0]]]), &arr3(&[[[3.0, 4.0]]]));
    assert_eq!((ignoring.mae(), ignoring.total()), (2.0, 1.0));
}

/// Against the recursive definition.
#[test]
fn edit_distances_are_the_smallest() {
    fn by_definition(a: &[usize], b: &[usize]) -> usize {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len(),
            ([x, a_rest @ ..], [y, b_rest @ ..]) => {
                let substituted = by_definition(a_rest, b_rest) + usize::from(x != y);
                substituted.min(1 + by_definition(a_rest, b)).min(1 + by_definition(a, b_rest))
            }
        }
    }
    let sequence = |length: usize, phase: usize| (0..length).map(|k| (k * k + phase) % 3).collect::<Vec<_>>();
    for (m, n) in (0..6).flat_map(|m| (0..6).map(move |n| (m, n))) {
        let (a, b) = (sequence(m, 0), sequence(n, 1 + m));
        assert_eq!(edit_distance(&a, &b), by_definition(&a, &b), "{a:?} {b:?}");
    }
    let mut distance = EditDistance::new().ignore(IGNORED).end(9);
    distance.add(&[1, 2, 3, 9, 4], &[1i64, IGNORED, 3, 9]);
    assert_eq!((distance.edits(), distance.value(), distance.exact()), (1.0, 0.5, 0.0));
    distance.add_weighted(&[5u8], &[5u8], 2.0);
    assert_eq!((distance.value(), distance.exact()), (1.0 / 4.0, 2.0 / 3.0));
    let mut batch = EditDistance::new();
    batch.add_batch((&arr2(&[[1, 2], [3, 4]]), Some(&[1, 2])), (&arr2(&[[1u8, 2], [7, 3], [7, 4]]), Some(&[1, 3])));
    assert_eq!((batch.edits(), batch.value()), (1.0, 0.25));
    batch.merge(&batch.clone());
    assert_eq!((batch.edits(), batch.value()), (2.0, 0.25));
}

/// `sum` plus `other` as tensors.
fn added<M: Tensors<f64> + Clone>(sum: &M, other: &M) -> M {
    let mut sum = sum.clone();
    sum.add_assign(other);
    sum
}

#[test]
fn sums_are_tensors() {
    let (z, targets) = (logits(), targets());
    let mut accuracy = Accuracy::new().ignore(IGNORED);
    accuracy.add(&z, &targets);
    let before = accuracy.clone();
    accuracy.merge(&before);
    assert_eq!(added(&before, &before), accuracy);
    assert_eq!(accuracy.names(), ["right", "total"]);
    assert_eq!((accuracy.shape(1), accuracy.values(1)), (&[][..], &[2.0 * before.total()][..]));

    let mut confusion = ConfusionMatrix::new(6).ignore(IGNORED);
    confusion.add(&z, &targets);
    let before = confusion.clone();
    confusion.merge(&before);
    assert_eq!(added(&before, &before), confusion);
    assert_eq!((confusion.names(), confusion.shape(0)), (vec!["counts".to_owned()], &[6, 6][..]));

    let mut distance = EditDistance::new();
    distance.add(&[1, 2, 3], &[1, 3]);
    let before = distance.clone();
    distance.merge(&before);
    assert_eq!(added(&before, &before), distance);
    assert_says(&panic_of(|| distance.clone().tensor_mut(4).len()), &["tensor 4 of 4"]);
    distance.set_zero();
    assert_eq!(distance, EditDistance::new());
}

#[test]
fn misfits_are_named() {
    let z = logits();
    let message = panic_of(|| Accuracy::new().add(&z, &arr2(&[[1u8]])));
    assert_says(&message, &["Accuracy: targets: expected [5, 4], got [1, 1]"]);
    let message = panic_of(|| Perplexity::new().add(&z, &Array2::from_elem((5, 4), 6i8)));
    assert_says(&message, &["Perplexity: targets: expected ids below 6, got 6 at step 0 of sequence 0"]);
    let message = panic_of(|| ConfusionMatrix::new(5).add(&z, &targets()));
    assert_says(&message, &["ConfusionMatrix", "[T, B, 5]", "[5, 4, 6]"]);
    let message = panic_of(|| Errors::new().add(&z, &Array3::zeros((5, 4, 1))));
    assert_says(&message, &["Errors: targets: expected [5, 4, 6], got [5, 4, 1]"]);
    let message = panic_of(|| Accuracy::new().add_weighted(&z, &Array2::<u8>::zeros((5, 4)), &Array2::ones((4, 4))));
    assert_says(&message, &["Accuracy: weights: expected [5, 4], got [4, 4]"]);
    assert_says(&panic_of(|| Accuracy::top(0)), &["Accuracy: k: expected at least 1, got 0"]);
    let ids = arr2(&[[1u8]]);
    let message = panic_of(|| EditDistance::new().add_batch((&ids, Some(&[2])), (&ids, None)));
    assert_says(&message, &["EditDistance: predicted lengths: expected lengths up to 1, got 2"]);
}
