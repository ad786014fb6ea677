//! Layer normalisation.

use ndarray::{Array1, Array2, ArrayViewMut2};

use crate::base::{Expect, Tensors, TensorsExt, check_number, check_shape, check_sizes};
use crate::kernels::Float;
use crate::kernels::norm::{STATISTICS, add_parameter_gradients, normalise, normalise_backward};
use crate::layer::kit::reuse;
use crate::layer::row_layer::compiled_walk;
use crate::layer::rows::{matrix_mut, rows_of, view_of_rows};
use crate::layer::{Attribute, Gradient, Graph, RowGradients, RowLayer, Rows, Sequence, Signal, Unsupported};
use crate::parallel::{COLUMNS, element_work, for_each_part, function_work};
use crate::{parameters, row_layer};

const NAME: &str = "LayerNorm";

/// Normalises each row to mean 0 and variance 1, then scales and shifts it (Ba, Kiros and Hinton 2016).
///
/// ```text
/// μ = mean(x)    v = mean((x - μ)²)    x̂ = (x - μ) / sqrt(v + eps)    y = weight ∘ x̂ + bias
///
/// dL/dx̂ = weight ∘ dL/dy        dL/dx = (dL/dx̂ - mean(dL/dx̂) - x̂ mean(x̂ ∘ dL/dx̂)) / sqrt(v + eps)
/// dL/dweight = Σ x̂ ∘ dL/dy      dL/dbias = Σ dL/dy
/// ```
///
/// Maps `[T, B, D]` to `[T, B, D]`, with statistics over `D`. Parameters and `eps` are those of PyTorch's `nn.LayerNorm`.
///
/// # Accuracy
/// In f32, for D up to 4096 and rows of any magnitude, also far from 0 or with a spread up to the largest numbers, `x̂` is within
/// `5e-7 (1 + |x̂|)` of its exact value, and `dL/dx` within `1e-6 max|dL/dx̂| / sqrt(v + eps)`. An element that is not finite makes
/// its row NaN.
///
/// # Rows without a variance
/// The output of a row whose elements are all equal is `bias`. At such a row, the derivative divides by `sqrt(eps)`, which says
/// nothing about the row. With the default eps this multiplies every gradient by 316, and repeated in layer after layer, or step
/// after step of a recurrent cell, it makes gradients overflow. So if the variance is lost in rounding, that is, if `v + eps = eps`
/// or `sqrt(v) <= ε |μ|` with the machine epsilon ε, `dL/dx` is multiplied by at most 1 instead of
/// `1/sqrt(v + eps)`: a row of zeros passes its gradient on, minus the mean. PyTorch multiplies it by `1/sqrt(eps)`. All other rows are the same in both.
///
/// ```
/// use gradflow::{Layer, layers::LayerNorm, ndarray::Array3};
///
/// let norm = LayerNorm::<f64>::new(2);
/// let x = Array3::from_shape_vec((1, 1, 2), vec![1.0, 5.0]).unwrap();
/// let y = norm.forward(&x, &mut (), &mut norm.cache()).to_owned();
/// assert!((y[[0, 0, 1]] - 1.0).abs() < 1e-5 && (y[[0, 0, 0]] + 1.0).abs() < 1e-5);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm<F> {
    /// `[D]`, initially ones.
    pub weight: Array1<F>,
    /// `[D]`, initially zeros.
    pub bias: Array1<F>,
    pub(crate) eps: f64,
}
parameters! { impl<F: Float> Tensors<F> for LayerNorm<F> { weight, bias; skip eps } }

impl<F: Float> LayerNorm<F> {
    /// A layer for rows of `features` elements, with eps 1e-5.
    ///
    /// # Panics
    /// Panics if `features` is 0.
    #[track_caller]
    pub fn new(features: usize) -> Self {
        check_sizes::<F, 1>(NAME, [("features", features)], &[&[features]]);
        LayerNorm { weight: Array1::ones(features), bias: Array1::zeros(features), eps: 1e-5 }
    }

    /// Sets eps, which is 1e-5 otherwise. Its square root is the standard deviation below which a row counts as small.
    ///
    /// # Panics
    /// Panics if `eps` is not finite or not above 0, before or after rounding to the element type.
    #[track_caller]
    pub fn eps(self, eps: f64) -> Self {
        LayerNorm { eps: check_number::<F>(NAME, "eps", Expect::Above0, eps), ..self }
    }
}

impl<F: Float> RowLayer for LayerNorm<F> {
    type Elem = F;
    type Kept = Array2<F>; // [T · B, STATISTICS]
    const NAME: &'static str = NAME;
    compiled_walk!(LayerNorm);

    fn takes(&self) -> Option<usize> {
        Some(self.weight.len())
    }

    #[track_caller]
    fn begin(&self, x: &Sequence<'_, F>, statistics: &mut Array2<F>) {
        check_shape(NAME, "bias", &[self.weight.len()], self.bias.shape());
        let (steps, batch) = x.dims();
        reuse(statistics, (steps * batch, STATISTICS));
    }

    fn add_rows_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        let features = [self.weight.len()];
        let weight = graph.parameter("weight", &features, self.weight.to_vec());
        let bias = graph.parameter("bias", &features, self.bias.to_vec());
        let attributes = [("axis", (-1).into()), ("epsilon", Attribute::Float(self.eps as f32))];
        let value = graph.node("LayerNormalization", &[x.value, weight, bias], &attributes);
        Ok(x.with(value, features[0]))
    }

    fn forward_rows(&self, rows: Rows<'_, F>, y: ArrayViewMut2<'_, F>, statistics: &mut Array2<F>) {
        let statistics = matrix_mut(rows_of(statistics, &rows.places), STATISTICS);
        for_each_part((rows.x, (statistics, y)), function_work(rows.x.len()), 1, |(x, (statistics, y))| {
            normalise(self.values(0), self.values(1), F::of(self.eps), x, statistics, y);
        });
    }

    fn backward_rows(
        &self,
        rows: Rows<'_, F>,
        d: RowGradients<'_, F>,
        statistics: &mut Array2<F>,
        grad: Gradient<'_, Self>,
    ) {
        let RowGradients { dy, dx } = d;
        let LayerNorm { weight: dweight, bias: dbias, .. } = grad.to_add();
        let (x, statistics) = (rows.x, view_of_rows(statistics.view(), &rows.places));
        if let Some(dx) = dx {
            for_each_part(((statistics, x), (dy, dx)), function_work(x.len()), 1, |((statistics, x), (dy, dx))| {
                normalise_backward(self.values(0), statistics, x, dy, dx);
            });
        }
        let columns = ((x.reversed_axes(), dy.reversed_axes()), (dweight.tensor_mut(0), dbias.tensor_mut(0)));
        for_each_part(columns, element_work(x.len()), COLUMNS, |((x, dy), (dweight, dbias))| {
            add_parameter_gradients(statistics, x.reversed_axes(), dy.reversed_axes(), dweight, dbias);
        });
    }
}
row_layer! { impl<F: Float> Layer for LayerNorm<F> }
