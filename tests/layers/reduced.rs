//! Prepacked models with weights in fewer bits: what they compute, and what stays unchanged.

use allocation_counter::measure;
use gradflow::ndarray::{Array2, Array3, Axis, s};
use gradflow::rand::RngExt;
use gradflow::{
    Causal, Layer, Sequence, TensorsExt, ZerosLike,
    compose::{BoxLayer, Highway, NormedConv1d, PreNormBlock, Residual, Stacked, TemporalBlock},
    layers::{CausalConv1d, Embedding, FeedForward, Init, Linear, Nonlinearity},
    optim::{Adam, Optimizer},
    recurrent::{
        Gru, GruCell, GruReset, Lstm, LstmCell, Mgu, MguCell, MinGru, MinGruCell, MinLstm, MinLstmCell, Rnn, RnnCell,
        Slstm, SlstmCell,
    },
    stream::Stream,
    wrap::{Prepacked, WeightNorm, WeightPrecision},
};

use crate::common::{allocations, bits, lively, rng};

type F = f32;

const INPUT: usize = 33;
const REDUCED: [WeightPrecision; 3] = [WeightPrecision::Bf16, WeightPrecision::Int8, WeightPrecision::Int8Dynamic];

fn batch(steps: usize, sequences: usize) -> Array3<f32> {
    let rng = &mut rng(3);
    Array3::from_shape_simple_fn((steps, sequences, INPUT), || rng.random_range(-1.0..1.0))
}

fn infer<L: Layer<Elem = f32>>(model: &L, x: &Array3<f32>, lengths: Option<&[usize]>) -> Array3<f32> {
    let mut x = Sequence::from(x).infer();
    if let Some(lengths) = lengths {
        x = x.with_lengths(lengths).unwrap();
    }
    model.forward(x, &mut model.zero_state(x.dims().1), &mut model.cache()).to_owned()
}

/// The nearest 16-bit number to one that is neither huge nor NaN.
fn bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// `model` with `change` applied to the rows of its products' weights, to which `precision` applies.
fn with_weights<L: Layer<Elem = f32>>(model: &L, change: impl Fn(&mut [f32])) -> L {
    let mut model = model.clone();
    for i in 0..model.count() {
        let shape = model.tensor(i).0.to_vec();
        let depthwise = shape.len() == 3 && shape[1] == 1;
        if model.name(i).contains("weight") && shape.len() > 1 && !depthwise {
            model.tensor_mut(i).chunks_exact_mut(shape[1..].iter().product()).for_each(&change);
        }
    }
    model
}

fn eight_bits(row: &mut [f32]) {
    assert!(row.len() <= 512, "one block");
    let scale = row.iter().fold(0.0_f32, |largest, x| x.abs().max(largest)) / 127.0;
    row.iter_mut().filter(|_| scale > 0.0).for_each(|x| *x = (*x / scale).round_ties_even() * scale);
}

fn worst(a: &Array3<f32>, b: &Array3<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| (a - b).abs().max(worst))
}

/// The mean difference.
fn mean(a: &Array3<f32>, b: &Array3<f32>) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
}

/// Checks the results of each precision, for batches of all shapes; equal passes give equal bits, and a sequence alone gives the same
/// bits as in its batch.
fn check<L: Layer<Elem = f32>>(name: &str, model: &L) {
    let rounded = Prepacked::new(with_weights(model, |row| row.iter_mut().for_each(|x| *x = bf16(*x))));
    let scaled = Prepacked::new(with_weights(model, eight_bits));
    let full = Prepacked::new(model.clone());
    let reduced = REDUCED.map(|precision| Prepacked::with_precision(model.clone(), precision));
    for (steps, sequences) in [(1, 1), (1, 2), (1, 40), (7, 1), (7, 5), (30, 17)] {
        let x = batch(steps, sequences);
        let lengths: Vec<_> = (0..sequences).map(|b| 1 + b * 3 % steps).collect();
        for lengths in [None, Some(&lengths[..])] {
            let [sixteen, eight, dynamic] = reduced.each_ref().map(|model| infer(model, &x, lengths));
            let context = format!("{name}, {steps} steps of {sequences}, {lengths:?}");
            // A model whose weights are rounded to 16 bits computes the same, to the bit. A single row is multiplied with
            // full-precision weights in place, and its sums have another order.
            let single_rows = steps * sequences == 1 || lengths.is_some();
            let expected = infer(&rounded, &x, lengths);
            let apart = worst(&sixteen, &expected);
            assert!(
                if single_rows { apart <= 2e-5 } else { bits(&sixteen) == bits(&expected) },
                "{context}: {apart:e}"
            );
            // With weights of 8 bits, the same except for the rounding of values to 16 bits.
            let apart = worst(&eight, &infer(&scaled, &x, lengths));
            assert!(apart <= 1e-2, "{context}: {apart:e}");
            let exact = infer(&full, &x, lengths);
            let apart = [&sixteen, &eight, &dynamic].map(|y| mean(y, &exact));
            assert!(apart[0] > 0.0 && apart[1] > 0.0 && apart[2] > 0.0, "{context}: {apart:?} from the full weights");
            assert!(
                apart[0] <= 0.03 && apart[1] <= 0.05 && apart[2] <= 0.1,
                "{context}: {apart:?} from the full weights"
            );
            for (model, y) in reduced.iter().zip([&sixteen, &eight, &dynamic]) {
                assert_eq!(bits(&infer(model, &x, lengths)), bits(y), "{context}, {:?}, again", model.precision());
                for b in (0..sequences).step_by(3) {
                    let steps = lengths.map_or(steps, |lengths| lengths[b]);
                    let alone = x.slice(s![..steps, b..b + 1, ..]).to_owned();
                    let same = y.slice(s![..steps, b..b + 1, ..]).to_owned();
                    assert_eq!(bits(&infer(model, &alone, None)), bits(&same), "{context}, {b} alone");
                }
            }
        }
    }
}

/// The same for layers that can run in chunks.
fn check_causal<L: Causal<Elem = f32>>(name: &str, model: &L) {
    check(name, model);
    let x = batch(13, 3);
    for precision in REDUCED {
        let model = Prepacked::with_precision(model.clone(), precision);
        let whole = infer(&model, &x, None);
        for size in [1, 2, 5] {
            let (mut state, mut cache, mut at) = (model.zero_state(3), model.cache(), 0);
            for chunk in Sequence::from(&x).infer().chunks(size) {
                let y = model.forward(chunk, &mut state, &mut cache);
                for y in y.outer_iter() {
                    assert_eq!(y, whole.index_axis(Axis(0), at), "{name}, {precision:?}, chunks of {size}, step {at}");
                    at += 1;
                }
            }
            assert_eq!(at, 13);
        }
        // The second pass of each shape does not allocate.
        let (mut state, mut cache) = (model.zero_state(3), model.cache());
        for steps in [13, 1] {
            let x = Sequence::from(x.slice(s![..steps, .., ..])).infer();
            let mut pass = || assert_eq!(model.forward(x, &mut state, &mut cache).dim().0, steps);
            pass();
            assert_eq!(allocations(pass), 0, "{name}, {precision:?}, {steps} steps");
        }
    }
}

macro_rules! causal {
    ($($name:ident: |$input:ident, $hidden:ident| $builder:expr;)+) => {$(
        #[test]
        fn $name() {
            let builder = |$input: usize, $hidden: usize| $builder;
            let rng = &mut rng(1);
            let model = builder(INPUT, 40).build(rng);
            check_causal(stringify!($name), &model);
        }
    )+};
}

macro_rules! any {
    ($($name:ident: |$input:ident, $hidden:ident| $builder:expr;)+) => {$(
        #[test]
        fn $name() {
            let builder = |$input: usize, $hidden: usize| $builder;
            let model = builder(INPUT, 40).build(&mut rng(1));
            check(stringify!($name), &model);
        }
    )+};
}

with_cell_variants! { causal }
with_recurrent_models! { causal }
with_bidirectional_models! { any }

macro_rules! layers {
    ($($name:ident: |$rng:ident| $model:expr;)+) => {$(
        #[test]
        fn $name() {
            let $rng = &mut rng(1);
            check_causal(stringify!($name), &$model);
        }
    )+};
}

layers! {
    linear: |rng| Linear::<F>::new(INPUT, 20, rng);
    linear_of_one_output: |rng| Linear::<F>::new(INPUT, 1, rng);
    feed_forward: |rng| FeedForward::<F>::new(INPUT, 70, Nonlinearity::Gelu, rng);
    blocks: |rng| Stacked::build(3, |_| PreNormBlock::<F>::new(INPUT, 70, Nonlinearity::Gelu, rng));
    residual: |rng| Residual::new(Linear::<F>::new(INPUT, INPUT, rng));
    highway: |rng| Highway::new(Linear::<F>::new(INPUT, INPUT, rng), INPUT, rng);
    convolution: |rng| CausalConv1d::<F>::new(INPUT, 20, 3, rng);
    convolution_in_groups: |rng| CausalConv1d::<F>::builder(INPUT, 22, 2).groups(11).build(rng);
    temporal_block: |rng| TemporalBlock::<NormedConv1d<F>>::layer_norm(INPUT, 24, 3, 2, 0.3, rng);
    boxed: |rng| BoxLayer::new(Linear::<F>::new(INPUT, 20, rng));
    a_whole_model: |rng| (Gru::<F>::new(INPUT, 24, rng), Linear::<F>::new(24, 5, rng));
}

/// Hidden units are processed all at once for few rows, and 512 at a time for many.
#[test]
fn feed_forward_layers_give_a_row_the_same_bits_among_any_number() {
    const MOST: usize = 300;
    let layer = FeedForward::<f32>::new(INPUT, 1030, Nonlinearity::Gelu, &mut rng(1));
    let x = batch(1, MOST);
    for precision in REDUCED {
        let packed = Prepacked::with_precision(layer.clone(), precision);
        let all = infer(&packed, &x, None);
        for rows in [1, 2, 100, 254, 255, 256] {
            let some = infer(&packed, &x.slice(s![.., ..rows, ..]).to_owned(), None);
            assert_eq!(some, all.slice(s![.., ..rows, ..]), "{precision:?}, {rows} rows");
        }
    }
}

#[test]
fn only_products_read_fewer_bits() {
    let rng = &mut rng(1);
    // An embedding looks up rows, a depthwise convolution multiplies element by element, and a norm's weight is recomputed.
    let embedding = Embedding::<f32>::new(50, 8, rng);
    let depthwise = CausalConv1d::<f32>::builder(INPUT, INPUT, 3).groups(INPUT).build(rng);
    let normed = WeightNorm::new(Linear::<f32>::new(INPUT, 8, rng));
    let ids = Array2::from_shape_fn((3, 4), |(t, b)| (5 * t + b) as u32);
    let x = batch(3, 4);
    for precision in REDUCED {
        let packed = Prepacked::with_precision(embedding.clone(), precision);
        let ids = Sequence::from(&ids).infer();
        let y = packed.forward(ids, &mut (), &mut packed.cache()).to_owned();
        assert_eq!(y, embedding.forward(ids, &mut (), &mut embedding.cache()));
        assert_eq!(
            infer(&Prepacked::with_precision(depthwise.clone(), precision), &x, None),
            infer(&depthwise, &x, None)
        );
        assert_eq!(infer(&Prepacked::with_precision(normed.clone(), precision), &x, None), infer(&normed, &x, None));
    }
}

#[test]
fn full_is_as_without() {
    let model = LstmCell::<f32>::new(INPUT, 40, &mut rng(1));
    let (x, full) = (batch(5, 3), WeightPrecision::Full);
    let [a, b] = [Prepacked::new(model.clone()), Prepacked::with_precision(model, full)];
    assert_eq!((a.precision(), b.precision(), WeightPrecision::default()), (full, full, full));
    assert_eq!(bits(&infer(&a, &x, None)), bits(&infer(&b, &x, None)));
}

#[test]
fn training_and_evaluation_go_through_it_with_the_weights_as_they_are() {
    let model = LstmCell::<f32>::new(INPUT, 12, &mut rng(3));
    let (x, dy) = (batch(5, 4), Array3::ones((5, 4, 12)));
    fn trained<L: Layer<Elem = f32>>(model: &L, x: &Array3<f32>, dy: &Array3<f32>) -> (Vec<u64>, Vec<u64>) {
        let (mut cache, mut grad) = (model.cache(), model.zeros_like());
        let mut state = model.zero_state(4);
        let pass = model.pass(x, &mut state, &mut cache);
        let y = pass.output().to_owned();
        pass.backward(dy, &mut grad);
        (bits(&y), bits(&grad))
    }
    for precision in REDUCED {
        let packed = Prepacked::with_precision(model.clone(), precision);
        infer(&packed, &x, None);
        assert_eq!(trained(&packed, &x, &dy), trained(&model, &x, &dy), "{precision:?}");
        let evaluated = |y: &Array3<f32>| y.clone();
        let y = packed.forward(Sequence::from(&x).eval(), &mut packed.zero_state(4), &mut packed.cache()).to_owned();
        let expected =
            model.forward(Sequence::from(&x).eval(), &mut model.zero_state(4), &mut model.cache()).to_owned();
        assert_eq!(evaluated(&y), expected, "{precision:?}");
        assert_ne!(infer(&packed, &x, None), expected, "{precision:?}");
    }
}

#[test]
fn weights_that_change_are_packed_anew_in_as_many_bits() {
    let x = batch(3, 4);
    for precision in REDUCED {
        let mut model = LstmCell::<f32>::new(INPUT, 12, &mut rng(3));
        let mut packed = Prepacked::with_precision(model.clone(), precision);
        let same = |packed: &Prepacked<LstmCell<f32>>, model: &LstmCell<f32>, what: &str| {
            let fresh = Prepacked::with_precision(model.clone(), precision);
            assert_eq!(infer(packed, &x, None), infer(&fresh, &x, None), "{precision:?}, {what}");
            assert_eq!(packed.precision(), precision);
        };
        same(&packed, &model, "new");
        model.weight_hh *= 2.0;
        packed.get_mut().weight_hh *= 2.0;
        same(&packed, &model, "after get_mut");
        let mut grad = model.zeros_like();
        model.pass(&x, &mut model.zero_state(4), &mut model.cache()).backward(&Array3::ones((3, 4, 12)), &mut grad);
        let mut packed_grad = packed.zeros_like();
        let (mut state, mut cache) = (packed.zero_state(4), packed.cache());
        packed.pass(&x, &mut state, &mut cache).backward(&Array3::ones((3, 4, 12)), &mut packed_grad);
        Adam::new(0.1).step(&mut model, &grad);
        Adam::new(0.1).step(&mut packed, &packed_grad);
        same(&packed, &model, "after a step of an optimizer");
        let clone = packed.clone();
        packed.set_zero();
        assert_eq!(infer(&packed, &x, None), Array3::<f32>::zeros((3, 4, 12)));
        same(&clone, &model, "a clone");
        assert_eq!(clone.into_inner(), model);
    }
}

#[test]
fn a_cache_goes_from_precision_to_precision() {
    let model = LstmCell::<f32>::new(INPUT, 12, &mut rng(3));
    let (x, mut cache) = (batch(3, 2), model.cache());
    for precision in REDUCED.into_iter().chain([WeightPrecision::Full]).chain(REDUCED) {
        let packed = Prepacked::with_precision(model.clone(), precision);
        let y = packed.forward(Sequence::from(&x).infer(), &mut packed.zero_state(2), &mut cache).to_owned();
        assert_eq!(y, infer(&packed, &x, None), "{precision:?}");
    }
}

/// An inner layer may have its own precision.
#[test]
fn the_innermost_precision_counts() {
    let rng = &mut rng(1);
    let (inner, outer) = (LstmCell::<f32>::new(INPUT, 20, rng), Linear::<f32>::new(20, 7, rng));
    let x = batch(4, 3);
    let int8 = Prepacked::with_precision(inner, WeightPrecision::Int8);
    let expected = infer(&Prepacked::new(outer.clone()), &infer(&int8, &x, None), None);
    assert_eq!(infer(&Prepacked::new((int8, outer)), &x, None), expected);
}

#[test]
fn streams_have_the_weights_as_they_are() {
    let rng = &mut rng(1);
    // The second layer has no kernel for streams, and makes a forward pass at each step.
    let model = (LstmCell::<f32>::new(INPUT, 20, rng), LstmCell::<f32>::builder(20, 9).layer_norm().build(rng));
    let x = batch(6, 1);
    let run = |mut stream: Stream<_>| -> Vec<f32> {
        x.outer_iter().flat_map(|x| stream.push(x.as_slice().unwrap()).to_vec()).collect()
    };
    let expected = run(Stream::new(&Prepacked::new(model.clone()), INPUT).unwrap());
    for precision in REDUCED {
        assert_eq!(run(Stream::new(&Prepacked::with_precision(model.clone(), precision), INPUT).unwrap()), expected);
    }
}

#[test]
fn they_take_as_much_memory_as_they_say() {
    const H: usize = 256;
    let model = LstmCell::<f32>::new(H, H, &mut rng(1));
    let weights = 8 * H * H;
    let x = Array3::ones((1, 1, H));
    let bytes = |precision| {
        let model = Prepacked::with_precision(model.clone(), precision);
        let (mut state, mut cache) = (model.zero_state(1), model.cache());
        let first = measure(|| assert_eq!(model.step(&x, &mut state, &mut cache).dim(), (1, H))).bytes_total;
        let mut another = model.cache();
        first as i64 - measure(|| assert_eq!(model.step(&x, &mut state, &mut another).dim(), (1, H))).bytes_total as i64
    };
    bytes(WeightPrecision::Full); // allocations made once per process
    for (precision, each) in [
        (WeightPrecision::Full, 4),
        (WeightPrecision::Bf16, 2),
        (WeightPrecision::Int8, 1),
        (WeightPrecision::Int8Dynamic, 1),
    ] {
        let (found, expected) = (bytes(precision), (each * weights) as i64);
        assert!(
            (0..expected / 20 + 40_000).contains(&(found - expected)),
            "{precision:?}: {found} bytes, {expected} of weights"
        );
    }
}

/// Rows of zero weights, in each layer.
#[test]
fn weights_of_zero_give_the_bias() {
    for precision in REDUCED {
        let mut linear = Linear::<f32>::zeros(INPUT, 20);
        linear.bias.as_mut().unwrap().iter_mut().enumerate().for_each(|(k, b)| *b = k as f32);
        let bias = linear.bias.clone().unwrap();
        let y = infer(&Prepacked::with_precision(linear, precision), &batch(1, 3), None);
        assert!(y.index_axis(Axis(0), 0).outer_iter().all(|y| y == bias), "{precision:?}");
        let cell = LstmCell::<f32>::zeros(INPUT, 8);
        assert_eq!(
            infer(&Prepacked::with_precision(cell, precision), &batch(3, 2), None),
            Array3::<f32>::zeros((3, 2, 8))
        );
        // With everything else random.
        let cell = lively(LstmCell::<f32>::new(INPUT, 8, &mut rng(0)), &mut rng(1));
        assert!(infer(&Prepacked::with_precision(cell, precision), &batch(3, 2), None).iter().all(|y| y.abs() < 1.0));
    }
}
