//! Batches: their content, that every sample is in one, and that building them changes no number.

use std::collections::BTreeSet;

use gradflow::ndarray::{Array1, Array2, Array3, Axis, arr1, arr2, array, s};
use gradflow::{
    Layer, Sequence, TensorsExt,
    data::{Batch, Normalizer, Samples, Values, Windows, one_hot, split_at_random, split_in_order},
    layers::{Embedding, LastStep, Linear},
    loss::{Loss, MeanSquaredError, SoftmaxCrossEntropy},
    recurrent::Gru,
};

use crate::common::{assert_says, panic_of, rng};

const WORDS: [&[i64]; 5] = [&[3, 1, 4], &[1, 5], &[2, 6, 5, 3], &[5], &[2, 2, 2]];

#[test]
fn a_batch_holds_its_samples_and_no_others() {
    let samples = Samples::<f32>::ids(WORDS).with_labels([0u8, 1, 2, 1, 0]);
    let batch = samples.batch(&[2, 3]);
    assert_eq!(batch.x, Values::Ids(arr2(&[[2, 5], [6, 0], [5, 0], [3, 0]])));
    assert_eq!((&batch.lengths[..], &batch.targets, batch.count()), (&[4, 1][..], &arr2(&[[2, 1]]), 2));
    assert!(batch.sequence().has_lengths() && !samples.batch(&[0, 4]).sequence().has_lengths());

    let tags: [&[i8]; 5] = [&[1, -1, 0], &[1, 1], &[0, 0, 1, 1], &[-1], &[0, 1, 0]];
    let batch = Samples::<f32>::ids(WORDS).with_tags(tags).batch(&[0, 1]);
    assert_eq!(batch.targets, arr2(&[[1, 1], [usize::MAX, 1], [0, 0]]));

    let values = [array![[1.0, 2.0], [3.0, 4.0]], array![[5.0, 6.0]]];
    let batch = Samples::values(values.clone()).with_values([arr1(&[7.0]), arr1(&[8.0])]).batch(&[1, 0]);
    let x = array![[[5.0, 6.0], [1.0, 2.0]], [[0.0, 0.0], [3.0, 4.0]]];
    assert_eq!((batch.x, batch.targets), (Values::Features(x), array![[[8.0], [7.0]]]));
    let batch = Samples::values(values.clone()).with_step_values(values).batch(&[1]);
    assert_eq!((batch.x, batch.targets), (Values::Features(array![[[5.0, 6.0]]]), array![[[5.0, 6.0]]]));
}

#[test]
fn every_sample_is_in_one_batch_of_an_epoch() {
    let samples = Samples::<f32>::values((0..23).map(|k| Array2::zeros((1 + (7 * k) % 11, 2))));
    let rng = &mut rng(0);
    for batches in
        [samples.batches(4), samples.shuffled(4, rng), samples.bucketed(4, 3, rng), samples.bucketed(4, 100, rng)]
    {
        let mut seen: Vec<usize> = batches.groups().concat();
        seen.sort_unstable();
        assert_eq!(seen, Vec::from_iter(0..23));
        assert_eq!((batches.len(), batches.clone().full().len()), (6, 5));
        let (mut valid, mut all) = (0, 0);
        for (batch, group) in batches.clone().zip(batches.groups()) {
            assert_eq!(batch.lengths, group.iter().map(|&i| samples.length(i)).collect::<Vec<_>>());
            let (steps, count) = batch.sequence().dims();
            (valid, all) = (valid + batch.lengths.iter().sum::<usize>(), all + steps * count);
        }
        assert!((batches.padding() - (1.0 - valid as f64 / all as f64)).abs() < 1e-15);
    }
    assert_eq!(samples.batches(4).groups()[0], [0, 1, 2, 3]);
    let [one, other] = [samples.shuffled(4, rng), samples.shuffled(4, rng)].map(|batches| batches.groups().to_vec());
    assert_ne!(one, other);
    let again = |seed| samples.bucketed(4, 3, &mut crate::common::rng(seed)).groups().to_vec();
    assert_eq!((again(7), again(7) == again(8)), (again(7), false));
    assert!(samples.bucketed(4, 100, rng).padding() < samples.shuffled(4, rng).padding() / 2.0);
}

/// In a padded batch, each sequence has the same loss as alone.
#[test]
fn padding_changes_no_loss() {
    let rng = &mut rng(1);
    let model = (Embedding::<f64>::new(7, 3, rng), Gru::new(3, 4, rng), LastStep::new(), Linear::new(4, 3, rng));
    let samples = Samples::ids(WORDS).with_labels([0u16, 1, 2, 1, 0]);
    let loss = SoftmaxCrossEntropy::new().sum();
    let of = |batch: Batch<f64, Array2<usize>>| {
        let (mut state, mut cache) = (model.zero_state(batch.count()), model.cache());
        loss.value(&model.pass(&batch, &mut state, &mut cache), &batch.targets)
    };
    let (alone, together): (f64, f64) = (samples.batches(1).map(of).sum(), samples.batches(5).map(of).sum());
    assert!((alone - together).abs() < 1e-12, "{alone} {together}");
}

/// Ids and classes of every integer type give the same results.
#[test]
fn ids_of_any_integer_type_give_the_same_bits() {
    let rng = &mut rng(2);
    let model = (Embedding::<f64>::new(7, 3, rng), Linear::new(3, 7, rng));
    let ids = arr2(&[[3usize, 1], [4, 1], [5, 6]]);
    let mut cache = model.cache();
    let mut y = || model.forward(&ids, &mut ((), ()), &mut cache).to_owned();
    let want = (y(), SoftmaxCrossEntropy::new().ignore(1).value(&y(), &ids));
    macro_rules! check {
        ($($t:ty),+) => {$(
            let same = ids.mapv(|id| id as $t);
            let y = model.forward(&same, &mut ((), ()), &mut model.cache()).to_owned();
            let loss = SoftmaxCrossEntropy::new().ignore(1).value(&y, &same);
            assert_eq!((y, loss), want);
            let turned = same.t().as_standard_layout().into_owned(); // [B, T]
            let y = model.forward(Sequence::batch_first(&turned), &mut ((), ()), &mut model.cache()).to_owned();
            assert_eq!(y, want.0);
            let embedded = one_hot::<f64>(&same, 7);
            assert_eq!(embedded, one_hot::<f64>(&ids, 7));
        )+};
    }
    check!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

    let negative = arr2(&[[3i32], [-2]]);
    let message = panic_of(|| model.forward(&negative, &mut ((), ()), &mut model.cache()).to_owned());
    assert_says(&message, &["Embedding: x: expected ids below 7, got -2 at step 1 of sequence 0"]);
    let y = Array3::<f64>::zeros((2, 1, 7));
    let message = panic_of(|| SoftmaxCrossEntropy::new().value(&y, &negative));
    assert_says(&message, &["SoftmaxCrossEntropy: ids: expected ids below 7, got -2 at step 1 of sequence 0"]);
    assert!(SoftmaxCrossEntropy::new().ignore(-2).value(&y, &negative) > 0.0);
    // Past a length, ids may be anything.
    let cut = Sequence::from(&negative).with_lengths(&[1]).unwrap();
    assert!(SoftmaxCrossEntropy::new().value(Sequence::from(&y).with_lengths(&[1]).unwrap(), &negative).is_finite());
    assert_eq!(model.forward(cut, &mut ((), ()), &mut model.cache()).dim(), (2, 1, 7));
}

#[test]
fn windows_are_the_rows_and_what_comes_after_them() {
    let series = Array2::from_shape_fn((9, 2), |(n, k)| (10 * n + k) as f64);
    for (steps, horizon, stride) in [(3, 1, 1), (2, 3, 2), (8, 1, 1), (4, 4, 3)] {
        let windows = Windows::new(steps).horizon(horizon).stride(stride);
        let starts: Vec<usize> = windows.starts(9).collect();
        assert_eq!(starts, (0..9).filter(|s| s % stride == 0 && s + steps + horizon <= 9).collect::<Vec<_>>());
        let (ahead, each) = (windows.forecasts(&series), windows.next_steps(&series));
        assert_eq!((ahead.count(), each.count()), (starts.len(), starts.len()));
        for (i, start) in starts.into_iter().enumerate() {
            let x = Values::Features(series.slice(s![start..start + steps, ..]).to_owned().insert_axis(Axis(1)));
            let (ahead, each) = (ahead.batch(&[i]), each.batch(&[i]));
            assert_eq!((&ahead.x, &each.x), (&x, &x));
            let after: Array1<f64> =
                series.slice(s![start + steps..start + steps + horizon, ..]).iter().copied().collect();
            assert_eq!(ahead.targets, after.insert_axis(Axis(0)).insert_axis(Axis(0)));
            let later = series.slice(s![start + horizon..start + horizon + steps, ..]).to_owned();
            assert_eq!(each.targets, later.insert_axis(Axis(1)));
        }
    }
    assert_eq!(Windows::new(9).starts(9).count(), 0);
    assert_eq!(Windows::new(9).starts(3).count(), 0);
}

#[test]
fn a_normaliser_is_the_mean_and_the_deviation_and_goes_back() {
    let far = 1e8; // its squares would leave no digits for the deviation
    let x = Array2::from_shape_fn((50, 3), |(n, k)| if k == 2 { 4.0 } else { far * k as f64 + (n as f64).sin() });
    let normalizer = Normalizer::standard(x.rows());
    for k in 0..3 {
        let column = x.column(k);
        assert!((normalizer.offset[k] - column.mean().unwrap()).abs() < 1e-7);
        let deviation = if k == 2 { 1.0 } else { column.mapv(|x| x - far * k as f64).std(0.0) };
        assert!((normalizer.scale[k] - deviation).abs() < 1e-7, "{k}");
    }
    let mut there = x.clone();
    normalizer.normalize(&mut there);
    assert!(there.column(2).iter().all(|&x| x == 0.0));
    assert!(there.column(1).mean().unwrap().abs() < 1e-6 && (there.column(1).std(0.0) - 1.0).abs() < 1e-6);
    let mut back = there.clone();
    normalizer.restore(&mut back);
    assert!(back.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-7));
    let mut one = there.slice(s![.., 1..2]).to_owned().insert_axis(Axis(0)); // [1, N, 1]
    normalizer.select(&[1]).restore(&mut one);
    assert!(one.iter().zip(x.column(1)).all(|(a, b)| (a - b).abs() < 1e-7));

    let range = Normalizer::min_max(x.slice(s![.., ..1]).rows());
    let mut there = x.slice(s![.., ..1]).to_owned();
    range.normalize(&mut there);
    let ends = there.iter().fold((1.0f64, 0.0f64), |ends, &x| (ends.0.min(x), ends.1.max(x)));
    assert_eq!(ends, (0.0, 1.0));
    assert!(Normalizer::min_max(arr2(&[[1.0], [f64::NAN], [2.0]]).rows()).scale[0].is_nan());

    let samples = Samples::values([x.slice(s![..20, ..]).to_owned(), x.slice(s![20.., ..]).to_owned()]);
    assert_eq!(Normalizer::standard(samples.rows()), normalizer);
    let batch = samples.normalized(&normalizer).batch(&[0]);
    let Values::Features(values) = batch.x else { panic!("features") };
    let mut want = x.slice(s![..20, ..]).to_owned();
    normalizer.normalize(&mut want);
    assert_eq!(values.index_axis(Axis(1), 0), want);
    assert_eq!(normalizer.element_count(), 6);
}

#[test]
fn parts_are_of_the_asked_size_and_have_nothing_in_common() {
    for count in [0, 1, 7, 100, 101] {
        let parts = split_in_order(count, [0.5, 0.3, 0.2]);
        assert_eq!(
            (parts[0].start, parts[0].end, parts[1].end, parts[2].end),
            (0, parts[1].start, parts[2].start, count)
        );
        let random = split_at_random(count, [0.5, 0.3, 0.2], &mut rng(3));
        assert_eq!(random.each_ref().map(Vec::len), parts.clone().map(|part| part.len()));
        assert_eq!(random.concat().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from_iter(0..count));
        assert_eq!(random, split_at_random(count, [0.5, 0.3, 0.2], &mut rng(3)));
    }
    let samples = Samples::<f32>::ids(WORDS).with_labels([0u8, 1, 2, 3, 4]);
    assert_eq!(samples.select(&[3, 1]).batch(&[0, 1]), samples.batch(&[3, 1]));
    assert_says(&panic_of(|| split_in_order(5, [0.5, 0.6])), &["split: shares", "[0.5, 0.6]"]);
}

/// A series is learned through windows and normalised values.
#[test]
fn a_series_is_forecast() {
    let rng = &mut rng(4);
    let series = Array2::from_shape_fn((120, 1), |(n, _)| 50.0 + 7.0 * (0.4 * n as f32).sin());
    let normalizer = Normalizer::standard(series.rows());
    let mut scaled = series.clone();
    normalizer.normalize(&mut scaled);
    let samples = Windows::new(12).forecasts(&scaled);
    let mut model = (Gru::<f32>::new(1, 8, rng), LastStep::new(), Linear::new(8, 1, rng));
    let (mut cache, mut grad) = (model.cache(), gradflow::ZerosLike::zeros_like(&model));
    let (mut loss, mut optimizer) = (MeanSquaredError::new(), gradflow::optim::AdamW::new(0.02));
    let mut last = f64::NAN;
    for _ in 0..25 {
        for batch in samples.bucketed(16, 4, rng) {
            let mut state = model.zero_state(batch.count());
            let pass = model.pass(&batch, &mut state, &mut cache);
            let loss = loss.of(&pass, &batch.targets);
            last = loss.value();
            pass.backward_into(loss.gradient(), &mut grad);
            gradflow::optim::Optimizer::step(&mut optimizer, &mut model, &grad);
        }
    }
    assert!(last < 0.05, "{last}");
}

#[test]
fn misfits_are_named() {
    let says = |message: String, parts: &[&str]| assert_says(&message, parts);
    says(
        panic_of(|| Samples::values([array![[1.0f32]], array![[1.0, 2.0]]])),
        &["Samples: sequences", "1 features", "got 2"],
    );
    says(panic_of(|| Samples::<f32>::ids(WORDS).with_labels([1u8])), &["one for each of 5 sequences, got 1"]);
    says(panic_of(|| Samples::<f32>::ids(&WORDS[..1]).with_tags([[1u8]])), &["3 steps for sequence 0, got 1"]);
    says(panic_of(|| Samples::<f32>::ids(WORDS).batches(0).len()), &["Samples: size", "got 0"]);
    says(panic_of(|| one_hot::<f32>(&arr2(&[[3u8]]), 3)), &["one_hot: ids: expected ids below 3, got 3 at step 0"]);
    says(panic_of(|| Windows::new(0)), &["Windows: steps", "got 0"]);
    let normalizer = Normalizer::<f32>::identity(2);
    says(panic_of(|| normalizer.normalize(&mut Array2::zeros((2, 3)))), &["Normalizer", "[2]", "[3]"]);
    says(panic_of(|| Normalizer::<f32>::standard([])), &["Normalizer: rows", "at least one, got none"]);
    let batch = Batch::<f32, ()> { x: Array3::zeros((2, 2, 1)).into(), lengths: vec![2, 3], targets: () };
    says(panic_of(|| batch.sequence().dims()), &["Batch: length 3 of sequence 1 is not in 0..=2"]);
    let x = Array3::<f32>::zeros((2, 2, 1));
    let with_lengths = Sequence::from(&x).with_lengths(&[1, 2]).unwrap();
    says(panic_of(|| Sequence::batch_first(with_lengths).dims()), &["Sequence::batch_first", "with lengths"]);
}

#[cfg(feature = "safetensors")]
#[test]
fn a_normaliser_is_saved_with_its_model() {
    use gradflow::io::StateDict;

    let path = crate::common::temporary("normalizer.safetensors");
    let (model, normalizer) =
        (Linear::<f32>::new(2, 1, &mut rng(5)), Normalizer::standard(arr2(&[[1.0, 2.0], [3.0, 8.0]]).rows()));
    StateDict::of(&(&model, &normalizer)).save(&path).unwrap();
    let (mut other, mut loaded) = (Linear::<f32>::zeros(2, 1), Normalizer::identity(2));
    StateDict::open(&path).unwrap().load(&mut (&mut other, &mut loaded)).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((model, normalizer), (other, loaded));
}
