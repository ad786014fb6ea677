//! The cache and the passes of all layers that change the number of steps.

use ndarray::{Array2, Array3, ArrayRef3};

use crate::kernels::Float;
use crate::layer::Sequence;
use crate::layer::kit::{Pending, reuse};

/// The cache of a layer that changes the number of steps.
#[derive(Clone, Debug, Default)]
pub struct TimeCache<F> {
    pub(super) pending: Pending,
    pub(super) y: Array3<F>,          // [T', B, D']
    pub(super) dx: Array3<F>,         // [T, B, D]
    pub(super) chosen: Array2<usize>, // [B, D]: the step of each maximum
}

impl<F: Float> TimeCache<F> {
    /// Begins a forward pass over `x`, with zeros for an output of `steps` steps.
    pub(super) fn begin(&mut self, x: &Sequence<'_, F>, steps: usize, features: usize) {
        reuse(&mut self.y, (steps, x.dims().1, features));
        self.y.fill(F::zero());
    }

    /// Begins the backward pass: returns zeros for `dL/dx`, or `None` if it is not wanted.
    #[track_caller]
    pub(super) fn begin_backward(
        &mut self,
        layer: &str,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
    ) -> Option<&mut Array3<F>> {
        let (steps, _, features) = self.y.dim();
        self.pending.take_with_steps(layer, &(), x, dy, [steps, features]);
        let x_features = x.features(layer, None);
        let (steps, batch, features) = x_features.dim();
        let wanted = x.wants_gradient();
        reuse(&mut self.dx, (steps, batch, if wanted { features } else { 0 }));
        self.dx.fill(F::zero());
        wanted.then_some(&mut self.dx)
    }
}

/// Implements [`Layer`](crate::Layer) for a layer without parameters or state that changes the number of steps. It uses the layer's
/// methods `size(input)`, which returns the number of output features or an error, `steps()` and `graph_value(graph, x)`, and
/// functions for both passes.
macro_rules! time_layer {
    ($layer:ident, $forward:ident, $backward:ident) => {
        impl<F: $crate::kernels::Float> $crate::layer::Layer for $layer<F> {
            type Elem = F;
            type State = ();
            type Cache = $crate::layers::time::TimeCache<F>;

            fn output_size(&self, input: $crate::base::Size) -> Result<usize, $crate::base::SizeError> {
                self.size(input)
            }

            fn output_steps(&self) -> $crate::layer::Steps {
                $crate::layer::Steps::Count(self.steps())
            }

            fn zero_state(&self, _batch: usize) {}

            fn add_to_graph(
                &self,
                graph: &mut $crate::layer::Graph<F>,
                x: $crate::layer::Signal,
            ) -> Result<$crate::layer::Signal, $crate::layer::Unsupported> {
                let value = self.graph_value(graph, x)?;
                Ok(x.with_steps(value, self.steps()))
            }

            fn forward_pass<'c>(
                &self,
                x: &$crate::layer::Sequence<'_, F>,
                _: &mut (),
                cache: &'c mut Self::Cache,
            ) -> ndarray::ArrayView3<'c, F> {
                let mut pending = std::mem::take(&mut cache.pending);
                let mark = pending.begin(&(), x);
                self.expect_size(x);
                $forward(self, &x.reborrow(), cache);
                mark.set();
                cache.pending = pending;
                cache.y.view()
            }

            fn output<'c>(&self, cache: &'c Self::Cache) -> ndarray::ArrayView3<'c, F> {
                cache.y.view()
            }

            fn backward_pass<'c>(
                &self,
                x: &$crate::layer::Sequence<'_, F>,
                dy: &ndarray::ArrayRef3<F>,
                _: Option<&mut ()>,
                cache: &'c mut Self::Cache,
                _: $crate::layer::Gradient<'_, Self>,
            ) -> ndarray::ArrayView3<'c, F> {
                $backward(self, &x.reborrow(), dy, cache);
                cache.dx.view()
            }
        }
    };
}
pub(super) use time_layer;
