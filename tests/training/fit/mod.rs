//! `fit` computes the same bits as the plain loop, and continues from a checkpoint as if it had not been interrupted.

#[cfg(feature = "safetensors")]
mod resume;
#[cfg(all(unix, feature = "safetensors"))]
mod signals;

use std::ops::ControlFlow::{Break, Continue};

use gradflow::clip::ClipNorm;
use gradflow::fit::{self, End, Fit, FitError, Report};
use gradflow::layers::{Dropout, Linear};
use gradflow::loss::{Loss, MeanSquaredError, SoftmaxCrossEntropy};
use gradflow::ndarray::{Array2, Array3, s};
use gradflow::optim::{Adam, Optimizer, ReduceLrOnPlateau, Schedule, Sgd, WeightAverage};
use gradflow::rand::RngExt;
use gradflow::recurrent::GruCell;
use gradflow::{Layer, Sequence, ZerosLike};

use crate::common::{assert_says, bits, panic_of, rng};

type Model = (GruCell<f32>, Dropout<f32>, Linear<f32>);
type Batch = (Array3<f32>, Array2<usize>, Vec<usize>);

const STEPS: usize = 5;

fn model(seed: u64) -> Model {
    let rng = &mut rng(seed);
    (GruCell::new(2, 6, rng), Dropout::new(0.3, rng), Linear::new(6, 3, rng))
}

/// `count` batches of sequences of different lengths that depend only on `seed`; the last batch is smaller.
fn batches(seed: u64, count: usize) -> Vec<Batch> {
    let rng = &mut rng(seed);
    let batch = |k| {
        let size = if k + 1 == count { 2 } else { 4 };
        let x = Array3::from_shape_simple_fn((STEPS, size, 2), || rng.random_range(-1.0..1.0));
        let ids = Array2::from_shape_simple_fn((STEPS, size), || rng.random_range(0..3));
        (x, ids, (0..size).map(|b| 1 + (b + k) % STEPS).collect())
    };
    (0..count).map(batch).collect()
}

fn schedule() -> Schedule {
    Schedule::cosine(0.05, 12, 1e-3).warm_up(3, 0.1)
}

/// The mean of values, given with a weight for each batch.
fn mean(of: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let (sum, weight) =
        of.into_iter().fold((0.0, 0.0), |(sum, total), (value, weight)| (sum + weight * value, total + weight));
    sum / weight
}

#[test]
fn it_is_the_plain_loop() {
    let (clip, seed) = (ClipNorm::new(0.3), 7u64);
    let validation = batches(99, 2);

    let (mut plain, mut optimizer) = (model(0), Adam::new(1.0));
    let (mut cache, mut grad, mut cross_entropy) = (plain.cache(), plain.zeros_like(), SoftmaxCrossEntropy::new());
    let (mut step, mut expected, mut clipped) = (0, Vec::new(), 0);
    for epoch in 0..3 {
        let mut losses = Vec::new();
        for (x, ids, lengths) in batches(epoch, 4) {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step);
            let x = Sequence::from(&x).with_lengths(&lengths).unwrap().train(seed);
            let mut state = plain.zero_state(lengths.len());
            let pass = plain.pass(x, &mut state, &mut cache);
            let loss = cross_entropy.of(&pass, &ids);
            losses.push((loss.value(), lengths.iter().sum::<usize>() as f64));
            pass.backward_into(loss.gradient(), &mut grad);
            optimizer.set_learning_rate(schedule().learning_rate(step));
            clipped += optimizer.step_clipped(&mut plain, &grad, clip).unwrap().clipped;
            step += 1;
        }
        let judged = validation.iter().map(|(x, ids, lengths)| {
            let x = Sequence::from(x).with_lengths(lengths).unwrap().eval();
            let mut state = plain.zero_state(lengths.len());
            let y = plain.forward(x, &mut state, &mut cache);
            (cross_entropy.value(x.with(y), ids), lengths.iter().sum::<usize>() as f64)
        });
        expected.push((step, mean(losses), Some(mean(judged))));
    }
    assert!(clipped > 0);

    let (mut fitted, mut optimizer, mut last) = (model(0), Adam::new(1.0), Vec::new());
    let mut seen = Vec::new();
    let history = Fit::new(&mut fitted, &mut optimizer, &mut cross_entropy)
        .epochs(3)
        .clip(clip)
        .schedule(schedule())
        .seed(seed)
        .run(
            |epoch| batches(epoch as u64, 4),
            || validation.clone(),
            |report| {
                match report {
                    Report::Step(step) => seen.push((step.steps, step.epoch, step.learning_rate)),
                    Report::Epoch { model, .. } => last = bits(model),
                    _ => {}
                }
                Continue(())
            },
        )
        .unwrap();
    assert_eq!(last, bits(&plain));
    let got: Vec<_> = history.epochs.iter().map(|epoch| (epoch.steps, epoch.training, epoch.validation)).collect();
    assert_eq!(got, expected);
    let steps = (0..12).map(|step| (step + 1, step as usize / 4, schedule().learning_rate(step)));
    assert_eq!(seen, steps.collect::<Vec<_>>());
    assert_eq!(history.end, End::Done);
}

/// The learning rate is 0, so that only the mask differs from step to step.
#[test]
fn dropout_draws_another_mask_in_each_step_and_none_in_validation() {
    let mut losses = Vec::new();
    for seed in [0, 1] {
        let (mut model, mut optimizer, batch) = (model(0), Sgd::new(0.0), &batches(0, 2)[0]);
        let history = Fit::new(&mut model, &mut optimizer, &mut SoftmaxCrossEntropy::new())
            .epochs(2)
            .seed(seed)
            .run(
                |_| [batch; 20],
                || [batch],
                |report| {
                    if let Report::Step(step) = report {
                        losses.push(step.loss.to_bits());
                    }
                    Continue(())
                },
            )
            .unwrap();
        assert_eq!(history.epochs[0].validation, history.epochs[1].validation);
    }
    let count = losses.len();
    losses.sort_unstable();
    losses.dedup();
    assert_eq!((count, losses.len()), (80, 80));
}

#[test]
fn the_means_are_those_over_all_positions_that_count() {
    let (mut model, mut optimizer) = ((Linear::<f64>::new(2, 3, &mut rng(0)),), Sgd::new(0.0));
    let x = Array3::from_shape_fn((1, 7, 2), |(_, b, k)| (b as f64 + 0.3 * k as f64).sin());
    let ids = Array2::from_shape_fn((1, 7), |(_, b)| [0, 2, 9, 1, 9, 9, 0][b]);
    let mut loss = SoftmaxCrossEntropy::new().ignore(9).class_weights(&[1.0, 3.0, 0.5]);
    let whole = loss.value(model.forward(&x, &mut ((),), &mut model.cache()).to_owned().view(), &ids);
    let parts =
        [0..4, 4..6, 6..7].map(|b| (x.slice(s![.., b.clone(), ..]).to_owned(), ids.slice(s![.., b]).to_owned()));
    let history = Fit::new(&mut model, &mut optimizer, &mut loss).run(|_| &parts, || &parts, fit::quiet).unwrap();
    let epoch = &history.epochs[0];
    for mean in [epoch.training, epoch.validation.unwrap()] {
        assert!((mean - whole).abs() < 1e-14, "{mean} for {whole}");
    }
}

/// `y = w x` with `x` = 1 and target 0: a step multiplies `w` by 1 - 2 lr. The learning rates 0.1, 0.2, 0.4, 0.8, 1.6 … give the
/// factors 0.8, 0.6, 0.2, -0.6, -2.2, -5.4 …: the loss falls for four epochs and then grows.
#[test]
fn patience_ends_the_training_and_the_best_weights_come_back() {
    let batch = [(Array3::ones((1, 1, 1)), Array3::zeros((1, 1, 1)))];
    for (patience, epochs, end) in [(Some(1), 5, End::Patience), (Some(3), 7, End::Patience), (None, 9, End::Done)] {
        let mut model = Linear::<f64>::builder(1, 1).bias(false).zeros();
        model.weight.fill(1.0);
        let (mut optimizer, mut loss, mut weights) = (Sgd::new(0.0), MeanSquaredError::new(), Vec::new());
        let fit = Fit::new(&mut model, &mut optimizer, &mut loss).epochs(9).schedule(Schedule::step(0.1, 1, 2.0));
        let fit = match patience {
            Some(patience) => fit.patience(patience),
            None => fit,
        };
        let keep = |report: Report<'_, Linear<f64>>| {
            if let Report::Epoch { model, .. } = report {
                weights.push(model.weight[[0, 0]]);
            }
            Continue(())
        };
        let history = fit.run(|_| &batch, || &batch, keep).unwrap();
        assert_eq!((history.epochs.len(), history.end, history.best()), (epochs, end, Some(3)));
        assert_eq!(model.weight[[0, 0]], weights[3]);
        assert!((weights[3] - 0.8 * 0.6 * 0.2 * -0.6).abs() < 1e-15, "{weights:?}");
    }
}

/// As above, a step multiplies `w` by 1 - 2 lr: the loss grows until the learning rate is below 1.
#[test]
fn a_plateau_reduces_the_learning_rate_as_by_hand() {
    let batch = [(Array3::ones((1, 1, 1)), Array3::zeros((1, 1, 1)))];
    let plateau = || ReduceLrOnPlateau::new(3.9).factor(0.5).patience(1).warm_up(3, 0.5);
    let mut model = Linear::<f64>::builder(1, 1).bias(false).zeros();
    model.weight.fill(1.0);
    let (mut optimizer, mut loss) = (Sgd::new(0.0), MeanSquaredError::new());
    let fit = Fit::new(&mut model, &mut optimizer, &mut loss).epochs(12).reduce_lr_on_plateau(plateau());
    let history = fit.run(|_| [&batch[0]; 2], || &batch, fit::quiet).unwrap();

    let (mut by_hand, mut w, mut reductions) = (plateau(), 1.0_f64, 0);
    for (epoch, got) in history.epochs.iter().enumerate() {
        for step in 2 * epoch..2 * epoch + 2 {
            w -= by_hand.learning_rate(step as u64) * 2.0 * w;
        }
        assert_eq!(got.learning_rate, by_hand.learning_rate(2 * epoch as u64 + 1), "epoch {epoch}");
        assert!((got.score() / (w * w) - 1.0).abs() < 1e-12, "epoch {epoch}: {} for {}", got.score(), w * w);
        reductions += usize::from(by_hand.step(got.score()));
    }
    assert!(reductions >= 2, "{history:?}");
}

/// The average is evaluated, reported, kept as the best and left in the model; the training continues without it.
#[test]
fn an_average_is_the_plain_loops() {
    let (clip, validation) = (ClipNorm::new(0.3), batches(99, 2));
    let averages = || [WeightAverage::ema(0.8), WeightAverage::ema(0.99).warm_up(), WeightAverage::swa().start(5)];
    for (average, mut expected_average) in averages().into_iter().zip(averages()) {
        // The training without an average, together with the average.
        let (mut plain, mut optimizer, mut cross_entropy) = (model(0), Adam::new(1.0), SoftmaxCrossEntropy::new());
        let (mut cache, mut grad, mut step) = (plain.cache(), plain.zeros_like(), 0);
        let (mut scores, mut averaged, mut losses) = (Vec::new(), Vec::new(), Vec::new());
        for epoch in 0..4 {
            for (x, ids, lengths) in batches(epoch, 4) {
                let seed = 7_u64.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step);
                let x = Sequence::from(&x).with_lengths(&lengths).unwrap().train(seed);
                let mut state = plain.zero_state(lengths.len());
                let pass = plain.pass(x, &mut state, &mut cache);
                let loss = cross_entropy.of(&pass, &ids);
                losses.push(loss.value());
                pass.backward_into(loss.gradient(), &mut grad);
                optimizer.set_learning_rate(schedule().learning_rate(step));
                optimizer.step_clipped(&mut plain, &grad, clip).unwrap();
                expected_average.update(&plain).unwrap();
                step += 1;
            }
            let mut judged = plain.clone();
            expected_average.copy_to(&mut judged);
            scores.push(mean(validation.iter().map(|(x, ids, lengths)| {
                let x = Sequence::from(x).with_lengths(lengths).unwrap().eval();
                let y = judged.forward(x, &mut judged.zero_state(lengths.len()), &mut cache);
                (cross_entropy.value(x.with(y), ids), lengths.iter().sum::<usize>() as f64)
            })));
            averaged.push(bits(&judged));
        }

        let (mut fitted, mut optimizer) = (model(0), Adam::new(1.0));
        let (mut shown, mut seen) = (Vec::new(), Vec::new());
        let history = Fit::new(&mut fitted, &mut optimizer, &mut cross_entropy)
            .epochs(4)
            .clip(clip)
            .schedule(schedule())
            .seed(7)
            .average(average)
            .run(
                |epoch| batches(epoch as u64, 4),
                || validation.clone(),
                |report| {
                    match report {
                        Report::Step(step) => seen.push(step.loss),
                        Report::Epoch { model, .. } => shown.push(bits(model)),
                        _ => {}
                    }
                    Continue(())
                },
            )
            .unwrap();
        assert_eq!(seen, losses, "the average has changed the training");
        assert_eq!(history.epochs.iter().map(|epoch| epoch.score()).collect::<Vec<_>>(), scores);
        assert_eq!(shown, averaged);
        assert_eq!(bits(&fitted), averaged[history.best().unwrap()]);
        assert_ne!(averaged[3], bits(&plain));
    }
}

/// A step so large that the next one would start from infinite weights.
#[test]
fn weights_that_are_not_finite_end_a_training_with_an_average() {
    let batch = [(Array3::ones((1, 1, 1)), Array3::from_elem((1, 1, 1), 1e30_f32))];
    let mut model = Linear::<f32>::builder(1, 1).bias(false).zeros();
    let (mut optimizer, mut loss) = (Sgd::new(1e10), MeanSquaredError::new());
    let fit = Fit::new(&mut model, &mut optimizer, &mut loss).average(WeightAverage::ema(0.9));
    let error = fit.run(|_| &batch, || None, fit::quiet).unwrap_err();
    assert!(matches!(error, FitError::Weights(_)), "{error}");
    assert_eq!(error.to_string(), "training diverged: the weights are not finite, first in weight");
}

#[test]
fn a_schedule_and_a_plateau_together_are_refused() {
    let (mut model, mut optimizer, mut loss) = (model(0), Sgd::new(0.1), SoftmaxCrossEntropy::<f32>::new());
    let plateau = || ReduceLrOnPlateau::new(0.1);
    let mut says = |settings: fn(Fit<'_, Model, SoftmaxCrossEntropy<f32>>, ReduceLrOnPlateau)| {
        panic_of(|| settings(Fit::new(&mut model, &mut optimizer, &mut loss), plateau()))
    };
    let after = says(|fit, plateau| drop(fit.schedule(schedule()).reduce_lr_on_plateau(plateau)));
    assert_eq!(after, "Fit: reduce_lr_on_plateau: the learning rate follows a schedule already");
    let before = says(|fit, plateau| drop(fit.reduce_lr_on_plateau(plateau).schedule(schedule())));
    assert_eq!(before, "Fit: schedule: the learning rate follows reduce_lr_on_plateau already");
    let maximized = says(|fit, plateau| drop(fit.reduce_lr_on_plateau(plateau.maximize())));
    assert_eq!(maximized, "Fit: reduce_lr_on_plateau: expected one that minimizes: the score is a loss");
}

#[test]
fn a_gradient_that_is_not_finite_ends_it_before_the_step() {
    let (mut model, mut optimizer, mut before) = (model(0), Adam::new(0.01), Vec::new());
    let mut training = batches(0, 3);
    training[2].0[[0, 0, 0]] = f32::NAN;
    let result = Fit::new(&mut model, &mut optimizer, &mut SoftmaxCrossEntropy::new()).run(
        |_| &training,
        || None,
        |report| {
            if let Report::Step(step) = report {
                before.push(step.loss);
            }
            Continue(())
        },
    );
    let Err(FitError::Gradient(error)) = result else { panic!("{result:?}") };
    assert_says(&error.to_string(), &["not finite", "0.weight_ih"]);
    assert_eq!((before.len(), optimizer.state().steps), (2, 2));
    assert!(bits(&model).iter().all(|&bits| f32::from_bits(bits as u32).is_finite()));
}

#[test]
fn what_cannot_be_trained_on_is_refused() {
    let (mut model, mut optimizer, mut loss) = (model(0), Sgd::new(0.1), SoftmaxCrossEntropy::new());
    let nothing: [Batch; 0] = [];
    let message = panic_of(|| Fit::new(&mut model, &mut optimizer, &mut loss).run(|_| &nothing, || None, fit::quiet));
    assert_says(&message, &["Fit: training: expected at least one batch in epoch 0, got none"]);
    let mut wrong = batches(0, 1);
    wrong[0].2[0] = STEPS + 1;
    let error = Fit::new(&mut model, &mut optimizer, &mut loss).run(|_| &wrong, || None, fit::quiet).unwrap_err();
    assert!(matches!(error, FitError::Lengths(_)), "{error}");
    assert_says(&panic_of(|| Fit::new(&mut model, &mut optimizer, &mut loss).patience(0)), &["patience", "at least 1"]);
}

#[test]
fn a_report_stops_it_at_any_time() {
    let training = batches(0, 4);
    for stop in 1..=8 {
        let (mut model, mut optimizer, mut loss) = (model(0), Sgd::new(0.1), SoftmaxCrossEntropy::new());
        let history = Fit::new(&mut model, &mut optimizer, &mut loss)
            .epochs(2)
            .run(
                |_| &training,
                || None,
                |report| match report {
                    Report::Step(step) if step.steps == stop => Break(()),
                    _ => Continue(()),
                },
            )
            .unwrap();
        assert_eq!((optimizer.state().steps, history.end), (stop, End::Stopped));
        assert_eq!(history.epochs.len(), (stop as usize - 1) / 4);
    }
}

#[test]
fn the_range_test_changes_nothing_and_ends_where_the_loss_diverges() {
    let (model, batches) = (model(0), batches(0, 4));
    let before = bits(&model);
    let run = || {
        fit::lr_range(&model, &mut Sgd::new(0.0), &mut SoftmaxCrossEntropy::new(), &batches, 1e-4..=1e4, 300).unwrap()
    };
    let range = run();
    assert_eq!((bits(&model), &run()), (before, &range));
    assert!(range.points.len() < 300, "{}", range.points.len());
    let rates: Vec<f64> = range.points.iter().map(|point| point.learning_rate).collect();
    assert_eq!(rates[0], 1e-4);
    assert!(rates.windows(2).all(|pair| (pair[1] / pair[0] - 1e8f64.powf(1.0 / 299.0)).abs() < 1e-12));
    let (lowest, last) = (range.lowest().unwrap(), range.points.last().unwrap());
    assert!(last.learning_rate > lowest.learning_rate);
    assert_eq!(range.suggestion(), Some(lowest.learning_rate / 10.0));
    let wrong = [1e-2..=1e-3, 0.0..=1.0, 1.0..=f64::INFINITY, f64::NAN..=1.0];
    for rates in wrong {
        let test = || fit::lr_range(&model, &mut Sgd::new(0.0), &mut SoftmaxCrossEntropy::new(), &batches, rates, 10);
        assert_says(&panic_of(test), &["lr_range: learning rates: expected 0 < from < to"]);
    }
}
