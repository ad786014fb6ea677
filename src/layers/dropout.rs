//! Dropout, and the masks of everything that is dropped at random.

use std::marker::PhantomData;

use ndarray::{Array3, ArrayRef3, ArrayView3};
use rand::{Rng, RngExt};

use crate::affine::{rows_of, span};
use crate::cache::{Pending, StandardLayout, reuse};
use crate::error::mismatch;
use crate::kernels::vectorised;
use crate::{Causal, Float, Layer, Mode, Sequence, Size, SizeError, parameters};

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

/// A probability of being dropped, and the id that tells its masks from others'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomDrop {
    pub p: f64,
    id: u64,
}

impl RandomDrop {
    #[track_caller]
    pub fn new(layer: &str, p: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        if !(0.0..1.0).contains(&p) {
            mismatch(layer, "p", &"a probability in 0..1", &p)
        }
        RandomDrop { p, id: rng.random() }
    }

    /// The mask of a pass over `x`; `None` where nothing is dropped.
    #[track_caller]
    pub fn mask<F: Float>(&self, layer: &str, x: &Sequence<'_, F>) -> Option<Mask> {
        self.mask_in(layer, x.mode())
    }

    /// The mask of a pass in `mode`; `None` where nothing is dropped.
    #[track_caller]
    pub fn mask_in(&self, layer: &str, mode: Option<Mode>) -> Option<Mask> {
        match mode {
            Some(Mode::Train { seed }) => (self.p > 0.0).then(|| Mask {
                key: mix(mix(seed) ^ self.id),
                threshold: (self.p * 2f64.powi(64)) as u64,
                scale: 1.0 / (1.0 - self.p),
            }),
            Some(Mode::Eval | Mode::Infer) => None,
            None => mismatch(layer, "x", &"a mode: say x.train(seed), x.eval() or x.infer()", &"none"),
        }
    }
}

/// The mask of one pass: what is kept is multiplied by `scale`, the rest by 0.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    key: u64,
    threshold: u64,
    scale: f64,
}

impl Mask {
    /// The mask of part `i`.
    pub fn part(self, i: usize) -> Mask {
        Mask { key: mix(self.key.wrapping_add(i as u64)), ..self }
    }

    /// What the whole is multiplied by.
    pub fn factor(self) -> f64 {
        if mix(self.key) >= self.threshold { self.scale } else { 0.0 }
    }
}

/// Whether the mask drops element `k`.
#[inline(always)]
pub(crate) fn chosen(mask: Mask, k: usize) -> bool {
    mix(mask.key.wrapping_add(GOLDEN.wrapping_mul(k as u64))) < mask.threshold
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A step of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of `key`.
#[inline(always)]
fn mix(key: u64) -> u64 {
    let z = key.wrapping_add(GOLDEN);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

vectorised! {
    /// y = m ∘ x, for one row. A product and no choice: NaN is not dropped.
    pub(crate) fn multiply<'a, F: Float>(mask: Mask, x: &'a [F], y: &'a mut [F]) {
        let (zero, scale) = (F::zero(), F::of(mask.scale));
        let mut key = mask.key;
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * if mix(key) >= mask.threshold { scale } else { zero };
            key = key.wrapping_add(GOLDEN);
        }
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
            multiply(mask.part(x.first_step() + row / batch).part(x.first_sequence() + row % batch), from, to);
        }
    }
    x.zero_padding(y);
}

impl<F: Float> Layer for Dropout<F> {
    type Elem = F;
    type State = ();
    type Cache = DropoutCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        super::same_size(NAME, input)
    }

    fn zero_state(&self, _batch: usize) {}

    fn forward<'c>(&self, x: Sequence<'_, F>, _: &mut (), cache: &'c mut DropoutCache<F>) -> ArrayView3<'c, F> {
        let x_features = x.features(NAME, None);
        let DropoutCache { pending, copy, mask, y } = cache;
        *mask = self.drop.mask(NAME, &x);
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
