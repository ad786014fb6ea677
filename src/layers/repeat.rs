//! From one step to many.

use std::marker::PhantomData;

use ndarray::{ArrayRef3, Axis};

use super::time::{TimeCache, time_layer};
use crate::base::error::mismatch;
use crate::base::{Size, SizeError};
use crate::kernels::{Float, once};
use crate::layer::{Graph, Sequence, Signal, Unsupported, Value};
use crate::parameters;

const NAME: &str = "Repeat";

/// Repeats one step n times, as the input of a decoder.
///
/// ```text
/// y_tb = x_0b          dL/dx_0b = Σ_t dL/dy_tb          t < n
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[1, B, D]` |
/// | `y` | `[n, B, D]`, without lengths |
///
/// If the answers have unequal lengths, let the loss [ignore](crate::loss::SoftmaxCrossEntropy::ignore) the steps after each one's
/// end, or give it the answers' lengths: `loss.of(Sequence::from(&pass).with_lengths(&lengths)?, &targets)`.
///
/// It is not [`Causal`](crate::Causal), because it turns one step into several.
///
/// An encoder, and a decoder that reads the encoder's result at each of its steps (Cho et al. 2014):
///
/// ```
/// use gradflow::prelude::*;
/// use gradflow::{layers::{LastStep, Repeat}, ndarray::Array2, rand::{SeedableRng, rngs::StdRng}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let model = (
///     Embedding::<f32>::new(50, 8, rng),
///     Gru::new(8, 16, rng),
///     LastStep::new(),
///     Repeat::new(5),
///     Gru::new(16, 16, rng),
///     Linear::new(16, 10, rng),
/// );
/// let (words, answers) = (Array2::from_elem((7, 2), 4), Array2::from_elem((5, 2), 9)); // [T, B], [n, B]
/// let x = Sequence::from(&words).with_lengths(&[7, 3])?;
///
/// let (mut state, mut cache, mut grad) = (model.zero_state(2), model.cache(), model.zeros_like());
/// let pass = model.pass(x, &mut state, &mut cache);
/// assert_eq!(pass.output().dim(), (5, 2, 10));
/// let mut cross_entropy = SoftmaxCrossEntropy::new();
/// let loss = cross_entropy.of(&pass, &answers);
/// pass.backward_into(loss.gradient(), &mut grad);
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
///
/// # Panics
/// `forward` panics if `x` has more than one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Repeat<F> {
    steps: usize,
    elem: PhantomData<F>,
}
parameters! { impl<F: Float> Tensors<F> for Repeat<F> { ; skip steps, elem } }

impl<F: Float> Repeat<F> {
    /// Repeats the step `steps` times.
    ///
    /// # Panics
    /// Panics if `steps` is 0.
    #[track_caller]
    pub fn new(steps: usize) -> Self {
        if steps == 0 {
            mismatch(NAME, "steps", &"at least 1", &steps)
        }
        Repeat { steps, elem: PhantomData }
    }

    /// The number of repetitions.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The output, in operators.
    fn graph_value(&self, graph: &mut Graph<F>, x: Signal) -> Result<Value, Unsupported> {
        let features = x.features(NAME)?;
        let (steps, width) = (graph.integers(&[self.steps as i64]), graph.integers(&[features as i64]));
        let batch = graph.batch();
        let shape = graph.node("Concat", &[steps, batch, width], &[("axis", 0.into())]);
        Ok(graph.node("Expand", &[x.value, shape], &[]))
    }

    fn size(&self, input: Size) -> Result<usize, SizeError> {
        input.features(NAME)
    }
}

once! {
    fn forward<'a, F: Float>(layer: &'a Repeat<F>, x: &'a Sequence<'a, F>, cache: &'a mut TimeCache<F>) {
        let features = x.features(NAME, None);
        let (steps, batch, width) = features.dim();
        if steps != 1 {
            let expected = format_args!("one step, [1, {batch}, {width}], as `LastStep` or `Pool` gives");
            mismatch(NAME, "x", &expected, &format_args!("{:?}", features.shape()))
        }
        cache.begin(x, layer.steps, width);
        let row = features.index_axis(Axis(0), 0);
        for mut y in cache.y.outer_iter_mut() {
            for (b, (mut y, row)) in y.outer_iter_mut().zip(row.outer_iter()).enumerate() {
                if x.valid(0, b) {
                    y.assign(&row);
                }
            }
        }
    }

    fn backward<'a, F: Float>(
        _layer: &'a Repeat<F>,
        x: &'a Sequence<'a, F>,
        dy: &'a ArrayRef3<F>,
        cache: &'a mut TimeCache<F>,
    ) {
        let Some(dx) = cache.begin_backward(NAME, x, dy) else { return };
        for dy in dy.outer_iter() {
            for (b, (mut dx, dy)) in dx.index_axis_mut(Axis(0), 0).outer_iter_mut().zip(dy.outer_iter()).enumerate() {
                if x.valid(0, b) {
                    dx += &dy;
                }
            }
        }
    }
}
time_layer! { Repeat, forward, backward }
