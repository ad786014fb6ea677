//! A model that runs one sequence, step by step, with minimal work between input and output.

use std::fmt;
use std::marker::PhantomData;

use num_traits::Zero;

use crate::base::error::mismatch;
use crate::base::tensors::check_alike;
use crate::base::{Size, SizeError};
use crate::layer::stage::{BLOCK, Chain, Place};
use crate::layer::{Causal, Stages};

/// A causal model that runs on one sequence, step by step: audio, control, sensors.
///
/// It is built from a model once. This resolves the sizes, lays out the weights for their kernels and allocates the buffers, so a
/// step is arithmetic only. It allocates nothing, takes no lock and makes no system call, so it can run on a real-time thread.
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
/// [`LstmCell`](crate::recurrent::LstmCell), [`GruCell`](crate::recurrent::GruCell) and [`RnnCell`](crate::recurrent::RnnCell)
/// with their default equations, [`Recurrent`](crate::recurrent::Recurrent) layers of them, [`Linear`](crate::layers::Linear),
/// [`Activation`](crate::layers::Activation) and [`FeedForward`](crate::layers::FeedForward) have kernels for single steps;
/// [`Dropout`](crate::layers::Dropout) is left out. Tuples, [`sequential!`](crate::sequential),
/// [`Stacked`](crate::compose::Stacked), [`BoxLayer`](crate::compose::BoxLayer), [`Residual`](crate::compose::Residual) and
/// wrappers run as the layers inside them. Any other causal layer runs its forward pass at each step, which is correct but
/// slower.
///
/// # Numbers
/// Steps and blocks of any size give the same bits. They differ from those of [`Layer::forward`](crate::Layer::forward) by rounding:
/// the gates are computed in another order, with the same accuracy.
///
/// A stream holds a copy of the weights: after a change of the model, make a new stream. On x86-64, a thread that computes
/// numbers near zero is faster if it flushes subnormal numbers to zero, as audio threads do; the crate does not set this mode.
pub struct Stream<M: Causal> {
    chain: Chain<M::Elem>,
    /// The output of one step, `[O]`.
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
    /// A stream of `model` from its zero state, with `input` features per step.
    ///
    /// # Errors
    /// Returns an error if the model, or a layer inside it, does not take that many features.
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

    /// The next T steps: `y`, `[T, O]`, from `x`, `[T, I]`, row by row.
    ///
    /// # Panics
    /// Panics if `x` is not a whole number of steps, or `y` does not have the same number of steps.
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

    /// Returns to the initial state.
    pub fn reset(&mut self) {
        self.chain.load(&self.initial, Place::FRONT);
    }

    /// The state after the last step, in the model's type: it can continue in [`Layer::forward`](crate::Layer::forward) with a
    /// batch of one.
    pub fn state(&self) -> M::State {
        let mut state = self.initial.clone();
        self.chain.store(&mut state, Place::FRONT);
        state
    }

    /// Continues from `state`, the state of a batch of one.
    ///
    /// # Panics
    /// Panics if `state` has other shapes.
    #[track_caller]
    pub fn set_state(&mut self, state: &M::State) {
        check_alike(&"Stream: state", &self.initial, state);
        self.chain.load(state, Place::FRONT);
    }
}
