//! CTC against PyTorch, against the explicit sum over all paths, and against differences; and its decoding.

use std::collections::HashMap;

use gradflow::ndarray::{Array3, s};
use gradflow::{
    Sequence,
    loss::{
        Ctc, Loss,
        ctc::{BeamSearch, greedy},
    },
};

use crate::common::{Within, allocations, assert_all_near, assert_near, assert_says, panic_of, wave};

fn log_softmax(logits: &Array3<f64>) -> Array3<f64> {
    let mut log_p = logits.clone();
    for mut row in log_p.rows_mut() {
        let largest = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let normaliser = largest + row.fold(0.0, |sum, z| sum + (z - largest).exp()).ln();
        row -= normaliser;
    }
    log_p
}

/// The label sequence of a path.
fn labels_of(path: &[usize], blank: usize) -> Vec<usize> {
    let mut labels = Vec::new();
    for (t, &class) in path.iter().enumerate() {
        if class != blank && (t == 0 || path[t - 1] != class) {
            labels.push(class);
        }
    }
    labels
}

/// The probability of every label sequence, from all paths of sequence `b`.
fn all_paths(logits: &Array3<f64>, b: usize, steps: usize, blank: usize) -> HashMap<Vec<usize>, f64> {
    let (log_p, classes) = (log_softmax(logits), logits.dim().2);
    let mut found = HashMap::new();
    for number in 0..classes.pow(steps as u32) {
        let path: Vec<_> = (0..steps).map(|t| number / classes.pow(t as u32) % classes).collect();
        let p: f64 = path.iter().enumerate().map(|(t, &k)| log_p[[t, b, k]]).sum();
        *found.entry(labels_of(&path, blank)).or_insert(0.0) += p.exp();
    }
    found
}

#[test]
fn the_loss_is_that_of_all_paths() {
    let logits = wave::<f64>((6, 2, 3), 0.3) * 2.0;
    for blank in 0..3 {
        let found = all_paths(&logits, 1, 5, blank);
        assert_near(found.values().sum(), 1.0, Within::either(1e-12), "all labels together");
        for (labels, p) in found {
            let targets = [vec![], labels.clone()];
            let ctc = Ctc::<f64>::new().blank(blank).sum();
            let y = Sequence::from(&logits).with_lengths(&[6, 5]).unwrap();
            let alone = ctc.value(y.sequences(1..2), &targets[1..]);
            assert_near(alone, -p.ln(), Within::either(1e-12), &format!("{labels:?}"));
            // The first sequence has no labels: only blanks.
            let blanks: f64 = (0..6).map(|t| -log_softmax(&logits)[[t, 0, blank]]).sum();
            assert_near(ctc.value(y, &targets), alone + blanks, Within::either(1e-12), "both");
        }
    }
}

/// `tests/training/data/ctc.py` wrote the cases.
#[cfg(feature = "safetensors")]
#[test]
fn loss_and_gradient_are_pytorchs() {
    use gradflow::io::StateDict;

    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training/data/ctc.safetensors");
    let file = StateDict::open(path).unwrap();
    let (mut cases, mut infinite) = (0, 0);
    for (k, options) in file.metadata() {
        let options: serde_json::Value = serde_json::from_str(options).unwrap();
        let name = |part: &str| format!("{k}.{part}");
        let floats = |part: &str| file.tensor::<f64>(&name(part)).unwrap();
        let counts = |part: &str| file.indices(&name(part)).unwrap().into_raw_vec_and_offset().0;
        let logits: Array3<f64> = floats("logits").into_dimensionality().unwrap();
        let want: Array3<f64> = floats("gradient").into_dimensionality().unwrap();
        let loss = floats("loss")[[0]];
        let mut labels = counts("labels").into_iter();
        let targets: Vec<Vec<usize>> =
            counts("counts").into_iter().map(|count| labels.by_ref().take(count).collect()).collect();
        let lengths = counts("lengths");

        let mut ctc = Ctc::new().blank(options["blank"].as_u64().unwrap() as usize);
        ctc = if options["zero_infinity"].as_bool().unwrap() { ctc.zero_infinity() } else { ctc };
        ctc = if options["reduction"] == "sum" { ctc.sum() } else { ctc };
        let y = Sequence::from(&logits).with_lengths(&lengths).unwrap();
        let got = ctc.of(y, &targets);
        cases += 1;
        if loss.is_infinite() {
            infinite += 1;
            assert_eq!(got.value(), f64::INFINITY, "{k}");
            // Sequences that fit have a gradient; without a path, there is none in either library.
            for ((at, got), want) in got.gradient().indexed_iter().zip(&want) {
                assert!(got.is_nan() == want.is_nan(), "{k}: {at:?}: {got} for {want}");
            }
            continue;
        }
        assert_near(got.value(), loss, Within::either(1e-12), k);
        assert_eq!(ctc.value(y, &targets), loss_again(&mut ctc.clone(), y, &targets), "{k}");
        let single = logits.mapv(|z| z as f32);
        let mut narrow = Ctc::<f32>::new().blank(options["blank"].as_u64().unwrap() as usize);
        narrow = if options["zero_infinity"].as_bool().unwrap() { narrow.zero_infinity() } else { narrow };
        narrow = if options["reduction"] == "sum" { narrow.sum() } else { narrow };
        let narrow = narrow.of(Sequence::from(&single).with_lengths(&lengths).unwrap(), &targets);
        assert_near(narrow.value(), loss, Within::either(1e-5), &format!("{k}, f32"));
        let got = ctc.of(y, &targets);
        assert_all_near(got.gradient().as_slice().unwrap(), want.as_slice().unwrap(), Within::absolute(1e-12), k);
    }
    println!("{cases} cases, {infinite} of them infinite");
    assert!(cases == 60 && (3..40).contains(&infinite), "{infinite}");
}

#[cfg(feature = "safetensors")]
fn loss_again(ctc: &mut Ctc<f64>, y: Sequence<'_, f64>, targets: &[Vec<usize>]) -> f64 {
    ctc.of(y, targets).value()
}

#[test]
fn the_gradient_is_that_of_differences() {
    let logits = wave::<f64>((7, 3, 4), 1.0) * 3.0;
    let targets = [vec![1, 1, 2], vec![], vec![3]];
    let lengths = [7, 4, 6];
    let mut ctc = Ctc::new();
    let value = |logits: &Array3<f64>| {
        Ctc::<f64>::new().value(Sequence::from(logits).with_lengths(&lengths).unwrap(), &targets)
    };
    let gradient = ctc.of(Sequence::from(&logits).with_lengths(&lengths).unwrap(), &targets).gradient().to_owned();
    for (at, &got) in gradient.indexed_iter() {
        let side = |step: f64| {
            let mut logits = logits.clone();
            logits[at] += step;
            value(&logits)
        };
        let want = (side(1e-5) - side(-1e-5)) / 2e-5;
        assert_near(got, want, Within::either(1e-8), &format!("{at:?}"));
        assert_eq!(got == 0.0, at.0 >= lengths[at.1], "{at:?}");
    }
    // Values past the lengths change nothing.
    let mut padded = logits.clone();
    padded.slice_mut(s![4.., 1, ..]).fill(f64::NAN);
    assert_eq!(value(&padded), value(&logits));
}

#[test]
fn labels_that_do_not_fit_have_no_path() {
    let logits = wave::<f64>((3, 2, 3), 0.0);
    // Two equal labels need a blank between them; four labels need four steps.
    for labels in [vec![1, 1, 1], vec![1, 1, 2], vec![1, 2, 1, 2]] {
        let targets = [labels, vec![2]];
        let mut ctc = Ctc::new().sum();
        let evaluated = ctc.of(&logits, &targets);
        assert_eq!(evaluated.value(), f64::INFINITY);
        let gradient = evaluated.gradient();
        assert!(gradient.slice(s![.., 0, ..]).iter().all(|d| d.is_nan()));
        assert!(gradient.slice(s![.., 1, ..]).iter().all(|d| d.is_finite()));
        let mut left_out = Ctc::new().sum().zero_infinity();
        let evaluated = left_out.of(&logits, &targets);
        assert_eq!(evaluated.value(), Ctc::new().sum().value(Sequence::from(&logits).sequences(1..2), &targets[1..]));
        assert!(evaluated.gradient().slice(s![.., 0, ..]).iter().all(|d| *d == 0.0));
    }
    // Logits of any size, and masked classes.
    for largest in [1e3, 1e30, 1e300] {
        let logits = Array3::from_shape_fn((3, 1, 3), |(t, _, k)| if k == [1, 0, 2][t] { largest } else { -largest });
        let mut ctc = Ctc::new();
        let sure = ctc.of(&logits, &[vec![1, 2]]);
        assert!(sure.value() == 0.0 && sure.gradient().iter().all(|d| *d == 0.0), "{largest}: {}", sure.value());
    }
    let masked = Array3::from_shape_fn((2, 1, 3), |(_, _, k)| if k == 2 { f64::NEG_INFINITY } else { 0.0 });
    let mut ctc = Ctc::new();
    let loss = ctc.of(&masked, &[vec![1]]);
    assert_near(loss.value(), -(0.75_f64).ln(), Within::either(1e-15), "a masked class");
    assert!(loss.gradient().iter().all(|d| d.is_finite()));
    assert_eq!(ctc.value(&masked, &[vec![2]]), f64::INFINITY);
}

#[test]
fn targets_that_are_none_are_refused() {
    let logits = wave::<f64>((3, 2, 3), 0.0);
    let refused = |blank: usize, targets: &[Vec<i64>]| {
        panic_of(|| Ctc::<f64, i64>::new().blank(blank).value(&logits, targets)) //
    };
    assert_says(&refused(0, &[vec![1]]), &["Ctc: targets (their number): expected [2], got [1]"]);
    assert_says(&refused(0, &[vec![1], vec![2, 3]]), &["labels below 3", "got 3 as label 1 of sequence 1"]);
    assert_says(&refused(0, &[vec![0], vec![]]), &["not the blank, 0", "got 0 as label 0 of sequence 0"]);
    assert_says(&refused(0, &[vec![-1], vec![]]), &["labels below 3"]);
    assert_says(&refused(3, &[vec![], vec![]]), &["Ctc: blank: expected a class below 3, got 3"]);
    assert_says(&panic_of(|| BeamSearch::new(0)), &["width: expected at least 1, got 0"]);
    assert_says(&panic_of(|| BeamSearch::new(1).blank(3).decode(&logits)), &["blank: expected a class below 3"]);
    let model = panic_of(|| BeamSearch::new(1).language_model(|_, _| f64::NAN).decode(&logits));
    assert_says(&model, &["language model"]);
}

#[test]
fn nothing_is_allocated_from_the_second_time_on() {
    let logits = wave::<f32>((9, 4, 5), 0.0);
    let targets = [vec![1, 2, 3], vec![], vec![4], vec![2, 2]];
    let mut ctc = Ctc::new();
    let _ = ctc.of(&logits, &targets);
    assert_eq!(allocations(|| assert!(ctc.of(&logits, &targets).value() > 0.0)), 0);
    assert_eq!(allocations(|| assert!(ctc.value(&logits, &targets) > 0.0)), 0);
}

/// If it can keep all prefixes, the search finds every label sequence with its probability.
#[test]
fn a_wide_search_is_exact() {
    let logits = wave::<f64>((5, 2, 3), 0.7) * 1.5;
    for blank in [0, 2] {
        let found = all_paths(&logits, 1, 4, blank);
        let y = Sequence::from(&logits).with_lengths(&[5, 4]).unwrap();
        let decoded = &BeamSearch::new(1000).blank(blank).decode(y)[1];
        assert_eq!(decoded.len(), found.len());
        for one in decoded {
            assert_near(one.score, found[&one.labels].ln(), Within::either(1e-12), &format!("{:?}", one.labels));
        }
        assert!(decoded.windows(2).all(|pair| pair[0].score >= pair[1].score));
        assert_near(
            -Ctc::<f64>::new().blank(blank).sum().value(y.sequences(1..2), &[decoded[0].labels.clone()]),
            decoded[0].score,
            Within::either(1e-12),
            "the loss of what was decoded",
        );
        // A narrow search finds the best of these here, and the greedy path's labels are among them.
        assert_eq!(BeamSearch::new(6).blank(blank).decode(y)[1][0].labels, decoded[0].labels);
        assert!(found.contains_key(&greedy(y, blank)[1]));
        // So does a search that adds few classes per step; with one class, it cannot always.
        assert_eq!(BeamSearch::new(1000).blank(blank).best_classes(2).decode(y)[1], *decoded);
    }
}

#[test]
fn a_language_model_has_its_say() {
    let logits = Array3::from_shape_fn((3, 1, 3), |(t, _, k)| if k == [1, 0, 2][t] { 2.0_f64 } else { 1.9 });
    let plain = BeamSearch::new(50).decode(&logits);
    // The first label is never 1.
    let forbids = BeamSearch::new(50)
        .language_model(|labels, next| if labels.is_empty() && next == 1 { f64::NEG_INFINITY } else { 0.0 });
    let decoded = &forbids.decode(&logits)[0];
    assert!(decoded.iter().all(|one| one.labels.first() != Some(&1)));
    let kept: Vec<_> = plain[0].iter().filter(|one| one.labels.first() != Some(&1)).cloned().collect();
    assert_eq!(decoded, &kept);
    // A bonus for each label gives longer sequences.
    let generous = BeamSearch::new(50).language_model(|_, _| 5.0).decode(&logits);
    assert_eq!(generous[0][0].labels.len(), 3);
    assert!(plain[0][0].labels.len() < 3);
    let same = plain[0].iter().find(|one| one.labels == generous[0][0].labels).unwrap();
    assert_near(generous[0][0].score, same.score + 15.0, Within::either(1e-12), "the bonus");
}
