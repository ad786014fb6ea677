//! The contract's comparisons of values. They do not know the layer's type, so that they are compiled once and not for
//! each layer.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use ndarray::{Array3, ArrayView3, s};

use crate::base::tensors::shown;
use crate::base::{Tensors, TensorsExt};
use crate::kernels::Float;

pub(super) const STEPS: usize = 4;
pub(super) const BATCH: usize = 3;
/// Unsorted, with a full one and a shortest one.
pub(super) const LENGTHS: [usize; BATCH] = [3, 4, 1];

/// Lengths of which one is 0.
pub(super) const EMPTY: [usize; BATCH] = [0, 4, 2];
/// Padding on the left, in the middle, and everywhere.
pub(super) const MASK: [[bool; BATCH]; STEPS] =
    [[false, true, false], [true, true, false], [true, false, false], [true, true, false]];
/// A row without a reset, one with a piece of one step between two, and one with a reset at the first and the last step.
pub(super) const RESETS: [[bool; BATCH]; STEPS] =
    [[false, false, true], [false, true, false], [false, true, false], [false, false, true]];

pub(super) fn bits<F: Float>(tensors: &dyn Tensors<F>) -> Vec<u64> {
    (0..tensors.count()).flat_map(|i| tensors.values(i).iter().map(|value| value.bits())).collect()
}

/// The name of the first tensor that differs, and the first values that differ. Zeros are equal, whatever their sign.
pub(super) fn first_difference<F: Float>(a: &dyn Tensors<F>, b: &dyn Tensors<F>) -> Option<(String, f64, f64)> {
    (0..a.count()).find_map(|i| {
        let mut pairs = a.values(i).iter().zip(b.values(i));
        pairs.find(|(x, y)| x != y).map(|(x, y)| (shown(&a.name(i)).to_owned(), x.widen(), y.widen()))
    })
}

pub(super) fn same<F: Float>(a: &Array3<F>, b: ArrayView3<'_, F>) -> bool {
    a == b
}

pub(super) fn all_near<F: Float>(a: &dyn Tensors<F>, b: &dyn Tensors<F>) -> bool {
    let tolerance = 1e4 * <F as num_traits::Float>::epsilon().widen();
    let near = |a: f64, b: f64| (a - b).abs() <= tolerance * b.abs().max(1.0);
    let alike = |i| {
        let (a, b) = (a.values(i), b.values(i));
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a.widen(), b.widen()))
    };
    a.count() == b.count() && (0..a.count()).all(alike)
}

/// Sets element `k` of each tensor to `value(k)`.
pub(super) fn fill<F: Float>(tensors: &mut dyn Tensors<F>, value: &mut dyn FnMut(usize) -> f64) {
    for i in 0..tensors.count() {
        tensors.tensor_mut(i).iter_mut().enumerate().for_each(|(k, element)| *element = F::of(value(k)));
    }
}

/// Sequence `b` of a batch, cut to its length.
pub(super) fn cut<F: Float>(whole: &Array3<F>, b: usize, length: usize) -> Array3<F> {
    whole.slice(s![..length, b..b + 1, ..]).to_owned()
}

/// The positions past [`LENGTHS`].
fn padding() -> impl Iterator<Item = (usize, usize)> {
    LENGTHS.into_iter().enumerate().flat_map(|(b, length)| (length..STEPS).map(move |t| (t, b)))
}

pub(super) fn fill_padding<F: Float>(values: &mut Array3<F>, value: f64) {
    padding().for_each(|(t, b)| values.slice_mut(s![t, b, ..]).fill(F::of(value)));
}

pub(super) fn padding_is_zero<F: Float>(values: &Array3<F>) -> bool {
    padding().all(|(t, b)| values.slice(s![t, b, ..]).iter().all(|value| value.widen() == 0.0))
}

pub(super) fn output_gradient<F: Float>(shape: (usize, usize, usize)) -> Array3<F> {
    Array3::from_shape_fn(shape, |(t, b, d)| F::of((0.7 * t as f64 + 1.3 * b as f64 + 2.1 * d as f64 + 0.4).sin()))
}

/// The same values with the batch as the slowest axis in memory.
pub(super) fn batch_first<F: Float>(x: &Array3<F>) -> Array3<F> {
    let turned = x.view().permuted_axes([1, 0, 2]).as_standard_layout().into_owned();
    turned.permuted_axes([1, 0, 2])
}

/// Whether `act` panics; the panic's message is not printed, because the contract asks for the panic.
pub(super) fn panics(act: &mut dyn FnMut()) -> bool {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                print(panic);
            }
        }));
    });
    QUIET.set(true);
    let panicked = catch_unwind(AssertUnwindSafe(act)).is_err();
    QUIET.set(false);
    panicked
}
