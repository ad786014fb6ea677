//! Element-wise nonlinearities.

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::marker::PhantomData;

use ndarray::{Array3, ArrayRef3, ArrayView3};

use crate::affine::{rows_of, span};
use crate::cache::{Pending, StandardLayout, reuse};
use crate::kernels::math::{erf, exp, sigmoid, tanh};
use crate::kernels::vectorised;
use crate::{Causal, Float, Layer, Sequence, Size, SizeError, parameters};

const NAME: &str = "Activation";

/// The f of an [`Activation`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Nonlinearity {
    /// `tanh(x)`
    Tanh,
    /// `σ(x) = 1 / (1 + exp(-x))`
    Sigmoid,
    /// `max(x, 0)`; its slope at 0 is 0, as in PyTorch.
    Relu,
    /// `x` where positive, else `slope · x`.
    LeakyRelu {
        /// PyTorch's default is 0.01.
        slope: f64,
    },
    /// `x Φ(x)`, with Φ the normal distribution's by the error function (Hendrycks and Gimpel 2016).
    Gelu,
    /// `x σ(x)`, also called swish (Elfwing et al. 2018).
    Silu,
}

/// `y = f(x)`, element by element: `[T, B, D]` to `[T, B, D]`.
///
/// ```
/// use gradflow::{Activation, Layer, ndarray::Array3};
///
/// let relu = Activation::<f64>::relu();
/// let x = Array3::from_shape_vec((1, 1, 2), vec![-1.0, 2.0]).unwrap();
/// assert_eq!(relu.forward((&x).into(), &mut (), &mut relu.cache()).as_slice(), Some(&[0.0, 2.0][..]));
/// ```
#[derive(Clone, Debug)]
pub struct Activation<F> {
    nonlinearity: Nonlinearity,
    elem: PhantomData<F>,
}
parameters! { impl<F: Float> Tensors<F> for Activation<F> { ; skip nonlinearity, elem } }

impl<F: Float> Activation<F> {
    /// The activation by `nonlinearity`.
    pub fn new(nonlinearity: Nonlinearity) -> Self {
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
    /// Where the slope is not finite.
    pub fn leaky_relu(slope: f64) -> Self {
        assert!(slope.is_finite(), "{NAME}: slope: expected a finite number, got {slope}");
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

    /// Its f.
    pub fn nonlinearity(&self) -> Nonlinearity {
        self.nonlinearity
    }
}

/// The cache of an [`Activation`].
#[derive(Clone, Default)]
pub struct ActivationCache<F> {
    pending: Pending,
    x_copy: StandardLayout<F>,
    dy_copy: StandardLayout<F>,
    y: Array3<F>, // [T, B, D] and, after a backward pass, dx
}

#[inline(always)]
fn map<F: Float>(x: &[F], y: &mut [F], f: impl Fn(F) -> F) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = f(x);
    }
}

#[inline(always)]
fn map_backward<F: Float>(x: &[F], dy: &[F], y: &mut [F], slope: impl Fn(F, F) -> F) {
    for ((y, &x), &dy) in y.iter_mut().zip(x).zip(dy) {
        *y = dy * slope(x, *y);
    }
}

/// Φ(x), the normal distribution.
#[inline(always)]
fn normal_cdf<F: Float>(x: F) -> F {
    F::of(0.5) * (F::one() + erf(x * F::of(FRAC_1_SQRT_2)))
}

vectorised! {
    fn activate<'a, F: Float>(f: Nonlinearity, x: &'a [F], y: &'a mut [F]) {
        let zero = F::zero();
        match f {
            Nonlinearity::Tanh => map(x, y, tanh),
            Nonlinearity::Sigmoid => map(x, y, sigmoid),
            // Not `max`, which would turn NaN into 0.
            Nonlinearity::Relu => map(x, y, |x| if x < zero { zero } else { x }),
            Nonlinearity::LeakyRelu { slope } => {
                let slope = F::of(slope);
                map(x, y, |x| if x < zero { slope * x } else { x })
            }
            Nonlinearity::Gelu => map(x, y, |x| x * normal_cdf(x)),
            Nonlinearity::Silu => map(x, y, |x| x * sigmoid(x)),
        }
    }
}

vectorised! {
    /// dx in place of y.
    fn activate_backward<'a, F: Float>(f: Nonlinearity, x: &'a [F], dy: &'a [F], y: &'a mut [F]) {
        let (zero, one) = (F::zero(), F::one());
        match f {
            Nonlinearity::Tanh => map_backward(x, dy, y, |_, y| one - y * y),
            Nonlinearity::Sigmoid => map_backward(x, dy, y, |_, y| y * (one - y)),
            Nonlinearity::Relu => map_backward(x, dy, y, |x, _| if x <= zero { zero } else { one }),
            Nonlinearity::LeakyRelu { slope } => {
                let slope = F::of(slope);
                map_backward(x, dy, y, |x, _| if x <= zero { slope } else { one })
            }
            Nonlinearity::Gelu => {
                let density = F::of(1.0 / (2.0 * PI).sqrt());
                map_backward(x, dy, y, |x, _| normal_cdf(x) + x * density * exp(F::of(-0.5) * x * x))
            }
            Nonlinearity::Silu => map_backward(x, dy, y, |x, _| {
                let s = sigmoid(x);
                s * (one + x * (one - s))
            }),
        }
    }
}

impl<F: Float> Layer for Activation<F> {
    type Elem = F;
    type State = ();
    type Cache = ActivationCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        super::same_size(NAME, input)
    }

    fn zero_state(&self, _batch: usize) {}

    fn forward<'c>(&self, x: Sequence<'_, F>, _: &mut (), cache: &'c mut ActivationCache<F>) -> ArrayView3<'c, F> {
        let x_features = x.features(NAME, None);
        let features = x_features.dim().2;
        let ActivationCache { pending, x_copy, y, .. } = cache;
        pending.set(&x);
        reuse(y, x_features.raw_dim());
        let x_values = x_copy.values(x_features);
        for run in x.runs() {
            activate(self.nonlinearity, &x_values[span(&run, features)], rows_of(y, &run));
        }
        x.zero_padding(y);
        y.view()
    }

    fn output<'c>(&self, cache: &'c ActivationCache<F>) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut ActivationCache<F>,
        _: &mut Self,
    ) -> ArrayView3<'c, F> {
        let ActivationCache { pending, x_copy, dy_copy, y } = cache;
        let features = y.dim().2;
        pending.take(NAME, &x, dy, features);
        let (x_values, dy) = (x_copy.values(x.features(NAME, Some(features))), dy_copy.values(dy.view()));
        for run in x.runs() {
            let span = span(&run, features);
            activate_backward(self.nonlinearity, &x_values[span.clone()], &dy[span], rows_of(y, &run));
        }
        y.view()
    }
}

impl<F: Float> Causal for Activation<F> {}
