//! The affine layer.

use std::marker::PhantomData;

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};
use rand::Rng;

use super::stage::add_linear;
use crate::base::{Init, Tensors, check_shape, check_sizes};
use crate::kernels::{Accumulate, Float, product};
use crate::layer::affine::{add_rows, affine, affine_onto};
use crate::layer::gradient::start;
use crate::layer::row_layer::compiled_walk;
use crate::layer::{Gradient, Graph, RowGradients, RowLayer, Rows, Signal, Stages, Unsupported};
use crate::{parameters, row_layer};

const NAME: &str = "Linear";

/// An affine map of each row.
///
/// ```text
/// y = x Wᵀ + b        dL/dW = (dL/dy)ᵀ x        dL/db = Σ dL/dy        dL/dx = dL/dy W
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` | `[T, B, O]` |
///
/// ```
/// use gradflow::{Layer, layers::{Init, Linear}, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let layer = Linear::<f32>::builder(3, 4).weight(Init::KaimingUniform { gain: 2f64.sqrt() }).build(rng);
/// let y = layer.forward(&Array3::ones((5, 2, 3)), &mut (), &mut layer.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 4));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Linear<F> {
    /// `[O, I]`
    pub weight: Array2<F>,
    /// `[O]`
    pub bias: Option<Array1<F>>,
}
parameters! { impl<F: Float> Tensors<F> for Linear<F> { weight, bias } }

impl<F: Float> Linear<F> {
    /// Weight and bias are uniform in `±1/sqrt(I)`, as in PyTorch.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn new(input: usize, output: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::builder(input, output).build(rng)
    }

    /// A builder, to choose how the parameters are initialized and whether there is a bias.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn builder(input: usize, output: usize) -> LinearBuilder<F> {
        check_sizes::<F, 2>(NAME, [("input", input), ("output", output)], &[&[output, input]]);
        let init = Init::Uniform { bound: 1.0 / (input as f64).sqrt() };
        LinearBuilder { input, output, weight: init, bias: Some(init), elem: PhantomData }
    }

    /// Weight and bias are zero, for parameters that will be loaded or a residual branch that adds nothing at first.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn zeros(input: usize, output: usize) -> Self {
        Self::builder(input, output).zeros()
    }

    /// I, the number of input features.
    pub fn input_size(&self) -> usize {
        self.weight.ncols()
    }

    #[track_caller]
    fn sizes(&self) -> (usize, usize) {
        let (output, input) = self.weight.dim();
        if let Some(bias) = &self.bias {
            check_shape(NAME, "bias", &[output], bias.shape());
        }
        (input, output)
    }
}

/// The options of a new [`Linear`]; made by [`Linear::builder`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a builder makes nothing before `build` or `zeros`"]
pub struct LinearBuilder<F> {
    input: usize,
    output: usize,
    weight: Init,
    bias: Option<Init>,
    elem: PhantomData<F>,
}

impl<F: Float> LinearBuilder<F> {
    /// The initialization of the weight.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn weight(self, init: impl Into<Init>) -> Self {
        LinearBuilder { weight: init.into().checked::<F>(NAME, "weight"), ..self }
    }

    /// The initialization of the bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn bias_init(self, init: impl Into<Init>) -> Self {
        LinearBuilder { bias: Some(init.into().checked::<F>(NAME, "bias")), ..self }
    }

    /// Whether there is a bias.
    pub fn bias(self, bias: bool) -> Self {
        let init = self.bias.unwrap_or(Init::Uniform { bound: 1.0 / (self.input as f64).sqrt() });
        LinearBuilder { bias: bias.then_some(init), ..self }
    }

    /// Builds the layer with parameters drawn from `rng`: the same seed gives the same bits.
    pub fn build(self, rng: &mut (impl Rng + ?Sized)) -> Linear<F> {
        let mut weight = Array2::zeros((self.output, self.input));
        self.weight.fill(&mut weight, rng);
        let bias = self.bias.map(|init| {
            let mut bias = Array2::zeros((1, self.output));
            init.fill(&mut bias, rng);
            bias.into_iter().collect()
        });
        Linear { weight, bias }
    }

    /// All parameters zero, for weights that will be loaded.
    pub fn zeros(self) -> Linear<F> {
        let bias = self.bias.map(|_| Array1::zeros(self.output));
        Linear { weight: Array2::zeros((self.output, self.input)), bias }
    }
}

impl<F: Float> RowLayer for Linear<F> {
    type Elem = F;
    type Kept = ();
    const NAME: &'static str = NAME;
    const WRITES_ONTO: bool = true;
    compiled_walk!(Linear);

    fn takes(&self) -> Option<usize> {
        Some(self.sizes().0)
    }

    fn gives(&self, _: usize) -> usize {
        self.sizes().1
    }

    fn row_stages(&self, stages: &mut Stages<F>) -> bool {
        add_linear(&self.weight, self.bias.as_ref(), stages);
        true
    }

    fn add_rows_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        let (input, output) = self.sizes();
        let transposed = self.weight.t().iter().copied().collect();
        let weight = graph.parameter("weight", &[input, output], transposed);
        let mut value = graph.node("MatMul", &[x.value, weight], &[]);
        if let Some(bias) = &self.bias {
            let bias = graph.parameter("bias", &[output], bias.to_vec());
            value = graph.node("Add", &[value, bias], &[]);
        }
        Ok(x.with(value, output))
    }

    fn forward_rows(&self, rows: Rows<'_, F>, y: ArrayViewMut2<'_, F>, _: &mut ()) {
        affine(&rows.pass, rows.x, &self.weight, self.bias.as_ref(), y);
    }

    fn forward_rows_onto(&self, rows: Rows<'_, F>, skip: ArrayView2<'_, F>, y: ArrayViewMut2<'_, F>) {
        affine_onto(&rows.pass, skip, rows.x, &self.weight, self.bias.as_ref(), y);
    }

    fn backward_rows(&self, rows: Rows<'_, F>, d: RowGradients<'_, F>, _: &mut (), grad: Gradient<'_, Self>) {
        let RowGradients { dy, dx } = d;
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
