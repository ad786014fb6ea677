//! A weight as a direction and a length.

use ndarray::{ArrayD, ArrayRef3, ArrayView3, Dimension, IxDyn};

use crate::base::error::mismatch;
use crate::base::tensors::out_of_range;
use crate::base::{NamedTensors, Size, SizeError, Tensors, TensorsExt, check_gradient, check_shape};
use crate::kernels::{Float, math::sum, vectorised};
use crate::layer::kit::{Pending, opaque_debug};
use crate::layer::{Causal, Gradient, Graph, Internal, Layer, Sequence, Signal, Stages, Steps, Summary, Unsupported};

const NAME: &str = "WeightNorm";

/// Weight normalisation (Salimans and Kingma 2016) of one of a layer's weights: each output's row of it is split into a direction v
/// and a length g, which are learned separately.
///
/// ```text
/// W_o = g_o v_o / |v_o|          o: an output, W_o its row, or its `[I, K]` of a convolution
///
/// dL/dg_o = dL/dW_o · v_o / |v_o|          dL/dv_o = g_o / |v_o| (dL/dW_o - dL/dg_o v_o / |v_o|)
/// ```
///
/// Maps `[T, B, I]` to `[T, B, O]` as the layer inside does, and has its state. The parameters are the layer's, with v in place of
/// the weight, and g, `[O, 1, ..]`. For `weight`, they are called `weight_v` and `weight_g`, as in `torch.nn.utils.weight_norm`.
/// The gradient of v is orthogonal to v, so steps along it only make v longer, and later steps smaller.
///
/// Each pass computes W anew, in its cache. A [`Stream`](crate::stream::Stream) computes it once. For inference,
/// [`into_inner`](WeightNorm::into_inner) returns the layer with W, which can be [`Prepacked`](crate::wrap::Prepacked).
///
/// A row of v that is zero has no direction: its W is NaN, as in PyTorch.
///
/// ```
/// use gradflow::{TensorsExt, layers::CausalConv1d, rand::{SeedableRng, rngs::StdRng}, wrap::WeightNorm};
///
/// let conv = CausalConv1d::<f64>::new(3, 4, 2, &mut StdRng::seed_from_u64(0));
/// let layer = WeightNorm::new(conv.clone());
/// assert_eq!(layer.names(), ["weight_v", "bias", "weight_g"]);
/// let same = layer.into_inner(); // it starts as the layer that it was made of
/// assert!((&same.weight - &conv.weight).iter().all(|difference| difference.abs() < 1e-15));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WeightNorm<L: Layer> {
    /// The layer, with v in place of the weight.
    pub layer: L,
    /// g, `[O, 1, ..]`, with as many axes as the weight.
    pub gain: ArrayD<L::Elem>,
    /// The index of v among the layer's tensors.
    index: usize,
}

impl<L: Layer> WeightNorm<L> {
    /// Normalises the tensor called `weight`. At first, the result equals `layer`: g is the length of each row.
    ///
    /// # Panics
    /// Panics if `layer` has no such tensor.
    #[track_caller]
    pub fn new(layer: L) -> Self {
        Self::of(layer, "weight")
    }

    /// Normalises the tensor called `name`, such as `weight_hh` of a cell or `1.weight` in a model.
    ///
    /// # Panics
    /// Panics if `layer` has no such tensor.
    #[track_caller]
    pub fn of(layer: L, name: &str) -> Self {
        let Some(index) = (0..layer.count()).find(|&i| layer.name(i) == name) else {
            mismatch(NAME, "name", &format_args!("one of {}", layer.names().join(", ")), &name)
        };
        let (shape, v) = layer.tensor(index);
        let lengths = v.chunks_exact(row_len(shape).max(1)).map(length).collect();
        let gain = ArrayD::from_shape_vec(gain_shape(shape), lengths).expect("a length for each row");
        WeightNorm { layer, gain, index }
    }

    /// Returns the layer inside, with W = g v / |v|.
    pub fn into_inner(self) -> L {
        self.effective()
    }

    fn effective(&self) -> L {
        let mut layer = self.layer.clone();
        self.write_weight(&mut layer);
        layer
    }

    /// Writes W = g v / |v| to a layer that has v.
    #[track_caller]
    fn write_weight(&self, layer: &mut L) {
        let (shape, v) = self.layer.tensor(self.index);
        check_shape(NAME, "gain", gain_shape(shape).slice(), self.gain.shape());
        normalise(row_len(shape), self.gain.values(0), v, layer.tensor_mut(self.index));
    }

    /// The layer with W, kept from pass to pass.
    #[track_caller]
    fn prepare<'c>(&self, kept: &'c mut Option<L>) -> &'c L {
        match kept {
            Some(layer) => layer.copy_from(&self.layer),
            None => *kept = Some(self.layer.clone()),
        }
        let layer = kept.as_mut().expect("there is one");
        self.write_weight(layer);
        layer
    }
}

/// The number of elements of each row.
fn row_len(shape: &[usize]) -> usize {
    shape.iter().skip(1).product()
}

fn gain_shape(shape: &[usize]) -> IxDyn {
    let mut shape = IxDyn(shape);
    shape.slice_mut().iter_mut().skip(1).for_each(|size| *size = 1);
    shape
}

fn length<F: Float>(row: &[F]) -> F {
    sum([row], |[v]| v * v).sqrt()
}

vectorised! {
    /// weight = g v / |v|, row by row.
    fn normalise<'a, F: Float>(width: usize, gain: &'a [F], v: &'a [F], weight: &'a mut [F]) {
        for ((v, weight), &gain) in v.chunks_exact(width).zip(weight.chunks_exact_mut(width)).zip(gain) {
            let scale = gain / length(v);
            weight.iter_mut().zip(v).for_each(|(weight, &v)| *weight = scale * v);
        }
    }
}

vectorised! {
    /// Adds dg and dv, row by row.
    fn normalise_backward<'a, F: Float>(
        width: usize,
        gain: &'a [F],
        v: &'a [F],
        dweight: &'a [F],
        dgain: &'a mut [F],
        dv: &'a mut [F],
    ) {
        let rows = v.chunks_exact(width).zip(dweight.chunks_exact(width)).zip(dv.chunks_exact_mut(width));
        for (((v, dweight), dv), (&gain, dgain)) in rows.zip(gain.iter().zip(dgain)) {
            let length = length(v);
            let along = sum([v, dweight], |[v, dweight]| v * dweight) / length;
            *dgain += along;
            let (scale, along) = (gain / length, along / length);
            for ((dv, &v), &dweight) in dv.iter_mut().zip(v).zip(dweight) {
                *dv += scale * (dweight - along * v);
            }
        }
    }
}

impl<L: Layer> Tensors<L::Elem> for WeightNorm<L> {
    fn count(&self) -> usize {
        self.layer.count() + 1
    }
    fn name(&self, i: usize) -> String {
        match i.checked_sub(self.layer.count()) {
            None if i == self.index => self.layer.name(i) + "_v",
            None => self.layer.name(i),
            Some(0) => self.layer.name(self.index) + "_g",
            Some(_) => out_of_range(i),
        }
    }
    fn tensor(&self, i: usize) -> (&[usize], &[L::Elem]) {
        match i.checked_sub(self.layer.count()) {
            None => self.layer.tensor(i),
            Some(0) => self.gain.tensor(0),
            Some(_) => out_of_range(i),
        }
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [L::Elem] {
        match i.checked_sub(self.layer.count()) {
            None => self.layer.tensor_mut(i),
            Some(0) => self.gain.tensor_mut(0),
            Some(_) => out_of_range(i),
        }
    }
}

/// The cache of a [`WeightNorm`].
pub struct WeightNormCache<L: Layer> {
    pending: Pending,
    /// The layer with W.
    layer: Option<L>,
    /// The gradient with dL/dW.
    grad: Option<L>,
    cache: L::Cache,
}

opaque_debug! { WeightNormCache<L: Layer> }

impl<L: Layer> Default for WeightNormCache<L> {
    fn default() -> Self {
        WeightNormCache { pending: Pending::default(), layer: None, grad: None, cache: L::Cache::default() }
    }
}

impl<L: Layer> Layer for WeightNorm<L> {
    type Elem = L::Elem;
    type State = L::State;
    type Cache = WeightNormCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.layer.output_size(input)
    }

    fn output_steps(&self) -> Steps {
        self.layer.output_steps()
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        let gain = (self.name(self.layer.count()), self.gain.shape().to_vec(), self.gain.values(0).to_vec());
        summary.add(name, NAME, &NamedTensors::new([gain]));
        summary.inside(|summary| self.layer.describe(name, summary));
    }

    fn zero_state(&self, batch: usize) -> L::State {
        self.layer.zero_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        self.effective().add_to_graph(graph, x)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &'c mut WeightNormCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let WeightNormCache { pending, layer, cache, .. } = cache;
        let mark = pending.begin(self, x);
        let y = self.prepare(layer).forward_pass(x, state, cache);
        mark.set();
        y
    }

    fn forward_onto(
        &self,
        x: &Sequence<'_, L::Elem>,
        skip: ArrayView3<'_, L::Elem>,
        state: &mut L::State,
        cache: &mut WeightNormCache<L>,
        y: &mut ArrayRef3<L::Elem>,
        internal: Internal,
    ) {
        let WeightNormCache { pending, layer, cache, .. } = cache;
        let mark = pending.begin(self, x);
        self.prepare(layer).forward_onto(x, skip, state, cache, y, internal);
        mark.set();
    }

    fn output<'c>(&self, cache: &'c WeightNormCache<L>) -> ArrayView3<'c, L::Elem> {
        self.layer.output(&cache.cache)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut WeightNormCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let WeightNormCache { pending, layer, grad: dlayer, cache } = cache;
        // The layer inside checks the shape of `dy`.
        pending.take_with_steps(NAME, self, x, dy, [dy.dim().0, dy.dim().2]);
        let grad = grad.to_add();
        check_gradient(NAME, self, grad);
        let layer = layer.as_ref().expect("a forward pass has made it");
        let dlayer = dlayer.get_or_insert_with(|| layer.clone());
        let dx = layer.backward_pass(x, dy, dstate, cache, Gradient::overwrite(dlayer));
        for i in 0..layer.count() {
            let d = dlayer.values(i);
            if i == self.index {
                let (shape, v) = self.layer.tensor(i);
                let (dv, dgain) = (grad.layer.tensor_mut(i), grad.gain.tensor_mut(0));
                normalise_backward(row_len(shape), self.gain.values(0), v, d, dgain, dv);
            } else {
                grad.layer.tensor_mut(i).iter_mut().zip(d).for_each(|(sum, &d)| *sum += d);
            }
        }
        dx
    }
}

impl<L: Causal> Causal for WeightNorm<L> {
    fn stages(&self, stages: &mut Stages<L::Elem>) {
        self.effective().stages(stages);
    }
}
