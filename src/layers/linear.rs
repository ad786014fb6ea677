//! The affine layer.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};
use rand::Rng;

use crate::base::{Init, Size, SizeError, Tensors, check_shape};
use crate::kernels::{Accumulate, Float, product};
use crate::layer::affine::{add_rows, affine, affine_onto};
use crate::layer::gradient::start;
use crate::layer::row_layer::compiled_walk;
use crate::layer::{Gradient, RowLayer, Rows};
use crate::{parameters, row_layer};

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

impl<F: Float> RowLayer for Linear<F> {
    type Elem = F;
    type Kept = ();
    const NAME: &'static str = NAME;
    compiled_walk!(Linear);

    fn row_size(&self, input: Size) -> Result<usize, SizeError> {
        let (takes, output) = self.sizes();
        if input == Size::Features(takes) { Ok(output) } else { Err(SizeError::features(NAME, takes, input)) }
    }

    fn forward_rows(&self, rows: Rows<'_, F>, y: ArrayViewMut2<'_, F>, _: &mut ()) {
        affine(&rows.pass, rows.x, &self.weight, self.bias.as_ref(), y);
    }

    fn forward_rows_onto(&self, rows: Rows<'_, F>, skip: ArrayView2<'_, F>, y: ArrayViewMut2<'_, F>, _: &mut ()) {
        affine_onto(&rows.pass, skip, rows.x, &self.weight, self.bias.as_ref(), y);
    }

    fn backward_rows(
        &self,
        rows: Rows<'_, F>,
        dy: ArrayView2<'_, F>,
        dx: Option<ArrayViewMut2<'_, F>>,
        _: &mut (),
        grad: Gradient<'_, Self>,
    ) {
        let (grad, how) = grad.parts();
        product(dy.t(), rows.x, grad.weight.view_mut(), how); // dW = dyᵀ x
        if let Some(dbias) = &mut grad.bias {
            start(dbias, how);
            add_rows(dy, dbias.tensor_mut(0)); // db = Σ dy
        }
        if let Some(dx) = dx {
            product(dy, self.weight.view(), dx, Accumulate::Overwrite); // dx = dy W
        }
    }
}
row_layer! { impl<F: Float> Layer for Linear<F> }
