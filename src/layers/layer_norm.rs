//! Layer normalisation.

use ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView3, s};

use crate::base::{Size, SizeError, Tensors, TensorsExt, check_gradient, check_shape};
use crate::kernels::Float;
use crate::kernels::norm::{add_parameter_gradients, normalise, normalise_backward};
use crate::layer::affine::start_gradient;
use crate::layer::kit::{Pending, StandardLayout, reuse};
use crate::layer::rows::{matrix_mut, rows_of};
use crate::layer::{Causal, Layer, Sequence};
use crate::parallel::{COLUMNS, ELEMENT, FUNCTION, for_each_part};
use crate::parameters;

const NAME: &str = "LayerNorm";

/// Each row brought to mean 0 and variance 1, then scaled and shifted (Ba, Kiros and Hinton 2016).
///
/// ```text
/// μ = mean(x)    v = mean((x - μ)²)    x̂ = (x - μ) / sqrt(v + eps)    y = weight ∘ x̂ + bias
/// ```
///
/// `[T, B, D]` to `[T, B, D]`, statistics over `D`. Parameters and `eps` are those of PyTorch's `nn.LayerNorm`.
///
/// ```
/// use gradflow::{Layer, LayerNorm, ndarray::Array3};
///
/// let norm = LayerNorm::<f64>::new(2);
/// let x = Array3::from_shape_vec((1, 1, 2), vec![1.0, 5.0]).unwrap();
/// let y = norm.forward((&x).into(), &mut (), &mut norm.cache()).to_owned();
/// assert!((y[[0, 0, 1]] - 1.0).abs() < 1e-5 && (y[[0, 0, 0]] + 1.0).abs() < 1e-5);
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm<F> {
    /// `[D]`, ones at the start.
    pub weight: Array1<F>,
    /// `[D]`, zeros at the start.
    pub bias: Array1<F>,
    eps: f64,
}
parameters! { impl<F: Float> Tensors<F> for LayerNorm<F> { weight, bias; skip eps } }

impl<F: Float> LayerNorm<F> {
    /// For rows of `features`, with eps 1e-5.
    ///
    /// # Panics
    /// Where `features` is 0.
    pub fn new(features: usize) -> Self {
        assert!(features > 0, "{NAME}: sizes must not be 0");
        LayerNorm { weight: Array1::ones(features), bias: Array1::zeros(features), eps: 1e-5 }
    }

    /// The same layer with another eps.
    ///
    /// # Panics
    /// Where it is negative or not finite.
    pub fn with_eps(self, eps: f64) -> Self {
        assert!(eps >= 0.0 && eps.is_finite(), "{NAME}: eps: expected a finite number, at least 0, got {eps}");
        LayerNorm { eps, ..self }
    }
}

/// The cache of a [`LayerNorm`].
#[derive(Clone, Default)]
pub struct LayerNormCache<F> {
    pending: Pending,
    x_copy: StandardLayout<F>,
    dy_copy: StandardLayout<F>,
    statistics: Array2<F>, // [T · B, 2]: μ and 1 / sqrt(v + eps)
    y: Array3<F>,          // [T, B, D] and, after a backward pass, dx
}

impl<F: Float> Layer for LayerNorm<F> {
    type Elem = F;
    type State = ();
    type Cache = LayerNormCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let features = self.weight.len();
        if input == Size::Features(features) { Ok(features) } else { Err(SizeError::features(NAME, features, input)) }
    }

    fn zero_state(&self, _batch: usize) {}

    fn forward<'c>(&self, x: Sequence<'_, F>, _: &mut (), cache: &'c mut LayerNormCache<F>) -> ArrayView3<'c, F> {
        let features = self.weight.len();
        check_shape(NAME, "bias", &[features], self.bias.shape());
        let x_features = x.features(NAME, Some(features));
        let (steps, batch, _) = x_features.dim();
        let LayerNormCache { pending, x_copy, statistics, y, .. } = cache;
        pending.set(&x);
        reuse(y, (steps, batch, features));
        reuse(statistics, (steps * batch, 2));
        let x_rows = x_copy.rows(x_features);
        let (gain, bias, eps) = (self.values(0), self.values(1), F::of(self.eps));
        for run in x.runs() {
            let x = x_rows.slice(s![run.clone(), ..]);
            let rows = (x, (matrix_mut(rows_of(statistics, &run), 2), matrix_mut(rows_of(y, &run), features)));
            for_each_part(rows, x.len() * FUNCTION, 1, |(x, (statistics, y))| {
                normalise(gain, bias, eps, x, statistics, y)
            });
        }
        x.zero_padding(y);
        y.view()
    }

    fn output<'c>(&self, cache: &'c LayerNormCache<F>) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut LayerNormCache<F>,
        grad: &mut Self,
    ) -> ArrayView3<'c, F> {
        let features = self.weight.len();
        let LayerNormCache { pending, x_copy, dy_copy, statistics, y } = cache;
        pending.take(NAME, &x, dy, features);
        check_gradient(NAME, self, grad);
        let (x_rows, dy) = (x_copy.rows(x.features(NAME, Some(features))), dy_copy.rows(dy.view()));
        start_gradient(&x, grad);
        let LayerNorm { weight: dweight, bias: dbias, .. } = grad;
        let (dweight, dbias) = (dweight.tensor_mut(0), dbias.tensor_mut(0));
        for run in x.runs() {
            let (x, dy) = (x_rows.slice(s![run.clone(), ..]), dy.slice(s![run.clone(), ..]));
            let statistics = statistics.slice(s![run.clone(), ..]);
            let rows = ((statistics, x), (dy, matrix_mut(rows_of(y, &run), features)));
            for_each_part(rows, x.len() * FUNCTION, 1, |((statistics, x), (dy, dx))| {
                normalise_backward(self.values(0), statistics, x, dy, dx);
            });
            let columns = ((x.reversed_axes(), dy.reversed_axes()), (&mut *dweight, &mut *dbias));
            for_each_part(columns, x.len() * ELEMENT, COLUMNS, |((x, dy), (dweight, dbias))| {
                add_parameter_gradients(statistics, x.reversed_axes(), dy.reversed_axes(), dweight, dbias);
            });
        }
        y.view()
    }

    fn overwrites_gradients(&self) -> bool {
        true
    }
}

impl<F: Float> Causal for LayerNorm<F> {}
