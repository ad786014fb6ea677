//! Two affine layers with a nonlinearity between.

use ndarray::{Array1, Array3, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut3};
use rand::Rng;

use crate::affine::{
    add_bias_gradient, add_weight_gradient, affine, affine_rows, affine_with_skip, input_gradient_into, matrix,
    matrix_mut, rows_of, span,
};
use crate::cache::{Pending, StandardLayout, reuse};
use crate::error::check_gradient;
use crate::kernels::{Accumulate, product};
use crate::layers::{activate, activate_backward_with_bias, activate_with_slope};
use crate::{Activation, Causal, Float, Layer, Linear, Mode, Nonlinearity, Sequence, Size, SizeError, parameters};

const NAME: &str = "FeedForward";

/// Two affine layers with a nonlinearity between, D features to D by way of `hidden`.
///
/// ```text
/// a = W₁ x + b₁                             [H]        h = f(a)        y = W₂ h + b₂
/// dL/da = f'(a) ∘ W₂ᵀ dL/dy                 dL/dx = W₁ᵀ dL/da
/// ```
///
/// Training keeps `h` and `f'(a)`, 2 H values a row; inference keeps nothing. Equal to a [`Linear`], an [`Activation`]
/// and a [`Linear`] one after another, with fewer passes over memory and fewer buffers.
///
/// ```
/// use gradflow::{FeedForward, Layer, Nonlinearity, TensorsExt, rand::{SeedableRng, rngs::StdRng}};
///
/// let layer = FeedForward::<f32>::new(8, 32, Nonlinearity::Gelu, &mut StdRng::seed_from_u64(0));
/// assert_eq!(layer.names(), ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]);
/// assert_eq!(layer.output_size(8.into()), Ok(8));
/// ```
#[derive(Clone, Debug)]
pub struct FeedForward<F: Float> {
    /// `[hidden, D]`
    pub fc1: Linear<F>,
    /// f
    pub activation: Activation<F>,
    /// `[D, hidden]`
    pub fc2: Linear<F>,
}
parameters! { impl<F: Float> Tensors<F> for FeedForward<F> { fc1, activation, fc2 } }

impl<F: Float> FeedForward<F> {
    /// For rows of `features`, with `hidden` units inside; weights start as [`Linear::new`]'s.
    pub fn new(features: usize, hidden: usize, f: Nonlinearity, rng: &mut (impl Rng + ?Sized)) -> Self {
        FeedForward {
            fc1: Linear::new(features, hidden, rng),
            activation: Activation::new(f),
            fc2: Linear::new(hidden, features, rng),
        }
    }

    /// For rows of `features`, with `hidden` units inside and all their weights zero, for weights that will be loaded.
    pub fn zeros(features: usize, hidden: usize, f: Nonlinearity) -> Self {
        FeedForward {
            fc1: Linear::zeros(features, hidden),
            activation: Activation::new(f),
            fc2: Linear::zeros(hidden, features),
        }
    }
}

/// The cache of a [`FeedForward`].
#[derive(Clone, Default)]
pub struct FeedForwardCache<F> {
    pending: Pending,
    x_copy: StandardLayout<F>,
    dy_copy: StandardLayout<F>,
    slope: Array1<F>, // T · B rows of H: a, then f'(a), or h in inference; after a backward pass T · B rows of I: dx
    h: Array3<F>,     // [T, B, H] and, in a backward pass, da
    y: Array3<F>,     // [T, B, O]; unused where the output is added to a direct connection
}

impl<F: Float> FeedForward<F> {
    fn hidden_size(&self) -> usize {
        self.fc1.weight.nrows()
    }

    /// The T · B rows of h; what the backward pass needs besides stays in the cache.
    fn hidden<'c>(
        &self,
        x: &Sequence<'_, F>,
        pending: &mut Pending,
        x_copy: &mut StandardLayout<F>,
        slope: &'c mut Array1<F>,
        h: &'c mut Array3<F>,
    ) -> ArrayView2<'c, F> {
        x.expect_size(self);
        pending.set(x);
        let ((steps, batch), hidden, f) = (x.dims(), self.hidden_size(), self.activation.nonlinearity());
        reuse(slope, steps * batch * hidden.max(self.fc1.input_size()));
        let a = slope.as_slice_mut().expect("a buffer in standard layout");
        let x_rows = x_copy.rows(x.features(NAME, None));
        let infer = x.mode() == Some(Mode::Infer);
        if !infer {
            reuse(h, (steps, batch, hidden));
        }
        for run in x.runs() {
            let a = &mut a[span(&run, hidden)];
            affine_rows(x, x_rows, run.clone(), &self.fc1.weight, self.fc1.bias.as_ref(), matrix_mut(a, hidden));
            if infer { activate(f, a) } else { activate_with_slope(f, a, rows_of(h, &run)) }
        }
        if infer { matrix(&a[..steps * batch * hidden], hidden) } else { crate::cache::rows(h.view()) }
    }
}

impl<F: Float> Layer for FeedForward<F> {
    type Elem = F;
    type State = ();
    type Cache = FeedForwardCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let hidden = self.fc1.output_size(input).map_err(|error| error.inside("fc1"))?;
        self.fc2.output_size(hidden.into()).map_err(|error| error.inside("fc2"))
    }

    fn zero_state(&self, _batch: usize) {}

    fn forward<'c>(&self, x: Sequence<'_, F>, _: &mut (), cache: &'c mut FeedForwardCache<F>) -> ArrayView3<'c, F> {
        let FeedForwardCache { pending, x_copy, slope, h, y, .. } = cache;
        let h = self.hidden(&x, pending, x_copy, slope, h);
        let (steps, batch) = x.dims();
        reuse(y, (steps, batch, self.fc2.weight.nrows()));
        affine(&x, h, &self.fc2.weight, self.fc2.bias.as_ref(), y);
        x.zero_padding(y);
        y.view()
    }

    fn forward_with_skip(
        &self,
        x: Sequence<'_, F>,
        skip: ArrayView3<'_, F>,
        _: &mut (),
        cache: &mut FeedForwardCache<F>,
        y: &mut ArrayRef3<F>,
    ) {
        let FeedForwardCache { pending, x_copy, slope, h, .. } = cache;
        let h = self.hidden(&x, pending, x_copy, slope, h);
        affine_with_skip(&x, skip, h, &self.fc2.weight, self.fc2.bias.as_ref(), y);
    }

    fn output<'c>(&self, cache: &'c FeedForwardCache<F>) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut FeedForwardCache<F>,
        grad: &mut Self,
    ) -> ArrayView3<'c, F> {
        let FeedForwardCache { pending, x_copy, dy_copy, slope, h, .. } = cache;
        pending.take(NAME, &x, dy, self.fc2.weight.nrows());
        check_gradient(NAME, self, grad);
        let ((steps, batch), hidden) = (x.dims(), self.hidden_size());
        let (x_rows, dy) = (x_copy.rows(x.features(NAME, None)), dy_copy.rows(dy.view()));
        let slope = slope.as_slice_mut().expect("a buffer in standard layout");

        add_weight_gradient(&x, dy, crate::cache::rows(h.view()), grad.fc2.weight.view_mut());
        if let Some(bias) = &mut grad.fc2.bias {
            add_bias_gradient(&x, dy, bias.view_mut());
        }
        for run in x.runs() {
            let da = rows_of(h, &run);
            let dy = dy.slice(ndarray::s![run.clone(), ..]);
            product(dy, self.fc2.weight.view(), matrix_mut(da, hidden), Accumulate::Overwrite);
            let dbias = grad.fc1.bias.as_mut().map(|bias| bias.as_slice_mut().expect("a tensor in standard layout"));
            activate_backward_with_bias(hidden, &slope[span(&run, hidden)], da, dbias);
        }
        let da = crate::cache::rows(h.view());
        add_weight_gradient(&x, da, x_rows, grad.fc1.weight.view_mut());
        let width = if x.wants_gradient() { self.fc1.input_size() } else { 0 };
        let dx = &mut slope[..steps * batch * width];
        let mut dx = ArrayViewMut3::from_shape((steps, batch, width), dx).expect("as many values");
        input_gradient_into(&x, da, &self.fc1.weight, &mut dx);
        // Shared from here on.
        ArrayView3::from_shape((steps, batch, width), dx.into_slice().expect("standard layout"))
            .expect("as many values")
    }
}

impl<F: Float> Causal for FeedForward<F> {}
