//! Any causal layer as a part of a stream, by its forward pass.

use ndarray::Array3;

use super::sequence::Sequence;
use super::stage::{Place, Stage};
use super::traits::Layer;
use crate::base::{Tensors, TensorsExt};
use crate::kernels::PackedWeights;

/// A layer that has no [`Stage`] of its own: a forward pass for each step, with weights packed once.
pub(crate) struct LayerStage<L: Layer> {
    layer: L,
    weights: PackedWeights<L::Elem>,
    state: L::State,
    cache: L::Cache,
    x: Array3<L::Elem>, // [1, 1, I]
    output: usize,
}

impl<L: Layer> LayerStage<L> {
    /// A stage with a copy of `layer`, which takes `input` features. It has done a step, so all buffers are allocated.
    pub(crate) fn boxed(layer: &L, input: usize) -> Box<Self> {
        let layer = layer.clone();
        let mut stage = Box::new(LayerStage {
            weights: PackedWeights::default(),
            state: layer.zero_state(1),
            cache: layer.cache(),
            x: Array3::default((1, 1, input)),
            output: 0,
            layer,
        });
        stage.output = stage.step().2;
        stage.state = stage.layer.zero_state(1);
        stage
    }

    /// Does a step from x; returns the shape of y, which is left in the cache.
    fn step(&mut self) -> (usize, usize, usize) {
        let LayerStage { layer, weights, state, cache, x, .. } = self;
        weights.locate((0..layer.count()).map(|i| layer.tensor(i).1));
        let x = Sequence::from(&*x).infer().with_packed(weights);
        layer.forward_pass(&x, state, cache).dim()
    }
}

impl<L: Layer> Stage<L::Elem> for LayerStage<L> {
    fn output(&self) -> usize {
        self.output
    }

    fn run(&mut self, steps: usize, x: &[L::Elem], y: &mut [L::Elem]) {
        let input = self.x.len();
        for t in 0..steps {
            let values = self.x.as_slice_mut().expect("in standard layout");
            values.copy_from_slice(&x[t * input..][..input]);
            self.step();
            let output = self.layer.output(&self.cache);
            y[t * self.output..].iter_mut().zip(output).for_each(|(y, &output)| *y = output);
        }
    }

    fn tensors(&self) -> usize {
        self.state.count()
    }

    fn load(&mut self, state: &dyn Tensors<L::Elem>, at: Place) {
        for i in 0..self.state.count() {
            at.read(state, i, self.state.tensor_mut(i));
        }
    }

    fn store(&self, state: &mut dyn Tensors<L::Elem>, at: Place) {
        for i in 0..self.state.count() {
            at.write(state, i, self.state.values(i));
        }
    }

    fn boxed(&self) -> Box<dyn Stage<L::Elem>> {
        let mut stage = LayerStage::boxed(&self.layer, self.x.len());
        stage.state = self.state.clone();
        stage
    }
}
