//! The layer that does nothing.

use std::marker::PhantomData;

use ndarray::{Array3, ArrayRef3, ArrayView3};

use crate::base::{Size, SizeError};
use crate::kernels::Float;
use crate::layer::kit::{Pending, StandardLayout, reuse};
use crate::layer::rows::{rows_of, span};
use crate::layer::{Causal, Layer, Sequence};
use crate::parameters;

const NAME: &str = "Identity";

/// `y = x`: for a place in a model where a layer may be left out.
///
/// `[T, B, D]` to `[T, B, D]`. The output is a copy, as a layer's output lies in its cache.
///
/// ```
/// use gradflow::{BoxLayer, Identity, Layer, LayerNorm};
///
/// let normed = std::env::args().any(|flag| flag == "--norm");
/// let norm = if normed { BoxLayer::new(LayerNorm::<f32>::new(8)) } else { BoxLayer::new(Identity::new()) };
/// assert_eq!(norm.output_size(8.into()), Ok(8));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Identity<F> {
    elem: PhantomData<F>,
}
parameters! { impl<F: Float> Tensors<F> for Identity<F> { ; skip elem } }

impl<F: Float> Identity<F> {
    /// The identity.
    pub fn new() -> Self {
        Identity { elem: PhantomData }
    }
}

/// The cache of an [`Identity`].
#[derive(Clone, Default)]
pub struct IdentityCache<F> {
    pending: Pending,
    copy: StandardLayout<F>,
    y: Array3<F>, // [T, B, D] and, after a backward pass, dx
}

/// Copies the valid rows, and zeroes the others.
fn assign<F: Float>(x: &Sequence<'_, F>, values: &[F], y: &mut Array3<F>) {
    let features = y.dim().2;
    for run in x.runs() {
        rows_of(y, &run).copy_from_slice(&values[span(&run, features)]);
    }
    x.zero_padding(y);
}

impl<F: Float> Layer for Identity<F> {
    type Elem = F;
    type State = ();
    type Cache = IdentityCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        input.features(NAME)
    }

    fn zero_state(&self, _batch: usize) {}

    fn forward<'c>(&self, x: Sequence<'_, F>, _: &mut (), cache: &'c mut IdentityCache<F>) -> ArrayView3<'c, F> {
        let x_features = x.features(NAME, None);
        let IdentityCache { pending, copy, y } = cache;
        pending.set(&x);
        reuse(y, x_features.raw_dim());
        assign(&x, copy.values(x_features), y);
        y.view()
    }

    fn output<'c>(&self, cache: &'c IdentityCache<F>) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut IdentityCache<F>,
        _: &mut Self,
    ) -> ArrayView3<'c, F> {
        let IdentityCache { pending, copy, y } = cache;
        pending.take(NAME, &x, dy, y.dim().2);
        assign(&x, copy.values(dy.view()), y);
        y.view()
    }

    fn overwrites_gradients(&self) -> bool {
        true
    }
}

impl<F: Float> Causal for Identity<F> {}
