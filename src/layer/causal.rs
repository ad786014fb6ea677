//! Layers that run on a stream.

use std::any::Any;

use ndarray::{ArrayView2, Axis};

use super::layer_stage::LayerStage;
use super::sequence::Sequence;
use super::stage::Stages;
use super::traits::Layer;
use crate::base::error::mismatch;

/// A layer whose output at step `t` needs no input after `t`: it can run on a stream, one step at a time. It keeps the number
/// of steps.
pub trait Causal: Layer {
    /// One step, `T = 1`: `[B, O]`. Nothing is kept for a backward pass.
    ///
    /// # Panics
    /// Panics if `x` has more than one step, and as [`forward`](Layer::forward).
    #[track_caller]
    fn step<'c, 'x>(
        &self,
        x: impl Into<Sequence<'x, Self::Elem>>,
        state: &mut Self::State,
        cache: &'c mut Self::Cache,
    ) -> ArrayView2<'c, Self::Elem> {
        let x = x.into();
        let (steps, batch) = x.dims();
        if steps != 1 {
            mismatch("step", "x", &"one step, [1, B, ..]", &format_args!("[{steps}, {batch}, ..]"))
        }
        self.forward_pass(&x.infer(), state, cache).index_axis_move(Axis(0), 0)
    }

    /// Adds the layer to those of a [`Stream`](crate::stream::Stream); by default, its forward pass for each step.
    #[doc(hidden)]
    fn stages(&self, stages: &mut Stages<Self::Elem>) {
        stages.push(LayerStage::boxed(self, stages.features()));
    }
}

/// [`Causal::stages`] of a layer in a struct made by [`sequential!`](crate::sequential), where the compiler cannot see that the
/// layers' element types are the struct's.
pub fn add_stages<L: Causal, F: 'static>(layer: &L, stages: &mut Stages<F>) {
    let stages: &mut dyn Any = stages;
    layer.stages(stages.downcast_mut().expect("layers of one element type"));
}
