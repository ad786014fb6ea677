//! Feed-forward layers over many rows, which are processed in blocks of rows and hidden units, and with packed weights, compared with
//! the layers that they consist of.

use gradflow::ndarray::{Array3, ArrayView3, s};
use gradflow::rand::{RngExt, rngs::StdRng};
use gradflow::{
    Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    compose::Residual,
    layers::{Activation, FeedForward, Linear, Nonlinearity},
    wrap::Prepacked,
};

use crate::common::{Within, assert_all_near, rng};

const FEATURES: usize = 9;
const HIDDEN: usize = 1030; // three blocks of units, none of them a whole number of registers

type Parts = (Linear<f64>, Activation<f64>, Linear<f64>);

fn values(steps: usize, batch: usize, rng: &mut StdRng) -> Array3<f64> {
    Array3::from_shape_simple_fn((steps, batch, FEATURES), || rng.random_range(-1.0..1.0))
}

/// Panics unless all elements are within 1e-12 of the largest element.
#[track_caller]
fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    let scale = expected.iter().fold(1.0_f64, |most, value| most.max(value.abs()));
    assert_all_near(found, expected, Within::absolute(1e-12 * scale), what);
}

/// Compares output, dx and the gradients of both, for the rows that are valid by `lengths`.
fn compare(layer: &FeedForward<f64>, steps: usize, batch: usize, lengths: Option<&[usize]>) {
    let rng = &mut rng(1);
    let parts: Parts = (layer.fc1.clone(), layer.activation.clone(), layer.fc2.clone());
    let (block, expected) = (Residual::new(layer.clone()), Residual::new(parts.clone()));
    let (x, dy) = (values(steps, batch, rng), values(steps, batch, rng));
    let sequence = |x| match lengths {
        Some(lengths) => Sequence::from(x).with_lengths(lengths).unwrap(),
        None => Sequence::from(x),
    };
    let slice = |y: ArrayView3<'_, f64>| y.iter().copied().collect::<Vec<_>>();

    let y = slice(expected.forward(sequence(&x), &mut ((), (), ()), &mut expected.cache()));
    assert_close("inference", &slice(block.forward(sequence(&x).infer(), &mut (), &mut block.cache())), &y);
    let alone = slice(parts.forward(sequence(&x), &mut ((), (), ()), &mut parts.cache()));
    assert_close("without skip", &slice(layer.forward(sequence(&x).infer(), &mut (), &mut layer.cache())), &alone);

    let (mut cache, mut grad) = (block.cache(), block.zeros_like());
    let pass = block.pass(sequence(&x), &mut (), &mut cache);
    assert_close("training", &slice(pass.output()), &y);
    let dx = slice(pass.backward(&dy, &mut grad));
    let (mut cache, mut expected_grad) = (expected.cache(), expected.zeros_like());
    let pass = expected.pass(sequence(&x), &mut ((), (), ()), &mut cache);
    assert_close("dx", &dx, &slice(pass.backward(&dy, &mut expected_grad)));
    for i in 0..grad.count() {
        assert_close(&grad.name(i), grad.values(i), expected_grad.values(i));
    }
}

fn layer() -> FeedForward<f64> {
    FeedForward::new(FEATURES, HIDDEN, Nonlinearity::Gelu, &mut rng(0))
}

#[test]
fn many_rows_agree_with_the_parts() {
    for (steps, batch) in [(1, 255), (1, 256), (3, 151)] {
        compare(&layer(), steps, batch, None);
    }
}

#[test]
fn padding_is_left_out() {
    let lengths: Vec<usize> = (0..300).map(|b| if b < 290 { 2 } else { 1 }).collect();
    compare(&layer(), 2, 300, Some(&lengths));
}

#[test]
fn biases_may_be_absent() {
    let mut layer = layer();
    (layer.fc1.bias, layer.fc2.bias) = (None, None);
    compare(&layer, 1, 300, None);
}

#[test]
fn packed_weights_give_a_row_the_same_bits_among_any_number() {
    const MOST: usize = 300; // up to 127 rows, all units are processed at once
    let (layer, x) = (layer(), values(1, MOST, &mut rng(1)));
    let y = layer.forward(&x, &mut (), &mut layer.cache()).to_owned();
    let (packed, mut cache) = (Prepacked::new(layer.clone()), layer.cache());
    let mut of = |rows: usize| {
        let x = x.slice(s![.., ..rows, ..]);
        let y = packed.forward(Sequence::from(x).infer(), &mut (), &mut cache);
        y.iter().copied().collect::<Vec<_>>()
    };
    let all = of(MOST);
    assert_close("packed", &all, y.as_slice().unwrap());
    for rows in [1, 2, 40, 127, 128, 256] {
        assert_eq!(of(rows), all[..rows * FEATURES], "{rows} rows");
    }
}
