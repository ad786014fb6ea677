//! From all steps to the last.

use std::marker::PhantomData;

use ndarray::{ArrayRef3, s};

use super::time::{TimeCache, time_layer};
use crate::base::{Size, SizeError};
use crate::kernels::{Float, once};
use crate::layer::{Graph, Sequence, Signal, Unsupported, Value};
use crate::parameters;

const NAME: &str = "LastStep";

/// The last valid step of each sequence, where a recurrent layer has read all of it.
///
/// ```text
/// y_b = x_{n_b - 1, b}                              n_b: the length of sequence b
/// y_b = [ x_{n_b - 1, b, ..D/2} ; x_{0, b, D/2..} ]   both directions
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, D]` |
/// | `y` | `[1, B, D]`, without lengths |
///
/// After a bidirectional layer, use [`both_directions`](LastStep::both_directions): the reverse direction ends at the first step,
/// and at a sequence's last step it has read only that step. The result is PyTorch's `h_n` of the last layer, forward and reverse
/// side by side.
///
/// In a [reversed](Sequence::reversed) batch, recurrences go from the last valid step to the first. The layer then takes the first
/// step, which is read last, so `Bidirectional::new((gru, LastStep::new()), …)` needs no special `LastStep`.
///
/// It is not [`Causal`](crate::Causal): over a [chunk](Sequence::steps), it gives the chunk's last valid step, and zero for a
/// sequence that ended before the chunk. So a model with a `LastStep` can still read a stream in chunks: its output after each
/// chunk is the result for the stream so far.
///
/// A classifier of sequences of unequal length:
///
/// ```
/// use gradflow::prelude::*;
/// use gradflow::{layers::LastStep, ndarray::{arr2, Array2}, rand::{SeedableRng, rngs::StdRng}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let model = (
///     Embedding::<f32>::new(50, 8, rng),
///     BiLstm::new(8, 16, rng),
///     LastStep::both_directions(),
///     Linear::new(2 * 16, 3, rng),
/// );
/// let (words, classes) = (Array2::from_elem((7, 2), 4), arr2(&[[0, 2]])); // [T, B], [1, B]
/// let x = Sequence::from(&words).with_lengths(&[7, 5])?;
///
/// let (mut state, mut cache, mut grad) = (model.zero_state(2), model.cache(), model.zeros_like());
/// let pass = model.pass(x, &mut state, &mut cache);
/// assert_eq!(pass.output().dim(), (1, 2, 3));
/// let mut cross_entropy = SoftmaxCrossEntropy::new();
/// let loss = cross_entropy.of(&pass, &classes); // one class for each sequence, whatever its length
/// pass.backward_into(loss.gradient(), &mut grad);
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LastStep<F> {
    both: bool,
    elem: PhantomData<F>,
}
parameters! { impl<F: Float> Tensors<F> for LastStep<F> { ; skip both, elem } }

impl<F: Float> LastStep<F> {
    /// The last valid step.
    pub fn new() -> Self {
        LastStep { both: false, elem: PhantomData }
    }

    /// The last valid step for the first half of the features and the first step for the second half, where the two directions of a
    /// bidirectional layer end.
    pub fn both_directions() -> Self {
        LastStep { both: true, ..Self::new() }
    }

    fn steps(&self) -> usize {
        1
    }

    /// The output, in operators.
    fn graph_value(&self, graph: &mut Graph<F>, x: Signal) -> Result<Value, Unsupported> {
        let width = x.features(NAME)?;
        let own = self.own(width);
        let mut part = |from: usize, to: usize, is_last: bool| {
            let mut value = x.value;
            if (from, to) != (0, width) {
                value = graph.slice(value, [from as i64, to as i64], 2);
            }
            match graph.lengths(x).filter(|_| is_last) {
                None => graph.slice(value, if is_last { [-1, i64::MAX] } else { [0, 1] }, 0),
                Some(lengths) => {
                    let one = graph.integers(&[1]);
                    let lengths = graph.node("Cast", &[lengths], &[("to", 7.into())]);
                    let last = graph.node("Sub", &[lengths, one], &[]);
                    let zero = graph.integers(&[0]);
                    let last = graph.node("Max", &[last, zero], &[]);
                    let axes = graph.integers(&[0, 2]);
                    let last = graph.node("Unsqueeze", &[last, axes], &[]); // [1, B, 1]
                    let (batch, width) = (graph.batch(), graph.integers(&[(to - from) as i64]));
                    let shape = graph.node("Concat", &[one, batch, width], &[("axis", 0.into())]);
                    let last = graph.node("Expand", &[last, shape], &[]);
                    graph.node("GatherElements", &[value, last], &[("axis", 0.into())])
                }
            }
        };
        let mut ends = part(0, own, !x.is_reversed);
        if own < width {
            let others = part(own, width, x.is_reversed);
            ends = graph.node("Concat", &[ends, others], &[("axis", 2.into())]);
        }
        Ok(graph.without_empty(x, ends))
    }

    fn size(&self, input: Size) -> Result<usize, SizeError> {
        match input.features(NAME)? {
            odd if self.both && odd % 2 == 1 => {
                Err(SizeError::new(NAME, format!("of both directions takes an even number of features, got {odd}")))
            }
            features => Ok(features),
        }
    }

    /// The number of features taken from the step that is read last; the remaining ones are taken from the step that is read first.
    fn own(&self, features: usize) -> usize {
        if self.both { features / 2 } else { features }
    }
}

impl<F: Float> Default for LastStep<F> {
    fn default() -> Self {
        LastStep::new()
    }
}

/// The steps of sequence `b` that are read last and first, in this order; `None` if no step is valid.
fn ends<F: Float>(x: &Sequence<'_, F>, b: usize) -> Option<(usize, usize)> {
    let mut steps = x.valid_steps(b);
    let first = steps.next()?;
    let last = steps.next_back().unwrap_or(first);
    Some(if x.is_reversed() { (first, last) } else { (last, first) })
}

once! {
    fn forward<'a, F: Float>(layer: &'a LastStep<F>, x: &'a Sequence<'a, F>, cache: &'a mut TimeCache<F>) {
        let features = x.features(NAME, None); // [T, B, D]
        let (_, batch, width) = features.dim();
        let own = layer.own(width);
        cache.begin(x, 1, width);
        for b in 0..batch {
            let Some((last, first)) = ends(x, b) else { continue };
            cache.y.slice_mut(s![0, b, ..own]).assign(&features.slice(s![last, b, ..own]));
            cache.y.slice_mut(s![0, b, own..]).assign(&features.slice(s![first, b, own..]));
        }
    }

    fn backward<'a, F: Float>(
        layer: &'a LastStep<F>,
        x: &'a Sequence<'a, F>,
        dy: &'a ArrayRef3<F>,
        cache: &'a mut TimeCache<F>,
    ) {
        let Some(dx) = cache.begin_backward(NAME, x, dy) else { return };
        let (_, batch, width) = dx.dim();
        let own = layer.own(width);
        for b in 0..batch {
            let Some((last, first)) = ends(x, b) else { continue };
            dx.slice_mut(s![last, b, ..own]).assign(&dy.slice(s![0, b, ..own]));
            dx.slice_mut(s![first, b, own..]).assign(&dy.slice(s![0, b, own..]));
        }
    }
}
time_layer! { LastStep, forward, backward }
