//! Dropout.

use std::marker::PhantomData;

use ndarray::{ArrayView2, ArrayViewMut2};
use rand::Rng;

use crate::base::random::{Mask, drop_row};
use crate::base::{Expect, RandomDrop, check_number};
use crate::kernels::Float;
use crate::layer::row_layer::compiled_walk;
use crate::layer::rows::{row_of, row_of_mut};
use crate::layer::{Gradient, Graph, RowGradients, RowLayer, Rows, Sequence, Signal, Stages, Unsupported};
use crate::{parameters, row_layer};

const NAME: &str = "Dropout";

/// Dropout (Srivastava et al. 2014), scaled in training so that evaluation needs no scaling.
///
/// ```text
/// train(seed):      y_tbk = m_tbk x_tbk        m_tbk = 0 with probability p, else 1 / (1 - p)
/// eval(), infer():  y = x
/// ```
///
/// `[T, B, D]` to `[T, B, D]`. The mask is a hash of the seed, the layer's id, `t`, `b` and `k`. It needs no state, does not depend
/// on the number of sequences or threads, and is the same whether a sequence is read whole or in chunks. The same seed gives the
/// same mask, so give each training step a new seed. The id, drawn by [`new`](Dropout::new), makes the masks of a model's layers
/// differ; a clone has the same id.
///
/// # Panics
/// `forward` panics if `x` has no mode, that is, neither [`train`](Sequence::train), [`eval`](Sequence::eval) nor
/// [`infer`](Sequence::infer) was called: a forgotten mode would silently train without dropout, or evaluate with it. `backward`
/// panics at the 100th training step in a row with the same seed, because all of them drop the same units.
///
/// ```
/// use gradflow::{Layer, Sequence, layers::Dropout, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
///
/// let dropout = Dropout::<f64>::new(0.5, &mut StdRng::seed_from_u64(0));
/// let x = Array3::ones((1, 1, 1000));
/// let mut cache = dropout.cache();
/// let y = dropout.forward(Sequence::from(&x).train(7), &mut (), &mut cache);
/// assert!(y.iter().all(|&y| y == 0.0 || y == 2.0));
/// assert!((400..600).contains(&y.iter().filter(|&&y| y == 0.0).count()));
/// assert_eq!(dropout.forward(Sequence::from(&x).eval(), &mut (), &mut cache), x);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout<F> {
    drop: RandomDrop,
    elem: PhantomData<F>,
}
parameters! { impl<F: Float> Tensors<F> for Dropout<F> { ; skip drop, elem } }

impl<F: Float> Dropout<F> {
    /// Drops each element with probability `p`.
    ///
    /// # Panics
    /// Panics if `p` is not in `0..1`, before or after rounding to the element type.
    #[track_caller]
    pub fn new(p: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::from_drop(RandomDrop::new(NAME, check_number::<F>(NAME, "p", Expect::Probability, p), rng))
    }

    pub(crate) fn from_drop(drop: RandomDrop) -> Self {
        Dropout { drop, elem: PhantomData }
    }

    /// The probability with which an element is dropped.
    pub fn p(&self) -> f64 {
        self.drop.p
    }
}

/// `y = m ∘ x`, row by row; `y = x` without a mask.
fn apply<F: Float>(mask: Option<Mask>, rows: &Rows<'_, F>, x: ArrayView2<'_, F>, mut y: ArrayViewMut2<'_, F>) {
    let Some(mask) = mask else { return y.assign(&x) };
    let (pass, (_, batch)) = (&rows.pass, rows.pass.dims());
    for (place, (x, y)) in rows.places.clone().zip(x.outer_iter().zip(y.outer_iter_mut())) {
        let mask = mask.part(pass.first_step() + place / batch).part(pass.first_sequence() + place % batch);
        drop_row(mask, row_of(x), row_of_mut(y));
    }
}

impl<F: Float> RowLayer for Dropout<F> {
    type Elem = F;
    type Kept = Option<Mask>;
    const NAME: &'static str = NAME;
    compiled_walk!(Dropout);

    fn drops(&self) -> bool {
        self.drop.p > 0.0
    }

    fn row_stages(&self, _: &mut Stages<F>) -> bool {
        true // nothing is dropped in inference
    }

    fn add_rows_to_graph(&self, _: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
        Ok(x)
    }

    fn begin(&self, x: &Sequence<'_, F>, mask: &mut Option<Mask>) {
        *mask = self.drop.mask(NAME, x.mode());
    }

    fn forward_rows(&self, rows: Rows<'_, F>, y: ArrayViewMut2<'_, F>, mask: &mut Option<Mask>) {
        apply(*mask, &rows, rows.x, y);
    }

    fn backward_rows(&self, rows: Rows<'_, F>, d: RowGradients<'_, F>, mask: &mut Option<Mask>, _: Gradient<'_, Self>) {
        let RowGradients { dy, dx } = d;
        if let Some(dx) = dx {
            apply(*mask, &rows, dy, dx);
        }
    }
}
row_layer! { impl<F: Float> Layer for Dropout<F> }
