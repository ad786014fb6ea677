//! Dropout, and the masks of everything that is dropped at random.

use std::marker::PhantomData;

use ndarray::{Array3, ArrayRef3, ArrayView3};
use rand::Rng;

use crate::base::random::{Mask, drop_row};
use crate::base::{RandomDrop, Size, SizeError};
use crate::kernels::Float;
use crate::layer::kit::{Pending, StandardLayout, reuse};
use crate::layer::rows::{rows_of, span};
use crate::layer::{Causal, Layer, Sequence};
use crate::parameters;

const NAME: &str = "Dropout";

/// Dropout (Srivastava et al. 2014), scaled in training so that evaluation needs no scale.
///
/// ```text
/// train(seed):      y_tbk = m_tbk x_tbk        m_tbk = 0 with probability p, else 1 / (1 - p)
/// eval(), infer():  y = x
/// ```
///
/// `[T, B, D]` to `[T, B, D]`. The mask is a hash of the seed, the layer's id, `t`, `b` and `k`: it needs no state, does
/// not depend on the number of sequences or threads, is the whole sequence's in its chunks, and comes back with the seed, so
/// give each training step another one. The id, drawn by [`new`](Dropout::new), keeps the dropouts of one model apart; a clone keeps it.
///
/// # Panics
/// `forward` panics where `x` says neither [`train`](Sequence::train), [`eval`](Sequence::eval) nor
/// [`infer`](Sequence::infer): a forgotten mode would silently train without dropout, or evaluate with it.
///
/// ```
/// use gradflow::{Dropout, Layer, Sequence, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
///
/// let dropout = Dropout::<f64>::new(0.5, &mut StdRng::seed_from_u64(0));
/// let x = Array3::ones((1, 1, 1000));
/// let mut cache = dropout.cache();
/// let y = dropout.forward(Sequence::from(&x).train(7), &mut (), &mut cache);
/// assert!(y.iter().all(|&y| y == 0.0 || y == 2.0));
/// assert!((400..600).contains(&y.iter().filter(|&&y| y == 0.0).count()));
/// assert_eq!(dropout.forward(Sequence::from(&x).eval(), &mut (), &mut cache), x);
/// ```
#[derive(Clone, Debug)]
pub struct Dropout<F> {
    drop: RandomDrop,
    elem: PhantomData<F>,
}
parameters! { impl<F: Float> Tensors<F> for Dropout<F> { ; skip drop, elem } }

impl<F: Float> Dropout<F> {
    /// Drops each element with probability `p`.
    ///
    /// # Panics
    /// Where `p` is not in `0..1`.
    pub fn new(p: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::from_drop(RandomDrop::new(NAME, p, rng))
    }

    pub(crate) fn from_drop(drop: RandomDrop) -> Self {
        Dropout { drop, elem: PhantomData }
    }

    /// The probability with which an element is dropped.
    pub fn p(&self) -> f64 {
        self.drop.p
    }
}

/// The cache of a [`Dropout`].
#[derive(Clone, Default)]
pub struct DropoutCache<F> {
    pending: Pending,
    copy: StandardLayout<F>,
    mask: Option<Mask>,
    y: Array3<F>, // [T, B, D] and, after a backward pass, dx
}

/// `y = m ∘ x` on the valid rows, zero on the others.
fn apply<F: Float>(mask: Option<Mask>, x: &Sequence<'_, F>, values: &[F], y: &mut Array3<F>) {
    let (_, batch, features) = y.dim();
    for run in x.runs() {
        let (from, to) = (&values[span(&run, features)], rows_of(y, &run));
        let Some(mask) = mask else {
            to.copy_from_slice(from);
            continue;
        };
        for (row, (from, to)) in run.zip(from.chunks_exact(features).zip(to.chunks_exact_mut(features))) {
            drop_row(mask.part(x.first_step() + row / batch).part(x.first_sequence() + row % batch), from, to);
        }
    }
    x.zero_padding(y);
}

impl<F: Float> Layer for Dropout<F> {
    type Elem = F;
    type State = ();
    type Cache = DropoutCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        input.features(NAME)
    }

    fn zero_state(&self, _batch: usize) {}

    fn forward<'c>(&self, x: Sequence<'_, F>, _: &mut (), cache: &'c mut DropoutCache<F>) -> ArrayView3<'c, F> {
        let x_features = x.features(NAME, None);
        let DropoutCache { pending, copy, mask, y } = cache;
        *mask = self.drop.mask(NAME, x.mode());
        pending.set(&x);
        reuse(y, x_features.raw_dim());
        apply(*mask, &x, copy.values(x_features), y);
        y.view()
    }

    fn output<'c>(&self, cache: &'c DropoutCache<F>) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut DropoutCache<F>,
        _: &mut Self,
    ) -> ArrayView3<'c, F> {
        let DropoutCache { pending, copy, mask, y } = cache;
        pending.take(NAME, &x, dy, y.dim().2);
        apply(*mask, &x, copy.values(dy.view()), y);
        y.view()
    }

    fn overwrites_gradients(&self) -> bool {
        true
    }
}

impl<F: Float> Causal for Dropout<F> {}
