//! Vectors for token ids.

use std::marker::PhantomData;

use ndarray::{Array2, Array3, ArrayRef3, ArrayView3, Axis, s};
use rand::Rng;

use crate::base::check_sizes;
use crate::base::error::mismatch;
use crate::base::{Init, Size, SizeError, check_gradient};
use crate::kernels::{Float, once};
use crate::layer::kit::{Pending, reuse};
use crate::layer::{Causal, Gradient, Graph, Id, Layer, Sequence, Signal, Summary, Unsupported, Value};
use crate::parameters;

const NAME: &str = "Embedding";

/// A vector for each token id: `y = weight[id]`.
///
/// | | shape |
/// | --- | --- |
/// | `x` | ids `[T, B]` of any integer type, each at least 0 and below V |
/// | `y` | `[T, B, D]` |
///
/// ```text
/// dL/dweight[v] = Σ_{t,b: id_tb = v} dL/dy_tb          0 of the padding's row, if there is one
/// ```
///
/// Ids have no gradient: `backward` returns `[T, B, 0]`. The vector of a [padding id](EmbeddingBuilder::padding_idx) starts as
/// zeros and gets no gradient, as with PyTorch's `padding_idx`.
///
/// ```
/// use gradflow::{Layer, layers::Embedding, ndarray::arr2, rand::{SeedableRng, rngs::StdRng}};
///
/// let embedding = Embedding::<f32>::new(10, 3, &mut StdRng::seed_from_u64(0));
/// let ids = arr2(&[[1, 2], [9, 0]]);
/// let y = embedding.forward(&ids, &mut (), &mut embedding.cache()).to_owned();
/// assert_eq!(y.dim(), (2, 2, 3));
/// ```
///
/// # Panics
/// `forward` panics if an id of a valid position is not below V, and names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding<F> {
    /// `[V, D]`
    pub weight: Array2<F>,
    /// The id whose row of the weight gets no gradient; the row itself is used as it is. The id is not a tensor, so files of
    /// weights do not contain it.
    pub padding_idx: Option<usize>,
}
parameters! { impl<F: Float> Tensors<F> for Embedding<F> { weight; skip padding_idx } }

impl<F: Float> Embedding<F> {
    /// Vectors from the standard normal distribution, as in PyTorch.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn new(vocabulary: usize, features: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::builder(vocabulary, features).build(rng)
    }

    /// A builder, to choose how the vectors are initialized.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn builder(vocabulary: usize, features: usize) -> EmbeddingBuilder<F> {
        let sizes = [("vocabulary", vocabulary), ("features", features)];
        check_sizes::<F, 2>(NAME, sizes, &[&[vocabulary, features]]);
        let weight = Init::Normal { std: 1.0 };
        EmbeddingBuilder { vocabulary, features, weight, padding_idx: None, elem: PhantomData }
    }

    /// All vectors zero, for weights that will be loaded.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn zeros(vocabulary: usize, features: usize) -> Self {
        Self::builder(vocabulary, features).zeros()
    }
}

/// The options of a new [`Embedding`]; made by [`Embedding::builder`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a builder makes nothing before `build` or `zeros`"]
pub struct EmbeddingBuilder<F> {
    vocabulary: usize,
    features: usize,
    weight: Init,
    padding_idx: Option<usize>,
    elem: PhantomData<F>,
}

impl<F: Float> EmbeddingBuilder<F> {
    /// The initialization of the vectors.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn weight(self, init: impl Into<Init>) -> Self {
        EmbeddingBuilder { weight: init.into().checked::<F>(NAME, "weight"), ..self }
    }

    /// The id of padding, of any integer type, at least 0 and below V. Its vector starts as zeros and its gradient is zero, so
    /// training leaves it as it is. With [lengths](Sequence::with_lengths) or a [mask](Sequence::with_mask), padding is not read at
    /// all and needs no id.
    ///
    /// The vector is a row of the weight like any other: loading weights replaces it, and a layer that also uses the matrix
    /// elsewhere, such as [`TiedEmbedding`](crate::compose::TiedEmbedding), adds the gradient from there.
    ///
    /// ```
    /// use gradflow::{Layer, layers::Embedding, ndarray::{Array3, arr2}, rand::{SeedableRng, rngs::StdRng}};
    ///
    /// let embedding = Embedding::<f32>::builder(10, 3).padding_idx(0).build(&mut StdRng::seed_from_u64(0));
    /// let (ids, mut grad, mut cache) = (arr2(&[[4], [0]]), Embedding::zeros(10, 3), embedding.cache());
    /// let y = embedding.forward(&ids, &mut (), &mut cache).to_owned();
    /// assert!(y.index_axis(gradflow::ndarray::Axis(0), 1).iter().all(|&y| y == 0.0));
    /// embedding.backward(&ids, &Array3::ones((2, 1, 3)), None, &mut cache, &mut grad);
    /// assert_eq!((grad.weight[[4, 0]], grad.weight[[0, 0]]), (1.0, 0.0));
    /// ```
    ///
    /// # Panics
    /// Panics if `id` is negative or not below V.
    #[track_caller]
    pub fn padding_idx(self, id: impl Id) -> Self {
        if id.index() >= self.vocabulary {
            mismatch(NAME, "padding_idx", &format_args!("an id from 0 and below {}", self.vocabulary), &id)
        }
        EmbeddingBuilder { padding_idx: Some(id.index()), ..self }
    }

    /// Builds the layer with parameters drawn from `rng`: the same seed gives the same bits.
    pub fn build(self, rng: &mut (impl Rng + ?Sized)) -> Embedding<F> {
        let mut weight = Array2::zeros((self.vocabulary, self.features));
        self.weight.fill(&mut weight, rng);
        if let Some(id) = self.padding_idx {
            weight.row_mut(id).fill(F::zero());
        }
        Embedding { weight, padding_idx: self.padding_idx }
    }

    /// All vectors zero, for weights that will be loaded.
    pub fn zeros(self) -> Embedding<F> {
        Embedding { weight: Array2::zeros((self.vocabulary, self.features)), padding_idx: self.padding_idx }
    }
}

/// The cache of an [`Embedding`].
#[derive(Clone, Debug, Default)]
pub struct EmbeddingCache<F> {
    pending: Pending,
    y: Array3<F>, // [T, B, D]
}

once! {
    /// `y_tb = weight[id_tb]`, left in the cache.
    #[track_caller]
    fn look_up<'a, F: Float>(layer: &'a Embedding<F>, x: &'a Sequence<'a, F>, cache: &'a mut EmbeddingCache<F>) {
        let EmbeddingCache { pending, y } = cache;
        let mark = pending.begin(layer, x);
        let ids = x.tokens(NAME);
        let (steps, batch) = ids.dim();
        let (vocabulary, features) = layer.weight.dim();
        reuse(y, (steps, batch, features));
        for (row, mut y) in y.lanes_mut(Axis(2)).into_iter().enumerate() {
            let (t, b) = (row / batch, row % batch);
            let id = ids.get(t, b);
            if !x.valid(t, b) {
                y.fill(F::zero());
            } else if id < vocabulary {
                y.assign(&layer.weight.row(id));
            } else {
                let got = format_args!("{} at step {t} of sequence {b}", ids.shown(t, b));
                mismatch(NAME, "x", &format_args!("ids below {vocabulary}"), &got)
            }
        }
        mark.set();
    }

    /// `dweight[id_tb] += dy_tb`, except for the padding id
    #[track_caller]
    fn add_gradient<'a, F: Float>(
        layer: &'a Embedding<F>,
        x: &'a Sequence<'a, F>,
        dy: &'a ArrayRef3<F>,
        cache: &'a mut EmbeddingCache<F>,
        grad: Gradient<'a, Embedding<F>>,
    ) {
        let EmbeddingCache { pending, .. } = cache;
        pending.take(NAME, layer, x, dy, layer.weight.ncols());
        let grad = grad.to_add();
        check_gradient(NAME, layer, &*grad);
        let (ids, batch) = (x.tokens(NAME), x.dims().1);
        for (row, dy) in dy.lanes(Axis(2)).into_iter().enumerate() {
            let (t, b) = (row / batch, row % batch);
            let id = ids.get(t, b);
            if x.valid(t, b) && layer.padding_idx != Some(id) {
                let mut row = grad.weight.row_mut(id);
                row += &dy;
            }
        }
    }
}

impl<F: Float> Embedding<F> {
    /// Like [`add_to_graph`](Layer::add_to_graph), but also returns the weight's value in the graph, `[V, D]`.
    pub(crate) fn add_with_weight(&self, graph: &mut Graph<F>, x: Signal) -> (Signal, Value) {
        let (vocabulary, features) = self.weight.dim();
        let mut ids = x.value;
        // Ids past the lengths are not read, so they need not be ids.
        if let Some(mask) = graph.mask(x) {
            let (axis, zero) = (graph.integers(&[2]), graph.integers(&[0]));
            let mask = graph.node("Squeeze", &[mask, axis], &[]);
            ids = graph.node("Where", &[mask, ids, zero], &[]);
        }
        let values = self.weight.iter().copied().collect();
        let weight = graph.parameter("weight", &[vocabulary, features], values);
        (x.with(graph.node("Gather", &[weight, ids], &[("axis", 0.into())]), features), weight)
    }
}

impl<F: Float> Layer for Embedding<F> {
    type Elem = F;
    type State = ();
    type Cache = EmbeddingCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        match input {
            Size::Tokens => Ok(self.weight.ncols()),
            Size::Features(_) => Err(SizeError::new(NAME, format!("takes token ids, got {input} features"))),
        }
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        let layer = std::any::type_name::<Self>();
        match self.padding_idx {
            Some(id) => summary.add(name, &format!("{layer}(padding_idx {id})"), self),
            None => summary.add(name, layer, self),
        }
    }

    fn zero_state(&self, _batch: usize) {}

    fn add_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        Ok(self.add_with_weight(graph, x).0)
    }

    fn forward_pass<'c>(&self, x: &Sequence<'_, F>, _: &mut (), cache: &'c mut EmbeddingCache<F>) -> ArrayView3<'c, F> {
        look_up(self, &x.reborrow(), cache);
        cache.y.view()
    }

    fn output<'c>(&self, cache: &'c EmbeddingCache<F>) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut EmbeddingCache<F>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, F> {
        add_gradient(self, &x.reborrow(), dy, cache, grad);
        cache.y.slice(s![.., .., ..0])
    }
}

impl<F: Float> Causal for Embedding<F> {}
