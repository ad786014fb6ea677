//! Attention over the outputs of an encoder.

mod mask;
mod score;

use std::fmt;
use std::ops::Range;

use ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut2, s};
use rand::Rng;

use crate::base::error::mismatch;
use crate::base::{Mode, TensorsExt, check_gradient, check_shape};
use crate::kernels::softmax::softmax_backward;
use crate::kernels::{Accumulate, Float, once, product};
use crate::layer::gradient::start;
use crate::layer::kit::{StandardLayout, check_layout, parameters, reuse, rows};
use crate::layer::{Gradient, Sequence};
use crate::parameters;
pub use mask::AttentionMask;
use mask::{fields, weigh};
pub use score::{AdditiveScore, AttentionScore, BilinearScore};

const NAME: &str = "Attention";
// The names of the two inputs in messages, in place of a layer's.
const QUERY: &str = "Attention: query";
const MEMORY: &str = "Attention: memory";

/// Attention of a decoder over the outputs of an encoder: for each query, a mean of the memory, weighted by a
/// [score](AttentionScore) of the two.
///
/// ```text
/// e_ts = score(q_t, m_s)        dot: q·m    bilinear: qᵀ W m    additive: vᵀ tanh(W_q q + W_m m + b)
/// α_ts = exp(e_ts) / Σ_r exp(e_tr)              over the positions that are seen
/// c_t  = Σ_s α_ts m_s
/// ```
///
/// | | shape | |
/// | --- | --- | --- |
/// | `query` | `[Tq, B, Q]` | states of the decoder |
/// | `memory` | `[Tm, B, M]` | outputs of the encoder; for a dot score `M = Q` |
/// | context | `[Tq, B, M]` | `c` |
/// | [weights](AttentionCache::weights) | `[Tq, B, Tm]` | `α` |
///
/// The softmax is correct for scores of any size, even those that the element type cannot hold, such as the dot products of
/// features of 1e20 in f32: a row in which a sum overflows is computed again, relative to its largest score.
///
/// Sources: Bahdanau, Cho and Bengio 2015 (additive); Luong, Pham and Manning 2015 (dot, bilinear).
///
/// It has two inputs and so is not a [`Layer`](crate::Layer), but it follows a layer's rules: it holds only parameters, a gradient
/// is a value of the same type to which backward passes *add*, and nothing is allocated from the second pass of a shape on.
///
/// # What is seen
/// Each input may have lengths and a mask. Memory that is padding has weight 0 and is not read; queries that are padding have
/// contexts of zero. With [resets](Sequence::with_resets) in both inputs, each piece of the queries sees the piece of the memory
/// with the same number, so a document sees itself. If one of the inputs has no resets, all queries see all of the memory. In
/// addition, [`attend_masked`](Attention::attend_masked) takes a mask for each query. A query that sees nothing has weights and a
/// context of zero.
///
/// # The whole sequence
/// If all queries are known at once, as in training on known targets without feedback of the context,
/// [`forward`](Attention::forward) and [`backward`](Attention::backward) work on all of them:
///
/// ```
/// use gradflow::ndarray::Array3;
/// use gradflow::rand::{SeedableRng, rngs::StdRng};
/// use gradflow::{Layer, Sequence, ZerosLike, attention::Attention, recurrent::GruCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let (source, target) = (Array3::<f32>::ones((7, 2, 3)), Array3::<f32>::ones((5, 2, 3))); // [T, B, D]
/// let lengths = [7, 4];
/// let (encoder, decoder) = (GruCell::new(3, 8, rng), GruCell::new(3, 8, rng));
/// let attention = Attention::bilinear(8, 8, rng);
/// let (mut encoder_cache, mut decoder_cache, mut cache) = (encoder.cache(), decoder.cache(), attention.cache());
///
/// // The decoder starts from the encoder's last state; its outputs are the queries.
/// let source = Sequence::from(&source).with_lengths(&lengths)?;
/// let mut state = encoder.zero_state(2);
/// let memory = encoder.forward(source, &mut state, &mut encoder_cache).to_owned();
/// let memory = source.with(memory.view());
/// let query = decoder.forward(&target, &mut state, &mut decoder_cache).to_owned();
/// let context = attention.forward(&query, memory, &mut cache);
/// assert_eq!(context.dim(), (5, 2, 8));
/// assert_eq!(cache.weights().dim(), (5, 2, 7));
/// assert_eq!(cache.weights()[[0, 1, 4]], 0.0); // padding
///
/// let dcontext = Array3::ones((5, 2, 8));
/// let (mut grad, mut dencoder, mut ddecoder) = (attention.zeros_like(), encoder.zeros_like(), decoder.zeros_like());
/// let (dquery, dmemory) = attention.backward(&query, memory, &dcontext, &mut cache, &mut grad);
/// let mut dstate = decoder.zero_state(2);
/// decoder.backward(&target, &dquery, Some(&mut dstate), &mut decoder_cache, &mut ddecoder);
/// encoder.backward(source, &dmemory, Some(&mut dstate), &mut encoder_cache, &mut dencoder);
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
///
/// # Step by step
/// If the context or the decoder's own output is fed back to the decoder, the queries come one at a time. Each of the two methods
/// above is then replaced by two. In the forward pass, [`memorize`](Attention::memorize) projects the memory once, and
/// [`attend`](Attention::attend) takes one query or more, as often as needed. In the backward pass,
/// [`attend_backward`](Attention::attend_backward) goes back through the calls of `attend` in reverse order, and
/// [`memorize_backward`](Attention::memorize_backward) gives the gradient of the memory, summed over all of them.
///
/// The cache keeps the values of every `attend` that awaits its backward pass; in [`Mode::Infer`] it keeps nothing, so decoding can
/// go on forever. After a call that panics, the cache awaits the next `memorize` or, after an `attend`, the backward passes of the
/// calls before. It checks memory, queries and parameters as [`Pending`](crate::author::Pending) does for layers.
///
/// ```
/// # use gradflow::{
/// #     Sequence, ZerosLike, attention::Attention, ndarray::{Array3, s}, rand::{SeedableRng, rngs::StdRng},
/// # };
/// # let attention = Attention::<f64>::additive(3, 4, 5, &mut StdRng::seed_from_u64(0));
/// # let (query, memory) = (Array3::<f64>::ones((6, 2, 3)), Array3::<f64>::ones((7, 2, 4)));
/// # let (mut cache, mut grad, memory) = (attention.cache(), attention.zeros_like(), Sequence::from(&memory));
/// attention.memorize(memory, &mut cache);
/// for t in 0..6 {
///     let query = query.slice(s![t..=t, .., ..]); // [1, B, Q], from the decoder's state
///     let context = attention.attend(query, memory, &mut cache); // [1, B, M], for its next step
///     # assert_eq!(context.dim(), (1, 2, 4));
/// }
/// for t in (0..6).rev() {
///     let query = query.slice(s![t..=t, .., ..]);
///     let dcontext = Array3::ones((1, 2, 4)); // from the decoder's next step
///     let dquery = attention.attend_backward(query, memory, &dcontext, &mut cache, &mut grad);
///     # assert_eq!(dquery.dim(), (1, 2, 3));
/// }
/// let dmemory = attention.memorize_backward(memory, &mut cache, &mut grad);
/// # assert_eq!(dmemory.dim(), (7, 2, 4));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Attention<F> {
    /// The score by which query and memory are compared, with its parameters.
    pub score: AttentionScore<F>,
}
parameters! { impl<F: Float> Tensors<F> for Attention<F> { score as "" } }

impl<F: Float> From<AttentionScore<F>> for Attention<F> {
    fn from(score: AttentionScore<F>) -> Self {
        Attention { score }
    }
}

impl<F: Float> From<BilinearScore<F>> for Attention<F> {
    fn from(score: BilinearScore<F>) -> Self {
        AttentionScore::Bilinear(score).into()
    }
}

impl<F: Float> From<AdditiveScore<F>> for Attention<F> {
    fn from(score: AdditiveScore<F>) -> Self {
        AttentionScore::Additive(score).into()
    }
}

/// The cache of an [`Attention`].
#[derive(Clone, Default)]
pub struct AttentionCache<F> {
    memorized: Memorized,
    attended: Vec<Attended<F>>, // the first `open` await their backward pass
    open: usize,
    last: usize,
    memory_copy: StandardLayout<F>,
    query_copy: StandardLayout<F>,
    dcontext_copy: StandardLayout<F>,
    keys: Array3<F>,     // [Tm, B, A]: W m, unless the memory is compared without a projection
    terms: Array1<F>,    // [A]
    context: Array3<F>,  // [Tq, B, M]
    dscores: Array2<F>,  // [Tq, Tm], of one sequence
    dqueries: Array3<F>, // [Tq, B, A]
    dquery: Array3<F>,   // [Tq, B, Q]
    dkeys: Array3<F>,    // [Tm, B, A]
    dmemory: Array3<F>,  // [Tm, B, M], empty if it is not wanted
}

/// The memory whose keys are in a cache.
#[derive(Clone, Copy, Default)]
enum Memorized {
    #[default]
    Nothing,
    ForInference(Marked),
    ForBackward(Marked),
}

/// Fingerprints of the values that an `attend` and the backward passes must find unchanged.
#[derive(Clone, Copy)]
struct Marked {
    memory: u64,
    /// Of the score; 0 in release builds.
    parameters: u64,
}

/// The values of an `attend` that its backward pass needs.
#[derive(Clone, Default)]
struct Attended<F> {
    fingerprint: u64,
    queries: Array3<F>, // [Tq, B, A]: W_q q + b, unless the query is compared without a projection
    weights: Array3<F>, // [Tq, B, Tm]
}

impl<F> fmt::Debug for AttentionCache<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttentionCache").field("open", &self.open).finish_non_exhaustive()
    }
}

impl<F: Float> AttentionCache<F> {
    /// `α`, `[Tq, B, Tm]`, of the last [`attend`](Attention::attend) or [`forward`](Attention::forward): the weight of
    /// each position of the memory for each query. Zero past the lengths; the weights of a query sum to 1, or are all 0
    /// if it sees nothing.
    ///
    /// # Panics
    /// Panics if there was no such call.
    #[must_use]
    #[track_caller]
    pub fn weights(&self) -> ArrayView3<'_, F> {
        match self.attended.get(self.last) {
            Some(attended) => attended.weights.view(),
            None => mismatch("AttentionCache", "weights", &"an `attend` before", &"a new cache"),
        }
    }

    /// Panics unless `memory` was memorized with this score; returns whether a backward pass may follow.
    #[track_caller]
    fn check_memory(&self, score: &AttentionScore<F>, memory: &Sequence<'_, F>) -> bool {
        let (marked, backward) = match self.memorized {
            Memorized::Nothing => mismatch(NAME, "cache", &"a memory: call `memorize`", &"a stale cache"),
            Memorized::ForInference(marked) => (marked, false),
            Memorized::ForBackward(marked) => (marked, true),
        };
        if marked.memory != memory.fingerprint() {
            mismatch(NAME, "memory", &"the memory of `memorize`, in its mode", &"another (stale cache)")
        }
        if marked.parameters != parameters(score) {
            mismatch(NAME, "parameters", &"those of `memorize`", &"others (stale cache)")
        }
        backward
    }
}

/// `[Tq, B, any]` as `[steps, any]`: some steps of sequence b.
fn sequence<'a, F: Float>(x: &'a ArrayRef3<F>, b: usize, steps: &Range<usize>) -> ArrayView2<'a, F> {
    x.slice(s![steps.clone(), b, ..])
}

/// `[Tq, B, any]` as `[steps, any]`: some steps of sequence b.
fn sequence_mut<'a, F: Float>(x: &'a mut ArrayRef3<F>, b: usize, steps: &Range<usize>) -> ArrayViewMut2<'a, F> {
    x.slice_mut(s![steps.clone(), b, ..])
}

/// Rows `[T · B, D]` as `[T, B, D]`.
fn steps_of<F: Float>(rows: ArrayView2<'_, F>, batch: usize) -> ArrayView3<'_, F> {
    let (count, features) = rows.dim();
    rows.into_shape_with_order((count / batch, batch, features)).expect("standard layout")
}

impl<F: Float> Attention<F> {
    /// Attention with the score `q · m`.
    pub fn dot() -> Self {
        AttentionScore::Dot { scaled: false }.into()
    }

    /// Attention with the score `q · m / sqrt(Q)`.
    pub fn scaled_dot() -> Self {
        AttentionScore::Dot { scaled: true }.into()
    }

    /// Attention with the score `qᵀ W m`, for queries of `query` features and a memory of `memory` features: see
    /// [`BilinearScore::new`].
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn bilinear(query: usize, memory: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        BilinearScore::new(query, memory, rng).into()
    }

    /// Attention with the score `vᵀ tanh(W_q q + W_m m + b)` with `hidden` units: see [`AdditiveScore::new`].
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn additive(query: usize, memory: usize, hidden: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        AdditiveScore::new(query, memory, hidden, rng).into()
    }

    /// The same attention with every parameter zero: a fresh gradient.
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.set_zero();
        zeros
    }

    /// An empty cache.
    pub fn cache(&self) -> AttentionCache<F> {
        AttentionCache::default()
    }

    /// The context of every query, `[Tq, B, M]`, borrowed from `cache`. It calls [`memorize`](Attention::memorize) and
    /// [`attend`](Attention::attend).
    ///
    /// # Panics
    /// Panics if an input has a size that the score does not take, their batches differ, or they are empty.
    #[track_caller]
    pub fn forward<'c, 'q, 'm>(
        &self,
        query: impl Into<Sequence<'q, F>>,
        memory: impl Into<Sequence<'m, F>>,
        cache: &'c mut AttentionCache<F>,
    ) -> ArrayView3<'c, F> {
        let (query, memory) = (query.into(), memory.into());
        self.memorize(memory, cache);
        self.attend(query, memory, cache)
    }

    /// `dL/dquery` and `dL/dmemory` from `dcontext` = `dL/dcontext`; *adds* `dL/dparameter` into `grad`. The gradient
    /// of an input that is [constant](Sequence::constant) is not computed and has no elements.
    ///
    /// # Panics
    /// Panics if `cache` holds no [`forward`](Attention::forward) of these inputs, or `dcontext` or `grad` has another
    /// shape.
    #[track_caller]
    pub fn backward<'c, 'g, 'q, 'm>(
        &self,
        query: impl Into<Sequence<'q, F>>,
        memory: impl Into<Sequence<'m, F>>,
        dcontext: &ArrayRef3<F>,
        cache: &'c mut AttentionCache<F>,
        grad: impl Into<Gradient<'g, Self>>,
    ) -> (ArrayView3<'c, F>, ArrayView3<'c, F>) {
        let (query, memory) = (query.into(), memory.into());
        let mut grad = grad.into();
        self.attend_backward(query, memory, dcontext, cache, grad.reborrow());
        self.memorize_backward(memory, cache, grad);
        (cache.dquery.view(), cache.dmemory.view())
    }

    /// Prepares `cache` for queries over `memory`, `[Tm, B, M]`. The part of the score that depends only on the memory is computed
    /// here, once. Calls that awaited a backward pass are forgotten.
    ///
    /// # Panics
    /// Panics if the memory has a size that the score does not take, or is empty.
    #[track_caller]
    pub fn memorize<'m>(&self, memory: impl Into<Sequence<'m, F>>, cache: &mut AttentionCache<F>) {
        let memory = memory.into();
        memorize(self, memory.reborrow(), cache);
    }

    #[track_caller]
    fn do_memorize(&self, memory: Sequence<'_, F>, cache: &mut AttentionCache<F>) {
        let AttentionCache { memory_copy, keys, dkeys, dmemory, .. } = cache;
        (cache.memorized, cache.open) = (Memorized::Nothing, 0);
        check_layout(&self.score);
        let features = memory.features(MEMORY, self.score.sizes().map(|(_, memory)| memory));
        let (steps, batch, size) = features.dim();
        self.score.keys(&memory, memory_copy.rows(features), keys);
        memory.zero_padding(keys);
        let marked = Marked { memory: memory.fingerprint(), parameters: parameters(&self.score) };
        if memory.mode() == Some(Mode::Infer) {
            cache.memorized = Memorized::ForInference(marked);
            return;
        }
        reuse(dmemory, (steps, batch, if memory.wants_gradient() { size } else { 0 }));
        dmemory.fill(F::zero());
        if !self.score.compares_memory() {
            reuse(dkeys, keys.raw_dim());
            dkeys.fill(F::zero());
        }
        cache.memorized = Memorized::ForBackward(marked);
    }

    /// The context of one query or more, `[Tq, B, M]`, borrowed from `cache`, over the memory of the last
    /// [`memorize`](Attention::memorize). If query or memory is in [`Mode::Infer`], no backward pass follows.
    ///
    /// # Panics
    /// Panics if the memory is not the one of `memorize`, or if the query has a size that the score does not take, has another
    /// batch than the memory, or is empty.
    #[track_caller]
    pub fn attend<'c, 'q, 'm>(
        &self,
        query: impl Into<Sequence<'q, F>>,
        memory: impl Into<Sequence<'m, F>>,
        cache: &'c mut AttentionCache<F>,
    ) -> ArrayView3<'c, F> {
        let (query, memory) = (query.into(), memory.into());
        attend(self, query.reborrow(), memory.reborrow(), None, cache);
        cache.context.view()
    }

    /// [`attend`](Attention::attend) with a mask that says which positions each query sees, or that is added to its scores. The
    /// mask gets no gradient; the backward pass is the same.
    ///
    /// ```
    /// use gradflow::{attention::Attention, ndarray::Array3};
    ///
    /// // Each step sees itself and the steps before it.
    /// let x = Array3::<f64>::ones((4, 2, 3));
    /// let causal = Array3::from_shape_fn((4, 1, 4), |(t, _, s)| s <= t);
    /// let (attention, mut cache) = (Attention::scaled_dot(), Default::default());
    /// attention.memorize(&x, &mut cache);
    /// attention.attend_masked(&x, &x, &causal, &mut cache);
    /// assert_eq!(cache.weights()[[1, 0, 0]], 0.5);
    /// assert_eq!(cache.weights()[[1, 0, 2]], 0.0);
    /// ```
    ///
    /// # Panics
    /// Panics if [`attend`](Attention::attend) would, or if the mask is not `[Tq, B, Tm]` or `[Tq, 1, Tm]`.
    #[track_caller]
    pub fn attend_masked<'c, 'q, 'm, 'k>(
        &self,
        query: impl Into<Sequence<'q, F>>,
        memory: impl Into<Sequence<'m, F>>,
        mask: impl Into<AttentionMask<'k, F>>,
        cache: &'c mut AttentionCache<F>,
    ) -> ArrayView3<'c, F> {
        let (query, memory, mask) = (query.into(), memory.into(), mask.into());
        mask.check(query.dims(), memory.dims().0);
        attend(self, query.reborrow(), memory.reborrow(), Some(mask.reborrow()), cache);
        cache.context.view()
    }

    #[track_caller]
    fn do_attend<'a>(
        &self,
        query: Sequence<'a, F>,
        memory: Sequence<'a, F>,
        mask: Option<AttentionMask<'a, F>>,
        cache: &mut AttentionCache<F>,
    ) {
        let (query_features, memory_features) = self.features(&query, &memory);
        check_layout(&self.score);
        let backward = cache.check_memory(&self.score, &memory) && query.mode() != Some(Mode::Infer);
        let (steps, batch, query_size) = query_features.dim();
        let (memory_steps, _, memory_size) = memory_features.dim();
        let AttentionCache { attended, open, last, memory_copy, query_copy, keys, terms, context, .. } = cache;
        *last = *open;
        if attended.len() == *last {
            attended.push(Attended::default());
        }
        let Attended { fingerprint, queries, weights } = &mut attended[*last];
        *fingerprint = query.fingerprint();

        let memory_values = steps_of(memory_copy.unmasked_rows(&memory, memory_features), batch);
        let query_rows = query_copy.unmasked_rows(&query, query_features);
        self.score.queries(&query, query_rows, queries);
        query.zero_padding(queries);
        let keys = if self.score.compares_memory() { memory_values } else { keys.view() };
        let queries = if self.score.compares_query() { steps_of(query_rows, batch) } else { queries.view() };
        let scale = self.score.scale(query_size);
        reuse(weights, (steps, batch, memory_steps));
        reuse(context, (steps, batch, memory_size));
        if memory.has_resets() {
            weights.fill(F::zero());
            context.fill(F::zero());
        }
        for b in 0..batch {
            weights.slice_mut(s![.., b, memory.length(b)..]).fill(F::zero());
            for (steps, seen) in fields(&query, &memory, b) {
                let mut weights = weights.slice_mut(s![steps.clone(), b, seen.clone()]);
                let keys = sequence(&keys, b, &seen);
                self.score.scores(sequence(&queries, b, &steps), keys, terms, weights.view_mut());
                weigh(scale, &memory, mask, [steps.start, b, seen.start], weights.view_mut());
                let context = sequence_mut(context, b, &steps);
                product(weights.view(), sequence(&memory_values, b, &seen), context, Accumulate::Overwrite);
            }
        }
        query.zero_padding(weights);
        query.zero_padding(context);
        // At the end, since an `attend` that panicked awaits no backward pass.
        *open += usize::from(backward);
    }

    /// `dL/dquery`, `[Tq, B, Q]`, of the last [`attend`](Attention::attend) that awaits its backward pass, from `dcontext` =
    /// `dL/dcontext`; *adds* to `grad`, and to the gradient that [`memorize_backward`](Attention::memorize_backward) will give.
    ///
    /// # Panics
    /// Panics if the last `attend` in `cache` that awaits its backward pass is not of this query and memory, or if `dcontext` or
    /// `grad` has another shape.
    #[track_caller]
    pub fn attend_backward<'c, 'g, 'q, 'm>(
        &self,
        query: impl Into<Sequence<'q, F>>,
        memory: impl Into<Sequence<'m, F>>,
        dcontext: &ArrayRef3<F>,
        cache: &'c mut AttentionCache<F>,
        grad: impl Into<Gradient<'g, Self>>,
    ) -> ArrayView3<'c, F> {
        let (query, memory) = (query.into(), memory.into());
        attend_backward(self, query.reborrow(), memory.reborrow(), dcontext, cache, grad.into());
        cache.dquery.view()
    }

    #[track_caller]
    fn do_attend_backward<'a>(
        &self,
        query: Sequence<'a, F>,
        memory: Sequence<'a, F>,
        dcontext: &ArrayRef3<F>,
        cache: &mut AttentionCache<F>,
        grad: Gradient<'_, Self>,
    ) {
        let (query_features, memory_features) = self.features(&query, &memory);
        cache.check_memory(&self.score, &memory);
        let (steps, batch, query_size) = query_features.dim();
        let (memory_steps, _, memory_size) = memory_features.dim();
        let AttentionCache { memorized, attended, open, memory_copy, query_copy, dcontext_copy, keys, .. } = cache;
        let AttentionCache { dscores, dqueries, dquery, dkeys, dmemory, .. } = cache;
        if *open == 0 {
            let got = "none (a stale cache, or inference, which keeps nothing)";
            mismatch(NAME, "cache", &"an `attend` that awaits its backward", &got)
        }
        let Attended { fingerprint, queries, weights } = &attended[*open - 1];
        if *fingerprint != query.fingerprint() {
            let expected = "the query of the last `attend` that awaits its backward, in its mode";
            mismatch(NAME, "query", &expected, &"another (not the reverse order, or a stale cache)")
        }
        check_shape(NAME, "dcontext", &[steps, batch, memory_size], dcontext.shape());
        let (grad, how) = grad.parts();
        check_gradient(NAME, self, &*grad);
        *open -= 1;
        // Taken until the end: after a panic, the memory's gradient would lack this query's part.
        let marked = std::mem::take(memorized);

        let memory_values = steps_of(memory_copy.unmasked_rows(&memory, memory_features), batch);
        let query_rows = query_copy.unmasked_rows(&query, query_features);
        let dcontext = steps_of(dcontext_copy.unmasked_rows(&query, dcontext.view()), batch);
        let keys = if self.score.compares_memory() { memory_values } else { keys.view() };
        let queries = if self.score.compares_query() { steps_of(query_rows, batch) } else { queries.view() };
        let scale = self.score.scale(query_size);
        if self.score.compares_query() {
            reuse(dquery, (steps, batch, if query.wants_gradient() { query_size } else { 0 }));
        } else {
            reuse(dqueries, queries.raw_dim());
            dqueries.fill(F::zero());
        }
        reuse(dscores, (steps, memory_steps));
        if let AttentionScore::Additive(grad) = &mut grad.score {
            start(&mut grad.v, how);
        }
        if self.score.compares_query() && memory.has_resets() {
            dquery.fill(F::zero());
        }
        for (b, (steps, seen)) in (0..batch).flat_map(|b| fields(&query, &memory, b).map(move |field| (b, field))) {
            let weights = weights.slice(s![steps.clone(), b, seen.clone()]);
            let dcontext = sequence(&dcontext, b, &steps);
            let mut dscores = dscores.slice_mut(s![..steps.len(), ..seen.len()]);
            let dweights = dscores.view_mut();
            product(dcontext, sequence(&memory_values, b, &seen).reversed_axes(), dweights, Accumulate::Overwrite);
            if !dmemory.is_empty() {
                product(weights.t(), dcontext, sequence_mut(dmemory, b, &seen), Accumulate::Add);
            }
            softmax_backward(scale, weights, dscores.view_mut());
            let dkeys = if self.score.compares_memory() { &mut *dmemory } else { &mut *dkeys };
            let dqueries = if self.score.compares_query() { &mut *dquery } else { &mut *dqueries };
            self.score.scores_backward(
                (sequence(&queries, b, &steps), sequence_mut(dqueries, b, &steps)),
                (sequence(&keys, b, &seen), sequence_mut(dkeys, b, &seen)),
                dscores.view(),
                &mut grad.score,
            );
        }
        if self.score.compares_query() {
            query.zero_padding(dquery);
        } else {
            self.score.queries_backward(&query, query_rows, rows(dqueries.view()), dquery, &mut grad.score, how);
        }
        *memorized = marked;
    }

    /// `dL/dmemory`, `[Tm, B, M]`, summed over all queries; *adds* the gradient of the memory's projection to `grad`. It ends what
    /// [`memorize`](Attention::memorize) began.
    ///
    /// # Panics
    /// Panics if the memory is not the one of `memorize`, it was memorized for inference, an
    /// [`attend`](Attention::attend) still awaits its backward pass, or `grad` has another shape.
    #[track_caller]
    pub fn memorize_backward<'c, 'g, 'm>(
        &self,
        memory: impl Into<Sequence<'m, F>>,
        cache: &'c mut AttentionCache<F>,
        grad: impl Into<Gradient<'g, Self>>,
    ) -> ArrayView3<'c, F> {
        let memory = memory.into();
        memorize_backward(self, memory.reborrow(), cache, grad.into());
        cache.dmemory.view()
    }

    #[track_caller]
    fn do_memorize_backward(&self, memory: Sequence<'_, F>, cache: &mut AttentionCache<F>, grad: Gradient<'_, Self>) {
        if !cache.check_memory(&self.score, &memory) {
            mismatch(NAME, "cache", &"a memory that awaits its backward", &"an inference pass, which keeps nothing")
        }
        let AttentionCache { open, memory_copy, dkeys, dmemory, .. } = cache;
        if *open > 0 {
            mismatch(NAME, "cache", &"the backward of every `attend` first", &format_args!("{open} that await it"))
        }
        let (grad, how) = grad.parts();
        check_gradient(NAME, self, &*grad);
        cache.memorized = Memorized::Nothing;
        if !self.score.compares_memory() {
            let features = memory.features(MEMORY, self.score.sizes().map(|(_, memory)| memory));
            let memory_rows = memory_copy.rows(features);
            self.score.keys_backward(&memory, memory_rows, rows(dkeys.view()), dmemory, &mut grad.score, how);
        }
    }

    /// The features of both, after a check of their sizes.
    #[track_caller]
    fn features<'q, 'm>(
        &self,
        query: &Sequence<'q, F>,
        memory: &Sequence<'m, F>,
    ) -> (ArrayView3<'q, F>, ArrayView3<'m, F>) {
        let sizes = self.score.sizes();
        let memory = memory.features(MEMORY, sizes.map(|(_, memory)| memory));
        let (_, batch, memory_size) = memory.dim();
        let query = query.features(QUERY, Some(sizes.map_or(memory_size, |(query, _)| query)));
        let (steps, got, query_size) = query.dim();
        if got != batch {
            let expected = format_args!("[Tq, B, Q] = {:?}, as the memory has B = {batch}", [steps, batch, query_size]);
            mismatch(NAME, "query", &expected, &format_args!("{:?}", query.shape()))
        }
        (query, memory)
    }
}

once! {
    #[track_caller]
    fn memorize<'a, F: Float>(
        attention: &'a Attention<F>,
        memory: Sequence<'a, F>,
        cache: &'a mut AttentionCache<F>,
    ) {
        attention.do_memorize(memory, cache);
    }

    #[track_caller]
    fn attend<'a, F: Float>(
        attention: &'a Attention<F>,
        query: Sequence<'a, F>,
        memory: Sequence<'a, F>,
        mask: Option<AttentionMask<'a, F>>,
        cache: &'a mut AttentionCache<F>,
    ) {
        attention.do_attend(query, memory, mask, cache);
    }

    #[track_caller]
    fn attend_backward<'a, F: Float>(
        attention: &'a Attention<F>,
        query: Sequence<'a, F>,
        memory: Sequence<'a, F>,
        dcontext: &'a ArrayRef3<F>,
        cache: &'a mut AttentionCache<F>,
        grad: Gradient<'a, Attention<F>>,
    ) {
        attention.do_attend_backward(query, memory, dcontext, cache, grad);
    }

    #[track_caller]
    fn memorize_backward<'a, F: Float>(
        attention: &'a Attention<F>,
        memory: Sequence<'a, F>,
        cache: &'a mut AttentionCache<F>,
        grad: Gradient<'a, Attention<F>>,
    ) {
        attention.do_memorize_backward(memory, cache, grad);
    }
}
