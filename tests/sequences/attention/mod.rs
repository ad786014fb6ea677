//! Attention: gradients, whole and step by step, lengths, masks, exact cases, and mistakes.
//!
//! The comparisons with PyTorch are golden cases: `cargo test --test golden`.

mod exact;
mod gradients;
mod masks;
mod mistakes;
mod passes;

use gradflow::ndarray::{Array3, ArrayRef3, Axis, concatenate, s};
use gradflow::{
    Float, Sequence, Tensors, TensorsExt,
    attention::{AdditiveScore, Attention},
    author::AttentionCache,
};

use crate::common::{Within, assert_all_near, rng};

const STEPS: usize = 4;
const MEMORY_STEPS: usize = 6;
const BATCH: usize = 3;
const QUERY_LENGTHS: [usize; BATCH] = [4, 1, 3];
const MEMORY_LENGTHS: [usize; BATCH] = [2, 6, 5];

/// An attention of every score, for queries of `query` features and a memory of `memory` features.
fn every_score<F: Float>(query: usize, memory: usize) -> Vec<(&'static str, Attention<F>)> {
    let rng = &mut rng(11);
    let mut scores = vec![
        ("bilinear", Attention::bilinear(query, memory, rng)),
        ("additive", Attention::additive(query, memory, 7, rng)),
        ("additive without bias", AdditiveScore::new(query, memory, 19, rng).without_bias().into()),
    ];
    if query == memory {
        scores.extend([("dot", Attention::dot()), ("scaled dot", Attention::scaled_dot())]);
    }
    // The weights are large enough to tell one position from another.
    scores.iter_mut().for_each(|(_, attention)| attention.scale(F::of(2.0)));
    scores
}

/// The results of one pass.
struct Outcome<F> {
    context: Array3<F>,
    weights: Array3<F>,
    dquery: Array3<F>,
    dmemory: Array3<F>,
    grad: Attention<F>,
}

impl<F: Float> Outcome<F> {
    fn values(&self) -> Vec<F> {
        let of_grad = (0..self.grad.count()).flat_map(|i| self.grad.values(i));
        let arrays = [&self.context, &self.weights, &self.dquery, &self.dmemory];
        arrays.into_iter().flatten().chain(of_grad).copied().collect()
    }

    fn bits(&self) -> Vec<u64> {
        self.values().into_iter().map(|value| value.bits()).collect()
    }

    #[track_caller]
    fn assert_near(&self, other: &Self, what: &str) {
        let tolerance = if size_of::<F>() == 4 { 1e-4 } else { 2e-13 };
        assert_all_near(&self.values(), &other.values(), Within::either(tolerance), what);
    }
}

/// Runs the whole sequence at once.
fn whole<F: Float>(
    attention: &Attention<F>,
    query: Sequence<'_, F>,
    memory: Sequence<'_, F>,
    dcontext: &ArrayRef3<F>,
    cache: &mut AttentionCache<F>,
) -> Outcome<F> {
    let mut grad = attention.zeros_like();
    let context = attention.forward(query, memory, cache).to_owned();
    let weights = cache.weights().to_owned();
    let (dquery, dmemory) = attention.backward(query, memory, dcontext, cache, &mut grad);
    Outcome { context, weights, dquery: dquery.to_owned(), dmemory: dmemory.to_owned(), grad }
}

/// Runs `size` queries at a time.
fn by_steps<F: Float>(
    attention: &Attention<F>,
    query: &Array3<F>,
    memory: Sequence<'_, F>,
    dcontext: &Array3<F>,
    size: usize,
    cache: &mut AttentionCache<F>,
) -> Outcome<F> {
    let part = |x: &Array3<F>, t: usize| x.slice(s![t..x.dim().0.min(t + size), .., ..]).to_owned();
    let starts: Vec<usize> = (0..query.dim().0).step_by(size).collect();
    let (mut context, mut weights, mut dquery) = (vec![], vec![], vec![]);
    attention.memorize(memory, cache);
    for &t in &starts {
        let query = part(query, t);
        context.push(attention.attend(&query, memory, cache).to_owned());
        weights.push(cache.weights().to_owned());
        // An inference call in between keeps nothing and disturbs nothing.
        attention.attend(Sequence::from(&Array3::ones(query.raw_dim())).infer(), memory, cache);
    }
    let mut grad = attention.zeros_like();
    for &t in starts.iter().rev() {
        let (query, dcontext) = (part(query, t), part(dcontext, t));
        let dquery_t = attention.attend_backward(&query, memory, &dcontext, cache, &mut grad);
        dquery.insert(0, dquery_t.to_owned());
    }
    let dmemory = attention.memorize_backward(memory, cache, &mut grad).to_owned();
    let joined = |parts: &[Array3<F>]| {
        concatenate(Axis(0), &parts.iter().map(|part| part.view()).collect::<Vec<_>>()).expect("parts of one batch")
    };
    Outcome { context: joined(&context), weights: joined(&weights), dquery: joined(&dquery), dmemory, grad }
}

fn all_of(outcome: &Outcome<f64>) -> Outcome<f64> {
    let Outcome { context, weights, dquery, dmemory, grad } = outcome;
    let [context, weights, dquery, dmemory] = [context, weights, dquery, dmemory].map(Clone::clone);
    Outcome { context, weights, dquery, dmemory, grad: grad.clone() }
}
