//! Wrappers whose state and cache are those of the layer inside.

/// Implements [`Layer`](crate::layer::Layer) and [`Causal`](crate::layer::Causal) for a wrapper of one layer. Every method forwards
/// to `field`, so none can be forgotten. The wrapper's own methods are `given`, which returns the layer's input, and
/// `run_backward`.
macro_rules! forwarding_layer {
    ($wrapper:ident<$l:ident> as $field:ident) => {
        impl<$l: $crate::layer::Layer> $crate::layer::Layer for $wrapper<$l> {
            type Elem = $l::Elem;
            type State = $l::State;
            type Cache = $l::Cache;

            fn output_size(&self, input: $crate::base::Size) -> Result<usize, $crate::base::SizeError> {
                self.$field.output_size(input)
            }

            fn output_steps(&self) -> $crate::layer::Steps {
                self.$field.output_steps()
            }

            fn describe(&self, name: &str, summary: &mut $crate::layer::Summary) {
                summary.add::<$l::Elem>(name, stringify!($wrapper), &());
                summary.inside(|summary| self.$field.describe(name, summary));
            }

            fn zero_state(&self, batch: usize) -> $l::State {
                self.$field.zero_state(batch)
            }

            fn add_to_graph(
                &self,
                graph: &mut $crate::layer::Graph<$l::Elem>,
                x: $crate::layer::Signal,
            ) -> Result<$crate::layer::Signal, $crate::layer::Unsupported> {
                self.$field.add_to_graph(graph, x)
            }

            fn forward_pass<'c>(
                &self,
                x: &$crate::layer::Sequence<'_, $l::Elem>,
                state: &mut $l::State,
                cache: &'c mut $l::Cache,
            ) -> ndarray::ArrayView3<'c, $l::Elem> {
                self.$field.forward_pass(&self.given(x.reborrow()), state, cache)
            }

            fn forward_onto(
                &self,
                x: &$crate::layer::Sequence<'_, $l::Elem>,
                skip: ndarray::ArrayView3<'_, $l::Elem>,
                state: &mut $l::State,
                cache: &mut $l::Cache,
                y: &mut ndarray::ArrayRef3<$l::Elem>,
                internal: $crate::layer::Internal,
            ) {
                self.$field.forward_onto(&self.given(x.reborrow()), skip, state, cache, y, internal);
            }

            fn output<'c>(&self, cache: &'c $l::Cache) -> ndarray::ArrayView3<'c, $l::Elem> {
                self.$field.output(cache)
            }

            fn backward_pass<'c>(
                &self,
                x: &$crate::layer::Sequence<'_, $l::Elem>,
                dy: &ndarray::ArrayRef3<$l::Elem>,
                dstate: Option<&mut $l::State>,
                cache: &'c mut $l::Cache,
                grad: $crate::layer::Gradient<'_, Self>,
            ) -> ndarray::ArrayView3<'c, $l::Elem> {
                self.run_backward(x, dy, dstate, cache, grad)
            }
        }

        impl<$l: $crate::layer::Causal> $crate::layer::Causal for $wrapper<$l> {
            fn stages(&self, stages: &mut $crate::layer::Stages<$l::Elem>) {
                self.$field.stages(stages);
            }
        }
    };
}
pub(super) use forwarding_layer;
