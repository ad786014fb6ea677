//! The score by which an attention compares query and memory.

use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2};
use rand::Rng;

use super::NAME;
use crate::base::error::mismatch;
use crate::base::tensors::out_of_range;
use crate::base::{Init, Tensors, TensorsExt, check_shape, check_sizes};
use crate::kernels::derivatives::d_tanh;
use crate::kernels::math::{sum, tanh};
use crate::kernels::softmax::all_finite;
use crate::kernels::{Accumulate, Float, product, vectorised};
use crate::layer::Sequence;
use crate::layer::affine::{affine_on_runs, bias_gradient, input_gradient, weight_gradient};
use crate::layer::kit::reuse;
use crate::layer::rows::{matrix_mut, rows_of};
use crate::parameters;

/// The score `e = score(q, m)` of an [`Attention`](crate::attention::Attention): how relevant a position m of the
/// memory is to a query q.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AttentionScore<F> {
    /// `e = q · m`, for the same number of features in both (Luong, Pham and Manning 2015); it has no parameters.
    Dot {
        /// Divided by `sqrt(Q)`, so that scores do not grow with the number of features (Vaswani et al. 2017).
        scaled: bool,
    },
    /// `e = qᵀ W m`
    Bilinear(BilinearScore<F>),
    /// `e = vᵀ tanh(W_q q + W_m m + b)`
    Additive(AdditiveScore<F>),
}

/// The parameters of `e = qᵀ W m`, called "general" by Luong, Pham and Manning 2015.
#[derive(Clone, Debug, PartialEq)]
pub struct BilinearScore<F> {
    /// `W`, `[Q, M]`
    pub weight: Array2<F>,
}
parameters! { impl<F: Float> Tensors<F> for BilinearScore<F> { weight } }

/// The parameters of `e = vᵀ tanh(W_q q + W_m m + b)` (Bahdanau, Cho and Bengio 2015), with A hidden units.
///
/// In the paper `W_q` is `W_a`, `W_m` is `U_a`, and there is no b.
#[derive(Clone, Debug, PartialEq)]
pub struct AdditiveScore<F> {
    /// `W_q`, `[A, Q]`
    pub weight_query: Array2<F>,
    /// `W_m`, `[A, M]`
    pub weight_memory: Array2<F>,
    /// `b`, `[A]`
    pub bias: Option<Array1<F>>,
    /// `v`, `[A]`
    pub v: Array1<F>,
}
parameters! { impl<F: Float> Tensors<F> for AdditiveScore<F> { weight_query, weight_memory, bias, v } }

fn uniform<F: Float>(weight: &mut Array2<F>, rng: &mut (impl Rng + ?Sized)) {
    Init::Uniform { bound: 1.0 / (weight.ncols() as f64).sqrt() }.fill(weight, rng);
}

impl<F: Float> BilinearScore<F> {
    /// W is uniform in `±1/sqrt(M)`, as in a linear layer of PyTorch.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn new(query: usize, memory: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        check_sizes::<F, 2>(NAME, [("query", query), ("memory", memory)], &[&[query, memory]]);
        let mut score = BilinearScore { weight: Array2::zeros((query, memory)) };
        uniform(&mut score.weight, rng);
        score
    }
}

impl<F: Float> AdditiveScore<F> {
    /// `W_q` and `b` are uniform in `±1/sqrt(Q)`, `W_m` in `±1/sqrt(M)`, `v` in `±1/sqrt(A)`, as in linear layers of PyTorch;
    /// `hidden` is A.
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn new(query: usize, memory: usize, hidden: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        let sizes = [("query", query), ("memory", memory), ("hidden", hidden)];
        check_sizes::<F, 3>(NAME, sizes, &[&[hidden, query], &[hidden, memory]]);
        let mut weight_query = Array2::zeros((hidden, query));
        let mut weight_memory = Array2::zeros((hidden, memory));
        let (mut bias, mut v) = (Array2::zeros((1, hidden)), Array2::zeros((1, hidden)));
        uniform(&mut weight_query, rng);
        uniform(&mut weight_memory, rng);
        Init::Uniform { bound: 1.0 / (query as f64).sqrt() }.fill(&mut bias, rng);
        uniform(&mut v, rng);
        let (bias, v) = (Some(bias.into_iter().collect()), v.into_iter().collect());
        AdditiveScore { weight_query, weight_memory, bias, v }
    }

    /// The same score without `b`.
    pub fn without_bias(self) -> Self {
        AdditiveScore { bias: None, ..self }
    }
}

impl<F: Float> Tensors<F> for AttentionScore<F> {
    fn count(&self) -> usize {
        self.parameters().count()
    }
    fn name(&self, i: usize) -> String {
        self.parameters().name(i)
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        self.parameters().tensor(i)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [F] {
        match self {
            AttentionScore::Dot { .. } => out_of_range(i),
            AttentionScore::Bilinear(score) => score.tensor_mut(i),
            AttentionScore::Additive(score) => score.tensor_mut(i),
        }
    }
}

/// How query and memory are transformed before they are compared. A matrix of either is `[steps, features]` of one sequence: a view
/// with the batch's strides.
impl<F: Float> AttentionScore<F> {
    fn parameters(&self) -> &dyn Tensors<F> {
        match self {
            AttentionScore::Dot { .. } => &(),
            AttentionScore::Bilinear(score) => score,
            AttentionScore::Additive(score) => score,
        }
    }

    /// Q and M, if the parameters determine them.
    #[track_caller]
    pub(super) fn sizes(&self) -> Option<(usize, usize)> {
        match self {
            AttentionScore::Dot { .. } => None,
            AttentionScore::Bilinear(score) => Some(score.weight.dim()),
            AttentionScore::Additive(score) => {
                let (hidden, query) = score.weight_query.dim();
                let memory = score.weight_memory.ncols();
                check_shape(NAME, "weight_memory", &[hidden, memory], score.weight_memory.shape());
                check_shape(NAME, "v", &[hidden], score.v.shape());
                if let Some(bias) = &score.bias {
                    check_shape(NAME, "bias", &[hidden], bias.shape());
                }
                Some((query, memory))
            }
        }
    }

    /// The factor of scores, for queries of `features` features.
    pub(super) fn scale(&self, features: usize) -> F {
        match self {
            AttentionScore::Dot { scaled: true } => F::of(1.0 / (features as f64).sqrt()),
            _ => F::one(),
        }
    }

    /// Whether the memory is compared without a projection, as its own keys.
    pub(super) fn compares_memory(&self) -> bool {
        matches!(self, AttentionScore::Dot { .. })
    }

    /// Whether the query is compared without a projection.
    pub(super) fn compares_query(&self) -> bool {
        !matches!(self, AttentionScore::Additive(_))
    }

    /// `k = W m`, `[Tm, B, A]`, unless the memory is compared without a projection.
    pub(super) fn keys(&self, memory: &Sequence<'_, F>, rows: ArrayView2<'_, F>, keys: &mut Array3<F>) {
        let weight = match self {
            AttentionScore::Dot { .. } => return,
            AttentionScore::Bilinear(score) => &score.weight,
            AttentionScore::Additive(score) => &score.weight_memory,
        };
        let (steps, batch) = memory.dims();
        reuse(keys, (steps, batch, weight.nrows()));
        affine_on_runs(memory, rows, weight, None, keys);
    }

    /// `dW += Σ dk mᵀ`, or `dW = Σ dk mᵀ`, and `dm += Wᵀ dk`, the latter if it is wanted.
    pub(super) fn keys_backward(
        &self,
        memory: &Sequence<'_, F>,
        rows: ArrayView2<'_, F>,
        dkeys: ArrayView2<'_, F>,
        dmemory: &mut Array3<F>,
        grad: &mut Self,
        how: Accumulate,
    ) {
        let (weight, dweight) = match (self, grad) {
            (AttentionScore::Dot { .. }, _) => return,
            (AttentionScore::Bilinear(score), AttentionScore::Bilinear(grad)) => (&score.weight, &mut grad.weight),
            (AttentionScore::Additive(score), AttentionScore::Additive(grad)) => {
                (&score.weight_memory, &mut grad.weight_memory)
            }
            _ => another_score(),
        };
        weight_gradient(memory, dkeys, rows, dweight, how);
        if dmemory.is_empty() {
            return;
        }
        for run in memory.runs() {
            let dmemory = matrix_mut(rows_of(dmemory, &run), weight.ncols());
            product(dkeys.slice(ndarray::s![run, ..]), weight.view(), dmemory, Accumulate::Add);
        }
    }

    /// `u = W_q q + b`, `[Tq, B, A]`, unless the query is compared without a projection.
    pub(super) fn queries(&self, query: &Sequence<'_, F>, rows: ArrayView2<'_, F>, queries: &mut Array3<F>) {
        if let AttentionScore::Additive(score) = self {
            let (steps, batch) = query.dims();
            reuse(queries, (steps, batch, score.v.len()));
            affine_on_runs(query, rows, &score.weight_query, score.bias.as_ref(), queries);
        }
    }

    /// `dW_q += Σ du qᵀ` and `db += Σ du`, or both overwritten, and `dq = W_qᵀ du` if it is wanted.
    pub(super) fn queries_backward(
        &self,
        query: &Sequence<'_, F>,
        rows: ArrayView2<'_, F>,
        dqueries: ArrayView2<'_, F>,
        dquery: &mut Array3<F>,
        grad: &mut Self,
        how: Accumulate,
    ) {
        if let (AttentionScore::Additive(score), AttentionScore::Additive(grad)) = (self, grad) {
            weight_gradient(query, dqueries, rows, &mut grad.weight_query, how);
            if let Some(bias) = &mut grad.bias {
                bias_gradient(query, dqueries, bias, how);
            }
            let ((steps, batch), width) = (query.dims(), score.weight_query.ncols());
            reuse(dquery, (steps, batch, if query.wants_gradient() { width } else { 0 }));
            input_gradient(query, dqueries, &score.weight_query, dquery);
        }
    }

    /// `e`, `[steps, length]`, of one sequence's queries and keys. `terms` is a buffer for one row. A row in which a sum overflows
    /// holds `e - max e` instead, which has the same softmax.
    pub(super) fn scores(
        &self,
        queries: ArrayView2<'_, F>,
        keys: ArrayView2<'_, F>,
        terms: &mut Array1<F>,
        mut scores: ArrayViewMut2<'_, F>,
    ) {
        match self {
            AttentionScore::Dot { .. } | AttentionScore::Bilinear(_) => {
                product(queries, keys.reversed_axes(), scores.view_mut(), Accumulate::Overwrite);
            }
            AttentionScore::Additive(score) => {
                reuse(terms, score.v.len());
                additive_scores(score.v.values(0), queries, keys, terms.tensor_mut(0), scores.view_mut());
            }
        }
        for (u, row) in queries.outer_iter().zip(scores.outer_iter_mut()) {
            let row = values_mut(row);
            if !all_finite(row) {
                self.scores_below_largest(values(u), keys, row);
            }
        }
    }

    /// `e - max e` of one query whose e itself is too large. If the inputs are not finite, `scores` stays as it is.
    #[cold]
    #[inline(never)]
    fn scores_below_largest(&self, u: &[F], keys: ArrayView2<'_, F>, scores: &mut [F]) {
        // Each score is Σ a b. Powers of two scale the factors below 1; f64 holds the sums exactly enough for either element type.
        let v = match self {
            AttentionScore::Additive(score) => score.v.values(0),
            _ => &[],
        };
        let left = if v.is_empty() { u } else { v };
        let largest =
            |values: &mut dyn Iterator<Item = &F>| values.fold(f64::MIN_POSITIVE, |most, x| most.max(x.widen().abs()));
        if !all_finite(u) || !all_finite(v) || !keys.iter().all(|key| key.is_finite()) {
            return;
        }
        let below_1 = |largest: f64| (-1.0 - largest.log2().floor()).exp2();
        let left_factor = below_1(largest(&mut left.iter()));
        let right_factor = if v.is_empty() { below_1(largest(&mut keys.iter())) } else { 1.0 };
        let score = |key: &[F]| -> f64 {
            match v {
                [] => u.iter().zip(key).map(|(u, k)| (u.widen() * left_factor) * (k.widen() * right_factor)).sum(),
                _ => {
                    let terms = v.iter().zip(u.iter().zip(key));
                    terms.map(|(v, (u, k))| v.widen() * left_factor * (u.widen() + k.widen()).tanh()).sum()
                }
            }
        };
        let scaled = || keys.outer_iter().map(|key| score(values(key)));
        let most = scaled().fold(f64::NEG_INFINITY, f64::max);
        for (e, scaled) in scores.iter_mut().zip(scaled()) {
            *e = F::of((scaled - most) / left_factor / right_factor);
        }
    }

    /// `dqueries`, zero before, from `dscores`; adds to `dkeys`, and to the gradient of the parameters that only `scores` uses. A
    /// gradient without columns is not wanted.
    pub(super) fn scores_backward(
        &self,
        (queries, dqueries): (ArrayView2<'_, F>, ArrayViewMut2<'_, F>),
        (keys, dkeys): (ArrayView2<'_, F>, ArrayViewMut2<'_, F>),
        dscores: ArrayView2<'_, F>,
        grad: &mut Self,
    ) {
        match (self, grad) {
            (AttentionScore::Dot { .. } | AttentionScore::Bilinear(_), _) => {
                if !dqueries.is_empty() {
                    product(dscores.view(), keys, dqueries, Accumulate::Overwrite);
                }
                if !dkeys.is_empty() {
                    product(dscores.reversed_axes(), queries, dkeys, Accumulate::Add);
                }
            }
            (AttentionScore::Additive(score), AttentionScore::Additive(grad)) => {
                additive_backward(score.v.values(0), queries, keys, dscores, dqueries, dkeys, grad.v.tensor_mut(0));
            }
            _ => another_score(),
        }
    }
}

#[cold]
#[track_caller]
fn another_score() -> ! {
    mismatch(NAME, "grad", &"a gradient with the same score", &"one with another")
}

#[inline(always)]
fn values<F>(row: ArrayView1<'_, F>) -> &[F] {
    row.to_slice().expect("a row's features lie side by side")
}

#[inline(always)]
fn values_mut<F>(row: ArrayViewMut1<'_, F>) -> &mut [F] {
    row.into_slice().expect("a row's features lie side by side")
}

vectorised! {
    /// `e[t, s] = Σ v ∘ tanh(u[t] + k[s])`.
    fn additive_scores<'a, F: Float>(
        v: &'a [F],
        queries: ArrayView2<'a, F>,
        keys: ArrayView2<'a, F>,
        terms: &'a mut [F],
        scores: ArrayViewMut2<'a, F>
    ) {
        let mut scores = scores;
        for (u, scores) in queries.outer_iter().zip(scores.outer_iter_mut()) {
            for (k, e) in keys.outer_iter().zip(values_mut(scores)) {
                // First the terms, in a loop that vectorises, then their sum, whose order is fixed.
                for (((term, &v), &u), &k) in terms.iter_mut().zip(v).zip(values(u)).zip(values(k)) {
                    *term = v * tanh(u + k);
                }
                *e = sum([terms], |[term]| term);
            }
        }
    }
}

vectorised! {
    /// With `h = tanh(u[t] + k[s])`: `dv += de h`, and `de v ∘ (1 - h²)` is added to both `du[t]` and `dk[s]`.
    fn additive_backward<'a, F: Float>(
        v: &'a [F],
        queries: ArrayView2<'a, F>,
        keys: ArrayView2<'a, F>,
        dscores: ArrayView2<'a, F>,
        dqueries: ArrayViewMut2<'a, F>,
        dkeys: ArrayViewMut2<'a, F>,
        dv: &'a mut [F]
    ) {
        let (mut dqueries, mut dkeys) = (dqueries, dkeys);
        for ((u, du), dscores) in queries.outer_iter().zip(dqueries.outer_iter_mut()).zip(dscores.outer_iter()) {
            let (u, du) = (values(u), values_mut(du));
            for ((k, dk), &de) in keys.outer_iter().zip(dkeys.outer_iter_mut()).zip(values(dscores)) {
                let (k, dk) = (values(k), values_mut(dk));
                add_additive_term(de, v, u, k, dv, du, dk);
            }
        }
    }
}

/// One position of the memory for one query. A separate function, since the compiler knows only of arguments that slices do not
/// overlap.
#[inline(always)]
fn add_additive_term<F: Float>(de: F, v: &[F], u: &[F], k: &[F], dv: &mut [F], du: &mut [F], dk: &mut [F]) {
    let inputs = v.iter().zip(u).zip(k);
    for (((dv, du), dk), ((&v, &u), &k)) in dv.iter_mut().zip(du).zip(dk).zip(inputs) {
        let h = tanh(u + k);
        *dv += de * h;
        let da = de * v * d_tanh(h);
        *du += da;
        *dk += da;
    }
}
