//! Attention as a layer: over its input, with queries that another layer computes from the input.

use gradflow::attention::{AdditiveScore, Attention, BilinearScore};
use gradflow::author::{AttentionCache, Gradient, Size, SizeError, Steps};
use gradflow::compose::BoxLayer;
use gradflow::ndarray::{Array3, ArrayRef3, ArrayView3, s};
use gradflow::rand::rngs::StdRng;
use gradflow::{Float, Layer, Sequence, parameters};

/// The score by which query and memory are compared.
#[derive(Clone, Copy, Debug)]
pub enum Score {
    Dot { scaled: bool },
    Bilinear,
    Additive { hidden: usize, bias: bool },
}

impl Score {
    /// Attention for `query` features of the queries and `memory` features of the memory.
    pub fn attention<F: Float>(self, query: usize, memory: usize, rng: &mut StdRng) -> Attention<F> {
        match self {
            Score::Dot { scaled: false } => Attention::dot(),
            Score::Dot { scaled: true } => Attention::scaled_dot(),
            Score::Bilinear => BilinearScore::new(query, memory, rng).into(),
            Score::Additive { hidden, bias: true } => AdditiveScore::new(query, memory, hidden, rng).into(),
            Score::Additive { hidden, bias: false } => {
                AdditiveScore::new(query, memory, hidden, rng).without_bias().into()
            }
        }
    }
}

#[derive(Clone)]
pub struct Attend<F: Float> {
    /// Computes the queries.
    layer: BoxLayer<F>,
    attention: Attention<F>,
    /// Number of queries that attend in one call.
    at_once: usize,
}
parameters! { impl<F: Float> Tensors<F> for Attend<F> { layer, attention; skip at_once } }

#[derive(Default)]
pub struct AttendCache<F: Float> {
    layer: <BoxLayer<F> as Layer>::Cache,
    attention: AttentionCache<F>,
    queries: Array3<F>,  // [Tq, B, Q]
    contexts: Array3<F>, // [Tq, B, D]
    dx: Array3<F>,       // [T, B, D]
}

impl<F: Float> Attend<F> {
    pub fn new(layer: BoxLayer<F>, attention: Attention<F>, at_once: usize) -> Self {
        Attend { layer, attention, at_once }
    }
}

/// Checks the weights of the positions of the memory: for each valid query that sees any, the valid positions share a weight of 1.
fn check_weights<F: Float>(weights: ArrayView3<'_, F>, query: &Sequence<'_, F>, memory: &Sequence<'_, F>) {
    let (steps, batch, _) = weights.dim();
    for (t, b) in (0..steps).flat_map(|t| (0..batch).map(move |b| (t, b))) {
        let row = weights.slice(s![t, b, ..]);
        let sum: f64 = row.iter().map(|weight| weight.widen()).sum();
        let sees = query.valid(t, b) && memory.valid_steps(b).next().is_some();
        let want = if sees { 1.0 } else { 0.0 };
        // Infinities and NaN from an earlier layer are no mistake.
        assert!(sum.is_nan() || (sum - want).abs() < 1e-4, "weights of query {t} of sequence {b} sum to {sum}");
        let mut padding = row.iter().enumerate().filter(|&(s, _)| !memory.valid(s, b));
        assert!(padding.all(|(_, &weight)| weight == F::zero()), "padding has a weight");
    }
}

impl<F: Float> Layer for Attend<F> {
    type Elem = F;
    type State = <BoxLayer<F> as Layer>::State;
    type Cache = AttendCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.layer.output_size(input)?;
        input.features("Attend")
    }

    fn output_steps(&self) -> Steps {
        self.layer.output_steps()
    }

    fn zero_state(&self, batch: usize) -> Self::State {
        self.layer.zero_state(batch)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        state: &mut Self::State,
        cache: &'c mut AttendCache<F>,
    ) -> ArrayView3<'c, F> {
        let AttendCache { layer, attention, queries, contexts, .. } = cache;
        *queries = self.layer.forward_pass(x, state, layer).to_owned();
        let query = self.layer.output_sequence(x, queries.view());
        let (steps, batch) = query.dims();
        let features = self.output_size(x.size()).expect("a size that fits");
        *contexts = Array3::zeros((steps, batch, features));
        self.attention.memorize(*x, attention);
        let mut from = 0;
        for part in query.chunks(self.at_once) {
            let to = from + part.dims().0;
            contexts.slice_mut(s![from..to, .., ..]).assign(&self.attention.attend(part, *x, attention));
            check_weights(attention.weights(), &part, x);
            from = to;
        }
        contexts.view()
    }

    fn output<'c>(&self, cache: &'c AttendCache<F>) -> ArrayView3<'c, F> {
        cache.contexts.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut Self::State>,
        cache: &'c mut AttendCache<F>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, F> {
        let grad = grad.to_add(); // of several calls
        let AttendCache { layer, attention, queries, dx, .. } = cache;
        let query = self.layer.output_sequence(x, queries.view());
        let mut dqueries = Array3::zeros(queries.dim());
        let parts: Vec<_> = query.chunks(self.at_once).collect();
        let mut to = query.dims().0;
        for part in parts.into_iter().rev() {
            let from = to - part.dims().0;
            let dcontext = dy.slice(s![from..to, .., ..]);
            let dquery = self.attention.attend_backward(part, *x, &dcontext, attention, &mut grad.attention);
            dqueries.slice_mut(s![from..to, .., ..]).assign(&dquery);
            to = from;
        }
        let dmemory = self.attention.memorize_backward(*x, attention, &mut grad.attention);
        let dx_of_queries = self.layer.backward_pass(x, &dqueries, dstate, layer, Gradient::add(&mut grad.layer));
        if x.wants_gradient() {
            *dx = &dx_of_queries + &dmemory;
        }
        dx.view()
    }
}
