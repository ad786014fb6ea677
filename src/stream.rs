//! A model that runs one sequence, step after step, with as little between the input and the output as can be.

use std::fmt;
use std::marker::PhantomData;

use num_traits::Zero;

use crate::base::error::mismatch;
use crate::base::tensors::check_alike;
use crate::base::{Size, SizeError};
use crate::layer::stage::{BLOCK, Chain, Place};
use crate::layer::{Causal, Stages};

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
/// [`Dropout`](crate::layers::Dropout) is left out. Tuples,
/// [`sequential!`](crate::sequential), [`Stacked`](crate::compose::Stacked), [`BoxLayer`](crate::compose::BoxLayer),
/// [`Residual`](crate::compose::Residual) and wrappers are the layers inside. Any other causal layer does its forward pass at each
/// step, which is right, and slower.
///
/// # Numbers
/// Steps and blocks of any size give the same bits. They differ from those of [`Layer::forward`](crate::Layer::forward) by rounding:
/// the gates are computed in another order, with the same accuracy.
///
/// It holds a copy of the weights: changes of the model come with another stream. On x86-64, a thread that computes numbers near
/// zero is faster if it flushes subnormal numbers to zero, as audio threads do; nothing here sets that.
pub struct Stream<M: Causal> {
    chain: Chain<M::Elem>,
    /// What it gives for one step, `[O]`.
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
        Stream { chain: self.chain.clone(), output: self.output.clone(), initial: self.initial.clone(), ..*self }
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
        let (chain, output) = (Chain::new(stages), vec![M::Elem::zero(); output]);
        let mut stream = Stream { chain, output, input, initial: model.zero_state(1), model: PhantomData };
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
        self.chain.run(1, x, &mut self.output);
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
            self.chain.run(end - start, x, y);
        }
    }

    /// Back to the state that it started from.
    pub fn reset(&mut self) {
        self.chain.load(&self.initial, Place::FRONT);
    }

    /// The state after the last step, as the model's own: it can go on in [`Layer::forward`](crate::Layer::forward) with a batch of one.
    pub fn state(&self) -> M::State {
        let mut state = self.initial.clone();
        self.chain.store(&mut state, Place::FRONT);
        state
    }

    /// Goes on from `state`, that of a batch of one.
    ///
    /// # Panics
    /// Panics if `state` has other shapes.
    #[track_caller]
    pub fn set_state(&mut self, state: &M::State) {
        check_alike(&"Stream: state", &self.initial, state);
        self.chain.load(state, Place::FRONT);
    }
}
