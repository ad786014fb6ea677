//! Layers of one type, one after another.

use ndarray::{ArrayRef3, ArrayView3};

use crate::base::error::mismatch;
use crate::base::tensors::join;
use crate::base::{Size, SizeError, TensorsExt};
use crate::layer::kit::opaque_debug;
use crate::layer::{Causal, Gradient, Graph, Internal, Layer, Sequence, Signal, Stages, Steps, Summary, Unsupported};
use crate::parallel::{in_pass, product_work};
use crate::parameters;

const NAME: &str = "Stacked";

/// Any number of layers of one type, one after another.
///
/// Parameters are named by position, `0.weight`, `1.weight` …, as in PyTorch's `nn.Sequential`. With
/// [`BoxLayer`](crate::compose::BoxLayer) the layers can be of different types, chosen at run time.
///
/// ```
/// use gradflow::{Layer, compose::{Residual, Stacked}, rand::{SeedableRng, rngs::StdRng}, recurrent::GruCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let net = Stacked::build(4, |_| Residual::new(GruCell::<f32>::new(8, 8, rng)).scaled(0.5));
/// assert_eq!(net.zero_state(3).len(), 4);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Stacked<L> {
    layers: Vec<L>,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for Stacked<L> { layers as "" } }

impl<L: Layer> Stacked<L> {
    /// A stack of these layers, first to last.
    ///
    /// # Panics
    /// Panics if `layers` is empty.
    #[track_caller]
    pub fn new(layers: Vec<L>) -> Self {
        assert!(!layers.is_empty(), "{NAME}: expected at least one layer, got none");
        Stacked { layers }
    }

    /// `depth` layers, made by `layer` from their position.
    ///
    /// # Panics
    /// Panics if `depth` is 0.
    #[track_caller]
    pub fn build(depth: usize, layer: impl FnMut(usize) -> L) -> Self {
        Self::new((0..depth).map(layer).collect())
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[L] {
        &self.layers
    }

    /// The layers, first to last.
    pub fn layers_mut(&mut self) -> &mut [L] {
        &mut self.layers
    }
}

/// The cache of a [`Stacked`].
pub struct StackedCache<L: Layer>(Vec<L::Cache>);

opaque_debug! { StackedCache<L: Layer> }

impl<L: Layer> Default for StackedCache<L> {
    fn default() -> Self {
        StackedCache(Vec::new())
    }
}

impl<L: Layer> Stacked<L> {
    /// The approximate work of a pass, and its number of products: layers of one type have the same work, mostly in two products
    /// each.
    fn work(&self, x: &Sequence<'_, L::Elem>) -> (u64, u64) {
        let (steps, batch) = x.dims();
        let weights = self.layers.first().map_or(0, |layer| layer.element_count());
        let layers = self.layers.len() as u64;
        (product_work(steps * batch, weights).saturating_mul(layers), (2 * layers).max(1))
    }
}

impl<L: Layer> Layer for Stacked<L> {
    type Elem = L::Elem;
    type State = Vec<L::State>;
    type Cache = StackedCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let mut sizes = (0, input);
        for (k, layer) in self.layers.iter().enumerate() {
            let features = layer.output_size(sizes.1).map_err(|error| error.inside(k))?;
            sizes = (features, Size::Features(features));
        }
        Ok(sizes.0)
    }

    fn output_steps(&self) -> Steps {
        steps_after(&self.layers)
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        for (k, layer) in self.layers.iter().enumerate() {
            layer.describe(&join(name, k.to_string()), summary);
        }
    }

    fn zero_state(&self, batch: usize) -> Vec<L::State> {
        self.layers.iter().map(|layer| layer.zero_state(batch)).collect()
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        let mut signal = x;
        for (k, layer) in self.layers.iter().enumerate() {
            signal = graph.inside(&k.to_string(), |graph| layer.add_to_graph(graph, signal))?;
        }
        Ok(signal)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut Vec<L::State>,
        cache: &'c mut StackedCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        self.expect_size(x);
        check_count("state", self.layers.len(), state.len());
        in_pass(
            || self.work(x),
            || {
                cache.0.resize_with(self.layers.len(), L::Cache::default);
                let mut layers = self.layers.iter().zip(state).zip(&mut cache.0);
                let ((last, last_state), last_cache) = layers.next_back().expect("at least one layer");
                let mut input = x.reborrow();
                for ((layer, state), cache) in layers {
                    input = layer.output_sequence(&input, layer.forward_pass(&input, state, cache));
                }
                last.forward_pass(&input, last_state, last_cache)
            },
        )
    }

    fn forward_onto(
        &self,
        x: &Sequence<'_, L::Elem>,
        skip: ArrayView3<'_, L::Elem>,
        state: &mut Vec<L::State>,
        cache: &mut StackedCache<L>,
        y: &mut ArrayRef3<L::Elem>,
        internal: Internal,
    ) {
        self.expect_size(x);
        check_count("state", self.layers.len(), state.len());
        in_pass(
            || self.work(x),
            || {
                cache.0.resize_with(self.layers.len(), L::Cache::default);
                let mut layers = self.layers.iter().zip(state).zip(&mut cache.0);
                let ((last, last_state), last_cache) = layers.next_back().expect("at least one layer");
                let mut input = x.reborrow();
                for ((layer, state), cache) in layers {
                    input = layer.output_sequence(&input, layer.forward_pass(&input, state, cache));
                }
                last.forward_onto(&input, skip, last_state, last_cache, y, internal);
            },
        );
    }

    fn output<'c>(&self, cache: &'c StackedCache<L>) -> ArrayView3<'c, L::Elem> {
        let (layer, cache) = self.layers.last().zip(cache.0.last()).expect("a forward pass has filled the cache");
        layer.output(cache)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        mut dstate: Option<&mut Vec<L::State>>,
        cache: &'c mut StackedCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let (grad, how) = grad.parts();
        check_count("cache", self.layers.len(), cache.0.len());
        check_count("grad", self.layers.len(), grad.layers.len());
        if let Some(dstate) = &dstate {
            check_count("dstate", self.layers.len(), dstate.len());
        }
        in_pass(
            || self.work(x),
            || {
                let (first, mut rest) = cache.0.split_first_mut().expect("at least one layer");
                let mut d = dy.view();
                while let Some((own, before)) = std::mem::take(&mut rest).split_last_mut() {
                    let k = before.len() + 1;
                    let output = self.layers[k - 1].output(before.last().unwrap_or(first));
                    let input = x.with_output(steps_after(&self.layers[..k]), output);
                    let dstate = dstate.as_mut().map(|dstate| &mut dstate[k]);
                    d = self.layers[k].backward_pass(&input, &d, dstate, own, Gradient::new(&mut grad.layers[k], how));
                    rest = before;
                }
                let dstate = dstate.map(|dstate| &mut dstate[0]);
                self.layers[0].backward_pass(x, &d, dstate, first, Gradient::new(&mut grad.layers[0], how))
            },
        )
    }
}

/// The steps of the output of layers that run one after another.
fn steps_after<L: Layer>(layers: &[L]) -> Steps {
    layers.iter().fold(Steps::Same, |steps, layer| steps.then(layer.output_steps()))
}

#[track_caller]
fn check_count(argument: &str, expected: usize, got: usize) {
    if expected != got {
        mismatch(NAME, argument, &format_args!("one for each of {expected} layers"), &got)
    }
}

impl<L: Causal> Causal for Stacked<L> {
    fn stages(&self, stages: &mut Stages<L::Elem>) {
        self.layers.iter().for_each(|layer| layer.stages(stages));
    }
}
