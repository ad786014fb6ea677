//! Layer normalisation.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};

use crate::base::{Size, SizeError, Tensors, TensorsExt, check_shape};
use crate::kernels::math::sum;
use crate::kernels::{Float, vectorised};
use crate::layer::kit::reuse;
use crate::layer::row_layer::compiled_walk;
use crate::layer::rows::{matrix_mut, row_of, row_of_mut, rows_of, view_of_rows};
use crate::layer::{Gradient, RowLayer, Rows, Sequence};
use crate::parallel::{COLUMNS, ELEMENT, FUNCTION, for_each_part};
use crate::{parameters, row_layer};

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
#[derive(Clone, Debug, PartialEq)]
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

    /// Its eps.
    pub fn eps(&self) -> f64 {
        self.eps
    }
}

vectorised! {
    fn normalise<'a, F: Float>(
        layer: Parameters<'a, F>,
        x: ArrayView2<'a, F>,
        statistics: ArrayViewMut2<'a, F>,
        y: ArrayViewMut2<'a, F>
    ) {
        let Parameters { eps, weight, bias } = layer;
        let features = weight.len();
        let (mut y, mut statistics, bias, count) = (y, statistics, &bias[..features], F::of(features as f64));
        for ((x, y), statistics) in x.outer_iter().zip(y.outer_iter_mut()).zip(statistics.outer_iter_mut()) {
            let (x, y, statistics) = (&row_of(x)[..features], &mut row_of_mut(y)[..features], row_of_mut(statistics));
            let mean = sum([x], |[x]| x) / count;
            let variance = sum([x], |[x]| (x - mean) * (x - mean)) / count;
            let inverse = F::one() / (variance + eps).sqrt();
            for k in 0..features {
                y[k] = (x[k] - mean) * inverse * weight[k] + bias[k];
            }
            statistics.copy_from_slice(&[mean, inverse]);
        }
    }

    /// `dx = (d - mean(d) - x̂ mean(d ∘ x̂)) / sqrt(v + eps)` with `d = weight ∘ dy`.
    fn normalise_backward<'a, F: Float>(
        weight: &'a [F],
        statistics: ArrayView2<'a, F>,
        x: ArrayView2<'a, F>,
        dy: ArrayView2<'a, F>,
        dx: ArrayViewMut2<'a, F>
    ) {
        let features = weight.len();
        let (mut dx, count) = (dx, F::of(features as f64));
        let rows = x.outer_iter().zip(dy.outer_iter()).zip(dx.outer_iter_mut());
        for (((x, dy), dx), statistics) in rows.zip(statistics.outer_iter()) {
            let (x, dy, dx) = (&row_of(x)[..features], &row_of(dy)[..features], &mut row_of_mut(dx)[..features]);
            let (mean, inverse) = (statistics[0], statistics[1]);
            let normal = |x: F| (x - mean) * inverse;
            let d_mean = sum([weight, dy], |[weight, dy]| weight * dy) / count;
            let d_normal_mean = sum([weight, dy, x], |[weight, dy, x]| weight * dy * normal(x)) / count;
            for k in 0..features {
                dx[k] = (weight[k] * dy[k] - d_mean - normal(x[k]) * d_normal_mean) * inverse;
            }
        }
    }

    /// `dweight += Σ dy ∘ x̂` and `dbias += Σ dy`, over all rows, of some features.
    fn add_gradients<'a, F: Float>(
        statistics: ArrayView2<'a, F>,
        x: ArrayView2<'a, F>,
        dy: ArrayView2<'a, F>,
        dweight: &'a mut [F],
        dbias: &'a mut [F]
    ) {
        let features = dweight.len();
        let dbias = &mut dbias[..features];
        for ((x, dy), statistics) in x.outer_iter().zip(dy.outer_iter()).zip(statistics.outer_iter()) {
            let (x, dy) = (&row_of(x)[..features], &row_of(dy)[..features]);
            let (mean, inverse) = (statistics[0], statistics[1]);
            for k in 0..features {
                dweight[k] += dy[k] * ((x[k] - mean) * inverse);
                dbias[k] += dy[k];
            }
        }
    }
}

/// What rows are normalised with.
#[derive(Clone, Copy)]
struct Parameters<'a, F> {
    eps: F,
    weight: &'a [F],
    bias: &'a [F],
}

impl<F: Float> RowLayer for LayerNorm<F> {
    type Elem = F;
    type Kept = Array2<F>; // [T · B, 2]: μ and 1 / sqrt(v + eps)
    const NAME: &'static str = NAME;
    compiled_walk!(LayerNorm);

    fn row_size(&self, input: Size) -> Result<usize, SizeError> {
        let features = self.weight.len();
        if input == Size::Features(features) { Ok(features) } else { Err(SizeError::features(NAME, features, input)) }
    }

    fn begin(&self, x: &Sequence<'_, F>, statistics: &mut Array2<F>) {
        check_shape(NAME, "bias", &[self.weight.len()], self.bias.shape());
        let (steps, batch) = x.dims();
        reuse(statistics, (steps * batch, 2));
    }

    fn forward_rows(&self, rows: Rows<'_, F>, y: ArrayViewMut2<'_, F>, statistics: &mut Array2<F>) {
        let layer = Parameters { eps: F::of(self.eps), weight: self.values(0), bias: self.values(1) };
        let statistics = matrix_mut(rows_of(statistics, &rows.places), 2);
        for_each_part((rows.x, (statistics, y)), rows.x.len() * FUNCTION, 1, |(x, (statistics, y))| {
            normalise(layer, x, statistics, y);
        });
    }

    fn backward_rows(
        &self,
        rows: Rows<'_, F>,
        dy: ArrayView2<'_, F>,
        dx: Option<ArrayViewMut2<'_, F>>,
        statistics: &mut Array2<F>,
        grad: Gradient<'_, Self>,
    ) {
        let LayerNorm { weight: dweight, bias: dbias, .. } = grad.to_add();
        let (x, statistics) = (rows.x, view_of_rows(statistics.view(), &rows.places));
        if let Some(dx) = dx {
            for_each_part(((statistics, x), (dy, dx)), x.len() * FUNCTION, 1, |((statistics, x), (dy, dx))| {
                normalise_backward(self.values(0), statistics, x, dy, dx);
            });
        }
        let columns = ((x.reversed_axes(), dy.reversed_axes()), (dweight.tensor_mut(0), dbias.tensor_mut(0)));
        for_each_part(columns, x.len() * ELEMENT, COLUMNS, |((x, dy), (dweight, dbias))| {
            add_gradients(statistics, x.reversed_axes(), dy.reversed_axes(), dweight, dbias);
        });
    }
}
row_layer! { impl<F: Float> Layer for LayerNorm<F> }
