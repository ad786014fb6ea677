//! Element-wise nonlinearities.

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::marker::PhantomData;

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::base::{Expect, check_number};
use crate::kernels::derivatives::{d_relu, d_sigmoid, d_tanh};
use crate::kernels::math::{exp, normal_cdf, relu, sigmoid, tanh};
use crate::kernels::{Float, vectorised};
use crate::layer::row_layer::compiled_walk;
use crate::layer::rows::{row_of, row_of_mut, values_of, values_of_mut};
use crate::layer::{Attribute, Gradient, Graph, RowGradients, RowLayer, Rows, Signal, Stage, Stages, Unsupported};
use crate::parallel::{COLUMNS, element_work, for_each_part, function_work};
use crate::{parameters, row_layer};

const NAME: &str = "Activation";

/// Expands to `$then` with `$value` as x ↦ y = f(x) and `$slope` as (x, y) ↦ f'(x): once for each common f, so that loops over it
/// vectorise, and once for all others.
macro_rules! for_nonlinearity {
    ($f:expr, |$value:ident, $slope:ident| $then:expr) => {{
        let (zero, one) = (F::zero(), F::one());
        for_nonlinearity! { @match $f, $value, $slope, $then;
            Nonlinearity::Tanh => tanh::<F>, |_, y: F| d_tanh(y);
            Nonlinearity::Sigmoid => sigmoid::<F>, |_, y: F| d_sigmoid(y);
            Nonlinearity::Relu => relu::<F>, |_, y: F| d_relu(y);
            Nonlinearity::LeakyRelu { slope } =>
                |x| if x < zero { F::of(slope) * x } else { x }, |x, _| if x <= zero { F::of(slope) } else { one };
            Nonlinearity::Gelu => |x: F| x * normal_cdf(x), |x, _| {
                let density = F::of(1.0 / (2.0 * PI).sqrt()) * exp(F::of(-0.5) * x * x);
                normal_cdf(x) + x * density
            };
            Nonlinearity::Silu => |x: F| x * sigmoid(x), |x, _| {
                let s = sigmoid(x);
                s * (one + x * (one - s))
            };
            other => |x: F| other.value_and_slope(x)[0], |x: F, _| other.value_and_slope(x)[1];
        }
    }};
    (@match $f:expr, $value:ident, $slope:ident, $then:expr; $($case:pat => $f_value:expr, $f_slope:expr;)+) => {
        match $f {
            $($case => {
                #[allow(unused_variables)]
                let ($value, $slope) = (typed_value($f_value), typed_slope($f_slope));
                $then
            })+
        }
    };
}

#[inline(always)]
fn typed_value<F, V: Fn(F) -> F>(value: V) -> V {
    value
}

#[inline(always)]
fn typed_slope<F, S: Fn(F, F) -> F>(slope: S) -> S {
    slope
}

/// The function f of an [`Activation`] or a recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Nonlinearity {
    /// `tanh(x)`
    Tanh,
    /// `σ(x) = 1 / (1 + exp(-x))`
    Sigmoid,
    /// `max(x, 0)`; its slope at 0 is 0, as in PyTorch.
    Relu,
    /// `x` if positive, else `slope · x`.
    LeakyRelu {
        /// PyTorch's default is 0.01.
        slope: f64,
    },
    /// `x Φ(x)`, with the cumulative normal distribution Φ, not its approximation by a tanh (Hendrycks and Gimpel 2016).
    Gelu,
    /// `x σ(x)`, also called swish (Elfwing et al. 2018).
    Silu,
    /// `x`
    Identity,
    /// `slope · x + offset`
    Affine {
        /// ONNX calls it alpha.
        slope: f64,
        /// ONNX calls it beta.
        offset: f64,
    },
    /// `max(0, min(1, slope · x + offset))`
    HardSigmoid {
        /// Keras 3 and PyTorch: 1/6. ONNX, which calls it alpha, and Keras 2: 0.2.
        slope: f64,
        /// 0.5 everywhere; ONNX calls it beta.
        offset: f64,
    },
    /// `scale · tanh(slope · x)`
    ScaledTanh {
        /// ONNX calls it alpha.
        scale: f64,
        /// ONNX calls it beta.
        slope: f64,
    },
    /// `x` above the threshold, else 0.
    ThresholdedRelu {
        /// ONNX, which calls it alpha, has 1 as its default.
        threshold: f64,
    },
    /// `x` if positive, else `alpha · (exp(x) - 1)` (Clevert, Unterthiner and Hochreiter 2016).
    Elu {
        /// 1 by default everywhere.
        alpha: f64,
    },
    /// `x / (1 + |x|)`
    Softsign,
    /// `ln(1 + exp(x))`
    Softplus,
}

impl Nonlinearity {
    /// Keras 3's and PyTorch's hard sigmoid: `max(0, min(1, x / 6 + 1/2))`.
    pub const HARD_SIGMOID: Self = Nonlinearity::HardSigmoid { slope: 1.0 / 6.0, offset: 0.5 };

    /// ONNX's and Keras 2's hard sigmoid: `max(0, min(1, x / 5 + 1/2))`.
    pub const HARD_SIGMOID_ONNX: Self = Nonlinearity::HardSigmoid { slope: 0.2, offset: 0.5 };

    /// Its parameters with their names; all of them must be finite.
    pub(crate) fn numbers(self) -> Vec<(&'static str, f64)> {
        match self {
            Nonlinearity::LeakyRelu { slope } => vec![("slope", slope)],
            Nonlinearity::Affine { slope, offset } | Nonlinearity::HardSigmoid { slope, offset } => {
                vec![("slope", slope), ("offset", offset)]
            }
            Nonlinearity::ScaledTanh { scale, slope } => vec![("scale", scale), ("slope", slope)],
            Nonlinearity::ThresholdedRelu { threshold } => vec![("threshold", threshold)],
            Nonlinearity::Elu { alpha } => vec![("alpha", alpha)],
            _ => Vec::new(),
        }
    }

    /// f(x) and f'(x), for loops that are not compiled for each f.
    #[inline(never)]
    pub(crate) fn value_and_slope<F: Float>(self, x: F) -> [F; 2] {
        let (zero, one) = (F::zero(), F::one());
        match self {
            Nonlinearity::Identity => [x, one],
            Nonlinearity::Affine { slope, offset } => [F::of(slope) * x + F::of(offset), F::of(slope)],
            Nonlinearity::HardSigmoid { slope, offset } => match F::of(slope) * x + F::of(offset) {
                y if y < zero => [zero, zero],
                y if y > one => [one, zero],
                y => [y, F::of(slope)],
            },
            Nonlinearity::ScaledTanh { scale, slope } => {
                let tanh = tanh(F::of(slope) * x);
                [F::of(scale) * tanh, F::of(scale) * F::of(slope) * d_tanh(tanh)]
            }
            Nonlinearity::ThresholdedRelu { threshold } if x <= F::of(threshold) => [zero, zero],
            Nonlinearity::ThresholdedRelu { .. } => [x, one],
            Nonlinearity::Elu { alpha } if x <= zero => [F::of(alpha) * x.exp_m1(), F::of(alpha) * exp(x)],
            Nonlinearity::Elu { .. } => [x, one],
            Nonlinearity::Softsign => {
                let inverse = (one + x.abs()).recip();
                [x * inverse, inverse * inverse]
            }
            Nonlinearity::Softplus => [relu(x) + exp(-x.abs()).ln_1p(), sigmoid(x)],
            _ => for_nonlinearity!(self, |value, slope| {
                let y = value(x);
                [y, slope(x, y)]
            }),
        }
    }
}

/// `y = f(x)`, element by element: `[T, B, D]` to `[T, B, D]`.
///
/// ```
/// use gradflow::{Layer, layers::Activation, ndarray::Array3};
///
/// let relu = Activation::<f64>::relu();
/// let x = Array3::from_shape_vec((1, 1, 2), vec![-1.0, 2.0]).unwrap();
/// assert_eq!(relu.forward(&x, &mut (), &mut relu.cache()).as_slice(), Some(&[0.0, 2.0][..]));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Activation<F> {
    nonlinearity: Nonlinearity,
    elem: PhantomData<F>,
}
parameters! { impl<F: Float> Tensors<F> for Activation<F> { ; skip nonlinearity, elem } }

impl<F: Float> Activation<F> {
    /// The activation with f = `nonlinearity`.
    ///
    /// # Panics
    /// Panics if a number of the nonlinearity, such as the slope of a [`Nonlinearity::LeakyRelu`], is not finite in the element type.
    #[track_caller]
    pub fn new(nonlinearity: Nonlinearity) -> Self {
        for (name, number) in nonlinearity.numbers() {
            check_number::<F>(NAME, name, Expect::Finite, number);
        }
        Activation { nonlinearity, elem: PhantomData }
    }

    /// [`Nonlinearity::Tanh`]
    pub fn tanh() -> Self {
        Self::new(Nonlinearity::Tanh)
    }

    /// [`Nonlinearity::Sigmoid`]
    pub fn sigmoid() -> Self {
        Self::new(Nonlinearity::Sigmoid)
    }

    /// [`Nonlinearity::Relu`]
    pub fn relu() -> Self {
        Self::new(Nonlinearity::Relu)
    }

    /// [`Nonlinearity::LeakyRelu`] with `slope` for negative inputs.
    ///
    /// # Panics
    /// Panics if the slope is not finite in the element type.
    #[track_caller]
    pub fn leaky_relu(slope: f64) -> Self {
        Self::new(Nonlinearity::LeakyRelu { slope })
    }

    /// [`Nonlinearity::Gelu`]
    pub fn gelu() -> Self {
        Self::new(Nonlinearity::Gelu)
    }

    /// [`Nonlinearity::Silu`]
    pub fn silu() -> Self {
        Self::new(Nonlinearity::Silu)
    }

    /// The function f.
    pub fn nonlinearity(&self) -> Nonlinearity {
        self.nonlinearity
    }
}

vectorised! {
    /// y = f(x)
    fn activate<'a, F: Float>(f: Nonlinearity, x: &'a [F], y: &'a mut [F]) {
        for_nonlinearity!(f, |value, slope| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = value(x);
            }
        })
    }
}

vectorised! {
    /// y = f(x), in place of x, row by row.
    fn activate_rows<'a, F: Float>(f: Nonlinearity, x: ArrayViewMut2<'a, F>) {
        let mut x = x;
        for_nonlinearity!(f, |value, slope| {
            for x in x.outer_iter_mut() {
                for x in row_of_mut(x) {
                    *x = value(*x);
                }
            }
        })
    }

    /// y = f(x), with f'(x) in place of x, row by row.
    fn activate_rows_with_slope<'a, F: Float>(f: Nonlinearity, x: ArrayViewMut2<'a, F>, y: ArrayViewMut2<'a, F>) {
        let (mut x, mut y) = (x, y);
        for_nonlinearity!(f, |value, slope| {
            for (y, x) in y.outer_iter_mut().zip(x.outer_iter_mut()) {
                for (y, x) in row_of_mut(y).iter_mut().zip(row_of_mut(x)) {
                    *y = value(*x);
                    *x = slope(*x, *y);
                }
            }
        })
    }

    /// dx = slope ∘ dy, in place of dy; its rows are added to `dbias`.
    fn multiply_rows<'a, F: Float>(slope: ArrayView2<'a, F>, d: ArrayViewMut2<'a, F>, dbias: Option<&'a mut [F]>) {
        let (mut d, mut dbias) = (d, dbias);
        for (d, slope) in d.outer_iter_mut().zip(slope.outer_iter()) {
            let (d, slope) = (row_of_mut(d), row_of(slope));
            match &mut dbias {
                None => {
                    for (d, &slope) in d.iter_mut().zip(slope) {
                        *d *= slope;
                    }
                }
                Some(dbias) => {
                    for ((d, &slope), sum) in d.iter_mut().zip(slope).zip(&mut **dbias) {
                        *d *= slope;
                        *sum += *d;
                    }
                }
            }
        }
    }
}

/// y = f(x), in place of x, `[N, D]`; on all threads.
pub(crate) fn activate_in_place<F: Float>(f: Nonlinearity, x: ArrayViewMut2<'_, F>) {
    let work = function_work(x.len());
    for_each_part(x, work, 1, |x| activate_rows(f, x));
}

/// y = f(x), with f'(x) in place of x, both `[N, D]`; on all threads.
pub(crate) fn activate_with_slope<F: Float>(f: Nonlinearity, x: ArrayViewMut2<'_, F>, y: ArrayViewMut2<'_, F>) {
    let work = function_work(x.len());
    for_each_part((x, y), work, 1, |(x, y)| activate_rows_with_slope(f, x, y));
}

/// dx = slope ∘ dy, in place of dy, both `[N, D]`; its rows are added to `dbias`, `[D]`. Runs on all threads, which share the
/// columns.
pub(crate) fn activate_backward_with_bias<F: Float>(
    slope: ArrayView2<'_, F>,
    d: ArrayViewMut2<'_, F>,
    dbias: Option<&mut [F]>,
) {
    let work = element_work(d.len());
    let columns = (slope.reversed_axes(), (d.reversed_axes(), dbias));
    for_each_part(columns, work, COLUMNS, |(slope, (d, dbias))| {
        multiply_rows(slope.reversed_axes(), d.reversed_axes(), dbias);
    });
}

vectorised! {
    /// dx = f'(x) ∘ dy, in place of y.
    fn activate_backward<'a, F: Float>(f: Nonlinearity, x: &'a [F], dy: &'a [F], y: &'a mut [F]) {
        for_nonlinearity!(f, |value, slope| {
            for ((y, &x), &dy) in y.iter_mut().zip(x).zip(dy) {
                *y = dy * slope(x, *y);
            }
        })
    }
}

impl<F: Float> RowLayer for Activation<F> {
    type Elem = F;
    type Kept = ();
    const NAME: &'static str = NAME;
    compiled_walk!(Activation);

    fn row_stages(&self, stages: &mut Stages<F>) -> bool {
        stages.push(Box::new(ActivationStage { nonlinearity: self.nonlinearity, features: stages.features() }));
        true
    }

    fn add_rows_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        let features = x.features(NAME)?;
        let x_value = x.value;
        let value = match self.nonlinearity {
            Nonlinearity::Tanh => graph.node("Tanh", &[x_value], &[]),
            Nonlinearity::Sigmoid => graph.node("Sigmoid", &[x_value], &[]),
            Nonlinearity::Relu => graph.node("Relu", &[x_value], &[]),
            Nonlinearity::LeakyRelu { slope } => {
                graph.node("LeakyRelu", &[x_value], &[("alpha", Attribute::Float(slope as f32))])
            }
            Nonlinearity::Gelu => {
                // Φ(x) = (1 + erf(x / √2)) / 2; ONNX has Gelu from operator set 20 on.
                let (half, one, root) = (graph.scalar(0.5), graph.scalar(1.0), graph.scalar(FRAC_1_SQRT_2));
                let scaled = graph.node("Mul", &[x_value, root], &[]);
                let erf = graph.node("Erf", &[scaled], &[]);
                let sum = graph.node("Add", &[erf, one], &[]);
                let product = graph.node("Mul", &[x_value, sum], &[]);
                graph.node("Mul", &[product, half], &[])
            }
            Nonlinearity::Silu => {
                let sigmoid = graph.node("Sigmoid", &[x_value], &[]);
                graph.node("Mul", &[x_value, sigmoid], &[])
            }
            Nonlinearity::Identity => x_value,
            Nonlinearity::Affine { slope, offset } => {
                let (slope, offset) = (graph.scalar(slope), graph.scalar(offset));
                let product = graph.node("Mul", &[x_value, slope], &[]);
                graph.node("Add", &[product, offset], &[])
            }
            Nonlinearity::HardSigmoid { slope, offset } => {
                let numbers = [("alpha", Attribute::Float(slope as f32)), ("beta", Attribute::Float(offset as f32))];
                graph.node("HardSigmoid", &[x_value], &numbers)
            }
            Nonlinearity::ScaledTanh { scale, slope } => {
                let (scale, slope) = (graph.scalar(scale), graph.scalar(slope));
                let product = graph.node("Mul", &[x_value, slope], &[]);
                let tanh = graph.node("Tanh", &[product], &[]);
                graph.node("Mul", &[tanh, scale], &[])
            }
            Nonlinearity::ThresholdedRelu { threshold } => {
                graph.node("ThresholdedRelu", &[x_value], &[("alpha", Attribute::Float(threshold as f32))])
            }
            Nonlinearity::Elu { alpha } => graph.node("Elu", &[x_value], &[("alpha", Attribute::Float(alpha as f32))]),
            Nonlinearity::Softsign => graph.node("Softsign", &[x_value], &[]),
            Nonlinearity::Softplus => graph.node("Softplus", &[x_value], &[]),
        };
        Ok(x.with(value, features))
    }

    fn forward_rows(&self, rows: Rows<'_, F>, y: ArrayViewMut2<'_, F>, _: &mut ()) {
        activate(self.nonlinearity, values_of(rows.x), values_of_mut(y));
    }

    fn backward_rows(&self, rows: Rows<'_, F>, d: RowGradients<'_, F>, _: &mut (), _: Gradient<'_, Self>) {
        let RowGradients { dy, dx } = d;
        if let Some(y) = dx {
            activate_backward(self.nonlinearity, values_of(rows.x), values_of(dy), values_of_mut(y));
        }
    }
}
row_layer! { impl<F: Float> Layer for Activation<F> }

/// An [`Activation`] in a stream.
#[derive(Clone)]
struct ActivationStage {
    nonlinearity: Nonlinearity,
    features: usize,
}

impl<F: Float> Stage<F> for ActivationStage {
    fn output(&self) -> usize {
        self.features
    }

    fn run(&mut self, _: usize, x: &[F], y: &mut [F]) {
        activate(self.nonlinearity, x, y);
    }

    fn boxed(&self) -> Box<dyn Stage<F>> {
        Box::new(self.clone())
    }
}
