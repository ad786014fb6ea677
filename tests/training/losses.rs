//! The losses against PyTorch's numbers and central differences, at their edges, and with invalid settings.
//!
//! PyTorch's numbers were computed once, in float64, by `torch.autograd.grad` of `cross_entropy`, `huber_loss` and
//! `binary_cross_entropy_with_logits` of `torch.nn.functional`, at the inputs below. Positions past the lengths were left out by a
//! mask.

use gradflow::ndarray::{Array2, Array3, arr2, s};
use gradflow::{
    Float, Sequence,
    loss::{BinaryCrossEntropy, Huber, Loss as _, MeanSquaredError, SoftmaxCrossEntropy},
};

use crate::common::{Within, allocations, assert_near, assert_says, evaluate, panic_of};

const SHAPE: (usize, usize, usize) = (3, 2, 4);
const LENGTHS: [usize; 2] = [3, 2];
const CLASS_WEIGHTS: [f64; 4] = [0.5, 2.0, 0.25, 1.5];
const POS_WEIGHT: [f64; 4] = [0.5, 1.0, 3.0, 10.0];
const IGNORED: usize = 9;

/// Element `i`, counted row-major, is `f(i)`.
fn grid(f: impl Fn(usize) -> f64) -> Array3<f64> {
    Array3::from_shape_vec(SHAPE, (0..24).map(f).collect()).unwrap()
}

fn logits() -> Array3<f64> {
    grid(|i| ((i * 7 % 11) as f64 - 5.0) * 0.4 + 0.1 * i as f64)
}

/// `[T, B]`, one ignored.
fn ids() -> Array2<usize> {
    arr2(&[[0, 3], [IGNORED, 1], [2, 3]])
}

fn targets() -> Array3<f64> {
    grid(|i| ((i * 5 % 7) as f64 - 3.0) * 0.5)
}

fn probabilities() -> Array3<f64> {
    grid(|i| (i * 3 % 5) as f64 * 0.25)
}

fn empty() -> Array3<f64> {
    Array3::default((0, 0, 0))
}

/// A loss of its first argument; its gradient is written to the second.
type Loss<'a> = &'a dyn Fn(&Array3<f64>, &mut Array3<f64>) -> f64;

/// Compares mean and sum at [`logits`] with PyTorch's mean, which is over `count`, and with differences.
fn check(what: &str, mean: Loss<'_>, sum: Loss<'_>, count: f64, (value, gradient): (f64, [f64; 24])) {
    for (what, loss, factor) in [(format!("mean, {what}"), mean, 1.0), (format!("sum, {what}"), sum, count)] {
        let (x, mut dx, step) = (logits(), empty(), 1e-5);
        assert_near(loss(&x, &mut dx), value * factor, Within::either(1e-14), &what);
        assert_eq!(dx.dim(), SHAPE);
        for (i, (&got, want)) in dx.iter().zip(gradient).enumerate() {
            assert_near(got, want * factor, Within::either(1e-14), &format!("gradient of element {i}, {what}"));
            let side = |step: f64| {
                let mut x = x.clone();
                x.as_slice_mut().unwrap()[i] += step;
                loss(&x, &mut empty())
            };
            let difference = (side(step) - side(-step)) / (2.0 * step);
            assert_near(got, difference, Within::either(1e-8), &format!("element {i} against differences, {what}"));
        }
    }
}

#[test]
fn cross_entropy_smoothed_and_weighted_is_pytorchs() {
    #[rustfmt::skip]
    let cases = [
        (0.0, false, 2.495913027281616, [
            -0.19793663699080255, 0.03749985927908619, 0.008367349606486083, 0.15206942810523028,
            0.0323458807388762, 0.007217341549407454, 0.13116901449985252, -0.1707322367881362, 0.0,
            0.0, 0.0, 0.0, 0.0323458807388762, -0.19278265845059256, 0.13116901449985258,
            0.029267763211863806, 0.008287001140080847, 0.1506091633965697, -0.16639455325150238,
            0.0074983887148518105, 0.09183771014638087, 0.02049176297262705, 0.004572330353805938,
            -0.11690180347281387,
        ]),
        (0.0, true, 2.36117327887707, [
            -0.08605940738730544, 0.01630428664308095, 0.0036379780897765573, 0.06611714265444793,
            0.04219027922462112, 0.009413923760096678, 0.1710900189128511, -0.22269422189756893, 0.0,
            0.0, 0.0, 0.0, 0.05625370563282816, -0.33527418860972613, 0.2281200252171349,
            0.05090045775976314, 0.001801521986974097, 0.03274112247751516, -0.03617272896771791,
            0.0016300845032286542, 0.11978831758223592, 0.026728386486035278, 0.005963909157138179,
            -0.15248061322540937,
        ]),
        (0.1, false, 2.4509130272816164, [
            -0.18293663699080254, 0.03249985927908619, 0.0033673496064860827, 0.14706942810523027,
            0.027345880738876196, 0.002217341549407454, 0.12616901449985252, -0.1557322367881362, 0.0,
            0.0, 0.0, 0.0, 0.027345880738876196, -0.17778265845059255, 0.12616901449985257,
            0.02426776321186381, 0.0032870011400808466, 0.1456091633965697, -0.15139455325150236,
            0.0024983887148518104, 0.08683771014638088, 0.01549176297262705, -0.0004276696461940624,
            -0.10190180347281386,
        ]),
        (0.1, true, 2.310547915466469, [
            -0.07943674289229036, 0.009442866716514517, 0.0029602941031372904, 0.06703358207263856,
            0.03878581637042475, 0.0004436988098474832, 0.16501293683948717, -0.20424245201975944, 0.0,
            0.0, 0.0, 0.0, 0.05144290013781108, -0.3097756023229931, 0.2163399425133426,
            0.041992759671839464, 0.0002131035892624177, 0.034686335108794535, -0.030537561534400143,
            -0.0043618771636568165, 0.1141205786092758, 0.01725315637294621, 0.004703005284982519,
            -0.1360767402672045,
        ]),
    ];
    for (epsilon, weighted, value, gradient) in cases {
        let mut loss = SoftmaxCrossEntropy::new().ignore(IGNORED).label_smoothing(epsilon);
        if weighted {
            loss = loss.class_weights(&CLASS_WEIGHTS);
        }
        let sum = loss.clone().sum();
        check(
            &format!("smoothing {epsilon}, weighted {weighted}"),
            &|x, dx| evaluate(&loss, x, &ids(), None, dx),
            &|x, dx| evaluate(&sum, x, &ids(), None, dx),
            // The weights of the ids 0, 3, 1, 2, 3.
            if weighted { 5.75 } else { 5.0 },
            (value, gradient),
        );
        // A length leaves out the same position as an ignored id.
        let (mut dx, mut want) = (empty(), empty());
        let mut ignored = ids();
        ignored[[2, 1]] = IGNORED;
        let by_id = evaluate(&loss, &logits(), &ignored, None, &mut want);
        assert_eq!(evaluate(&loss, &logits(), &ids(), Some(&LENGTHS), &mut dx), by_id);
        assert_eq!(dx, want);
    }
}

#[test]
fn huber_is_pytorchs() {
    // At no element is the error equal to delta, where the slope has a kink.
    #[rustfmt::skip]
    let cases = [
        (1.05, 1.2470625, [
            -0.025, -0.004999999999999999, -0.030000000000000006, 0.052500000000000005,
            -0.034999999999999996, -0.052500000000000005, 0.052500000000000005, 0.052500000000000005,
            -0.052500000000000005, 0.052500000000000005, 0.052500000000000005, -0.052500000000000005,
            0.052500000000000005, 0.05, 0.052500000000000005, 0.045, 0.019999999999999997,
            0.052500000000000005, 0.015000000000000003, -0.009999999999999998, 0.0, 0.0, 0.0, 0.0,
        ]),
        (0.35, 0.5131875000000001, [
            -0.017499999999999998, -0.004999999999999999, -0.017499999999999998, 0.017499999999999998,
            -0.017499999999999998, -0.017499999999999998, 0.017499999999999998, 0.017499999999999998,
            -0.017499999999999998, 0.017499999999999998, 0.017499999999999998, -0.017499999999999998,
            0.017499999999999998, 0.017499999999999998, 0.017499999999999998, 0.017499999999999998,
            0.017499999999999998, 0.017499999999999998, 0.015000000000000003, -0.009999999999999998,
            0.0, 0.0, 0.0, 0.0,
        ]),
    ];
    for (delta, value, gradient) in cases {
        let loss = Huber::new(delta);
        let sum = loss.clone().sum();
        check(
            &format!("delta {delta}"),
            &|x, dx| evaluate(&loss, x, &targets(), Some(&LENGTHS), dx),
            &|x, dx| evaluate(&sum, x, &targets(), Some(&LENGTHS), dx),
            20.0,
            (value, gradient),
        );
    }
}

#[test]
fn binary_cross_entropy_is_pytorchs() {
    #[rustfmt::skip]
    let cases = [
        (false, 0.918936049444396, [
            0.0059601461011058775, -0.0019525248687498054, 0.0052171846887102274, -0.004556148050742809,
            0.009498724056380626, 0.01659061139159169, 0.00751247554401574, 0.020909388608408307,
            -0.034498724056380624, 0.019545158940219354, 0.03228281531128977, -0.023047475131250196,
            0.03153985389889412, -0.01887703343990727, 0.023385226765077476, 0.043494576281850106,
            -0.0075656169943774, 0.03572144053636819, -0.007092553245024386, 0.0037221258405829515, 0.0,
            0.0, 0.0, 0.0,
        ]),
        (true, 1.5573383230346827, [
            0.0059601461011058775, -0.0019525248687498054, -0.01092422296693466, -0.04556148050742807,
            0.013374043042285465, 0.01659061139159169, 3.1188860039343955e-05, -0.016419487022672995,
            -0.017249362028190312, 0.019545158940219354, 0.03228281531128977, -0.262992932267189,
            0.03228487216153235, -0.01887703343990727, 0.021770453530154953, 0.043494576281850106,
            -4.101062148587631e-05, 0.03572144053636819, -0.021277659735073163, -0.09202830787679377,
            0.0, 0.0, 0.0, 0.0,
        ]),
    ];
    for (weighted, value, gradient) in cases {
        let mut loss = BinaryCrossEntropy::new();
        if weighted {
            loss = loss.pos_weight(&POS_WEIGHT);
        }
        let sum = loss.clone().sum();
        check(
            &format!("weighted {weighted}"),
            &|x, dx| evaluate(&loss, x, &probabilities(), Some(&LENGTHS), dx),
            &|x, dx| evaluate(&sum, x, &probabilities(), Some(&LENGTHS), dx),
            20.0,
            (value, gradient),
        );
    }
}

#[test]
fn smoothing_and_weights_of_nothing_change_nothing() {
    let (mut dx, mut want) = (empty(), empty());
    let plain = SoftmaxCrossEntropy::new().ignore(IGNORED);
    let value = evaluate(&plain, &logits(), &ids(), None, &mut want);
    for loss in [plain.clone().label_smoothing(0.0), plain.clone().class_weights(&[1.0; 4])] {
        assert_eq!(evaluate(&loss, &logits(), &ids(), None, &mut dx), value);
        assert_eq!(dx, want);
    }
}

#[test]
fn positions_that_do_not_count_have_no_loss_and_no_gradient() {
    let mut dx = empty();
    let loss = SoftmaxCrossEntropy::new().ignore(IGNORED).label_smoothing(0.1).class_weights(&CLASS_WEIGHTS);
    assert_eq!(evaluate(&loss, &logits(), &Array2::from_elem((3, 2), IGNORED), None, &mut dx), 0.0);
    assert!(dx.iter().all(|&d| d == 0.0));
    // A class without weight does not count either.
    let loss = SoftmaxCrossEntropy::<f64>::new().class_weights(&[0.0, 1.0, 1.0, 1.0]);
    assert_eq!(evaluate(&loss, &logits(), &Array2::zeros((3, 2)), None, &mut dx), 0.0);
    assert!(dx.iter().all(|&d| d == 0.0));

    // Padding may hold anything; NaN elsewhere is not hidden.
    let (mut z, mut t) = (logits(), targets());
    for k in 0..4 {
        (z[[2, 1, k]], t[[2, 1, k]]) = (f64::NAN, f64::INFINITY);
    }
    let (huber, binary) = (Huber::new(1.0), BinaryCrossEntropy::new());
    let smoothed = SoftmaxCrossEntropy::<f64>::new().label_smoothing(0.1);
    let ids = Array2::zeros((3, 2));
    type Evaluate<'a> = &'a dyn Fn(&Array3<f64>, Option<&[usize]>, &mut Array3<f64>) -> f64;
    let losses: [Evaluate<'_>; 3] = [
        &|z, lengths, dx| evaluate(&huber, z, &t, lengths, dx),
        &|z, lengths, dx| evaluate(&binary, z, &t, lengths, dx),
        &|z, lengths, dx| evaluate(&smoothed, z, &ids, lengths, dx),
    ];
    for loss in losses {
        assert!(loss(&z, Some(&LENGTHS), &mut dx).is_finite());
        assert!(dx.iter().all(|d| d.is_finite()) && dx[[2, 1, 0]] == 0.0);
        assert!(loss(&z, None, &mut dx).is_nan());
        let mut z = z.clone();
        z[[0, 0, 0]] = f64::NAN;
        assert!(loss(&z, Some(&LENGTHS), &mut dx).is_nan() && dx[[0, 0, 0]].is_nan() && !dx[[1, 0, 0]].is_nan());
    }
}

#[test]
fn logits_of_ten_thousand_are_safe() {
    fn check<F: Float>() {
        let z = |value: f64| Array3::from_elem((1, 1, 1), F::of(value));
        let mut dz = Array3::default((0, 0, 0));
        for (logit, target, loss, gradient) in [
            (1e4, 1.0, 0.0, 0.0),
            (1e4, 0.0, 1e4, 1.0),
            (-1e4, 0.0, 0.0, 0.0),
            (-1e4, 1.0, 2e4, -2.0),
            (1e4, 0.5, 5e3, 0.5),
            (-1e4, 0.5, 1e4, -1.0),
        ] {
            let got = evaluate(&BinaryCrossEntropy::new().pos_weight(&[2.0]), &z(logit), &z(target), None, &mut dz);
            assert_eq!((got, dz[[0, 0, 0]]), (loss, F::of(gradient)), "logit {logit}, target {target}");
        }
        let logits = Array3::from_shape_vec((1, 1, 3), [1e4, -1e4, 0.0].map(F::of).to_vec()).unwrap();
        let mut dlogits = Array3::default((0, 0, 0));
        // The targets of the two others, 0.2 and 0.1, belong to logits 2e4 and 1e4 below the largest.
        let loss = SoftmaxCrossEntropy::new().label_smoothing(0.3).class_weights(&[1.0, 2.0, 1.0]);
        assert_near(evaluate(&loss, &logits, &arr2(&[[0]]), None, &mut dlogits), 5e3, Within::either(1e-6), "smoothed");
        assert!(dlogits.iter().all(|d| d.is_finite()));
    }
    check::<f64>();
    check::<f32>();
    // A nearly certain prediction keeps its digits.
    let at = |value: f64| Array3::from_elem((1, 1, 1), value);
    for (logit, target) in [(-50.0, 0.0), (50.0, 1.0)] {
        let mut dz = empty();
        let loss = evaluate(&BinaryCrossEntropy::new(), &at(logit), &at(target), None, &mut dz);
        for got in [loss, dz[[0, 0, 0]].abs()] {
            assert!((got / (-50f64).exp() - 1.0).abs() < 1e-15, "{got:e}");
        }
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for bad in [-0.1, 1.1, f64::NAN] {
        let message = panic_of(|| SoftmaxCrossEntropy::<f64>::new().label_smoothing(bad));
        assert_says(&message, &["SoftmaxCrossEntropy", "label smoothing", "0..=1", &bad.to_string()]);
    }
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        let message = panic_of(|| SoftmaxCrossEntropy::<f64>::new().class_weights(&[1.0, bad]));
        assert_says(&message, &["SoftmaxCrossEntropy", "class weights", "finite", &bad.to_string()]);
        let message = panic_of(|| BinaryCrossEntropy::<f64>::new().pos_weight(&[1.0, bad]));
        assert_says(&message, &["BinaryCrossEntropy", "pos_weight", "finite", &bad.to_string()]);
        assert_says(&panic_of(|| Huber::<f64>::new(bad)), &["Huber", "delta", &bad.to_string()]);
    }
    assert_says(&panic_of(|| Huber::<f64>::new(0.0)), &["Huber", "delta", "a finite number above 0", "got 0"]);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let (x, other, mut dx) = (logits(), Array3::zeros((3, 2, 5)), empty());
    let weights = SoftmaxCrossEntropy::new().class_weights(&[1.0; 3]);
    let message = panic_of(|| evaluate(&weights, &x, &ids(), None, &mut dx));
    assert_says(&message, &["SoftmaxCrossEntropy", "class weights", "[4]", "[3]"]);
    let weights = SoftmaxCrossEntropy::new().class_weights(&CLASS_WEIGHTS);
    let message = panic_of(|| evaluate(&weights, &x, &ids(), None, &mut dx));
    assert_says(&message, &["SoftmaxCrossEntropy", "ids below 4", "9 at step 1 of sequence 0"]);
    let message = panic_of(|| evaluate(&BinaryCrossEntropy::new().pos_weight(&[1.0]), &x, &x, None, &mut dx));
    assert_says(&message, &["BinaryCrossEntropy", "pos_weight", "[4]", "[1]"]);
    let message = panic_of(|| evaluate(&BinaryCrossEntropy::new(), &x, &other, None, &mut dx));
    assert_says(&message, &["BinaryCrossEntropy", "target", "[3, 2, 4]", "[3, 2, 5]"]);
    let message = panic_of(|| evaluate(&Huber::new(1.0), &x, &other, None, &mut dx));
    assert_says(&message, &["Huber", "target", "[3, 2, 4]", "[3, 2, 5]"]);
    let message = panic_of(|| evaluate(&Huber::new(1.0), &x, &x, Some(&[3, 4]), &mut dx));
    assert_says(&message, &["length 4 of sequence 1 is not in 0..=3"]);
    let message = panic_of(|| evaluate(&Huber::new(1.0), &empty(), &empty(), None, &mut dx));
    assert_says(&message, &["Huber", "at least one"]);
}

#[test]
fn a_second_evaluation_allocates_nothing() {
    let (x, ids) = (logits(), ids());
    let y = Sequence::from(&x).with_lengths(&LENGTHS).unwrap();
    let mut softmax = SoftmaxCrossEntropy::new().ignore(IGNORED).label_smoothing(0.1).class_weights(&CLASS_WEIGHTS);
    let (mut binary, mut huber) = (BinaryCrossEntropy::new().pos_weight(&POS_WEIGHT), Huber::new(0.5));
    let mut evaluate = || {
        assert!(softmax.of(y, &ids).value() == softmax.value(y, &ids));
        assert!(binary.of(y, &x).value() == binary.value(y, &x));
        assert!(huber.of(y, &x).value() == huber.value(y, &x));
    };
    evaluate();
    assert_eq!(allocations(evaluate), 0);
}

#[test]
fn ignored_targets_do_not_count() {
    let y = Array3::from_shape_vec((2, 1, 2), vec![0.3, -1.2, 2.5, 0.7]).unwrap();
    for ignored in [-1.0, f64::NAN] {
        let target = Array3::from_shape_vec((2, 1, 2), vec![1.0, ignored, 0.0, ignored]).unwrap();
        let (kept_y, kept_target) = (y.slice(s![.., .., ..1]).to_owned(), target.slice(s![.., .., ..1]).to_owned());
        fn same(name: &str, [(loss, dy), (kept_loss, kept_dy)]: [(f64, Array3<f64>); 2]) {
            assert!((loss - kept_loss).abs() < 1e-15, "{name}: {loss} for {kept_loss}");
            assert_eq!(dy.slice(s![.., .., ..1]), kept_dy, "{name}");
            assert!(dy.slice(s![.., .., 1..]).iter().all(|&d| d == 0.0), "{name}");
        }
        macro_rules! check {
            ($loss:expr) => {{
                let run = |y: &Array3<f64>, target: &Array3<f64>| {
                    let mut dy = Array3::default((0, 0, 0));
                    (evaluate(&$loss, y, target, None, &mut dy), dy)
                };
                same(stringify!($loss), [run(&y, &target), run(&kept_y, &kept_target)]);
            }};
        }
        check!(MeanSquaredError::new().ignore(ignored));
        check!(MeanSquaredError::new().ignore(ignored).sum());
        check!(Huber::new(0.5).ignore(ignored));
        check!(BinaryCrossEntropy::new().ignore(ignored));
    }
}

/// Loss and gradient of one position.
fn of_logits<F: Float>(loss: SoftmaxCrossEntropy<F>, logits: &[f64], id: usize) -> (f64, Vec<f64>) {
    let logits = Array3::from_shape_fn((1, 1, logits.len()), |(.., k)| F::of(logits[k]));
    let mut gradient = Array3::default((0, 0, 0));
    let value = evaluate(&loss, &logits, &arr2(&[[id]]), None, &mut gradient);
    assert_eq!(loss.value(&logits, &arr2(&[[id]])).to_bits(), value.to_bits(), "the value alone");
    (value, gradient.iter().map(|slope| slope.widen()).collect())
}

const DIGITS: Within = Within::relative(1e-14);
const DIGITS_F32: Within = Within::relative(3e-7);

#[test]
fn cross_entropy_of_the_largest_logits_is_finite() {
    let plain = SoftmaxCrossEntropy::<f32>::new;
    let far = [3e38, -3e38];
    let widened = f64::from(3e38_f32);
    assert_eq!(of_logits(plain(), &far, 1), (2.0 * widened, vec![1.0, -1.0]));
    assert_eq!(of_logits(plain(), &far, 0), (0.0, vec![0.0, 0.0]));
    assert_eq!(of_logits(plain().class_weights(&[1.0, 0.0]), &far, 1), (0.0, vec![0.0, 0.0]));
    assert_eq!(of_logits(plain().sum().class_weights(&[1.0, 0.0]), &far, 1), (0.0, vec![0.0, 0.0]));
    let (loss, slopes) = of_logits(plain().label_smoothing(0.1), &far, 0);
    assert_near(loss, 0.05 * 2.0 * widened, DIGITS, "smoothing 0.1");
    assert_near(slopes[0], 0.05, DIGITS_F32, "smoothing 0.1");
    let (loss, _) = of_logits(plain().label_smoothing(1.0), &[3e38, 3e38, -3e38], 2);
    assert_near(loss, 2.0 * widened / 3.0, DIGITS, "smoothing 1");

    // In f64 computed by halves, since the difference itself is infinite.
    let plain = SoftmaxCrossEntropy::<f64>::new;
    let far = [1.5e308, -1.5e308];
    assert_near(of_logits(plain().label_smoothing(0.1), &far, 0).0, 1.5e307, DIGITS, "smoothing 0.1");
    assert_near(of_logits(plain().sum().class_weights(&[1.0, 0.25]), &far, 1).0, 7.5e307, DIGITS, "weight 1/4");
    assert_eq!(of_logits(plain(), &far, 1).0, f64::INFINITY, "3e308 is no f64");
    // A mean of losses whose sum is infinite.
    let logits = Array3::from_shape_fn((4, 1, 2), |(.., k)| if k == 0 { 1.2e308 } else { 0.0 });
    let ids = Array2::ones((4, 1));
    let loss = evaluate(&plain(), &logits, &ids, None, &mut empty());
    assert_near(loss, 1.2e308, DIGITS, "the mean of four");
    let loss = evaluate(&plain().class_weights(&[1.0, 0.1]), &logits, &ids, None, &mut empty());
    assert_near(loss, 1.2e308, DIGITS, "the weighted mean of four");
}

#[test]
fn cross_entropy_of_a_sure_prediction_keeps_its_digits() {
    for gap in [0.0_f64, 1.0, 10.0, 17.0, 30.0, 40.0, 80.0] {
        let want = (-gap).exp().ln_1p();
        let (loss, slopes) = of_logits(SoftmaxCrossEntropy::<f64>::new(), &[gap, 0.0], 0);
        assert_near(loss, want, DIGITS, &format!("gap {gap}"));
        let p = (-gap).exp() / (1.0 + (-gap).exp());
        for (got, want) in slopes.iter().zip([-p, p]) {
            assert_near(*got, want, DIGITS, &format!("gradient, gap {gap}"));
        }
        let (loss, slopes) = of_logits(SoftmaxCrossEntropy::<f32>::new(), &[gap, 0.0], 0);
        assert_near(loss, want, DIGITS_F32, &format!("gap {gap}, f32"));
        for (got, want) in slopes.iter().zip([-p, p]) {
            assert_near(*got, want, DIGITS_F32, &format!("gradient, gap {gap}, f32"));
        }
        // For the other class, nothing is small.
        let (loss, _) = of_logits(SoftmaxCrossEntropy::<f64>::new(), &[gap, 0.0], 1);
        assert_near(loss, gap + want, DIGITS, &format!("the other class, gap {gap}"));
    }
    // With weights and smoothing, whose gradients add up to 0.
    let loss = SoftmaxCrossEntropy::<f64>::new().class_weights(&[2.0, 0.5, 1.0]).label_smoothing(0.2);
    let (_, slopes) = of_logits(loss, &[30.0, 2.0, -1.0], 0);
    assert!(slopes.iter().sum::<f64>().abs() < 1e-16, "{slopes:?}");
}

#[test]
fn a_logit_of_minus_infinity_masks_a_class() {
    let masked = [1.0, f64::NEG_INFINITY, 0.5];
    let two = of_logits(SoftmaxCrossEntropy::<f64>::new(), &[1.0, 0.5], 0);
    let (loss, slopes) = of_logits(SoftmaxCrossEntropy::<f64>::new(), &masked, 0);
    assert_near(loss, two.0, DIGITS, "the classes that are left");
    assert_eq!(slopes, [two.1[0], 0.0, two.1[1]]);

    // With weight 0, the masked class adds nothing, with smoothing or as an id.
    let weights = [1.0, 0.0, 2.0];
    let smoothed = || SoftmaxCrossEntropy::<f64>::new().class_weights(&weights).label_smoothing(0.3);
    for id in [0, 1, 2] {
        let (loss, slopes) = of_logits(smoothed().sum(), &masked, id);
        assert!(loss.is_finite() && slopes.iter().all(|slope| slope.is_finite()), "id {id}: {loss}, {slopes:?}");
        assert_eq!(slopes[1], 0.0);
    }
    assert_eq!(of_logits(SoftmaxCrossEntropy::<f64>::new().class_weights(&weights), &masked, 1).0, 0.0);
    // A class with probability 0 that counts: infinity, as in PyTorch.
    for loss in [SoftmaxCrossEntropy::<f64>::new().label_smoothing(0.3), SoftmaxCrossEntropy::new()] {
        let (loss, slopes) = of_logits(loss, &masked, 1);
        assert!(loss == f64::INFINITY && slopes.iter().all(|slope| slope.is_finite()), "{loss}, {slopes:?}");
    }
    // No id has a weight, so the mean is 0, although smoothing gives the masked class one.
    let (loss, slopes) = of_logits(smoothed(), &[1.0, 0.5, f64::NEG_INFINITY], 1);
    assert_eq!((loss, slopes), (0.0, vec![0.0; 3]));
    // No weight hides NaN.
    assert!(of_logits(smoothed(), &[1.0, f64::NAN, 0.5], 0).0.is_nan());
    assert!(of_logits(SoftmaxCrossEntropy::<f64>::new().class_weights(&weights), &[1.0, 0.0, f64::NAN], 1).0.is_nan());
}

#[test]
fn binary_cross_entropy_of_any_logit() {
    fn of<F: Float>(loss: BinaryCrossEntropy<F>, z: f64, y: f64) -> (f64, f64) {
        let (z, y) = (Array3::from_elem((1, 1, 1), F::of(z)), Array3::from_elem((1, 1, 1), F::of(y)));
        let mut gradient = Array3::default((0, 0, 0));
        let value = evaluate(&loss, &z, &y, None, &mut gradient);
        (value, gradient[[0, 0, 0]].widen())
    }
    let new = BinaryCrossEntropy::<f64>::new;
    for z in [1.0, 30.0, 40.0, 300.0, 700.0] {
        for (z, y) in [(z, 1.0), (-z, 0.0)] {
            let (loss, slope) = of(new(), z, y);
            assert_near(loss, (-z.abs()).exp().ln_1p(), DIGITS, &format!("{z}, {y}"));
            assert_near(
                slope.abs(),
                (-z.abs()).exp() / (1.0 + (-z.abs()).exp()),
                DIGITS,
                &format!("slope at {z}, {y}"),
            );
        }
    }
    for (z, y, want) in
        [(1.7e308, 0.0, 1.7e308), (-1.7e308, 1.0, 1.7e308), (1.7e308, 1.0, 0.0), (-1.7e308, 0.5, 0.85e308)]
    {
        assert_near(of(new(), z, y).0, want, DIGITS, &format!("{z}, {y}"));
    }
    assert_eq!(of(BinaryCrossEntropy::<f32>::new(), 3e38, 0.0).0, f64::from(3e38_f32));
    // Certain predictions: right, wrong, and without weight.
    let (yes, no) = (f64::INFINITY, f64::NEG_INFINITY);
    assert_eq!((of(new(), yes, 1.0), of(new(), no, 0.0)), ((0.0, 0.0), (0.0, 0.0)));
    assert_eq!((of(new(), yes, 0.0), of(new(), no, 1.0)), ((f64::INFINITY, 1.0), (f64::INFINITY, -1.0)));
    assert_eq!(of(new().pos_weight(&[0.0]), no, 1.0), (0.0, 0.0));
    assert!(of(new().pos_weight(&[0.0]), f64::NAN, 1.0).0.is_nan());
    // A mean whose sum would be infinite.
    let (z, y) = (Array3::from_elem((1, 1, 3), 1.5e308), Array3::zeros((1, 1, 3)));
    assert_near(evaluate(&new(), &z, &y, None, &mut empty()), 1.5e308, DIGITS, "the mean of three");
}
