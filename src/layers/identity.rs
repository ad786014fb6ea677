//! The layer that does nothing.

use std::marker::PhantomData;

use ndarray::ArrayViewMut2;

use crate::kernels::Float;
use crate::layer::{Gradient, Graph, RowGradients, RowLayer, Rows, Signal, Stages, Unsupported};
use crate::{parameters, row_layer};

/// `y = x`, `[T, B, D]` to `[T, B, D]`: a placeholder for a layer that a model may leave out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity<F>(PhantomData<F>);
parameters! { impl<F: Float> Tensors<F> for Identity<F> { ; skip 0 } }

impl<F: Float> Identity<F> {
    /// The identity.
    pub fn new() -> Self {
        Identity(PhantomData)
    }
}

impl<F: Float> RowLayer for Identity<F> {
    type Elem = F;
    type Kept = ();
    const NAME: &'static str = "Identity";

    fn forward_rows(&self, rows: Rows<'_, F>, mut y: ArrayViewMut2<'_, F>, _: &mut ()) {
        y.assign(&rows.x);
    }
    fn add_rows_to_graph(&self, _: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        Ok(x)
    }
    fn row_stages(&self, _: &mut Stages<F>) -> bool {
        true
    }
    fn backward_rows(&self, _: Rows<'_, F>, d: RowGradients<'_, F>, _: &mut (), _: Gradient<'_, Self>) {
        d.dx.into_iter().for_each(|mut dx| dx.assign(&d.dy));
    }
}
row_layer! { impl<F: Float> Layer for Identity<F> }
