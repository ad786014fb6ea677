//! Kind `attention`: the whole sequence at once, for every score.

use gradflow::ndarray::{Array3, Ix1, Ix3};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    Float, Sequence,
    attention::{AdditiveScore, Attention},
    author::AttentionCache,
};

use crate::{Case, Results};

pub fn run<F: Float>(case: &Case) -> Result<Results, String> {
    let rng = &mut StdRng::seed_from_u64(0);
    let (query, memory) = (case.size("query_size")?, case.size("memory_size")?);
    let mut attention = match case.text("score")? {
        "dot" => Attention::<F>::dot(),
        "scaled_dot" => Attention::scaled_dot(),
        "bilinear" => Attention::bilinear(query, memory, rng),
        "additive" => {
            let score = AdditiveScore::new(query, memory, case.size("hidden_size")?, rng);
            if case.flag("bias")? { score.into() } else { score.without_bias().into() }
        }
        score => return Err(format!("unknown score {score}")),
    };
    case.load(&mut attention, |name| name)?;

    let (query, memory) = (case.array::<F, Ix3>("input.query")?, case.array::<F, Ix3>("input.memory")?);
    let dcontext = case.array::<F, Ix3>("grad_output.context")?;
    let [query_lengths, memory_lengths] = ["input.query_lengths", "input.memory_lengths"].map(|name| {
        let given = case.given(name).map(|_| case.integers::<Ix1>(name));
        Ok::<_, String>(given.transpose()?.map(|lengths| lengths.to_vec()))
    });
    let (query_lengths, memory_lengths) = (query_lengths?, memory_lengths?);
    let query = with_lengths(&query, query_lengths.as_deref())?;
    let memory = with_lengths(&memory, memory_lengths.as_deref())?;

    let (mut cache, mut grad) = (attention.cache(), attention.zeros_like());
    use_cache(&attention, query, memory, &mut cache);
    let mut results = Results::default();
    results.array("output.context", &attention.forward(query, memory, &mut cache));
    results.array("output.weights", &cache.weights());
    let (dquery, dmemory) = attention.backward(query, memory, &dcontext, &mut cache, &mut grad);
    results.array("grad.query", &dquery);
    results.array("grad.memory", &dmemory);
    results.tensors("grad.", &grad, |name| name);
    Ok(results)
}

fn with_lengths<'a, F: Float>(x: &'a Array3<F>, lengths: Option<&'a [usize]>) -> Result<Sequence<'a, F>, String> {
    match lengths {
        Some(lengths) => Sequence::from(x).with_lengths(lengths).map_err(|error| error.to_string()),
        None => Ok(x.into()),
    }
}

/// Uses the cache as [`super::use_cache`] does, for two inputs.
fn use_cache<F: Float>(
    attention: &Attention<F>,
    query: Sequence<'_, F>,
    memory: Sequence<'_, F>,
    cache: &mut AttentionCache<F>,
) {
    let ones = |x: Sequence<'_, F>| Array3::<F>::ones(x.features("case", None).raw_dim());
    let (query, memory) = (ones(query), ones(memory));
    let dcontext = attention.forward(&query, &memory, cache).to_owned();
    attention.backward(&query, &memory, &dcontext, cache, &mut attention.zeros_like());
}
