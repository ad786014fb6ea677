//! Vectors for token ids.

use ndarray::{Array2, Array3, ArrayRef3, ArrayView3, Axis, s};
use rand::Rng;

use crate::base::error::mismatch;
use crate::base::{Init, Size, SizeError, check_gradient};
use crate::kernels::Float;
use crate::layer::kit::{Pending, reuse};
use crate::layer::{Causal, Gradient, Layer, Sequence};
use crate::parameters;

const NAME: &str = "Embedding";

/// A vector for each token id: `y = weight[id]`.
///
/// | | shape |
/// | --- | --- |
/// | `x` | ids `[T, B]`, each below V |
/// | `y` | `[T, B, D]` |
///
/// Ids have no gradient: `backward` returns `[T, B, 0]`.
///
/// ```
/// use gradflow::{Embedding, Layer, ndarray::arr2, rand::{SeedableRng, rngs::StdRng}};
///
/// let embedding = Embedding::<f32>::new(10, 3, &mut StdRng::seed_from_u64(0));
/// let ids = arr2(&[[1, 2], [9, 0]]);
/// let y = embedding.forward((&ids).into(), &mut (), &mut embedding.cache()).to_owned();
/// assert_eq!(y.dim(), (2, 2, 3));
/// ```
///
/// # Panics
/// `forward` panics where an id of a valid position is not below V, and names it.
#[derive(Clone, Debug)]
pub struct Embedding<F> {
    /// `[V, D]`
    pub weight: Array2<F>,
}
parameters! { impl<F: Float> Tensors<F> for Embedding<F> { weight } }

impl<F: Float> Embedding<F> {
    /// Standard normal vectors, as PyTorch starts them.
    ///
    /// # Panics
    /// Where a size is 0.
    pub fn new(vocabulary: usize, features: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::zeros(vocabulary, features).with_weight(Init::Normal { std: 1.0 }, rng)
    }

    /// All vectors zero, for weights that will be loaded.
    ///
    /// # Panics
    /// Where a size is 0.
    pub fn zeros(vocabulary: usize, features: usize) -> Self {
        assert!(vocabulary > 0 && features > 0, "{NAME}: sizes must not be 0");
        Embedding { weight: Array2::zeros((vocabulary, features)) }
    }

    /// The vectors drawn anew.
    pub fn with_weight(mut self, init: impl Into<Init>, rng: &mut (impl Rng + ?Sized)) -> Self {
        init.into().fill(&mut self.weight, rng);
        self
    }
}

/// The cache of an [`Embedding`].
#[derive(Clone, Default)]
pub struct EmbeddingCache<F> {
    pending: Pending,
    y: Array3<F>, // [T, B, D]
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

    fn zero_state(&self, _batch: usize) {}

    fn forward_pass<'c>(&self, x: &Sequence<'_, F>, _: &mut (), cache: &'c mut EmbeddingCache<F>) -> ArrayView3<'c, F> {
        let ids = x.tokens(NAME);
        let (steps, batch) = ids.dim();
        let (vocabulary, features) = self.weight.dim();
        let EmbeddingCache { pending, y } = cache;
        pending.set(x);
        reuse(y, (steps, batch, features));
        for (((t, b), &id), mut y) in ids.indexed_iter().zip(y.lanes_mut(Axis(2))) {
            if !x.valid(t, b) {
                y.fill(F::zero());
            } else if id < vocabulary {
                y.assign(&self.weight.row(id));
            } else {
                let got = format_args!("{id} at step {t} of sequence {b}");
                mismatch(NAME, "x", &format_args!("ids below {vocabulary}"), &got)
            }
        }
        y.view()
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
        let EmbeddingCache { pending, y } = cache;
        pending.take(NAME, x, dy, self.weight.ncols());
        let grad = grad.to_add();
        check_gradient(NAME, self, &*grad);
        for (((t, b), &id), dy) in x.tokens(NAME).indexed_iter().zip(dy.lanes(Axis(2))) {
            if x.valid(t, b) {
                let mut row = grad.weight.row_mut(id);
                row += &dy;
            }
        }
        y.slice(s![.., .., ..0])
    }
}

impl<F: Float> Causal for Embedding<F> {}
