//! The mean or maximum of all steps.

use std::marker::PhantomData;

use ndarray::{ArrayRef3, s};

use super::time::{TimeCache, time_layer};
use crate::base::{Size, SizeError};
use crate::kernels::{Float, once};
use crate::layer::{Attribute, Graph, Sequence, Signal, Unsupported, Value};
use crate::parameters;

const NAME: &str = "Pool";

/// The mean or the maximum of each feature over the valid steps of each sequence.
///
/// ```text
/// mean:   y_bk = 1/n_b Σ_t x_tbk          dL/dx_tbk = 1/n_b dL/dy_bk          n_b: the length of sequence b
/// max:    y_bk = max_t x_tbk              dL/dx_tbk = [t is the first maximum] dL/dy_bk
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, D]` |
/// | `y` | `[1, B, D]`, without lengths |
///
/// A NaN at a valid step makes the mean or the maximum of its feature NaN.
///
/// It is not [`Causal`](crate::Causal): over a [chunk](Sequence::steps), it pools the chunk's valid steps, and gives zero for a
/// sequence that ended before the chunk.
///
/// ```
/// use gradflow::{Layer, Sequence, layers::Pool, ndarray::{arr3, array}};
///
/// let x = array![[[1.0, 8.0], [2.0, 5.0]], [[3.0, 4.0], [f64::NAN, f64::NAN]]]; // [T, B, D]
/// let x = Sequence::from(&x).with_lengths(&[2, 1])?; // the NaN is padding
/// let (mean, max) = (Pool::mean(), Pool::max());
/// assert_eq!(mean.forward(x, &mut (), &mut mean.cache()), arr3(&[[[2.0, 6.0], [2.0, 5.0]]]));
/// assert_eq!(max.forward(x, &mut (), &mut max.cache()), arr3(&[[[3.0, 8.0], [2.0, 5.0]]]));
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Pool<F> {
    kind: Kind,
    elem: PhantomData<F>,
}
parameters! { impl<F: Float> Tensors<F> for Pool<F> { ; skip kind, elem } }

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Mean,
    Max,
}

impl<F: Float> Pool<F> {
    /// The mean over the valid steps.
    pub fn mean() -> Self {
        Pool { kind: Kind::Mean, elem: PhantomData }
    }

    /// The maximum over the valid steps.
    pub fn max() -> Self {
        Pool { kind: Kind::Max, elem: PhantomData }
    }

    fn steps(&self) -> usize {
        1
    }

    /// The output, in operators.
    fn graph_value(&self, graph: &mut Graph<F>, x: Signal) -> Result<Value, Unsupported> {
        x.features(NAME)?;
        let (axes, keep) = (Attribute::from(vec![0]), ("keepdims", Attribute::from(1)));
        match self.kind {
            Kind::Max => {
                let values = graph.without_padding(x, f64::NEG_INFINITY);
                let largest = graph.node("ReduceMax", &[values], &[("axes", axes), keep]);
                Ok(graph.without_empty(x, largest))
            }
            Kind::Mean => {
                let values = graph.without_padding(x, 0.0);
                let Some(lengths) = graph.lengths(x) else {
                    return Ok(graph.node("ReduceMean", &[values], &[("axes", axes), keep]));
                };
                let axis = graph.integers(&[0]);
                let sum = graph.node("ReduceSum", &[values, axis], &[keep]);
                let axis = graph.integers(&[1]);
                let lengths = graph.node("Unsqueeze", &[lengths, axis], &[]); // [B, 1]
                let lengths = graph.node("Cast", &[lengths], &[("to", 7.into())]);
                let one = graph.integers(&[1]);
                let lengths = graph.node("Max", &[lengths, one], &[]); // the mean of no steps is 0
                let lengths = graph.node("CastLike", &[lengths, sum], &[]);
                Ok(graph.node("Div", &[sum, lengths], &[]))
            }
        }
    }

    fn size(&self, input: Size) -> Result<usize, SizeError> {
        input.features(NAME)
    }
}

/// 1/n_b, or `None` if no step is valid.
fn share<F: Float>(x: &Sequence<'_, F>, b: usize) -> Option<F> {
    let count = x.valid_steps(b).count();
    (count > 0).then(|| F::of(1.0 / count as f64))
}

once! {
    fn forward<'a, F: Float>(layer: &'a Pool<F>, x: &'a Sequence<'a, F>, cache: &'a mut TimeCache<F>) {
        let features = x.features(NAME, None); // [T, B, D]
        let (_, batch, width) = features.dim();
        cache.begin(x, 1, width);
        if layer.kind == Kind::Max && cache.chosen.dim() != (batch, width) {
            cache.chosen = ndarray::Array2::zeros((batch, width));
        }
        for b in 0..batch {
            let mut y = cache.y.slice_mut(s![0, b, ..]);
            match (layer.kind, share::<F>(x, b)) {
                (_, None) => {}
                (Kind::Mean, Some(share)) => {
                    for t in x.valid_steps(b) {
                        y += &features.slice(s![t, b, ..]);
                    }
                    y *= share;
                }
                (Kind::Max, Some(_)) => {
                    let mut chosen = cache.chosen.row_mut(b);
                    let mut steps = x.valid_steps(b);
                    let first = steps.next().expect("a valid step");
                    y.assign(&features.slice(s![first, b, ..]));
                    chosen.fill(first);
                    for t in steps {
                        for ((y, chosen), &x) in y.iter_mut().zip(&mut chosen).zip(features.slice(s![t, b, ..])) {
                            if x > *y || (x.is_nan() && !y.is_nan()) {
                                (*y, *chosen) = (x, t);
                            }
                        }
                    }
                }
            }
        }
    }

    fn backward<'a, F: Float>(layer: &'a Pool<F>, x: &'a Sequence<'a, F>, dy: &'a ArrayRef3<F>, cache: &'a mut TimeCache<F>) {
        let chosen = std::mem::take(&mut cache.chosen);
        if let Some(dx) = cache.begin_backward(NAME, x, dy) {
            let (_, batch, width) = dx.dim();
            for b in 0..batch {
                let dy = dy.slice(s![0, b, ..]);
                match (layer.kind, share::<F>(x, b)) {
                    (_, None) => {}
                    (Kind::Mean, Some(share)) => {
                        for t in x.valid_steps(b) {
                            dx.slice_mut(s![t, b, ..]).zip_mut_with(&dy, |dx, &dy| *dx = dy * share);
                        }
                    }
                    (Kind::Max, Some(_)) => (0..width).for_each(|k| dx[[chosen[[b, k]], b, k]] = dy[k]),
                }
            }
        }
        cache.chosen = chosen;
    }
}
time_layer! { Pool, forward, backward }
