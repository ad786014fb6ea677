//! Comparison up to a tolerance, with the crate [`approx`] (feature `approx`).
//!
//! [`AbsDiffEq`] and [`RelativeEq`] are implemented for every layer, for the states that are types of this crate and for
//! [`NamedTensors`], so that a test can say `assert_relative_eq!(model, loaded)`. States that are arrays have both traits
//! from ndarray.
//!
//! Two values are equal if they have the same number of tensors, with the same names and shapes, and values that are equal up to
//! the tolerance. Settings that are not tensors, such as the probability of a [`Dropout`], are not compared. `epsilon` and
//! `max_relative` have the element type, and [`Float::epsilon`](num_traits::Float::epsilon) is the default of both. NaN equals
//! nothing, including itself; an infinity equals itself.
//!
//! Tuples and your own structs are not types of this crate, so it cannot implement the traits for them: compare copies of their
//! tensors, made by [`tensors_of`].
//!
//! ```
//! use approx::{assert_abs_diff_eq, assert_relative_eq, assert_relative_ne};
//! use gradflow::approx::tensors_of;
//! use gradflow::rand::{SeedableRng, rngs::StdRng};
//! use gradflow::{TensorsExt, compose::Residual, layers::Linear, recurrent::LstmCell};
//!
//! let rng = &mut StdRng::seed_from_u64(0);
//! let layer = Residual::new(LstmCell::<f32>::new(4, 4, rng));
//! let mut scaled = layer.clone();
//! scaled.scale(1.0 + 1e-5);
//! assert_relative_ne!(layer, scaled);
//! assert_relative_eq!(layer, scaled, max_relative = 1e-4);
//! assert_abs_diff_eq!(layer, scaled, epsilon = 1e-4);
//!
//! let model = (layer, Linear::new(4, 2, rng));
//! assert_relative_eq!(tensors_of(&model), tensors_of(&model.clone()));
//! ```

use ::approx::{AbsDiffEq, RelativeEq};
use ndarray::Dimension;

use crate::attention::{AdditiveScore, Attention, AttentionScore, BilinearScore};
use crate::base::{NamedTensors, Tensors, TensorsExt};
use crate::cells::{GruCell, LstmCell, MguCell, MinGruCell, MinLstmCell, RnnCell, SlstmCell, SlstmState};
use crate::compose::{
    BoxLayer, BoxState, BranchScale, DenseConcat, Highway, NormedConv1d, PostNormBlock, PreNormBlock, PreNormBranch,
    Residual, Stacked, StochasticDepth, TemporalBlock, TemporalBranch, TiedEmbedding,
};
use crate::kernels::Float;
use crate::layer::{Causal, Layer};
use crate::layers::{
    Activation, CausalConv1d, Dropout, Embedding, FeedForward, Identity, LastStep, LayerNorm, Linear, Pool, Repeat,
    StridedConv1d,
};
use crate::recurrence::{Cell, LstmState};
use crate::recurrent::Recurrent;
use crate::wrap::{
    Bidirectional, BothStates, LearnedState, Prepacked, Probed, StartedState, TruncatedBptt, WeightDrop, WeightNorm,
};

/// A copy of the tensors of `tensors`, with their names: for types that do not implement the traits of [`approx`], such as a
/// tuple of layers or its state.
pub fn tensors_of<F: Float>(tensors: &(impl Tensors<F> + ?Sized)) -> NamedTensors<F> {
    NamedTensors::new((0..tensors.count()).map(|i| {
        let (shape, values) = tensors.tensor(i);
        (tensors.name(i), shape.to_vec(), values.to_vec())
    }))
}

/// Whether both have the same tensors by name and shape, and all pairs of values are `equal`.
fn all_equal<F: Float>(
    one: &(impl Tensors<F> + ?Sized),
    other: &(impl Tensors<F> + ?Sized),
    equal: impl Fn(f64, f64) -> bool,
) -> bool {
    one.count() == other.count()
        && (0..one.count()).all(|i| {
            one.name(i) == other.name(i)
                && one.shape(i) == other.shape(i)
                && one.values(i).iter().zip(other.values(i)).all(|(a, b)| equal(a.widen(), b.widen()))
        })
}

/// Implements both traits: `[generics] type: element type;`.
macro_rules! compare_tensors {
    ($([$($generics:tt)*] $type:ty: $elem:ty;)+) => {$(
        impl<$($generics)*> AbsDiffEq for $type
        where
            Self: PartialEq,
        {
            type Epsilon = $elem;

            fn default_epsilon() -> $elem {
                <$elem as num_traits::Float>::epsilon()
            }

            fn abs_diff_eq(&self, other: &Self, epsilon: $elem) -> bool {
                let epsilon = epsilon.widen();
                all_equal::<$elem>(self, other, |a, b| a == b || a.abs_diff_eq(&b, epsilon))
            }
        }

        impl<$($generics)*> RelativeEq for $type
        where
            Self: PartialEq,
        {
            fn default_max_relative() -> $elem {
                <$elem as num_traits::Float>::epsilon()
            }

            fn relative_eq(&self, other: &Self, epsilon: $elem, max_relative: $elem) -> bool {
                let (epsilon, max_relative) = (epsilon.widen(), max_relative.widen());
                all_equal::<$elem>(self, other, |a, b| a.relative_eq(&b, epsilon, max_relative))
            }
        }
    )+};
}

compare_tensors! {
    [F: Float] NamedTensors<F>: F;
    [F: Float, D: Dimension] LstmState<F, D>: F;
    [F: Float, D: Dimension] SlstmState<F, D>: F;
    [F: Float, S: Tensors<F>] StartedState<F, S>: F;
    [F: Float] BoxState<F>: F;

    [F: Float] Linear<F>: F;
    [F: Float] Activation<F>: F;
    [F: Float] CausalConv1d<F>: F;
    [F: Float] StridedConv1d<F>: F;
    [F: Float] LayerNorm<F>: F;
    [F: Float] Embedding<F>: F;
    [F: Float] Dropout<F>: F;
    [F: Float] Identity<F>: F;
    [F: Float] LastStep<F>: F;
    [F: Float] Pool<F>: F;
    [F: Float] Repeat<F>: F;
    [F: Float] FeedForward<F>: F;
    [F: Float] RnnCell<F>: F;
    [F: Float] LstmCell<F>: F;
    [F: Float] GruCell<F>: F;
    [F: Float] MguCell<F>: F;
    [F: Float] MinGruCell<F>: F;
    [F: Float] MinLstmCell<F>: F;
    [F: Float] SlstmCell<F>: F;
    [F: Float] Attention<F>: F;
    [F: Float] AttentionScore<F>: F;
    [F: Float] BilinearScore<F>: F;
    [F: Float] AdditiveScore<F>: F;
    [F: Float] BranchScale<F>: F;
    [F: Float] PreNormBranch<F>: F;
    [F: Float] PreNormBlock<F>: F;
    [F: Float] PostNormBlock<F>: F;
    [F: Float] NormedConv1d<F>: F;
    [F: Float, Kind] BoxLayer<F, Kind>: F;

    [C: Cell, const DIRECTIONS: usize] Recurrent<C, DIRECTIONS>: C::Elem;
    [L: Layer] Residual<L>: L::Elem;
    [L: Layer] Highway<L>: L::Elem;
    [L: Layer] DenseConcat<L>: L::Elem;
    [L: Layer] StochasticDepth<L>: L::Elem;
    [L: Layer] Stacked<L>: L::Elem;
    [L: Layer] TemporalBlock<L>: L::Elem;
    [L: Layer] TemporalBranch<L>: L::Elem;
    [L: Layer] TiedEmbedding<L>: L::Elem;
    [L: Layer] Bidirectional<L>: L::Elem;
    [L: Layer] LearnedState<L>: L::Elem;
    [L: Causal] TruncatedBptt<L>: L::Elem;
    [L: Layer] Prepacked<L>: L::Elem;
    [L: Layer] Probed<L>: L::Elem;
    [L: Layer] WeightDrop<L>: L::Elem;
    [L: Layer] WeightNorm<L>: L::Elem;
}

/// Compared direction by direction, because the element type follows from the directions' states alone.
impl<S: AbsDiffEq<Epsilon: Copy>> AbsDiffEq for BothStates<S> {
    type Epsilon = S::Epsilon;

    fn default_epsilon() -> S::Epsilon {
        S::default_epsilon()
    }

    fn abs_diff_eq(&self, other: &Self, epsilon: S::Epsilon) -> bool {
        self.forward.abs_diff_eq(&other.forward, epsilon) && self.reverse.abs_diff_eq(&other.reverse, epsilon)
    }
}

impl<S: RelativeEq<Epsilon: Copy>> RelativeEq for BothStates<S> {
    fn default_max_relative() -> S::Epsilon {
        S::default_max_relative()
    }

    fn relative_eq(&self, other: &Self, epsilon: S::Epsilon, max_relative: S::Epsilon) -> bool {
        self.forward.relative_eq(&other.forward, epsilon, max_relative)
            && self.reverse.relative_eq(&other.reverse, epsilon, max_relative)
    }
}
