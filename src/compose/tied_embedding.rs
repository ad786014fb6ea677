//! An embedding whose matrix is also the output projection.

use ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView3};

use crate::base::error::mismatch;
use crate::base::tensors::join;
use crate::base::{Size, SizeError, check_gradient, check_shape};
use crate::kernels::{Accumulate, Float, once};
use crate::layer::affine::{affine_on_runs, bias_gradient, input_gradient, weight_gradient};
use crate::layer::kit::{Pending, StandardLayout, opaque_debug, reuse};
use crate::layer::{Causal, Gradient, Graph, Layer, Sequence, Signal, Steps, Summary, Unsupported};
use crate::layers::Embedding;
use crate::layers::embedding::EmbeddingCache;
use crate::parameters;

const NAME: &str = "TiedEmbedding";

/// A language model with tied weights: an embedding, any layer, and a projection to logits by the embedding's own matrix
/// (Press and Wolf 2017; Inan, Khosravi and Socher 2017).
///
/// ```text
/// e_t = E[id_t]          h = layer(e)          z_t = E h_t + b
///
/// dL/dE[v] = Σ_t dL/dz_tv h_t + Σ_{t: id_t = v} dL/de_t          dL/db = Σ_t dL/dz_t          dL/dh_t = Eᵀ dL/dz_t
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | ids `[T, B]` of any integer type, each at least 0 and below V |
/// | `e`, `h` | `[T, B, D]`: the layer gives as many features as it takes |
/// | `z` | logits, `[T, B, V]`, for a [`SoftmaxCrossEntropy`](crate::loss::SoftmaxCrossEntropy) |
///
/// E is one tensor, `embedding.weight`: it is counted, clipped, stepped and saved once, and its gradient is the sum over both uses.
/// If the layer's output has another size, end it with a [`Linear`](crate::layers::Linear) to D. The state is the layer's.
///
/// Logits are products of h and vectors of E, so E should start smaller than in an embedding alone: uniform in ±0.1, or with a
/// standard deviation of 1/√D. The row of a [padding id](crate::layers::EmbeddingBuilder::padding_idx) gets no gradient from the
/// embedding, but it gets that of its logit, as in PyTorch.
///
/// ```
/// use gradflow::prelude::*;
/// use gradflow::{TensorsExt, compose::TiedEmbedding, layers::Init, rand::{SeedableRng, rngs::StdRng}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let embedding = Embedding::builder(50, 16).weight(Init::Uniform { bound: 0.1 }).build(rng);
/// let layer = (Lstm::<f32>::new(16, 32, rng), Linear::new(32, 16, rng));
/// let model = TiedEmbedding::new(embedding, layer).bias();
/// assert_eq!(model.output_size(gradflow::author::Size::Tokens), Ok(50));
/// assert_eq!((&*model.names()[0], &*model.names()[7]), ("embedding.weight", "bias"));
/// ```
///
/// # PyTorch's files
/// In PyTorch, `decoder.weight = encoder.weight` is one tensor under two names. To read such files, use
/// [`LoadOptions::tied`](crate::io::LoadOptions::tied).
#[derive(Clone, Debug, PartialEq)]
pub struct TiedEmbedding<L: Layer> {
    /// E, `[V, D]`.
    pub embedding: Embedding<L::Elem>,
    /// From D features to D.
    pub layer: L,
    /// b, `[V]`.
    pub bias: Option<Array1<L::Elem>>,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for TiedEmbedding<L> { embedding, layer, bias } }

impl<L: Layer> TiedEmbedding<L> {
    /// A model without a bias.
    ///
    /// # Panics
    /// Panics if the layer does not give as many features as the embedding has.
    #[track_caller]
    pub fn new(embedding: Embedding<L::Elem>, layer: L) -> Self {
        let tied = TiedEmbedding { embedding, layer, bias: None };
        if let Err(error) = tied.output_size(Size::Tokens) {
            panic!("{error}")
        }
        tied
    }

    /// Adds a bias to the projection, which starts as zeros.
    #[must_use]
    pub fn bias(self) -> Self {
        let bias = Some(Array1::default(self.embedding.weight.nrows()));
        TiedEmbedding { bias, ..self }
    }
}

/// The cache of a [`TiedEmbedding`].
pub struct TiedEmbeddingCache<L: Layer> {
    pending: Pending,
    embedding: EmbeddingCache<L::Elem>,
    layer: L::Cache,
    projection: Projection<L::Elem>,
}

/// Buffers of the projection.
struct Projection<F> {
    h_copy: StandardLayout<F>,
    dz_copy: StandardLayout<F>,
    z: Array3<F>,  // [T, B, V]
    dh: Array3<F>, // [T, B, D]
}

opaque_debug! { TiedEmbeddingCache<L: Layer> }

impl<L: Layer> Default for TiedEmbeddingCache<L> {
    fn default() -> Self {
        let none = || Array3::default((0, 0, 0));
        let (h_copy, dz_copy) = (StandardLayout::default(), StandardLayout::default());
        TiedEmbeddingCache {
            pending: Pending::default(),
            embedding: EmbeddingCache::default(),
            layer: L::Cache::default(),
            projection: Projection { h_copy, dz_copy, z: none(), dh: none() },
        }
    }
}

once! {
    /// `z = h Eᵀ + b`, left in the cache.
    #[track_caller]
    fn project<'a, F: Float>(
        h: &'a Sequence<'a, F>,
        weight: &'a Array2<F>,
        bias: Option<&'a Array1<F>>,
        cache: &'a mut Projection<F>,
    ) {
        let Projection { h_copy, z, .. } = cache;
        let (vocabulary, features) = weight.dim();
        if let Some(bias) = bias {
            check_shape(NAME, "bias", &[vocabulary], bias.shape());
        }
        let (steps, batch) = h.dims();
        let h_rows = h_copy.rows(h.features(NAME, Some(features)));
        reuse(z, (steps, batch, vocabulary));
        affine_on_runs(h, h_rows, weight, bias, z);
        h.zero_padding(z);
    }

    /// `dE` and `db`; `dh`, left in the cache.
    #[track_caller]
    fn project_back<'a, F: Float>(
        h: &'a Sequence<'a, F>,
        dz: &'a ArrayRef3<F>,
        weight: &'a Array2<F>,
        cache: &'a mut Projection<F>,
        dweight: &'a mut Array2<F>,
        dbias: Option<&'a mut Array1<F>>,
        how: Accumulate,
    ) {
        let Projection { h_copy, dz_copy, dh, .. } = cache;
        let (steps, batch) = h.dims();
        let h_rows = h_copy.rows(h.features(NAME, Some(weight.ncols())));
        let dz_rows = dz_copy.rows(dz.view());
        weight_gradient(h, dz_rows, h_rows, dweight, how);
        if let Some(dbias) = dbias {
            bias_gradient(h, dz_rows, dbias, how);
        }
        reuse(dh, (steps, batch, weight.ncols()));
        input_gradient(h, dz_rows, weight, dh);
    }
}

impl<L: Layer> Layer for TiedEmbedding<L> {
    type Elem = L::Elem;
    type State = L::State;
    type Cache = TiedEmbeddingCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let features = self.embedding.output_size(input).map_err(|error| error.inside("embedding"))?;
        let given = self.layer.output_size(Size::Features(features)).map_err(|error| error.inside("layer"))?;
        if given != features {
            let reason = format!(
                "takes a layer that gives as many features as the embedding has, {features}, got one that gives {given}: \
                 a Linear({given}, {features}) at its end would do"
            );
            return Err(SizeError::new(NAME, reason));
        }
        Ok(self.embedding.weight.nrows())
    }

    fn output_steps(&self) -> Steps {
        self.layer.output_steps()
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        let bias = self.bias.as_ref().map(|bias| ("bias".to_owned(), bias.shape().to_vec(), bias.to_vec()));
        summary.add(name, NAME, &crate::base::NamedTensors::new(bias));
        summary.inside(|summary| {
            self.embedding.describe(&join(name, "embedding".into()), summary);
            self.layer.describe(&join(name, "layer".into()), summary);
        });
    }

    fn zero_state(&self, batch: usize) -> L::State {
        self.layer.zero_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        let (e, weight) = graph.inside("embedding", |graph| Ok(self.embedding.add_with_weight(graph, x)))?;
        let h = graph.inside("layer", |graph| self.layer.add_to_graph(graph, e))?;
        let weight = graph.node("Transpose", &[weight], &[("perm", vec![1, 0].into())]);
        let mut z = graph.node("MatMul", &[h.value, weight], &[]);
        if let Some(bias) = &self.bias {
            let bias = graph.parameter("bias", &[bias.len()], bias.to_vec());
            z = graph.node("Add", &[z, bias], &[]);
        }
        Ok(h.with(z, self.embedding.weight.nrows()))
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut L::State,
        cache: &'c mut TiedEmbeddingCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let TiedEmbeddingCache { pending, embedding, layer, projection } = cache;
        let mark = pending.begin(&self.bias, x);
        self.expect_size(x);
        let e = self.embedding.output_sequence(x, self.embedding.forward_pass(x, &mut (), embedding));
        let h = self.layer.output_sequence(&e, self.layer.forward_pass(&e, state, layer));
        project(&h.reborrow(), &self.embedding.weight, self.bias.as_ref(), projection);
        mark.set();
        projection.z.view()
    }

    fn output<'c>(&self, cache: &'c TiedEmbeddingCache<L>) -> ArrayView3<'c, L::Elem> {
        cache.projection.z.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut L::State>,
        cache: &'c mut TiedEmbeddingCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let TiedEmbeddingCache { pending, embedding, layer, projection } = cache;
        let steps = self.output_steps().of(x.dims().0);
        pending.take_with_steps(NAME, &self.bias, x, dy, [steps, self.embedding.weight.nrows()]);
        let (grad, how) = grad.parts();
        check_gradient(NAME, &self.embedding, &grad.embedding);
        check_gradient(NAME, &self.bias, &grad.bias);
        let e = self.embedding.output_sequence(x, self.embedding.output(embedding));
        let h = self.layer.output_sequence(&e, self.layer.output(layer));
        let (weight, dweight) = (&self.embedding.weight, &mut grad.embedding.weight);
        project_back(&h.reborrow(), dy, weight, projection, dweight, grad.bias.as_mut(), how);
        let de = self.layer.backward_pass(&e, &projection.dh, dstate, layer, Gradient::new(&mut grad.layer, how));
        if de.dim() != (x.dims().0, x.dims().1, weight.ncols()) {
            let (steps, batch) = x.dims();
            let expected = format!("dx of [{steps}, {batch}, {}]", weight.ncols());
            mismatch(NAME, "layer", &expected, &format!("{:?}", de.shape()))
        }
        // The projection's part of dE is there already.
        self.embedding.backward_pass(x, &de, None, embedding, Gradient::add(&mut grad.embedding))
    }
}

impl<L: Causal> Causal for TiedEmbedding<L> {}
