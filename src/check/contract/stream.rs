//! The part of the contract that a [`Stream`] keeps.

use ndarray::Array3;

use super::values::{all_near, bits};
use super::{Contract, Input};
use crate::base::{Size, Tensors};
use crate::layer::Causal;
use crate::stream::Stream;

/// Longer than the blocks inside a stream.
const STEPS: usize = 70;

impl<L: Causal> Contract<'_, L> {
    /// A stream gives the same as one forward pass, in steps and in blocks, from any state.
    pub(super) fn stream_equals_the_whole(&self) {
        let Input::Features(features) = self.input else { return };
        let batch = self.batch(STEPS, 1);
        let mut state = self.state(1);
        let whole = self.layer.forward(batch.sequence().infer(), &mut state, &mut self.layer.cache()).to_owned();
        let x: Vec<_> = (0..STEPS).flat_map(|t| batch.cut_step(t)).collect();

        let mut stream = Stream::new(self.layer, features).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.assert(stream.output_size() == whole.dim().2, "a stream has another output size than the layer");
        self.assert(Stream::new(self.layer, features + 1).is_err() || self.takes_any(), "a stream takes any size");
        let fresh = bits(&stream.state());
        self.assert(fresh == bits(&self.layer.zero_state(1)), "a new stream is not in the zero state");
        stream.set_state(&self.state(1));
        self.assert(bits(&stream.state()) == bits(&self.state(1)), "a stream does not take the state that it is given");
        let y: Vec<_> = (0..STEPS).flat_map(|t| stream.push(&x[t * features..][..features]).to_vec()).collect();
        let y = Array3::from_shape_vec(whole.dim(), y).expect("as many outputs as steps");
        self.assert(all_near(&y, &whole), "in a stream, y is another than for the whole sequence");
        self.assert(all_near(&stream.state(), &state), "a stream ends in another state than the whole sequence");

        let mut blocks = stream.clone();
        blocks.set_state(&self.state(1));
        let mut same = Array3::zeros(whole.dim());
        let (output, values) = (whole.dim().2, same.tensor_mut(0));
        let mut start = 0;
        for steps in [1, 3, STEPS - 4] {
            let (x, y) = (&x[start * features..], &mut values[start * output..]);
            blocks.process(&x[..steps * features], &mut y[..steps * output]);
            start += steps;
        }
        self.assert(bits(&same) == bits(&y), "in blocks, a stream gives other numbers than step by step");
        self.assert(bits(&blocks.state()) == bits(&stream.state()), "in blocks, a stream ends in another state");
        blocks.reset();
        self.assert(bits(&blocks.state()) == fresh, "a stream that is reset is not in the state that it started from");

        let Some(count) = self.allocations else { return };
        let (x, mut y) = (&x[..5 * features], vec![num_traits::Zero::zero(); 5 * output]);
        let allocations = count(&mut || {
            stream.process(x, &mut y);
            stream.push(&x[..features]);
            stream.reset();
        });
        self.assert(allocations == 0, &format!("a stream allocates {allocations} times"));
    }

    /// Whether the layer takes any number of features.
    fn takes_any(&self) -> bool {
        (1..10).all(|features| self.layer.output_size(Size::Features(features)).is_ok())
    }
}
