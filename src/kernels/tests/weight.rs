//! A weight applied in each of its forms (in place, packed, and shared by the passes of a model), with each start.

use ndarray::{Array2, s};

use super::integers;
use crate::kernels::panels::packed::Packed;
use crate::kernels::{Accumulate, Float, Operand, PackedWeights, Summation, Weight, for_each_isa};

/// A store that knows `w` as the tensor of a model.
fn store_of<F: Float>(w: &Array2<F>) -> PackedWeights<F> {
    let store = PackedWeights::default();
    store.locate([w.as_slice().unwrap()].into_iter());
    store
}

fn check_apply<F: Float>(weight: &Weight<'_, F>, x: &Array2<F>, w: &Array2<F>, context: &str) {
    let (rows, columns) = (x.nrows(), w.nrows());
    let bias = integers::<F>(1, columns, 5);
    let (product, before) = (x.dot(&w.t()), integers::<F>(rows, columns, 6)); // exact
    let mut c = Array2::from_elem((rows, columns), F::nan());
    weight.apply(x.view(), Accumulate::Overwrite, c.view_mut());
    assert_eq!(c, product, "{context}, overwrites");
    c.fill(F::nan());
    weight.apply(x.view(), None, c.view_mut());
    assert_eq!(c, product, "{context}, no bias");
    weight.apply(x.view(), Some(bias.as_slice().unwrap()), c.view_mut());
    assert_eq!(c, &product + &bias, "{context}, bias");
    c.assign(&before);
    weight.apply(x.view(), Accumulate::Add, c.view_mut());
    assert_eq!(c, product + before, "{context}, adds");
}

/// Weights `[N, K]` of layers with few and many rows, and without terms.
fn check<F: Float>() {
    for_each_isa(|isa| {
        for (rows, k, n) in [(1, 5, 3), (2, 40, 70), (9, 130, 33), (30, 17, 1), (3, 0, 4), (0, 3, 4)] {
            let (x, w) = (integers::<F>(rows, k, 1), integers::<F>(n, k, 2));
            let store = store_of(&w);
            for order in [Summation::Fastest, Summation::Sequential] {
                let context = format!("{isa:?}, {rows} by {k} by {n}, {order:?}");
                check_apply(&Weight::stored(w.t(), None, rows, order), &x, &w, &context);
                check_apply(&Weight::stored(w.t(), Some(&store), rows, order), &x, &w, &format!("{context}, stored"));
                let mut operand = Operand::default();
                for (store, repay) in [(None, false), (None, true), (Some(&store), false), (None, false)] {
                    operand.prepare(w.t(), store, repay);
                    let context = format!("{context}, operand, stored {}, repays {repay}", store.is_some());
                    check_apply(&operand.weight(w.t(), order), &x, &w, &context);
                }
            }
            let mut own = Packed::default();
            check_apply(&Weight::packed(w.t(), None, &mut own), &x, &w, "packed");
            check_apply(&Weight::packed(w.t(), Some(&store), &mut own), &x, &w, "packed, stored");
        }
    });
}

#[test]
fn weights_are_applied_wherever_they_lie_f32() {
    check::<f32>();
}

#[test]
fn weights_are_applied_wherever_they_lie_f64() {
    check::<f64>();
}

#[test]
fn only_tensors_of_the_model_are_shared() {
    let (w, other) = (integers::<f32>(6, 4, 1), integers::<f32>(6, 4, 2));
    let store = store_of(&w);
    let is_shared = |weight: Weight<'_, f32>| matches!(weight, Weight::Shared(_));
    assert!(is_shared(Weight::stored(w.t(), Some(&store), 2, Summation::Fastest)));
    assert!(is_shared(Weight::stored(w.slice(s![2..4, ..]).reversed_axes(), Some(&store), 2, Summation::Fastest)));
    assert!(!is_shared(Weight::stored(other.t(), Some(&store), 2, Summation::Fastest)));
    // A single row reads each weight once, so packing it saves nothing.
    assert!(!is_shared(Weight::stored(w.t(), Some(&store), 1, Summation::Fastest)));
    let (mut operand, x) = (Operand::default(), integers::<f32>(3, 4, 3));
    operand.prepare(w.t(), Some(&store), false);
    assert!(matches!(operand.weight(w.t(), Summation::Sequential), Weight::Packed(_)));
    // Changed weights count as another model's: the operand must not multiply with the old ones.
    let changed = w.mapv(|w| w + 1.0);
    operand.prepare(changed.t(), Some(&store_of(&changed)), false);
    let mut c = Array2::zeros((3, 6));
    operand.weight(changed.t(), Summation::Sequential).apply(x.view(), None, c.view_mut());
    assert_eq!(c, x.dot(&changed.t()));
}
