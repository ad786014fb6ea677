//! Gradients against differences, directly and through feedback, and the contract of a layer.

use gradflow::check::Contract;
use gradflow::ndarray::{Array3, ArrayRef3, ArrayView3, Axis, concatenate, s};
use gradflow::{
    Float, Layer, Sequence, Tensors,
    attention::{Attention, AttentionScore},
    author::{AttentionCache, Gradient, Size, SizeError},
    check::GradCheck,
    parameters,
    recurrent::GruCell,
};

use super::{BATCH, MEMORY_LENGTHS, MEMORY_STEPS, QUERY_LENGTHS, STEPS, every_score};
use crate::common::{allocations, rng, wave};

/// Attention over a memory that is one of the parameters, so that [`GradCheck`] varies it too.
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

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        _: &mut (),
        cache: &'c mut OverMemoryCache,
    ) -> ArrayView3<'c, f64> {
        let OverMemoryCache { attention, context, .. } = cache;
        if !self.by_steps {
            return self.attention.forward(x, self.memory(), attention);
        }
        let query = x.features("OverMemory", None);
        *context = Array3::zeros((query.dim().0, BATCH, self.memory.dim().2));
        self.attention.memorize(self.memory(), attention);
        for t in 0..query.dim().0 {
            let query = query.slice(s![t..=t, .., ..]);
            context.slice_mut(s![t..=t, .., ..]).assign(&self.attention.attend(query, self.memory(), attention));
        }
        context.view()
    }

    fn output<'c>(&self, cache: &'c OverMemoryCache) -> ArrayView3<'c, f64> {
        cache.context.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        _: Option<&mut ()>,
        cache: &'c mut OverMemoryCache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, f64> {
        let grad = grad.to_add();
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
            let dquery_t = self.attention.attend_backward(query, self.memory(), &dy, attention, grad);
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

/// Self-attention: x is both the query and the memory, so everything that a layer promises holds for both.
#[derive(Clone)]
struct SelfAttention<F> {
    attention: Attention<F>,
}
parameters! { impl<F: Float> Tensors<F> for SelfAttention<F> { attention as "" } }

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

    fn forward_pass<'c>(&self, x: &Sequence<'_, F>, _: &mut (), cache: &'c mut Self::Cache) -> ArrayView3<'c, F> {
        let y = self.attention.forward(x, x, &mut cache.attention);
        gradflow::author::reuse(&mut cache.y, y.raw_dim());
        cache.y.assign(&y);
        cache.y.view()
    }

    fn output<'c>(&self, cache: &'c Self::Cache) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        _: Option<&mut ()>,
        cache: &'c mut Self::Cache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, F> {
        let grad = grad.to_add();
        let (dquery, dmemory) = self.attention.backward(x, x, dy, &mut cache.attention, &mut grad.attention);
        gradflow::author::reuse(&mut cache.dx, dquery.raw_dim());
        cache.dx.assign(&dquery);
        cache.dx += &dmemory;
        cache.dx.view()
    }
}

fn check_contract<F: Float>() {
    for (name, attention) in every_score::<F>(5, 5) {
        let layer = SelfAttention { attention };
        let count = |act: &mut dyn FnMut()| allocations(act);
        let worst = Contract::new(name, &layer, 5).allocations(count).check();
        println!("{name:<24} {:>4}  {worst:.1e}", std::any::type_name::<F>());
    }
}

#[test]
fn self_attention_keeps_the_contract_of_a_layer() {
    check_contract::<f64>();
    check_contract::<f32>();
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

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
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
            let query = self.cell.forward(&input, state, &mut cell_cache).to_owned();
            context = self.attention.attend(&query, memory, &mut cache.attention).to_owned();
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

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        dstate: Option<&mut Self::State>,
        cache: &'c mut DecoderCache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, f64> {
        let grad = grad.to_add();
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
            score => unreachable!("{score:?}"),
        };
        let cell = GruCell::new(2 + features, 4, &mut rng(11));
        let decoder = Decoder { cell, attention, memory: wave((MEMORY_STEPS, BATCH, features), 1.3) };
        let x = wave((STEPS, BATCH, 2), 0.2);
        let report = GradCheck::default().check(&decoder, (&x).into(), &decoder.zero_state(BATCH));
        assert!(report.passed() && report.tolerance <= 1e-6, "{name}\n{report}");
    }
}
