//! The affine layer.

use ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView3};
use rand::Rng;

use crate::base::{Init, Size, SizeError, check_gradient, check_shape};
use crate::kernels::Float;
use crate::layer::affine::{affine, affine_with_skip, bias_gradient, check_skip, input_gradient, weight_gradient};
use crate::layer::kit::{Pending, StandardLayout, reuse};
use crate::layer::{Causal, Layer, Sequence};
use crate::parameters;

const NAME: &str = "Linear";

/// An affine map of each row: `y = x Wᵀ + b`.
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` | `[T, B, O]` |
///
/// ```
/// use gradflow::{Init, Layer, Linear, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let layer = Linear::<f32>::new(3, 4, rng).with_weight(Init::KaimingUniform { gain: 2f64.sqrt() }, rng);
/// let y = layer.forward((&Array3::ones((5, 2, 3))).into(), &mut (), &mut layer.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 4));
/// ```
#[derive(Clone, Debug)]
pub struct Linear<F> {
    /// `[O, I]`
    pub weight: Array2<F>,
    /// `[O]`
    pub bias: Option<Array1<F>>,
}
parameters! { impl<F: Float> Tensors<F> for Linear<F> { weight, bias } }

impl<F: Float> Linear<F> {
    /// Weight and bias uniform in `±1/sqrt(I)`, as PyTorch starts them.
    ///
    /// # Panics
    /// Where a size is 0.
    pub fn new(input: usize, output: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        let init = Init::Uniform { bound: 1.0 / (input as f64).sqrt() };
        Self::zeros(input, output).with_weight(init, rng).with_bias(init, rng)
    }

    /// Weight and bias zero: for parameters that will be loaded, or a residual branch that starts as nothing.
    ///
    /// # Panics
    /// Where a size is 0.
    pub fn zeros(input: usize, output: usize) -> Self {
        assert!(input > 0 && output > 0, "{NAME}: sizes must not be 0, got input {input}, output {output}");
        Linear { weight: Array2::zeros((output, input)), bias: Some(Array1::zeros(output)) }
    }

    /// The weight drawn anew.
    pub fn with_weight(mut self, init: impl Into<Init>, rng: &mut (impl Rng + ?Sized)) -> Self {
        init.into().fill(&mut self.weight, rng);
        self
    }

    /// The bias drawn anew.
    pub fn with_bias(self, init: impl Into<Init>, rng: &mut (impl Rng + ?Sized)) -> Self {
        let mut bias = Array2::zeros((1, self.weight.nrows()));
        init.into().fill(&mut bias, rng);
        Linear { bias: Some(bias.into_iter().collect()), ..self }
    }

    /// The same layer without a bias.
    pub fn without_bias(self) -> Self {
        Linear { bias: None, ..self }
    }

    /// I, the number of input features.
    pub fn input_size(&self) -> usize {
        self.weight.ncols()
    }

    fn sizes(&self) -> (usize, usize) {
        let (output, input) = self.weight.dim();
        if let Some(bias) = &self.bias {
            check_shape(NAME, "bias", &[output], bias.shape());
        }
        (input, output)
    }
}

/// The cache of a [`Linear`].
#[derive(Clone, Default)]
pub struct LinearCache<F> {
    pending: Pending,
    x_copy: StandardLayout<F>,
    dy_copy: StandardLayout<F>,
    y: Array3<F>,  // [T, B, O]
    dx: Array3<F>, // [T, B, I]
}

impl<F: Float> Layer for Linear<F> {
    type Elem = F;
    type State = ();
    type Cache = LinearCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let (takes, output) = self.sizes();
        if input == Size::Features(takes) { Ok(output) } else { Err(SizeError::features(NAME, takes, input)) }
    }

    fn zero_state(&self, _batch: usize) {}

    fn forward<'c>(&self, x: Sequence<'_, F>, _: &mut (), cache: &'c mut LinearCache<F>) -> ArrayView3<'c, F> {
        let (input, output) = self.sizes();
        let x_features = x.features(NAME, Some(input));
        let (steps, batch, _) = x_features.dim();
        let LinearCache { pending, x_copy, y, .. } = cache;
        pending.set(&x);
        reuse(y, (steps, batch, output));
        affine(&x, x_copy.rows(x_features), &self.weight, self.bias.as_ref(), y);
        x.zero_padding(y);
        y.view()
    }

    fn forward_with_skip(
        &self,
        x: Sequence<'_, F>,
        skip: ArrayView3<'_, F>,
        _: &mut (),
        cache: &mut LinearCache<F>,
        y: &mut ArrayRef3<F>,
    ) {
        let (input, output) = self.sizes();
        let x_features = x.features(NAME, Some(input));
        check_skip(NAME, &x, output, skip, y);
        cache.pending.set(&x);
        affine_with_skip(&x, skip, cache.x_copy.rows(x_features), &self.weight, self.bias.as_ref(), y);
    }

    fn output<'c>(&self, cache: &'c LinearCache<F>) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut LinearCache<F>,
        grad: &mut Self,
    ) -> ArrayView3<'c, F> {
        let (input, output) = self.sizes();
        let LinearCache { pending, x_copy, dy_copy, dx, .. } = cache;
        pending.take(NAME, &x, dy, output);
        check_gradient(NAME, self, grad);
        let (x_rows, dy) = (x_copy.rows(x.features(NAME, Some(input))), dy_copy.rows(dy.view()));
        weight_gradient(&x, dy, x_rows, grad.weight.view_mut());
        if let Some(bias) = &mut grad.bias {
            bias_gradient(&x, dy, bias);
        }
        input_gradient(&x, dy, &self.weight, dx);
        dx.view()
    }

    fn overwrites_gradients(&self) -> bool {
        true
    }
}

impl<F: Float> Causal for Linear<F> {}
