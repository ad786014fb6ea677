//! A model that runs one sequence, step after step, with as little between the input and the output as can be.

use std::fmt;
use std::marker::PhantomData;

use crate::base::error::mismatch;
use crate::base::tensors::check_alike;
use crate::base::{Size, SizeError, Tensors};
use crate::layer::stage::Place;
use crate::layer::{Causal, Stage, Stages};

/// The most steps that one layer does before the next.
const BLOCK: usize = 64;

/// A causal model that runs on one sequence, step after step: audio, control, sensors.
///
/// It is made from a model once. Then sizes are known, weights lie in the order of their kernels and buffers are there: a step
/// is arithmetic only. It allocates nothing, takes no lock and makes no system call, so it can run on a real-time thread.
///
/// ```
/// use gradflow::{layers::Linear, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell, stream::Stream};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let model = (LstmCell::<f32>::new(1, 16, rng), Linear::new(16, 1, rng));
/// let mut stream = Stream::new(&model, 1)?;
/// let y = stream.push(&[0.5])[0]; // one sample in, one sample out
///
/// // The same in blocks, to the bit.
/// stream.reset();
/// let mut block = [0.0; 3];
/// stream.process(&[0.5, 0.25, 0.0], &mut block);
/// assert_eq!(block[0], y);
/// # Ok::<(), gradflow::author::SizeError>(())
/// ```
///
/// # Which layers
/// [`LstmCell`](crate::recurrent::LstmCell), [`GruCell`](crate::recurrent::GruCell) and [`RnnCell`](crate::recurrent::RnnCell) with
/// their default equations, [`Recurrent`](crate::recurrent::Recurrent) layers of them, [`Linear`](crate::layers::Linear),
/// [`Activation`](crate::layers::Activation) and [`FeedForward`](crate::layers::FeedForward) have kernels for single steps, and
/// [`Dropout`](crate::layers::Dropout) is left out. Any other causal layer does its forward pass at each step, which is
/// right, and slower. Tuples, [`sequential!`](crate::sequential), [`Stacked`](crate::compose::Stacked),
/// [`BoxLayer`](crate::compose::BoxLayer) and wrappers are the layers inside.
///
/// # Numbers
/// Steps and blocks of any size give the same bits. They differ from those of [`Layer::forward`](crate::Layer::forward) by rounding:
/// the gates are computed in another order, with the same accuracy.
///
/// It holds a copy of the weights: changes of the model come with another stream. On x86-64, a thread that computes numbers near
/// zero is faster if it flushes subnormal numbers to zero, as audio threads do; nothing here sets that.
pub struct Stream<M: Causal> {
    stages: Vec<Box<dyn Stage<M::Elem>>>,
    /// What the stages but the last give: `[BLOCK, O]` each.
    between: Vec<Vec<M::Elem>>,
    /// What the last stage gives for one step, `[O]`.
    output: Vec<M::Elem>,
    input: usize,
    initial: M::State,
    model: PhantomData<fn() -> M>,
}

impl<M: Causal> fmt::Debug for Stream<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("input", &self.input).field("output", &self.output.len()).finish_non_exhaustive()
    }
}

impl<M: Causal> Clone for Stream<M> {
    fn clone(&self) -> Self {
        Stream {
            stages: self.stages.iter().map(|stage| stage.boxed()).collect(),
            between: self.between.clone(),
            output: self.output.clone(),
            initial: self.initial.clone(),
            ..*self
        }
    }
}

impl<M: Causal> Stream<M> {
    /// A stream of `model` from its zero state, for `input` features a step.
    ///
    /// # Errors
    /// If the model, or a layer inside it, does not take that many features.
    pub fn new(model: &M, input: usize) -> Result<Self, SizeError> {
        let output = model.output_size(Size::Features(input))?;
        let mut stages = Stages::new(input);
        model.stages(&mut stages);
        let stages = stages.into_list();
        let zeros = |len: usize| vec![num_traits::Zero::zero(); len];
        let between = stages.iter().rev().skip(1).rev().map(|stage| zeros(BLOCK * stage.output())).collect();
        let initial = model.zero_state(1);
        let mut stream = Stream { stages, between, output: zeros(output), input, initial, model: PhantomData };
        stream.reset();
        Ok(stream)
    }

    /// I, the number of input features.
    pub fn input_size(&self) -> usize {
        self.input
    }

    /// O, the number of output features.
    pub fn output_size(&self) -> usize {
        self.output.len()
    }

    /// One step: `y`, `[O]`, from `x`, `[I]`.
    ///
    /// # Panics
    /// Panics if `x` has another length.
    #[inline]
    #[track_caller]
    pub fn push(&mut self, x: &[M::Elem]) -> &[M::Elem] {
        if x.len() != self.input {
            mismatch("Stream", "x", &format_args!("{} values", self.input), &x.len())
        }
        run(&mut self.stages, &mut self.between, x, &mut self.output, 1);
        &self.output
    }

    /// The next T steps: `y`, `[T, O]`, from `x`, `[T, I]`, each a row after the other.
    ///
    /// # Panics
    /// Panics if `x` is no whole number of steps, or `y` has not as many.
    #[track_caller]
    pub fn process(&mut self, x: &[M::Elem], y: &mut [M::Elem]) {
        let (input, output) = (self.input, self.output.len());
        let steps = y.len() / output;
        if !y.len().is_multiple_of(output) || x.len() != steps * input {
            let expected = format_args!("as many steps of {input} and {output} values").to_string();
            mismatch("Stream", "x and y", &expected, &format_args!("{} and {} values", x.len(), y.len()))
        }
        for start in (0..steps).step_by(BLOCK) {
            let end = (start + BLOCK).min(steps);
            let (x, y) = (&x[start * input..end * input], &mut y[start * output..end * output]);
            run(&mut self.stages, &mut self.between, x, y, end - start);
        }
    }

    /// Back to the state that it started from.
    pub fn reset(&mut self) {
        load(&mut self.stages, &self.initial);
    }

    /// The state after the last step, as the model's own: it can go on in [`Layer::forward`](crate::Layer::forward) with a batch of one.
    pub fn state(&self) -> M::State {
        let (mut state, mut first) = (self.initial.clone(), 0);
        for stage in &self.stages {
            stage.store(&mut state, Place { first, cell: 0 });
            first += stage.tensors();
        }
        state
    }

    /// Goes on from `state`, that of a batch of one.
    ///
    /// # Panics
    /// Panics if `state` has other shapes.
    #[track_caller]
    pub fn set_state(&mut self, state: &M::State) {
        check_alike(&"Stream: state", &self.initial, state);
        load(&mut self.stages, state);
    }
}

fn load<F>(stages: &mut [Box<dyn Stage<F>>], state: &dyn Tensors<F>) {
    let mut first = 0;
    for stage in stages {
        stage.load(state, Place { first, cell: 0 });
        first += stage.tensors();
    }
}

/// Some steps, at most [`BLOCK`], through all stages.
#[inline]
fn run<F: Copy>(stages: &mut [Box<dyn Stage<F>>], between: &mut [Vec<F>], x: &[F], y: &mut [F], steps: usize) {
    let Some((last, stages)) = stages.split_last_mut() else {
        return y.copy_from_slice(x); // nothing is left of the model
    };
    let mut x = x;
    for (stage, to) in stages.iter_mut().zip(between) {
        let to = &mut to[..steps * stage.output()];
        stage.run(steps, x, to);
        x = to;
    }
    last.run(steps, x, y);
}
