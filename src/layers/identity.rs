//! The layer that does nothing.

use std::marker::PhantomData;

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::base::{Size, SizeError};
use crate::kernels::Float;
use crate::layer::{Gradient, RowLayer, Rows};
use crate::{parameters, row_layer};

/// `y = x`, `[T, B, D]` to `[T, B, D]`: for a place in a model where a layer may be left out.
///
/// ```
/// use gradflow::{Layer, compose::BoxLayer, layers::{Identity, LayerNorm}};
///
/// let normed = std::env::args().any(|flag| flag == "--norm");
/// let norm = if normed { BoxLayer::new(LayerNorm::<f32>::new(8)) } else { BoxLayer::new(Identity::new()) };
/// assert_eq!(norm.output_size(8.into()), Ok(8));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
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

impl<F: Float> RowLayer for Identity<F> {
    type Elem = F;
    type Kept = ();
    const NAME: &'static str = "Identity";

    fn row_size(&self, input: Size) -> Result<usize, SizeError> {
        input.features(Self::NAME)
    }
    fn forward_rows(&self, rows: Rows<'_, F>, mut y: ArrayViewMut2<'_, F>, _: &mut ()) {
        y.assign(&rows.x);
    }
    fn backward_rows(
        &self,
        _: Rows<'_, F>,
        dy: ArrayView2<'_, F>,
        dx: Option<ArrayViewMut2<'_, F>>,
        _: &mut (),
        _: Gradient<'_, Self>,
    ) {
        dx.into_iter().for_each(|mut dx| dx.assign(&dy));
    }
}
row_layer! { impl<F: Float> Layer for Identity<F> }
