//! Weights that are dropped at random.

use ndarray::{ArrayRef3, ArrayView3};
use rand::Rng;

use crate::base::error::mismatch;
use crate::base::random::{Mask, drop_row};
use crate::base::{Expect, RandomDrop, Size, SizeError, TensorsExt, check_gradient, check_number};
use crate::kernels::{Accumulate, Float};
use crate::layer::kit::{Pending, opaque_debug};
use crate::layer::{Causal, Gradient, Graph, Internal, Layer, Sequence, Signal, Stages, Steps, Summary, Unsupported};
use crate::parameters;

const NAME: &str = "WeightDrop";

/// Weight drop (Merity, Keskar and Socher 2017): DropConnect (Wan et al. 2013) for the weights by which a recurrent layer
/// multiplies h; the recurrence itself is unchanged.
///
/// ```text
/// train(seed):      W̃_ij = m_ij W_ij        m_ij = 0 with probability p, else 1 / (1 - p)
/// eval(), infer():  W̃ = W
///
/// dL/dW_ij = m_ij dL/dW̃_ij
/// ```
///
/// Maps `[T, B, I]` to `[T, B, O]` as the layer inside does, and has its parameters, names and state. By default, W is every
/// `weight_hh` of the layer, each with its own mask.
///
/// A mask is drawn once per pass: it is the same at all steps and for all sequences, forward and backward. It is a hash of the
/// seed, the wrapper's id and the element's place, as in [`Dropout`](crate::layers::Dropout). So it does not depend on threads or
/// on how a batch is split, and chunks with the same seed have the same mask; give each training step a new seed. In evaluation and
/// inference, the layer runs as it does without the wrapper. A NaN is not dropped.
///
/// [`recurrent_dropout`](crate::recurrent::CellBuilder::recurrent_dropout) drops units of h, with a mask for each sequence; both
/// may be combined.
///
/// # Panics
/// `forward` panics if `x` has no mode, that is, neither [`train`](Sequence::train), [`eval`](Sequence::eval) nor
/// [`infer`](Sequence::infer) was called.
///
/// ```
/// use gradflow::{
///     Layer, Sequence, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::Lstm, wrap::WeightDrop,
/// };
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let lstm = Lstm::<f32>::builder(3, 16).num_layers(2).build(rng);
/// let layer = WeightDrop::new(lstm, 0.5, rng);
/// let (x, mut state, mut cache) = (Array3::ones((5, 2, 3)), layer.zero_state(2), layer.cache());
/// let y = layer.forward(Sequence::from(&x).train(7), &mut state, &mut cache).to_owned();
/// let (dropped, mut state) = (layer.dropped(7), layer.zero_state(2));
/// assert_eq!(dropped.forward(&x, &mut state, &mut dropped.cache()), y);
/// assert!(dropped.cell(1, 0).weight_hh.iter().any(|&w| w == 0.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WeightDrop<L: Layer> {
    /// The layer, with its full weights.
    pub layer: L,
    drop: RandomDrop,
    /// The indices of the layer's tensors that are dropped.
    indices: Vec<usize>,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for WeightDrop<L> { layer as ""; skip drop, indices } }

impl<L: Layer> WeightDrop<L> {
    /// Drops each element of the weights called `weight_hh` with probability `p`: that of a cell, those of all layers and
    /// directions of a [`Recurrent`](crate::recurrent::Recurrent) model (`weight_hh_l0`), or those of all cells of a model
    /// (`1.weight_hh`).
    ///
    /// # Panics
    /// Panics if there is no such weight, or if `p` is not in `0..1`, before or after rounding to the element type.
    #[track_caller]
    pub fn new(layer: L, p: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        let is_recurrent = |name: &str| name.rsplit('.').next().is_some_and(|name| name.starts_with("weight_hh"));
        let indices: Vec<_> = (0..layer.count()).filter(|&i| is_recurrent(&layer.name(i))).collect();
        if indices.is_empty() {
            let names = format!("a layer of {}", layer.names().join(", "));
            mismatch(NAME, "layer", &"one with a weight_hh; `WeightDrop::of` drops others", &names)
        }
        Self::of_indices(layer, indices, p, rng)
    }

    /// Drops each element of the tensors listed in `names` with probability `p`.
    ///
    /// # Panics
    /// Panics if `layer` lacks one of these tensors, if `names` is empty, or if `p` is not in `0..1`, before or after rounding to
    /// the element type.
    #[track_caller]
    pub fn of(layer: L, names: &[&str], p: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        if names.is_empty() {
            mismatch(NAME, "names", &"at least one", &"none")
        }
        let mut indices = Vec::new();
        for name in names {
            let Some(index) = (0..layer.count()).find(|&i| layer.name(i) == *name) else {
                mismatch(NAME, "names", &format_args!("some of {}", layer.names().join(", ")), name)
            };
            indices.push(index);
        }
        indices.sort_unstable();
        indices.dedup();
        Self::of_indices(layer, indices, p, rng)
    }

    #[track_caller]
    fn of_indices(layer: L, indices: Vec<usize>, p: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        let p = check_number::<L::Elem>(NAME, "p", Expect::Probability, p);
        WeightDrop { layer, drop: RandomDrop::new(NAME, p, rng), indices }
    }

    /// The probability with which an element is dropped.
    pub fn p(&self) -> f64 {
        self.drop.p
    }

    /// The layer with W̃, as a training pass with this seed runs it.
    pub fn dropped(&self, seed: u64) -> L {
        let mut layer = self.layer.clone();
        if let Some(mask) = self.drop.mask(NAME, Some(crate::base::Mode::Train { seed })) {
            self.write_weights(mask, &mut layer);
        }
        layer
    }

    /// Returns the layer inside.
    pub fn into_inner(self) -> L {
        self.layer
    }

    /// The dropped tensors, with the mask of each.
    fn masks(&self, mask: Mask) -> impl Iterator<Item = (usize, Mask)> {
        self.indices.iter().enumerate().map(move |(k, &i)| (i, mask.part(k)))
    }

    /// W̃, in a copy of the layer.
    fn write_weights(&self, mask: Mask, layer: &mut L) {
        for (i, mask) in self.masks(mask) {
            drop_row(mask, self.layer.tensor(i).1, layer.tensor_mut(i));
        }
    }

    /// The layer to run: the one inside, or the cache's with W̃.
    fn prepare<'c>(&'c self, mask: Option<Mask>, kept: &'c mut Option<L>) -> &'c L {
        let Some(mask) = mask else { return &self.layer };
        match kept {
            Some(layer) => layer.copy_from(&self.layer),
            None => *kept = Some(self.layer.clone()),
        }
        let layer = kept.as_mut().expect("there is one");
        self.write_weights(mask, layer);
        layer
    }
}

/// The cache of a [`WeightDrop`].
pub struct WeightDropCache<L: Layer> {
    pending: Pending,
    /// The mask of the last pass, if weights were dropped.
    mask: Option<Mask>,
    /// The layer with W̃ and, after a backward pass, m ∘ dL/dW̃.
    layer: Option<L>,
    /// The gradient with dL/dW̃, to be added.
    grad: Option<L>,
    cache: L::Cache,
}

opaque_debug! { WeightDropCache<L: Layer> }

impl<L: Layer> Default for WeightDropCache<L> {
    fn default() -> Self {
        let (pending, cache) = (Pending::default(), L::Cache::default());
        WeightDropCache { pending, mask: None, layer: None, grad: None, cache }
    }
}

impl<L: Layer> Layer for WeightDrop<L> {
    type Elem = L::Elem;
    type State = L::State;
    type Cache = WeightDropCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.layer.output_size(input)
    }

    fn output_steps(&self) -> Steps {
        self.layer.output_steps()
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        summary.add::<L::Elem>(name, NAME, &());
        summary.inside(|summary| self.layer.describe(name, summary));
    }

    fn zero_state(&self, batch: usize) -> L::State {
        self.layer.zero_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        self.layer.add_to_graph(graph, x)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &'c mut WeightDropCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let WeightDropCache { pending, mask, layer, cache, .. } = cache;
        let mark = pending.begin(self, x);
        *mask = self.drop.mask(NAME, x.mode());
        let y = self.prepare(*mask, layer).forward_pass(x, state, cache);
        mark.set();
        y
    }

    fn forward_onto(
        &self,
        x: &Sequence<'_, L::Elem>,
        skip: ArrayView3<'_, L::Elem>,
        state: &mut L::State,
        cache: &mut WeightDropCache<L>,
        y: &mut ArrayRef3<L::Elem>,
        internal: Internal,
    ) {
        let WeightDropCache { pending, mask, layer, cache, .. } = cache;
        let mark = pending.begin(self, x);
        *mask = self.drop.mask(NAME, x.mode());
        self.prepare(*mask, layer).forward_onto(x, skip, state, cache, y, internal);
        mark.set();
    }

    fn output<'c>(&self, cache: &'c WeightDropCache<L>) -> ArrayView3<'c, L::Elem> {
        self.layer.output(&cache.cache)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut WeightDropCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let WeightDropCache { pending, mask, layer, grad: dlayer, cache } = cache;
        if mask.is_some() {
            pending.expect_another_seed(NAME, x);
        }
        // The layer inside checks the shape of `dy`.
        pending.take_with_steps(NAME, self, x, dy, [dy.dim().0, dy.dim().2]);
        let (grad, how) = grad.parts();
        check_gradient(NAME, self, grad);
        let Some(mask) = *mask else {
            return self.layer.backward_pass(x, dy, dstate, cache, Gradient::new(&mut grad.layer, how));
        };
        let layer = layer.as_mut().expect("a forward pass has made it");
        let sum = &mut grad.layer;
        match how {
            Accumulate::Overwrite => {
                let dx = layer.backward_pass(x, dy, dstate, cache, Gradient::overwrite(sum));
                for (i, mask) in self.masks(mask) {
                    let (masked, zero) = (layer.tensor_mut(i), L::Elem::of(0.0));
                    drop_row(mask, sum.values(i), masked);
                    // As if added to zeros: no zero is negative.
                    sum.tensor_mut(i).iter_mut().zip(masked).for_each(|(sum, masked)| *sum = *masked + zero);
                }
                dx
            }
            Accumulate::Add => {
                let dlayer = dlayer.get_or_insert_with(|| layer.clone());
                let dx = layer.backward_pass(x, dy, dstate, cache, Gradient::overwrite(dlayer));
                for (i, mask) in self.masks(mask) {
                    let masked = layer.tensor_mut(i);
                    drop_row(mask, dlayer.values(i), masked);
                    dlayer.tensor_mut(i).copy_from_slice(masked);
                }
                sum.add_assign(dlayer);
                dx
            }
        }
    }
}

impl<L: Causal> Causal for WeightDrop<L> {
    fn stages(&self, stages: &mut Stages<L::Elem>) {
        self.layer.stages(stages);
    }
}
