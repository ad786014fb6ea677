//! Any layer in both directions of time.

use ndarray::{Array3, ArrayRef3, ArrayView3, Zip, s};
use num_traits::Zero;

use crate::base::error::mismatch;
use crate::base::tensors::join;
use crate::base::{Size, SizeError, Tensors};
use crate::kernels::{Float, once};
use crate::layer::kit::{Pending, opaque_debug, reuse};
use crate::layer::{Gradient, Graph, Layer, Sequence, Signal, Steps, Summary, Unsupported};
use crate::parameters;

const NAME: &str = "Bidirectional";

/// Two layers over the same sequences, one from the first step to the last, one from each sequence's last valid step to
/// its first (Schuster and Paliwal 1997).
///
/// ```text
/// y_t = [ →layer(x)_t ; ←layer(x)_t ]
/// ```
///
/// Maps `[T, B, I]` to `[T, B, O + O']`. [`merge`](Bidirectional::merge) combines both outputs in another way: see [`Merge`]. Any
/// layers will do, whole models too, if both keep the number of steps or give the same number. Feed-forward parts inside them do
/// not depend on the direction. It is not [`Causal`](crate::Causal), because it needs the whole sequence. For several layers of one
/// kind of cell, a [`Recurrent`](crate::recurrent::Recurrent) model, which has PyTorch's names, is the better choice.
///
/// ```
/// use gradflow::{
///     Layer, compose::Residual, layers::Linear, rand::{SeedableRng, rngs::StdRng}, recurrent::GruCell,
///     wrap::Bidirectional,
/// };
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let mut direction = || (Residual::new(GruCell::<f32>::new(3, 3, rng)), Linear::new(3, 2, rng));
/// let layer = Bidirectional::new(direction(), direction());
/// assert_eq!(layer.output_size(3.into()), Ok(4));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Bidirectional<L> {
    /// From the first step to the last.
    pub forward: L,
    /// From the last valid step to the first.
    pub reverse: L,
    /// How both outputs are combined.
    pub merge: Merge,
}
parameters! { impl<L: Layer> Tensors<L::Elem> for Bidirectional<L> { forward, reverse; skip merge } }

impl<L: Layer> Bidirectional<L> {
    /// One layer for each direction.
    pub fn new(forward: L, reverse: L) -> Self {
        Bidirectional { forward, reverse, merge: Merge::Concat }
    }

    /// Sets how both outputs are combined.
    ///
    /// ```
    /// use gradflow::{Layer, rand::{SeedableRng, rngs::StdRng}, recurrent::Gru, wrap::{Bidirectional, Merge}};
    ///
    /// let rng = &mut StdRng::seed_from_u64(0);
    /// let layer = Bidirectional::new(Gru::<f32>::new(3, 8, rng), Gru::new(3, 8, rng)).merge(Merge::Sum);
    /// assert_eq!(layer.output_size(3.into()), Ok(8));
    /// ```
    pub fn merge(self, merge: Merge) -> Self {
        Bidirectional { merge, ..self }
    }
}

/// How the outputs f and r of both directions of a [`Bidirectional`] are combined: Keras' `merge_mode`.
///
/// ```text
/// Concat      y = [f ; r]         dL/df, dL/dr = the parts of dL/dy
/// Sum         y = f + r           dL/df = dL/dr = dL/dy
/// Average     y = (f + r) / 2     dL/df = dL/dr = dL/dy / 2
/// Multiply    y = f ∘ r           dL/df = r ∘ dL/dy        dL/dr = f ∘ dL/dy
/// ```
///
/// All but `Concat` need directions with the same number of features, which is also that of y.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Merge {
    /// Side by side, as in PyTorch: Keras' `concat`.
    #[default]
    Concat,
    /// Keras' `sum`.
    Sum,
    /// Keras' `ave`.
    Average,
    /// Keras' `mul`.
    Multiply,
}

once! {
    /// `y` from f and r, which have the same shape.
    fn merge<'a, F: Float>(merge: Merge, f: ArrayView3<'a, F>, r: ArrayView3<'a, F>, y: &'a mut Array3<F>) {
        let outputs = Zip::from(y).and(f).and(r);
        match merge {
            Merge::Concat => unreachable!("side by side"),
            Merge::Sum => outputs.for_each(|y, &f, &r| *y = f + r),
            Merge::Average => outputs.for_each(|y, &f, &r| *y = (f + r) * F::of(0.5)),
            Merge::Multiply => outputs.for_each(|y, &f, &r| *y = f * r),
        }
    }

    /// `factors ∘ dy`.
    fn multiply<'a, F: Float>(dy: ArrayView3<'a, F>, factors: ArrayView3<'a, F>, d: &'a mut Array3<F>) {
        Zip::from(d).and(dy).and(factors).for_each(|d, &dy, &factor| *d = dy * factor);
    }

    /// `dy / 2`.
    fn halve<'a, F: Float>(dy: ArrayView3<'a, F>, d: &'a mut Array3<F>) {
        Zip::from(d).and(dy).for_each(|d, &dy| *d = dy * F::of(0.5));
    }
}

/// The state of a [`Bidirectional`]: the state of each direction, at the end of that direction.
#[derive(Clone, Debug, PartialEq)]
pub struct BothStates<S> {
    /// After the last step.
    pub forward: S,
    /// After the first step.
    pub reverse: S,
}

impl<F, S: Tensors<F>> Tensors<F> for BothStates<S> {
    fn count(&self) -> usize {
        self.forward.count() + self.reverse.count()
    }
    crate::__tensors_by_index! { F; forward [], reverse [] }
}

/// The cache of a [`Bidirectional`].
pub struct BothCache<L: Layer> {
    pending: Pending,
    forward: L::Cache,
    reverse: L::Cache,
    y: Array3<L::Elem>,  // [T, B, O + O'], or [T, B, O] and, in a backward pass, dL/df
    d: Array3<L::Elem>,  // [T, B, O], dL/dr of a product
    dx: Array3<L::Elem>, // [T, B, I]
}

opaque_debug! { BothCache<L: Layer> }

impl<L: Layer> Default for BothCache<L> {
    fn default() -> Self {
        let empty = || Array3::default((0, 0, 0));
        let (forward, reverse) = (L::Cache::default(), L::Cache::default());
        BothCache { pending: Pending::default(), forward, reverse, y: empty(), d: empty(), dx: empty() }
    }
}

impl<L: Layer> Layer for Bidirectional<L> {
    type Elem = L::Elem;
    type State = BothStates<L::State>;
    type Cache = BothCache<L>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let (forward, reverse) = (self.forward.output_steps(), self.reverse.output_steps());
        if forward != reverse {
            let text = |steps: Steps| match steps {
                Steps::Same => "those of x".into(),
                Steps::Count(steps) => steps.to_string(),
                Steps::Every(stride) => format!("one of every {stride} of x"),
            };
            let (forward, reverse) = (text(forward), text(reverse));
            let reason =
                format!("takes directions with as many steps, got {forward} from forward and {reverse} from reverse");
            return Err(SizeError::new(NAME, reason));
        }
        let forward = self.forward.output_size(input).map_err(|error| error.inside("forward"))?;
        let reverse = self.reverse.output_size(input).map_err(|error| error.inside("reverse"))?;
        match self.merge {
            Merge::Concat => Ok(forward + reverse),
            Merge::Sum | Merge::Average | Merge::Multiply if forward == reverse => Ok(forward),
            merge => {
                let reason = format!(
                    "takes directions of as many features for {merge:?}, got {forward} from forward and {reverse} from reverse"
                );
                Err(SizeError::new(NAME, reason))
            }
        }
    }

    fn output_steps(&self) -> Steps {
        self.forward.output_steps()
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        self.forward.describe(&join(name, "forward".into()), summary);
        self.reverse.describe(&join(name, "reverse".into()), summary);
    }

    fn zero_state(&self, batch: usize) -> Self::State {
        BothStates { forward: self.forward.zero_state(batch), reverse: self.reverse.zero_state(batch) }
    }

    fn add_to_graph(&self, graph: &mut Graph<L::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        let forward = graph.inside("forward", |graph| self.forward.add_to_graph(graph, x))?;
        let reversed = Signal { is_reversed: !x.is_reversed, ..x };
        let reverse = graph.inside("reverse", |graph| self.reverse.add_to_graph(graph, reversed))?;
        let (features, outputs) = (forward.features(NAME)?, [forward.value, reverse.value]);
        Ok(match self.merge {
            Merge::Concat => {
                let y = graph.node("Concat", &outputs, &[("axis", 2.into())]);
                forward.with(y, features + reverse.features(NAME)?)
            }
            Merge::Sum => forward.with(graph.node("Add", &outputs, &[]), features),
            Merge::Average => {
                let (sum, half) = (graph.node("Add", &outputs, &[]), graph.scalar(0.5));
                forward.with(graph.node("Mul", &[sum, half], &[]), features)
            }
            Merge::Multiply => forward.with(graph.node("Mul", &outputs, &[]), features),
        })
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        state: &mut Self::State,
        cache: &'c mut BothCache<L>,
    ) -> ArrayView3<'c, L::Elem> {
        let BothCache { pending, forward, reverse, y, .. } = cache;
        let mark = pending.begin(&(), x);
        self.expect_size(x);
        let forward = self.forward.forward_pass(x, &mut state.forward, forward);
        let reverse = self.reverse.forward_pass(&x.reversed(), &mut state.reverse, reverse);
        let (steps, batch, middle) = forward.dim();
        match self.merge {
            Merge::Concat => {
                reuse(y, (steps, batch, middle + reverse.dim().2));
                y.slice_mut(s![.., .., ..middle]).assign(&forward);
                y.slice_mut(s![.., .., middle..]).assign(&reverse);
            }
            how => {
                if forward.dim() != reverse.dim() {
                    let expected = format!("outputs of one shape, {:?}", forward.shape());
                    mismatch(NAME, "reverse", &expected, &format!("{:?}", reverse.shape()))
                }
                reuse(y, forward.raw_dim());
                merge(how, forward, reverse, y);
            }
        }
        mark.set();
        y.view()
    }

    fn output<'c>(&self, cache: &'c BothCache<L>) -> ArrayView3<'c, L::Elem> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        dstate: Option<&mut Self::State>,
        cache: &'c mut BothCache<L>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, L::Elem> {
        let BothCache { pending, forward, reverse, y, d, dx } = cache;
        let (steps, batch) = x.dims();
        pending.take_with_steps(NAME, &(), x, dy, [self.output_steps().of(steps), y.dim().2]);
        let middle = self.forward.output(forward).dim().2;
        let (dforward, dreverse) = dstate.map(|dstate| (&mut dstate.forward, &mut dstate.reverse)).unzip();
        let (dy_forward, dy_reverse) = match self.merge {
            Merge::Concat => (dy.slice(s![.., .., ..middle]), dy.slice(s![.., .., middle..])),
            Merge::Sum => (dy.view(), dy.view()),
            Merge::Average => {
                halve(dy.view(), y);
                (y.view(), y.view())
            }
            Merge::Multiply => {
                reuse(d, y.raw_dim());
                multiply(dy.view(), self.reverse.output(reverse), y);
                multiply(dy.view(), self.forward.output(forward), d);
                (y.view(), d.view())
            }
        };
        let (grad, how) = grad.parts();
        let (grad_forward, grad_reverse) =
            (Gradient::new(&mut grad.forward, how), Gradient::new(&mut grad.reverse, how));
        let forward = self.forward.backward_pass(x, &dy_forward, dforward, forward, grad_forward);
        let reverse = self.reverse.backward_pass(&x.reversed(), &dy_reverse, dreverse, reverse, grad_reverse);
        // If the gradient is not wanted, it is unspecified, and so is its shape.
        let features = if x.wants_gradient() { forward.dim().2 } else { 0 };
        reuse(dx, (steps, batch, features));
        dx.fill(L::Elem::zero());
        if x.wants_gradient() {
            *dx += &forward;
            *dx += &reverse;
        }
        dx.view()
    }
}
