//! Ready-made feed-forward residual blocks with a layer norm.

use rand::Rng;

use super::residual::Residual;
use crate::base::TensorsExt;
use crate::kernels::Float;
use crate::layers::{FeedForward, LayerNorm, Nonlinearity};
use crate::sequential;

sequential! {
    /// The branch of a [`PreNormBlock`]: `fc2(f(fc1(norm(x))))`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct PreNormBranch<F: Float>: Layer<F> {
        /// The layer norm over the D features.
        pub norm: LayerNorm<F>,
        /// `fc2(f(fc1(x)))`
        pub feed_forward as "": FeedForward<F>,
    }
}

sequential! {
    /// A pre-norm residual block: `y = x + fc2(f(fc1(norm(x))))` (Xiong et al. 2020).
    ///
    /// The skip connection passes through no normalisation, so deep stacks train without a warm-up. Parameters are named
    /// `norm.weight`, `norm.bias`, `fc1.weight` …, and `0.norm.weight` … in a [`Stacked`](crate::compose::Stacked).
    ///
    /// ```
    /// use gradflow::{
    ///     TensorsExt, compose::{PreNormBlock, Stacked}, layers::Nonlinearity, rand::{SeedableRng, rngs::StdRng},
    /// };
    ///
    /// let rng = &mut StdRng::seed_from_u64(0);
    /// let net = Stacked::build(6, |_| PreNormBlock::<f32>::new(8, 32, Nonlinearity::Gelu, rng).zero_init());
    /// assert_eq!(net.names()[..3], ["0.norm.weight", "0.norm.bias", "0.fc1.weight"]);
    /// ```
    #[derive(Clone, Debug, PartialEq)]
    pub struct PreNormBlock<F: Float>: Layer<F> {
        /// `x + fc2(f(fc1(norm(x))))`
        pub residual as "": Residual<PreNormBranch<F>>,
    }
}

impl<F: Float> PreNormBlock<F> {
    /// A block for rows of `features` elements, with `hidden` units inside; weights are initialized as by
    /// [`Linear::new`](crate::layers::Linear::new).
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn new(features: usize, hidden: usize, f: Nonlinearity, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::around(FeedForward::new(features, hidden, f, rng))
    }

    /// A block for rows of `features` elements, with `hidden` units inside and all their weights zero, for weights that will be
    /// loaded.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn zeros(features: usize, hidden: usize, f: Nonlinearity) -> Self {
        Self::around(FeedForward::zeros(features, hidden, f))
    }

    fn around(feed_forward: FeedForward<F>) -> Self {
        let norm = LayerNorm::new(feed_forward.fc1.input_size());
        PreNormBlock { residual: Residual::new(PreNormBranch { norm, feed_forward }) }
    }

    /// Sets the eps of the layer norm, which is 1e-5 otherwise.
    ///
    /// # Panics
    /// Panics if [`LayerNorm::eps`] does.
    #[track_caller]
    pub fn eps(mut self, eps: f64) -> Self {
        let norm = &mut self.residual.branch.norm;
        *norm = norm.clone().eps(eps);
        self
    }

    /// Sets the branch's last layer to zero: the block starts as the identity, with a gradient of exactly 1.
    pub fn zero_init(mut self) -> Self {
        self.residual.branch.feed_forward.fc2.set_zero();
        self
    }
}

sequential! {
    /// A post-norm residual block: `y = norm(x + fc2(f(fc1(x))))` (Vaswani et al. 2017).
    ///
    /// Parameters are named as in [`PreNormBlock`], in the order `fc1`, `fc2`, `norm`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct PostNormBlock<F: Float>: Layer<F> {
        /// `x + fc2(f(fc1(x)))`
        pub residual as "": Residual<FeedForward<F>>,
        /// The layer norm over the D features.
        pub norm: LayerNorm<F>,
    }
}

impl<F: Float> PostNormBlock<F> {
    /// A block for rows of `features` elements, with `hidden` units inside; weights are initialized as by
    /// [`Linear::new`](crate::layers::Linear::new).
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn new(features: usize, hidden: usize, f: Nonlinearity, rng: &mut (impl Rng + ?Sized)) -> Self {
        let residual = Residual::new(FeedForward::new(features, hidden, f, rng));
        PostNormBlock { residual, norm: LayerNorm::new(features) }
    }

    /// A block for rows of `features` elements, with `hidden` units inside and all their weights zero, for weights that will be
    /// loaded.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn zeros(features: usize, hidden: usize, f: Nonlinearity) -> Self {
        let residual = Residual::new(FeedForward::zeros(features, hidden, f));
        PostNormBlock { residual, norm: LayerNorm::new(features) }
    }

    /// Sets the eps of the layer norm, which is 1e-5 otherwise.
    ///
    /// # Panics
    /// Panics if [`LayerNorm::eps`] does.
    #[track_caller]
    pub fn eps(self, eps: f64) -> Self {
        PostNormBlock { norm: self.norm.eps(eps), ..self }
    }

    /// Sets the branch's last layer to zero: the block starts as its normalisation alone.
    pub fn zero_init(mut self) -> Self {
        self.residual.branch.fc2.set_zero();
        self
    }
}
