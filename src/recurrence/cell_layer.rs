//! `Layer` for every cell, and the macro by which the crate's own cells are compiled once.

use ndarray::{ArrayRef3, ArrayView3};

use super::cell::{Cell, CellCache};
use super::state::StateViewMut;
use crate::base::{Size, SizeError, Tensors};
use crate::layer::{Causal, Gradient, Graph, Layer, LayerStage, Sequence, Signal, Stages, Unsupported};

impl<C: Cell> Layer for C {
    type Elem = C::Elem;
    type State = C::State;
    type Cache = CellCache<C>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let sizes = self.sizes();
        match input {
            Size::Features(features) if features == sizes.input => Ok(sizes.output),
            _ => Err(SizeError::features(sizes.name, sizes.input, input)),
        }
    }

    fn zero_state(&self, batch: usize) -> C::State {
        self.initial_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<C::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        let count = self.initial_state(1).count();
        let tensors = (0..count).map(|_| graph.take_state()).collect::<Result<Vec<_>, _>>()?;
        let mut initial = Vec::new();
        for &tensor in &tensors {
            let value = graph.initial_state(tensor);
            initial.push(value.map(|value| graph.with_axis("Unsqueeze", value, 0)));
        }
        let (y, last) = C::add_cells_to_graph(std::slice::from_ref(self), graph, x, &initial)?;
        for (tensor, value) in tensors.into_iter().zip(last) {
            if graph.has_states() {
                let value = graph.with_axis("Squeeze", value, 0);
                graph.set_final_state(tensor, value);
            }
        }
        Ok(y)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, C::Elem>,
        state: &mut C::State,
        cache: &'c mut CellCache<C>,
    ) -> ArrayView3<'c, C::Elem> {
        self.loop_forward(x, StateViewMut::new(state, x.state_rows()), cache);
        cache.output()
    }

    fn output<'c>(&self, cache: &'c CellCache<C>) -> ArrayView3<'c, C::Elem> {
        cache.output()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, C::Elem>,
        dy: &ArrayRef3<C::Elem>,
        dstate: Option<&mut C::State>,
        cache: &'c mut CellCache<C>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, C::Elem> {
        let dstate = dstate.map(|dstate| StateViewMut::new(dstate, x.state_rows()));
        self.loop_backward(x, dy.view(), dstate, cache, grad);
        cache.input_gradient()
    }
}

impl<C: Cell> Causal for C {
    fn stages(&self, stages: &mut Stages<C::Elem>) {
        stages.push(self.stage().unwrap_or_else(|| LayerStage::boxed(self, stages.features())));
    }
}

/// The methods of [`Cell`] that compile the loop over time of one of the crate's own cells once for each element type, in this
/// crate.
macro_rules! compiled_loop {
    ($cell:ident) => {
        fn loop_forward(
            &self,
            x: &$crate::layer::Sequence<'_, F>,
            mut state: $crate::recurrence::StateViewMut<'_, F>,
            cache: &mut $crate::recurrence::CellCache<Self>,
        ) {
            $crate::kernels::once! {
                #[track_caller]
                fn run<'a, F: Float>(
                    cell: &'a $cell<F>,
                    x: &'a $crate::layer::Sequence<'a, F>,
                    state: $crate::recurrence::StateViewMut<'a, F>,
                    cache: &'a mut $crate::recurrence::CellCache<$cell<F>>,
                ) {
                    $crate::recurrence::forward(cell, x, state, cache);
                }
            }
            run(self, &x.reborrow(), state.reborrow(), cache);
        }

        fn loop_backward(
            &self,
            x: &$crate::layer::Sequence<'_, F>,
            dy: ndarray::ArrayView3<'_, F>,
            mut dstate: Option<$crate::recurrence::StateViewMut<'_, F>>,
            cache: &mut $crate::recurrence::CellCache<Self>,
            mut grad: $crate::layer::Gradient<'_, Self>,
        ) {
            $crate::kernels::once! {
                #[track_caller]
                fn run_back<'a, F: Float>(
                    cell: &'a $cell<F>,
                    x: &'a $crate::layer::Sequence<'a, F>,
                    dy: ndarray::ArrayView3<'a, F>,
                    dstate: Option<$crate::recurrence::StateViewMut<'a, F>>,
                    cache: &'a mut $crate::recurrence::CellCache<$cell<F>>,
                    grad: $crate::layer::Gradient<'a, $cell<F>>,
                ) {
                    $crate::recurrence::backward(cell, x, dy, dstate, cache, grad);
                }
            }
            let dstate = dstate.as_mut().map(|dstate| dstate.reborrow());
            run_back(self, &x.reborrow(), dy.reborrow(), dstate, cache, grad.reborrow());
        }
    };
}
pub(crate) use compiled_loop;
