//! Large batches on several threads: the number of threads changes no bit, and shards equal the whole batch.

#[path = "../common/mod.rs"]
mod common;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gradflow::ndarray::{Array1, Array2, Array3, ArrayView3, Axis, concatenate, s};
use gradflow::rand::{RngExt, rngs::StdRng};
use gradflow::{
    Float, Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    author::{Cell, CellSizes, CellStep, CellStepBackward, Gradient},
    clip::ClipNorm,
    compose::{PreNormBlock, Stacked},
    layers::{Dropout, Linear, Nonlinearity},
    loss::{Loss as _, SoftmaxCrossEntropy},
    optim::{AdamW, Optimizer, RmsProp, Sgd},
    parameters,
    recurrent::{CellBuilder, GruCell, Lstm, LstmCell, RnnCell},
    wrap::{Bidirectional, GradientProbe, Merge, Probed, WeightDrop},
};

use common::failing::{FailingCell, Fuse};
use common::{assert_says, panic_of, panics, rng};

const STEPS: usize = 9;
const BATCH: usize = 70;
const INPUT: usize = 24;

fn batch<F: Float>(features: usize) -> Array3<F> {
    let rng = &mut rng(0);
    Array3::from_shape_simple_fn((STEPS, BATCH, features), || F::of(rng.random_range(-1.0..1.0)))
}

fn lengths() -> Vec<usize> {
    (0..BATCH).map(|b| 1 + b * 5 % STEPS).collect()
}

/// All results of a pass: the output, the final state, dL/dx, and the gradients of the parameters and of the initial state.
#[derive(Debug, PartialEq)]
struct Results<F> {
    y: Array3<F>,
    dx: Array3<F>,
    tensors: Vec<Vec<F>>,
}

fn run<L: Layer>(layer: &L, x: Sequence<'_, L::Elem>, dy: ArrayView3<'_, L::Elem>) -> Results<L::Elem> {
    let (_, batch) = x.dims();
    let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
    let (mut y, mut dx) = (Array3::default((0, 0, 0)), Array3::default((0, 0, 0)));
    let mut state = layer.zero_state(batch);
    for _ in 0..2 {
        // The second time, the buffers are in use and the state is not zero.
        grad.set_zero();
        let before = state.clone();
        y = layer.forward(x, &mut state, &mut cache).to_owned();
        let mut dstate = before.clone();
        dx = layer.backward(x, &dy, Some(&mut dstate), &mut cache, &mut grad).to_owned();
        let mut overwritten = layer.zeros_like();
        (0..grad.count()).for_each(|i| overwritten.tensor_mut(i).fill(L::Elem::of(f64::NAN)));
        layer.forward(x, &mut before.clone(), &mut cache);
        layer.backward(x, &dy, Some(&mut before.clone()), &mut cache, Gradient::overwrite(&mut overwritten));
        for i in 0..grad.count() {
            assert_eq!(overwritten.values(i), grad.values(i), "{}, overwritten", grad.name(i));
        }
        if dstate.count() > 0 {
            assert!(dstate.values(0).iter().all(|value| value.widen().is_finite()));
        }
    }
    for i in 0..grad.count() {
        assert!(grad.values(i).iter().any(|&value| value != L::Elem::of(0.0)), "{} has no gradient", grad.name(i));
    }
    let values = |tensors: &dyn Tensors<L::Elem>| (0..tensors.count()).map(|i| tensors.tensor(i).1.to_vec()).collect();
    let mut tensors: Vec<_> = values(&grad);
    tensors.extend::<Vec<_>>(values(&state));
    Results { y, dx, tensors }
}

fn in_pool<R: Send>(threads: usize, job: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(job)
}

fn check<L: Layer>(name: &str, layer: L) {
    check_part(name, layer, 0..STEPS, 0..BATCH);
}

/// Checks some of the steps and sequences.
fn check_part<L: Layer>(name: &str, layer: L, steps: Range<usize>, sequences: Range<usize>) {
    let (x, lengths) = (batch(INPUT), lengths());
    let dy = batch::<L::Elem>(layer.output_size(INPUT.into()).expect("a layer of this size"));
    let dy = dy.slice(s![steps.clone(), sequences.clone(), ..]);
    let marks = |rng: &mut StdRng, share| Array2::from_shape_simple_fn((STEPS, BATCH), || rng.random_bool(share));
    let (mut mask, resets) = (marks(&mut rng(1), 0.8), marks(&mut rng(2), 0.2));
    mask.row_mut(0).fill(true);
    let plain = Sequence::from(&x).train(7);
    let packed = plain.with_lengths(&lengths).expect("lengths that fit");
    for sequence in [plain, packed, packed.with_mask(&mask).with_resets(&resets)] {
        let sequence = sequence.steps(steps.clone()).sequences(sequences.clone());
        let alone = in_pool(1, || run(&layer, sequence, dy.view()));
        for threads in [2, 3, 5] {
            assert_eq!(in_pool(threads, || run(&layer, sequence, dy.view())), alone, "{name}, {threads} threads");
        }
        // A thread outside the pool uses the global pool.
        assert_eq!(run(&layer, sequence, dy.view()), alone, "{name}, from outside");
    }
}

fn lstm<F: Float>() -> CellBuilder<LstmCell<F>> {
    LstmCell::builder(INPUT, 64)
}

/// Takes `name: layer;`, with `rng` as random number generator: a test for each.
macro_rules! layers {
    ($($name:ident: |$rng:ident| $layer:expr;)+) => {$(
        #[test]
        fn $name() {
            let $rng = &mut rng(0);
            check(stringify!($name), $layer);
        }
    )+};
}

/// The number of threads changes no bit of a split batch, nor of products, activations and normalisations.
mod the_number_of_threads_changes_no_bit {
    use super::*;

    layers! {
        rnn: |rng| RnnCell::<f32>::new(INPUT, 128, rng);
        rnn_whose_gradient_is_summed_by_parts: |rng| RnnCell::<f32>::new(INPUT, 300, rng);
        gru: |rng| GruCell::<f32>::new(INPUT, 64, rng);
        lstm_f32: |rng| lstm::<f32>().build(rng);
        lstm_f64: |rng| lstm::<f64>().build(rng);
        lstm_with_options: |rng|
            lstm::<f32>().peepholes().layer_norm().recurrent_dropout(0.3).zoneout(0.1, 0.2).build(rng);
        both_directions: |rng| Lstm::<f32>::builder(INPUT, 64).num_layers(2).dropout(0.2).bidirectional().build(rng);
        a_model: |rng| (Dropout::new(0.2, rng), lstm::<f32>().build(rng), Linear::new(64, 300, rng));
        weight_drop: |rng| WeightDrop::new(Lstm::<f32>::builder(INPUT, 64).num_layers(2).build(rng), 0.5, rng);
        product_of_directions: |rng|
            Bidirectional::new(lstm::<f32>().build(rng), lstm::<f32>().build(rng)).merge(Merge::Multiply);
        residual_blocks: |rng|
            Stacked::build(2, |_| PreNormBlock::<f32>::new(INPUT, 600, Nonlinearity::Gelu, rng));
    }

    #[test]
    fn few_sequences() {
        check_part("few sequences", LstmCell::<f32>::new(INPUT, 300, &mut rng(0)), 0..STEPS, 0..6);
    }

    #[test]
    fn one_sequence() {
        check_part("one sequence", GruCell::<f64>::new(INPUT, 300, &mut rng(0)), 0..STEPS, 0..1);
    }

    #[test]
    fn one_step() {
        check_part("one step", LstmCell::<f32>::new(INPUT, 300, &mut rng(0)), 0..1, 0..BATCH);
    }

    #[test]
    fn a_block_of_few_rows() {
        let block = PreNormBlock::<f64>::new(INPUT, 3000, Nonlinearity::Tanh, &mut rng(0));
        check_part("a block of few rows", block, 0..2, 0..BATCH);
    }

    fn check_bits<R: PartialEq + std::fmt::Debug + Send>(job: impl Fn() -> R + Sync) {
        let alone = in_pool(1, &job);
        for threads in [2, 3, 5] {
            assert_eq!(in_pool(threads, &job), alone, "{threads} threads");
        }
    }

    #[test]
    fn a_loss_of_many_classes() {
        let (logits, ids) = (batch::<f32>(900), Array2::from_shape_fn((STEPS, BATCH), |(t, b)| (7 * t + 31 * b) % 900));
        for cross_entropy in [SoftmaxCrossEntropy::new(), SoftmaxCrossEntropy::new().ignore(31).label_smoothing(0.1)] {
            check_bits(|| {
                let mut cross_entropy = cross_entropy.clone();
                let lengths = lengths();
                let y = Sequence::from(&logits).with_lengths(&lengths).expect("lengths that fit");
                let value = cross_entropy.value(y, &ids);
                let loss = cross_entropy.of(y, &ids);
                assert_eq!(loss.value().to_bits(), value.to_bits());
                (value.to_bits(), loss.gradient().mapv(f32::to_bits))
            });
        }
    }

    /// Rules with zero to three moments.
    #[test]
    fn optimizers() {
        fn check<O: Optimizer<f32>>(new: impl Fn() -> O + Sync) {
            check_bits(|| {
                let (mut optimizer, rng) = (new(), &mut rng(0));
                let mut draw = || Array1::from_shape_simple_fn(300_001, || rng.random_range(-1.0..1.0f32));
                let mut parameters = draw();
                for clip in [None, Some(ClipNorm::new(0.1)), None] {
                    let grad = draw();
                    match clip {
                        None => optimizer.step(&mut parameters, &grad),
                        Some(clip) => {
                            drop(optimizer.step_clipped(&mut parameters, &grad, clip).expect("a finite norm"))
                        }
                    }
                }
                parameters.mapv(f32::to_bits)
            });
        }
        check(|| Sgd::new(0.1));
        check(|| Sgd::new(0.1).momentum(0.9));
        check(|| AdamW::new(0.1));
        check(|| RmsProp::new(0.1).momentum(0.9).centered());
    }
}

/// Wherever the value is, and whichever thread finds it, the step panics and no parameter becomes NaN.
#[test]
fn a_gradient_that_is_not_finite_is_refused_on_several_threads() {
    for place in [0, 150_000, 300_000] {
        let mut grad = Array1::<f32>::ones(300_001);
        grad[place] = f32::NAN;
        let message = in_pool(3, || panic_of(|| Sgd::new(0.1).step(&mut Array1::ones(300_001), &grad)));
        assert_says(&message, &["Sgd", "not finite"]);
        let mut parameters = Array1::<f32>::ones(300_001);
        in_pool(3, || catch_unwind(AssertUnwindSafe(|| Sgd::new(0.1).step(&mut parameters, &grad)))).unwrap_err();
        assert!(parameters.iter().all(|value| value.is_finite()));
    }
}

/// Batches that are too small to be split give the same results as one batch that is split.
#[test]
fn shards_are_given_what_the_whole_batch_is() {
    let cell = lstm::<f64>().recurrent_dropout(0.3).zoneout(0.1, 0.2).build(&mut rng(0));
    let (x, dy) = (batch(INPUT), batch::<f64>(64));
    let whole = run(&cell, Sequence::from(&x).train(3), dy.view());
    let parts = [0..15, 15..28, 28..42, 42..56, 56..BATCH]
        .map(|part| run(&cell, Sequence::from(&x).train(3).sequences(part.clone()), dy.slice(s![.., part, ..])));
    let join = |of: fn(&Results<f64>) -> ArrayView3<'_, f64>| {
        concatenate(Axis(1), &parts.iter().map(of).collect::<Vec<_>>()).expect("parts of a batch")
    };
    assert_eq!(whole.y, join(|part| part.y.view()));
    assert_eq!(whole.dx, join(|part| part.dx.view()));
    for (i, gradient) in whole.tensors[..cell.count()].iter().enumerate() {
        for (k, value) in gradient.iter().enumerate() {
            let sum: f64 = parts.iter().map(|part| part.tensors[i][k]).sum();
            assert!((value - sum).abs() <= 1e-12 * value.abs().max(1.0), "{}: {value} {sum}", cell.name(i));
        }
    }
}

#[test]
fn a_probe_sees_all_shards() {
    let (x, dy) = (batch(INPUT), batch::<f64>(64));
    let norms = |parts: &[std::ops::Range<usize>]| {
        let mut squares = [[0.0; 2]; STEPS];
        for part in parts {
            let probe = GradientProbe::new();
            probe.record(true);
            let cell = Probed::recurrent("lstm", lstm::<f64>().build(&mut rng(0)), &probe);
            run(&cell, Sequence::from(&x).sequences(part.clone()), dy.slice(s![.., part.clone(), ..]));
            let flow = probe.flow();
            let layer = &flow.layers[0];
            for (sums, norms) in squares.iter_mut().zip(layer.hidden.iter().zip(&layer.memory)) {
                sums[0] += norms.0.powi(2);
                sums[1] += norms.1.powi(2);
            }
        }
        squares.concat()
    };
    let (whole, parts) = (norms(std::slice::from_ref(&(0..BATCH))), norms(&[0..15, 15..28, 28..42, 42..56, 56..BATCH]));
    assert!(whole.iter().zip(&parts).all(|(a, b)| *a > 0.0 && (a - b).abs() <= 1e-12 * a), "{whole:?} {parts:?}");
}

#[test]
#[should_panic(expected = "stale cache")]
fn a_stale_cache_is_refused() {
    let cell = lstm::<f32>().build(&mut rng(0));
    let (x, dy, mut cache) = (batch(INPUT), batch(64), cell.cache());
    cell.forward(&x, &mut cell.zero_state(BATCH), &mut cache);
    let other = x.mapv(|x| x + 1.0);
    cell.backward(&other, &dy, None, &mut cache, &mut cell.zeros_like());
}

#[test]
#[should_panic(expected = "LstmCell: state.h")]
fn a_wrong_state_is_named() {
    let cell = lstm::<f32>().build(&mut rng(0));
    let x = batch(INPUT);
    cell.forward(&x, &mut cell.zero_state(BATCH + 1), &mut cell.cache());
}

/// `h_t = W x_t`, without a backward pass.
#[derive(Clone)]
struct OneWay {
    weight: Array2<f64>,
}
parameters! { impl Tensors<f64> for OneWay { weight } }

impl Cell for OneWay {
    type Elem = f64;
    type State = Array2<f64>;
    type Buffers = ();

    fn sizes(&self) -> CellSizes {
        CellSizes { name: "OneWay", input: self.weight.ncols(), output: self.weight.nrows(), memory: 0 }
    }

    fn initial_state(&self, batch: usize) -> Array2<f64> {
        Array2::zeros((batch, self.weight.nrows()))
    }

    fn forward_step(&self, mut step: CellStep<'_, f64>, _: &mut ()) {
        step.h.assign(&step.x.dot(&self.weight.t()));
    }

    fn backward_step(&self, step: CellStepBackward<'_, f64>, _: &mut (), grad: &mut Self) {
        grad.weight += &step.dh.t().dot(&step.x);
        panic!("no way back");
    }
}

#[test]
fn a_panic_in_a_shard_leaves_the_gradient_where_it_was() {
    let layer = OneWay { weight: Array2::ones((160, 160)) };
    let (x, mut cache, mut grad) = (batch(160), layer.cache(), layer.zeros_like());
    let place = grad.weight.as_ptr();
    layer.forward(&x, &mut layer.zero_state(BATCH), &mut cache);
    let backward = || {
        layer.backward(&x, &x, None, &mut cache, &mut grad);
    };
    let payload = catch_unwind(AssertUnwindSafe(backward)).expect_err("a panic");
    assert_eq!(payload.downcast_ref(), Some(&"no way back"));
    assert_eq!(grad.weight.as_ptr(), place);
    assert!(grad.weight.iter().any(|&value| value != 0.0));
}

/// A cell that panics at some call of a pass on several threads: no backward pass is accepted, and the next forward pass in the same
/// cache gives the same results as in a new one.
#[test]
fn a_panic_in_a_shard_leaves_no_cache_that_is_accepted() {
    let fuse = Fuse::new();
    let weight = Array2::from_shape_fn((160, 160), |(i, j)| ((i + 2 * j) as f64).sin() / 20.0);
    let layer = FailingCell { weight, fuse: fuse.clone() };
    let (x, dy) = (batch(160), batch::<f64>(160));
    let pass = |cache: &mut _| {
        let (mut state, mut grad) = (layer.zero_state(BATCH), layer.zeros_like());
        let y = layer.forward(&x, &mut state, cache).to_owned();
        let dx = layer.backward(&x, &dy, None, cache, &mut grad).to_owned();
        (y, dx, grad.weight)
    };
    let check = || {
        let want = pass(&mut layer.cache());
        for call in [0, 1, 2, 5, 17, 21] {
            let mut cache = layer.cache();
            layer.forward(&x, &mut layer.zero_state(BATCH), &mut cache);
            fuse.arm(Some(call));
            assert!(
                panics(&mut || drop(layer.forward(&x, &mut layer.zero_state(BATCH), &mut cache).to_owned())),
                "{call}"
            );
            fuse.arm(None);
            let message = panic_of(|| layer.backward(&x, &dy, None, &mut cache, &mut layer.zeros_like()).to_owned());
            assert_says(&message, &["FailingCell: cache", "a stale cache"]);
            assert_eq!(pass(&mut cache), want, "after a panic in call {call}");
        }
    };
    check();
    in_pool(3, check);
}
