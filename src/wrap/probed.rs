//! A layer whose gradient norms are recorded.

use std::fmt;

use ndarray::{ArrayRef3, ArrayView3};

use super::forwarding::forwarding_layer;
use crate::base::error::mismatch;
use crate::base::{GradientProbe, LayerFlow, RecordsState, StateRecorder, norm};
use crate::layer::{Gradient, Layer, Sequence};
use crate::parameters;

const NAME: &str = "Probed";

/// Any layer, with the norm of the gradient of its output recorded by a [`GradientProbe`].
///
/// In every other respect it is the layer inside, with the same numbers, parameter names, state and cache.
///
/// ```
/// use gradflow::{
///     compose::{PreNormBlock, Stacked}, layers::Nonlinearity, rand::{SeedableRng, rngs::StdRng},
///     wrap::{GradientProbe, Probed},
/// };
///
/// let (rng, probe) = (&mut StdRng::seed_from_u64(0), GradientProbe::new());
/// let net = Stacked::build(50, |k| {
///     Probed::new(format!("block {k}"), PreNormBlock::<f32>::new(8, 16, Nonlinearity::Gelu, rng), &probe)
/// });
/// ```
pub struct Probed<L: Layer> {
    /// The layer inside.
    pub layer: L,
    probe: GradientProbe,
    at: usize,
    recorder: Option<fn(&mut L::Cache) -> &mut StateRecorder>,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for Probed<L> { layer as ""; skip probe, at, recorder } }

// Derived impls would require the same of the cache.
impl<L: Layer> Clone for Probed<L> {
    fn clone(&self) -> Self {
        Probed { layer: self.layer.clone(), probe: self.probe.clone(), ..*self }
    }
}

impl<L: Layer + fmt::Debug> fmt::Debug for Probed<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(NAME).field("layer", &self.layer).field("at", &self.at).finish_non_exhaustive()
    }
}

/// Equal if the layers inside are.
impl<L: Layer + PartialEq> PartialEq for Probed<L> {
    fn eq(&self, other: &Self) -> bool {
        self.layer == other.layer
    }
}

impl<L: Layer> Probed<L> {
    /// Records `‖dL/dy_t‖` of `layer` under `name`.
    ///
    /// # Panics
    /// Panics if `probe` already has a layer of this name.
    #[track_caller]
    pub fn new(name: impl Into<String>, layer: L, probe: &GradientProbe) -> Self {
        let name = name.into();
        let mut layers = probe.layers();
        if layers.iter().any(|layer| layer.name == name) {
            drop(layers);
            mismatch(NAME, "name", &"a name that the probe does not have yet", &format_args!("{name:?} again"))
        }
        layers.push(LayerFlow { name, ..LayerFlow::default() });
        Probed { layer, probe: probe.clone(), at: layers.len() - 1, recorder: None }
    }

    /// Also records `‖dL/dh_t‖` of the recurrent cell `layer` and, for an LSTM, `‖dL/dc_t‖`.
    ///
    /// # Panics
    /// Panics if `probe` already has a layer of this name.
    #[track_caller]
    pub fn recurrent(name: impl Into<String>, layer: L, probe: &GradientProbe) -> Self
    where
        L::Cache: RecordsState,
    {
        Probed { recorder: Some(L::Cache::recorder), ..Self::new(name, layer, probe) }
    }
}

impl<L: Layer> Probed<L> {
    /// The input of the layer inside.
    fn given<'s>(&self, x: Sequence<'s, L::Elem>) -> Sequence<'s, L::Elem> {
        x
    }

    fn run_backward<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut L::Cache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let recording = self.probe.is_recording();
        if let Some(recorder) = self.recorder {
            recorder(cache).record_to(recording.then(|| (self.probe.clone(), self.at)));
        }
        let (grad, how) = grad.parts();
        let dx = self.layer.backward_pass(x, dy, dstate, cache, Gradient::new(&mut grad.layer, how));
        if recording {
            let (steps, batch, features) = dy.dim();
            let y = self.layer.output_sequence(&x.reborrow(), dy.view());
            let output = &mut self.probe.layers()[self.at].output;
            output.clear();
            output.extend((0..steps).map(|t| {
                let valid = (0..batch).filter(|&b| y.valid(t, b));
                norm(valid.flat_map(|b| (0..features).map(move |k| &dy[[t, b, k]])))
            }));
        }
        dx
    }
}
forwarding_layer! { Probed<L> as layer }
