//! Attention: gradients, lengths, step by step against the whole sequence, feedback, exact cases, mistakes.
//!
//! PyTorch's numbers are golden cases: `cargo test --test golden`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use allocation_counter::measure;
use gradflow::contract::Contract;
use gradflow::ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView3, Axis, concatenate, s};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    AdditiveScore, Attention, AttentionCache, AttentionScore, BilinearScore, Float, GradCheck, GruCell, Layer,
    Sequence, Size, SizeError, Tensors, TensorsExt, parameters,
};

const STEPS: usize = 4;
const MEMORY_STEPS: usize = 6;
const BATCH: usize = 3;
const QUERY_LENGTHS: [usize; BATCH] = [4, 1, 3];
const MEMORY_LENGTHS: [usize; BATCH] = [2, 6, 5];

fn rng() -> StdRng {
    StdRng::seed_from_u64(11)
}

/// One of every score, for queries of `query` features and a memory of `memory`.
fn every_score<F: Float>(query: usize, memory: usize) -> Vec<(&'static str, Attention<F>)> {
    let rng = &mut rng();
    let mut scores = vec![
        ("bilinear", Attention::bilinear(query, memory, rng)),
        ("additive", Attention::additive(query, memory, 7, rng)),
        ("additive without bias", AdditiveScore::new(query, memory, 19, rng).without_bias().into()),
    ];
    if query == memory {
        scores.extend([("dot", Attention::dot()), ("scaled dot", Attention::scaled_dot())]);
    }
    // Weights large enough to tell one position from another.
    scores.iter_mut().for_each(|(_, attention)| attention.scale(F::of(2.0)));
    scores
}

fn wave<F: Float>(shape: (usize, usize, usize), phase: f64) -> Array3<F> {
    Array3::from_shape_fn(shape, |(t, b, d)| F::of((1.7 * t as f64 + 3.1 * b as f64 + 5.3 * d as f64 + phase).sin()))
}

/// What one pass gives.
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
        assert_eq!(self.values().len(), other.values().len(), "{what}");
        let tolerance = if size_of::<F>() == 4 { 1e-4 } else { 2e-13 };
        for (got, want) in self.values().into_iter().zip(other.values()) {
            let (got, want) = (got.widen(), want.widen());
            assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{what}: {got:e} for {want:e}");
        }
    }
}

/// The whole sequence at once.
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

/// `size` queries at a time.
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
        context.push(attention.attend((&query).into(), memory, cache).to_owned());
        weights.push(cache.weights().to_owned());
        // Looking ahead keeps nothing and disturbs nothing.
        attention.attend(Sequence::from(&Array3::ones(query.raw_dim())).infer(), memory, cache);
    }
    let mut grad = attention.zeros_like();
    for &t in starts.iter().rev() {
        let (query, dcontext) = (part(query, t), part(dcontext, t));
        let dquery_t = attention.attend_backward((&query).into(), memory, &dcontext, cache, &mut grad);
        dquery.insert(0, dquery_t.to_owned());
    }
    let dmemory = attention.memorize_backward(memory, cache, &mut grad).to_owned();
    let joined = |parts: &[Array3<F>]| {
        concatenate(Axis(0), &parts.iter().map(|part| part.view()).collect::<Vec<_>>()).expect("parts of one batch")
    };
    Outcome { context: joined(&context), weights: joined(&weights), dquery: joined(&dquery), dmemory, grad }
}

/// Attention over a memory that counts among the parameters, so that [`GradCheck`] varies it too.
#[derive(Clone)]
struct OverMemory {
    attention: Attention<f64>,
    memory: Array3<f64>,
    lengths: Option<[usize; BATCH]>,
    by_steps: bool,
}
parameters! { impl Tensors<f64> for OverMemory { attention as "", memory; skip lengths, by_steps } }

impl OverMemory {
    fn memory(&self) -> Sequence<'_, f64> {
        let memory = Sequence::from(&self.memory);
        self.lengths.as_ref().map_or(memory, |lengths| memory.with_lengths(lengths).unwrap())
    }
}

#[derive(Default)]
struct OverMemoryCache {
    attention: AttentionCache<f64>,
    context: Array3<f64>,
    dquery: Array3<f64>,
}

impl Layer for OverMemory {
    type Elem = f64;
    type State = ();
    type Cache = OverMemoryCache;

    fn output_size(&self, _: Size) -> Result<usize, SizeError> {
        Ok(self.memory.dim().2)
    }

    fn zero_state(&self, _: usize) {}

    fn forward<'c>(&self, x: Sequence<'_, f64>, _: &mut (), cache: &'c mut OverMemoryCache) -> ArrayView3<'c, f64> {
        let OverMemoryCache { attention, context, .. } = cache;
        if !self.by_steps {
            return self.attention.forward(x, self.memory(), attention);
        }
        let query = x.features("OverMemory", None);
        *context = Array3::zeros((query.dim().0, BATCH, self.memory.dim().2));
        self.attention.memorize(self.memory(), attention);
        for t in 0..query.dim().0 {
            let query = query.slice(s![t..=t, .., ..]);
            context.slice_mut(s![t..=t, .., ..]).assign(&self.attention.attend(query.into(), self.memory(), attention));
        }
        context.view()
    }

    fn output<'c>(&self, cache: &'c OverMemoryCache) -> ArrayView3<'c, f64> {
        cache.context.view()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        _: Option<&mut ()>,
        cache: &'c mut OverMemoryCache,
        grad: &mut Self,
    ) -> ArrayView3<'c, f64> {
        let OverMemoryCache { attention, dquery, .. } = cache;
        if !self.by_steps {
            let (dquery, dmemory) = self.attention.backward(x, self.memory(), dy, attention, &mut grad.attention);
            grad.memory += &dmemory;
            return dquery;
        }
        let query = x.features("OverMemory", None);
        *dquery = Array3::zeros(query.raw_dim());
        for t in (0..query.dim().0).rev() {
            let (query, dy) = (query.slice(s![t..=t, .., ..]), dy.slice(s![t..=t, .., ..]));
            let grad = &mut grad.attention;
            let dquery_t = self.attention.attend_backward(query.into(), self.memory(), &dy, attention, grad);
            dquery.slice_mut(s![t..=t, .., ..]).assign(&dquery_t);
        }
        grad.memory += &self.attention.memorize_backward(self.memory(), attention, &mut grad.attention);
        dquery.view()
    }
}

#[test]
fn gradients_of_both_inputs_and_all_parameters_are_right() {
    for (query_size, memory_size) in [(5, 5), (3, 5)] {
        let query = wave((STEPS, BATCH, query_size), 0.2);
        let query = Sequence::from(&query);
        for (name, attention) in every_score::<f64>(query_size, memory_size) {
            for lengths in [None, Some(MEMORY_LENGTHS)] {
                for by_steps in [false, true] {
                    let memory = wave((MEMORY_STEPS, BATCH, memory_size), 1.3);
                    let layer = OverMemory { attention: attention.clone(), memory, lengths, by_steps };
                    let mut reports = vec![GradCheck::default().check(&layer, query, &())];
                    if !by_steps {
                        let query = query.with_lengths(&QUERY_LENGTHS).unwrap();
                        reports.push(GradCheck::default().check(&layer, query, &()));
                    }
                    for report in reports {
                        println!("{name:<22} by steps {by_steps:<5}  {:.1e}", report.worst_error());
                        assert!(report.passed() && report.tolerance <= 1e-6, "{name}, {lengths:?}\n{report}");
                        assert_eq!(report.tensors.len(), 2 + attention.count());
                    }
                }
            }
        }
    }
}

/// Self-attention: x is the query and the memory, and so everything that a layer promises holds for both.
#[derive(Clone)]
struct SelfAttention<F>(Attention<F>);

impl<F: Float> Tensors<F> for SelfAttention<F> {
    fn count(&self) -> usize {
        self.0.count()
    }
    fn name(&self, i: usize) -> String {
        self.0.name(i)
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        self.0.tensor(i)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [F] {
        self.0.tensor_mut(i)
    }
}

struct SelfAttentionCache<F> {
    attention: AttentionCache<F>,
    y: Array3<F>,
    dx: Array3<F>,
}

impl<F: Float> Default for SelfAttentionCache<F> {
    fn default() -> Self {
        SelfAttentionCache { attention: Default::default(), y: Default::default(), dx: Default::default() }
    }
}

impl<F: Float> Layer for SelfAttention<F> {
    type Elem = F;
    type State = ();
    type Cache = SelfAttentionCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        match input {
            Size::Features(features) => Ok(features),
            Size::Tokens => Err(SizeError::new("SelfAttention", "takes features, got token ids")),
        }
    }

    fn zero_state(&self, _: usize) {}

    fn forward<'c>(&self, x: Sequence<'_, F>, _: &mut (), cache: &'c mut Self::Cache) -> ArrayView3<'c, F> {
        let y = self.0.forward(x, x, &mut cache.attention);
        gradflow::cache::reuse(&mut cache.y, y.raw_dim());
        cache.y.assign(&y);
        cache.y.view()
    }

    fn output<'c>(&self, cache: &'c Self::Cache) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut Self::Cache,
        grad: &mut Self,
    ) -> ArrayView3<'c, F> {
        let (dquery, dmemory) = self.0.backward(x, x, dy, &mut cache.attention, &mut grad.0);
        gradflow::cache::reuse(&mut cache.dx, dquery.raw_dim());
        cache.dx.assign(&dquery);
        cache.dx += &dmemory;
        cache.dx.view()
    }
}

fn check_contract<F: Float>() {
    for (name, attention) in every_score::<F>(5, 5) {
        let layer = SelfAttention(attention);
        let count = |act: &mut dyn FnMut()| measure(act).count_total;
        let worst = Contract::new(name, &layer, 5).allocations(count).check();
        println!("{name:<24} {:>4}  {worst:.1e}", std::any::type_name::<F>());
    }
}

#[test]
fn self_attention_keeps_the_contract_of_a_layer() {
    check_contract::<f64>();
    check_contract::<f32>();
}

fn check_steps<F: Float>() {
    for (query_size, memory_size) in [(5, 5), (3, 5), (40, 33)] {
        // More queries than the products treat as few.
        let (query, memory) = (wave((20, BATCH, query_size), 0.2), wave((MEMORY_STEPS, BATCH, memory_size), 1.3));
        let dcontext = wave::<F>((20, BATCH, memory_size), 2.1);
        for (name, attention) in every_score::<F>(query_size, memory_size) {
            let memory = Sequence::from(&memory);
            for memory in [memory, memory.with_lengths(&MEMORY_LENGTHS).unwrap().train(7)] {
                let cache = &mut attention.cache();
                let want = whole(&attention, (&query).into(), memory, &dcontext, cache);
                for size in [1, 3, 20] {
                    let got = by_steps(&attention, &query, memory, &dcontext, size, cache);
                    got.assert_near(&want, &format!("{name}, {size} at a time"));
                }
            }
        }
    }
}

#[test]
fn step_by_step_equals_the_whole_sequence() {
    check_steps::<f64>();
    check_steps::<f32>();
}

/// The decoder may go back over its queries piece by piece, each before the next, over one memory.
#[test]
fn pieces_there_and_back_equal_the_whole_sequence() {
    let (query, memory) = (wave((STEPS, BATCH, 3), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let (dcontext, memory) = (wave((STEPS, BATCH, 5), 2.1), Sequence::from(&memory));
    for (name, attention) in every_score::<f64>(3, 5) {
        let mut cache = attention.cache();
        let mut want = whole(&attention, (&query).into(), memory, &dcontext, &mut cache);
        let mut grad = attention.zeros_like();
        attention.memorize(memory, &mut cache);
        for t in 0..STEPS {
            let (query, dcontext) = (query.slice(s![t..=t, .., ..]), dcontext.slice(s![t..=t, .., ..]));
            attention.attend(query.into(), memory, &mut cache);
            attention.attend_backward(query.into(), memory, &dcontext, &mut cache, &mut grad);
        }
        let dmemory = attention.memorize_backward(memory, &mut cache, &mut grad).to_owned();
        let got = Outcome { dmemory, grad, ..whole(&attention, (&query).into(), memory, &dcontext, &mut cache) };
        got.assert_near(&want, name);
        // And the comparison sees a difference.
        want.dmemory[[0, 0, 0]] += 1e-9;
        assert!(catch_unwind(AssertUnwindSafe(|| got.assert_near(&want, name))).is_err());
    }
}

fn check_padding<F: Float>() {
    for (query_size, memory_size) in [(5, 5), (3, 5)] {
        let run = |attention: &Attention<F>, junk: f64, cache: &mut AttentionCache<F>| {
            let fill = |x: &mut Array3<F>, lengths: &[usize]| {
                for (b, &length) in lengths.iter().enumerate() {
                    x.slice_mut(s![length.., b, ..]).fill(F::of(junk));
                }
            };
            let mut query = wave((STEPS, BATCH, query_size), 0.2);
            let (mut memory, mut dcontext) =
                (wave((MEMORY_STEPS, BATCH, memory_size), 1.3), wave((STEPS, BATCH, memory_size), 2.1));
            fill(&mut query, &QUERY_LENGTHS);
            fill(&mut memory, &MEMORY_LENGTHS);
            fill(&mut dcontext, &QUERY_LENGTHS);
            let query = Sequence::from(&query).with_lengths(&QUERY_LENGTHS).unwrap();
            let memory = Sequence::from(&memory).with_lengths(&MEMORY_LENGTHS).unwrap();
            whole(attention, query, memory, &dcontext, cache)
        };
        for (name, attention) in every_score::<F>(query_size, memory_size) {
            // A cache full of other numbers: they must not show either.
            let mut used = attention.cache();
            let ones = |features| Array3::ones((MEMORY_STEPS + 2, BATCH + 1, features));
            let (query, memory) = (ones(query_size), ones(memory_size));
            whole(&attention, (&query).into(), (&memory).into(), &memory, &mut used);

            let want = run(&attention, 0.5, &mut attention.cache());
            let got = run(&attention, f64::NAN, &mut used);
            assert_eq!(got.bits(), want.bits(), "{name}: what the padding holds changes the result");
            for b in 0..BATCH {
                let (last, length) = (QUERY_LENGTHS[b], MEMORY_LENGTHS[b]);
                let zero = |x: ArrayView3<'_, F>| x.iter().all(|x| x.bits() == 0);
                for x in [&got.context, &got.weights, &got.dquery] {
                    assert!(zero(x.slice(s![last.., b..=b, ..])), "{name}: not zero past the query's length");
                }
                assert!(zero(got.weights.slice(s![.., b..=b, length..])), "{name}: padding has a weight");
                assert!(zero(got.dmemory.slice(s![length.., b..=b, ..])), "{name}: padding has a gradient");
                for weights in got.weights.slice(s![..last, b, ..length]).outer_iter() {
                    let sum: f64 = weights.iter().map(|weight| weight.widen()).sum();
                    assert!((sum - 1.0).abs() < 1e-6 && weights.iter().all(|weight| weight.widen() > 0.0), "{name}");
                }
            }
        }
    }
}

#[test]
fn padding_is_never_read_and_has_no_weight() {
    check_padding::<f64>();
    check_padding::<f32>();
}

#[test]
fn a_sequence_alone_gives_what_it_gives_in_the_batch() {
    let (query, memory) = (wave((STEPS, BATCH, 3), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let dcontext = wave((STEPS, BATCH, 5), 2.1);
    for (name, attention) in every_score::<f64>(3, 5) {
        let mut sum = attention.zeros_like();
        let all = whole(
            &attention,
            Sequence::from(&query).with_lengths(&QUERY_LENGTHS).unwrap(),
            Sequence::from(&memory).with_lengths(&MEMORY_LENGTHS).unwrap(),
            &dcontext,
            &mut attention.cache(),
        );
        for b in 0..BATCH {
            let (last, length) = (QUERY_LENGTHS[b], MEMORY_LENGTHS[b]);
            // Views with the batch's strides, too.
            let (query, memory) = (query.slice(s![..last, b..=b, ..]), memory.slice(s![..length, b..=b, ..]));
            let dcontext = dcontext.slice(s![..last, b..=b, ..]);
            let got = whole(&attention, query.into(), memory.into(), &dcontext, &mut attention.cache());
            sum.add_assign(&got.grad);
            let want = Outcome {
                context: all.context.slice(s![..last, b..=b, ..]).to_owned(),
                weights: all.weights.slice(s![..last, b..=b, ..length]).to_owned(),
                dquery: all.dquery.slice(s![..last, b..=b, ..]).to_owned(),
                dmemory: all.dmemory.slice(s![..length, b..=b, ..]).to_owned(),
                grad: got.grad.clone(),
            };
            got.assert_near(&want, name);
        }
        Outcome { grad: sum, ..all_of(&all) }.assert_near(&all, name);
    }
}

fn all_of(outcome: &Outcome<f64>) -> Outcome<f64> {
    let Outcome { context, weights, dquery, dmemory, grad } = outcome;
    let [context, weights, dquery, dmemory] = [context, weights, dquery, dmemory].map(Clone::clone);
    Outcome { context, weights, dquery, dmemory, grad: grad.clone() }
}

/// A decoder whose cell reads the last context (input feeding, Luong, Pham and Manning 2015); its output is the
/// context.
#[derive(Clone)]
struct Decoder {
    cell: GruCell<f64>,
    attention: Attention<f64>,
    memory: Array3<f64>,
}
parameters! { impl Tensors<f64> for Decoder { cell, attention, memory } }

#[derive(Default)]
struct DecoderCache {
    steps: Vec<<GruCell<f64> as Layer>::Cache>,
    inputs: Vec<Array3<f64>>,  // [1, B, I + M]
    queries: Vec<Array3<f64>>, // [1, B, H]
    attention: AttentionCache<f64>,
    y: Array3<f64>,
    dx: Array3<f64>,
}

impl Layer for Decoder {
    type Elem = f64;
    type State = <GruCell<f64> as Layer>::State;
    type Cache = DecoderCache;

    fn output_size(&self, _: Size) -> Result<usize, SizeError> {
        Ok(self.memory.dim().2)
    }

    fn zero_state(&self, batch: usize) -> Self::State {
        self.cell.zero_state(batch)
    }

    fn forward<'c>(
        &self,
        x: Sequence<'_, f64>,
        state: &mut Self::State,
        cache: &'c mut DecoderCache,
    ) -> ArrayView3<'c, f64> {
        let (x, memory) = (x.features("Decoder", None), Sequence::from(&self.memory));
        let (steps, batch, _) = x.dim();
        *cache = DecoderCache { y: Array3::zeros((steps, batch, self.memory.dim().2)), ..DecoderCache::default() };
        self.attention.memorize(memory, &mut cache.attention);
        let mut context = Array3::zeros((1, batch, self.memory.dim().2));
        for t in 0..steps {
            let input = concatenate![Axis(2), x.slice(s![t..=t, .., ..]), context];
            let mut cell_cache = self.cell.cache();
            let query = self.cell.forward((&input).into(), state, &mut cell_cache).to_owned();
            context = self.attention.attend((&query).into(), memory, &mut cache.attention).to_owned();
            cache.y.slice_mut(s![t..=t, .., ..]).assign(&context);
            cache.inputs.push(input);
            cache.queries.push(query);
            cache.steps.push(cell_cache);
        }
        cache.y.view()
    }

    fn output<'c>(&self, cache: &'c DecoderCache) -> ArrayView3<'c, f64> {
        cache.y.view()
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        dstate: Option<&mut Self::State>,
        cache: &'c mut DecoderCache,
        grad: &mut Self,
    ) -> ArrayView3<'c, f64> {
        let (x, memory) = (x.features("Decoder", None), Sequence::from(&self.memory));
        let (steps, batch, features) = x.dim();
        let DecoderCache { steps: cell_caches, inputs, queries, attention, dx, .. } = cache;
        *dx = Array3::zeros(x.raw_dim());
        let dstate = dstate.expect("the check gives one");
        let mut fed_back = Array3::zeros((1, batch, self.memory.dim().2));
        for t in (0..steps).rev() {
            let (query, input) = (Sequence::from(&queries[t]), Sequence::from(&inputs[t]));
            let dcontext = &dy.slice(s![t..=t, .., ..]) + &fed_back;
            let dquery = self.attention.attend_backward(query, memory, &dcontext, attention, &mut grad.attention);
            let dinput = self.cell.backward(input, &dquery, Some(dstate), &mut cell_caches[t], &mut grad.cell);
            dx.slice_mut(s![t..=t, .., ..]).assign(&dinput.slice(s![.., .., ..features]));
            fed_back.assign(&dinput.slice(s![.., .., features..]));
        }
        grad.memory += &self.attention.memorize_backward(memory, attention, &mut grad.attention);
        dx.view()
    }
}

#[test]
fn gradients_through_feedback_of_the_context_are_right() {
    for (name, attention) in every_score(4, 4).into_iter().chain(every_score(4, 3)) {
        let features = match &attention.score {
            AttentionScore::Dot { .. } => 4,
            AttentionScore::Bilinear(score) => score.weight.ncols(),
            AttentionScore::Additive(score) => score.weight_memory.ncols(),
        };
        let cell = GruCell::new(2 + features, 4, &mut rng());
        let decoder = Decoder { cell, attention, memory: wave((MEMORY_STEPS, BATCH, features), 1.3) };
        let x = wave((STEPS, BATCH, 2), 0.2);
        let report = GradCheck::default().check(&decoder, (&x).into(), &decoder.zero_state(BATCH));
        assert!(report.passed() && report.tolerance <= 1e-6, "{name}\n{report}");
    }
}

fn check_allocations<F: Float>() {
    // Sizes that reach the packed products.
    let (query, memory) = (wave::<F>((20, BATCH, 33), 0.2), wave((30, BATCH, 33), 1.3));
    let lengths = [30, 7, 19];
    let memory = Sequence::from(&memory).with_lengths(&lengths).unwrap();
    for (name, attention) in every_score::<F>(33, 33) {
        let (mut cache, mut grad) = (attention.cache(), attention.zeros_like());
        let mut at_once = || {
            attention.forward((&query).into(), memory, &mut cache);
            attention.backward((&query).into(), memory, &query, &mut cache, &mut grad);
        };
        assert!(measure(&mut at_once).count_total > 0, "{name}: the counter counts nothing");
        assert_eq!(measure(&mut at_once).count_total, 0, "{name}: the second pass allocates");

        let step = |t: usize| query.slice(s![t..=t, .., ..]);
        let (mut cache, mut grad) = (attention.cache(), attention.zeros_like());
        let mut step_by_step = || {
            attention.memorize(memory, &mut cache);
            for t in 0..20 {
                attention.attend(step(t).into(), memory, &mut cache);
            }
            for t in (0..20).rev() {
                attention.attend_backward(step(t).into(), memory, &step(t), &mut cache, &mut grad);
            }
            attention.memorize_backward(memory, &mut cache, &mut grad);
        };
        step_by_step();
        assert_eq!(measure(&mut step_by_step).count_total, 0, "{name}: the second pass, step by step, allocates");

        let mut cache = attention.cache();
        attention.memorize(memory.infer(), &mut cache);
        let mut decode = |t| {
            attention.attend(Sequence::from(step(t)), memory.infer(), &mut cache);
        };
        decode(0);
        assert_eq!(measure(|| (1..20).for_each(&mut decode)).count_total, 0, "{name}: decoding allocates");
    }
}

#[test]
fn nothing_is_allocated_from_the_second_pass_on() {
    check_allocations::<f32>();
    check_allocations::<f64>();
}

/// No difference between positions, no preference: the context is the mean.
#[test]
fn without_parameters_the_context_is_the_mean() {
    let (query, memory) = (wave((STEPS, BATCH, 3), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    for (name, attention) in every_score::<f64>(3, 5) {
        let (attention, mut cache) = (attention.zeros_like(), attention.cache());
        let memory = Sequence::from(&memory).with_lengths(&MEMORY_LENGTHS).unwrap();
        let context = attention.forward((&query).into(), memory, &mut cache);
        let memory = memory.features("test", None);
        for (b, &length) in MEMORY_LENGTHS.iter().enumerate() {
            let mean = memory.slice(s![..length, b, ..]).mean_axis(Axis(0)).unwrap();
            for context in context.slice(s![.., b, ..]).outer_iter() {
                assert!((&context - &mean).iter().all(|error| error.abs() < 1e-15), "{name}");
            }
        }
    }
}

/// Scores of which `exp` overflows: all weight is on the largest.
#[test]
fn large_scores_do_not_overflow() {
    for (sign, at) in [(1.0, 2), (-1.0, 0)] {
        let query = Array3::from_elem((1, 1, 1), sign * 1e6);
        let memory = Array3::from_shape_vec((3, 1, 1), vec![-1.0, 0.5, 2.0]).unwrap();
        let attention = Attention::<f32>::dot();
        let mut cache = attention.cache();
        let context = attention.forward((&query).into(), (&memory).into(), &mut cache)[[0, 0, 0]];
        assert_eq!(context, memory[[at, 0, 0]]);
        let weights: Vec<f32> = cache.weights().iter().copied().collect();
        assert_eq!(weights, [f32::from(at == 0), 0.0, f32::from(at == 2)]);
        let dcontext = Array3::ones((1, 1, 1));
        let (dquery, dmemory) =
            attention.backward((&query).into(), (&memory).into(), &dcontext, &mut cache, &mut attention.zeros_like());
        // The scores pull at nothing; the memory's gradient is that of its mean.
        assert_eq!(dquery[[0, 0, 0]], 0.0);
        assert_eq!(dmemory.iter().copied().collect::<Vec<_>>(), weights);
    }
}

#[test]
fn a_scaled_dot_is_the_dot_of_a_scaled_query() {
    let (query, memory) = (wave::<f64>((STEPS, BATCH, 9), 0.2), wave((MEMORY_STEPS, BATCH, 9), 1.3));
    let (dot, scaled) = (Attention::dot(), Attention::scaled_dot());
    let third = &query / 3.0;
    let want = whole(&dot, (&third).into(), (&memory).into(), &query, &mut dot.cache());
    let mut got = whole(&scaled, (&query).into(), (&memory).into(), &query, &mut scaled.cache());
    got.dquery *= 3.0;
    got.assert_near(&want, "scaled");
}

#[test]
fn nan_is_never_masked() {
    let (mut query, mut memory) = (wave((STEPS, BATCH, 5), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    query[[2, 1, 4]] = f64::NAN;
    memory[[3, 2, 0]] = f64::NAN;
    for (name, attention) in every_score::<f64>(5, 5) {
        let mut cache = attention.cache();
        let context = attention.forward((&query).into(), (&memory).into(), &mut cache);
        for ((t, b, _), context) in context.indexed_iter() {
            assert_eq!(context.is_nan(), (t, b) == (2, 1) || b == 2, "{name}: {t}, {b}");
        }
        assert!(cache.weights().slice(s![.., 2, ..]).iter().all(|weight| weight.is_nan()), "{name}");
    }
}

#[test]
fn unwanted_gradients_are_spared_and_change_no_other() {
    let (query, memory) = (wave((STEPS, BATCH, 5), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let (query, memory) = (Sequence::from(&query), Sequence::from(&memory));
    let dcontext = wave((STEPS, BATCH, 5), 2.1);
    for (name, attention) in every_score::<f64>(5, 5) {
        let cache = &mut attention.cache();
        let want = whole(&attention, query, memory, &dcontext, cache);
        let none = Array3::zeros((0, 0, 0));
        let got = whole(&attention, query.constant(), memory, &dcontext, cache);
        assert!(got.dquery.is_empty(), "{name}");
        let same = Outcome { dquery: none.clone(), ..all_of(&want) };
        assert_eq!(Outcome { dquery: none.clone(), ..got }.bits(), same.bits(), "{name}");
        let got = whole(&attention, query, memory.constant(), &dcontext, cache);
        assert!(got.dmemory.is_empty(), "{name}");
        let same = Outcome { dmemory: none.clone(), ..all_of(&want) };
        assert_eq!(Outcome { dmemory: none, ..got }.bits(), same.bits(), "{name}");
    }
}

#[test]
fn parameters_have_names_and_start_as_linear_layers() {
    let rng = &mut rng();
    let attention = Attention::<f64>::additive(4, 9, 16, rng);
    assert_eq!(attention.names(), ["weight_query", "weight_memory", "bias", "v"]);
    assert_eq!((0..4).map(|i| attention.shape(i)).collect::<Vec<_>>(), [&[16, 4][..], &[16, 9], &[16], &[16]]);
    for (i, bound) in [(0, 1.0 / 2.0), (1, 1.0 / 3.0), (2, 1.0 / 2.0), (3, 1.0 / 4.0)] {
        let largest = attention.values(i).iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        assert!(largest <= bound && largest > 0.8 * bound, "{}: {largest} for {bound}", attention.name(i));
    }
    let without = Attention::from(AdditiveScore::<f64>::new(4, 9, 16, rng).without_bias());
    assert_eq!(without.names(), ["weight_query", "weight_memory", "v"]);
    let attention = Attention::<f64>::bilinear(4, 9, rng);
    assert_eq!((attention.names(), attention.shape(0)), (vec!["weight".to_owned()], &[4, 9][..]));
    assert!(attention.values(0).iter().all(|value| value.abs() <= 1.0 / 3.0));
    assert_eq!(Attention::<f32>::dot().count(), 0);
    assert_eq!(attention.zeros_like().values(0), [0.0; 36]);
}

/// What `act` panics with.
fn panic_of<R>(act: impl FnOnce() -> R) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(act)) else { panic!("expected a panic") };
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().expect("a message").to_string(),
    }
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    assert!(!message.contains('\n'), "{message}");
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in {message:?}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let rng = &mut rng();
    let forward = |attention: &Attention<f64>, query, memory| {
        let (query, memory) = (Array3::<f64>::zeros(query), Array3::zeros(memory));
        panic_of(|| attention.forward((&query).into(), (&memory).into(), &mut attention.cache()).to_owned())
    };
    let (bilinear, additive) = (Attention::bilinear(3, 5, rng), Attention::additive(3, 5, 7, rng));
    for attention in [&bilinear, &additive] {
        assert_says(&forward(attention, (4, 2, 6), (6, 2, 5)), &["Attention: query", "[T, B, 3]", "[4, 2, 6]"]);
        assert_says(&forward(attention, (4, 2, 3), (6, 2, 4)), &["Attention: memory", "[T, B, 5]", "[6, 2, 4]"]);
        assert_says(&forward(attention, (4, 1, 3), (6, 2, 5)), &["Attention: query", "[4, 2, 3]", "[4, 1, 3]"]);
        for query in [(0, 2, 3), (4, 0, 3)] {
            assert_says(&forward(attention, query, (6, 2, 5)), &["Attention: query", "at least one step"]);
        }
        for memory in [(0, 2, 5), (6, 0, 5)] {
            assert_says(&forward(attention, (4, 2, 3), memory), &["Attention: memory", "at least one step"]);
        }
    }
    let dot = Attention::dot();
    assert_says(&forward(&dot, (4, 2, 3), (6, 2, 5)), &["Attention: query", "[T, B, 5]", "[4, 2, 3]"]);
    assert_says(&forward(&dot, (4, 2, 0), (6, 2, 0)), &["Attention: memory", "at least one step"]);
    let ids = Array2::zeros((4, 2));
    let memory = Array3::zeros((6, 2, 5));
    let message = panic_of(|| dot.forward((&ids).into(), (&memory).into(), &mut dot.cache()).to_owned());
    assert_says(&message, &["Attention: query", "[T, B, 5]", "token ids"]);

    assert_says(&panic_of(|| BilinearScore::<f64>::new(0, 5, rng)), &["Attention", "sizes must not be 0", "query 0"]);
    assert_says(&panic_of(|| AdditiveScore::<f64>::new(3, 5, 0, rng)), &["sizes must not be 0", "hidden 0"]);
    let AttentionScore::Additive(score) = additive.score else { panic!("not additive") };
    let misfit = AdditiveScore { v: Array1::zeros(6), ..score.clone() };
    assert_says(&forward(&misfit.into(), (4, 2, 3), (6, 2, 5)), &["Attention: v", "[7]", "[6]"]);
    let misfit = AdditiveScore { bias: Some(Array1::zeros(6)), ..score.clone() };
    assert_says(&forward(&misfit.into(), (4, 2, 3), (6, 2, 5)), &["Attention: bias", "[7]", "[6]"]);
    let misfit = AdditiveScore { weight_memory: Array2::zeros((6, 5)), ..score };
    assert_says(&forward(&misfit.into(), (4, 2, 3), (6, 2, 5)), &["Attention: weight_memory", "[7, 5]", "[6, 5]"]);
}

#[test]
fn calls_out_of_order_are_refused() {
    let (query, memory) = (wave((STEPS, BATCH, 5), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let (other_query, other_memory) = (&query + 1.0, &memory + 1.0);
    let (query, memory) = (Sequence::from(&query), Sequence::from(&memory));
    let (other_query, other_memory) = (Sequence::from(&other_query), Sequence::from(&other_memory));
    let dcontext = wave((STEPS, BATCH, 5), 2.1);
    for (_, attention) in every_score::<f64>(5, 5) {
        let new = || (attention.cache(), attention.zeros_like());

        let (mut cache, mut grad) = new();
        assert_says(&panic_of(|| cache.weights().to_owned()), &["weights", "an `attend` before", "a new cache"]);
        assert_says(
            &panic_of(|| attention.attend(query, memory, &mut cache).to_owned()),
            &["call `memorize`", "stale"],
        );
        let message = panic_of(|| attention.memorize_backward(memory, &mut cache, &mut grad).to_owned());
        assert_says(&message, &["call `memorize`", "stale"]);

        attention.memorize(memory, &mut cache);
        let message = panic_of(|| attention.attend(query, other_memory, &mut cache).to_owned());
        assert_says(&message, &["Attention: memory", "the memory of `memorize`", "another (stale cache)"]);
        let message = panic_of(|| attention.attend(query, memory.train(1), &mut cache).to_owned());
        assert_says(&message, &["Attention: memory", "in its mode"]);
        let backward = |query, dcontext: &Array3<f64>, cache: &mut AttentionCache<f64>, grad: &mut Attention<f64>| {
            attention.attend_backward(query, memory, dcontext, cache, grad).to_owned()
        };
        let message = panic_of(|| backward(query, &dcontext, &mut cache, &mut grad));
        assert_says(&message, &["Attention: cache", "an `attend` that awaits its backward", "none"]);

        // In the order of the forward passes, not its reverse.
        attention.attend(query, memory, &mut cache);
        attention.attend(other_query, memory, &mut cache);
        let message = panic_of(|| backward(query, &dcontext, &mut cache.clone(), &mut grad));
        assert_says(&message, &["Attention: query", "the last `attend`", "reverse order"]);
        let message = panic_of(|| attention.memorize_backward(memory, &mut cache, &mut grad).to_owned());
        assert_says(&message, &["every `attend` first", "2 that await it"]);
        backward(other_query, &dcontext, &mut cache, &mut grad);
        let wrong = Array3::zeros((STEPS, BATCH, 6));
        let message = panic_of(|| backward(query, &wrong, &mut cache.clone(), &mut grad));
        assert_says(&message, &["Attention: dcontext", "[4, 3, 5]", "[4, 3, 6]"]);
        let mut other_grad = Attention::bilinear(4, 5, &mut rng());
        let message = panic_of(|| backward(query, &dcontext, &mut cache.clone(), &mut other_grad));
        assert_says(&message, &["Attention: grad"]);
        backward(query, &dcontext, &mut cache, &mut grad);
        attention.memorize_backward(memory, &mut cache, &mut grad);
        assert_says(&panic_of(|| backward(query, &dcontext, &mut cache, &mut grad)), &["call `memorize`", "stale"]);

        // Inference keeps nothing.
        attention.memorize(memory.infer(), &mut cache);
        attention.attend(query, memory.infer(), &mut cache);
        let infer = memory.infer();
        let message = panic_of(|| attention.memorize_backward(infer, &mut cache, &mut grad).to_owned());
        assert_says(&message, &["an inference pass"]);
        let message = panic_of(|| attention.attend_backward(query, infer, &dcontext, &mut cache, &mut grad).to_owned());
        assert_says(&message, &["an `attend` that awaits its backward", "inference"]);
        attention.memorize(memory, &mut cache);
        attention.attend(query.infer(), memory, &mut cache);
        let message = panic_of(|| backward(query.infer(), &dcontext, &mut cache, &mut grad));
        assert_says(&message, &["an `attend` that awaits its backward", "inference"]);
    }
}
