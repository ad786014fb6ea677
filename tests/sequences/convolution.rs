//! Convolutions in time: against plain loops, with a stride, in chunks, and from both ends.

use gradflow::layers::{CausalConv1d, Linear};
use gradflow::ndarray::{Array3, Axis, concatenate, s};
use gradflow::wrap::{Bidirectional, Prepacked, WeightNorm};
use gradflow::{Layer, Sequence, TensorsExt, ZerosLike};

use crate::common::{Within, assert_all_near, rng, wave};

const LENGTHS: [usize; 3] = [11, 4, 7];

/// `y_t = b + Σ_j W_j x_{t - (K-1-j) d}` over the valid steps, term by term; zeros before the first.
fn by_loops(conv: &CausalConv1d<f64>, x: &Array3<f64>, lengths: &[usize], stride: usize) -> Array3<f64> {
    let (steps, batch, _) = x.dim();
    let (output, reads, kernel) = conv.weight.dim();
    let mut y = Array3::zeros((steps.div_ceil(stride), batch, output));
    for ((t, b, o), y) in y.indexed_iter_mut() {
        let t = t * stride;
        if t >= lengths[b] {
            continue;
        }
        *y = conv.bias.as_ref().map_or(0.0, |bias| bias[o]);
        let group = o / (output / conv.groups());
        for (k, j) in (0..reads).flat_map(|k| (0..kernel).map(move |j| (k, j))) {
            if let Some(t) = t.checked_sub((kernel - 1 - j) * conv.dilation()) {
                *y += conv.weight[[o, k, j]] * x[[t, b, group * reads + k]];
            }
        }
    }
    y
}

fn near(got: &Array3<f64>, want: &Array3<f64>, what: &str) {
    assert_eq!(got.dim(), want.dim(), "{what}");
    let values = |array: &Array3<f64>| array.iter().copied().collect::<Vec<_>>();
    assert_all_near(&values(got), &values(want), Within::either(1e-13), what);
}

fn output<L: Layer<Elem = f64>>(layer: &L, x: Sequence<'_, f64>) -> Array3<f64> {
    layer.forward(x, &mut layer.zero_state(x.dims().1), &mut layer.cache()).to_owned()
}

/// One in seven of the widths for which the kernels have special code, and blocks of several hundred rows.
#[test]
fn outputs_are_those_of_plain_loops() {
    let rng = &mut rng(1);
    for (input, features, kernel, dilation, groups) in [
        (1, 1, 1, 1, 1),
        (2, 3, 2, 1, 1),
        (3, 5, 3, 2, 1),
        (4, 6, 4, 3, 2),
        (6, 3, 5, 1, 3),
        (5, 5, 7, 2, 5),
        (3, 6, 3, 1, 3),
        (2, 4, 11, 1, 1),
        (40, 8, 9, 2, 1),
    ] {
        for bias in [true, false] {
            let builder = CausalConv1d::builder(input, features, kernel).dilation(dilation).groups(groups);
            let conv = builder.bias(bias).build(rng);
            let what = format!("{input} to {features} by {kernel}, dilation {dilation}, {groups} groups");
            let x = wave((150, 3, input), 0.4);
            near(&output(&conv, (&x).into()), &by_loops(&conv, &x, &[150; 3], 1), &what);
            for stride in [1, 2, 5] {
                let strided = conv.clone().strided(stride);
                let x = wave((11, 3, input), 0.9);
                let all = by_loops(&conv, &x, &LENGTHS, stride);
                let with_lengths = Sequence::from(&x).with_lengths(&LENGTHS).unwrap();
                near(&output(&strided, with_lengths), &all, &format!("{what}, stride {stride}"));
            }
        }
    }
}

/// In chunks that begin at multiples of its stride, a layer passes on state and gradients as over the whole sequence.
#[test]
fn strided_convolutions_run_in_chunks() {
    let rng = &mut rng(2);
    let layer = CausalConv1d::<f64>::builder(3, 4, 3).dilation(2).build(rng).strided(3);
    let x = wave((11, 3, 3), 0.2);
    let x = Sequence::from(&x).with_lengths(&LENGTHS).unwrap();
    let start = wave((4, 3, 3), 1.7);
    let (mut state, mut cache, mut grad) = (start.clone(), layer.cache(), layer.zeros_like());
    let y = layer.forward(x, &mut state, &mut cache).to_owned();
    let (dy, mut dstate) = (wave(y.dim(), 2.2), wave(state.dim(), 0.5));
    let last = dstate.clone();
    let dx = layer.backward(x, &dy, Some(&mut dstate), &mut cache, &mut grad).to_owned();

    for cut in [3, 6, 9] {
        let chunks = [x.steps(0..cut), x.steps(cut..11)];
        let (mut moved, mut caches) = (start.clone(), [layer.cache(), layer.cache()]);
        let parts: Vec<_> =
            chunks.iter().zip(&mut caches).map(|(x, cache)| layer.forward(x, &mut moved, cache).to_owned()).collect();
        near(&concatenate![Axis(0), parts[0], parts[1]], &y, "y in chunks");
        near(&moved, &state, "the state after chunks");
        let (mut dmoved, mut dgrad) = (last.clone(), layer.zeros_like());
        let [first, second] = &mut caches;
        let (before, after) = dy.view().split_at(Axis(0), cut / 3);
        let dx_after = layer.backward(chunks[1], &after, Some(&mut dmoved), second, &mut dgrad).to_owned();
        let dx_before = layer.backward(chunks[0], &before, Some(&mut dmoved), first, &mut dgrad).to_owned();
        near(&concatenate![Axis(0), dx_before, dx_after], &dx, "dL/dx in chunks");
        near(&dmoved, &dstate, "the gradient of the state");
        assert_all_near(dgrad.values(0), grad.values(0), Within::either(1e-13), "dL/dW in chunks");
        assert_all_near(dgrad.values(1), grad.values(1), Within::either(1e-13), "dL/db in chunks");
    }
}

/// The next layer gets the lengths of the shortened sequences, also for a chunk.
#[test]
fn a_stride_divides_lengths() {
    let rng = &mut rng(3);
    let layer = CausalConv1d::<f64>::new(2, 2, 3, rng).strided(2);
    let model = (layer.clone(), layer.clone());
    let x = wave((11, 3, 2), 0.2);
    let whole = Sequence::from(&x).with_lengths(&LENGTHS).unwrap();
    for (x, expected) in [(whole, [6, 2, 4]), (whole.steps(4..11), [4, 0, 2]), (whole.sequences(1..3), [2, 4, 0])] {
        let y = output(&layer, x);
        let y = layer.output_sequence(&x, y.view());
        let lengths: Vec<_> = (0..y.dims().1).map(|b| y.length(b)).collect();
        assert_eq!(lengths, expected[..y.dims().1]);
        assert_eq!(y.first_step(), x.first_step() / 2);
        let y = output(&model, x);
        let y = model.output_sequence(&x, y.view());
        let lengths: Vec<_> = (0..y.dims().1).map(|b| y.length(b)).collect();
        assert_eq!(lengths, expected[..y.dims().1].iter().map(|length: &usize| length.div_ceil(2)).collect::<Vec<_>>());
        // A chunk of a shortened sequence.
        assert_eq!(y.steps(1..2).length(0), lengths[0].saturating_sub(1).min(1));
    }
}

/// The reverse direction reads each sequence's steps from last to first.
#[test]
fn the_reverse_direction_is_the_forward_one_of_sequences_turned_round() {
    let rng = &mut rng(4);
    let mut conv = || CausalConv1d::<f64>::builder(3, 2, 3).dilation(2).build(rng);
    let both = Bidirectional::new(conv(), conv());
    let x = wave((11, 3, 3), 0.2);
    let y = output(&both, Sequence::from(&x).with_lengths(&LENGTHS).unwrap());
    for (b, length) in LENGTHS.into_iter().enumerate() {
        let own = x.slice(s![..length, b..=b, ..]);
        let turned = own.slice(s![..;-1, .., ..]).to_owned();
        let want = output(&both.reverse, (&turned).into());
        let want = want.slice(s![..;-1, .., ..]).to_owned();
        near(&y.slice(s![..length, b..=b, 2..]).to_owned(), &want, "the reverse direction");
        near(&y.slice(s![..length, b..=b, ..2]).to_owned(), &output(&both.forward, own.into()), "the forward one");
    }
}

/// The gradient of v is orthogonal to v, and the weight depends only on g and the direction of v.
#[test]
fn a_normalised_weight_has_the_length_that_is_learned() {
    let rng = &mut rng(5);
    let mut layer = WeightNorm::new(Linear::<f64>::new(3, 4, rng));
    let before = layer.clone().into_inner().weight;
    layer.layer.weight *= 7.0;
    layer.gain *= 2.0;
    let after = layer.clone().into_inner().weight;
    assert_all_near(after.values(0), (&before * 2.0).values(0), Within::either(1e-15), "twice as long");

    let x = wave((5, 2, 3), 0.1);
    let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
    let dy = wave(layer.forward(&x, &mut (), &mut cache).dim(), 0.7);
    layer.backward(&x, &dy, None, &mut cache, &mut grad);
    for (v, dv) in layer.layer.weight.outer_iter().zip(grad.layer.weight.outer_iter()) {
        assert!(v.dot(&dv).abs() < 1e-13 * v.dot(&v).sqrt() && dv.dot(&dv) > 0.0);
    }
}

/// Packed weights of all groups, and weights that a weight norm recomputes.
#[test]
fn prepacked_convolutions_compute_the_same() {
    let rng = &mut rng(6);
    let conv = CausalConv1d::<f64>::builder(6, 4, 3).groups(2).build(rng);
    let x = wave((20, 3, 6), 0.1);
    let x = Sequence::from(&x).infer();
    let want = output(&conv, x);
    near(&output(&Prepacked::new(conv.clone()), x), &want, "groups, prepacked");
    let normed = WeightNorm::new(conv);
    let prepacked = Prepacked::new(normed.clone());
    near(&output(&prepacked, x), &want, "weight norm, prepacked");
    let mut changed = prepacked.into_inner();
    changed.gain *= 3.0;
    let bias = changed.layer.bias.take().unwrap();
    let without = output(&changed, x);
    let want = (want - &bias) * 3.0;
    near(&without, &want, "another length");
}
