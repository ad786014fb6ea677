//! Wraps a layer as a causal one, so that it can be boxed; the comparisons know which layers are causal.

use gradflow::author::{Gradient, Size, SizeError, Steps};
use gradflow::ndarray::{ArrayRef3, ArrayView3};
use gradflow::{Causal, Layer, Sequence, Tensors};

#[derive(Clone)]
pub struct AssumeCausal<L>(pub L);

impl<L: Layer> Tensors<L::Elem> for AssumeCausal<L> {
    fn count(&self) -> usize {
        self.0.count()
    }
    fn name(&self, i: usize) -> String {
        self.0.name(i)
    }
    fn tensor(&self, i: usize) -> (&[usize], &[L::Elem]) {
        self.0.tensor(i)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [L::Elem] {
        self.0.tensor_mut(i)
    }
}

impl<L: Layer> Layer for AssumeCausal<L> {
    type Elem = L::Elem;
    type State = L::State;
    type Cache = L::Cache;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.0.output_size(input)
    }
    fn output_steps(&self) -> Steps {
        self.0.output_steps()
    }
    fn zero_state(&self, batch: usize) -> L::State {
        self.0.zero_state(batch)
    }
    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &'c mut L::Cache,
    ) -> ArrayView3<'c, L::Elem> {
        self.0.forward_pass(x, state, cache)
    }
    fn output<'c>(&self, cache: &'c L::Cache) -> ArrayView3<'c, L::Elem> {
        self.0.output(cache)
    }
    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut L::Cache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let (grad, how) = grad.parts();
        self.0.backward_pass(x, dy, dstate, cache, Gradient::new(&mut grad.0, how))
    }
}

impl<L: Layer> Causal for AssumeCausal<L> {}
